"""The error of the LETOR reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UserError


class LetorError(UserError):
    """What is wrong in a LETOR file, where, and how to fix it.

    The message names the arguments of `read_letor`. A command that has its own names for them (`data.unsorted`,
    `--unsorted`) catches the error and raises or prints `error.named(NAMES)` instead, where NAMES maps an argument to
    the command's name for it. An argument that is missing in NAMES is one that the command does not offer: its
    message then contains only the fix in the file.

    Args:
      what: what is wrong, without a full stop at the end.
      path: the file.
      line: counts from 1; None: the file as a whole.
      fix: how to correct the file.
      argument: the argument of `read_letor` that makes it read this file as it is; None: there is none.
      value: what to set the argument to.

    >>> NAMES = {"unsorted": "data.unsorted", "group_sizes": "data.group_suffix"}
    >>> error = LetorError("'1:5' is out of order", "a.txt", 7, fix="sort it", argument="unsorted", value="accept")
    >>> str(error)
    "a.txt:7: '1:5' is out of order. Fix: sort it, or set unsorted to accept"
    >>> str(error.named(NAMES))
    "a.txt:7: '1:5' is out of order. Fix: sort it, or set data.unsorted to accept"
    >>> str(error.named({}))
    "a.txt:7: '1:5' is out of order. Fix: sort it"
    """

    def __init__(
        self,
        what: str,
        path: Path | str = "",
        line: int | None = None,
        *,
        fix: str = "",
        argument: str | None = None,
        value: str = "",
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.line = Path(path), line
        self.file_fix, self.argument, self.value = fix, argument, value
        name = argument if names is None or argument is None else names.get(argument)
        if name is not None:
            setting = f"set {name} to {value}" if value else f"set {name}"
            fix = f"{fix}, or {setting}" if fix else setting
        super().__init__(what, where=str(path) if line is None else f"{path}:{line}", fix=fix)

    def named(self, names: Mapping[str, str]) -> LetorError:
        """The same error, with the caller's names for the arguments of `read_letor`."""
        return LetorError(
            self.what, self.path, self.line,
            fix=self.file_fix, argument=self.argument, value=self.value, names=names,
        )  # fmt: skip

"""Errors that a user can fix, and the exit codes of every command."""

from __future__ import annotations

DONE = 0
FAILED = 1  # an error of the program: the traceback is in the log
USER_ERROR = 2  # an error that the message names together with its fix
REFUSED_BY_GATE = 3  # evaluate.gate
INTERRUPTED = 75  # EX_TEMPFAIL: the same command continues where this one stopped
STOPPED = 130  # Ctrl-C


class UserError(ValueError):
    """Something that the user can fix: an option, a file, the environment.

    Args:
      what: what is wrong, without a full stop at the end.
      where: file and line, or key=value.
      fix: what to do or to type.

    >>> str(UserError("the label is not a number", where="train.txt:7", fix="remove the row"))
    'train.txt:7: the label is not a number. Fix: remove the row'
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__((f"{where}: " if where else "") + what + (f". Fix: {fix}" if fix else ""))

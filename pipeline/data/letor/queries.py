"""Where the queries of a LETOR file begin, and what is wrong in it beyond single lines."""

from __future__ import annotations

import itertools
import logging
import re
from pathlib import Path

import numpy as np

from pipeline.data.letor.block import Block
from pipeline.data.letor.checks import Problem, excerpt
from pipeline.data.letor.errors import LetorError
from pipeline.data.letor.text import read_blocks

log = logging.getLogger(__name__)

_SIZES_FIX = "give the group file of this data file: the number of rows of each query, one a line"
_GLUED = re.compile(
    r"(.*?)([,;]?)(\d+):[-+.\d][-+.\deE:]*"
)  # a query id, an index and a value without a blank
_ANY_NUMBER = ""  # stands for every query id that is a number
_MIN_EQUAL_ROWS = 100  # a file with so many rows of equally many features has as many in all rows


class Queries:
    """Follows the blocks of one file in order: `begin` and `end` for each, `finish` after the last.

    Args:
      path: the file.
      regroup: a query may return after others.
      group_sizes: a file with the number of rows of each query, for a file without qid.
    """

    def __init__(self, path: Path, *, regroup: bool = False, group_sizes: Path | None = None) -> None:
        self._path, self._regroup = path, regroup
        self._sizes = None if group_sizes is None else _read_group_sizes(group_sizes)
        self._sum_of_sizes = 0 if self._sizes is None else sum(self._sizes)
        self._next = 0  # the first row of the next query, according to the sizes
        self._name: str | None = None  # the query id of the last row, according to the text
        self._first_lines: dict[str, int] = {}  # by query id
        self._number = ""  # the first query id that is a number
        self._glued: dict[str, str] = {}  # from an id that may be meant to an id such as 'q21:0.5'
        self._num_queries = self._num_rows = self._num_lines = 0
        self._narrowest, self._widest = 1 << 40, 0  # the fewest and the most features of a row
        self._is_open = False  # the last row has no newline
        self._problems: list[Problem] = []

    def begin(self, block: Block) -> list[tuple[int, str]]:
        """(first row, query id) of the queries that begin in the next block."""
        self._problems = [] if block.problem is None else [block.problem]
        self._check_last_row(block)
        return self._by_text(block) if self._sizes is None else self._by_size(block)

    def _check_last_row(self, block: Block) -> None:
        """A last row without newline is cut off if it has fewer features than all others, which have equally many."""
        if block.problem or not len(block.labels):
            return
        widths = np.diff(block.row_ends, prepend=0)
        self._is_open = not block.has_end and bool(block.row_lines[-1] == block.num_lines - 1)
        complete = widths[:-1] if self._is_open else widths
        self._narrowest = int(complete.min(initial=self._narrowest))
        self._widest = int(complete.max(initial=self._widest))
        is_narrow = widths[-1] < self._narrowest == self._widest
        if self._is_open and is_narrow and self._num_rows + len(complete) >= _MIN_EQUAL_ROWS:
            what = f"cut off: {widths[-1]} features and no newline, but {self._widest} features in every row before"
            fix = "copy or download the file again; if it is complete, end its last line with a newline"
            self._problems.append(Problem(block.num_lines - 1, what, fix))

    def _by_text(self, block: Block) -> list[tuple[int, str]]:
        found = []
        for row, name in block.queries:
            if name == self._name:  # continues from the block before
                continue
            line = int(block.row_lines[row])
            if not self._regroup and name in self._first_lines:
                what = f"query {name!r} again, after others; its rows began in line {self._first_lines[name]}"
                self._problems.append(Problem(line, what, "bring its rows together", "regroup", "true"))
                break
            self._first_lines.setdefault(name, self._num_lines + line + 1)
            self._check_blank(name, line)
            self._name = name
            found.append((row, name))
        return found

    def _check_blank(self, name: str, line: int) -> None:
        """'qid:q21:0.5' beside a query 'q2' or 'q', and 'qid:21:0.5' beside a number, probably lack a blank."""
        is_number = name.isdigit()
        if is_number and not self._number:
            self._number = name
        meant = [_ANY_NUMBER if is_number else name]
        glued = _GLUED.fullmatch(name) if ":" in name else None
        if glued:
            head, separator, digits = glued.groups()
            meant = [head]
            if head and not separator:
                meant = [head + digits[:-end] for end in range(1, min(len(digits), 7) + 1)]
            meant = [_ANY_NUMBER if not other or other.isdigit() else other for other in meant]
            for other in meant:
                self._glued.setdefault(other, name)
        for other in meant:
            beside = self._number if other == _ANY_NUMBER else other
            if other in self._glued and beside in self._first_lines:
                first, second = (
                    f"{id!r} (line {self._first_lines[id]})" for id in (self._glued[other], beside)
                )
                fix = "write a blank between query id and first feature, or '_' for ':' if it is one query id"
                self._problems.append(Problem(line, f"query {first} beside query {second}", fix))
                return

    def _by_size(self, block: Block) -> list[tuple[int, str]]:
        assert self._sizes is not None
        found = []
        num_rows = self._num_rows + len(block.labels)
        while self._next < num_rows and self._num_queries < len(self._sizes):
            found.append((self._next - self._num_rows, str(self._num_queries + 1)))
            self._next += self._sizes[self._num_queries]
            self._num_queries += 1
        if num_rows > self._sum_of_sizes:
            line = int(block.row_lines[self._sum_of_sizes - self._num_rows])
            what = f"row {self._sum_of_sizes + 1}, but the group sizes sum to {self._sum_of_sizes}"
            self._problems.append(Problem(line, what, _SIZES_FIX))
        return found

    def end(
        self, block: Block, *problems: Problem | None, overflow: int = -1, is_compressed: bool = False
    ) -> None:
        """Checks the block after its rows are in their matrix, where row `overflow` has a sum that is too large.

        Raises:
          LetorError: the first problem of the block, `problems` included.
        """
        self._problems += [problem for problem in problems if problem is not None]
        if overflow >= 0:
            what = "the sum of a feature's values is too large for float32"
            line = int(block.row_lines[overflow])
            self._problems.append(Problem(line, what, "keep one value", "duplicates", "first or last"))
        if self._problems:
            raise self.error(min(self._problems, key=lambda problem: problem.line), is_compressed)
        self._num_rows += len(block.labels)
        self._num_lines += block.num_lines

    def finish(self) -> None:
        """Raises LetorError for a file that ended too early."""
        if self._num_rows == 0:
            raise LetorError(
                "no row in the file", self._path, fix="give a file with lines such as '2 qid:1 1:0.5'"
            )
        if self._num_rows < self._sum_of_sizes:
            what = f"{self._num_rows} rows, but the group sizes sum to {self._sum_of_sizes}"
            raise LetorError(what, self._path, fix=_SIZES_FIX)
        if self._is_open:
            log.warning(
                "%s:%d: the last row has no newline: is the file complete?", self._path, self._num_lines
            )

    def error(self, problem: Problem, is_compressed: bool) -> LetorError:
        """The error for a problem in the current block."""
        line, what, fix, argument, value = problem
        if is_compressed:  # its checksum follows at the end
            fix += " (if the file is damaged, copy or download it again)"
        return LetorError(
            what, self._path, self._num_lines + line + 1, fix=fix, argument=argument, value=value
        )


def _read_group_sizes(path: Path) -> list[int]:
    """LightGBM's .query format: one whole number >= 1 a line."""
    lines = (text.buffer[: text.size].splitlines() for text in read_blocks(path))
    sizes = []
    for line, raw in enumerate(itertools.chain.from_iterable(lines), 1):
        size = raw.strip()
        if size and (not size.isdigit() or len(size) > 9 or int(size) == 0):
            raise LetorError(f"{excerpt(size)} is not a whole number >= 1", path, line, fix=_SIZES_FIX)
        if size:
            sizes.append(int(size))
    if not sizes:
        raise LetorError("no group size in the file", path, fix=_SIZES_FIX)
    return sizes

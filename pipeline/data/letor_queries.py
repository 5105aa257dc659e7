"""Where the queries of a LETOR file begin, and the first thing that is wrong in it, block by block."""

from __future__ import annotations

import itertools
import logging
import re
from pathlib import Path

import numpy as np

from pipeline.data.letor_block import Block, Fault, excerpt
from pipeline.data.letor_text import LetorError, is_compressed, read_blocks

log = logging.getLogger(__name__)

_SIZES_MEND = "give the group file of this very data file: the numbers of rows of its queries, one a line"
_GLUED = re.compile(r"(.*?)([,;]?)(\d+):[-+.\d][-+.\deE:]*")  # the query id, an index and a value
_NUMBER = ""  # stands for any query id that is a number
_ALIKE_ROWS = 100  # so many with as many features each, and the file is meant to be dense


class Queries:
    """Over the blocks of one file, in order: `begin` and `end` for each, `finish` after the last.

    Args:
      path: the file.
      regroup: a query may return after others.
      group_sizes: a file with the rows of each query, for a file without qid.
    """

    def __init__(self, path: Path, *, regroup: bool = False, group_sizes: Path | None = None) -> None:
        self._path, self._regroup = path, regroup
        self._sizes = None if group_sizes is None else _read_group_sizes(group_sizes)
        self._num_sized = 0 if self._sizes is None else sum(self._sizes)  # rows
        self._next = 0  # the first row of the next query, by the sizes
        self._name: str | None = None  # of the query that the last row is of, by the text
        self._first_lines: dict[str, int] = {}  # by query id
        self._number = ""  # the first query id that is one
        self._glued: dict[str, str] = {}  # query ids such as 'q21:0.5', by those that may be meant
        self._num_queries = self._num_rows = self._num_lines = 0
        self._narrowest, self._widest = 1 << 40, 0  # the fewest and the most features of a row
        self._is_open = False  # the last row has no newline
        self._faults: list[Fault] = []

    def begin(self, block: Block) -> list[tuple[int, str]]:
        """(first row, query id) of the queries that begin in the next block."""
        self._faults = [] if block.fault is None else [block.fault]
        self._look_for_cut(block)
        return self._by_text(block) if self._sizes is None else self._by_size(block)

    def _look_for_cut(self, block: Block) -> None:
        """A last row without a newline that has fewer features than all others, which have as many each."""
        if block.fault or not len(block.labels):
            return
        widths = np.diff(block.row_ends, prepend=0)
        is_open = not block.has_end and bool(block.row_lines[-1] == block.num_lines - 1)
        self._is_open = is_open
        whole = widths[:-1] if is_open else widths
        self._narrowest = int(whole.min(initial=self._narrowest))
        self._widest = int(whole.max(initial=self._widest))
        num_whole = self._num_rows + len(whole)
        if is_open and num_whole >= _ALIKE_ROWS and widths[-1] < self._narrowest == self._widest:
            what = f"cut off: {widths[-1]} features and no newline, but {self._widest} features in every row before"
            mend = "copy or download the file again; if it is whole, end its last line with a newline"
            self._faults.append(Fault(block.num_lines - 1, what, mend))

    def _by_text(self, block: Block) -> list[tuple[int, str]]:
        found = []
        for row, name in block.queries:
            if name == self._name:  # goes on from the block before
                continue
            line = int(block.row_lines[row])
            if not self._regroup and name in self._first_lines:
                what = f"query {name!r} again, after others; its rows began in line {self._first_lines[name]}"
                self._faults.append(Fault(line, what, "bring them together, or set data.regroup=true"))
                break
            self._first_lines.setdefault(name, self._num_lines + line + 1)
            self._look_for_lost_blank(name, line)
            self._name = name
            found.append((row, name))
        return found

    def _look_for_lost_blank(self, name: str, line: int) -> None:
        """'qid:q21:0.5' beside a query 'q2' or 'q', and 'qid:21:0.5' beside any number, are 'qid:q2 1:0.5' perhaps."""
        is_number = name.isdigit()
        if is_number and not self._number:
            self._number = name
        meant = [_NUMBER if is_number else name]
        glued = _GLUED.fullmatch(name) if ":" in name else None
        if glued:
            head, separator, digits = glued.groups()
            meant = (
                [head]
                if separator or not head
                else [head + digits[:-end] for end in range(1, min(len(digits), 7) + 1)]
            )
            meant = [_NUMBER if not other or other.isdigit() else other for other in meant]
            for other in meant:
                self._glued.setdefault(other, name)
        for other in meant:
            beside = self._number if other == _NUMBER else other
            if other in self._glued and beside in self._first_lines:
                first, second = (
                    f"{id!r} (line {self._first_lines[id]})" for id in (self._glued[other], beside)
                )
                mend = "write a blank between query id and first feature, or '_' for ':' where it is one query id"
                self._faults.append(Fault(line, f"query {first} beside query {second}", mend))
                return

    def _by_size(self, block: Block) -> list[tuple[int, str]]:
        assert self._sizes is not None
        found = []
        num_rows = self._num_rows + len(block.labels)
        while self._next < num_rows and self._num_queries < len(self._sizes):
            found.append((self._next - self._num_rows, str(self._num_queries + 1)))
            self._next += self._sizes[self._num_queries]
            self._num_queries += 1
        if num_rows > self._num_sized:
            what = f"row {self._num_sized + 1}, but the sizes in the file of group sizes sum to {self._num_sized}"
            self._faults.append(
                Fault(int(block.row_lines[self._num_sized - self._num_rows]), what, _SIZES_MEND)
            )
        return found

    def end(self, block: Block, fault: Fault | None = None, *, overflow: int) -> None:
        """The rows of that block are in their matrix, where the sums of row `overflow` are too large, or of none (-1);
        or they are not, for a `fault`.

        Raises:
          LetorError: what is wrong first in the block.
        """
        if fault is not None:
            self._faults.append(fault)
        if overflow >= 0:
            what = "the sum of a feature's values is too large for float32"
            mend = "set data.duplicates to first or last"
            self._faults.append(Fault(int(block.row_lines[overflow]), what, mend))
        if self._faults:
            raise self.error(*min(self._faults, key=lambda fault: fault.line))
        self._num_rows += len(block.labels)
        self._num_lines += block.num_lines

    def finish(self) -> None:
        """Raises LetorError for a file that ended too early."""
        if self._num_rows == 0:
            raise self.error(None, "holds no row", "give a file with lines such as '2 qid:1 1:0.5'")
        if self._num_rows < self._num_sized:
            sizes = f"the sizes in the file of group sizes sum to {self._num_sized}"
            raise self.error(None, f"holds {self._num_rows} rows, but {sizes}", _SIZES_MEND)
        if self._is_open:
            log.warning("%s:%d: the last row has no newline; is the file whole?", self._path, self._num_lines)

    def error(self, line: int | None, what: str, mend: str) -> LetorError:
        """`line`: from 0, in the block; None: of the whole file."""
        if line is not None and is_compressed(self._path):  # its check sum stands at its end
            mend += "; or the file is damaged: copy or download it again"
        return LetorError(self._path, None if line is None else self._num_lines + line + 1, what, mend)


def _read_group_sizes(path: Path) -> list[int]:
    """LightGBM's .query format: one whole number >= 1 a line."""
    texts = (text.buffer[: text.size].splitlines() for text in read_blocks(path, None, []))
    sizes = []
    for line, raw in enumerate(itertools.chain.from_iterable(texts), 1):
        size = raw.strip()
        if size and (not size.isdigit() or len(size) > 9 or int(size) == 0):
            raise LetorError(path, line, f"{excerpt(size)} is not a whole number >= 1", _SIZES_MEND)
        if size:
            sizes.append(int(size))
    if not sizes:
        raise LetorError(path, None, "holds no group size", _SIZES_MEND)
    return sizes

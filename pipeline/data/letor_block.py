"""A block of LETOR lines to rows in compressed form, with whatever is wrong in it said in words."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from pipeline.config.checks import within_float64
from pipeline.data import letor_parse as parse
from pipeline.data.letor_text import BINARY_MEND

_MAX_QID_BYTES = 1024  # query ids are kept as wide as the widest one
_SHOWN_CHARS = 60

_MISSING_MEND = (
    "write a finite float32 number or leave the feature out (it is then 0); if one number stands for "
    "missing values, such as 1.79769313486232e+308, name it with data.missing_value"
)


class Fault(NamedTuple):
    line: int  # from 0, in its block
    what: str
    mend: str


class Options(NamedTuple):
    num_features: int | None
    duplicates: str
    unsorted: str
    missing_value: float | None
    has_qid: bool
    judged: bool = True  # no label is below 0

    @property
    def limit(self) -> int:
        return parse.MAX_INDEX if self.num_features is None else self.num_features


class Block(NamedTuple):
    """The rows of some whole lines: row r holds entries `row_ends[r - 1]:row_ends[r]`."""

    labels: np.ndarray  # float32 [rows]
    row_lines: np.ndarray  # int32 [rows], from 0
    row_ends: np.ndarray  # int64 [rows]
    indices: np.ndarray  # int32 [entries], from 0
    values: np.ndarray  # float32 [entries]
    missing: np.ndarray  # int32 [values]: the features, from 0, of those that stood for missing and are 0 now
    queries: list[tuple[int, str]]  # (first row, query id) wherever the id changes
    num_lines: int
    num_features: int  # the largest index
    widest_line: int  # where that is, from 0
    has_end: bool  # the last line has its newline
    fault: Fault | None  # the first one; what follows it is not parsed

    def part(self, first: int, last: int) -> Block:
        """Its rows `first:last`; all else as it is."""
        start = int(self.row_ends[first - 1]) if first else 0
        return self._replace(
            labels=self.labels[first:last],
            row_ends=self.row_ends[first:last] - start,
            indices=self.indices[start:],
            values=self.values[start:],
        )


def excerpt(raw: bytes | bytearray) -> str:
    text = raw.decode(errors="backslashreplace")
    return repr(text[:_SHOWN_CHARS]) + ("..." if len(text) > _SHOWN_CHARS else "")


def _explained(wrong: int, text: bytearray, where: int, options: Options) -> tuple[str, str]:
    """What is wrong at a byte, and its mend."""
    line = text[where : text.index(b"\n", where)]
    token = re.split(rb"[ \t\r\n#]", line, maxsplit=1)[0]
    shown = excerpt(token)
    if wrong == parse.BINARY or any(byte < 32 for byte in token):
        return f"not text: a control byte in {excerpt(line)}", BINARY_MEND
    if wrong == parse.NO_QID:
        return (
            f"no qid:<id> after the label in {excerpt(line)}",
            "write the query's id there; if a file beside it has the numbers of rows of the queries, name its ending, "
            "such as data.group_suffix=.query (rankdistil-rank: --groups FILE; read_letor: group_sizes=FILE)",
        )
    if wrong == parse.BAD_INDEX and re.match(rb"0+:", token):
        return f"feature index 0 in {shown}", "number the features from 1"
    if wrong == parse.LARGE_INDEX and options.num_features is not None:
        return (
            f"the index of {shown} is above data.num_features={options.num_features}",
            "give a larger data.num_features (unset, it is the largest index of the training split)",
        )
    if wrong == parse.GLUED_HASH:
        return (
            f"'#' begins a comment within {excerpt(line.split()[0])}",
            "write a blank before it, or a finite number",
        )
    if wrong == parse.LOST_NEWLINE:
        return (
            f"another row in the comment {excerpt(line)}",
            "end the line before it, or take 'qid:' out of the comment",
        )
    sort = "sort the features, or set data.unsorted=accept"
    return {
        parse.BAD_LABEL: (f"the label {shown} is not a finite number", "begin the line with a number >= 0"),
        parse.NEGATIVE_LABEL: (
            f"the label {shown} is negative",
            "shift the labels so that 0 is not relevant",
        ),
        parse.UNEXPECTED_QID: (
            f"{shown} although a file of group sizes is given",
            "leave that file out, or the qid",
        ),
        parse.BAD_INDEX: (f"{shown} is not <index>:<value>", "write a whole number >= 1, a colon, a number"),
        parse.LARGE_INDEX: (f"the index of {shown} is above {parse.MAX_INDEX}", "number the features anew"),
        parse.UNSORTED: (f"{shown} comes after a larger feature index", sort),
        parse.DUPLICATE: (f"{shown} gives its feature again", "set data.duplicates to first, last or sum"),
        parse.BAD_VALUE: (f"the value in {shown} is not a finite number", _MISSING_MEND),
        parse.LONE_RETURN: ("a carriage return within a line", r"end lines with \n or \r\n"),
    }[wrong]


def _qid_problem(raw: bytearray) -> str | None:
    if len(raw) > _MAX_QID_BYTES:
        return f"is longer than {_MAX_QID_BYTES} bytes"
    try:
        qid = raw.decode()
    except UnicodeDecodeError:
        return "is not UTF-8"
    return None if qid.split() == [qid] else "holds white space"


def _nearest_float32(text: str) -> np.float32:
    """The float32 nearest to a decimal number, ties to even; inf where it overflows.

    float32(float(text)) rounds twice: 1.000000059604644775390625000001 would become 1.
    """
    wide = float(text)
    if math.isinf(wide):  # Decimal refuses exponents of twenty digits
        return np.float32(wide)
    with np.errstate(over="ignore"):
        rounded = np.float32(wide)
        low, high = (_limited(np.nextafter(rounded, np.float32(end))) for end in (-np.inf, np.inf))
    middle = _limited(rounded)
    below, above = (low, middle) if wide < middle else (middle, high)
    exact = Decimal(text)
    if wide != (below + above) / 2 or exact == Decimal(wide):
        return rounded
    with np.errstate(over="ignore"):
        return np.float32(above if exact > Decimal(wide) else below)  # float() has hidden the side of the tie


def _limited(value: np.float32) -> float:
    """Infinity as the next power of two, the border that IEEE 754 rounds at."""
    return float(value) if np.isfinite(value) else math.copysign(2.0**128, value)


class Scratch:
    """Arrays that `scan_block` writes to: fresh pages for each block would cost a third of the parsing."""

    def __init__(self) -> None:
        self._num_bytes = -1

    def arrays(self, num_bytes: int, has_qid: bool) -> tuple[np.ndarray, ...]:
        """labels, row_lines, row_ends, indices, values, groups, odd of `letor_parse.scan` for that much text."""
        if num_bytes > self._num_bytes:
            self._num_bytes = num_bytes
            rows = num_bytes // (8 if has_qid else 2) + 1  # the shortest is '0 qid:1\n' or '0\n'
            entries = num_bytes // 4 + 1  # the shortest is ' 1:0'
            self._arrays = (
                np.empty(rows, np.float32), np.empty(rows, np.int32), np.empty(rows, np.int64),
                np.empty(entries, np.int32), np.empty(entries, np.float32),
                np.empty((rows, 3), np.int32), np.empty((rows + entries, 3), np.int32),
            )  # fmt: skip
        return self._arrays


def scan_block(text: bytearray, size: int, options: Options, scratch: Scratch) -> Block:
    """Parses the first `size` bytes, whole lines that PADDING follows; the arrays are those of `scratch`."""
    has_end = text.endswith(b"\n", 0, size)
    size += not has_end  # the first byte of the padding ends the last line
    arrays = scratch.arrays(size, options.has_qid)
    labels, row_lines, row_ends, indices, values, groups, odd = arrays
    ascending, unique = options.unsorted == "error", options.duplicates == "error"
    seen = np.zeros(options.limit + 1 if unique and not ascending else 0, np.int32)
    missing = within_float64(math.nan if options.missing_value is None else options.missing_value)
    num_rows, num_groups, num_odd, num_lines, num_features, widest_line, wrong, where = parse.scan(
        np.frombuffer(text, np.uint8), size, options.has_qid, ascending, unique,
        0.0 if options.judged else -math.inf, options.limit, missing,
        seen, *arrays,
    )  # fmt: skip
    faults = []  # (byte, what, mend)
    if wrong != parse.NOTHING:
        faults.append((where, *_explained(wrong, text, where, options)))

    for target, start, stop in odd[:num_odd].tolist():
        number = text[start:stop].decode()
        value = _nearest_float32(number)
        if not np.isfinite(value):
            what = f"the {'value' if target >= 0 else 'label'} {excerpt(text[start:stop])} is too large for float32"
            faults.append((start, what, _MISSING_MEND if target >= 0 else "write a smaller label"))
            break
        if target >= 0:
            values[target] = value
        else:
            labels[-1 - target] = value

    queries = []
    for row, start, stop in groups[:num_groups].tolist():
        raw = text[start:stop]
        if row == num_rows:  # the line with the error
            break
        problem = _qid_problem(raw)
        if problem:
            faults.append((start, f"the query id {excerpt(raw)} {problem}", "use ASCII letters and digits"))
            break
        queries.append((row, raw.decode()))

    fault = None
    if faults:
        byte, what, mend = min(faults)
        fault = Fault(text.count(b"\n", 0, byte), what, mend)
    num_entries = int(row_ends[num_rows - 1]) if num_rows else 0
    indices, values = indices[:num_entries], values[:num_entries]
    replaced = indices[:0]
    if options.missing_value is not None:
        entries = np.flatnonzero(np.isnan(values))
        replaced, values[entries] = indices[entries], 0
    return Block(
        labels[:num_rows], row_lines[:num_rows], row_ends[:num_rows], indices, values, replaced,
        queries, num_lines, num_features, widest_line, has_end, fault,
    )  # fmt: skip

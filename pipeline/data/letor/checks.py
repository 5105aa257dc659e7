"""What can be wrong in a line of LETOR text, in plain Python: says why the compiled parser stopped there."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from pipeline.config.checks import within_float64
from pipeline.data.letor.text import BINARY_FIX

MAX_INDEX = 1_000_000  # of a feature, unless num_features is given: a dense matrix does not suit wider data
MAX_QID_BYTES = 1024  # numpy stores every query id with the width of the widest one
_SHOWN_CHARS = 60

_NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_ROW_IN_COMMENT = re.compile(rb"[# \t]qid:[^ \t]+[ \t]+[0-9]+:")
_VALUE_FIX = "write a finite float32 number, or leave the feature out, which makes it 0"


class Options(NamedTuple):
    """Those arguments of `read_letor` that decide how lines are read."""

    num_features: int | None
    duplicates: str
    unsorted: str
    missing_value: float | None
    has_qid: bool
    judged: bool = True

    @property
    def limit(self) -> int:
        return MAX_INDEX if self.num_features is None else self.num_features

    def is_missing(self, value: float) -> bool:
        """Whether a value stands for "missing"."""
        missing = within_float64(math.nan if self.missing_value is None else self.missing_value)
        return abs(within_float64(value) - missing) <= 1e-9 * abs(missing)


class Problem(NamedTuple):
    """See LetorError."""

    line: int  # from 0, in its block
    what: str
    fix: str
    argument: str | None = None
    value: str = ""


def excerpt(raw: bytes | bytearray) -> str:
    text = raw.decode(errors="backslashreplace")
    return repr(text[:_SHOWN_CHARS]) + ("..." if len(text) > _SHOWN_CHARS else "")


def explain(raw: bytes | bytearray, line: int, options: Options) -> Problem:
    """What is wrong first in a line that the parser refused; `line`: its number, from 0."""
    body, hash_sign, comment = bytes(raw).removesuffix(b"\r").partition(b"#")
    if _CONTROL.search(body) or b"\0" in comment:
        return Problem(line, f"not text: a control byte in {excerpt(raw)}", BINARY_FIX)
    if b"\r" in body + comment:
        return Problem(line, "a carriage return within the line", r"end lines with \n or \r\n")
    label, *tokens = re.split(rb"[ \t]+", body.strip(b" \t"))
    found = _label_problem(label, options) or _qid_problem(tokens[:1], excerpt(raw), options)
    only_id = options.has_qid and len(tokens) == 1
    if found is None and hash_sign and (body.endswith(b".") or (only_id and body.endswith(tokens[0]))):
        token = bytes(raw).split()[len(tokens)]
        found = f"'#' begins a comment within {excerpt(token)}", "write a blank before it, or a finite number"
    if found is None:
        found = _feature_problem(tokens[options.has_qid :], options)
    if found is None and _ROW_IN_COMMENT.search(hash_sign + comment):
        what = f"another row in the comment {excerpt(hash_sign + comment)}"
        found = what, "end the line before that row, or take 'qid:' out of the comment"
    assert found is not None, f"the parser refused a valid line: {excerpt(raw)}"
    return Problem(line, *found)


def _label_problem(label: bytes, options: Options) -> tuple[str, ...] | None:
    if not _NUMBER.fullmatch(label):
        return f"the label {excerpt(label)} is not a finite number", "begin the line with a number >= 0"
    if options.judged and label.startswith(b"-") and re.search(rb"[1-9]", re.split(rb"[eE]", label)[0]):
        return f"the label {excerpt(label)} is negative", "shift the labels so that 0 is not relevant"
    if not np.isfinite(nearest_float32(label.decode())):
        return f"the label {excerpt(label)} is too large for float32", "write a smaller label"
    return None


def _qid_problem(tokens: list[bytes], line: str, options: Options) -> tuple[str, ...] | None:
    token = tokens[0] if tokens else b""
    is_qid = token.startswith(b"qid:")
    if not options.has_qid:
        fix = "remove the qid from the file"
        return (f"{excerpt(token)} although group_sizes is given", fix) if is_qid else None
    if not is_qid or token == b"qid:":
        return f"no qid:<id> after the label in {line}", "write the id of the query there", "group_sizes"
    problem = qid_problem(token[4:])
    if problem is None:
        return None
    return f"the query id {excerpt(token[4:])} {problem}", "use ASCII letters and digits"


def qid_problem(raw: bytes | bytearray) -> str | None:
    """What is wrong with a query id."""
    if len(raw) > MAX_QID_BYTES:
        return f"is longer than {MAX_QID_BYTES} bytes"
    try:
        qid = raw.decode()
    except UnicodeDecodeError:
        return "is not UTF-8"
    return None if qid.split() == [qid] else "holds white space"


def _feature_problem(tokens: list[bytes], options: Options) -> tuple[str, ...] | None:
    previous, seen = 0, set()
    for token in tokens:
        shown = excerpt(token)
        digits, colon, number = token.partition(b":")
        if not colon or not digits.isdigit():
            return f"{shown} is not <index>:<value>", "write a whole number >= 1, a colon, a number"
        index = int(digits) if len(digits.lstrip(b"0")) < 10 else 10**10
        if index == 0:
            return f"feature index 0 in {shown}", "number the features from 1"
        if index > options.limit:
            what = f"the feature index of {shown} is above {options.limit}"
            if options.num_features is None or index > MAX_INDEX:
                return what, "number the features from 1 without large gaps"
            return what, "remove the feature", "num_features", f"{index} or more"
        if index < previous and options.unsorted == "error":
            return f"{shown} comes after a larger feature index", "sort the features", "unsorted", "accept"
        if index in seen and options.duplicates == "error":
            what = f"{shown} gives its feature again"
            return what, "keep one value", "duplicates", "first, last or sum"
        previous = index
        seen.add(index)
        if not _NUMBER.fullmatch(number):
            return f"the value in {shown} is not a finite number", _VALUE_FIX
        text = number.decode()
        if not options.is_missing(float(text)) and not np.isfinite(nearest_float32(text)):
            what = f"the value {excerpt(number)} is too large for float32"
            return what, _VALUE_FIX, "missing_value", "it if it stands for missing values"
    return None


def nearest_float32(text: str) -> np.float32:
    """The float32 nearest to a decimal number, ties to even; infinite where it overflows.

    float32(float(text)) rounds twice: 1.000000059604644775390625000001 would become 1.
    """
    wide = float(text)
    if math.isinf(wide) or abs(wide) < 1e-60:  # Decimal refuses exponents of twenty digits
        return np.float32(wide)
    with np.errstate(over="ignore"):
        rounded = np.float32(wide)
        low, high = (_limited(np.nextafter(rounded, np.float32(end))) for end in (-np.inf, np.inf))
    middle = _limited(rounded)
    below, above = (low, middle) if wide < middle else (middle, high)
    exact = Decimal(text)
    if wide != (below + above) / 2 or exact == Decimal(wide):
        return rounded
    with np.errstate(over="ignore"):  # float() lost on which side of the middle the number is
        return np.float32(above if exact > Decimal(wide) else below)


def _limited(value: np.float32) -> float:
    """Infinity as the next power of two, where IEEE 754 rounds to infinity."""
    return float(value) if np.isfinite(value) else math.copysign(2.0**128, value)

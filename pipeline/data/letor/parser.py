"""The compiled part of the reader: the bytes of complete lines to rows in compressed form, and these into a matrix.

It runs without the interpreter lock. `scan` stops at the first line that it cannot read; `checks.explain` says what is
wrong there. A number that float64 arithmetic cannot round safely to float32 is left to Python (block.py).
All compiled functions are in this file because numba's disk cache does not notice changes in other files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

NUMBER, ODD, BROKEN = range(3)  # kinds of numbers: see _any_number

_TAB, _NEWLINE, _RETURN, _SPACE, _HASH, _PLUS, _MINUS, _POINT, _ZERO, _COLON = b"\t\n\r #+-.0:"
_SMALL_E, _LARGE_E = b"eE"
_Q, _I, _D = b"qid"
_U64 = np.uint64  # an unsigned index avoids numba's check for negative ones
_TEN = _U64(10)

_MAX_DIGITS = 18  # fit into an int64
_MIN_EXPONENT, _MAX_EXPONENT = -330, 308
_POWERS = np.array([float(f"1e{exponent}") for exponent in range(_MIN_EXPONENT, _MAX_EXPONENT + 1)])
_SCALES = np.repeat(1 / 10.0 ** np.arange(_MAX_DIGITS + 1), 2) * np.tile(
    [1, -1], _MAX_DIGITS + 1
)  # +-10**-decimals
_EXACT_INTEGER = 1 << 53  # float64 holds the integers up to here exactly
_SMALLEST_NORMAL, _LARGEST = 2.0**-126, 3.4e38  # of float32; the latter is a little below the largest
LARGEST_FLOAT64 = sys.float_info.max
_LARGEST_INDEX = 1 << 40  # far above every limit; stops an index of many digits from overflowing

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """numba.njit without the interpreter lock, cached on disk where a cache folder is writable."""
    try:  # __pycache__ beside this file, otherwise the user's cache folder
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(function)


_inlined = numba.njit(nogil=True, error_model="numpy", forceinline=True)


@_inlined
def _is_end(byte: int) -> bool:
    """Whether the byte ends a token."""
    return byte in (_SPACE, _NEWLINE, _TAB, _RETURN, _HASH)


@_inlined
def _after_blanks(text: np.ndarray, at: int) -> int:
    while text[_U64(at)] == _SPACE or text[_U64(at)] == _TAB:
        at += 1
    return at


@_inlined
def _digit(byte: int) -> np.uint64:
    """Its value; more than 9 where it is no digit."""
    return _U64(byte) - _U64(_ZERO)


@_inlined
def _from_middle(value: float) -> int:
    """The distance from the middle of two float32s, in units in the last place of float64."""
    return abs((np.float64(value).view(np.int64) & 0x1FFFFFFF) - 0x10000000)


@_inlined
def _plain_number(text: np.ndarray, at: int) -> tuple[bool, int, float]:
    """Reads a number without exponent, of up to 18 digits -> (whether it is one, its end, value).

    The value is wrong by less than 4 units in the last place of float64. This decides the nearest float32, unless the
    value is that close to the middle between two float32s; then the number is not plain either.
    """
    negative = text[_U64(at)] == _MINUS
    at += negative
    start = at
    digits = _U64(0)
    digit = _digit(text[_U64(at)])
    while digit < _TEN:
        digits = digits * _TEN + digit
        at += 1
        digit = _digit(text[_U64(at)])
    num_digits, decimals = at - start, 0
    if text[_U64(at)] == _POINT:
        at += 1
        start = at
        digit = _digit(text[_U64(at)])
        while digit < _TEN:
            digits = digits * _TEN + digit
            at += 1
            digit = _digit(text[_U64(at)])
        decimals = at - start
        num_digits += decimals
    if num_digits == 0 or num_digits > _MAX_DIGITS:
        return False, at, 0.0
    value = np.int64(digits) * _SCALES[_U64(2 * decimals + negative)]
    return _is_end(text[_U64(at)]) and _from_middle(value) > 8, at, value


@compiled
def _any_number(text: np.ndarray, at: int) -> tuple[int, int, float]:
    """Reads any decimal number -> (kind, its end, value).

    kind: NUMBER: float32(value) is the float32 nearest to the text. ODD: float64 does not decide the float32. BROKEN:
    this is not a finite decimal number.
    """
    # 1. The text is digits * 10**exponent.
    negative = text[at] == _MINUS
    if negative or text[at] == _PLUS:
        at += 1
    digits, num_digits, exponent, decimals = 0, 0, 0, 0  # decimals: 1 behind the point
    while _digit(text[_U64(at)]) < _TEN or (text[at] == _POINT and decimals == 0):
        if text[at] == _POINT:
            decimals = 1
        else:
            num_digits += 1
            if digits < 10 ** (_MAX_DIGITS - 1):
                digits = digits * 10 + np.int64(_digit(text[_U64(at)]))
                exponent -= decimals
            else:
                exponent += 1 - decimals
        at += 1
    if text[at] == _SMALL_E or text[at] == _LARGE_E:
        at += 1
        negative_exponent = text[at] == _MINUS
        if negative_exponent or text[at] == _PLUS:
            at += 1
        if _digit(text[_U64(at)]) >= _TEN:
            return BROKEN, at, 0.0
        written = 0
        while _digit(text[_U64(at)]) < _TEN:
            written = min(written * 10 + np.int64(_digit(text[_U64(at)])), 1_000_000_000)
            at += 1
        exponent += -written if negative_exponent else written
    if num_digits == 0 or not _is_end(text[at]):
        return BROKEN, at, 0.0

    # 2. Whether float64 decides the float32.
    kind, value = NUMBER, 0.0
    if digits > 0:
        power = _POWERS[max(exponent, _MIN_EXPONENT) - _MIN_EXPONENT] if exponent <= _MAX_EXPONENT else np.inf
        value = min(max(digits * power, 1e-300), LARGEST_FLOAT64)
        is_exact = exponent == 0 and digits <= _EXACT_INTEGER
        if value < _SMALLEST_NORMAL or value > _LARGEST or (_from_middle(value) <= 8 and not is_exact):
            kind = ODD
    return kind, at, -value if negative else value


@numba.njit(error_model="numpy")
def _begins_row(text: np.ndarray, at: int) -> bool:
    """Whether the colon at `at` is the one of ' qid:<id> <index>:'."""
    if not (text[at - 3] == _Q and text[at - 2] == _I and text[at - 1] == _D and _is_end(text[at - 4])):
        return False
    id_end = at
    while text[id_end] > _SPACE and id_end - at < 1024:
        id_end += 1
    index = _after_blanks(text, id_end)
    stop = index
    while _digit(text[_U64(stop)]) < _TEN:
        stop += 1
    return at + 1 < id_end < index < stop and text[stop] == _COLON


@numba.njit(error_model="numpy")
def _line_end(text: np.ndarray, at: int, is_row: bool) -> int:
    """The newline of a line whose tokens end at `at`, behind its comment; -1: something is wrong in there."""
    if text[at] == _HASH:
        if is_row and text[at - 1] == _POINT:  # such as 1.#INF
            return -1
        while text[_U64(at)] != _NEWLINE and text[_U64(at)] != _RETURN and text[_U64(at)] != 0:
            if is_row and text[_U64(at)] == _COLON and _begins_row(text, at):
                return -1
            at += 1
    if text[at] == _RETURN:
        at += 1
    return at if text[at] == _NEWLINE else -1


@compiled
def scan(
    text: np.ndarray,  # uint8: complete lines, each with its newline, then text.PADDING
    size: int,  # of the lines
    has_qid: bool,
    ascending: bool,  # feature indices that fall are an error
    unique: bool,  # a feature index twice in a line is an error
    lowest: float,  # the smallest label allowed
    limit: int,  # the largest feature index allowed
    missing: float,  # a value that becomes NaN; NaN: none
    seen: np.ndarray,  # int32 [limit + 1] of zeros if unique and not ascending, otherwise unused
    labels: np.ndarray,  # float32 [rows]; this array and all that follow are written
    row_lines: np.ndarray,  # int32 [rows]: the line of a row, from 0
    row_ends: np.ndarray,  # int64 [rows]: the number of entries up to the row's end
    indices: np.ndarray,  # int32 [entries], from 0
    values: np.ndarray,  # float32 [entries]
    groups: np.ndarray,  # int32 [rows, 3]: first row, start and stop of its query id, where the id changes
    odd: np.ndarray,  # int32 [rows + entries, 3]: entry (-1 - row: a label), start and stop of an ODD number
) -> tuple[int, int, int, int, int, int, int]:
    """-> (rows, groups, ODD numbers, lines, largest index from 1, its line, start of the line with an error or -1)."""
    at, line, rows, num_groups, num_odd, largest, largest_line = 0, 0, 0, 0, 0, 0, 0
    qid_start, qid_stop = 0, 0
    missing_tolerance = 1e-9 * abs(missing)
    lowest_step = (1 if unique else 0) if ascending else -_LARGEST_INDEX  # from one index to the next
    track = unique and not ascending
    first_entry = 0  # of the row
    while at < size:
        # 1. The label.
        line_start = at
        at = _after_blanks(text, at)
        is_row = text[at] != _NEWLINE and text[at] != _RETURN and text[at] != _HASH
        if is_row:
            start = at
            kind, at, value = _any_number(text, start)
            if kind == BROKEN or value < lowest:
                return rows, num_groups, num_odd, line, largest, largest_line, line_start
            if kind == ODD:
                odd[num_odd, 0], odd[num_odd, 1], odd[num_odd, 2] = -1 - rows, start, at
                num_odd += 1
            labels[rows] = value

            # 2. The query id.
            start = _after_blanks(text, at)
            is_qid = (
                text[start] == _Q
                and text[start + 1] == _I
                and text[start + 2] == _D
                and text[start + 3] == _COLON
            )
            if is_qid != has_qid:
                return rows, num_groups, num_odd, line, largest, largest_line, line_start
            if has_qid:
                start += 4
                at = start
                while text[_U64(at)] > _SPACE and text[_U64(at)] != _HASH:
                    at += 1
                if at == start or not _is_end(text[at]) or text[at] == _HASH:
                    return rows, num_groups, num_odd, line, largest, largest_line, line_start
                same = at - start == qid_stop - qid_start
                for offset in range(at - start if same else 0):
                    same &= text[start + offset] == text[qid_start + offset]
                if not same:
                    groups[num_groups, 0], groups[num_groups, 1], groups[num_groups, 2] = rows, start, at
                    num_groups += 1
                    qid_start, qid_stop = start, at

            # 3. The features.
            entries = first_entry
            previous = 0
            while True:
                start = _after_blanks(text, at)
                at = start
                index = 0
                while _digit(text[_U64(at)]) < _TEN:
                    index = min(index * 10 + np.int64(_digit(text[_U64(at)])), _LARGEST_INDEX)
                    at += 1
                if text[_U64(at)] != _COLON:
                    break
                if index < max(previous + lowest_step, 1) or index > limit:
                    break
                if track:
                    if seen[index] == line + 1:
                        break
                    seen[index] = line + 1
                previous = index
                number = at + 1
                is_plain, at, value = _plain_number(text, number)
                kind = NUMBER
                if not is_plain:
                    kind, at, value = _any_number(text, number)
                if kind == BROKEN:
                    break
                if abs(value - missing) <= missing_tolerance:
                    value = np.nan
                elif kind == ODD:
                    odd[num_odd, 0], odd[num_odd, 1], odd[num_odd, 2] = entries, number, at
                    num_odd += 1
                if index > largest:
                    largest, largest_line = index, line
                indices[_U64(entries)] = index - 1
                values[_U64(entries)] = value
                entries += 1
            if at != start or not _is_end(text[at]):
                return rows, num_groups, num_odd, line, largest, largest_line, line_start
            row_lines[rows] = line
            row_ends[rows] = entries

        # 4. The comment and the end of the line.
        at = _line_end(text, at, is_row)
        if at < 0:
            return rows, num_groups, num_odd, line, largest, largest_line, line_start
        if is_row:
            first_entry = row_ends[rows]
            rows += 1
        at += 1
        line += 1
    return rows, num_groups, num_odd, line, largest, largest_line, -1


@compiled
def fill(
    flat: np.ndarray,  # float32 [at least (first + rows) * width], zero where the rows go
    first: int,
    width: int,
    row_ends: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    keep_first: bool,  # of several values of a feature; otherwise the last
    add: bool,  # several values of a feature
) -> int:
    """Writes scanned rows into a dense matrix -> the first row with a sum that overflows, or -1."""
    overflow, start = -1, 0
    for row in range(row_ends.size):
        base = (first + row) * width
        stop = row_ends[row]
        if add:
            for entry in range(start, stop):
                flat[_U64(base + indices[entry])] += values[entry]
                if overflow < 0 and not np.isfinite(flat[_U64(base + indices[entry])]):
                    overflow = row
        elif keep_first:
            for entry in range(stop - 1, start - 1, -1):
                flat[_U64(base + indices[entry])] = values[entry]
        else:
            for entry in range(start, stop):
                flat[_U64(base + indices[entry])] = values[entry]
        start = stop
    return overflow

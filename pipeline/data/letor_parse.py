"""The compiled part of the LETOR reader: bytes of whole lines -> rows in compressed form.

It runs without the interpreter lock. Whatever is rare (a number on the border between two float32s, an error) is
only located here and left to Python (letor_block). Numbers and lines are in one file, because numba's cache of `scan`
does not see changes in another one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

MAX_INDEX = 1_000_000  # of a feature; beyond it a dense matrix is not what the file is for

# What `scan` found wrong.
NOTHING, BAD_LABEL, NEGATIVE_LABEL, NO_QID, UNEXPECTED_QID, BAD_INDEX, LARGE_INDEX = range(7)
UNSORTED, DUPLICATE, BAD_VALUE, BINARY, LONE_RETURN = range(7, 12)

_NUMBER, _BROKEN, _ODD = range(3)
_TAB, _NEWLINE, _RETURN, _SPACE, _HASH, _PLUS, _MINUS, _POINT, _ZERO, _NINE, _COLON = b"\t\n\r #+-.09:"
_SMALL_E, _LARGE_E = b"eE"
_Q, _I, _D = b"qid"
_U64 = np.uint64  # as an index it spares the test for numbers that count from the end
_ONES = _U64(0x0101010101010101)

_MIN_EXPONENT, _MAX_EXPONENT = -330, 308
_POWERS = np.array(
    [float(f"1e{exponent}") for exponent in range(_MIN_EXPONENT, _MAX_EXPONENT + 1)]
)  # 10**exponent
_TENS = 10 ** np.arange(17)
_TENTHS = 1 / _TENS
_EXACT_POWER = 22  # 10**22 is the largest power of ten that float64 holds exactly
_EXACT_INTEGER = 1 << 53
_MAX_DIGITS = 18  # that an int64 holds for certain
_LEAST_NORMAL = 2.0**-126
_LARGEST = 3.4e38  # a little below the largest float32
LARGEST_FLOAT64 = sys.float_info.max  # stands for all that overflow, for they may be the missing value
_VANISHING = 1e-46  # below half of the smallest float32

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """numba.njit that runs without the interpreter lock, kept on disk where some folder for that is writable."""
    try:  # __pycache__ beside this file, else the user's cache folder
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(function)


# What is called for every value: a call that takes an array would count references, which costs more than the work.
_inlined = numba.njit(inline="always")
_scalar = numba.njit(error_model="numpy")


@_scalar
def _is_end(byte: int) -> bool:
    return byte in (_SPACE, _NEWLINE, _TAB, _RETURN, _HASH)


@_scalar
def _is_digit(byte: int) -> bool:
    return _ZERO <= byte <= _NINE


def _load(context: Any, builder: Any, signature: Any, arguments: Any, kind: Any) -> Any:
    """What stands at text[at], as one value of `kind`."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    address = builder.gep(array.data, [arguments[1]])
    return builder.load(builder.bitcast(address, kind.as_pointer()), align=1)


@intrinsic
def _word(typing: Any, text: types.Array, at: types.Integer) -> tuple[Any, Any]:
    """8 bytes, the first one lowest."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _load(context, builder, signature, arguments, ir.IntType(64))

    return types.uint64(text, at), emit


@intrinsic
def _masks(typing: Any, text: types.Array, at: types.Integer) -> tuple[Any, Any]:
    """What 16 bytes are, as masks of 16 bits, the first byte lowest -> (end a number, points, digits)."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sixteen = ir.VectorType(ir.IntType(8), 16)
        some = _load(context, builder, signature, arguments, sixteen)

        def all_of(byte: int) -> ir.Constant:
            return ir.Constant(sixteen, [byte] * 16)

        ends = builder.icmp_unsigned("<", some, all_of(_PLUS))
        points = builder.icmp_unsigned("==", some, all_of(_POINT))
        digits = builder.icmp_unsigned("<", builder.sub(some, all_of(_ZERO)), all_of(10))
        masks = [
            builder.zext(builder.bitcast(m, ir.IntType(16)), ir.IntType(64)) for m in (ends, points, digits)
        ]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 3)(text, at), emit


@intrinsic
def _lowest_bit(typing: Any, mask: types.Integer) -> tuple[Any, Any]:
    """The number of the lowest bit that is set in a uint64, which is not 0."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), emit


@_scalar
def _digits(word: np.uint64, count: int) -> int:
    """The number that the first 0 to 8 bytes, all digits, make: pairs, then fours, then all."""
    shift = (_U64(32) - _U64(4) * _U64(count)) & _U64(63)
    word = (
        (word - _U64(0x30) * _ONES) << shift << shift
    )  # zeros in front; in two steps, for no shift reaches 64
    word = word * _U64(10) + (word >> _U64(8))
    fours = _U64(0x000000FF000000FF)
    word = (word & fours) * _U64(100 + (1_000_000 << 32)) + (word >> _U64(16) & fours) * _U64(
        1 + (10_000 << 32)
    )
    return np.int64(word >> _U64(32))


@_scalar
def _distance(value: float) -> int:
    """From the middle of the two float32s around `value`, in units in the last place of float64."""
    return (np.float64(value).view(np.int64) & 0x1FFFFFFF) - 0x10000000


@compiled
def _any_number(text: np.ndarray, at: int) -> tuple[int, int, float]:
    """Reads a decimal number -> (kind, its end, value). float32(value) is the nearest float32 if kind is _NUMBER.

    kind is _BROKEN if there is no number or it goes on beyond its end; _ODD if float64 does not tell the float32.
    """
    # 1. The text is digits * 10**exponent.
    negative = text[at] == _MINUS
    if negative or text[at] == _PLUS:
        at += 1
    digits, num_digits, exponent = 0, 0, 0
    start = at
    while _is_digit(text[at]):
        if num_digits < _MAX_DIGITS:
            digits = digits * 10 + (np.int64(text[at]) - _ZERO)
            num_digits += digits > 0
        else:
            exponent += 1
        at += 1
    num_read = at - start
    if text[at] == _POINT:
        at += 1
        start = at
        while _is_digit(text[at]):
            if num_digits < _MAX_DIGITS:
                digits = digits * 10 + (np.int64(text[at]) - _ZERO)
                num_digits += digits > 0
                exponent -= 1
            at += 1
        num_read += at - start
    if num_read == 0:
        return _BROKEN, at, 0.0
    if text[at] == _SMALL_E or text[at] == _LARGE_E:
        at += 1
        negative_exponent = text[at] == _MINUS
        if negative_exponent or text[at] == _PLUS:
            at += 1
        if not _is_digit(text[at]):
            return _BROKEN, at, 0.0
        written = 0
        while _is_digit(text[at]):
            written = min(written * 10 + (np.int64(text[at]) - _ZERO), 1_000_000_000)
            at += 1
        exponent += -written if negative_exponent else written
    if not _is_end(text[at]):
        return _BROKEN, at, 0.0

    # 2. The product in float64 is off by less than 4 units in the last place. That decides the float32 unless it lies
    # that close to the middle between two of them. Then an exact division decides where one is possible.
    kind = _NUMBER
    exponent = max(exponent, _MIN_EXPONENT)
    value = digits * _POWERS[exponent - _MIN_EXPONENT] if exponent <= _MAX_EXPONENT else np.inf
    if digits == 0:
        value = 0.0
    elif value < _VANISHING:
        value = 1e-300  # 0 as a float32, and still below 0 once negative
    elif value < _LEAST_NORMAL or value > _LARGEST:
        kind = _ODD
        value = min(value, LARGEST_FLOAT64)
    elif abs(_distance(value)) <= 8:
        kind = _ODD
        if digits < _EXACT_INTEGER and -_EXACT_POWER <= exponent <= 0:
            power = _POWERS[-exponent - _MIN_EXPONENT]
            value = digits / power  # rounded once: on the right side of the middle, or the middle itself
            is_tie = (
                value == np.floor(value) and np.int64(value) * np.int64(power) == digits
            )  # such as 20000001.0
            if _distance(value) != 0 or is_tie:
                kind = _NUMBER
    return kind, at, -value if negative else value


@_inlined
def _short_number(text: np.ndarray, at: int) -> tuple[bool, int, float]:
    """A number of at most 8 digits, a point and 8 digits -> (is one and decides its float32, its end, value).

    Almost without a branch, because the lengths cannot be foreseen and a wrong guess costs the processor as much as
    all of this. It ends at a byte below '+', of which `scan` refuses those that end no number.
    Source: D. Lemire, "Number parsing at a gigabyte per second", 2021.
    """
    ends, points, are_digits = _masks(text, at)
    length = _lowest_bit(ends | _U64(1 << 16))
    point = min(_lowest_bit(points | _U64(1 << 10)), length)
    negative = text[_U64(at)] == _MINUS
    signed = np.int64(negative | (text[_U64(at)] == _PLUS))
    num_whole, num_decimals = point - signed, max(length - point - 1, 0)
    number = ((_U64(1) << _U64(length)) - _U64(1)) & ~_U64(signed) & ~(_U64(1) << _U64(point))
    if num_whole + num_decimals <= 8:  # in one word: those behind the point are moved next to those before it
        shift = _U64(4) * _U64(num_whole)
        behind = ~_U64(0) << shift << shift
        word = (_word(text, at + signed) & ~behind) | (_word(text, at + signed + 1) & behind)
        digits = _digits(word, num_whole + num_decimals)
    else:
        digits = _digits(_word(text, at + signed), num_whole) * _TENS[_U64(num_decimals)]
        digits += _digits(_word(text, at + point + 1), num_decimals)
    value = (-digits if negative else digits) * _TENTHS[_U64(num_decimals)]
    is_short = (
        (number & ~are_digits == 0) & (num_whole <= 8) & (num_decimals <= 8) & (num_whole + num_decimals > 0)
    )
    return is_short & (length < 16) & (abs(_distance(value)) > 8), at + length, value


@compiled
def scan(
    text: np.ndarray,  # uint8 [size + 31 or more]: whole lines, each with its newline, and letor_text.PADDING
    size: int,
    has_qid: bool,
    ascending: bool,  # feature ids that fall are an error
    unique: bool,  # a feature id twice in a line is an error
    limit: int,  # the largest feature id allowed
    missing: float,  # a value that stands for 0; NaN: none
    seen: np.ndarray,  # int32 [limit + 1] of zeros if unique and not ascending, else anything
    labels: np.ndarray,  # float32 [rows]; this and all that follow are written
    row_lines: np.ndarray,  # int32 [rows]: the line of a row, from 0
    row_ends: np.ndarray,  # int64 [rows]: the entry after a row's last
    indices: np.ndarray,  # int32 [entries], from 0
    values: np.ndarray,  # float32 [entries]
    groups: np.ndarray,  # int32 [rows, 3]: first row, start and stop of its query id, where the id changes
    odd: np.ndarray,  # int32 [rows + entries, 3]: entry (-1 - row: a label), start and stop of a number for Python
) -> tuple[int, int, int, int, int, int, int, int]:
    """-> (rows, groups, odd numbers, lines, largest index from 1, its line, what is wrong, the byte where that is)."""
    at, line, rows, entries, num_groups, num_odd, largest, largest_line = 0, 0, 0, 0, 0, 0, 0, 0
    qid_start, qid_stop = 0, 0
    wrong, where = NOTHING, 0
    missing_tolerance = 1e-9 * abs(missing)
    while at < size:
        # 1. The label.
        while text[_U64(at)] == _SPACE or text[_U64(at)] == _TAB:
            at += 1
        where = at
        if text[_U64(at)] != _NEWLINE and text[_U64(at)] != _RETURN and text[_U64(at)] != _HASH:
            kind, at, value = _any_number(text, at)
            if kind == _BROKEN:
                wrong = BAD_LABEL
                break
            if value < 0:
                wrong = NEGATIVE_LABEL
                break
            if kind == _ODD:
                odd[num_odd, 0], odd[num_odd, 1], odd[num_odd, 2] = -1 - rows, where, at
                num_odd += 1
            labels[rows] = value

            # 2. The query id.
            label_start = where
            while text[_U64(at)] == _SPACE or text[_U64(at)] == _TAB:
                at += 1
            where = at
            is_qid = (
                text[_U64(at)] == _Q and text[at + 1] == _I and text[at + 2] == _D and text[at + 3] == _COLON
            )
            if has_qid:
                if not is_qid:
                    wrong, where = NO_QID, label_start
                    break
                at += 4
                start = at
                while text[_U64(at)] > _SPACE and text[_U64(at)] != _HASH:
                    at += 1
                if not _is_end(text[_U64(at)]):
                    wrong = BINARY
                    break
                if at == start:
                    wrong, where = NO_QID, label_start
                    break
                same = at - start == qid_stop - qid_start
                for offset in range(at - start if same else 0):
                    if text[start + offset] != text[qid_start + offset]:
                        same = False
                        break
                if not same:
                    groups[num_groups, 0], groups[num_groups, 1], groups[num_groups, 2] = rows, start, at
                    num_groups += 1
                    qid_start, qid_stop = start, at
            elif is_qid:
                wrong = UNEXPECTED_QID
                break

            # 3. The features.
            previous = 0
            while True:
                while text[_U64(at)] == _SPACE or text[_U64(at)] == _TAB:
                    at += 1
                where = at
                if text[_U64(at)] == _NEWLINE or text[_U64(at)] == _RETURN or text[_U64(at)] == _HASH:
                    break
                index = 0
                while _is_digit(text[_U64(at)]) and index <= MAX_INDEX:
                    index = index * 10 + (np.int64(text[_U64(at)]) - _ZERO)
                    at += 1
                while _is_digit(text[_U64(at)]):
                    at += 1
                if index == 0 or text[_U64(at)] != _COLON:
                    wrong = BAD_INDEX
                    while not _is_end(text[where - 1]):  # the value before does not end where its digits do
                        wrong, where = BAD_VALUE, where - 1
                    break
                if index > limit:
                    wrong = LARGE_INDEX
                    break
                if ascending:
                    if index <= previous:
                        if index < previous:
                            wrong = UNSORTED
                            break
                        if unique:
                            wrong = DUPLICATE
                            break
                    previous = index
                elif unique:
                    if seen[index] == line + 1:
                        wrong = DUPLICATE
                        break
                    seen[index] = line + 1
                start = at + 1
                is_short, at, value = _short_number(text, start)
                kind = _NUMBER
                if not is_short:
                    kind, at, value = _any_number(text, start)
                if kind == _BROKEN:
                    wrong = BAD_VALUE
                    break
                if abs(value - missing) <= missing_tolerance:
                    value = 0.0
                elif kind == _ODD:
                    odd[num_odd, 0], odd[num_odd, 1], odd[num_odd, 2] = entries, start, at
                    num_odd += 1
                if index > largest:
                    largest, largest_line = index, line
                indices[_U64(entries)] = index - 1
                values[_U64(entries)] = value
                entries += 1
            if wrong != NOTHING:
                break
            row_lines[rows] = line
            row_ends[rows] = entries
            rows += 1

        # 4. The comment and the end of the line.
        if text[_U64(at)] == _HASH:
            while text[_U64(at)] != _NEWLINE and text[_U64(at)] != _RETURN and text[_U64(at)] != 0:
                at += 1
        where = at
        if text[_U64(at)] == _RETURN and text[at + 1] == _NEWLINE:
            at += 1
        if text[_U64(at)] != _NEWLINE:
            wrong = BINARY if text[_U64(at)] == 0 else LONE_RETURN
            break
        at += 1
        line += 1
    return rows, num_groups, num_odd, line, largest, largest_line, wrong, where

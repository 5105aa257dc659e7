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
UNSORTED, DUPLICATE, BAD_VALUE, BINARY, LONE_RETURN, GLUED_HASH, LOST_NEWLINE = range(7, 14)

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
_SCALES = np.repeat(1 / 10.0 ** np.maximum(np.arange(10) - 1, 0), 2) * np.tile(
    [1, -1], 10
)  # +-1/10**decimals
_FOUND = 256  # values that _find_plain finds at a time
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


_scalar = numba.njit(error_model="numpy")
# What is called for every row: counting the references to its arrays would cost as much as the work.
_uncounted = numba.njit(nogil=True, error_model="numpy", _nrt=False)


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
    """What 64 bytes are, as masks, the first byte lowest: no digit, below '+', blank, point, colon, minus sign."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        many = ir.VectorType(ir.IntType(8), 64)
        some = _load(context, builder, signature, arguments, many)

        def all_of(byte: int) -> ir.Constant:
            return ir.Constant(many, [byte] * 64)

        others = builder.icmp_unsigned(">=", builder.sub(some, all_of(_ZERO)), all_of(10))
        ends = builder.icmp_unsigned("<", some, all_of(_PLUS))
        space, tab, point, colon, minus = (
            builder.icmp_unsigned("==", some, all_of(byte)) for byte in (_SPACE, _TAB, _POINT, _COLON, _MINUS)
        )
        masks = [
            builder.bitcast(mask, ir.IntType(64))
            for mask in (others, ends, builder.or_(space, tab), point, colon, minus)
        ]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 6)(text, at), emit


@intrinsic
def _place(typing: Any, mask: types.Integer) -> tuple[Any, Any]:
    """The number of the lowest bit that is set in a uint64; 64 if none is."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), emit


@_scalar
def _lowest(mask: np.uint64) -> np.uint64:
    """Its lowest bit that is set, alone."""
    return mask & (~mask + _U64(1))


@_scalar
def _last(word: np.uint64, count: np.uint64) -> np.uint64:
    """The first 1 to 8 bytes of the word as its last ones, zeros before them."""
    return word << (_U64(64) - _U64(8) * count & _U64(63))


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


@_uncounted
def _find_plain(
    text: np.ndarray, at: int, words: np.ndarray, scales: np.ndarray, rests: np.ndarray
) -> tuple[int, int]:
    """Finds the digits of the next entries while these are plain -> (where that ends, how many there are).

    A plain entry is a blank, an index of up to 8 digits, a colon and a value: perhaps '-', up to 8 digits, perhaps a
    point and up to 8 digits. What is behind it is a byte below '+', of which `scan` refuses those that end no number.
    Entry k leaves the digits of its index in words[2k], the last 8 or fewer of its value in words[2k + 1], zeros before
    them; the value is that number * scales[k] + rests[k].

    Almost without a branch, because the lengths cannot be foreseen and a wrong guess costs the processor as much as
    all of this. Sources: G. Langdale, D. Lemire, "Parsing gigabytes of JSON per second", 2019; D. Lemire, "Number
    parsing at a gigabyte per second", 2021.
    """
    count = 0
    while (text[_U64(at)] == _SPACE or text[_U64(at)] == _TAB) and count <= rests.size - 4:
        at += 1
        others, ends, blanks, points, colons, signs = _masks(text, at)
        last = ends & ~blanks
        others |= ~(last ^ (last - _U64(1)))  # behind the line nothing is plain
        signs &= colons << _U64(1)
        others ^= signs
        marks = points | ends
        begin = _U64(0)
        for _ in range(4):  # a number that can be foreseen; more are seldom in 64 bytes
            upto = ends ^ (ends - _U64(1))
            expected = _lowest(colons) | _lowest(marks) | _lowest(ends)
            if others & upto != expected or ends == 0:
                break
            colon, mark, end = _place(colons), _place(marks), _place(ends)
            negative = (signs >> _U64(1) >> colon) & _U64(1)
            start = colon + negative + _U64(1)
            num_index, num_whole, fraction = colon - begin, mark - start, end - mark
            num_digits = end - start - _U64(fraction != 0)
            here = _U64(at) + start
            rest = 0.0
            if (num_index - _U64(1) | num_whole | num_digits - _U64(1)) < 8:
                # In one word: those behind the point are moved next to those before it.
                behind = ~_U64(0) << (_U64(8) * num_whole & _U64(63))
                word = _last(
                    (_word(text, here) & ~behind) | (_word(text, here + _U64(1)) & behind), num_digits
                )
            elif (num_index - _U64(1) | num_whole - _U64(1)) < 8 and num_digits - num_whole <= 8:
                for place in range(here, here + num_whole):
                    rest = rest * 10 + (np.int64(text[place]) - _ZERO)
                rest = -rest if negative else rest
                word = _U64(0)
                if num_digits > num_whole:
                    word = _last(_word(text, here + num_whole + _U64(1)), num_digits - num_whole)
            else:
                break
            words[_U64(2 * count)] = _last(_word(text, _U64(at) + begin), num_index)
            words[_U64(2 * count + 1)] = word
            scales[_U64(count)] = _SCALES[_U64(2) * fraction + negative]
            rests[_U64(count)] = rest
            count += 1
            begin = end + _U64(1)
            others &= ~upto
            ends &= ~upto
            colons &= ~upto
            marks &= ~upto
        at += np.int64(begin) - 1
        if begin == 0:
            break
    return at, count


@_uncounted
def _convert(
    words: np.ndarray, scales: np.ndarray, rests: np.ndarray, num: int,
    previous: int, step: int, limit: int, missing: float, tolerance: float,
    indices: np.ndarray, values: np.ndarray, first: int,
) -> tuple[bool, int, int]:  # fmt: skip
    """Writes the entries of _find_plain to `indices` and `values` from `first` on, in loops that become vectors.

    -> (all is well, the largest index, the last one). Else a float32 is not decided or an index is 0, above `limit` or
    less than the one before and `step`; `previous` is the one before the first.
    """
    # 1. Digits to numbers: pairs, then fours, then all.
    pairs, fours = words.view(np.uint16), words.view(np.uint32)
    for k in range(8 * num):
        pairs[k] = (pairs[k] & np.uint16(15)) * np.uint16(10) + (pairs[k] >> np.uint16(8) & np.uint16(15))
    for k in range(4 * num):
        fours[k] = (fours[k] & np.uint32(0xFFFF)) * np.uint32(100) + (fours[k] >> np.uint32(16))
    for k in range(2 * num):
        words[k] = (words[k] & _U64(0xFFFFFFFF)) * _U64(10_000) + (words[k] >> _U64(32))

    # 2. The values. Each is off by less than 4 units in the last place, as in _any_number.
    bad, largest = False, 0
    for k in range(num):
        index = np.int32(words[2 * k])
        value = np.int32(words[2 * k + 1]) * scales[k] + rests[k]
        bad |= abs(_distance(value)) <= 8
        indices[_U64(first + k)] = index - 1
        values[_U64(first + k)] = np.nan if abs(value - missing) <= tolerance else value
        largest = max(largest, index)

    # 3. The order of the indices.
    bad |= np.int64(words[0]) < max(previous + step, 1)
    for k in range(1, num):
        bad |= np.int64(words[2 * k]) < max(np.int64(words[2 * k - 2]) + step, 1)
    return not bad and largest <= limit, largest, np.int64(words[2 * num - 2])


@_scalar
def _begins_row(text: np.ndarray, at: int) -> bool:
    """Whether the colon at `at` is that of ' qid:<id> <index>:'."""
    if not (text[at - 3] == _Q and text[at - 2] == _I and text[at - 1] == _D and _is_end(text[at - 4])):
        return False
    colon = at
    while text[at] > _SPACE and at - colon < 1024:
        at += 1
    blank = at
    while text[at] == _SPACE or text[at] == _TAB:
        at += 1
    index = at
    while _is_digit(text[at]):
        at += 1
    return colon + 1 < blank < index < at and text[at] == _COLON


@compiled
def scan(
    text: np.ndarray,  # uint8 [size + 63 or more]: whole lines, each with its newline, and letor_text.PADDING
    size: int,
    has_qid: bool,
    ascending: bool,  # feature ids that fall are an error
    unique: bool,  # a feature id twice in a line is an error
    lowest: float,  # the smallest label allowed
    limit: int,  # the largest feature id allowed
    missing: float,  # a value that becomes NaN; NaN: none
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
    qid_start, qid_stop, first_at = 0, 0, 0
    wrong, where = NOTHING, 0
    missing_tolerance = 1e-9 * abs(missing)
    step = (1 if unique else 0) if ascending else -2 * MAX_INDEX  # from an index to the next at least
    words, scales, rests = np.empty(2 * _FOUND, np.uint64), np.empty(_FOUND), np.empty(_FOUND)
    while at < size:
        first_row = rows
        # 1. The label.
        while text[_U64(at)] == _SPACE or text[_U64(at)] == _TAB:
            at += 1
        where = at
        if text[_U64(at)] != _NEWLINE and text[_U64(at)] != _RETURN and text[_U64(at)] != _HASH:
            kind, at, value = _any_number(text, at)
            if kind == _BROKEN:
                wrong = BAD_LABEL
                break
            if value < lowest:
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
            first_at, first_entry, first_odd = at, entries, num_odd
            careful = unique and not ascending  # entry by entry
            while True:
                if not careful:
                    at, count = _find_plain(text, at, words, scales, rests)
                    if count:
                        all_well, high, last = _convert(
                            words, scales, rests, count, previous, step, limit, missing, missing_tolerance,
                            indices, values, entries,
                        )  # fmt: skip
                        if all_well:
                            entries, previous = entries + count, last
                            if high > largest:
                                largest, largest_line = high, line
                        else:  # the row again, for what is wrong and where
                            at, entries, num_odd, previous = first_at, first_entry, first_odd, 0
                            careful = True
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
                kind, at, value = _any_number(text, start)
                if kind == _BROKEN:
                    wrong = BAD_VALUE
                    break
                if abs(value - missing) <= missing_tolerance:
                    value = np.nan
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
            where = at
            is_glued = has_qid and at == first_at and not _is_end(text[at - 1])  # to the query id
            if rows > first_row and (is_glued or text[at - 1] == _POINT):  # as in 1.#INF
                wrong = GLUED_HASH
                while where > 0 and not _is_end(text[where - 1]):
                    where -= 1
                break
            while text[_U64(at)] != _NEWLINE and text[_U64(at)] != _RETURN and text[_U64(at)] != 0:
                at += 1
                if text[_U64(at)] == _COLON and rows > first_row and _begins_row(text, at):
                    wrong = LOST_NEWLINE
                    break
            if wrong != NOTHING:
                break
        where = at
        if text[_U64(at)] == _RETURN and text[at + 1] == _NEWLINE:
            at += 1
        if text[_U64(at)] != _NEWLINE:
            wrong = BINARY if text[_U64(at)] == 0 else LONE_RETURN
            break
        at += 1
        line += 1
    return rows, num_groups, num_odd, line, largest, largest_line, wrong, where

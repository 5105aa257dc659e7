"""read_letor against a slow reader in plain Python: valid in, same out; broken in, an error in the right line."""

import gzip
import itertools
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pipeline.data import LetorError, read_letor

SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
OVERFLOW = Fraction(2**128 - 2**103)  # the least number that rounds to infinity in float32


class Broken(Exception):
    """args[0]: the line, from 1, or None for the file as a whole."""


def float32_of(token: bytes) -> float | None:
    """The nearest float32, ties to even, by exact arithmetic; None if there is none."""
    if not NUMBER.fullmatch(token) or abs(float(token)) == float("inf"):
        return None
    if abs(float(token)) < 1e-60:
        return 0.0
    exact = Fraction(token.decode())
    if abs(exact) >= OVERFLOW:
        return None
    with np.errstate(over="ignore"):
        guess = np.float32(float(token))
        near = [guess, np.nextafter(guess, np.float32(-np.inf)), np.nextafter(guess, np.float32(np.inf))]
    near = [value for value in near if np.isfinite(value)]
    return float(min(near, key=lambda value: (abs(Fraction(float(value)) - exact), value.view(np.int32) & 1)))


ROW = re.compile(rb"[# \t]qid:[^ \t]+[ \t]+[0-9]+:")


def is_glued(name, other):
    """'q21:0.5' and 'q2': the blank before feature 1 is lost, so that the first is not meant."""
    found = re.fullmatch(r"(.*?)([,;]?)([0-9]+):[-+.0-9][-+.0-9eE:]*", name)
    if not found:
        return False
    head, separator, digits = found.groups()
    ids = [head] if separator or not head else [head + digits[:end] for end in range(len(digits))]
    return any(other == id or (not id.strip("0123456789") and not other.strip("0123456789")) for id in ids)


def reference(raw, *, num_features=None, duplicates="error", unsorted="error", regroup=False):
    """-> (labels, rows as {index: value}, query ids of the rows, columns), or raises Broken."""
    labels, rows, qids = [], [], []
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        before, hash, comment = line.partition(b"#")
        tokens = re.split(rb"[ \t]+", before.strip(b" \t"))
        if b"\0" in line or b"\r" in line:
            raise Broken(number)
        if tokens == [b""]:
            continue
        label = float32_of(tokens[0])
        if label is None or (tokens[0].startswith(b"-") and re.match(rb"-[0.]*[1-9]", tokens[0])):
            raise Broken(number)
        qid = tokens[1] if len(tokens) > 1 else b""
        if not qid.startswith(b"qid:") or len(qid) == 4 or len(qid) > 1028 or min(qid) < 32:
            raise Broken(number)
        try:
            name = qid[4:].decode()
        except UnicodeDecodeError:
            raise Broken(number) from None
        if name.split() != [name] or (not regroup and name in qids and name != qids[-1]):
            raise Broken(number)
        if hash and (before.endswith(b".") or before.endswith(qid) or ROW.search(b"#" + comment)):
            raise Broken(number)
        if any(is_glued(name, other) or is_glued(other, name) for other in qids):
            raise Broken(number)
        row, previous = {}, 0
        for token in tokens[2:]:
            index, colon, text = token.partition(b":")
            value = float32_of(text)
            if not colon or not re.fullmatch(rb"[0-9]+", index) or value is None:
                raise Broken(number)
            column = int(index)
            if not 1 <= column <= (num_features or 1_000_000) or (unsorted == "error" and column < previous):
                raise Broken(number)
            if column in row and duplicates == "error":
                raise Broken(number)
            if column in row and duplicates == "sum":
                with np.errstate(over="ignore"):
                    value = float(np.float32(row[column]) + np.float32(value))
                if not np.isfinite(value):
                    raise Broken(number)
            if column not in row or duplicates != "first":
                row[column] = value
            previous = column
        labels.append(label)
        rows.append(row)
        qids.append(name)
    columns = num_features or max((column for row in rows for column in row), default=0)
    if not rows or not columns:
        raise Broken(None)
    if regroup:
        order = sorted(range(len(rows)), key=lambda row: qids.index(qids[row]))
        labels, rows, qids = ([items[row] for row in order] for items in (labels, rows, qids))
    return labels, rows, qids, columns


def assert_as_reference(path: Path, raw: bytes, *, threads: int, block_bytes: int, **options) -> bool:
    """Both read the same, or both find the first error in the same line. -> whether they read it."""
    path.write_bytes(raw)
    broken_line = 0
    try:
        labels, rows, qids, columns = reference(raw, **options)
    except Broken as broken:
        broken_line = broken.args[0]
    if broken_line != 0:
        with pytest.raises(LetorError) as caught:
            read_letor(path, threads=threads, block_bytes=block_bytes, **options)
        assert caught.value.line == broken_line, (raw, str(caught.value))
        return False
    data = read_letor(path, threads=threads, block_bytes=block_bytes, **options)
    assert data.labels.tolist() == labels
    assert np.repeat(data.query_ids, data.list_sizes).tolist() == qids
    assert len(set(data.query_ids.tolist())) == data.num_queries
    assert data.num_features == columns
    places = [(row, column) for row, columns_of_row in enumerate(rows) for column in columns_of_row]
    values = [float(data.features[row, column - 1]) for row, column in places]
    assert values == [rows[row][column] for row, column in places]
    assert np.count_nonzero(data.features) == np.count_nonzero(values)  # whatever else there is, is 0
    return True


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file.txt"


READING = {"threads": st.sampled_from([1, 2]), "block_bytes": st.sampled_from([1, 2, 10, 40, 200, 1 << 19])}
OPTIONS = st.fixed_dictionaries(
    {
        "num_features": st.sampled_from([None, None, 12, 40]),
        "duplicates": st.sampled_from(["error", "error", "first", "last", "sum"]),
        "unsorted": st.sampled_from(["error", "error", "accept"]),
        "regroup": st.booleans(),
    }
)

# ------------------------------------------------------------------------------------------------- valid in

PLAIN = st.floats(width=32, allow_nan=False, allow_infinity=False).map(
    lambda value: repr(float(np.float32(value)))
)
DECIMAL = st.from_regex(
    r"[+-]?([0-9]{1,12}(\.[0-9]{0,12})?|\.[0-9]{1,20})([eE]([+]?1?|-[0-4])[0-9])?", fullmatch=True
)
ROUND = st.tuples(st.integers(-(10**9), 10**9), st.sampled_from([1, 2, 8, 1000])).map(
    lambda pair: f"{pair[0] / pair[1]}"
)
VALUES = st.one_of(st.sampled_from(["0", "1", "0.5", "-3"]), PLAIN, DECIMAL, ROUND)
SPACE = st.sampled_from([" ", " ", " ", "\t", "  ", " \t "])
EDGE = st.sampled_from(["", "", "", " ", "\t "])
COMMENT = st.sampled_from(["", "", "#", "# docid = GX-1 inc = 1", " #1:2 qid:3", "#\t#é"])


@st.composite
def files(draw):
    """-> (text of a valid file, its rows as (label, query id, {index: number as text}))."""
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    lines, rows = [], []
    for query in draw(
        st.lists(st.text("abz019-:_é", min_size=1, max_size=6), min_size=1, max_size=4, unique=True)
    ):
        for _ in range(draw(st.integers(1, 3))):
            label = draw(st.sampled_from(["0", "1", "2", "4.0", "0.5", "+3", "1e0"]))
            row = draw(st.dictionaries(st.integers(1, 12), VALUES, max_size=6))
            if not rows:
                row[12] = "7"
            tokens = [label, f"qid:{query}", *(f"{index}:{row[index]}" for index in sorted(row))]
            text = draw(EDGE) + tokens[0] + "".join(draw(SPACE) + token for token in tokens[1:])
            lines += draw(st.sampled_from([[], [], [], [""], [" # alone"]]))
            loose = not row or text.endswith(".")  # a comment glued to that would be an error
            lines.append(
                text + draw(EDGE) + draw(st.sampled_from(["", " #", "\t# 1:2"]) if loose else COMMENT)
            )
            rows.append((label, query, row))
    ids = {query for _, query, _ in rows}
    assume(not any(is_glued(*pair) for pair in itertools.permutations(ids, 2)))
    return newline.join(lines) + draw(st.sampled_from(["", newline])), rows


@settings(SETTINGS, max_examples=60)
@given(file=files(), packed=st.booleans(), **READING)
def test_valid_in_same_out(path, file, packed, threads, block_bytes):
    text, rows = file
    path.write_bytes(gzip.compress(text.encode(), 1) if packed else text.encode())
    data = read_letor(path, threads=threads, block_bytes=block_bytes)
    expected = np.zeros((len(rows), 12))
    for row, (_, _, numbers) in enumerate(rows):
        for index, number in numbers.items():
            expected[row, index - 1] = float32_of(number.encode())
    assert data.features.tolist() == expected.tolist()
    assert data.labels.tolist() == [float(label) for label, _, _ in rows]
    assert np.repeat(data.query_ids, data.list_sizes).tolist() == [query for _, query, _ in rows]


# Rows that are read four entries at a time and converted up to 256 at a time, with what stops that among them.
PLAIN_VALUES = st.from_regex(r"-?([0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9})", fullmatch=True)
STOPS = [
    "+1",
    "1e5",
    "16777217",
    "8388608.5",
    "12345678.12345678",
    "99999999",
    "123456789.5",
    "-0",
    "0." + "3" * 20,
]


@st.composite
def long_rows(draw):
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        values = draw(
            st.lists(st.one_of(PLAIN_VALUES, PLAIN_VALUES, st.sampled_from(STOPS)), min_size=1, max_size=12)
        )
        gaps = itertools.cycle(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
        index, tokens = draw(st.sampled_from([0, 7, 93, 9980])), ["1", "qid:1"]
        for value in values * draw(st.sampled_from([1, 1, 7, 30])):
            index += next(gaps)
            tokens.append(f"{index}:{value}")
        blank = draw(st.sampled_from([" ", " ", " ", "\t", "  "]))
        lines.append(blank.join(tokens) + draw(EDGE) + draw(COMMENT))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines).encode()


@settings(SETTINGS, max_examples=150)
@given(
    raw=long_rows(),
    where=st.none() | st.floats(0, 1, exclude_max=True),
    piece=st.sampled_from([bytes([byte]) for byte in b"0123456789.:-+eE \t#\r\n*x\0"]),
    options=OPTIONS,
    **READING,
)
@example(
    raw=b"1 qid:1 1:2 2:3 3:4 4:5 5:6\n1 qid:1 1:2 2:3 3:4 4:5 4:6\n",
    where=None,
    piece=b"",
    options={},
    threads=1,
    block_bytes=99,
)
@example(raw=b"1 qid:1 1:2\n2:3\n", where=None, piece=b"", options={}, threads=1, block_bytes=99)
@example(raw=b"1 qid:1 1:2-3\n", where=None, piece=b"", options={}, threads=1, block_bytes=99)
@example(raw=b"1 qid:1 3:0 1-2:3\n", where=None, piece=b"", options={}, threads=1, block_bytes=99)
def test_long_rows(path, raw, where, piece, options, threads, block_bytes):
    """With perhaps one byte replaced."""
    if where is not None:
        at = int(where * len(raw))
        raw = raw[:at] + piece + raw[at + 1 :]
    assert_as_reference(path, raw, threads=threads, block_bytes=block_bytes, **options)


# ------------------------------------------------------------------------------------------------ broken in

PIECES = (
    b": - + . , _ x e E5 0 9 1e39 3e38 1e-400 16777217.00000000000000001 99999999 nan inf qid: qid:a".split()
)
PIECES += [b"\0", b"\n", b"\r", b"\r\n", b" ", b"\t", b"#", b"\x0b", b" 3:4", b" 12:1"]
PIECES += [b"\xff", b"\x80", "\u00a0".encode(), b"\xef\xbb\xbf", b"\x1f\x8b", b"BZ"]
DIGITS = [b"%d" % digit for digit in range(10)]
EDIT = st.tuples(
    st.sampled_from(["insert", "replace", "delete", "copy"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 30),
    st.one_of(st.sampled_from(PIECES), st.sampled_from(DIGITS), st.binary(min_size=1, max_size=3)),
)


def edited(raw: bytes, edits) -> bytes:
    for kind, where, length, piece in edits:
        at = int(where * (len(raw) + 1))
        if kind == "insert":
            raw = raw[:at] + piece + raw[at:]
        elif kind == "replace":
            raw = raw[:at] + piece + raw[at + len(piece) :]
        elif kind == "delete":
            raw = raw[:at] + raw[at + length :]
        else:
            raw = raw[:at] + raw[at : at + length] + raw[at:]
    return raw


def is_told_as_compressed(raw: bytes) -> bool:
    return raw.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"))


@settings(SETTINGS, max_examples=400)
@given(file=files(), edits=st.lists(EDIT, min_size=1, max_size=2), options=OPTIONS, **READING)
def test_mutated_files(path, file, edits, options, threads, block_bytes):
    raw = edited(file[0].encode(), edits)
    if not is_told_as_compressed(raw):
        assert_as_reference(path, raw, threads=threads, block_bytes=block_bytes, **options)


TOKENS = b"1 0.5 qid:1 qid:2 qid: 1:2 2:-.5 3:1e3 3:3e38 0:1 -1 : 7:x 12:16777217 1:12345678.12345678".split()
TOKENS += [b" ", b" ", b" ", b" ", b"\t", b"#", b"\r", b"\0", b"\xe9", b"2:123456789012345678901"]
LINE = st.lists(st.sampled_from(TOKENS), max_size=12).map(b"".join)


@settings(SETTINGS, max_examples=300)
@given(lines=st.lists(st.one_of(LINE, st.just(b"1 qid:1 1:1 3:2")), max_size=5), options=OPTIONS, **READING)
@example(lines=[b"1 qid:1 1:1", b"1 qid:1 2:1 1:1"], options={"unsorted": "accept"}, threads=2, block_bytes=1)
def test_lines_of_odd_tokens(path, lines, options, threads, block_bytes):
    assert_as_reference(path, b"\n".join(lines), threads=threads, block_bytes=block_bytes, **options)


@settings(SETTINGS, max_examples=60)
@given(st.binary(max_size=300))
def test_noise(path, raw):
    if not is_told_as_compressed(raw):
        assert_as_reference(path, raw, threads=1, block_bytes=64)


@settings(SETTINGS, max_examples=150)
@given(
    file=files(),
    edits=st.lists(EDIT, min_size=1, max_size=2),
    compression=st.sampled_from(["gzip", "bz2", "lzma"]),
)
def test_mutated_compressed_files(path, file, edits, compression):
    """Damage is found, unless it lies where the text does not depend on it."""
    module = __import__(compression)
    text = file[0].encode()
    path.write_bytes(text)
    plain = read_letor(path)
    raw = edited(module.compress(text), edits)
    path.write_bytes(raw)
    try:
        data = read_letor(path)
    except LetorError:
        return
    assert data.fingerprint == plain.fingerprint


def test_reference_is_not_trivial(path):
    """The reader above reads what is valid: else agreement on errors would be all that is tested."""
    assert assert_as_reference(
        path, b"1 qid:b 2:3\n0 qid:a 1:.5 #\n1 qid:b", threads=1, block_bytes=9, regroup=True
    )
    assert not assert_as_reference(path, b"1 qid:b 2:3\n0 qid:a 1:.5 #\n1 qid:b", threads=1, block_bytes=9)

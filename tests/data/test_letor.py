"""read_letor: every rule of the format, every error, and the real files against scikit-learn."""

import bz2
import gzip
import lzma
import os
import pickle
import re
import shutil
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_svmlight_file

from pipeline.data import LetorError, RankingData, read_letor
from pipeline.data.letor import checks, matrix, parser
from pipeline.errors import UserError

GOOD = b"2 qid:a 1:0.5 3:-1e1 # doc 1\n0 qid:a 2:7\n1 qid:b 3:4\n"
GOOD_FEATURES = [[0.5, 0, -10], [0, 7, 0], [0, 0, 4]]


def write(folder: Path, text: bytes | str, name: str = "file.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, text: bytes | str, **options) -> RankingData:
    return read_letor(write(folder, text), **options)


def error(folder: Path, text: bytes | str, **options) -> LetorError:
    path = write(folder, text)
    with pytest.raises(LetorError) as caught:
        read_letor(path, **options)
    assert caught.value.path == path
    place = f"{path}:" if caught.value.line is None else f"{path}:{caught.value.line}: "
    assert str(caught.value).startswith(place)
    assert caught.value.fix
    # The error depends on neither blocks nor threads.
    for threads, block_bytes in ((1, 1), (2, 1), (2, 7), (2, 64)):
        with pytest.raises(LetorError) as again:
            read_letor(path, threads=threads, block_bytes=block_bytes, **options)
        assert str(again.value) == str(caught.value)
    return caught.value


def assert_equal(a: RankingData, b: RankingData) -> None:
    np.testing.assert_array_equal(a.features, b.features)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.offsets, b.offsets)
    assert a.query_ids.tolist() == b.query_ids.tolist()


# ------------------------------------------------------------------------------------------------ the format


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.rstrip(b"\n"),
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"\n", b"\r\n").rstrip(b"\n"),
        GOOD.replace(b" ", b"\t"),
        GOOD.replace(b" ", b" \t  ").replace(b"\n", b" \t\n"),
        b"  \n\n# only a comment\n \t# another\n" + GOOD.replace(b"0 qid", b"\n\r\n 0 qid") + b"\n\n#end",
        b"\xef\xbb\xbf" + GOOD,
        b"+2.0 qid:a 01:.5 3:-10.0#x:y # 1:2 qid:b\n0e5 qid:a 2:+7e0\n10e-1 qid:b 3:0.04E+2 4:0",
    ],
    ids=["plain", "no last newline", "crlf", "crlf no last", "tabs", "spaces", "blank", "bom", "numbers"],
)
@pytest.mark.parametrize("block_bytes", [1, 20, 1 << 20])
def test_format(tmp_path, text, block_bytes):
    data = read(tmp_path, text, block_bytes=block_bytes)
    assert data.features[:, :3].tolist() == GOOD_FEATURES
    assert not data.features[:, 3:].any()
    assert data.labels.tolist() == [2, 0, 1]
    assert data.offsets.tolist() == [0, 2, 3]
    assert data.query_ids.tolist() == ["a", "b"]


def test_query_ids_are_kept_as_they_are(tmp_path):
    ids = ["007", "7", "qid:7", "GX-1:2", "ü€", "+7", "x" * 1000]
    data = read(tmp_path, "".join(f"1 qid:{name} 1:1\n" for name in ids))
    assert data.query_ids.tolist() == ids
    ids = ["21:0.5", "GX-2", "3:4", "x1:3", "GX-21:x"]  # no number among them, nor x
    assert read(tmp_path, "".join(f"1 qid:{name} 1:1\n" for name in ids)).query_ids.tolist() == ids


@pytest.mark.parametrize("value", ["147.314", "-1e-3", "0", ".5"])
@pytest.mark.parametrize("regroup", [False, True])
def test_a_lost_blank_after_a_query_id(tmp_path, value, regroup):
    rows = [f"{row % 2} qid:{row // 3} 1:{value} 2:1\n" for row in range(9)]
    for row in range(9):
        broken = [*rows[:row], rows[row].replace(" 1:", "1:"), *rows[row + 1 :]]
        wrong = error(tmp_path, "".join(broken), regroup=regroup)
        assert wrong.line == max(row + 1, 2)
        assert f"'{row // 3}1:{value}' (line {row + 1})" in wrong.what
    assert read(tmp_path, "".join(rows), regroup=regroup).num_queries == 3


@pytest.mark.parametrize(
    ("name", "glued"),
    [
        ("q1", "q11:0.2"),
        ("MSN-1", "MSN-1136:1e-3"),
        ("a0f", "a0f31:0.5"),
        ("1.0", "1.01:0.5"),
        ("x", "x2:-.5"),
        ("7", "9,1:0.5"),
        ("q", "q;1:0.5"),
        ("7", "71:0.52:4"),
    ],
)
def test_a_lost_blank_after_other_ids(tmp_path, name, glued):
    for first, second in ((name, glued), (glued, name)):
        wrong = error(tmp_path, f"1 qid:z 1:1\n1 qid:{first} 1:1\n0 qid:y 1:1\n0 qid:{second} 1:1\n")
        assert wrong.line == 4
        assert repr(name) in wrong.what
        assert repr(glued) in wrong.what


def test_a_hash_directly_after_a_query_id_or_a_point(tmp_path):
    for text in (
        "1 qid:1 1:0.5 2:1.#INF 3:7",
        "1 qid:1 2:-1.#IND",
        "1 qid:1 1:1.#QNAN # doc",
        "1 qid:c#1 1:0.5",
        "1 qid:c#",
    ):
        wrong = error(tmp_path, f"0 qid:0 1:1 # 1.#INF\n{text}\n")
        assert wrong.line == 2
        assert re.search(r"'#' .* '.*#", wrong.what)
    sizes = write(tmp_path, "2", "file.query")
    assert read(tmp_path, "1#doc\n2 1:3\n", group_sizes=sizes).labels.tolist() == [1, 2]
    assert error(tmp_path, "1\n1.#INF 1:2\n", group_sizes=sizes, num_features=2).line == 2
    for text in (
        "# 1 qid:c#1 1:1.#INF\n0 qid:c #\n",
        "0 qid:c 1:1# 2:2\n",
        "0 qid:c 1:1.0#\n",
        "0 qid:c 1:1. #\n",
    ):
        assert read(tmp_path, text, num_features=1).num_docs == 1


def test_a_lost_newline_after_a_comment(tmp_path):
    rows = [f"{row % 3} qid:q{row} 1:{row} # docid = GX-{row} inc = 1 prob = 0.5" for row in range(4)]
    for blank in ("", " ", "\t"):
        wrong = error(tmp_path, f"{rows[0]}\n{rows[1]}{blank}{rows[2]}\n{rows[3]}\n")
        assert wrong.line == 2
        assert "# docid = GX-1" in wrong.what
    # Rows that are commented out, and comments on queries, are fine.
    fine = "of qid:1, not qid:2 or qid: 3:4, xqid:1 2:3"
    text = f"# {rows[0]}\n{rows[1]} {fine}\n#{rows[2]} 0 qid:1 1:1\n{rows[3]} qid:1 x:1"
    assert read(tmp_path, text).query_ids.tolist() == ["q1", "q3"]


@pytest.mark.parametrize("mapped", [False, True])
def test_a_stray_index_is_named_before_the_matrix_is_made(tmp_path, mapped):
    out = {"out_dir": tmp_path} if mapped else {}
    rows = ["0 qid:1 1:1 2:1\n"] * 2000
    for row in (0, 7, 1999):
        wrong = error(tmp_path, "".join([*rows[:row], "0 qid:1 1000000:1\n", *rows[row + 1 :]]), **out)
        assert wrong.line == row + 1
        assert wrong.argument == "num_features"
        assert "1000000" in wrong.value
    # An earlier error comes first. An index is not stray if the matrix stays small.
    wrong = error(tmp_path, "".join([*rows, "x qid:1 1:1\n", "0 qid:1 1000000:1\n"]), **out)
    assert wrong.line == 2001
    assert read(tmp_path, "".join([*rows[:100], "0 qid:1 700:1\n"]), **out).num_features == 700
    assert error(tmp_path, "".join([*rows[:300], "0 qid:1 1000000:1\n"]), **out).line == 301


def test_num_features(tmp_path):
    assert read(tmp_path, GOOD, num_features=5).features.tolist() == [[*row, 0, 0] for row in GOOD_FEATURES]
    assert read(tmp_path, "1 qid:1\n0 qid:1 # nothing\n", num_features=2).features.tolist() == [
        [0, 0],
        [0, 0],
    ]
    assert read(tmp_path, f"0 qid:1 {checks.MAX_INDEX}:3\n").num_features == 1_000_000
    wrong = error(tmp_path, GOOD, num_features=2)
    assert (wrong.line, wrong.argument) == (1, "num_features")


# key -> (texts of which the last line has the error; the line is None where the whole file is wrong)
ERRORS = {
    "no qid": ["1 qid:1 1:1\n1 1:1\n", "1 qid: 1:1\n", "1 qid:#1\n", "1\n", "1 QID:1 1:1\n"],
    "the label": [
        *(
            "python 2:2.5\n",
            "qid:1 1:1\n",
            "1.2.3 qid:1 1:1\n",
            "\n1 qid:1 1:1\n\nnan qid:1\n",
            "inf qid:1\n",
        ),
        "1 qid:1 1:1\n\ufeff1 qid:1 1:1\n",
    ],
    "label .* negative": ["-1 qid:1\n", "-1e-400 qid:1\n", "-.0001e-50 qid:1 1:1\n"],
    "label .* too large": ["1e39 qid:1\n"],
    "index 0": ["1 qid:1 0:1\n", "1 qid:1 00:1\n"],
    "<index>:<value>": [
        *(f"1 qid:1 {token}\n" for token in ("-1:1", "1.5:1", "a:1", ":1", "17", "qid:2 1:1", "1 :1")),
        "1 qid:1 1:7 x\n",
    ],
    "above 1000000": [
        "1 qid:1 1000001:1\n",
        "1 qid:1 99999999999999999999999:1\n",
        f"1 qid:1 {'9' * 5000}:1\n",
    ],
    "the value in '.*' is not a finite number": [
        f"1 qid:1 1:1 11:{value}\n"
        for value in ("", " 5", *"NULL nan -inf 1,5 1_0 0x10 --1 . 1e 1e+ - 2:3 5%x 5( 5-3".split())  # noqa: SIM905
    ],
    "value .* too large": [
        f"1 qid:1 1:{value} 2:4\n"
        for value in (
            "1e39",
            "-3.4028235677973367e38",
            "1.79769313486232e+308",
            "1e999999999999",
            "-1e99999999999999",
        )
    ],
    "larger feature index": ["1 qid:1 2:1 1:1\n"],
    "gives its feature again": ["1 qid:1 1:1 1:2\n"],
    "query 'a' again.* line 1": ["1 qid:a\n2 qid:b 1:1\n\n3 qid:a\n"],
    "not text": [
        *(
            "1 qid:1 1:1\n1 qid:1 1:\0\n",
            "1 qid:1 1:1 # \0\n",
            "\0\0\0\0",
            "1 qid:a\x01b 1:1\n",
            "1 qid:1 1:5\x0b2:1\n",
        ),
        "1 qid:1 1:1\n".encode("utf-16"),
        b"PK\x03\x04\0",
    ],
    "carriage return": ["1 qid:1 1:1\r2 qid:1 1:1\r", "1 qid:1 1:1 # doc\r2 qid:1 1:1\r"],
    "UTF-8": [b"1 qid:1 1:1\n1 qid:\xff\xfe 1:1\n"],
    "white space": ["1 qid:a\u00a0b 1:1\n"],
    "1024 bytes": ["1 qid:" + "x" * 1025 + " 1:1\n"],
}


@pytest.mark.parametrize("key", ERRORS)
def test_errors(tmp_path, key):
    for text in ERRORS[key]:
        wrong = error(tmp_path, text)
        raw = text if isinstance(text, bytes) else text.encode()
        assert wrong.line == (1 if b"PK" in raw or raw[:1] == b"\xff" else raw.rstrip(b"\n").count(b"\n") + 1)
        assert re.search(key, wrong.what), (text, wrong)


@pytest.mark.parametrize(
    ("text", "options", "line", "key"),
    [
        ("1 qid:1 1:1 2:1 1:1\n", {"duplicates": "last"}, 1, "larger"),
        ("1 qid:1 3:1 1:1 3:2\n", {"unsorted": "accept"}, 1, "'3:2' .* again"),
        ("1 qid:1 2:1 1:1\n1 qid:1 1:1 2:1 1:1\n", {"unsorted": "accept"}, 2, "'1:1' .* again"),
        ("1 qid:1 1:1\n1 qid:1 1:3e38 1:3e38\n", {"duplicates": "sum"}, 2, "sum .* too large"),
        ("", {}, None, "no row"),
        ("\n# nothing\n\n", {}, None, "no row"),
        ("1 qid:1\n", {}, None, "no feature"),
    ],
)
def test_errors_with_options_and_of_files(tmp_path, text, options, line, key):
    wrong = error(tmp_path, text, **options)
    assert wrong.line == line
    assert re.search(key, wrong.what)


def test_a_complete_message(tmp_path):
    assert str(error(tmp_path, "1 qid:1 1:5 2:3 1:4\n")) == (
        f"{tmp_path}/file.txt:1: '1:4' comes after a larger feature index. Fix: sort the features, or set unsorted to "
        "accept"
    )
    long = error(tmp_path, "1 qid:1 1:" + "7" * 200 + "x\n")
    assert "'1:" + "7" * 58 + "'..." in long.what


@pytest.mark.parametrize(
    ("text", "argument", "setting"),
    [
        ("1 qid:1 1:1.79769313486232e+308\n", "missing_value", 1.79769313486232e308),
        ("1 qid:a 1:1\n1 qid:b 1:1\n1 qid:a 1:1\n", "regroup", True),
        ("1 qid:1 1:1 1:2\n", "duplicates", "sum"),
        ("1 qid:1 2:1 1:2\n", "unsorted", "accept"),
        ("1 1:1\n", "group_sizes", "sizes"),
        ("1 qid:1\n", "num_features", 3),
    ],
)
def test_errors_name_the_argument_that_accepts_the_file(tmp_path, text, argument, setting):
    wrong = error(tmp_path, text)
    assert wrong.argument == argument
    assert f"set {argument}" in wrong.fix
    assert "set --an-option" in str(wrong.named({argument: "--an-option"}))
    assert f"set {argument}" not in str(wrong.named({}))
    if argument == "group_sizes":
        setting = write(tmp_path, "1\n", "sizes")
    assert read(tmp_path, text, **{argument: setting}).num_docs == text.count("\n")


def test_the_first_error_counts(tmp_path):
    """Each kind is found by another part of the reader; whichever comes first in the file is reported."""
    broken = {
        "scan": "1 qid:z 1:x",
        "float32": "1 qid:z 1:1e39",
        "utf-8": "1 qid:\udcff 1:1",
        "again": "1 qid:a 1:1",
        "sum": "1 qid:z 1:3e38 1:3e38",
    }
    messages = {}
    for first in broken:
        for second in broken:
            lines = ["1 qid:a 1:1", "1 qid:b 1:1", broken[first], "", broken[second], ""]
            text = "\r\n".join(lines).encode(errors="surrogateescape")
            wrong = error(tmp_path, text, duplicates="sum")
            assert wrong.line == 3
            assert messages.setdefault(first, wrong.what) == wrong.what
    assert len(set(messages.values())) == len(broken)


def test_line_numbers_in_a_long_file(tmp_path):
    lines = [f"1 qid:{row // 10} 1:{row} 2:0.5 # row {row}" for row in range(3000)]
    for at in (0, 1234, 2500):
        broken = lines.copy()
        broken[2500] = broken[2500].replace(" #", " 4:NULL #")
        broken[at] = lines[at].replace(" #", " 3:x #")
        for end in ("\n", "\r\n"):
            path = write(tmp_path, end.join(broken))
            for block_bytes in (1000, 4096, 1 << 20):
                with pytest.raises(LetorError) as caught:
                    read_letor(path, threads=2, block_bytes=block_bytes)
                assert caught.value.line == at + 1


def test_error_can_be_pickled(tmp_path):
    wrong = error(tmp_path, "1 qid:1 1:x\n")
    again = pickle.loads(pickle.dumps(wrong))
    assert (str(again), again.path, again.line) == (str(wrong), wrong.path, wrong.line)


# ----------------------------------------------------------------------------------------------- the options


@pytest.mark.parametrize(
    ("duplicates", "expected"), [("first", [1, 0, 2]), ("last", [5, 0, 2]), ("sum", [9, 0, 2])]
)
def test_duplicates(tmp_path, duplicates, expected):
    data = read(tmp_path, "1 qid:1 1:1 1:3 1:5 3:2\n", duplicates=duplicates)
    assert data.features.tolist() == [expected]
    data = read(tmp_path, "1 qid:1 1:1 3:2 1:3 1:5\n", duplicates=duplicates, unsorted="accept")
    assert data.features.tolist() == [expected]


def test_unsorted(tmp_path):
    text = "1 qid:1 3:1 1:2\n0 qid:1 2:3 3:4 1:5\n0 qid:1 3:1 1:2\n"
    for block_bytes in (1, 1000):
        data = read(tmp_path, text, unsorted="accept", block_bytes=block_bytes)
        assert data.features.tolist() == [[2, 0, 1], [5, 3, 4], [2, 0, 1]]


@pytest.mark.parametrize("on_disk", [False, True])
def test_regroup(tmp_path, on_disk):
    names = [f"q{int(n)}" for n in np.random.default_rng(0).integers(0, 40, 300)]
    text = "".join(f"{row % 3} qid:{name} 1:{row} 2:0.25 5:{row / 8}\n" for row, name in enumerate(names))
    data = read(tmp_path, text, regroup=True, block_bytes=500, out_dir=tmp_path if on_disk else None)
    order = [row for name in dict.fromkeys(names) for row in range(300) if names[row] == name]
    assert data.query_ids.tolist() == list(dict.fromkeys(names))
    assert data.list_sizes.tolist() == [names.count(name) for name in data.query_ids]
    assert data.features[:, 0].tolist() == order
    assert data.features[:, 4].tolist() == [row / 8 for row in order]
    assert data.labels.tolist() == [row % 3 for row in order]
    assert_equal(read(tmp_path, GOOD, regroup=True), read(tmp_path, GOOD))


def test_missing_value(tmp_path):
    largest = "1:1.79769313486232e+308 2:1.7976931348623157e308 3:1.797693134862315708e+308 4:0.5"
    wrong = error(
        tmp_path, f"1 qid:1 {largest} 5:-1.79769313486232e+308\n", missing_value=1.79769313486232e308
    )
    assert "'-1.79769313486232e+308'" in wrong.what
    for missing_value in (
        float("1.79769313486232e+308"),
        float(np.finfo(np.float64).max),
    ):  # the first one is inf
        assert read(tmp_path, f"1 qid:1 {largest}\n", missing_value=missing_value).features.tolist() == [
            [0, 0, 0, 0.5]
        ]
    text = "3 qid:1 1:-999 2:-999.0000001 3:-999.00001 4:999 5:3\n"
    assert read(tmp_path, text, missing_value=-999).features.tolist() == [
        [0, 0, np.float32(-999.00001), 999, 3]
    ]
    assert read(tmp_path, "3 qid:1 1:3 2:4\n", missing_value=3).labels.tolist() == [3]  # of features only


@pytest.mark.parametrize("block_bytes", [1, 30, 1 << 20])
@pytest.mark.parametrize("mapped", [False, True])
def test_missing_values_are_counted_by_feature(tmp_path, block_bytes, mapped):
    text = (
        "1 qid:1 1:-999 3:-999.0 # 1:-999\n0 qid:2 1:0 2:5\n0 qid:1 1:-9.99e2 3:7 5:1\n"
        "-0 qid:2 4:-999.00000000000001\n"
    )
    options = {"regroup": True, "missing_value": -999, "block_bytes": block_bytes}
    options |= {"out_dir": tmp_path} if mapped else {}
    assert read(tmp_path, text, **options).num_missing.tolist() == [2, 0, 1, 1, 0]
    assert read(tmp_path, text, num_features=7, **options).num_missing.tolist() == [2, 0, 1, 1, 0, 0, 0]
    assert read(tmp_path, text, **(options | {"missing_value": 999})).num_missing.tolist() == [0] * 5
    assert read(tmp_path, text, **(options | {"missing_value": None})).num_missing is None
    twice = "1 qid:1 2:-999 1:4 2:6 1:-999\n"
    for duplicates, expected in (("first", [4, 0]), ("last", [0, 6]), ("sum", [4, 6])):
        data = read(tmp_path, twice, duplicates=duplicates, unsorted="accept", **options)
        assert data.features.tolist() == [expected]
        assert data.num_missing.tolist() == [1, 1]


def test_a_last_row_without_a_newline_logs_a_warning(tmp_path, caplog):
    for text, line in ((GOOD, None), (GOOD + b"# end", None), (GOOD + b"1 qid:b 3:4", 4), (GOOD.rstrip(), 3)):
        for block_bytes in (1, 1000):
            caplog.clear()
            read(tmp_path, text, block_bytes=block_bytes)
            assert len(caplog.records) == (line is not None)
            assert line is None or f"file.txt:{line}: " in caplog.text


@pytest.mark.parametrize("module", [bz2, lzma, gzip])
@pytest.mark.parametrize("padding", [0, 4, 1 << 16, 300_000])
def test_padding_between_and_behind_streams(tmp_path, module, padding):
    zeros = b"\0" * padding
    parts = [module.compress(GOOD) + zeros, module.compress(b"1 qid:c 1:1\n") + zeros]
    assert read(tmp_path, b"".join(parts)).query_ids.tolist() == ["a", "b", "c"]


def test_group_sizes(tmp_path):
    sizes = write(tmp_path, "2\n\n 1\r\n", "file.query")
    text = GOOD.replace(b" qid:a", b"").replace(b" qid:b", b"")
    for block_bytes in (1, 1000):
        data = read(tmp_path, text, group_sizes=sizes, block_bytes=block_bytes)
        assert data.query_ids.tolist() == ["1", "2"]
        assert data.offsets.tolist() == [0, 2, 3]
        assert data.features.tolist() == GOOD_FEATURES
    assert "'qid:a'" in error(tmp_path, GOOD, group_sizes=sizes).what
    wrong = error(tmp_path, text + b"1 1:1 # a fourth\n\n1 1:1\n", group_sizes=sizes)
    assert (wrong.line, wrong.what) == (4, "row 4, but the group sizes sum to 3")
    wrong = error(tmp_path, text[:-6], group_sizes=sizes)
    assert (wrong.line, wrong.what) == (None, "2 rows, but the group sizes sum to 3")
    for content, line in (
        ("2\nx\n", 2),
        ("2\n\n0\n1\n", 3),
        ("-1\n", 1),
        ("1 2\n", 1),
        ("9" * 30, 1),
        ("\n", None),
    ):
        write(tmp_path, content, "file.query")
        with pytest.raises(LetorError, match="Fix: give the group file") as caught:
            read(tmp_path, text, group_sizes=sizes)
        assert (caught.value.path, caught.value.line) == (sizes, line)


@pytest.mark.parametrize(
    "options",
    [
        {"num_features": 0},
        {"num_features": 1_000_001},
        {"duplicates": "mean"},
        {"unsorted": "yes"},
        {"missing_value": float("nan")},
        {"threads": 0},
        {"block_bytes": 0},
        {"out_dir": Path("no/such/folder")},
        {"regroup": True, "group_sizes": "x"},
    ],
)
def test_impossible_arguments(tmp_path, options):
    with pytest.raises(UserError) as caught:
        read_letor(write(tmp_path, GOOD), **options)
    name, value = next(iter(options.items()))
    assert caught.value.where == f"{name}={value!r}"
    assert caught.value.fix


@pytest.mark.parametrize(
    "chunk_values", [64, 1000, 1 << 18]
)  # less than a row, a few rows, more than the file
def test_out_dir(tmp_path, monkeypatch, chunk_values):
    monkeypatch.setattr(matrix, "_CHUNK_VALUES", chunk_values)
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    write(out_dir, b"\xff" * 5000, "features.npy")  # of an earlier run
    # Indices that rise to the end of the file: the matrix is widened many times, and narrowed at last.
    text = "".join(f"{row % 5} qid:{row // 7} {row % 9 + 1}:1 {row + 10}:{row}.5\n" for row in range(200))
    in_memory = read(tmp_path, text, block_bytes=100)
    on_disk = read(tmp_path, text, block_bytes=100, out_dir=out_dir)
    expected = np.zeros((200, 209), np.float32)
    expected[np.arange(200), np.arange(200) % 9] = 1
    expected[np.arange(200), np.arange(200) + 9] = np.arange(200) + 0.5
    np.testing.assert_array_equal(in_memory.features, expected)
    assert isinstance(on_disk.features, np.memmap)
    assert_equal(on_disk, in_memory)
    assert_equal(RankingData.load(out_dir), in_memory)
    other = tmp_path / "other"
    other.mkdir()
    in_memory.save(other)
    for name in ("features", "labels", "offsets", "query_ids"):
        assert (out_dir / f"{name}.npy").stat().st_size == (other / f"{name}.npy").stat().st_size
    with pytest.raises(LetorError):
        read(tmp_path, text + "x", out_dir=out_dir)
    assert not (out_dir / "features.npy").exists()


def test_memory_is_bounded(tmp_path):
    """Peak below 1.3 times the arrays, and a few blocks only where the arrays go to the disk."""
    # The first rows are long, so that the memory that the whole file needs is guessed too low.
    comments = ["#" + "x" * 400] * 500 + [""] * 19_500
    text = "".join(
        f"1 qid:{row // 50} {row % 290 + 1}:0.5 300:{row} {comments[row]}\n" for row in range(20_000)
    )
    read(tmp_path, GOOD)
    peaks = []
    for out_dir in (None, tmp_path):
        tracemalloc.start()
        data = read(tmp_path, text, threads=2, block_bytes=1 << 16, out_dir=out_dir)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert data.features.nbytes == 20_000 * 300 * 4
    assert peaks[0] < 1.3 * data.features.nbytes
    assert peaks[1] < 0.3 * data.features.nbytes


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_progress(tmp_path, compress):
    path = write(tmp_path, compress(GOOD.replace(b"\n1 ", b"\n0 qid:a 1:1" * 5000 + b"\n1 ")))
    calls = []
    read_letor(path, block_bytes=10_000, progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert len(calls) >= 6
    assert {total for _, total in calls} == {path.stat().st_size}
    assert calls[-1][0] == path.stat().st_size


def test_threads_and_blocks_change_nothing(tmp_path):
    rng = np.random.default_rng(1)
    lines = [
        f"{rng.integers(5)} qid:{row // 30} "
        + " ".join(
            f"{index}:{rng.normal() * 10.0 ** rng.integers(-9, 9):.8g}"
            for index in range(1, 21)
            if rng.random() < 0.7
        )
        + ("" if rng.random() < 0.5 else f" # {'x' * int(rng.integers(50))}")
        for row in range(500)
    ]
    path = write(tmp_path, "\n".join(lines))
    once = read_letor(path, threads=1)
    assert once.num_docs == 500
    for threads in (1, 2, 3):
        for block_bytes in (1, 13, 100, 1000, 10_000):
            assert_equal(read_letor(path, threads=threads, block_bytes=block_bytes), once)


# ------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_wrong_line_of_a_compressed_file_may_be_damage(tmp_path, compress):
    with pytest.raises(LetorError, match="not a finite number") as caught:
        read(tmp_path, compress(b"1 qid:1 1:x\n"))
    assert caught.value.line == 1
    assert ("copy or download it again" in caught.value.fix) == (compress is not bytes)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed(tmp_path, compress):
    text = GOOD * 1 + b"".join(b"%d qid:c 1:%d\n" % (row % 3, row * row) for row in range(400))
    plain = read(tmp_path, text)
    packed = compress(text)
    assert_equal(read_letor(write(tmp_path, packed, "no.suffix")), plain)
    half = text.index(b"\n", len(text) // 2) - 5
    assert_equal(read(tmp_path, compress(text[:half]) + compress(text[half:]), block_bytes=999), plain)
    for broken in (packed[:-1], packed[: len(packed) // 2], packed + b"garbage", packed + packed[:30]):
        wrong = error(tmp_path, broken)
        assert wrong.line is None
        assert "is damaged or cut off" in wrong.what
    middle = bytearray(packed)
    middle[len(middle) // 2] ^= 0x55
    with pytest.raises(LetorError):
        read(tmp_path, bytes(middle))


def test_a_file_that_ends_within_its_last_line(tmp_path):
    whole = "".join(f"{row % 3} qid:{row // 9} 1:{row} 2:-1 3:0.{row} # doc {row}\n" for row in range(101))
    for cut in ("0 qid:11 1:100 2:-1", "0 qid:11", "0 qid:11 1:100 2:-1 # do"):
        wrong = error(tmp_path, whole + cut)
        assert (wrong.line, wrong.what.partition(":")[0]) == (102, "cut off")
        assert read(tmp_path, whole + cut + "\n").num_docs == 102  # the fix, if the row is complete
    assert error(tmp_path, whole + "0 qid:1").what.startswith("cut off")  # not "query 1 again"
    # What may be meant: a whole last line, a file with rows of other widths, a short one, only a comment that is cut.
    short = "".join(whole.splitlines(keepends=True)[:99])
    for fine in (whole + "0 qid:11 1:1 2:2 3:3", "0 qid:x 1:2\n" + whole + cut, short + cut, whole + "# th"):
        assert read(tmp_path, fine).num_docs >= 100
    assert "1:x" in error(tmp_path, whole + "0 qid:11 1:x 2:-1").what


def test_what_is_wrong_before_the_damage_comes_first(tmp_path):
    noise = bytes(np.random.default_rng(0).integers(33, 127, 300_000).astype(np.uint8))
    path = write(tmp_path, gzip.compress(b"1 qid:1 1:x\n#" + noise)[:-20])
    with pytest.raises(LetorError, match="1:x"):
        read_letor(path, block_bytes=100)


def test_no_such_file_and_folder(tmp_path):
    cases = (
        (tmp_path / "none.txt", "No such file"),
        (tmp_path, "Is a directory"),
        (Path("/dev/null"), "regular file"),
    )
    for path, what in cases:
        with pytest.raises(LetorError, match=what) as caught:
            read_letor(path)
        assert (caught.value.path, caught.value.line) == (path, None)
    assert_equal(read_letor(str(write(tmp_path, GOOD))), read(tmp_path, GOOD))


def test_a_line_without_end(tmp_path):
    path = write(tmp_path, b"1 qid:1 1:1 #" + b"x" * (1 << 27))
    with pytest.raises(LetorError, match="a line of more than 67108864 bytes"):
        read_letor(path)
    path.unlink()
    long = b"1 qid:1 1:1 #" + b"x" * (1 << 21) + b"\n"
    assert read(tmp_path, long * 2, block_bytes=100).features.tolist() == [[1], [1]]


# ------------------------------------------------------------------------------------------- exact float32s


def nearest(text: str) -> float:
    """The float32 nearest to a decimal number by exact arithmetic, ties to even."""
    exact = Fraction(text)
    with np.errstate(over="ignore"):
        guess = np.float32(float(text))
    candidates = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    finite = [value for value in candidates if np.isfinite(value)]
    return float(
        min(finite, key=lambda value: (abs(Fraction(float(value)) - exact), value.view(np.int32) & 1))
    )


def parsed(folder: Path, numbers: list[str]) -> list[float]:
    data = read(folder, "".join(f"0 qid:1 1:{number}\n" for number in numbers), block_bytes=1 << 16)
    return data.features[:, 0].tolist()


def test_hand_picked_numbers(tmp_path):
    tie = "1.000000059604644775390625"  # 1 + 2**-24, between 1 and 1 + 2**-23
    cases = {
        tie: 1.0,
        tie + "0" * 30: 1.0,
        tie + "0" * 30 + "1": 1 + 2.0**-23,  # float() gives the tie itself
        tie[:-1] + "49" + "9" * 20: 1.0,
        "16777217": 16777216.0,
        "16777217.0": 16777216.0,
        "16777217.000000": 16777216.0,
        "16777217.0000001": 16777218.0,
        "16777217.00000000000000000000001": 16777218.0,
        "16777219": 16777220.0,
        "-20000001.000000": -20000000.0,
        "8388609.5": 8388610.0,
        "8388610.5": 8388610.0,
        "3.4028235677973366e38": 2.0**128 - 2.0**104,
        "340282356779733661637539395458142568447.9999": 2.0**128 - 2.0**104,
        "1e-45": 2.0**-149,
        "7.1e-46": 2.0**-149,
        "7e-46": 0.0,
        "1e-46": 0.0,
        "1e-400": 0.0,
        "0e999999999": 0.0,
        "-0": 0.0,
        "1.1754943508222875e-38": 2.0**-126,
        "0." + "0" * 400 + "25e400": 0.25,
        "25" + "0" * 400 + "e-400": 25.0,
        "0" * 30 + "7": 7.0,
        "12345678.12345678": 12345678.0,
        "123456789.123456789": 123456792.0,
        "." + "3" * 5000: float(np.float32(1 / 3)),
        "1e+00005": 100000.0,
        "5.": 5.0,
        "+.5e1": 5.0,
    }
    assert dict(zip(cases, parsed(tmp_path, list(cases)), strict=True)) == cases


def test_random_numbers(tmp_path):
    rng = np.random.default_rng(2)
    numbers = []
    for _ in range(6000):
        whole, decimals = (int(n) for n in rng.integers(0, 12, 2))
        digits = "".join(map(str, rng.integers(0, 10, whole + decimals + 1)))
        number = rng.choice(["", "-", "+"]) + digits[: whole + 1] + "." * (decimals > 0 or rng.random() < 0.1)
        number += digits[whole + 1 :]
        numbers.append(number + (f"e{rng.integers(-50, 26)}" if rng.random() < 0.3 else ""))
    bits = rng.integers(0, 2**31 - 2**24, 2000).astype(
        np.int32
    )  # close to the middle of two float32s, and on it
    values = bits.view(np.float32).astype(np.float64)
    middles = (values + (bits + 1).view(np.float32).astype(np.float64)) / 2
    numbers += [f"{middle:.{digits}g}" for middle in middles[:300] for digits in (9, 15, 17, 18, 19, 25, 120)]
    numbers += [repr(float(value)) for value in bits.view(np.float32)]
    assert parsed(tmp_path, numbers) == [nearest(number) for number in numbers]
    # Short decimals have no double rounding: float() agrees.
    plain = [f"{value:.6f}" for value in rng.normal(0, 30, 5000)]
    assert parsed(tmp_path, plain) == [float(np.float32(float(number))) for number in plain]


# ------------------------------------------------------------------------------------------------ real files


def expected_by_sklearn(path: Path) -> RankingData:
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rb") as file:
        features, labels, ids = load_svmlight_file(file, query_id=True, zero_based=False)
    if len(ids) != len(labels):  # a file without qid
        ids = np.zeros(len(labels), np.int64)
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    return RankingData(
        features.toarray().astype(np.float32),
        labels.astype(np.float32),
        np.append(starts, len(labels)).astype(np.int64),
        ids[starts].astype(str),
    )


def test_real_files_as_sklearn_reads_them(real_data, tmp_path):
    paths = [path for path in sorted(real_data.rglob("*")) if path.is_file() and path.name != "README.md"]
    paths = [path for path in paths if path.suffix != ".query"]
    both = neither = 0
    for path in paths:
        try:
            expected = expected_by_sklearn(path)
        except ValueError:
            with pytest.raises(LetorError):
                read_letor(path)
            neither += 1
            continue
        groups = path.with_suffix(".query")
        no_qid = groups.exists() or path.name == "rankeval_svmlight_classification.txt"
        if not no_qid:
            assert_equal(read_letor(path, num_features=expected.num_features), expected)
        else:
            with pytest.raises(LetorError, match="no qid"):
                read_letor(path)
            if not groups.exists():
                groups = write(tmp_path, f"{expected.num_docs}\n", "all.query")
            data = read_letor(path, group_sizes=groups)
            np.testing.assert_array_equal(data.features, expected.features)
            np.testing.assert_array_equal(data.labels, expected.labels)
            assert data.list_sizes.tolist() == [int(size) for size in groups.read_text().split()]
        both += 1
    assert both >= 20
    assert neither == 4  # NULL; a word for a label; two files of unsorted and duplicate ids


@pytest.mark.parametrize("duplicates", ["first", "last", "sum"])
def test_tfr_files(real_data, duplicates):
    """Unsorted and duplicate ids, against a dictionary a line."""
    for path in sorted((real_data / "odd").glob("tfr_examples_*.txt")):
        data = read_letor(path, duplicates=duplicates, unsorted="accept", num_features=136)
        lines = path.read_text().splitlines()
        assert data.num_docs == len(lines)
        for row, line in enumerate(lines):
            values: dict[int, np.float32] = {}
            for token in line.split()[2:]:
                index, value = int(token.split(":")[0]), np.float32(token.split(":")[1])
                if duplicates == "sum" and index in values:
                    value = np.float32(values[index] + value)
                if duplicates != "first" or index not in values:
                    values[index] = value
            expected = [float(values.get(index, 0)) for index in range(1, 137)]
            assert data.features[row].tolist() == expected
        with pytest.raises(LetorError, match="again"):
            read_letor(path, unsorted="accept")


def test_null_file(real_data):
    path = real_data / "odd" / "ohsumed3_null_head.txt"
    first = next(number for number, line in enumerate(path.read_text().splitlines(), 1) if "NULL" in line)
    with pytest.raises(LetorError, match="11:NULL") as caught:
        read_letor(path)
    assert caught.value.line == first


# ---------------------------------------------------------------------------------------------- compilation


def test_compiles_where_the_package_is_not_writable(tmp_path):
    """The compiled code goes to the user's cache, or stays in memory if that is not writable either."""
    shutil.copy(parser.__file__, tmp_path / "copied.py")
    (tmp_path / "__pycache__").write_text("a file, so that no folder can be made here")
    call = (
        "import copied, numpy as np; z = np.zeros(1, np.int32); f = np.zeros(1, np.float32); "
        "print(copied.fill(f, 0, 1, z.astype(np.int64) + 1, z, f + 1.5, False, False), f)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    for cache in (tmp_path / "cache", Path("/dev/null/none")):
        environment |= {"XDG_CACHE_HOME": str(cache), "HOME": "/dev/null", "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", call], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "1.5" in done.stdout
    assert list((tmp_path / "cache").rglob("copied.fill*.nbi"))

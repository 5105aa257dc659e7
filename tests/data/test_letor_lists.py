"""Lists a few at a time are the lists of the whole file."""

import gzip
import tracemalloc

import numpy as np
import pytest

from pipeline.data import LetorError, read_letor
from pipeline.data.letor.lists import read_lists


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """60 lists of 1 to 40 sparse rows."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("letor") / "lists.txt"
    with path.open("w") as out:
        for query, size in enumerate(rng.integers(1, 41, 60)):
            out.write("# a comment\n")
            for _ in range(size):
                features = np.flatnonzero(rng.random(12) < 0.6) + 1
                values = " ".join(f"{feature}:{rng.normal():.4g}" for feature in features)
                out.write(f"{rng.integers(3)} qid:q{query} {values}\n")
    return path


@pytest.mark.parametrize("block_bytes", [1, 300, 5000, 1 << 21])
def test_together_they_are_what_read_letor_gives(file, block_bytes):
    whole = read_letor(file, num_features=12)
    parts = list(read_lists(file, num_features=12, block_bytes=block_bytes))
    assert (len(parts) == 2) == (block_bytes == 1 << 21)  # the last list ends with the file
    for name in ("features", "labels", "query_ids"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    np.testing.assert_array_equal(np.concatenate([part.list_sizes for part in parts]), whole.list_sizes)
    assert max(part.num_docs for part in parts) <= block_bytes // 8 + 41


def test_compressed_files_and_options_are_those_of_the_reader(tmp_path):
    path = tmp_path / "odd.txt.gz"
    path.write_bytes(gzip.compress(b"1 qid:a 2:-999 1:3 1:4\r\n0 qid:b 1:1\n"))
    a, b = read_lists(path, num_features=3, duplicates="sum", unsorted="accept", missing_value=-999)
    assert a.features.tolist() == [[7, 0, 0]]
    assert b.features.tolist() == [[1, 0, 0]]


def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for num_queries in (500, 2000):
        path = tmp_path / f"{num_queries}.txt"
        row = " ".join(f"{feature}:1" for feature in range(1, 101))
        path.write_text("".join(f"0 qid:{query} {row}\n" * 5 for query in range(num_queries)))
        tracemalloc.start()
        parts = read_lists(path, num_features=100, block_bytes=50_000)
        assert sum(part.num_docs for part in parts) == 5 * num_queries
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    ids = 1500 * 200  # bytes: a query id and its line, in a dict
    assert peaks[1] < peaks[0] + ids  # the arrays of the larger file: 3 MB more


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("1 qid:a 1:1\n1 qid:b 1:1\n1 qid:a 1:1\n", 3, "query 'a' again"),
        ("1 qid:a 1:1\n1 qid:b 4:1\n", 2, "above 3"),
        ("1 qid:a 1:1\n1 qid:a 1:x\n", 2, "not a finite number"),
        ("1 1:1\n", 1, "no qid"),
        ("# nothing\n", None, "no row"),
        ("1 qid:a 1:3e38 1:3e38\n", 1, "too large for float32"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 1 << 21])
def test_errors_name_the_line(tmp_path, text, line, what, block_bytes):
    path = tmp_path / "wrong.txt"
    path.write_text(text)
    with pytest.raises(LetorError, match=what) as error:
        list(read_lists(path, num_features=3, duplicates="sum", block_bytes=block_bytes))
    assert error.value.line == line


@pytest.mark.parametrize("block_bytes", [1, 20, 1 << 21])
def test_group_sizes(tmp_path, block_bytes):
    path, sizes = tmp_path / "no_qid.txt", tmp_path / "no_qid.txt.query"
    path.write_text("".join(f"{row % 2} 1:{row}\n" for row in range(6)))
    sizes.write_text("2\n3\n1\n")
    parts = list(read_lists(path, num_features=1, group_sizes=sizes, block_bytes=block_bytes))
    assert [name for part in parts for name in part.query_ids] == ["1", "2", "3"]
    assert [size for part in parts for size in part.list_sizes] == [2, 3, 1]
    assert [row for part in parts for row in part.features[:, 0]] == list(range(6))
    for wrong, what in (("2\n3\n", "row 6, .* sum to 5"), ("2\n5\n", "6 rows, .* 7")):
        sizes.write_text(wrong)
        with pytest.raises(LetorError, match=what):
            list(read_lists(path, num_features=1, group_sizes=sizes, block_bytes=block_bytes))

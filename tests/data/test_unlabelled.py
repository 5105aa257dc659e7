"""Lists without labels: the embedded ones, a LETOR file's, their report."""

import numpy as np
import pytest

from pipeline.config import LetorData, SyntheticData
from pipeline.data.check import describe_unlabelled
from pipeline.data.letor.reader import read_letor
from pipeline.data.synthetic import make_synthetic, make_unlabelled
from pipeline.data.unlabelled import read_unlabelled


def test_fewer_lists_are_the_first_of_more_and_none_is_a_list_of_a_split():
    few, more = make_unlabelled(seed=3, num_queries=2), make_unlabelled(seed=3, num_queries=201)
    assert few.num_queries == 2
    assert more.num_queries == 201
    np.testing.assert_array_equal(few.features, more.features[: few.num_docs])
    np.testing.assert_array_equal(few.offsets, more.offsets[:3])
    assert (more.labels == -1).all()
    splits = make_synthetic(seed=3, train_queries=3, vali_queries=1, test_queries=1)
    rows = {row.tobytes() for row in more.features}
    for lists in splits.values():
        assert not any(row.tobytes() in rows for row in lists.features)
    # The same columns vary in the same way: the world is one.
    varies = (more.features.min(0) < more.features.max(0)).nonzero()[0]
    assert set((splits["train"].features.min(0) < splits["train"].features.max(0)).nonzero()[0]) <= set(
        varies
    )


def test_the_first_column_of_a_file_is_ignored(tmp_path):
    path = tmp_path / "u.txt"
    path.write_text("3 qid:x 1:0.5\n7 qid:x 2:1\n-1 qid:y 1:2 # judged by nobody\n")
    config = LetorData(train=str(path), vali=str(path), test=str(path), unlabelled=str(path))
    lists = read_unlabelled(config, tmp_path, num_features=3)
    assert lists.labels.tolist() == [-1, -1, -1]
    assert lists.features.tolist() == [[0.5, 0, 0], [0, 1, 0], [2, 0, 0]]
    assert lists.query_ids.tolist() == ["x", "y"]
    with pytest.raises(ValueError, match=r"u\.txt.*2"):
        read_unlabelled(config, tmp_path, num_features=1)


def test_the_embedded_lists_are_read_by_number(tmp_path):
    lists = read_unlabelled(SyntheticData(unlabelled_queries=2), tmp_path, num_features=136)
    np.testing.assert_array_equal(lists.features, make_unlabelled(num_queries=2).features)


def test_the_report_counts_them_and_warns_of_queries_that_are_evaluated_on(tmp_path):
    path = tmp_path / "u.txt"
    path.write_text("0 qid:1 1:1\n1 qid:1 1:2\n1 qid:2 1:2\n")
    lists = read_letor(path)
    other = make_synthetic(train_queries=1, vali_queries=1, test_queries=1)
    described = describe_unlabelled(lists, {"train": lists, "vali": other["vali"], "test": other["test"]})
    assert described["queries"] == 2
    assert described["docs"] == 3
    assert described["one_doc_lists"] == 1
    assert described["warnings"] == []  # the training queries again say nothing about the test
    described = describe_unlabelled(lists, {"train": other["train"], "vali": other["vali"], "test": lists})
    assert described["overlaps"] == [{"splits": ["test", "unlabelled"], "count": 2, "first": ["1", "2"]}]
    assert "results on test flatter" in described["warnings"][0]

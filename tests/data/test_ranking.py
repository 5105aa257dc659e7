import numpy as np
import pytest

from pipeline.data import RankingData


def example():
    return RankingData(
        np.arange(12, dtype=np.float32).reshape(6, 2),
        np.array([0, 1, 0, 0, 2, 0], np.float32),
        np.array([0, 2, 3, 6]),
        np.array(["a", "b", "c"]),
    )


def test_sizes_and_blank_queries():
    data = example()
    assert (data.num_queries, data.num_docs, data.num_features, data.num_blank_queries) == (3, 6, 2, 1)
    assert data.list_sizes.tolist() == [2, 1, 3]
    assert data.list_of_doc.tolist() == [0, 0, 1, 2, 2, 2]


def test_take_keeps_whole_lists_in_the_order_asked_for():
    taken = example().take(np.array([2, 0]))
    assert taken.query_ids.tolist() == ["c", "a"]
    assert taken.labels.tolist() == [0, 2, 0, 0, 1]
    assert taken.features[:, 0].tolist() == [6, 8, 10, 0, 2]


def test_save_and_load(tmp_path):
    data = example()
    data.save(tmp_path)
    loaded = RankingData.load(tmp_path)
    assert isinstance(loaded.features, np.memmap)
    for name in ("features", "labels", "offsets", "query_ids"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(data, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((6, 2))}, "features must be float32"),
        ({"labels": np.zeros(5, np.float32)}, r"labels must be float32 \[6\]"),
        ({"offsets": np.array([0, 2, 2, 6])}, "every list has at least one document"),
        ({"offsets": np.array([0, 2, 3, 5])}, "rise from 0 to 6"),
        ({"query_ids": np.array(["a", "b"])}, r"query_ids must be str \[3\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    arrays = {name: getattr(example(), name) for name in ("features", "labels", "offsets", "query_ids")}
    with pytest.raises(ValueError, match=message):
        RankingData(**(arrays | change))

"""per_query.csv: what is written is read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import RankingData
from pipeline.evaluation import read_per_query, write_per_query
from pipeline.metrics import ranking_metrics


def ranking_data(query_ids, *, labels=None):
    """Query i has i + 1 documents."""
    sizes = np.arange(1, len(query_ids) + 1)
    labels = np.zeros(sizes.sum(), np.float32) if labels is None else np.array(labels, np.float32)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return RankingData(
        np.zeros((len(labels), 1), np.float32), labels, offsets, np.array(query_ids, dtype=np.str_)
    )


def test_the_file(tmp_path):
    data = ranking_data(["q,1", 'q"2'], labels=[0, 2, 0])
    metrics = {
        "teacher": {"ndcg@1": np.array([np.nan, 1.0])},
        "student": {"ndcg@1": np.array([np.nan, 0.1]), "map": np.array([np.nan, 0.5])},
    }
    write_per_query(tmp_path / "per_query.csv", data, metrics)
    assert (tmp_path / "per_query.csv").read_bytes().decode() == (
        "query_id,num_docs,num_relevant,teacher/ndcg@1,student/ndcg@1,student/map\n"
        '"q,1",1,0,,,\n'
        '"q""2",2,1,1.0,0.1,0.5\n'
    )
    got = read_per_query(tmp_path / "per_query.csv")
    assert got.query_ids.tolist() == ["q,1", 'q"2']
    assert (got.num_docs.tolist(), got.num_relevant.tolist()) == ([1, 2], [0, 1])
    assert list(got.metrics) == ["teacher", "student"]
    np.testing.assert_equal(got.metrics, metrics)


def test_real_metrics_come_back_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    data = ranking_data(
        [f"q{i}" for i in range(30)], labels=rng.integers(0, 5, 465) * (rng.random(465) < 0.2)
    )
    metrics = {m: ranking_metrics(rng.random(465), data.labels, data.offsets) for m in ("teacher", "student")}
    write_per_query(tmp_path / "per_query.csv", data, metrics)
    got = read_per_query(tmp_path / "per_query.csv")
    np.testing.assert_equal(got.metrics, metrics)
    np.testing.assert_array_equal(got.num_relevant == 0, np.isnan(metrics["teacher"]["map"]))


ANY_ID = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(",\"' \n;#|"), max_size=6)


@settings(deadline=None)
@given(query_ids=st.lists(ANY_ID, max_size=5, unique=True))
def test_any_query_id(query_ids, tmp_path_factory):
    path = tmp_path_factory.mktemp("ids") / "per_query.csv"
    write_per_query(path, ranking_data(query_ids), {"a": {"map": np.arange(len(query_ids)) / 7}})
    got = read_per_query(path)
    assert got.query_ids.tolist() == query_ids
    assert got.metrics["a"]["map"].tolist() == [i / 7 for i in range(len(query_ids))]


def test_what_is_refused(tmp_path):
    path = tmp_path / "per_query.csv"
    with pytest.raises(ValueError, match=r"a/map: shape \(3,\), must be \(2,\)"):
        write_per_query(path, ranking_data(["1", "2"]), {"a": {"map": np.zeros(3)}})
    for text in ("", "query,num_docs,num_relevant\n", "query_id,num_docs,num_relevant,map\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="must begin with query_id,num_docs,num_relevant"):
            read_per_query(path)
    path.write_text("query_id,num_docs,num_relevant,a/map\n1,1,0,\n2,1,0\n")
    with pytest.raises(ValueError, match="query 2 has 3 cells, the header 4"):
        read_per_query(path)

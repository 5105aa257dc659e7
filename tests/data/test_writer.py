import numpy as np
import pytest

from pipeline.data import RankingData
from pipeline.data.writer import RankingWriter


def test_lists_come_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(9, 4)).astype(np.float32)
    labels = np.arange(9, dtype=np.float32)
    expected = RankingData(features, labels, np.array([0, 2, 3, 9]), np.array(["a", "bb", "ü"]))
    writer = RankingWriter(tmp_path)
    for query, query_id in enumerate(expected.query_ids.tolist()):
        rows = slice(*expected.offsets[query : query + 2])
        writer.append(query_id, features[rows].astype(np.float64), labels[rows].astype(np.float64))
    assert writer.finish().fingerprint == expected.fingerprint
    assert RankingData.load(tmp_path).fingerprint == expected.fingerprint
    expected.save(tmp_path)
    assert RankingData.load(tmp_path).fingerprint == expected.fingerprint


def test_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="holds no query"):
        RankingWriter(tmp_path).finish()
    writer = RankingWriter(tmp_path)
    writer.append("a", np.ones((2, 3)), np.ones(2))
    for query, features, labels, message in (
        ("a", np.ones((1, 3)), np.ones(1), "query 'a' comes twice"),
        ("b", np.ones((1, 2)), np.ones(1), r"features \[1, 2\] and 1 labels; it needs \[1, 3\]"),
        ("b", np.ones((1, 3)), np.ones(2), r"features \[1, 3\] and 2 labels"),
        ("b", np.ones((0, 3)), np.ones(0), "at least one document"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.append(query, features, labels)
    assert writer.finish().num_docs == 2

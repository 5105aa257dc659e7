"""What the student learns from."""

import numpy as np

from pipeline.config import TransformConfig
from pipeline.data import RankingData
from pipeline.data.transform import Transform, fit_transform
from pipeline.training_set import join_lists


def test_joined_lists_are_the_parts_one_after_another_transformed_as_fitted_on_the_first(tmp_path):
    rng = np.random.default_rng(0)

    def lists(name, sizes, label):
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        features = rng.normal(size=(offsets[-1], 2)).astype(np.float32)
        labels = np.full(offsets[-1], label, np.float32)
        return RankingData(features, labels, offsets, np.array([f"{name}{i}" for i in range(len(sizes))]))

    first, second = lists("a", [2, 3], 1), lists("longer", [4], -1)
    transform = fit_transform(TransformConfig(), first.features)
    transform.save(tmp_path)
    join_lists([(first, np.arange(5.0)), (second, np.arange(4.0) - 9)], Transform.load(tmp_path), tmp_path)
    got = RankingData.load(tmp_path)
    np.testing.assert_array_equal(got.features[:5], transform(first.features))
    np.testing.assert_array_equal(got.features[5:], transform(second.features))
    assert got.labels.tolist() == [1.0] * 5 + [-1.0] * 4
    assert got.offsets.tolist() == [0, 2, 5, 9]
    assert got.query_ids.tolist() == ["a0", "a1", "longer0"]
    assert np.load(tmp_path / "teacher.npy").tolist() == [0, 1, 2, 3, 4, -9, -8, -7, -6]

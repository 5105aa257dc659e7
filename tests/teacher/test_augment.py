"""Synthetic lists from split midpoints, against LightGBM's model text read by itself."""

import itertools

import lightgbm
import numpy as np
import pytest

from pipeline.data import RankingData
from pipeline.teacher.augment import midpoints, split_thresholds, synthetic_lists


@pytest.fixture(scope="module")
def trained():
    """Two small boosters on 4 features, of which the last says nothing, and their training lists."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 4)).astype(np.float32)
    features[:, 3] = rng.integers(0, 2, 400)
    target = (features[:, 0] > 0.3) + 2.0 * (features[:, 1] * features[:, 2] > 0)
    members = [
        lightgbm.train(
            {"num_leaves": 5, "seed": seed, "bagging_fraction": 0.5, "bagging_freq": 1, "verbosity": -1},
            lightgbm.Dataset(features[:, :3], target),
            5,
        )
        for seed in (1, 2)
    ]
    sizes = np.tile([3, 5, 12], 20)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    query_ids = np.array([str(i) for i in range(60)])
    return members, RankingData(features, np.zeros(400, np.float32), offsets, query_ids)


def thresholds_in_text(members, num_features):
    found = [set() for _ in range(num_features)]
    for member in members:
        lines = member.model_to_string().splitlines()
        features = [line.split("=")[1].split() for line in lines if line.startswith("split_feature=")]
        values = [line.split("=")[1].split() for line in lines if line.startswith("threshold=")]
        for of_tree, thresholds in zip(features, values, strict=True):
            for feature, threshold in zip(of_tree, thresholds, strict=True):
                found[int(feature)].add(float(threshold))
    return found


def test_thresholds_are_those_of_the_model_text(trained):
    members, _ = trained
    expected = thresholds_in_text(members, 4)
    for got, values in zip(split_thresholds(members, 4), expected, strict=True):
        np.testing.assert_allclose(got, sorted(values), rtol=1e-12)
    assert min(map(len, expected[:3])) > 1
    assert expected[3] == set()


def test_documents_take_midpoints_and_lists_keep_their_sizes(trained):
    members, train = trained
    lists = synthetic_lists(members, train, per_list=2)
    assert lists.list_sizes.tolist() == train.list_sizes.tolist() * 2
    assert (lists.labels == -1).all()
    assert len(set(lists.query_ids.tolist())) == 120
    for feature, splits in enumerate(thresholds_in_text(members, 3)[:3]):
        column = train.features[:, feature].astype(float)
        ends = sorted({column.min(), *splits, column.max()})
        expected = {np.float32((a + b) / 2) for a, b in itertools.pairwise(ends)}
        assert set(lists.features[:, feature]) == expected  # 800 draws of a few values: each occurs
    assert set(lists.features[:, 3]) == {0.0, 1.0}  # no tree asks: training values


def test_the_draws_depend_on_the_seed_alone(trained):
    members, train = trained
    first = synthetic_lists(members, train, seed=1)
    np.testing.assert_array_equal(first.features, synthetic_lists(members, train, seed=1).features)
    assert (first.features != synthetic_lists(members, train, seed=2).features).any()


def test_midpoints_of_a_constant_feature():
    assert midpoints(np.array([]), 2.0, 2.0).tolist() == [2.0]

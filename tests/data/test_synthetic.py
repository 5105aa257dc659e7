"""make_synthetic: same bits, independent splits, the promised marginals, and trees ahead of a linear model."""

import os
import subprocess
import sys

import lightgbm
import numpy as np
import pytest

from pipeline.data import RankingData
from pipeline.data.synthetic import _Rules, _utility, make_synthetic
from tests.closeness import assert_close

QUERY_COLUMNS = list(range(4, 133, 9))


@pytest.fixture(scope="module")
def data() -> dict[str, RankingData]:
    return make_synthetic()


def small(**options) -> dict[str, RankingData]:
    return make_synthetic(**{"train_queries": 3, "vali_queries": 2, "test_queries": 2, **options})


def fingerprints(data: dict[str, RankingData]) -> list[str]:
    return [data[split].fingerprint for split in ("train", "vali", "test")]


def test_the_default_splits(data):
    assert {split: d.num_queries for split, d in data.items()} == {"train": 600, "vali": 200, "test": 500}
    ids = np.concatenate([d.query_ids for d in data.values()])
    assert len(set(ids)) == 1300


def test_the_same_arguments_give_the_same_bits_here_and_in_another_process():
    here = fingerprints(small(seed=3))
    assert fingerprints(small(seed=3)) == here
    code = (
        "from pipeline.data.synthetic import make_synthetic as make\n"
        "for d in make(seed=3, train_queries=3, vali_queries=2, test_queries=2).values(): print(d.fingerprint)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == here
    assert not set(fingerprints(small(seed=4))) & set(here)


def test_a_split_depends_on_its_own_size_alone():
    few, many = small(), small(train_queries=9, vali_queries=5)
    assert few["test"].fingerprint == many["test"].fingerprint
    assert few["vali"].fingerprint != many["vali"].fingerprint
    assert len(np.unique(np.concatenate([d.features[:, 75] for d in few.values()]))) == sum(
        d.num_docs for d in few.values()
    )  # no document twice


def test_a_seed_is_a_world_of_its_own_and_its_splits_share_it():
    def share_of_zeros(seed: int, split: str) -> np.ndarray:
        features = make_synthetic(seed=seed, train_queries=50, vali_queries=50, test_queries=1)[
            split
        ].features
        return (np.delete(features, QUERY_COLUMNS, axis=1) == 0).mean(axis=0)

    train = share_of_zeros(3, "train")
    assert np.abs(train - share_of_zeros(3, "vali")).max() < 0.15
    assert np.abs(train - share_of_zeros(4, "train")).max() > 0.5


def test_noise_changes_labels_and_nothing_else():
    clean, noisy = small(label_noise=0.0)["train"], small(label_noise=1.5)["train"]
    np.testing.assert_array_equal(clean.features, noisy.features)
    np.testing.assert_array_equal(clean.offsets, noisy.offsets)
    assert 0.2 < (clean.labels != noisy.labels).mean() < 0.8


@pytest.mark.parametrize("split", ["train", "vali", "test"])
def test_lists_and_labels(data, split):
    split = data[split]
    assert split.list_sizes.min() >= 10
    assert split.list_sizes.max() <= 300
    assert 70 < split.list_sizes.mean() < 90
    # A log-normal is symmetric in the logarithm; its standard deviation there is 0.6, a little less after the clip.
    log_sizes = np.log(split.list_sizes)
    assert abs(log_sizes.mean() - np.median(log_sizes)) < 0.1
    assert 0.5 < log_sizes.std() < 0.65
    shares = np.bincount(split.labels.astype(int), minlength=5) / split.num_docs
    assert_close(shares, [0.52, 0.32, 0.128, 0.022, 0.01], atol=0.03, rtol=0.3)
    assert 0.01 <= split.num_blank_queries / split.num_queries <= 0.06


def test_marginals(data):
    x = data["train"].features
    counts, ratios, scores, heavy, constant = x[:, :45], x[:, 45:75], x[:, 75:112], x[:, 112:133], x[:, 133:]
    for columns in (counts, heavy):
        np.testing.assert_array_equal(columns, np.floor(columns))
        assert columns.min() >= 0
    zeros = (counts == 0).mean(axis=0)
    assert 0.4 < zeros.mean() < 0.8
    assert zeros.max() > 0.9
    assert ratios.min() >= 0
    assert ratios.max() <= 1
    assert (scores.min(axis=0) < 0).all()
    assert (scores.max(axis=0) > 0).all()
    assert (heavy.mean(axis=0) > 1.5 * np.median(heavy, axis=0)).all()
    assert (constant == 0).all()


def test_query_columns_are_the_same_for_a_whole_list_and_no_others_are(data):
    vali = data["vali"]
    first = vali.features[vali.offsets[:-1]][vali.list_of_doc]
    same = (vali.features == first).all(axis=0)
    assert np.flatnonzero(same).tolist() == [*QUERY_COLUMNS, 133, 134, 135]


def test_utility_is_the_weight_of_the_rules_that_hold():
    features = np.array([[1, 5], [3, 5], [3, 0], [2, 0]], np.float32)
    rules = _Rules(
        columns=np.array([[0, 1], [0, 1], [1, 0]]),
        signs=np.array([[1, -1], [1, 1], [-1, 0]]),
        thresholds=np.array([[2.0, 4.0], [2.0, 4.0], [0.0, -9.0]]),  # the last one is not asked
        weights=np.array([1.0, 10.0, 100.0]),
    )
    # x0 > 2 and x1 <= 4: 1;  x0 > 2 and x1 > 4: 10;  x1 <= 0: 100
    assert _utility(features, rules).tolist() == [0.0, 10.0, 101.0, 100.0]


def mean_ndcg_at_10(scores: np.ndarray, data: RankingData) -> float:
    """Over the lists that have a relevant document."""
    discounts = 1 / np.log2(np.arange(2, 12))
    values = []
    for start, stop in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        gains = 2 ** data.labels[start:stop] - 1
        best = np.sort(gains)[::-1][:10] @ discounts[: stop - start]
        if best > 0:
            values.append(gains[np.argsort(-scores[start:stop])][:10] @ discounts[: stop - start] / best)
    return float(np.mean(values))


def boosted(train: RankingData, vali: RankingData, **parameters: int) -> float:
    model = lightgbm.train(
        {"objective": "lambdarank", "learning_rate": 0.1, "num_threads": 1, "verbose": -1, **parameters},
        lightgbm.Dataset(train.features, train.labels, group=train.list_sizes),
        num_boost_round=40,
    )
    return mean_ndcg_at_10(np.asarray(model.predict(vali.features, num_threads=1)), vali)


def test_trees_beat_a_linear_model(data):
    train, vali = data["train"].take(np.arange(300)), data["vali"]

    def transformed(x: np.ndarray) -> np.ndarray:
        return np.column_stack([np.sign(x) * np.log1p(np.abs(x)), np.ones(len(x))]).astype(np.float64)

    design = transformed(train.features)
    ridge = np.linalg.solve(design.T @ design + 10 * np.eye(137), design.T @ (2**train.labels - 1))
    linear = mean_ndcg_at_10(transformed(vali.features) @ ridge, vali)
    chance = mean_ndcg_at_10(np.random.default_rng(0).random(vali.num_docs), vali)
    assert chance + 0.05 < linear < boosted(train, vali) - 0.03  # 0.21, 0.38, 0.45


def test_under_the_noise_there_are_interactions():
    clean = make_synthetic(train_queries=150, vali_queries=100, test_queries=1, label_noise=0.0)
    stumps = boosted(clean["train"], clean["vali"], num_leaves=2)
    assert boosted(clean["train"], clean["vali"], num_leaves=31) > stumps + 0.05  # 0.95 and 0.84


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"train_queries": 0}, "train_queries=0 must be at least 1"),
        ({"test_queries": 0}, "test_queries=0 must be at least 1"),
        ({"label_noise": -0.5}, r"label_noise=-0\.5 must be at least 0"),
        ({"label_noise": float("nan")}, "label_noise=nan must be at least 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)

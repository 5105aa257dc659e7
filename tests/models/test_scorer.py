import numpy as np
import pytest

from pipeline.config import LinearStudent, MLPStudent
from pipeline.models.scorer import Dropout, build_scorer, num_parameters, scoring_function

FEATURES = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def test_linear_is_linear():
    scorer = build_scorer(LinearStudent(), 3, seed=0)
    kernel, bias = scorer.get_weights()
    np.testing.assert_allclose(scoring_function(scorer)(FEATURES), FEATURES @ kernel[:, 0] + bias, rtol=1e-5)
    assert num_parameters(scorer) == 4


def test_mlp_has_the_layers_it_is_asked_for():
    scorer = build_scorer(MLPStudent(hidden=[5, 2]), 3, seed=0)
    x = FEATURES
    weights = scorer.get_weights()
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    np.testing.assert_allclose(
        scoring_function(scorer)(FEATURES), (x @ weights[-2] + weights[-1])[:, 0], rtol=1e-5
    )
    assert num_parameters(scorer) == 3 * 5 + 5 + 5 * 2 + 2 + 2 + 1


def test_initial_weights_depend_on_the_seed_alone():
    one, same, other = (
        build_scorer(MLPStudent(hidden=[5]), 3, seed=seed).get_weights() for seed in (1, 1, 2)
    )
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert (one[0] != other[0]).any()


def test_dropout_is_off_in_scoring_and_repeats_with_its_count_of_calls():
    layer = Dropout(0.5, seed=3)
    ones = np.ones((400, 5), np.float32)
    assert (layer(ones).numpy() == 1).all()
    first, second = layer(ones, training=True).numpy(), layer(ones, training=True).numpy()
    assert set(np.unique(first)) == {0.0, 2.0}
    assert first.mean() == pytest.approx(1.0, abs=0.1)
    assert (first != second).any()
    layer.calls.assign(0)
    np.testing.assert_array_equal(layer(ones, training=True), first)


def test_scoring_in_blocks_is_scoring_at_once(monkeypatch):
    score = scoring_function(build_scorer(MLPStudent(hidden=[5]), 3, seed=0))
    whole = score(FEATURES)
    monkeypatch.setattr("pipeline.models.scorer._ROWS", 3)
    np.testing.assert_allclose(score(FEATURES), whole, rtol=1e-6)
    assert score(FEATURES[:0]).shape == (0,)

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pipeline.config import AttentionStudent, DCNStudent, LinearStudent, MLPStudent
from pipeline.models.layers import BatchNorm, Dropout, GaussianNoise
from pipeline.models.layout import Layout
from pipeline.models.scorer import blocks_of_lists, build_scorer, num_parameters, scoring_function
from tests.closeness import assert_close

FEATURES = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
OFFSETS = np.array([0, 3, 4, 7])
NETWORKS = [
    LinearStudent(),
    MLPStudent(hidden=[5], batch_norm=True, input_batch_norm=True),
    DCNStudent(hidden=[5], cross_rank=2),
    AttentionStudent(hidden=[5, 4], head_size=3, batch_norm=True),
]


def score(scorer, features=FEATURES, offsets=OFFSETS):
    return scoring_function(scorer)(features, offsets)


def test_linear_is_linear():
    scorer = build_scorer(LinearStudent(), 3, seed=0)
    kernel, bias = scorer.get_weights()
    assert_close(score(scorer), FEATURES @ kernel[:, 0] + bias, rtol=1e-5)
    assert num_parameters(scorer) == 4


def test_mlp_has_the_layers_it_is_asked_for():
    scorer = build_scorer(MLPStudent(hidden=[5, 2]), 3, seed=0)
    x = FEATURES
    weights = scorer.get_weights()
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    assert_close(score(scorer), (x @ weights[-2] + weights[-1])[:, 0], rtol=1e-5)
    assert num_parameters(scorer) == 3 * 5 + 5 + 5 * 2 + 2 + 2 + 1


@pytest.mark.parametrize("rank", [None, 2])
def test_dcn_crosses_the_features_with_themselves(rank):
    scorer = build_scorer(DCNStudent(hidden=[4], cross_layers=2, cross_rank=rank), 3, seed=0)
    x = x0 = FEATURES
    for layer in scorer.cross:
        layer.up.bias.assign([0.1, 0.2, 0.3])
        matrix = (
            layer.up.kernel.numpy() if rank is None else layer.down.kernel.numpy() @ layer.up.kernel.numpy()
        )
        x = x0 * (x @ matrix + [0.1, 0.2, 0.3]) + x
    x = np.maximum(x @ scorer.tower.blocks[0][0].kernel.numpy(), 0)
    assert_close(score(scorer), x @ scorer.head.kernel.numpy()[:, 0], rtol=1e-4, atol=1e-5)


def test_attention_is_that_of_its_definition():
    """One list of the three first documents, written out for one query document and head after another."""
    config = AttentionStudent(hidden=[4], attention_layers=1, heads=2, head_size=3)
    scorer = build_scorer(config, 3, seed=1)
    layer = scorer.attention[0]

    def apply(dense, x):
        return x @ dense.kernel.numpy() + dense.bias.numpy()

    x = FEATURES[:3]
    context = np.maximum(apply(scorer.embedding, x), 0)
    query, key, value = (apply(project, context) for project in layer.projections)
    mixed = np.zeros((3, 6))
    for head in (slice(0, 3), slice(3, 6)):
        for document in range(3):
            logits = key[:, head] @ query[document, head] / np.sqrt(3)
            weights = np.exp(logits) / np.exp(logits).sum()
            mixed[document, head] = weights @ value[:, head]
    out = context + apply(layer.output_projection, mixed)
    out = (out - out.mean(1, keepdims=True)) / np.sqrt(out.var(1, keepdims=True) + layer.norm.epsilon)
    tower = np.maximum(apply(scorer.tower.blocks[0][0], x), 0)
    expected = apply(scorer.head, tower * (1 + apply(scorer.latent, out)))[:, 0]
    assert_close(score(scorer)[:3], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", NETWORKS)
def test_initial_weights_depend_on_the_seed_alone(config):
    one, same, other = (build_scorer(config, 3, seed=seed) for seed in (1, 1, 2**31 - 1))
    assert all((a == b).all() for a, b in zip(one.get_weights(), same.get_weights(), strict=True))
    assert (score(one) != score(other)).any()


@pytest.mark.parametrize("config", NETWORKS)
def test_documents_are_scored_by_their_list_alone_in_any_order(config):
    scorer = build_scorer(config, 3, seed=0)
    scores = score(scorer)
    assert scores.dtype == np.float32
    alone = [score(scorer, FEATURES[a:b], np.array([0, b - a])) for a, b in itertools.pairwise(OFFSETS)]
    assert_close(np.concatenate(alone), scores, rtol=1e-5, atol=1e-6)
    order = np.array([2, 0, 1, 3, 5, 6, 4])  # within the lists
    assert_close(score(scorer, FEATURES[order]), scores[order], rtol=1e-5, atol=1e-6)
    lists = np.array([3, 4, 5, 6, 0, 1, 2])  # the lists in another order
    assert_close(score(scorer, FEATURES[lists], np.array([0, 1, 4, 7])), scores[lists], rtol=1e-5, atol=1e-6)


def test_only_a_listwise_scorer_sees_the_list():
    others = FEATURES.copy()
    others[0] += 1.0
    for config in NETWORKS:
        scorer = build_scorer(config, 3, seed=0)
        moved = np.abs(score(scorer, others) - score(scorer))
        assert scorer.listwise == (config.name == "attention")
        assert (moved[1:3].max() > 1e-4) == scorer.listwise
        assert_close(moved[3:], 0, atol=1e-6)
    with pytest.raises(ValueError, match="needs the offsets"):
        scoring_function(scorer)(FEATURES)


@pytest.mark.parametrize("config", NETWORKS)
@pytest.mark.parametrize("is_static", [False, True])
def test_padding_changes_nothing(config, is_static):
    """Rows and slots that only pad, whatever stands in them, in scores, gradients and batch statistics."""
    if not isinstance(config, LinearStudent):
        config = dataclasses.replace(config, dropout=0.0)

    def run(features, slot, sizes, list_size):
        scorer = build_scorer(config, 3, seed=0)
        spec = [None, *features.shape[1:]]

        def step(features, slot, sizes):
            with tf.GradientTape() as tape:
                scores = scorer(features, Layout(slot, sizes, list_size), training=True)
                loss = tf.reduce_sum(tf.sin(scores) * tf.cast(tf.range(len(scores)) < 7, tf.float32))
            return scores, tape.gradient(loss, scorer.trainable_variables)

        if not is_static:
            signature = [
                tf.TensorSpec(spec),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None], tf.int32),
            ]
            step = tf.function(step, input_signature=signature)
        scores, gradients = step(tf.constant(features), tf.constant(slot), tf.constant(sizes))
        return [scores[:7], *map(tf.convert_to_tensor, gradients)], scorer.get_weights()

    slot = np.array([0, 1, 2, 4, 8, 9, 10], np.int32)
    plain, state = run(FEATURES, slot, np.array([3, 1, 3], np.int32), 4)
    rows = np.concatenate([FEATURES, np.full((2, 3), 1e3, np.float32)])
    wide = np.array([0, 1, 2, 6, 12, 13, 14, 30, 30], np.int32)
    padded, padded_state = run(rows, wide, np.array([3, 1, 3, 0, 0], np.int32), 6)
    for a, b in zip([*plain, *state], [*padded, *padded_state], strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_batch_norm_learns_the_statistics_of_the_documents():
    layer = BatchNorm(3)
    layout = Layout(tf.constant([0, 1, 2, 3, 4, 99, 99]), tf.constant([5]), 5)
    out = layer(FEATURES, layout, training=True)
    mean, variance = FEATURES[:5].mean(0), FEATURES[:5].var(0)
    assert_close(out[:5], (FEATURES[:5] - mean) / np.sqrt(variance + 1e-3), rtol=1e-4, atol=1e-5)
    assert_close(layer.moving_mean, 0.1 * mean, rtol=1e-4)
    assert_close(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-4)


@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_batch_norm_is_that_of_keras_in_float64(mean):
    """Also of raw features whose mean is 10,000 standard deviations."""
    x = (mean + np.random.default_rng(0).normal(0, 100, (500, 4))).astype(np.float32)
    theirs = keras.layers.BatchNormalization(momentum=0.9, dtype="float64")
    found = []
    for layer, kind in ((BatchNorm(4), np.float32), (theirs, np.float64)):
        inputs = tf.constant(x.astype(kind))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            out = layer(inputs, training=True)
            loss = tf.reduce_sum(tf.sin(out))
        found.append((out, layer(inputs), 100 * tape.gradient(loss, inputs)))
    for ours, expected in zip(*found, strict=True):
        assert_close(ours, expected, rtol=1e-3, atol=1e-5 if mean == 0 else 5e-3)


@pytest.mark.parametrize("layer", [Dropout(0.5, seed=3), GaussianNoise(0.5, seed=3)])
def test_noise_is_off_in_scoring_and_repeats_with_its_count_of_calls(layer):
    ones = np.ones((400, 5), np.float32)
    assert (layer(ones).numpy() == 1).all()
    first, second = layer(ones, training=True).numpy(), layer(ones, training=True).numpy()
    assert first.mean() == pytest.approx(1.0, abs=0.1)
    assert (first != second).any()
    layer.calls.assign(0)
    np.testing.assert_array_equal(layer(ones, training=True), first)
    if isinstance(layer, Dropout):
        assert set(np.unique(first)) == {0.0, 2.0}
    else:
        assert first.std() == pytest.approx(0.5, abs=0.05)


def test_noise_is_that_of_the_document_wherever_it_stands():
    """Of two batches: the same lists in another order, with padding and wider slots."""
    sizes, ids = np.array([2, 300, 50], np.int32), np.array([7, 3, 2**31 - 1], np.int32)
    columns = np.concatenate([np.arange(size) for size in sizes])
    there = Layout(
        tf.constant(300 * np.repeat([0, 1, 2], sizes) + columns, tf.int32),
        tf.constant(sizes),
        300,
        tf.constant(ids),
    )
    order = np.concatenate([np.arange(302, 352), np.arange(2), np.arange(2, 302)])
    rows = np.repeat([0, 2, 3], sizes[[2, 0, 1]])
    slots = np.concatenate([400 * rows + columns[order], [1600, 1600]])
    here = Layout(
        tf.constant(slots, tf.int32), tf.constant([50, 0, 2, 300]), 400, tf.constant([2**31 - 1, 0, 7, 3])
    )
    for layer in (Dropout(0.3, seed=2**40 + 1), GaussianNoise(0.5, seed=2)):
        first = layer(np.ones((352, 64), np.float32), there, training=True).numpy()
        layer.calls.assign(0)
        again = layer(np.ones((354, 64), np.float32), here, training=True).numpy()
        np.testing.assert_array_equal(first[order], again[:-2])


@pytest.mark.parametrize("bits", [0, 1, 2**31, 2**32 - 128, 2**32 - 1])
def test_noise_of_extreme_bits_is_finite(bits, monkeypatch):
    monkeypatch.setattr(
        "pipeline.models.layers.bits_of_docs", lambda *_: tf.fill([2, 3], tf.constant(bits, tf.uint32))
    )
    ones = np.ones((2, 3), np.float32)
    assert np.abs(GaussianNoise(1.0, seed=1)(ones, training=True)).max() < 8
    for rate in (1e-12, 0.5, 1 - 1e-12):
        kept = Dropout(rate, seed=1)(ones, training=True).numpy() > 0
        assert kept.all() == (bits >= min(round(rate * 2**32), 2**32 - 1))


def test_the_distribution_of_the_noise():
    """Rows, columns and calls are as good as independent, and so are the units of documents side by side."""
    dropout, gaussian = Dropout(0.3, seed=1), GaussianNoise(2.0, seed=1)
    ones = np.ones((4000, 96), np.float32)
    kept = np.stack([dropout(ones, training=True).numpy() > 0 for _ in range(3)])
    noise = np.stack([gaussian(ones, training=True).numpy() - 1 for _ in range(3)])
    for drawn, mean, deviation in ((kept, 0.7, 0.21**0.5), (noise, 0.0, 2.0)):
        x = (drawn - mean) / deviation
        assert abs(x.mean()) < 4 / x.size**0.5
        assert x.std() == pytest.approx(1, abs=0.01)
        for axis in (1, 2):  # the means of units and of documents scatter as they should
            assert x.mean(axis).std() == pytest.approx(x.shape[axis] ** -0.5, rel=0.1, abs=1e-6)
        assert abs((x[0] * x[1]).mean()) < 4 / x[0].size ** 0.5
        for shift in (1, 2, 3, 8, 64):
            assert abs((x[:, shift:] * x[:, :-shift]).mean()) < 4 / x.size**0.5
            assert abs((x[:, :, shift:] * x[:, :, :-shift]).mean()) < 4 / x[:, :, shift:].size ** 0.5
        units = np.corrcoef(x[0].T) - np.eye(96)
        assert np.abs(units).max() < 5.5 / 4000**0.5
    third = (noise**4).mean() / 16
    assert third == pytest.approx(3, abs=0.1)  # the kurtosis of a normal variate


@pytest.mark.parametrize("config", NETWORKS)
def test_scoring_in_blocks_is_scoring_at_once(config, monkeypatch):
    scorer = build_scorer(config, 3, seed=0)
    whole = score(scorer)
    monkeypatch.setattr("pipeline.models.scorer._ROWS", 3)
    assert_close(score(scorer), whole, rtol=1e-5, atol=1e-6)
    assert score(scorer, FEATURES[:0], np.array([0])).shape == (0,)


def test_blocks_hold_whole_lists_and_are_bounded(monkeypatch):
    monkeypatch.setattr("pipeline.models.scorer._ROWS", 100)
    monkeypatch.setattr("pipeline.models.scorer._PAIRS", 1000)
    sizes = np.random.default_rng(0).integers(1, 40, 200)
    blocks = list(blocks_of_lists(np.concatenate([[0], np.cumsum(sizes)])))
    assert [first for first, _ in blocks] == [0, *(last for _, last in blocks[:-1])]
    assert blocks[-1][1] == 200
    padded = [(last - first, sizes[first:last].max()) for first, last in blocks]
    assert all(lists == 1 or (lists * size <= 100 and lists * size**2 <= 1000) for lists, size in padded)
    assert list(blocks_of_lists(np.arange(0, 260, 10))) == [(0, 10), (10, 20), (20, 25)]

"""tensorflow-ranking's label losses by name, against calls of tensorflow-ranking; the rest is in the property table."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import pipeline  # noqa: F401  (before tensorflow)

import tensorflow as tf  # isort: skip

from pipeline.config import ConfigError
from pipeline.losses import labels, make_loss, plackett_luce, registry, tfr_labels
from pipeline.losses.tfr_compat import load_tfr
from pipeline.training.step import label_loss
from tests.closeness import assert_close

SIZES = 1, 2, 5, 8


def lists() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels without ties, scores, mask."""
    rng = np.random.default_rng(0)
    relevance = rng.permuted(np.tile(np.arange(8, dtype=np.float32), [4, 1]), axis=1)
    return relevance / 2, rng.normal(size=(4, 8)).astype(np.float32), np.arange(8) < np.c_[list(SIZES)]


def test_the_names_are_tfrs() -> None:
    keys = {key.removesuffix("_loss") for key in load_tfr().keras.losses.RankingLossKey.all_keys()}
    assert {*tfr_labels.KEYS} == keys - {"ordinal", "coupled_rankdistil"}


@pytest.mark.parametrize("key", tfr_labels.KEYS)
def test_each_list_has_the_value_and_gradient_of_tfr_alone_without_padding(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    relevance, scores, mask = lists()
    student, seed = tf.constant(scores), (3, 4)
    with tf.GradientTape() as tape:
        tape.watch(student)
        values = make_loss(f"tfr_{key}")(relevance, student, mask, seed=seed, reduce=None)
    gradient = tape.gradient(values, student)

    def our_noise(shape: Any, **_: Any) -> tf.Tensor:
        _, num_samples, size = (int(n) for n in shape)
        bits = plackett_luce.random_bits(seed, [row], tf.range(num_samples), tf.range(size))
        return -tf.math.log(plackett_luce.exponential(bits, tf.float32))

    theirs = load_tfr().keras.losses.get(f"{key}_loss", reduction="sum")
    monkeypatch.setattr(
        importlib.import_module("tensorflow_ranking.python.losses_impl"), "_sample_gumbel", our_noise
    )
    num_samples = 8 if key in ("gumbel_approx_ndcg", "yeti_logistic") else 1
    for row, size in enumerate(SIZES):
        alone = tf.constant(scores[row : row + 1, :size])
        with tf.GradientTape() as tape:
            tape.watch(alone)
            value = theirs(relevance[row : row + 1, :size], alone) / num_samples
        assert_close(values[row], value, rtol=1e-5, atol=2e-6)
        assert_close(gradient[row, :size], tape.gradient(value, alone)[0], rtol=1e-4, atol=1e-6)


def test_list_mle_draws_the_order_of_equal_labels_as_ours_does() -> None:
    relevance, scores, mask = lists()
    relevance //= 2
    arguments = {"seed": (1, 2), "list_ids": [5, 6, 7, 8], "reduce": None}
    ours = labels.list_mle(relevance, scores, mask, **arguments)
    assert_close(make_loss("tfr_list_mle")(relevance, scores, mask, **arguments), ours, rtol=1e-5, atol=2e-5)


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"label_loss=tfr_sofmax is unknown: did you mean tfr_softmax"):
        label_loss("tfr_sofmax", option="loss.label_loss")


def test_without_tfr_the_name_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("tf.keras is Keras 3")

    monkeypatch.setattr(tfr_labels, "load_tfr", refuse)
    monkeypatch.setattr(registry, "_checked", set())  # found to work by another test
    with pytest.raises(RuntimeError, match="Keras 3"):
        label_loss("tfr_softmax", option="loss.label_loss")

"""The adapters for model.compile."""

from __future__ import annotations

import numpy as np
import pytest

import pipeline  # noqa: F401  (before tensorflow)

import tensorflow as tf  # isort: skip
import tf_keras as keras

from pipeline.losses import make_loss
from pipeline.losses.keras import RankingLoss
from tests.closeness import assert_close

TARGET = np.array([[2.0, 0.0, 1.0, np.nan], [-1.0, 3.0, np.nan, np.nan]], np.float32)
STUDENT = np.array([[0.5, 1.0, 3.0, 9.0], [1.0, 2.0, 9.0, 9.0]], np.float32)


@pytest.mark.parametrize("name", ["coupled_rankdistil", "softmax"])
def test_nan_marks_padding_and_ragged_needs_none(name: str) -> None:
    target = abs(TARGET) if name == "softmax" else TARGET  # labels are >= 0
    mask = ~np.isnan(target)
    adapter = RankingLoss(name, padding="nan", seed=4, step=tf.Variable(5))
    expected = make_loss(name)(target, STUDENT, mask, seed=(4, 5))
    assert_close(adapter(target, STUDENT), expected, rtol=1e-6)
    ragged = (tf.RaggedTensor.from_row_lengths(x[mask], mask.sum(axis=1)) for x in (target, STUDENT))
    assert_close(adapter(*ragged), expected, rtol=1e-6)


def test_sample_weight_and_reduction_are_keras() -> None:
    per_list = RankingLoss("softmax", reduction="none")(abs(TARGET), STUDENT)
    weighted = RankingLoss("softmax", reduction="sum")(abs(TARGET), STUDENT, sample_weight=[2.0, 0.0])
    assert_close(weighted, 2 * per_list[0])


def test_noise_follows_the_step() -> None:
    step = tf.Variable(0, dtype=tf.int64)
    adapter = RankingLoss("coupled_rankdistil", topk=2, sample_size=1, step=step, padding="nan")
    values = []
    for step_number in 0, 1, 0:
        step.assign(step_number)
        values.append(float(adapter(TARGET, STUDENT)))
    assert values[0] == values[2] != values[1]
    without_step = RankingLoss("coupled_rankdistil", topk=2, sample_size=1)
    assert len({float(without_step(TARGET, STUDENT)) for _ in range(60)}) > 1  # by chance 1 with p = 0.67^60


def test_replicas_draw_noise_of_their_own() -> None:
    adapter = RankingLoss("coupled_rankdistil", topk=2, sample_size=1, reduction="none", step=tf.Variable(0))
    many = np.repeat(TARGET[:1], 60, axis=0), np.repeat(STUDENT[:1], 60, axis=0)
    first = adapter(*many).numpy()

    class Second:
        replica_id_in_sync_group = 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.distribute, "get_replica_context", Second)
        second = adapter(*many).numpy()
    assert (first != second).any()


def test_fit_learns_the_teachers_order() -> None:
    features = np.random.default_rng(0).normal(size=(64, 6, 3)).astype(np.float32)
    teacher = features @ np.array([1.0, -2.0, 0.5], np.float32)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Dense(1), keras.layers.Reshape([6])])
    optimizer = keras.optimizers.Adam(0.1)
    model.compile(optimizer, RankingLoss("coupled_rankdistil", topk=3, step=optimizer.iterations))
    model.fit(features, teacher, epochs=20, batch_size=16, verbose=0)
    weights = model.layers[0].get_weights()[0].ravel()
    assert_close(weights, [1.0, -2.0, 0.5], atol=0.2)


def test_configuration_goes_round() -> None:
    adapter = RankingLoss("coupled_rankdistil", topk=2, seed=3, reduction="sum")
    again = RankingLoss.from_config(adapter.get_config())
    assert again.get_config() == adapter.get_config()
    assert again.get_config()["topk"] == 2

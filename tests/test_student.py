"""The student's losses: the mixture with its schedule, lists without labels; the lists that it learns from."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import ConfigError, LossConfig
from pipeline.losses import make_loss
from pipeline.student import distillation_loss, label_weight
from tests.closeness import assert_close

TEACHER = tf.constant([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]])
STUDENT = tf.constant([[0.5, 1.0, -1.0], [1.0, 0.0, 0.0]])
MASK = tf.ones([2, 3], tf.bool)


def config(weight, schedule="constant", end=None):
    return LossConfig("mse", "softmax", weight, schedule, end, options={})


@pytest.mark.parametrize(
    ("schedule", "end", "expected"),
    [
        ("constant", None, [0.8] * 6),
        ("linear", 0.0, [0.8, 0.6, 0.4, 0.2, 0.0, 0.0]),
        # (1 - cos(pi t)) / 2 at t = 0, 1/4, ... is 0, 0.1464, 0.5, 0.8536, 1
        ("cosine", 0.4, [0.8, 0.7414, 0.6, 0.4586, 0.4, 0.4]),
    ],
)
def test_the_weight_goes_from_its_first_to_its_last_value(schedule, end, expected):
    got = [label_weight(config(0.8, schedule, end), tf.constant(step), num_steps=5) for step in range(6)]
    assert_close(got, expected, atol=1e-4)


def test_the_loss_follows_the_schedule_and_leaves_the_labels_of_unjudged_lists_alone():
    labels = tf.constant([[2.0, 0.0, 1.0], [-1.0, -1.0, -1.0]])
    distilled = make_loss("mse")(TEACHER, STUDENT, reduce=None).numpy()
    learned = make_loss("softmax")(labels[:1], STUDENT[:1], reduce=None).numpy()[0]
    loss = distillation_loss(config(0.0, "linear", 1.0), num_steps=5)
    for step, weight in ((0, 0.0), (1, 0.25), (4, 1.0)):
        got = loss(TEACHER, labels, STUDENT, MASK, seed=tf.constant([7, step]), list_ids=tf.constant([0, 1]))
        assert_close(got, [(1 - weight) * distilled[0] + weight * learned, distilled[1]])


def test_a_label_loss_that_is_not_finite_does_nothing_to_unjudged_lists():
    far = dataclasses.replace(config(0.5, "constant", None), label_loss="tfr_list_mle")
    student, nothing = tf.constant([[80.0, 0.0, 0.0, 0.0]]), tf.zeros([1, 4])
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = distillation_loss(far)(
            nothing,
            nothing - 1.0,
            student,
            tf.constant([[True, True, False, False]]),
            seed=tf.constant([0, 0]),
            list_ids=tf.constant([0]),
        )
    assert np.isfinite(value).all()
    assert np.isfinite(tape.gradient(value, student)).all()


@pytest.mark.parametrize(
    "values", [("constant", 0.5), ("linear", None), ("cosine", 1.5), ("exponential", 0.5)]
)
def test_a_schedule_that_cannot_be_is_refused(values):
    with pytest.raises(ConfigError, match="label_"):
        config(0.5, *values)

"""Targets and arguments that are not possible are errors, for every loss; large labels are possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pipeline  # noqa: F401  (before tensorflow)

import tensorflow as tf  # isort: skip

from pipeline.errors import UserError
from pipeline.losses import CoupledRankDistilLoss, RankingLoss, coupled_rankdistil, make_loss
from pipeline.losses.registry import DISTILLATION, LABEL
from tests.closeness import assert_close

STUDENT = np.array([[0.0, 1.0, 2.0]], np.float32)
OWN = [name for name in LABEL if not name.startswith("tfr_")]


@pytest.mark.parametrize("name", LABEL)
def test_a_negative_label_is_an_error(name: str) -> None:
    for label in -1.0, np.inf:
        with pytest.raises(UserError, match="mask=False"):
            make_loss(name)([[0.0, 2.0, label]], STUDENT)
        with pytest.raises(UserError, match="NaN"):
            RankingLoss(name)([[0.0, 2.0, label]], STUDENT)


@pytest.mark.parametrize("name", OWN)
def test_padding_by_minus_1_can_be_asked_for(name: str) -> None:
    padded = RankingLoss(name, padding="negative")([[0.0, 2.0, -1.0]], STUDENT)
    assert_close(padded, make_loss(name)([[0.0, 2.0]], STUDENT[:, :2]))


@pytest.mark.parametrize("label", [127.0, 128.0, 999.0])
@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in OWN), ("softmax", {"gain": "exponential"})]
)
def test_large_labels_are_finite(name: str, options: dict[str, Any], label: float) -> None:
    student = tf.constant(STUDENT)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = make_loss(name, **options)([[0.0, label, 1.0]], student)
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, student)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", DISTILLATION)
def test_a_teachers_score_that_is_not_finite_is_an_error(name: str, bad: float) -> None:
    with pytest.raises(UserError, match="teacher"):
        make_loss(name)([[0.0, 2.0, bad]], STUDENT)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("estimator", ["rao_blackwell", "plackett", "tfr"])
def test_a_teachers_score_that_is_not_finite_inside_a_function(estimator: str, bad: float) -> None:
    def loss(teacher: Any) -> Any:
        return coupled_rankdistil(teacher, STUDENT, topk=2, estimator=estimator)

    teacher = tf.constant([[0.0, 2.0, bad]])
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(loss)(teacher)
    assert np.isnan(tf.function(loss, jit_compile=True)(teacher))  # XLA cannot raise


def test_shapes_and_types_that_users_give() -> None:
    loss = CoupledRankDistilLoss(topk=np.int64(2))
    assert loss.get_config()["topk"] == 2
    assert_close(loss(np.zeros([2, 0]), np.zeros([2, 0], np.float32)), 0.0)
    assert np.isfinite(loss([[0, 2, 1]], STUDENT, np.ones([1, 3])))
    with pytest.raises(UserError, match="list_size"):
        loss([[0.0, 1.0]], STUDENT)

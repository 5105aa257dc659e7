"""The label losses against tensorflow-ranking's, and against plain sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pipeline  # noqa: F401  (before tensorflow)

import tensorflow as tf  # isort: skip

from pipeline.losses import labels
from pipeline.losses.tfr_compat import load_tfr
from tests.closeness import assert_close


def lists() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 5, size=(5, 8)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32) * 2


def of_tfr(name: str, relevance: np.ndarray, student: Any, **options: Any) -> tf.Tensor:
    """Sum over the lists."""
    return getattr(load_tfr().keras.losses, name)(reduction="sum", **options)(relevance, student)


@pytest.mark.parametrize(
    ("ours", "options", "theirs", "their_options"),
    [
        (labels.approx_ndcg, {"temperature": 0.1}, "ApproxNDCGLoss", {}),
        (labels.approx_ndcg, {"temperature": 1.0}, "ApproxNDCGLoss", {"temperature": 1.0}),
        (labels.lambda_loss, {}, "PairwiseLogisticLoss", {"topn": None}),
        (labels.lambda_loss, {"topk": 3}, "PairwiseLogisticLoss", {"topn": 3}),
        (
            labels.lambda_loss,
            {"lambdarank": 1.0},
            "PairwiseLogisticLoss",
            {"topn": None, "smooth_fraction": 1.0},
        ),
        (
            labels.lambda_loss,
            {"topk": 3, "lambdarank": 0.3},
            "PairwiseLogisticLoss",
            {"topn": 3, "smooth_fraction": 0.3},
        ),
    ],
)
def test_parity_with_tfr(ours: Any, options: dict, theirs: str, their_options: dict) -> None:
    if ours is labels.lambda_loss:
        their_options = {"lambda_weight": load_tfr().keras.losses.NDCGLambdaWeight(**their_options)}
    relevance, student = lists()
    student = tf.constant(student)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(student)
        value = tf.reduce_sum(ours(relevance, student, reduce=None, **options))
        their_value = of_tfr(theirs, relevance, student, **their_options)
        if ours is labels.lambda_loss:
            their_value /= relevance.shape[1]  # tfr multiplies by the size of the lists, padding included
    assert_close(value, their_value, rtol=1e-5)
    their_gradient = tape.gradient(their_value, student)
    assert_close(tape.gradient(value, student), their_gradient, rtol=1e-4, atol=1e-6)


def test_pairwise_logistic_is_tfrs_over_the_number_of_pairs() -> None:
    relevance, student = lists()
    for one_list in range(len(student)):
        num_pairs = (relevance[one_list][:, None] > relevance[one_list]).sum()
        row = slice(one_list, one_list + 1)
        expected = of_tfr("PairwiseLogisticLoss", relevance[row], student[row]) / num_pairs
        assert_close(labels.pairwise_logistic(relevance[row], student[row]), expected, rtol=1e-5)


@pytest.mark.parametrize("gain", labels.GAINS)
def test_softmax_is_tfrs_over_the_sum_of_gains(gain: str) -> None:
    relevance, student = lists()
    gains = relevance if gain == "label" else 2**relevance - 1
    for one_list in range(len(student)):
        row = slice(one_list, one_list + 1)
        expected = of_tfr("SoftmaxLoss", gains[row], student[row]) / gains[row].sum()
        assert_close(labels.softmax(relevance[row], student[row], gain=gain), expected, rtol=1e-5)


def test_list_mle() -> None:
    relevance, student = (
        np.array([[1.0, 3.0, 0.0, 2.0]], np.float32),
        np.array([[0.3, -1.0, 2.0, 0.5]], np.float32),
    )
    order = student[0, [1, 3, 0, 2]]
    expected = sum(np.log(np.exp(order[r:]).sum()) - order[r] for r in range(4))
    assert_close(labels.list_mle(relevance, student), expected, rtol=1e-6)
    assert_close(of_tfr("ListMLELoss", relevance, student), expected, rtol=1e-6)


def test_list_mle_draws_the_order_of_equal_labels() -> None:
    num_lists = 2000
    relevance = np.repeat([[1.0, 1.0, 0.0]], num_lists, axis=0)
    student = np.repeat([[2.0, 0.0, 1.0]], num_lists, axis=0)
    values = labels.list_mle(relevance, student, reduce=None).numpy()
    all_three, lse = np.log(np.exp([2.0, 0.0, 1.0]).sum()), np.log1p(np.exp(1.0))
    first, second = all_three - 2 + lse - 0, all_three - 0 + np.log(np.exp(2.0) + np.exp(1.0)) - 2
    is_first = np.isclose(values, first, rtol=1e-5, atol=1e-6)
    assert (is_first | np.isclose(values, second, rtol=1e-5, atol=1e-6)).all()
    assert abs(is_first.mean() - 0.5) < 4 * 0.5 / num_lists**0.5

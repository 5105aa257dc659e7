"""The rest of the distillation losses against plain sums over documents."""

from __future__ import annotations

import numpy as np
import pytest

import pipeline  # noqa: F401  (before tensorflow)

import tensorflow as tf  # isort: skip

from pipeline.losses import distillation, negatives
from tests.closeness import assert_close

TEACHER = np.array([[0.5, 3.0, -1.0, 2.0, 0.0, -2.0]])
STUDENT = np.array([[1.0, 0.2, -0.5, 1.5, 0.3, 2.0]])
PI = [1, 3, 0, 4, 2, 5]  # the teacher's order
S, T = STUDENT[0], TEACHER[0]


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def softplus(x: float) -> float:
    return float(np.log1p(np.exp(x)))


def binary_cross_entropy(t: float, s: float) -> float:
    p, q = 1 / (1 + np.exp(-t)), 1 / (1 + np.exp(-s))
    return float(-p * np.log(q) - (1 - p) * np.log(1 - q))


WEIGHTS = [1.0, 1 / np.log2(3)]


@pytest.mark.parametrize(
    ("negatives_", "num_negatives", "rest"), [("hard", 2, [0, 4]), ("uniform", None, PI[2:])]
)
def test_binary_rankdistil(negatives_: str, num_negatives: int | None, rest: list[int]) -> None:
    expected = sum(w * binary_cross_entropy(T[i], S[i]) for w, i in zip(WEIGHTS, PI[:2], strict=True))
    expected += sum(softplus(S[i]) for i in rest)
    options = {"topk": 2, "negatives": negatives_, "num_negatives": num_negatives}
    assert_close(negatives.binary_rankdistil(TEACHER, STUDENT, **options), expected, rtol=1e-7, atol=1e-9)
    squares = (T[1] - S[1]) ** 2 + (T[3] - S[3]) ** 2 + sum(softplus(S[i]) for i in rest)
    value = negatives.binary_rankdistil(TEACHER, STUDENT, top_loss="mse", discount="none", **options)
    assert_close(value, squares, rtol=1e-7, atol=1e-9)


def test_pairwise_rankdistil() -> None:
    p, q = softmax(T[PI[:2]]), softmax(S[PI[:2]])
    expected = -sum(w * a * np.log(b) for w, a, b in zip(WEIGHTS, p, q, strict=True))
    expected += sum(w * softplus(S[i] - S[j]) for w, j in zip(WEIGHTS, PI[:2], strict=True) for i in (0, 4))
    value = negatives.pairwise_rankdistil(TEACHER, STUDENT, topk=2, negatives="hard", num_negatives=2)
    assert_close(value, expected, rtol=1e-7, atol=1e-9)


def test_uniform_negatives_are_uniform_and_never_top_documents() -> None:
    many = np.repeat(TEACHER, 2000, axis=0), tf.zeros([2000, 6])
    with tf.GradientTape() as tape:
        tape.watch(many[1])
        value = negatives.binary_rankdistil(*many, topk=2, num_negatives=1, reduce=None)
    is_drawn = abs(tape.gradient(value, many[1]).numpy() - 0.5) < 1e-6  # the slope of log(1 + exp(s)) at 0
    is_drawn[:, PI[:2]] = False
    assert (is_drawn.sum(axis=1) == 1).all()
    assert (abs(is_drawn.mean(axis=0)[PI[2:]] - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)).all()


def test_ranking_distillation() -> None:
    weights = np.exp(-np.arange(1, 4) / 2.0)
    losses = np.array([softplus(-S[i]) for i in PI[:3]])
    value = distillation.ranking_distillation(TEACHER, STUDENT, topk=3, decay=2.0)
    assert_close(value, (weights * losses).sum() / weights.sum(), rtol=1e-7, atol=1e-9)
    weights *= np.tanh(
        0.5 * np.maximum(np.array([5, 2, 3]) - np.arange(1, 4), 0)
    )  # ranks by the student: 5, 2, 3
    value = distillation.ranking_distillation(TEACHER, STUDENT, topk=3, decay=2.0, discrepancy=0.5)
    assert_close(value, (weights * losses).sum() / weights.sum(), rtol=1e-7, atol=1e-9)


def test_relaxed_ranking_distillation_and_pld() -> None:
    choices = [np.log(np.exp(S[PI[r:]]).sum()) - S[PI[r]] for r in range(6)]
    value = negatives.relaxed_ranking_distillation(TEACHER, STUDENT, topk=2)
    assert_close(value, choices[0] + choices[1], rtol=1e-7, atol=1e-9)
    value = negatives.relaxed_ranking_distillation(TEACHER, STUDENT, topk=2, num_negatives=4)
    assert_close(value, choices[0] + choices[1], rtol=1e-7, atol=1e-9)
    assert_close(distillation.pld(TEACHER, STUDENT), (softmax(T)[PI] * choices).sum(), rtol=1e-7, atol=1e-9)


def test_listnet() -> None:
    p, q = softmax(T / 2), softmax(S / 2)
    value = distillation.listnet(TEACHER, STUDENT, temperature=2.0)
    assert_close(value, -4 * (p * np.log(q)).sum(), rtol=1e-7, atol=1e-9)
    value = distillation.listnet(TEACHER, STUDENT, temperature=2.0, divergence="kl")
    assert_close(value, 4 * (p * np.log(p / q)).sum(), rtol=1e-7, atol=1e-9)
    assert_close(distillation.listnet(TEACHER, TEACHER + 5, divergence="kl"), 0, atol=1e-12)


def test_mse_and_margin_mse() -> None:
    d = S - T
    assert_close(distillation.mse(TEACHER, STUDENT), (d**2).mean(), rtol=1e-7, atol=1e-9)
    assert_close(
        distillation.margin_mse(TEACHER, STUDENT), ((d[:, None] - d) ** 2).mean(), rtol=1e-7, atol=1e-9
    )
    pairs = [(d[i] - d[j]) ** 2 for i in PI[:2] for j in PI[2:]]
    assert_close(distillation.margin_mse(TEACHER, STUDENT, topk=2), np.mean(pairs), rtol=1e-7, atol=1e-9)
    assert_close(distillation.margin_mse(TEACHER, STUDENT, topk=6), 0, rtol=1e-7, atol=1e-9)

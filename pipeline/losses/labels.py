"""Losses on relevance labels: what a student learns from without a teacher."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pipeline.losses.lists import Tensor, as_lists, log_softmax, reduce_lists

GAINS = ("label", "exponential")


def softmax(
    labels: Any,
    student: Any,
    mask: Any = None,
    *,
    gain: str = "label",
    temperature: float = 1.0,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """Softmax cross-entropy with each document's share of its list's gain.

        L = - sum_i g_i / (sum_j g_j)  log softmax(s)_i

    with s = student / temperature and the gain g = label or 2^label - 1. A list without relevant documents has loss 0
    and gradient 0, and still counts in the mean.

    >>> softmax([[1.0, 0.0]], [[0.0, 0.0]]).numpy().round(4)
    0.6931

    Args:
      labels: relevance >= 0 [lists, list_size]; ragged if student is.
      student: scores [lists, list_size].
      mask: bool [lists, list_size], True for documents; None: all.
      gain: "label" or "exponential".
      temperature: > 0, divides the student's scores.
      seed: not used; no noise in this loss.
      list_ids: not used.
      reduce: "mean" over the lists that have a document, or None for [lists].

    Raises:
      ValueError: an option or a shape that is not possible.
    """
    if gain not in GAINS:
        raise ValueError(f"gain={gain!r} is unknown: available: {', '.join(GAINS)}")
    labels, student, mask = as_lists(labels, student, mask, temperature)
    gains = labels if gain == "label" else tf.where(mask, 2.0**labels - 1.0, 0.0)
    shares = tf.math.divide_no_nan(gains, tf.reduce_sum(gains, axis=1, keepdims=True))
    return reduce_lists(-tf.reduce_sum(shares * log_softmax(student, mask), axis=1), mask, reduce)

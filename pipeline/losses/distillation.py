"""Distillation losses that the RankDistil paper and its successors compare with.

Shared by all: `teacher` and `student` [lists, list_size], `mask`, `seed`, `list_ids` and `reduce` as in
`rankdistil.coupled_rankdistil`. pi is the order of the teacher's scores, best first; equal ones by slot. Values are
float32, or float64 where the student's scores are; lists without documents count 0.

Shapes: B lists, n list_size, p = topk.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pipeline.losses import plackett_luce
from pipeline.losses.lists import (
    Tensor,
    as_lists,
    count,
    descending,
    log_softmax,
    mean_over_documents,
    one_of,
    positive,
    ranks,
    reduce_lists,
    take,
)

DIVERGENCES = ("cross_entropy", "kl")


def ranking_distillation(
    teacher: Any,
    student: Any,
    mask: Any = None,
    *,
    topk: int = 10,
    decay: float = 10.0,
    discrepancy: float = 0.0,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """Ranking Distillation: the teacher's top documents are positives (Tang and Wang, KDD 2018).

        L = - sum_{r=1..p} w_r log sigmoid(s_{pi_r}),   w_r ~ exp(-r / decay) tanh(discrepancy (rank_r - r)_+)

    with weights that sum to 1 and rank_r the rank that the student gives to document pi_r. Without discrepancy the
    second factor is 1.

    Args:
      topk: p.
      decay: > 0, in ranks; the paper's lambda.
      discrepancy: >= 0; the paper's mu, which favours documents that the student ranks too low. 0: off.
      seed: not used; no noise in this loss.
      list_ids: not used.

    Raises:
      ValueError: an option or a shape that is not possible.
    """
    count("topk", topk)
    positive("decay", decay)
    positive("discrepancy", discrepancy, or_zero=True)
    teacher, student, mask = as_lists(teacher, student, mask)
    top = descending(teacher, mask)[:, :topk]
    place = tf.cast(tf.range(1, tf.shape(top)[1] + 1), student.dtype)
    weights = tf.where(take(mask, top), tf.exp(-place / decay), 0.0)
    if discrepancy > 0:
        student_ranks = tf.cast(take(ranks(student, mask), top), student.dtype)
        weights *= tf.tanh(discrepancy * tf.nn.relu(student_ranks - place))
    weights = tf.stop_gradient(tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=1, keepdims=True)))
    return reduce_lists(tf.reduce_sum(weights * tf.math.softplus(-take(student, top)), axis=1), mask, reduce)


def pld(
    teacher: Any,
    student: Any,
    mask: Any = None,
    *,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """Plackett-Luce distillation: the teacher's order, each choice weighted by the teacher's confidence.

        L = sum_{r=1..n} softmax(t)_{pi_r} [ log sum_{q=r..n} exp(s_{pi_q})  -  s_{pi_r} ]

    (Bassam et al., arXiv:2506.12542, without the true class in front.) seed and list_ids are not used.
    """
    teacher, student, mask = as_lists(teacher, student, mask)
    order = descending(teacher, mask)
    in_order = take(mask, order)
    confidence = tf.where(in_order, tf.exp(take(log_softmax(teacher, mask), order)), 0.0)
    return reduce_lists(
        tf.reduce_sum(confidence * plackett_luce.choice_losses(student, order, in_order), axis=1),
        mask,
        reduce,
    )


def listnet(
    teacher: Any,
    student: Any,
    mask: Any = None,
    *,
    temperature: float = 1.0,
    divergence: str = "cross_entropy",
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """Softmax cross-entropy or KL divergence (ListNet, Cao et al., ICML 2007; temperature: Hinton et al. 2015).

        L = - T^2 sum_i P_i log Q_i,   P = softmax(t / T),   Q = softmax(s / T)

    less T^2 times the entropy of P for kl, which is then 0 at s = t + c. seed and list_ids are not used.

    Args:
      temperature: T > 0; of both.
      divergence: "cross_entropy" or "kl"; the gradients are the same.

    Raises:
      ValueError: an option or a shape that is not possible.
    """
    one_of("divergence", divergence, DIVERGENCES)
    teacher, student, mask = as_lists(teacher, student, mask, temperature)
    log_p = log_softmax(teacher / tf.cast(temperature, teacher.dtype), mask)
    log_q = log_softmax(student, mask)
    losses = tf.exp(log_p) * ((log_p if divergence == "kl" else 0.0) - log_q)
    per_list = temperature**2 * tf.reduce_sum(tf.where(mask, losses, 0.0), axis=1)
    return reduce_lists(per_list, mask, reduce)


def mse(
    teacher: Any,
    student: Any,
    mask: Any = None,
    *,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """Mean over the documents of (s - t)^2 (Cohen et al., SIGIR 2018). seed and list_ids are not used."""
    teacher, student, mask = as_lists(teacher, student, mask)
    return reduce_lists(mean_over_documents(tf.math.squared_difference(student, teacher), mask), mask, reduce)


def margin_mse(
    teacher: Any,
    student: Any,
    mask: Any = None,
    *,
    topk: int | None = None,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """Mean over pairs of ((s_i - s_j) - (t_i - t_j))^2 (Margin-MSE, Hofstaetter et al., 2020), in O(n).

    With d = s - t, the mean over all pairs is 2 Var(d); over pairs of one of the teacher's top p and one of the others
    it is Var_top(d) + Var_others(d) + (mean_top(d) - mean_others(d))^2. seed and list_ids are not used.

    Args:
      topk: p; None: all pairs. A list of not more than p documents has no pair and counts 0.

    Raises:
      ValueError: an option or a shape that is not possible.
    """
    count("topk", topk, none="all pairs")
    teacher, student, mask = as_lists(teacher, student, mask)
    difference = student - teacher
    top = mask if topk is None else mask & (ranks(teacher, mask) <= topk)
    others = mask if topk is None else mask & ~top

    def mean_and_variance(part: Tensor) -> tuple[Tensor, Tensor]:
        mean = mean_over_documents(difference, part)
        return mean, mean_over_documents(tf.math.squared_difference(difference, mean[:, tf.newaxis]), part)

    (top_mean, top_variance), (other_mean, other_variance) = mean_and_variance(top), mean_and_variance(others)
    per_list = top_variance + other_variance + tf.math.squared_difference(top_mean, other_mean)
    return reduce_lists(tf.where(tf.reduce_any(others, axis=1), per_list, 0.0), mask, reduce)

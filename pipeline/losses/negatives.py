"""Distillation losses of the teacher's top documents against others: the rest of the RankDistil family, and RRD.

Shared by all: `teacher` and `student` [lists, list_size], `mask`, `seed`, `list_ids` and `reduce` as in
`rankdistil.coupled_rankdistil`. pi is the order of the teacher's scores, best first; equal ones by slot. Values are
float32, or float64 where the student's scores are; lists without documents count 0.

Shapes: B lists, n list_size, p = topk, m negatives.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pipeline.losses import plackett_luce
from pipeline.losses.lists import Tensor, as_lists, count, descending, log_softmax, one_of, reduce_lists, take
from pipeline.noise import random_bits, uniform

TOP_LOSSES = ("logistic", "mse", "softmax")
NEGATIVES = ("uniform", "hard")
DISCOUNTS = ("none", "log2")


def binary_rankdistil(
    teacher: Any,
    student: Any,
    mask: Any = None,
    *,
    topk: int = 10,
    top_loss: str = "logistic",
    discount: str = "log2",
    num_negatives: int | None = 10,
    negatives: str = "uniform",
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """RankDistil with a penalty on each negative (Reddi et al., AISTATS 2021).

        L = sum_{r=1..p} w_r psi(t_{pi_r}, s_{pi_r})  +  sum_{i in N} log(1 + exp(s_i))

    with psi the top loss and w_r = 1 / log2(1 + r) or 1.

    Args:
      topk: p, the documents on which the scores are matched.
      top_loss: psi. logistic: cross-entropy of sigmoid(t) and sigmoid(s); mse: (t - s)^2; softmax: cross-entropy of
        the softmax over the p documents.
      discount: "log2" or "none".
      num_negatives: m, drawn from the others without replacement; None: all of them.
      negatives: "uniform", or "hard": those that the teacher puts highest.

    Raises:
      ValueError: an option or a shape that is not possible.
    """
    _check_options(topk, num_negatives, negatives, top_loss, discount)
    teacher, student, mask = as_lists(teacher, student, mask)
    top, rest = _top_and_negatives(teacher, mask, topk, num_negatives, negatives, seed, list_ids)
    per_list = _top_loss(teacher, student, mask, top, top_loss, _discounts(top, discount, student.dtype))
    penalties = tf.math.softplus(take(student, rest[0]))
    per_list += tf.reduce_sum(tf.where(rest[1], penalties, 0.0), axis=1)
    return reduce_lists(per_list, mask, reduce)


def pairwise_rankdistil(
    teacher: Any,
    student: Any,
    mask: Any = None,
    *,
    topk: int = 10,
    top_loss: str = "softmax",
    discount: str = "log2",
    num_negatives: int | None = 10,
    negatives: str = "uniform",
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """RankDistil with a penalty on each pair of a top document and a negative (Reddi et al., AISTATS 2021).

        L = sum_{r=1..p} w_r psi(t_{pi_r}, s_{pi_r})  +  sum_{r=1..p} w_r sum_{i in N} log(1 + exp(s_i - s_{pi_r}))

    Options as in `binary_rankdistil`. Memory O(p m) a list.
    """
    _check_options(topk, num_negatives, negatives, top_loss, discount)
    teacher, student, mask = as_lists(teacher, student, mask)
    top, rest = _top_and_negatives(teacher, mask, topk, num_negatives, negatives, seed, list_ids)
    weights = _discounts(top, discount, student.dtype)
    per_list = _top_loss(teacher, student, mask, top, top_loss, weights)
    margins = take(student, rest[0])[:, tf.newaxis] - take(student, top[0])[..., tf.newaxis]  # [B, p, m]
    penalties = tf.where(rest[1][:, tf.newaxis], tf.math.softplus(margins), 0.0)
    per_list += tf.reduce_sum(weights * tf.reduce_sum(penalties, axis=2), axis=1)
    return reduce_lists(per_list, mask, reduce)


def relaxed_ranking_distillation(
    teacher: Any,
    student: Any,
    mask: Any = None,
    *,
    topk: int = 10,
    num_negatives: int | None = None,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """RRD: the teacher's order of its top documents, above all others (Kang et al., CIKM 2020).

        L = sum_{r=1..p}  log [ sum_{q=r..p} exp(s_{pi_q}) + sum_{i in N} exp(s_i) ]  -  s_{pi_r}

    Args:
      topk: p.
      num_negatives: size of N, drawn uniformly from the other documents; None: all of them.

    Raises:
      ValueError: an option or a shape that is not possible.
    """
    _check_options(topk, num_negatives)
    teacher, student, mask = as_lists(teacher, student, mask)
    top, rest = _top_and_negatives(teacher, mask, topk, num_negatives, "uniform", seed, list_ids)
    in_order = tf.concat([top[0], rest[0]], axis=1)
    is_step = tf.concat([top[1], tf.zeros_like(rest[1])], axis=1)
    losses = plackett_luce.choice_losses(student, in_order, tf.concat([top[1], rest[1]], axis=1))
    return reduce_lists(tf.reduce_sum(tf.where(is_step, losses, 0.0), axis=1), mask, reduce)


def _check_options(
    topk: Any,
    num_negatives: Any,
    negatives: Any = "uniform",
    top_loss: Any = "softmax",
    discount: Any = "none",
) -> None:
    count("topk", topk)
    count("num_negatives", num_negatives, none="all")
    one_of("negatives", negatives, NEGATIVES)
    one_of("top_loss", top_loss, TOP_LOSSES)
    one_of("discount", discount, DISCOUNTS)


Chosen = tuple[Tensor, Tensor]  # slots [B, m] and whether a document is there, bool [B, m]


def _top_and_negatives(
    teacher: Tensor,
    mask: Tensor,
    topk: int,
    num_negatives: int | None,
    negatives: str,
    seed: Any,
    list_ids: Any,
) -> tuple[Chosen, Chosen]:
    order = descending(teacher, mask)
    top, rest = order[:, :topk], order[:, topk:]
    is_rest = take(mask, rest)
    if negatives == "uniform" and num_negatives is not None:
        list_ids = tf.range(tf.shape(mask)[0]) if list_ids is None else list_ids
        bits = random_bits(seed, list_ids, [0], tf.range(tf.shape(mask)[1]))[:, 0]
        lot = take(uniform(bits, tf.float32), rest)
        rest = take(rest, tf.argsort(tf.where(is_rest, lot, 2.0), axis=1))
    rest = rest if num_negatives is None else rest[:, :num_negatives]
    return (top, take(mask, top)), (rest, take(mask, rest))


def _discounts(top: Chosen, discount: str, dtype: tf.DType) -> Tensor:
    """[B, p], 0 where there is no document."""
    place = tf.cast(tf.range(1, tf.shape(top[0])[1] + 1), dtype)
    weights = (
        tf.math.log(tf.constant(2.0, dtype)) / tf.math.log1p(place)
        if discount == "log2"
        else tf.ones_like(place)
    )
    return tf.where(top[1], weights, 0.0)


def _top_loss(
    teacher: Tensor, student: Tensor, mask: Tensor, top: Chosen, name: str, weights: Tensor
) -> Tensor:
    t, s = take(teacher, top[0]), take(student, top[0])
    if name == "softmax":
        losses = -tf.exp(log_softmax(t, top[1])) * log_softmax(s, top[1])
    elif name == "mse":
        losses = tf.math.squared_difference(t, s)
    else:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.sigmoid(t), s)
    return tf.reduce_sum(weights * losses, axis=1)

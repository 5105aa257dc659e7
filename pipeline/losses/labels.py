"""Losses on relevance labels: what a student learns from without a teacher.

Shared by all: `labels` >= 0 and `student` [lists, list_size], `mask`, `seed`, `list_ids` and `reduce` as in `softmax`.
Where tensorflow-ranking's are defined (float32, no padding, scores within 80 nats), the tests hold that these equal
them. Those themselves can be named, too (`tfr_labels`), and are not the default, though nearly as fast (theirs / ours
under XLA, CPU time with gradient, 32 lists of up to 120: softmax 1.0, ListMLE, LambdaLoss and ApproxNDCG 1.3, pairwise
logistic 0.5): their pairwise logistic loss has no gradient between documents of equal score; LambdaLoss and ListMLE
break ties by a stateful generator, not by (seed, step, list), and so differ from call to call; LambdaLoss grows with
the padding; beside padding ListMLE is not finite at scores of 1e4; none takes float64.
A list without relevant documents has value 0 and gradient 0.
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
    one_of,
    ranks,
    reduce_lists,
    take,
)
from pipeline.noise import random_bits, uniform

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

    >>> round(float(softmax([[1.0, 0.0]], [[0.0, 0.0]])), 4)
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
    one_of("gain", gain, GAINS)
    labels, student, mask = as_lists(labels, student, mask, temperature, is_label=True)
    gains = labels if gain == "label" else _gains(labels, mask)
    shares = tf.math.divide_no_nan(gains, tf.reduce_sum(gains, axis=1, keepdims=True))
    return reduce_lists(-tf.reduce_sum(shares * log_softmax(student, mask), axis=1), mask, reduce)


def list_mle(
    labels: Any,
    student: Any,
    mask: Any = None,
    *,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """-log of the Plackett-Luce probability of the order by label (ListMLE, Xia et al., ICML 2008).

        L = sum_{r=1..n}  log sum_{q=r..n} exp(s_{pi_q})  -  s_{pi_r}

    The order of equal labels is drawn, by noise that depends on seed, list id and slot alone.
    """
    labels, student, mask = as_lists(labels, student, mask, is_label=True)
    order = drawn_order(labels, mask, seed, list_ids)
    losses = tf.reduce_sum(plackett_luce.choice_losses(student, order, take(mask, order)), axis=1)
    return reduce_lists(tf.where(tf.reduce_any(labels > 0, axis=1), losses, 0.0), mask, reduce)


def drawn_order(labels: Tensor, mask: Tensor, seed: Any, list_ids: Any) -> Tensor:
    """The slots of each list by falling label, int32 [B, n]; equal ones as drawn, padding last."""
    list_ids = tf.range(tf.shape(mask)[0]) if list_ids is None else list_ids
    lots = random_bits(seed, list_ids, [0], tf.range(tf.shape(mask)[1]))[:, 0]
    order = descending(uniform(lots, tf.float32), mask)
    return take(order, descending(take(labels, order), take(mask, order)))


def pairwise_logistic(
    labels: Any,
    student: Any,
    mask: Any = None,
    *,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """Mean over the pairs with label_i > label_j of log(1 + exp(s_j - s_i)) (RankNet, Burges et al., ICML 2005).

    Memory O(n^2) a list. seed and list_ids are not used.
    """
    labels, student, mask = as_lists(labels, student, mask, is_label=True)
    is_pair, penalties = _pairs(labels, student, mask)
    num_pairs = tf.reduce_sum(tf.cast(is_pair, student.dtype), axis=[1, 2])
    per_list = tf.reduce_sum(tf.where(is_pair, penalties, 0.0), axis=[1, 2]) / tf.maximum(num_pairs, 1.0)
    return reduce_lists(per_list, mask, reduce)


def lambda_loss(
    labels: Any,
    student: Any,
    mask: Any = None,
    *,
    topk: int | None = None,
    lambdarank: float = 0.0,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """Pairwise logistic loss weighted for NDCG: LambdaLoss (Wang et al., CIKM 2018), LambdaRank (Burges 2010).

        L = sum over the pairs with label_i > label_j of  w_ij log(1 + exp(s_j - s_i))
        w_ij = (gain_i - gain_j) / ideal DCG  [(1 - a) |D(r) - D(r + 1)|  +  a |D(rank_i) - D(rank_j)|]

    with D(r) = 1 / log2(1 + r), the ranks that the student gives, r = |rank_i - rank_j| and a = lambdarank. No gradient
    flows through the weights. Memory O(n^2) a list. seed and list_ids are not used.

    Args:
      topk: cut-off of NDCG: pairs without a document in the student's top k have weight 0; None: none.
      lambdarank: 0 <= a <= 1; 0: LambdaLoss (NDCG-Loss2), 1: LambdaRank.

    Raises:
      ValueError: an option or a shape that is not possible.
    """
    count("topk", topk, none="no cut-off")
    if not 0 <= lambdarank <= 1:
        raise ValueError(f"lambdarank={lambdarank!r} is not possible: 0 <= a <= 1")
    labels, student, mask = as_lists(labels, student, mask, is_label=True)
    is_pair, penalties = _pairs(labels, student, mask)
    gains = _gains(labels, mask)
    place = tf.cast(ranks(student, mask), student.dtype)
    is_top = tf.ones_like(mask) if topk is None else place <= topk
    distance = tf.maximum(abs(_difference(place)), 1.0)  # 0 between a document and itself, which are no pair
    absolute = abs(_difference(tf.where(is_top, _discount(place), 0.0)))
    discounts = (1 - lambdarank) * (_discount(distance) - _discount(distance + 1.0)) + lambdarank * absolute
    weights = (
        _difference(gains) * discounts * _inverse_ideal_dcg(gains, mask, topk)[:, tf.newaxis, tf.newaxis]
    )
    is_counted = is_pair & (is_top[:, :, tf.newaxis] | is_top[:, tf.newaxis])
    losses = tf.where(is_counted, tf.stop_gradient(weights) * penalties, 0.0)
    return reduce_lists(tf.reduce_sum(losses, axis=[1, 2]), mask, reduce)


def approx_ndcg(
    labels: Any,
    student: Any,
    mask: Any = None,
    *,
    temperature: float = 0.1,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """-NDCG with smooth ranks (Qin et al., 2010; Bruch et al., SIGIR 2019).

        L = - sum_i gain_i / log2(1 + rank_i) / ideal DCG,   rank_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / T)

    Memory O(n^2) a list. seed and list_ids are not used.

    Args:
      temperature: T > 0.

    Raises:
      ValueError: an option or a shape that is not possible.
    """
    labels, student, mask = as_lists(labels, student, mask, temperature, is_label=True)
    above = tf.sigmoid(-_difference(student))  # [B, i, j]: that j is above i
    others = mask[:, tf.newaxis] & ~tf.eye(tf.shape(mask)[1], dtype=tf.bool)
    smooth_ranks = 1.0 + tf.reduce_sum(tf.where(others, above, 0.0), axis=2)
    gains = _gains(labels, mask)
    dcg = tf.reduce_sum(gains * _discount(smooth_ranks), axis=1)
    return reduce_lists(-dcg * _inverse_ideal_dcg(gains, mask, None), mask, reduce)


def _gains(labels: Tensor, mask: Tensor) -> Tensor:
    """(2^label - 1) / 2^(the list's largest label), so that no label overflows. Losses divide by the ideal DCG."""
    largest = tf.reduce_max(labels, axis=1, keepdims=True)
    return tf.where(mask, 2.0 ** (labels - largest) - 2.0**-largest, 0.0)


def _difference(x: Tensor) -> Tensor:
    """x_i - x_j, [B, i, j]."""
    return x[:, :, tf.newaxis] - x[:, tf.newaxis]


def _pairs(labels: Tensor, student: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where label_i > label_j, and log(1 + exp(s_j - s_i)), [B, i, j]."""
    both = mask[:, :, tf.newaxis] & mask[:, tf.newaxis]
    return both & (_difference(labels) > 0), tf.math.softplus(-_difference(student))


def _discount(place: Tensor) -> Tensor:
    """1 / log2(1 + place)."""
    return tf.math.log(tf.constant(2.0, place.dtype)) / tf.math.log1p(place)


def _inverse_ideal_dcg(gains: Tensor, mask: Tensor, topk: int | None) -> Tensor:
    """[B]; 0 for a list without relevant documents."""
    place = ranks(gains, mask)
    counted = gains if topk is None else tf.where(place <= topk, gains, 0.0)
    return tf.math.divide_no_nan(1.0, tf.reduce_sum(counted * _discount(tf.cast(place, gains.dtype)), axis=1))

"""The coupled RankDistil loss (Reddi et al., AISTATS 2021) and its estimators.

Shapes: B lists, S samples, n list_size, K picks.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pipeline.errors import UserError
from pipeline.losses import sampled
from pipeline.losses.lists import NO_SCORE, Tensor, as_lists, count, from_best, one_of, reduce_lists

ESTIMATORS = ("rao_blackwell", "plackett", "exact", "tfr")


def coupled_rankdistil(
    teacher: Any,
    student: Any,
    mask: Any = None,
    *,
    topk: int | None = None,
    temperature: float = 1.0,
    sample_size: int = 8,
    estimator: str = "rao_blackwell",
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    r"""Cross-entropy of the teacher's and the student's top-k Plackett-Luce distributions.

        L = E_{pi ~ PL(t)} [ sum_{i=1..min(k, n)}  log sum_{j in R_i} exp(s_j)  -  s_{pi_i} ]

    with t = teacher, s = student / temperature and R_i the documents left before pick i. The documents outside the top
    k stay in every denominator. For temperature 1 the minimum over s is at s = t + c; a teacher temperature is a
    division by the caller.

    Estimators:
      exact: the closed form, k = 1 and k = 2 only.
      rao_blackwell: over `sample_size` draws, with s_{pi_i} replaced by its expectation given the picks before i: the
        same expected value, usually a smaller variance, far smaller near the teacher; exact for k = 1. The default.
      plackett: over `sample_size` draws, the bracket as it stands.
      tfr: plackett, with the draws of `tfr.keras.losses.CoupledRankDistilLoss`: they follow `tf.random.set_seed` and
        depend on the batch's shape, and `seed` and `list_ids` are not used.

    The noise of the others is a function of (seed, list id, sample, slot) alone. Neither the batching nor the number
    of replicas nor the padding changes it, and a rerun with the same seed gives the same numbers.

    >>> teacher = [[0.0, 30.0, 60.0, 90.0]]
    >>> student = [[0.0, 1.0, 2.0, 3.0]]
    >>> round(float(coupled_rankdistil(teacher, student, topk=2, estimator="exact")), 4)
    0.8478

    Args:
      teacher: scores [lists, list_size], finite where unmasked, of any sign and size; ragged if student is. No gradient
        flows to them.
      student: scores [lists, list_size], finite where unmasked.
      mask: bool [lists, list_size], True for documents, False for padding. None: all are documents. What stands in
        the padding, NaN included, does not matter.
      topk: k; above the number of documents it means all of them, as None does.
      temperature: > 0, divides the student's scores.
      sample_size: S, draws a list; the `exact` estimator needs none.
      estimator: see above.
      seed: integers [2], run seed and step, or a tensor of them.
      list_ids: integers [lists] that name the lists; their position by default.
      reduce: "mean" over the lists that have a document, or None for [lists], where a list without one counts 0.

    Returns:
      float32, or float64 where the student's scores are float64; it is computed in that type.

    Raises:
      ValueError: an option or a shape that is not possible.
    """
    topk, sample_size = _check_options(topk, sample_size, estimator)
    teacher, student, mask = as_lists(teacher, student, mask, temperature)
    if estimator == "exact" or (estimator == "rao_blackwell" and topk == 1):
        per_list = _exact(teacher, student, mask, topk)
    else:
        list_ids = tf.range(tf.shape(student)[0]) if list_ids is None else list_ids
        per_list = sampled.per_list_loss(teacher, student, mask, topk, sample_size, estimator, seed, list_ids)
    return reduce_lists(per_list, mask, reduce)


def _check_options(topk: Any, sample_size: Any, estimator: Any) -> tuple[Any, Any]:
    one_of("estimator", estimator, ESTIMATORS)
    topk, sample_size = count("topk", topk, none="all"), count("sample_size", sample_size)
    if estimator == "exact" and topk not in (1, 2):
        raise UserError(
            "estimator=exact has a closed form for topk 1 and 2 only",
            where=f"topk={topk}",
            fix="estimator=rao_blackwell",
        )
    return topk, sample_size


# --------------------------------------------------------------------------------------------------- exact


def _exact(teacher: Tensor, student: Tensor, mask: Tensor, topk: int | None) -> Tensor:
    """[B], for k = 1 and k = 2.

    With P = softmax(t), Q = softmax(s), E = sum_i P_i s_i:

        L_1 = lse(s) - E
        L_2 = L_1 + sum_i P_i [ lse(s) + log1p(-Q_i) - (E - P_i s_i) / (1 - P_i) ]

    where a P_i or Q_i above 1/2, at most one a list, has its remainder summed without i instead of subtracted.
    """
    t, s = from_best(teacher, mask), from_best(student, mask)
    p = tf.nn.softmax(t)
    s_or_0 = tf.where(mask, s, 0.0)
    lse = tf.reduce_logsumexp(s, axis=1, keepdims=True)
    mean = tf.reduce_sum(p * s_or_0, axis=1, keepdims=True)
    value = (lse - mean)[:, 0]
    if topk == 1:
        return value
    size = tf.shape(s)[1]
    # What is left for step 2 if i was picked at step 1: lse and mean over the others, [B, n].
    others = tf.one_hot(tf.argmax(s, axis=1), size, on_value=False, off_value=True)
    lse_of_others = tf.reduce_logsumexp(tf.where(others, s, NO_SCORE), axis=1, keepdims=True)
    q = tf.where(others, tf.exp(s - lse), 0.0)
    lse_left = tf.where(others, lse + tf.math.log1p(-q), lse_of_others)
    others = tf.one_hot(tf.argmax(t, axis=1), size, on_value=False, off_value=True)
    mean_of_others = tf.nn.softmax(tf.where(others, t, NO_SCORE)) * s_or_0
    mean_of_others = tf.reduce_sum(mean_of_others, axis=1, keepdims=True)
    p_or_0 = tf.where(others, p, 0.0)
    mean_left = tf.where(others, (mean - p_or_0 * s_or_0) / (1.0 - p_or_0), mean_of_others)
    second = tf.reduce_sum(tf.where(mask, p * (lse_left - mean_left), 0.0), axis=1)
    return value + tf.where(tf.reduce_sum(tf.cast(mask, tf.int32), axis=1) >= 2, second, 0.0)

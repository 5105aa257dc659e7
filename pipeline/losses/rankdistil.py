"""The coupled RankDistil loss (Reddi et al., AISTATS 2021) and its estimators.

Shapes: B lists, S samples, n list_size, K picks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pipeline.losses import plackett_luce
from pipeline.losses.lists import NO_SCORE, Tensor, as_lists, from_best, reduce_lists
from pipeline.losses.plackett_luce import at, scaled_cumsum
from pipeline.losses.tfr_compat import load_tfr

ESTIMATORS = ("rao_blackwell", "plackett", "exact", "tfr")

# exp() of scores within this many nats of the best one, and sums and quotients of such numbers, fit into float32.
_NARROW_NATS = 70.0

_PARTS = 8  # of a list that are summed one over another


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
        same expected value, a much smaller variance; exact for k = 1. The default.
      plackett: over `sample_size` draws, the bracket as it stands.
      tfr: `tfr.keras.losses.CoupledRankDistilLoss`, with the teacher shifted to a minimum of 0. Its noise comes from
        TensorFlow's global seed, not from `seed`; float32 only, no ragged lists inside.

    The noise is a function of (seed, list id, sample, slot) alone. So neither the batching nor the number of replicas
    nor the padding changes it, and a rerun with the same seed gives the same numbers.

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
    _check_options(topk, sample_size, estimator)
    teacher, student, mask = as_lists(teacher, student, mask, temperature)
    if estimator == "tfr":
        per_list = _tfr(teacher, student, mask, topk, sample_size)
    elif estimator == "exact" or (estimator == "rao_blackwell" and topk == 1):
        per_list = _exact(teacher, student, mask, topk)
    else:
        list_ids = tf.range(tf.shape(student)[0]) if list_ids is None else list_ids
        per_list = _sampled(
            teacher, student, mask, topk, sample_size, estimator == "rao_blackwell", seed, list_ids
        )
    return reduce_lists(per_list, mask, reduce)


def _check_options(topk: Any, sample_size: Any, estimator: Any) -> None:
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator={estimator!r} is unknown: available: {', '.join(ESTIMATORS)}")
    for name, value in (("topk", topk), ("sample_size", sample_size)):
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not is_count and not (name == "topk" and value is None):
            raise ValueError(
                f"{name}={value!r} is not possible: an integer >= 1" + ", or None for all" * (name == "topk")
            )
    if estimator == "exact" and topk not in (1, 2):
        raise ValueError(
            f"topk={topk} has no closed form: estimator=exact is for topk 1 and 2; mend: rao_blackwell"
        )


# --------------------------------------------------------------------------------------------------- exact


def _exact(teacher: Tensor, student: Tensor, mask: Tensor, topk: int) -> Tensor:
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


# ------------------------------------------------------------------------------------------------- sampled


def _sampled(
    teacher: Tensor,
    student: Tensor,
    mask: Tensor,
    topk: int | None,
    sample_size: int,
    rao_blackwell: bool,
    seed: Any,
    list_ids: Any,
) -> Tensor:
    """[B], mean over S draws, with its gradient in closed form."""
    size = student.shape[1]
    if size is None:  # room for k picks, whatever the size will be
        padded_size = tf.maximum(tf.shape(student)[1], topk or 2)
        num_steps = topk or padded_size
    else:
        num_steps = max(min(topk or size, size), 2 if rao_blackwell else 1)
        multiple = _PARTS if plackett_luce.group_size(size, num_steps) == 1 else plackett_luce.NUM_GROUPS
        padded_size = -(-size // multiple) * multiple
    num_picks = num_steps - 1 if rao_blackwell else num_steps  # an expectation needs the picks before it only
    padding = [[0, 0], [0, padded_size - tf.shape(student)[1]]]
    teacher, student, mask = tf.pad(teacher, padding), tf.pad(student, padding), tf.pad(mask, padding)

    @tf.custom_gradient
    def per_list(student: Tensor) -> Any:
        t, s = from_best(teacher, mask), from_best(student, mask)

        def branch(wide: bool) -> tuple[Tensor, Tensor]:
            picks = plackett_luce.draw(
                t,
                num_picks=num_picks,
                num_samples=sample_size,
                seed=seed,
                list_ids=list_ids,
                wide=wide,
            )
            return _value_and_gradient(t, s, mask, picks, num_steps, rao_blackwell, wide)

        is_narrow = tf.reduce_min(tf.where(mask, tf.minimum(t, s), 0.0)) >= -_NARROW_NATS
        value, gradient = tf.cond(is_narrow, lambda: branch(False), lambda: branch(True))
        return value, lambda upstream: upstream[:, tf.newaxis] * gradient

    return per_list(student)


def _value_and_gradient(
    t: Tensor, s: Tensor, mask: Tensor, picks: Tensor, num_steps: Any, rao_blackwell: bool, wide: bool
) -> tuple[Tensor, Tensor]:
    """The mean of the sampled losses [B] and its gradient by s [B, n].

    Slot i = 1 .. K of the arrays [B, S, K + 1] is pick i, slot K + 1 is all that is left after K picks; R_i is slot i
    and what comes after it. The gradient of one sample by s_j is

        sum over the steps i with j in R_i of  softmax_{R_i}(s)_j - softmax_{R_i}(t)_j

    (minus 1 at the picks for the plain estimator), which `_shares` sums without a loop over the steps.

    Args:
      t: [B, n], each list's best score is 0, padding NO_SCORE.
      s: [B, n], likewise.
      mask: bool [B, n].
      picks: int32 [B, S, K], with K = k - 1 for rao_blackwell, else k.
      num_steps: k.
      rao_blackwell: the expectation of s_{pi_i} in place of its sample.
      wide: some scores are more than 70 nats below their list's best one.
    """
    left = plackett_luce.all_but(picks, t.shape[1] or tf.shape(t)[1]) & mask[:, tf.newaxis]
    num_docs = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)[:, tf.newaxis, tf.newaxis]
    is_step = tf.range(1, tf.shape(picks)[2] + 2) <= tf.minimum(num_docs, num_steps)  # [B, 1, K + 1]

    log_sums, _, share_of_picks, share_of_left = _shares(s, s, picks, left, is_step, wide)
    if rao_blackwell:
        _, s_mean, t_share_of_picks, t_share_of_left = _shares(t, s, picks, left, is_step, wide)
        share_of_left -= t_share_of_left
    else:
        s_mean = tf.pad(at(s, picks), [[0, 0], [0, 0], [0, 1]])
        t_share_of_picks = tf.cast(is_step[..., :-1], s.dtype)
    value = tf.reduce_sum(tf.where(is_step, log_sums - s_mean, 0.0), axis=2)
    lists = tf.broadcast_to(tf.range(tf.shape(picks)[0])[:, tf.newaxis, tf.newaxis], tf.shape(picks))
    gradient = tf.tensor_scatter_nd_add(
        share_of_left,
        tf.stack([lists, picks], axis=-1),
        share_of_picks - t_share_of_picks,
    )
    num_samples = tf.cast(tf.shape(picks)[1], s.dtype)
    return tf.reduce_mean(value, axis=1), tf.where(mask, gradient / num_samples, 0.0)


def _shares(
    scores: Tensor, values: Tensor, picks: Tensor, left: Tensor, is_step: Tensor, wide: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What softmax_{R_i}(scores) says about each step, and about each document over all its steps.

    A sum over R_i is a cumulative sum over the slots from the end. The shares of one document, exp(score) / sum_{R_i},
    summed over its steps are exp(score) times a cumulative sum from the beginning, which is the same for all documents
    that were never picked. Where `wide`, every exponential and sum is kept as a number times exp(scale).

    Returns:
      log sum_{R_i} exp(scores) [B, S, K + 1]; the mean of values under softmax_{R_i}(scores) [B, S, K + 1];
      the sums of the shares of each pick [B, S, K], and of each document over the samples that left it [B, n].
    """
    num_samples, size = left.shape[1], left.shape[2] or tf.shape(left)[2]
    if wide:
        rest_scale = _over(2, size, lambda d: tf.where(left[..., d], scores[:, tf.newaxis, d], NO_SCORE), tf.maximum)

        def rest(docs: slice) -> Tensor:
            return tf.where(left[..., docs], tf.exp(scores[:, tf.newaxis, docs] - rest_scale), 0.0)

        picked_scale = at(scores, picks)
        picked = tf.ones_like(picked_scale)
        scale = tf.concat([picked_scale, rest_scale], axis=2)
    else:
        weights, scale = tf.exp(scores), None
        picked = at(weights, picks)

        def rest(docs: slice) -> Tensor:
            return tf.where(left[..., docs], weights[:, tf.newaxis, docs], 0.0)

    rest_sum = _over(2, size, rest)
    rest_values = _over(2, size, lambda docs: rest(docs) * values[:, tf.newaxis, docs])
    sums_scale, (sums, value_sums) = scaled_cumsum(
        scale,
        tf.concat([picked, rest_sum], axis=2),
        tf.concat([picked * at(values, picks), rest_values], axis=2),
        reverse=True,
    )
    sums = tf.where(is_step, sums, 1.0)
    inverse_scale = None if sums_scale is None else -sums_scale
    _, (inverse_sums,) = scaled_cumsum(inverse_scale, tf.where(is_step, 1.0 / sums, 0.0))
    log_sums = tf.math.log(sums)
    if wide:
        log_sums += sums_scale
        picked = tf.exp(picked_scale - sums_scale[..., :-1])
        share_of_left = _over(
            1,
            num_samples,
            lambda i: tf.where(left[:, i], tf.exp(scores[:, tf.newaxis] - rest_scale[:, i]) * inverse_sums[:, i, -1:], 0.0),
        )
    else:
        share_of_left = weights[:, tf.newaxis] * _over(
            1, num_samples, lambda i: tf.where(left[:, i], inverse_sums[:, i, -1:], 0.0)
        )
    return log_sums, value_sums / sums, picked * inverse_sums[..., :-1], share_of_left[:, 0]


def _over(axis: int, size: Any, of_part: Callable[[slice], Tensor], combine: Callable = tf.add) -> Tensor:
    """The sum or maximum along an axis of an array [B, S, n] that XLA never builds.

    XLA on CPU builds what it reduces, but not the parts that are combined before.
    """
    num_parts = _PARTS if isinstance(size, int) and size % _PARTS == 0 else 1
    width = size // num_parts
    parts = functools.reduce(combine, [of_part(slice(i * width, (i + 1) * width)) for i in range(num_parts)])
    return (tf.reduce_sum if combine is tf.add else tf.reduce_max)(parts, axis=axis, keepdims=True)


# ----------------------------------------------------------------------------------------------------- tfr


def _tfr(teacher: Tensor, student: Tensor, mask: Tensor, topk: int | None, sample_size: int) -> Tensor:
    """[B], tfr's own loss; shifts and a constant take out what padding and signs would add to it."""
    dtype = student.dtype
    teacher, student = tf.cast(teacher, tf.float32), tf.cast(student, tf.float32)

    def from_worst(scores: Tensor) -> Tensor:
        worst = tf.reduce_min(tf.where(mask, scores, scores.dtype.max), axis=1, keepdims=True)
        return scores - tf.stop_gradient(worst)

    # tfr gives lists whose teacher scores sum to 0 the weight 0, takes negative ones for padding, and lets documents
    # that are gone stay in the denominators with the score log(1e-10).
    labels = tf.where(mask, from_worst(teacher) + 1.0, -1.0)
    scores = tf.where(mask, from_worst(student), 0.0)
    size = tf.shape(labels)[1]
    topk = size if topk is None else tf.minimum(topk, size)
    loss = load_tfr().keras.losses.CoupledRankDistilLoss(reduction="none", topk=topk, sample_size=sample_size)
    num_docs = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    padded_steps = tf.cast(tf.maximum(topk - num_docs, 0), tf.float32)
    padded_value = padded_steps * tf.math.log(tf.cast(size, tf.float32))
    per_list = tf.reshape(loss(labels, scores), [-1]) - padded_value
    return tf.cast(tf.where(num_docs > 0, per_list, 0.0), dtype)

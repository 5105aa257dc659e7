"""The sampled estimators of the coupled RankDistil loss: value and gradient in O(S (n + k)) a list.

Shapes: B lists, S samples, n list_size, k steps, K picks.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pipeline.losses import plackett_luce
from pipeline.losses.lists import NO_SCORE, PARTS, Tensor, cut, from_best, over
from pipeline.losses.plackett_luce import at, scaled_cumsum

# exp() of scores within this many nats of the best one, and sums and quotients of such numbers, fit into float32.
_NARROW_NATS = 70.0


def per_list_loss(
    teacher: Tensor,
    student: Tensor,
    mask: Tensor,
    topk: int | None,
    sample_size: int,
    estimator: str,
    seed: Any,
    list_ids: Any,
) -> Tensor:
    """[B], mean over S draws, with its gradient in closed form."""
    size, rao_blackwell = student.shape[1], estimator == "rao_blackwell"
    if size is None:  # room for k picks, whatever the size will be
        padded_size = tf.maximum(tf.shape(student)[1], topk or 2)
        num_steps = topk or padded_size
    else:
        num_steps = max(min(topk or size, size), 2 if rao_blackwell else 1)
        multiple = PARTS if plackett_luce.group_size(size, num_steps) == 1 else plackett_luce.NUM_GROUPS
        padded_size = -(-size // multiple) * multiple
    num_picks = num_steps - 1 if rao_blackwell else num_steps  # an expectation needs the picks before it only
    padding = [[0, 0], [0, padded_size - tf.shape(student)[1]]]
    noise = plackett_luce.tfr_noise(tf.shape(student), sample_size, padding) if estimator == "tfr" else None
    teacher, student, mask = tf.pad(teacher, padding), tf.pad(student, padding), tf.pad(mask, padding)

    t, s = from_best(teacher, mask), from_best(student, mask)

    def branch(wide: bool) -> tuple[Tensor, Tensor]:
        if noise is not None:
            picks = tf.math.top_k(t[:, tf.newaxis] + tf.cast(noise, t.dtype), num_picks).indices
        else:
            picks = plackett_luce.draw(
                t, num_picks=num_picks, num_samples=sample_size, seed=seed, list_ids=list_ids, wide=wide
            )
        return _value_and_gradient(t, s, mask, picks, num_steps, rao_blackwell, wide)

    # Over lists first: XLA on CPU takes eight times as long over both axes at once.
    worst = tf.reduce_min(tf.reduce_min(tf.where(mask, tf.minimum(t, s), 0.0), axis=0))
    is_narrow = worst >= -_NARROW_NATS
    found = tf.cond(is_narrow, lambda: branch(False), lambda: branch(True))
    value, gradient = map(tf.stop_gradient, found)
    # Plus 0, with this gradient by the student. Not tf.custom_gradient: TensorFlow keeps the graph around each as
    # long as the process lives.
    nothing = student - tf.stop_gradient(student)
    return value + tf.reduce_sum(tf.math.multiply_no_nan(gradient, nothing), -1)


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
    num_samples, size = left.shape[1], left.shape[2]
    value_parts = [values[:, tf.newaxis]]
    if wide:  # is rare: the time to trace the graph counts, not that of XLA's code
        rest_scale = tf.reduce_max(tf.where(left, scores[:, tf.newaxis], NO_SCORE), axis=2, keepdims=True)
        rest = [tf.where(left, tf.exp(scores[:, tf.newaxis] - rest_scale), 0.0)]
        picked_scale = at(scores, picks)
        picked = tf.ones_like(picked_scale)
        scale = tf.concat([picked_scale, rest_scale], axis=2)
    else:
        weights, scale = tf.exp(scores), None
        picked = at(weights, picks)
        weight_parts, value_parts = (cut(x[:, tf.newaxis], 2, size) for x in (weights, values))
        rest = [
            tf.where(was_left, w, 0.0) for was_left, w in zip(cut(left, 2, size), weight_parts, strict=True)
        ]

    rest_sum = over(2, rest)
    rest_values = over(2, (r * v for r, v in zip(rest, value_parts, strict=True)))
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
    if sums_scale is not None:
        log_sums += sums_scale
        picked = tf.exp(picked_scale - sums_scale[..., :-1])
        share_of_left = tf.reduce_sum(rest[0] * inverse_sums[..., -1:], axis=1)
    else:
        samples = zip(*(cut(x, 1, num_samples) for x in (left, inverse_sums[..., -1:])), strict=True)
        share_of_left = weights * over(1, (tf.where(was_left, x, 0.0) for was_left, x in samples))[:, 0]
    return log_sums, value_sums / sums, picked * inverse_sums[..., :-1], share_of_left

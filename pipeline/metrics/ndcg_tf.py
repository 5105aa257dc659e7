"""NDCG inside a TensorFlow graph. A separate file, because the numpy metrics do not need TensorFlow."""

from __future__ import annotations

import tensorflow as tf


def ndcg_tf(scores: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor, *, cutoff: int = 10) -> tf.Tensor:
    """`pipeline.metrics.ndcg` with blank lists 0 and ties averaged, in a graph or under XLA.

    Args:
      scores: floating point [lists, list_size]; finite where `mask` is true.
      labels: [lists, list_size], graded relevance in 0..1000 where `mask` is true.
      mask: bool [lists, list_size].
      cutoff: 1 or more.

    Returns:
      float32 [lists].

    >>> mask = tf.constant([[True, True, True]])
    >>> ndcg_tf(tf.constant([[3.0, 2.0, 1.0]]), tf.constant([[0, 1, 2]]), mask).numpy().round(4)
    array([0.5869], dtype=float32)
    """
    num_lists, list_size = tf.unstack(tf.shape(scores))
    labels = tf.where(mask, tf.cast(labels, tf.float32), 0.0)
    # (2^label - 1) / 2^highest: NDCG is the same, and 2^label is not finite in float32 from label 128 on.
    highest = tf.reduce_max(labels, axis=1, keepdims=True)
    gains = tf.where(labels > 0, tf.pow(2.0, labels - highest) - tf.pow(2.0, -highest), 0.0)
    discounts = tf.math.log(2.0) / tf.math.log(tf.range(2.0, tf.cast(list_size, tf.float32) + 2.0))
    discounts = tf.where(tf.range(list_size) < cutoff, discounts, 0.0)
    # XLA orders -0.0 below 0.0; for every metric they are a tie.
    scores = tf.where(scores == 0, tf.zeros_like(scores), scores)
    scores = tf.where(mask, scores, scores.dtype.as_numpy_dtype("-inf"))
    ranked_scores, order = tf.math.top_k(scores, list_size)
    ranked_gains = tf.gather(gains, order, batch_dims=1)
    # Tied documents share a number, and each of them gets their mean gain.
    is_new = tf.concat(
        [tf.zeros_like(order[:, :1]), tf.cast(ranked_scores[:, 1:] != ranked_scores[:, :-1], tf.int32)], 1
    )
    tie_group = tf.cumsum(is_new, axis=1) + list_size * tf.range(num_lists)[:, tf.newaxis]
    sums = tf.math.unsorted_segment_sum(ranked_gains, tie_group, num_lists * list_size)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(ranked_gains), tie_group, num_lists * list_size)
    expected_gains = tf.gather(tf.math.divide_no_nan(sums, counts), tie_group)
    dcg = tf.reduce_sum(expected_gains * discounts, axis=1)
    ideal = tf.reduce_sum(tf.sort(gains, axis=1, direction="DESCENDING") * discounts, axis=1)
    return tf.math.divide_no_nan(dcg, ideal)

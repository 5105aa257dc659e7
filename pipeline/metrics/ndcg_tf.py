"""NDCG inside a TensorFlow graph. Apart from the numpy metrics, which need no TensorFlow."""

from __future__ import annotations

import tensorflow as tf


def ndcg_tf(scores: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor, *, cutoff: int = 10) -> tf.Tensor:
    """`pipeline.metrics.ndcg` with blank lists 0 and ties by index, in a graph or under XLA.

    Args:
      scores: floating point [lists, list_size]; finite where `mask` is true.
      labels: [lists, list_size], graded relevance >= 0 where `mask` is true.
      mask: bool [lists, list_size].
      cutoff: 1 or more.

    Returns:
      float32 [lists].

    >>> mask = tf.constant([[True, True, True]])
    >>> ndcg_tf(tf.constant([[3.0, 2.0, 1.0]]), tf.constant([[0, 1, 2]]), mask).numpy().round(4)
    array([0.5869], dtype=float32)
    """
    labels = tf.where(mask, tf.cast(labels, tf.float32), 0.0)
    gains = tf.pow(2.0, labels) - 1.0
    num_top = tf.minimum(cutoff, tf.shape(scores)[1])
    discounts = tf.math.log(2.0) / tf.math.log(tf.cast(tf.range(num_top), tf.float32) + 2.0)
    # XLA orders -0.0 below 0.0; to everyone else they are a tie
    scores = tf.where(scores == 0, tf.zeros_like(scores), scores)
    scores = tf.where(mask, scores, scores.dtype.as_numpy_dtype("-inf"))
    ranked_gains = tf.gather(gains, tf.math.top_k(scores, num_top).indices, batch_dims=1)
    dcg = tf.reduce_sum(ranked_gains * discounts, axis=1)
    ideal = tf.reduce_sum(tf.math.top_k(gains, num_top).values * discounts, axis=1)
    return tf.math.divide_no_nan(dcg, ideal)

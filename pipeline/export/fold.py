"""Standardisation folded into the first layer: one matrix product instead of three passes over the features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pipeline.data.transform import Transform
from pipeline.models.networks import Scorer

# A feature whose mean is further from 0 than so many deviations is still centred first: in float32 the matrix product
# would lose the digits that mean and value have in common.
_MAX_MEAN = 64.0
_MAX_DEVIATION = (
    1e30  # of a feature with a larger one the weights, divided by it, would be too small for float32
)


def fold_standardisation(transform: Transform, scorer: Scorer) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Raw features [docs, F] -> scores [docs], equal to `scorer(transform(x))` up to float32 rounding.

    With standardised features z = (y - mean) / deviation, where y is what the transform does before, and a first layer
    z W + b:

        z W + b = (y - shift) W' + b',  W' = W / deviation,  b' = b - ((mean - shift) / deviation) W

    `shift` is 0 but where the mean is large against the deviation, or the deviation is huge: such features are divided
    by it, too. Clipping z is clipping y to mean +- clip deviations.

    Args:
      transform: of raw features.
      scorer: on transformed features.

    Returns:
      None where the scorer's input goes to anything but one dense float32 layer (as in DCN, which multiplies by it).
    """
    parts = scorer.split_first()
    if parts is None or parts[0].compute_dtype != "float32":
        return None
    first, rest = parts
    mean, deviation = transform.mean.astype(np.float64), transform.deviation.astype(np.float64)
    is_huge = deviation > _MAX_DEVIATION
    scale = np.where(is_huge, deviation, 1.0)
    shift = np.where(is_huge | (np.abs(mean) > _MAX_MEAN * deviation), mean, 0.0)
    kernel, bias = (weight.numpy().astype(np.float64) for weight in (first.kernel, first.bias))
    bias = bias - ((mean - shift) / deviation) @ kernel
    kernel = kernel / (deviation / scale)[:, None]
    before = dataclasses.replace(
        transform, mean=shift.astype(np.float32), deviation=scale.astype(np.float32), clip=None
    )
    low = high = None
    if transform.clip is not None:
        low, high = (
            ((mean - shift + sign * transform.clip * deviation) / scale).astype(np.float32)
            for sign in (-1, 1)
        )
    kernel, bias = kernel.astype(np.float32), bias.astype(np.float32)

    def score(features: tf.Tensor) -> tf.Tensor:
        features = before.in_graph(features)
        if low is not None:
            features = tf.clip_by_value(features, low, high)
        hidden = first.activation(tf.nn.bias_add(tf.matmul(features, kernel), bias))
        return rest(hidden)

    return score

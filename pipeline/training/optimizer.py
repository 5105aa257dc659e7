"""The optimizer, and the loss scale that training in float16 needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from pipeline.config import TrainConfig

_FIRST_SCALE, _STEPS_UNTIL_LARGER = 2.0**15, 2000  # as in Keras


def learning_rate(config: TrainConfig, step: int, num_steps: int) -> float:
    """The learning rate of a step, 0 to num_steps - 1. Cosine would reach 0 at step num_steps."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (1 + math.cos(math.pi * step / num_steps)) / 2


def adam(variables: Sequence[tf.Variable], weight_decay: float) -> keras.optimizers.Optimizer:
    """Adam, or AdamW with a weight decay, which takes learning rate * weight_decay off the weights of matrices.

    Biases and the variables of normalisation layers are vectors and do not decay.
    """
    optimizer = keras.optimizers.Adam(weight_decay=weight_decay or None, jit_compile=False)
    optimizer.exclude_from_weight_decay([variable for variable in variables if len(variable.shape) < 2])
    optimizer.build(variables)
    return optimizer


class LossScale:
    """A dynamic loss scale: small gradients are 0 in float16, so the loss is scaled up before the backward pass.

    Gradients that are not finite halve the scale, and the step is skipped. 2,000 good steps in a row double it.
    """

    def __init__(self) -> None:
        self.scale, self.good_steps = _state(tf.constant(_FIRST_SCALE)), _state(tf.zeros([]))

    @property
    def variables(self) -> list[tf.Variable]:
        return [self.scale, self.good_steps]

    def unscale(self, gradients: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The gradients without the scale, and whether they are finite. Adapts the scale."""
        scale, good_steps = map(tf.convert_to_tensor, self.variables)
        is_good = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
        is_larger = good_steps + 1.0 >= _STEPS_UNTIL_LARGER
        grown = tf.where(is_larger, 2.0 * scale, scale)
        set_copy(self.scale, tf.where(is_good, grown, tf.maximum(scale / 2.0, 1.0)))
        set_copy(self.good_steps, tf.where(is_good & ~is_larger, good_steps + 1.0, 0.0))
        return [gradient / scale for gradient in gradients], is_good


def _state(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)


def set_copy(variable: tf.Variable, value: tf.Tensor) -> None:
    """Sets this replica's copy of a variable. The caller sets the same value on all replicas."""
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)

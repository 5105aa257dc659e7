"""AdamW, and the loss scale that training in float16 needs. Both work inside a replica's step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from pipeline.config import TrainConfig

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
_FIRST_SCALE, _STEPS_UNTIL_LARGER = 2.0**15, 2000  # as in Keras


def learning_rate(config: TrainConfig, step: int, num_steps: int) -> float:
    """The learning rate of a step, 0 to num_steps - 1. Cosine would reach 0 at step num_steps."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (1 + math.cos(math.pi * step / num_steps)) / 2


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), one fused operation for each variable.

    Weight decay takes learning rate * weight_decay off the weights of matrices. Biases and the variables of
    normalisation layers are vectors and keep theirs.

    Args:
      variables: what to train.
      weight_decay: 0 for plain Adam.
    """

    def __init__(self, variables: Sequence[tf.Variable], *, weight_decay: float) -> None:
        self.trained, self.weight_decay = variables, weight_decay
        self.momentums = [_state(tf.zeros_like(v)) for v in variables]
        self.velocities = [_state(tf.zeros_like(v)) for v in variables]
        self.num_updates = _state(tf.zeros([]))

    @property
    def variables(self) -> list[tf.Variable]:
        return [*self.momentums, *self.velocities, self.num_updates]

    def apply(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor, is_skipped: Any = False) -> None:
        """Updates this replica's copy of the variables, with gradients that are the same on all replicas.

        A step that is skipped has learning rate 0 and leaves the momentums as they are.
        """
        updates = tf.convert_to_tensor(self.num_updates) + tf.where(is_skipped, 0.0, 1.0)
        set_copy(self.num_updates, updates)
        rate = tf.where(is_skipped, 0.0, rate)
        beta_1, beta_2 = tf.where(is_skipped, 1.0, _BETA_1), tf.where(is_skipped, 1.0, _BETA_2)
        power_1, power_2 = (tf.pow(beta, tf.maximum(updates, 1.0)) for beta in (_BETA_1, _BETA_2))
        for variable, momentum, velocity, gradient in zip(
            self.trained, self.momentums, self.velocities, gradients, strict=True
        ):
            if self.weight_decay and len(variable.shape) > 1:
                set_copy(variable, variable * (1.0 - rate * self.weight_decay))
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=momentum.handle,
                v=velocity.handle,
                beta1_power=power_1,
                beta2_power=power_2,
                lr=rate,
                beta1=beta_1,
                beta2=beta_2,
                epsilon=_EPSILON,
                grad=tf.where(is_skipped, 0.0, gradient),
            )


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
        """The gradients without the scale, and whether to skip the step. Adapts the scale."""
        scale, good_steps = map(tf.convert_to_tensor, self.variables)
        is_good = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
        is_larger = good_steps + 1.0 >= _STEPS_UNTIL_LARGER
        grown = tf.where(is_larger, 2.0 * scale, scale)
        set_copy(self.scale, tf.where(is_good, grown, tf.maximum(scale / 2.0, 1.0)))
        set_copy(self.good_steps, tf.where(is_good & ~is_larger, good_steps + 1.0, 0.0))
        return [gradient / scale for gradient in gradients], ~is_good


def _state(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)


def set_copy(variable: tf.Variable, value: tf.Tensor) -> None:
    """Sets this replica's copy of a variable. The caller sets the same value on all replicas."""
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)

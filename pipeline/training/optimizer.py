"""Adam and AdamW with one operation a variable."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras


class FusedAdam(keras.optimizers.Adam):
    """Keras' Adam, or AdamW where `weight_decay` is given, with the arithmetic of an update in one kernel.

    A small network's step has more operations of Keras' optimizer than of anything else. For dense gradients.
    """

    def __init__(self, learning_rate: Any, *, weight_decay: float | None = None) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, jit_compile=False)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        number = self._index_dict[self._var_key(variable)]
        momentum, velocity = self._momentums[number], self._velocities[number]
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.handle,
            v=velocity.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(self.learning_rate, variable.dtype),
            beta1=tf.cast(self.beta_1, variable.dtype),
            beta2=tf.cast(self.beta_2, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=gradient,
        )

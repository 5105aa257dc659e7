"""Adapters that make the losses usable in `model.compile` of tf_keras."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from pipeline.losses import registry
from pipeline.losses.lists import Tensor

_LISTS_PER_REPLICA = 1 << 20  # keeps the list ids of replicas apart


class RankingLoss(keras.losses.Loss):
    """A loss of the registry: y_true holds the teacher's scores or the labels, NaN in padded slots, or is ragged.

    >>> loss = RankingLoss("softmax")
    >>> float(loss([[1.0, 0.0, float("nan")]], [[0.0, 0.0, 9.0]]))
    0.6931471824645996

    Args:
      loss: name in `pipeline.losses.registry`.
      reduction: of Keras; its mean counts lists without documents too, as 0.
      name: of Keras.
      seed: run seed of the noise.
      step: variable that holds the step, such as `optimizer.iterations`: the noise is then a function of seed, step and
        place in the global batch. None: each call draws its step from TensorFlow's global generator.
      **options: of the loss.
    """

    def __init__(
        self,
        loss: str,
        *,
        reduction: str = keras.losses.Reduction.AUTO,
        name: str | None = None,
        seed: int = 0,
        step: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(reduction=reduction, name=name or loss)
        self._fn = registry.make_loss(loss, **options)
        self._config = {"loss": loss, "seed": seed, **options}
        self._seed, self._step = seed, step

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Per-list values [lists]."""
        replica = tf.distribute.get_replica_context()
        replica_id = 0 if replica is None else replica.replica_id_in_sync_group
        step = (
            tf.random.uniform([], maxval=tf.int32.max, dtype=tf.int32) if self._step is None else self._step
        )
        is_ragged = isinstance(y_true, tf.RaggedTensor)
        num_lists = y_true.nrows() if is_ragged else tf.shape(y_true, out_type=tf.int64)[0]
        return self._fn(
            y_true,
            y_pred,
            None if is_ragged else ~tf.math.is_nan(y_true),
            seed=tf.stack([tf.cast(self._seed, tf.int64), tf.cast(step, tf.int64)]),
            list_ids=tf.range(num_lists) + tf.cast(replica_id, tf.int64) * _LISTS_PER_REPLICA,
            reduce=None,
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | self._config

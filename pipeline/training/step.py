"""The training step.

Shapes: D documents of a batch, B list slots of a replica, L slots for the documents of a list.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from pipeline.config import ConfigError, TrainConfig, nearest
from pipeline.data.packing import PackedBatches, at_slots, find_documents, list_index
from pipeline.losses.registry import LABEL, make_loss
from pipeline.models.layout import Layout
from pipeline.models.networks import Scorer
from pipeline.training.optimizer import LossScale, adam, set_copy


class ListLoss(Protocol):
    """A loss over padded lists [lists, list_size] that gives one value for each list, 0 for an empty one."""

    def __call__(
        self,
        teacher: tf.Tensor,
        labels: tf.Tensor,
        student: tf.Tensor,
        mask: tf.Tensor,
        *,
        seed: tf.Tensor,
        list_ids: tf.Tensor,
    ) -> tf.Tensor: ...


def label_loss(name: str, *, option: str) -> ListLoss:
    """The label loss `name` without a teacher.

    Raises:
      ConfigError: there is no such loss; names the option.
    """
    if name not in LABEL:
        raise ConfigError(f"{option}={name} is unknown: {nearest(name, LABEL)}")
    loss = make_loss(name)
    return lambda teacher, labels, student, mask, *, seed, list_ids: loss(
        labels, student, mask, seed=seed, list_ids=list_ids, reduce=None
    )


class TrainingStep:
    """Trains a scorer on one batch. Build it, and call it, within the scope of the strategy.

    Args:
      scorer: whose variables are trained.
      loss: over padded lists.
      batches: gives the shapes.
      config: precision and weight decay.
      strategy: replicas that share a batch.
      seed: of the run.
      jit: what XLA compiles: off, loss or step.
      features_stay: whether `features` are those of the data set or those of the batch.
    """

    def __init__(
        self,
        scorer: Scorer,
        loss: ListLoss,
        batches: PackedBatches,
        config: TrainConfig,
        strategy: tf.distribute.Strategy,
        *,
        seed: int,
        jit: str,
        features_stay: bool = True,
    ) -> None:
        self.scorer, self.loss, self.strategy, self.seed = scorer, loss, strategy, seed
        self.list_size, self.features_stay = batches.list_size, features_stay
        self.num_rows = batches.num_rows if jit == "step" else None
        self.optimizer = adam(scorer.trainable_variables, config.weight_decay)
        self.loss_scale = LossScale() if config.precision == "float16" else None
        self.value_and_gradient: Any = self._value_and_gradient
        if jit == "loss":
            self.value_and_gradient = tf.function(self._value_and_gradient, jit_compile=True, autograph=False)
        compiled_step: Any = self.replica_step
        # A TPU compiles all by itself.
        if jit == "step" and not isinstance(strategy, tf.distribute.TPUStrategy):
            compiled_step = tf.function(compiled_step, jit_compile=True, autograph=False)

        @tf.function(autograph=False)
        def train_step(*arguments: Any) -> tf.Tensor:
            loss = strategy.run(compiled_step, arguments)
            return strategy.reduce(tf.distribute.ReduceOp.SUM, loss, axis=None)

        self._train_step = train_step

    @property
    def variables(self) -> list[tf.Variable]:
        """Everything that the next step depends on."""
        scale = self.loss_scale.variables if self.loss_scale else []
        return [*self.scorer.variables, *self.optimizer.variables, *scale]

    def __call__(
        self, lists: np.ndarray, features: Any, documents: Any, *, step: int, learning_rate: float
    ) -> tf.Tensor:
        """Trains on one batch.

        Args:
          lists: int32 [replicas, B], the numbers of the lists; -1 in an empty slot.
          features: float32 [docs, F] on each device; or [num_rows, F], those of the replica's lists.
          documents: teacher scores [docs], labels [docs] and offsets [queries + 1], on each device.
          step: counted over all epochs.
          learning_rate: of this step.

        Returns:
          The sum of the loss over the lists, [].
        """
        loss: tf.Tensor = self._train_step(
            features, documents, lists, np.int64(step), np.float32(learning_rate)
        )
        return loss

    def replica_step(
        self, features: tf.Tensor, documents: Any, all_lists: tf.Tensor, step: tf.Tensor, rate: tf.Tensor
    ) -> tf.Tensor:
        teacher, labels, offsets = documents
        replica = tf.distribute.get_replica_context()
        lists = all_lists[replica.replica_id_in_sync_group]
        found = find_documents(lists, offsets, self.list_size, self.num_rows)
        if self.features_stay:
            features = tf.gather(features, found.rows)
        else:
            features = features[: len(found.rows) if self.num_rows else tf.size(found.rows)]
        list_ids = tf.maximum(lists, 0)
        layout = Layout(found.slot, found.sizes, self.list_size, list_ids)
        index, mask = list_index(found.sizes, self.list_size)
        rows = tf.where(mask, found.starts[:, tf.newaxis] + tf.range(self.list_size, dtype=tf.int64), 0)
        teacher, labels = (tf.where(mask, tf.gather(values, rows), 0.0) for values in (teacher, labels))
        with tf.GradientTape() as tape:
            scores = tf.cast(self.scorer(features, layout, training=True), tf.float32)
        student = tf.where(mask, tf.gather(scores, index), 0.0)
        per_list, gradient = self.value_and_gradient(teacher, labels, student, found.sizes, list_ids, step)
        # Divided by the lists of the global batch: the gradients of the replicas are added up.
        weight = 1.0 / tf.math.count_nonzero(all_lists >= 0, dtype=tf.float32)
        if self.loss_scale:
            weight *= tf.convert_to_tensor(self.loss_scale.scale)
        by_doc = at_slots(tf.reshape(weight * gradient, [-1, 1]), found.slot)[:, 0]
        gradients = tape.gradient(scores, self.scorer.trainable_variables, output_gradients=by_doc)
        # TensorFlow keeps the graph of each sum over replicas until the process ends, so one replica makes none.
        if replica.num_replicas_in_sync > 1:
            gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        set_copy(self.optimizer.learning_rate, rate)
        if not self.loss_scale:
            self._apply(gradients)
        else:
            gradients, is_good = self.loss_scale.unscale(gradients)
            variables = [*self.scorer.trainable_variables, *self.optimizer.variables]
            before = [tf.identity(variable) for variable in variables]
            self._apply(gradients)
            for variable, value in zip(variables, before, strict=True):
                set_copy(variable, tf.where(is_good, variable, value))
        return tf.reduce_sum(per_list)

    def _apply(self, gradients: list[tf.Tensor]) -> None:
        pairs = zip(gradients, self.scorer.trainable_variables, strict=True)
        self.optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)

    def _value_and_gradient(
        self,
        teacher: tf.Tensor,
        labels: tf.Tensor,
        student: tf.Tensor,
        sizes: tf.Tensor,
        list_ids: tf.Tensor,
        step: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss of each list [B], and the gradient of their sum by the student's scores [B, L]."""
        mask = tf.sequence_mask(sizes, self.list_size)
        # Noise is a function of (run seed, step, list), so it is the same on any number of replicas.
        seed = tf.stack([self.seed, tf.cast(step, tf.int32)])
        with tf.GradientTape() as tape:
            tape.watch(student)
            per_list = self.loss(teacher, labels, student, mask, seed=seed, list_ids=list_ids)
        return per_list, tape.gradient(per_list, student)

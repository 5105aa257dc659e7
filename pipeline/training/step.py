"""The training step: what `keras.Model.fit` repeats.

Shapes: D documents of a batch, B lists, L slots of a list.
"""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Iterator
from typing import Any, Protocol

import tensorflow as tf
import tf_keras as keras

from pipeline.config import ConfigError, nearest
from pipeline.data.packing import PackedBatches, list_index
from pipeline.losses.lists import inputs_are_usual
from pipeline.losses.registry import LABEL, make_loss
from pipeline.models.layout import Layout
from pipeline.models.networks import Scorer


class ListLoss(Protocol):
    """A loss over padded lists [lists, list_size]; one value a list, 0 for an empty one."""

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
    """The label loss `name` alone, whatever the teacher says.

    Raises:
      ConfigError: there is none; names the option.
    """
    if name not in LABEL:
        raise ConfigError(f"{option}={name} is unknown: {nearest(name, LABEL)}")
    loss = make_loss(name)
    return lambda teacher, labels, student, mask, *, seed, list_ids: loss(
        labels, student, mask, seed=seed, list_ids=list_ids, reduce=None
    )


class TrainingStep(keras.Model):
    """One step of a scorer on a packed batch.

    Args:
      scorer: whose variables are trained.
      loss: over padded lists.
      batches: whose shapes the batches have.
      seed: of the run.
      compile_loss: whether XLA compiles the loss by itself.
    """

    train_function: Any  # Keras calls it

    def __init__(
        self, scorer: Scorer, loss: ListLoss, batches: PackedBatches, *, seed: int, compile_loss: bool
    ) -> None:
        super().__init__()
        self.scorer, self.per_list_loss, self.seed = scorer, loss, seed
        self.list_size, self.num_chunks = batches.list_size, batches.num_chunks
        self.compile_loss = compile_loss
        if compile_loss:
            lists = [batches.slots // batches.num_chunks, batches.list_size]
            self._of_usual = usual = self._compiled(*lists, are_usual=True)
            # XLA compiles a function when a graph first calls it, for each device: for the first this one does, while
            # the rest is traced.
            once = tf.function(lambda *lists: usual(*lists), autograph=False)
            zeros = [tf.zeros(spec.shape, spec.dtype) for spec in usual.structured_input_signature[0]]
            self._compilation = concurrent.futures.ThreadPoolExecutor(1).submit(once, *zeros)
            self._of_unusual = self._compiled(*lists, are_usual=False)
        self.loss_sum = keras.metrics.Sum("loss_sum")
        self.num_lists = keras.metrics.Sum("num_lists")
        self.distribute_reduction_method = "first"  # the metrics are sums over replicas already
        self.bad_step = tf.Variable(
            -1, trainable=False, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )

    def _compiled(self, num_lists: int, list_size: int, *, are_usual: bool) -> Any:
        """`_value_and_gradient`, for XLA."""
        scores, integers = tf.TensorSpec([num_lists, list_size]), tf.TensorSpec([num_lists], tf.int32)
        function = functools.partial(self._value_and_gradient, are_usual=are_usual)
        return tf.function(function, jit_compile=True, autograph=False).get_concrete_function(
            scores, scores, scores, integers, integers, tf.TensorSpec([], tf.int64)
        )

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_sum, self.num_lists]  # Keras resets these at each epoch

    @property
    def scales_loss(self) -> bool:
        return isinstance(self.optimizer, keras.mixed_precision.LossScaleOptimizer)

    def state(self) -> list[tf.Variable]:
        """Everything that the next step depends on."""
        metrics = [variable for metric in self.metrics for variable in metric.variables]
        scale = (
            self.optimizer._loss_scale if self.scales_loss else None
        )  # not among the optimizer's variables
        of_scale = [] if scale is None else [scale.current_loss_scale, scale.counter]
        return [*self.scorer.variables, *self.optimizer.variables, *metrics, *of_scale]

    def make_train_function(self, force: bool = False) -> Any:
        """As many steps as Keras asks for at a time, always in a graph. (Keras' own traces a step twice.)"""
        if self.train_function is not None and not force:
            return self.train_function
        step: Any = self.train_step
        if self.jit_compile:
            step = tf.function(step, jit_compile=True, autograph=False)

        @tf.function(autograph=False)
        def train_function(batches: Iterator[Any]) -> dict[str, tf.Tensor]:
            def next_step(i: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                loss = self.distribute_strategy.run(step, args=(next(batches),))
                return i + 1, self.distribute_strategy.experimental_local_results(loss)[0]

            num_steps = tf.convert_to_tensor(self._steps_per_execution)
            _, loss = tf.while_loop(
                lambda i, _: i < num_steps, next_step, (tf.zeros([], num_steps.dtype), 0.0)
            )
            if self.compile_loss:
                self._compilation.result()  # its noise, where TensorFlow counts that, comes before the first step's
            return {"loss": loss}

        self.train_function = train_function
        return train_function

    def train_step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the mean loss of the lists of the epoch so far."""
        step = tf.convert_to_tensor(self.optimizer.iterations)
        variables = self.scorer.trainable_variables
        loss, gradients = self._loss_and_gradients(batch, step)
        if self.scales_loss:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        replicas = tf.distribute.get_replica_context()
        # A sum over one replica is a custom gradient, too: see `_lists_of_docs`.
        alone = replicas.num_replicas_in_sync == 1
        global_loss = loss if alone else replicas.all_reduce(tf.distribute.ReduceOp.SUM, loss)
        is_first_bad = tf.logical_and(self.bad_step < 0, tf.logical_not(tf.math.is_finite(global_loss)))
        self.bad_step.assign(tf.where(is_first_bad, step, self.bad_step))
        self.optimizer.apply_gradients(
            zip(gradients, variables, strict=True), skip_gradients_aggregation=alone
        )
        self.loss_sum.update_state(loss)
        self.num_lists.update_state(tf.math.count_nonzero(batch["sizes"], dtype=tf.float32))
        return self.loss_sum.result() / self.num_lists.result()

    def _loss_and_gradients(
        self, batch: dict[str, tf.Tensor], step: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The sum of the loss over the lists, and the gradients of their share of the global batch's mean.

        Chunk by chunk: what is between forward and backward then stays in the cache, and two threads need not meet
        within a product. The order of the sums is fixed, whatever the number of threads.
        """
        if self.num_chunks == 1:
            return self._of_chunk(batch, step)
        lists = {
            name: tf.reshape(batch[name], [self.num_chunks, -1, *batch[name].shape[1:]])
            for name in ("teacher", "labels", "sizes", "list_ids")
        }
        num_slots = lists["sizes"].shape[1] * self.list_size

        def add(i: tf.Tensor, loss: tf.Tensor, *gradients: tf.Tensor) -> tuple[tf.Tensor, ...]:
            rows = slice(batch["bounds"][i], batch["bounds"][i + 1])
            chunk = {name: tensor[i] for name, tensor in lists.items()}
            chunk["features"], chunk["num_lists"] = _rows(batch["features"], rows), batch["num_lists"]
            chunk["slot"] = tf.minimum(batch["slot"][rows] - i * num_slots, num_slots)
            more_loss, more = self._of_chunk(chunk, step)
            return i + 1, loss + more_loss, *(a + b for a, b in zip(gradients, more, strict=True))

        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in self.scorer.trainable_variables]
        _, loss, *gradients = tf.while_loop(
            lambda i, *_: i < self.num_chunks, add, (0, 0.0, *zeros), parallel_iterations=2
        )
        return loss, gradients

    def _of_chunk(self, batch: dict[str, tf.Tensor], step: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        layout = Layout(batch["slot"], batch["sizes"], self.list_size, batch["list_ids"])
        with tf.GradientTape() as tape:
            scores = tf.cast(self.scorer(batch["features"], layout, training=True), tf.float32)
        per_list, by_slot = self._loss_of_lists(scores, batch, step)
        # Divided by the lists of the global batch: gradients of replicas are summed, not averaged.
        weight = 1.0 / batch["num_lists"]
        if self.scales_loss:
            weight = self.optimizer.get_scaled_loss(weight)
        # One zero more, for the documents that only pad.
        by_doc = tf.gather(tf.pad(tf.reshape(weight * by_slot, [-1]), [[0, 1]]), batch["slot"])
        variables = self.scorer.trainable_variables
        return tf.reduce_sum(per_list), tape.gradient(scores, variables, output_gradients=by_doc)

    def _loss_of_lists(
        self, scores: tf.Tensor, batch: dict[str, tf.Tensor], step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss of each list [B] and the gradient of their sum by the scores of their slots [B, L]."""
        index, mask = list_index(batch["sizes"], self.list_size)
        student = tf.where(mask, tf.gather(scores, index), 0.0)
        lists = (student, batch["teacher"], batch["labels"], batch["sizes"], batch["list_ids"], step)
        if not self.compile_loss:
            return self._value_and_gradient(*lists)
        usual = self._of_usual(*lists)
        is_usual = tf.reduce_all(tf.math.is_finite(usual[0]))
        # XLA compiles a function when it first runs: this one seldom does.
        return tf.cond(is_usual, lambda: usual, lambda: self._of_unusual(*lists))

    def _value_and_gradient(
        self,
        student: tf.Tensor,
        teacher: tf.Tensor,
        labels: tf.Tensor,
        sizes: tf.Tensor,
        list_ids: tf.Tensor,
        step: tf.Tensor,
        are_usual: bool | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As `_loss_of_lists`, of padded lists; see `inputs_are_usual`."""
        mask = tf.sequence_mask(sizes, self.list_size)
        # Noise is a function of (run seed, step, list), so it is the same on any number of replicas.
        seed = tf.stack([self.seed, tf.cast(step, tf.int32)])
        with tf.GradientTape() as tape, inputs_are_usual(are_usual):
            tape.watch(student)
            per_list = self.per_list_loss(teacher, labels, student, mask, seed=seed, list_ids=list_ids)
        return per_list, tape.gradient(per_list, student)


def _rows(x: tf.Tensor, rows: slice) -> tf.Tensor:
    """x[rows], by one dimension: of more TensorFlow copies a slice whose rows are no multiple of 64 bytes."""
    width = x.shape[1]
    return tf.reshape(tf.reshape(x, [-1])[rows.start * width : rows.stop * width], [-1, width])

"""Keras fit of a scorer on packed batches, under a tf.distribute strategy."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pipeline.artifacts import write_json
from pipeline.config import TrainConfig
from pipeline.data import RankingData
from pipeline.data.packing import PackedBatches, to_lists
from pipeline.metrics.ndcg import ranked_ndcg
from pipeline.metrics.ranked import rank_lists
from pipeline.models.scorer import scoring_function
from pipeline.training import checkpoint

log = logging.getLogger(__name__)

MONITOR = "ndcg@10"  # of the validation split, blank queries skipped: picks the epoch whose weights are kept
_CHECKPOINT, _BEST, _HISTORY = "checkpoint.npz", "weights.npz", "history.json"


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


class _Training(keras.Model):
    """The training step; what `keras.Model.fit` repeats."""

    def __init__(self, scorer: keras.Model, loss: ListLoss, list_size: int, *, jit: bool, seed: int) -> None:
        super().__init__()
        self.scorer, self.list_size, self.seed = scorer, list_size, seed
        self.per_list_loss = tf.function(loss, jit_compile=True) if jit else loss
        self.loss_sum = keras.metrics.Sum("loss_sum")
        self.num_lists = keras.metrics.Sum("num_lists")
        self.distribute_reduction_method = "first"  # the metrics are sums over replicas already

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_sum, self.num_lists]  # Keras resets these at each epoch

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        layout = (batch["slot"], batch["sizes"], self.list_size)
        teacher, mask = to_lists(batch["teacher"], *layout)
        labels, _ = to_lists(batch["labels"], *layout)
        # Noise is a function of (run seed, step, list), so it is the same on any number of replicas.
        seed = tf.stack([self.seed, tf.cast(self.optimizer.iterations, tf.int32)])
        with tf.GradientTape() as tape:
            scores, _ = to_lists(self.scorer(batch["features"], training=True), *layout)
            per_list = self.per_list_loss(
                teacher, labels, scores, mask, seed=seed, list_ids=batch["list_ids"]
            )
            # Divided by the lists of the global batch: gradients of replicas are summed, not averaged.
            loss = tf.reduce_sum(per_list) / batch["num_lists"]
        variables = self.scorer.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.loss_sum.update_state(per_list)
        self.num_lists.update_state(tf.cast(batch["sizes"] > 0, tf.float32))
        return {"loss": self.loss_sum.result() / self.num_lists.result()}


class _AfterEpoch(keras.callbacks.Callback):
    """Validation NDCG, best weights, checkpoint, early stopping."""

    def __init__(
        self,
        vali: RankingData,
        folder: Path,
        patience: int,
        docs: int,
        steps: int,
        on_epoch: Callable[[dict], None],
    ) -> None:
        super().__init__()
        self.vali, self.folder, self.patience = vali, folder, patience
        self.docs, self.steps, self.on_epoch = docs, steps, on_epoch
        self.history: list[dict[str, Any]] = []
        self.best = -np.inf
        self.best_epoch = -1

    def resume(self) -> int:
        """Takes up a checkpoint, if there is one; the number of finished epochs."""
        path = self.folder / _CHECKPOINT
        if not path.is_file():
            return 0
        arrays, extra = checkpoint.load_arrays(path)
        checkpoint.assign(self._state(), arrays)
        self.history, self.best, self.best_epoch = extra["history"], extra["best"], extra["best_epoch"]
        log.info("going on after epoch %d of a run that was interrupted", len(self.history))
        for row in self.history:
            self.on_epoch(row)
        return len(self.history)

    def _state(self) -> list[tf.Variable]:
        return [*self.model.scorer.variables, *self.model.optimizer.variables]

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.score = scoring_function(self.model.scorer)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        assert logs is not None
        seconds = time.perf_counter() - self.began
        if not np.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"the loss is {logs['loss']} in epoch {epoch + 1}; mend: a smaller train.learning_rate, or "
                "teacher.scores.cap, if the teacher's scores have a huge range"
            )
        ranked = rank_lists(self.score(self.vali.features), self.vali.labels, self.vali.offsets)
        rate = self.model.optimizer.learning_rate
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": float(logs["loss"]),
            "vali": {f"ndcg@{k}": float(np.nanmean(ranked_ndcg(ranked, cutoff=k))) for k in (1, 5, 10)},
            "learning_rate": float(
                rate.numpy() if hasattr(rate, "numpy") else rate(self.model.optimizer.iterations)
            ),
            "steps_per_second": self.steps / seconds,
            "docs_per_second": self.docs / seconds,
        }
        if row["vali"][MONITOR] > self.best:
            self.best, self.best_epoch = row["vali"][MONITOR], epoch + 1
            checkpoint.save_arrays(self.folder / _BEST, checkpoint.values_of(self.model.scorer.variables), {})
        self.history.append(row)
        extra = {"history": self.history, "best": self.best, "best_epoch": self.best_epoch}
        checkpoint.save_arrays(self.folder / _CHECKPOINT, checkpoint.values_of(self._state()), extra)
        self.on_epoch(row)
        if self.patience and epoch + 1 - self.best_epoch >= self.patience:
            self.model.stop_training = True


def _optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * steps)
    if config.weight_decay:
        return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
    return keras.optimizers.Adam(rate)


def fit(
    build: Callable[[], keras.Model],
    batches: PackedBatches,
    vali: RankingData,
    loss: ListLoss,
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    *,
    seed: int,
    folder: Path,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
) -> None:
    """Trains a scorer; writes the weights of its best epoch and the history into `folder`.

    Args:
      build: makes the scorer, [docs, F] -> [docs].
      batches: training lists with teacher scores.
      vali: transformed; its NDCG@10 picks the epoch.
      loss: over padded lists.
      config: epochs, batch, optimizer.
      strategy: of tf.distribute.
      seed: of the loss's noise.
      folder: where a killed run's checkpoint lies, if there is one.
      on_epoch: called with each row of the history, those of a resumed run included.

    Raises:
      FloatingPointError: the loss is not finite; the checkpoint of the epoch before stays.
    """
    if (folder / _HISTORY).is_file():  # killed between the end of training and the end of the artifact
        for row in load_history(folder)["epochs"]:
            on_epoch(row)
        return
    num_replicas = strategy.num_replicas_in_sync
    batches = dataclasses.replace(batches, num_replicas=num_replicas)
    steps = batches.steps_per_epoch
    with strategy.scope():
        scorer = build()
        model = _Training(scorer, loss, batches.list_size, jit=config.jit != "off", seed=seed)
        optimizer = _optimizer(config, steps)
        model.compile(optimizer=optimizer)
        optimizer.build(scorer.trainable_variables)
        after_epoch = _AfterEpoch(vali, folder, config.patience, batches.data.num_docs, steps, on_epoch)
        after_epoch.set_model(model)
        done = after_epoch.resume()

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        local = num_replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local
        return batches.dataset(done * steps, range(first, first + local))

    model.fit(
        strategy.distribute_datasets_from_function(dataset),
        steps_per_epoch=steps,
        initial_epoch=done,
        epochs=config.epochs,
        verbose=0,
        callbacks=[after_epoch],
    )
    write_json(folder / _HISTORY, {"best_epoch": after_epoch.best_epoch, "epochs": after_epoch.history})
    (folder / _CHECKPOINT).unlink()


def load_history(folder: Path) -> dict[str, Any]:
    """{"best_epoch": int, "epochs": [rows]} of a finished run."""
    history: dict[str, Any] = json.loads((folder / _HISTORY).read_text())
    return history


def load_weights(scorer: keras.Model, folder: Path) -> None:
    """Sets the scorer's variables to those of the best epoch."""
    checkpoint.assign(scorer.variables, checkpoint.load_arrays(folder / _BEST)[0])

"""Keras fit of a scorer on packed batches, under a tf.distribute strategy."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pipeline.config import ConfigError, TrainConfig
from pipeline.data import RankingData
from pipeline.data.packing import PackedBatches
from pipeline.metrics.ndcg import ranked_ndcg
from pipeline.metrics.ranked import rank_lists
from pipeline.models.networks import Scorer
from pipeline.models.scorer import scoring_function
from pipeline.store import write_json
from pipeline.training import checkpoint
from pipeline.training.optimizer import FusedAdam
from pipeline.training.profile import Profile
from pipeline.training.signals import Interrupted, between_steps
from pipeline.training.step import ListLoss, TrainingStep
from pipeline.training.strategy import any_worker, lost_workers_named, sum_over_replicas

log = logging.getLogger(__name__)

MONITOR = "ndcg@10"  # of the validation split, blank queries skipped: picks the epoch whose weights are kept
_STEPS_PER_CALL = 8  # of Python, which takes its time and looks for signals between two of them
_CHUNK_DOCS = 4096  # what is computed of as many fits into a CPU's cache
_CHECKPOINT, _BEST, _HISTORY = "checkpoint.npz", "weights.npz", "history.json"


class _Epochs(keras.callbacks.Callback):
    """Around each epoch: validation NDCG, best weights, checkpoint, early stopping, preemption."""

    def __init__(
        self,
        batches: PackedBatches,
        vali: RankingData,
        config: TrainConfig,
        folder: Path,
        on_epoch: Callable[[dict[str, Any]], None],
        chief: bool,
        signals: list[int],
        strategy: tf.distribute.Strategy,
    ) -> None:
        super().__init__()
        self.strategy = strategy
        self.batches, self.vali, self.patience = batches, vali, config.patience
        self.rate = _learning_rate(config, batches.steps_per_epoch)
        self.folder, self.on_epoch, self.chief, self.signals = folder, on_epoch, chief, signals
        self.history: list[dict[str, Any]] = []
        self.best = -np.inf
        self.best_epoch = 0
        self.step = 0  # within the epoch
        self.saved_metrics: list[np.ndarray] = []
        self._supports_tf_logs = True  # else Keras waits for every step's logs

    def resume(self) -> None:
        """Takes up a checkpoint, if there is one.

        Raises:
          ConfigError: not all workers have the same one.
        """
        arrays = self._load()
        self._check_start()
        if arrays is None:
            return
        checkpoint.assign(self.model.state(), arrays)
        if self.step:
            self.saved_metrics = checkpoint.values_of(self._metric_variables())
        log.info("going on after epoch %d, step %d, of an interrupted run", len(self.history), self.step)
        for row in self.history:
            self.on_epoch(row)

    def _load(self) -> list[np.ndarray] | None:
        path = self.folder / _CHECKPOINT
        if not path.is_file():
            return None
        try:
            arrays, extra = checkpoint.load_arrays(path)
            if extra["best_epoch"]:
                checkpoint.load_arrays(self.folder / _BEST)
        except (checkpoint.DamagedError, FileNotFoundError) as error:
            log.warning("%s; removed, training begins anew", error)
            if self.chief:
                path.unlink()
            return None
        self.history, self.best_epoch, self.step = extra["history"], extra["best_epoch"], extra["step"]
        self.best = self.history[self.best_epoch - 1]["vali"][MONITOR] if self.best_epoch else -np.inf
        return arrays

    def save(self) -> None:
        state = checkpoint.values_of(self.model.state())  # by all workers: it sums metrics over them
        if self.chief:
            extra = {"history": self.history, "best_epoch": self.best_epoch, "step": self.step}
            checkpoint.save_arrays(self.folder / _CHECKPOINT, state, extra)

    @property
    def done(self) -> int:
        """Steps."""
        return len(self.history) * self.batches.steps_per_epoch + self.step

    def _check_start(self) -> None:
        """All workers raise ConfigError unless all start from the same step."""
        chiefs = sum_over_replicas(self.strategy, int(self.chief))
        if not chiefs:  # this process alone, told to write nothing
            return
        of_chief = sum_over_replicas(self.strategy, self.done if self.chief else 0) // chiefs
        if any_worker(self.strategy, self.done != of_chief):
            raise ConfigError(
                f"the workers do not go on from one checkpoint (here step {self.done}, the chief's {of_chief}); "
                "mend: give all the same cache_dir"
            )

    def is_told(self) -> bool:
        """Whether this worker, or another one, had a signal: all stop at the same step. All ask at the same steps."""
        return any_worker(self.strategy, bool(self.signals))

    @property
    def exhausted(self) -> bool:
        """No better epoch for `patience` epochs."""
        return 0 < self.patience <= len(self.history) - self.best_epoch

    def _metric_variables(self) -> list[tf.Variable]:
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.score = scoring_function(self.model.scorer)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.saved_metrics:  # Keras has just reset them, but this epoch was begun before the interruption
            checkpoint.assign(self._metric_variables(), self.saved_metrics)
            self.saved_metrics = []
        self.began, self.first_step = time.perf_counter(), self.step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.step = self.first_step + batch + 1
        if self.step < self.batches.steps_per_epoch and self.is_told():
            self._check_finite()  # else the checkpoint before would be lost
            self.save()
            raise Interrupted(
                f"stopped after epoch {len(self.history)}, step {self.step}; run again to go on"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        seconds = time.perf_counter() - self.began
        self._check_finite()
        ranked = rank_lists(
            self.score(self.vali.features, self.vali.offsets), self.vali.labels, self.vali.offsets
        )
        # Not the optimizer's own, which stands still while float16 leaves steps out.
        last_step = int(self.model.optimizer.iterations.numpy()) - 1
        steps_per_second = (self.step - self.first_step) / seconds
        docs_per_step = self.batches.data.num_docs / self.batches.steps_per_epoch
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": float(logs["loss"]),
            "vali": {f"ndcg@{k}": float(np.nanmean(ranked_ndcg(ranked, cutoff=k))) for k in (1, 5, 10)},
            "learning_rate": float(self.rate(last_step) if callable(self.rate) else self.rate),
            "steps_per_second": steps_per_second,
            "docs_per_second": docs_per_step * steps_per_second,
            "seconds": seconds,  # without the validation
        }
        self.history.append(row)
        self.step = 0
        # The chief's validation counts: that of a worker on another CPU may differ.
        if any_worker(self.strategy, self.chief and row["vali"][MONITOR] > self.best):
            self.best, self.best_epoch = row["vali"][MONITOR], epoch + 1
            weights = checkpoint.values_of(self.model.scorer.variables)  # by all: means those of batch norm
            if self.chief:
                checkpoint.save_arrays(self.folder / _BEST, weights, {})
        self.save()
        self.on_epoch(row)
        if self.is_told():
            raise Interrupted(f"stopped after epoch {epoch + 1}; run again to go on")
        if self.exhausted:
            self.model.stop_training = True

    def _check_finite(self) -> None:
        step = int(self.model.bad_step.numpy())
        if step < 0:
            if not all(np.isfinite(variable.numpy()).all() for variable in self.model.scorer.variables):
                raise FloatingPointError(
                    f"the weights are not finite after step {self.step} of epoch {len(self.history) + 1}, the loss is; "
                    "likely cause: train.learning_rate is too large; the checkpoint before stays"
                )
            return
        epoch, position = divmod(step, self.batches.steps_per_epoch)
        batch = dataclasses.replace(self.batches, num_replicas=1).batch(step)
        lists = batch["list_ids"][batch["sizes"] > 0]
        queries = self.batches.data.query_ids[lists].tolist()
        raise FloatingPointError(
            f"the loss is not finite in epoch {epoch + 1}, step {position + 1}, on queries {', '.join(queries[:8])}"
            f"{', ...' if len(queries) > 8 else ''}; likely causes: train.learning_rate is too large, the "
            "teacher's scores of these queries have a huge range (mend: teacher.scores.cap), "
            "loss.label_loss=tfr_list_mle with scores 60 apart (mend: list_mle), or train.precision=float16 with more "
            "than 65504 (mend: bfloat16); the checkpoint before stays"
        )


def _learning_rate(config: TrainConfig, steps: int) -> Any:
    """A number, or a function of the step."""
    if config.schedule == "constant":
        return config.learning_rate
    return keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * steps)


def _optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    optimizer = FusedAdam(_learning_rate(config, steps), weight_decay=config.weight_decay or None)
    # Small gradients are 0 in float16.
    return keras.mixed_precision.LossScaleOptimizer(optimizer) if config.precision == "float16" else optimizer


def choose_jit(jit: str, strategy: tf.distribute.Strategy) -> str:
    """What XLA compiles: `off`, `loss` or `step`; `auto` is what is fastest on the device.

    On a CPU that is the loss: XLA's matrix product is slower than oneDNN's. A TPU compiles the step whatever this says.

    Raises:
      ConfigError: the step over several replicas, whose collectives XLA does not have.
    """
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "step"
    if jit == "step" and strategy.num_replicas_in_sync > 1:
        raise ConfigError(
            f"train.jit=step needs one replica, here are {strategy.num_replicas_in_sync}; mend: train.jit=loss"
        )
    return "loss" if jit == "auto" else jit


def _num_chunks(scorer: Scorer, batches: PackedBatches) -> int:
    """Into how many chunks a replica's batch falls; an even number, for an even number of threads.

    One on an accelerator, for a small batch, and where a step changes more than the optimizer does: batch norm's
    statistics are those of the whole batch, noise counts its calls.
    """
    if batches.is_static or scorer.non_trainable_variables or tf.config.list_logical_devices("GPU"):
        return 1
    docs = batches.slots * batches.data.num_docs / batches.data.num_queries
    wanted = 1 if docs < _CHUNK_DOCS else 2 * round(max(1, docs / (2 * _CHUNK_DOCS)))
    return min(wanted, batches.slots)


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    """While the block runs, layers that are built compute in this type; their variables are float32."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32" if name == "float32" else f"mixed_{name}")
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def fit(
    build: Callable[[], Scorer],
    batches: PackedBatches,
    vali: RankingData,
    loss: ListLoss,
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    *,
    seed: int,
    folder: Path,
    chief: bool = True,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    profile_to: Path | None = None,
) -> None:
    """Trains a scorer; writes the weights of its best epoch and the history into `folder`.

    Args:
      build: makes the scorer.
      batches: training lists with teacher scores.
      vali: transformed; its NDCG@10 picks the epoch.
      loss: over padded lists.
      config: epochs, batch, optimizer.
      strategy: of tf.distribute.
      seed: of the loss's noise.
      folder: where an interrupted run's checkpoint lies, if there is one.
      chief: whether this process writes; of several workers exactly one does.
      on_epoch: called with each row of the history, those of a resumed run included.
      profile_to: where the profile of `config.profile` goes.

    Raises:
      ConfigError: train.jit or train.profile does not fit this training.
      FloatingPointError: the loss is not finite; names step and queries. The checkpoint of the epoch before stays.
      Interrupted: SIGTERM came, to this or another worker (the checkpoint is of the step at which all stopped), or
        another worker is gone (it is of the last epoch).
      KeyboardInterrupt: Ctrl-C, likewise.
    """
    # Killed between the end of training and the end of the artifact? The chief says so.
    if any_worker(strategy, chief and _is_finished(folder)):
        for row in load_history(folder)["epochs"] if chief else ():
            on_epoch(row)
        return
    num_replicas = strategy.num_replicas_in_sync
    jit = choose_jit(config.jit, strategy)
    batches = dataclasses.replace(
        batches,
        num_replicas=num_replicas,
        epochs=config.epochs,
        is_static=jit == "step",
        threads=None if config.deterministic else 2,
    )
    steps = batches.steps_per_epoch
    signals: list[int] = []
    with lost_workers_named(strategy), between_steps(signals, strategy), strategy.scope():
        with _precision(config.precision):
            scorer = build()
            batches = dataclasses.replace(batches, num_chunks=_num_chunks(scorer, batches))
            model = TrainingStep(scorer, loss, batches, seed=seed, compile_loss=jit == "loss")
        on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)  # which compiles it all by itself
        model.compile(
            optimizer=_optimizer(config, steps),
            jit_compile=jit == "step" and not on_tpu,
            steps_per_execution=1 if config.profile else min(_STEPS_PER_CALL, steps),
        )
        model.optimizer.build(model.scorer.trainable_variables)
        epochs = _Epochs(batches, vali, config, folder, on_epoch, chief, signals, strategy)
        epochs.set_model(model)
        epochs.resume()
        if epochs.is_told():
            raise Interrupted("stopped before a step; run again to go on")

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        local = num_replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local
        return batches.dataset(epochs.done, range(first, first + local))

    profiled = Profile(config.profile, profile_to, num_steps=config.epochs * steps, done=epochs.done)
    with lost_workers_named(strategy), between_steps(signals, strategy), profiled:
        while len(epochs.history) < config.epochs and not epochs.exhausted:
            # An interrupted epoch is finished by a call of its own: steps_per_epoch holds for all of a call.
            rest = config.epochs if epochs.step == 0 else len(epochs.history) + 1
            model.fit(
                strategy.distribute_datasets_from_function(dataset),
                steps_per_epoch=steps - epochs.step,
                initial_epoch=len(epochs.history),
                epochs=rest,
                verbose=0,
                callbacks=[profiled, epochs],  # epochs may end training with an error
            )
    if chief:
        write_json(folder / _HISTORY, {"best_epoch": epochs.best_epoch, "epochs": epochs.history})
        (folder / _CHECKPOINT).unlink(missing_ok=True)


def _is_finished(folder: Path) -> bool:
    """Whether training ended here; a checkpoint beside the history can be checked, so it is gone on from."""
    if (folder / _CHECKPOINT).is_file() or not (folder / _HISTORY).is_file():
        return False
    try:
        load_history(folder)
        checkpoint.load_arrays(folder / _BEST)
    except (ValueError, FileNotFoundError) as error:
        log.warning("%s: %s; training begins anew", folder, error)
        return False
    return True


def load_history(folder: Path) -> dict[str, Any]:
    """{"best_epoch": int, "epochs": [rows]} of a finished run."""
    history: dict[str, Any] = json.loads((folder / _HISTORY).read_text())
    return history


def load_weights(scorer: keras.Model, folder: Path) -> None:
    """Sets the scorer's variables to those of the best epoch."""
    checkpoint.assign(scorer.variables, checkpoint.load_arrays(folder / _BEST)[0])

"""The training loop: epochs of steps, validation, checkpoints, early stopping, interruptions."""

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
from pipeline.data.packing import PackedBatches, find_documents, list_index
from pipeline.errors import UserError
from pipeline.metrics.ndcg import ranked_ndcg
from pipeline.metrics.ranked import rank_lists
from pipeline.models.networks import Scorer
from pipeline.models.scorer import Score, scoring_function
from pipeline.store import write_json
from pipeline.training import checkpoint
from pipeline.training.distribute import any_worker, lost_workers_named, sum_over_replicas
from pipeline.training.feed import are_resident, on_each_device, streamed
from pipeline.training.optimizer import learning_rate
from pipeline.training.profile import Profile
from pipeline.training.signals import Interrupted, between_steps
from pipeline.training.step import ListLoss, TrainingStep

log = logging.getLogger(__name__)

MONITOR = "ndcg@10"  # of the validation split, blank queries skipped: picks the epoch whose weights are kept
_STEPS_BETWEEN_QUESTIONS = 8  # after so many steps several workers ask each other whether one had a signal
_CHECKPOINT, _BEST, _HISTORY = "checkpoint.npz", "weights.npz", "history.json"


class NotFiniteError(UserError, FloatingPointError):
    """The loss or a weight is infinite or NaN."""


@dataclasses.dataclass
class _Progress:
    """How far training is. `history` has a row for each finished epoch."""

    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0  # from 1; 0 before the first epoch ends
    step: int = 0  # finished steps of the current epoch
    loss_sum: float = 0.0  # of these steps, over all lists

    @property
    def best(self) -> float:
        return float(self.history[self.best_epoch - 1]["vali"][MONITOR]) if self.best_epoch else -np.inf

    def is_over(self, config: TrainConfig) -> bool:
        """Whether all epochs are done, or `patience` epochs have passed without a better one."""
        num_epochs = len(self.history)
        return num_epochs >= config.epochs or 0 < config.patience <= num_epochs - self.best_epoch


def choose_jit(jit: str, strategy: tf.distribute.Strategy) -> str:
    """What XLA compiles: `off`, `loss` or `step`. `auto` is the loss: on a CPU, XLA's matrix product is slower than
    oneDNN's. On a TPU the step is always compiled.

    Raises:
      ConfigError: `step` with several replicas, because XLA has no collectives here.
    """
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "step"
    if jit == "step" and strategy.num_replicas_in_sync > 1:
        raise ConfigError(
            f"needs one replica, but there are {strategy.num_replicas_in_sync}",
            where="train.jit=step",
            fix="train.jit=loss",
        )
    return "loss" if jit == "auto" else jit


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    """Layers that are built in this block compute in this type; their variables are float32."""
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
    option: str = "train",
) -> None:
    """Trains a scorer and writes the weights of its best epoch and the history into `folder`.

    Args:
      build: makes the scorer.
      batches: training lists with teacher scores.
      vali: transformed; its NDCG@10 picks the epoch.
      loss: over padded lists.
      config: epochs, batch size, optimizer.
      strategy: of tf.distribute.
      seed: of the loss's noise.
      folder: holds the checkpoint of an interrupted run, if there is one.
      chief: whether this process writes; exactly one of several workers does.
      on_epoch: receives each row of the history, also those of the run that is resumed.
      profile_to: where the profile of `config.profile` goes.
      option: where the learning rate of this model is set, for messages: `train` or `teacher`.

    Raises:
      ConfigError: train.jit or train.profile does not fit this training.
      NotFiniteError: names step, queries and cause. The last checkpoint stays.
      Interrupted: SIGTERM came, to this worker or another one, and the checkpoint is of the step at which all stopped;
        or another worker is gone, and the checkpoint is of the last epoch.
      KeyboardInterrupt: Ctrl-C, likewise.
    """
    # If the process was killed after training ended but before the artifact was complete, only the history is replayed.
    if any_worker(strategy, chief and _is_finished(folder)):
        for row in load_history(folder)["epochs"] if chief else ():
            on_epoch(row)
        return
    batches = dataclasses.replace(batches, num_replicas=strategy.num_replicas_in_sync, epochs=config.epochs)
    steps_per_epoch, num_steps = batches.steps_per_epoch, config.epochs * batches.steps_per_epoch
    jit, stay = choose_jit(config.jit, strategy), are_resident(batches, strategy)
    signals: list[int] = []
    with (
        Profile(config.profile, profile_to, num_steps=num_steps) as profile,
        lost_workers_named(strategy),
        between_steps(signals, strategy),
    ):
        with strategy.scope(), _precision(config.precision):
            scorer = build()
            train = TrainingStep(
                scorer, loss, batches, config, strategy, seed=seed, jit=jit, features_stay=stay
            )
        score = scoring_function(scorer)
        progress = _resume(folder, train.variables, chief)
        _check_same_start(progress, steps_per_epoch, chief, strategy)
        for row in progress.history:
            on_epoch(row)
        if any_worker(strategy, bool(signals)):
            raise Interrupted("stopped before a step; run again to go on")
        first = len(progress.history) * steps_per_epoch + progress.step
        feed = _feed(batches, strategy, range(first, num_steps), stay)
        documents = on_each_device(strategy, batches.teacher, batches.data.labels, batches.data.offsets)
        while not progress.is_over(config):
            epoch, first_step, began = len(progress.history), progress.step, time.perf_counter()
            losses: list[tf.Tensor] = []
            for step in range(epoch * steps_per_epoch + first_step, (epoch + 1) * steps_per_epoch):
                lists, features = next(feed)
                rate = learning_rate(config, step, num_steps)
                profile.before(step)
                losses.append(train(lists, features, documents, step=step, learning_rate=rate))
                profile.after(step)
                progress.step += 1
                if progress.step < steps_per_epoch and _has_signal(signals, progress.step, strategy):
                    break
            for loss_of_step in losses:
                progress.loss_sum += float(loss_of_step)
            seconds = time.perf_counter() - began
            if not np.isfinite(progress.loss_sum):
                bad = int(np.flatnonzero(~np.isfinite(losses))[0])
                raise _not_finite(step + 1 - len(losses) + bad, batches, loss, config, seed, option)
            if not all(np.isfinite(variable.numpy()).all() for variable in scorer.variables):
                raise NotFiniteError(
                    "a weight is not finite, but the loss is; the last checkpoint stays",
                    where=f"step {progress.step} of epoch {epoch + 1}",
                    fix=f"a smaller {option}.learning_rate",
                )
            if progress.step < steps_per_epoch:
                _save(folder, train.variables, progress, chief)
                raise Interrupted(f"stopped after epoch {epoch}, step {progress.step}; run again to go on")
            steps_per_second = (steps_per_epoch - first_step) / seconds
            row = {
                "epoch": epoch + 1,
                "loss": progress.loss_sum / batches.data.num_queries,
                "vali": _validate(score, vali),
                "learning_rate": rate,
                "steps_per_second": steps_per_second,
                "docs_per_second": steps_per_second * batches.data.num_docs / steps_per_epoch,
                "seconds": seconds,  # without the validation
            }
            # The chief decides for all workers: validation on another kind of CPU may differ.
            is_best = any_worker(strategy, chief and row["vali"][MONITOR] > progress.best)
            progress.history.append(row)
            progress.step, progress.loss_sum = 0, 0.0
            if is_best:
                progress.best_epoch = epoch + 1
                _save_arrays(folder / _BEST, scorer.variables, {}, chief)
            _save(folder, train.variables, progress, chief)
            on_epoch(row)
            if any_worker(strategy, bool(signals)):
                raise Interrupted(f"stopped after epoch {epoch + 1}; run again to go on")
    if chief:
        write_json(folder / _HISTORY, {"best_epoch": progress.best_epoch, "epochs": progress.history})
        (folder / _CHECKPOINT).unlink(missing_ok=True)


def _feed(
    batches: PackedBatches, strategy: tf.distribute.Strategy, steps: range, stay: bool
) -> Iterator[tuple[np.ndarray, Any]]:
    """For each step the lists of the batch, and the features as the step wants them."""
    if not stay:
        return streamed(batches, strategy, steps)
    (features,) = on_each_device(strategy, batches.data.features)
    return ((batches.lists(step), features) for step in steps)


def _has_signal(signals: list[int], step: int, strategy: tf.distribute.Strategy) -> bool:
    """Whether this worker or another one had a signal. All workers ask at the same steps, and stop at the same one."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return step % _STEPS_BETWEEN_QUESTIONS == 0 and any_worker(strategy, bool(signals))
    return bool(signals)


def _validate(score: Score, vali: RankingData) -> dict[str, float]:
    ranked = rank_lists(score(vali.features, vali.offsets), vali.labels, vali.offsets)
    return {f"ndcg@{k}": float(np.nanmean(ranked_ndcg(ranked, cutoff=k))) for k in (1, 5, 10)}


def _not_finite(
    step: int, batches: PackedBatches, loss: ListLoss, config: TrainConfig, seed: int, option: str
) -> NotFiniteError:
    """The error for a loss that is infinite or NaN at this step. Its cause is in the data if equal scores have such a
    loss, too."""
    data, lists = batches.data, batches.lists(step)
    lists = lists[lists >= 0]
    epoch, position = divmod(step, batches.steps_per_epoch)
    where = f"epoch {epoch + 1}, step {position + 1}"
    found = find_documents(tf.constant(lists), tf.constant(data.offsets), batches.list_size)
    mask = list_index(found.sizes, batches.list_size)[1].numpy()
    teacher, labels = np.zeros((2, *mask.shape), np.float32)
    rows = found.rows.numpy()[: mask.sum()]
    teacher[mask], labels[mask] = batches.teacher[rows], data.labels[rows]
    seeds = tf.constant([seed, step])
    per_list = loss(
        *map(tf.constant, (teacher, labels, np.zeros_like(labels), mask)),
        seed=seeds,
        list_ids=tf.constant(lists),
    )
    bad = np.flatnonzero(~np.isfinite(per_list))
    what = "the loss is not finite; the last checkpoint stays"
    if len(bad):
        first = bad[0]
        of_list = [
            f"{x[first][mask[first]].min():g} to {x[first][mask[first]].max():g}" for x in (labels, teacher)
        ]
        return NotFiniteError(
            f"{what}. So it is for equal scores: labels {of_list[0]}, teacher scores {of_list[1]}",
            where=f"{where}, query {data.query_ids[lists[first]]}",
            fix="smaller labels, or limit the teacher's scores with teacher.scores.cap",
        )
    queries = data.query_ids[lists].tolist()
    where += f", queries {', '.join(queries[:8])}" + ", ..." * (len(queries) > 8)
    if config.precision == "float16":
        return NotFiniteError(f"{what}. float16 ends at 65504", where=where, fix="train.precision=bfloat16")
    return NotFiniteError(
        f"{what}. The scores have become too large",
        where=where,
        fix=f"a smaller {option}.learning_rate, or the loss list_mle in place of tfr_list_mle",
    )


# ------------------------------------------------------------------------------------------------ files


def _save_arrays(path: Path, variables: list[tf.Variable], extra: dict[str, Any], chief: bool) -> None:
    """All workers call this: reading a variable may need the others."""
    values = checkpoint.values_of(variables)
    if chief:
        checkpoint.save_arrays(path, values, extra)


def _save(folder: Path, variables: list[tf.Variable], progress: _Progress, chief: bool) -> None:
    _save_arrays(folder / _CHECKPOINT, variables, dataclasses.asdict(progress), chief)


def _resume(folder: Path, variables: list[tf.Variable], chief: bool) -> _Progress:
    """Sets the variables to those of the checkpoint, if there is one."""
    path = folder / _CHECKPOINT
    if not path.is_file():
        return _Progress()
    try:
        arrays, extra = checkpoint.load_arrays(path)
        if extra["best_epoch"]:
            checkpoint.load_arrays(folder / _BEST)
    except (checkpoint.DamagedError, FileNotFoundError) as error:
        log.warning("%s; removed it, training starts from the beginning", error)
        if chief:
            path.unlink()
        return _Progress()
    checkpoint.assign(variables, arrays)
    progress = _Progress(**extra)
    log.info("going on after epoch %d, step %d, of an interrupted run", len(progress.history), progress.step)
    return progress


def _check_same_start(
    progress: _Progress, steps_per_epoch: int, chief: bool, strategy: tf.distribute.Strategy
) -> None:
    """All workers raise ConfigError unless all start from the same step."""
    chiefs = sum_over_replicas(strategy, int(chief))
    if not chiefs:  # one process that must not write
        return
    done = len(progress.history) * steps_per_epoch + progress.step
    of_chief = sum_over_replicas(strategy, done if chief else 0) // chiefs
    if any_worker(strategy, done != of_chief):
        raise ConfigError(
            f"the workers do not go on from one checkpoint: step {done} here, step {of_chief} in the chief",
            fix="give all workers the same cache_dir",
        )


def _is_finished(folder: Path) -> bool:
    """Whether training ended here. Beside a checkpoint it did not: the loop goes on from that."""
    if (folder / _CHECKPOINT).is_file() or not (folder / _HISTORY).is_file():
        return False
    try:
        load_history(folder)
        checkpoint.load_arrays(folder / _BEST)
    except (ValueError, FileNotFoundError) as error:
        log.warning("%s: %s; training starts from the beginning", folder, error)
        return False
    return True


def load_history(folder: Path) -> dict[str, Any]:
    """{"best_epoch": int, "epochs": [rows]} of a finished training."""
    history: dict[str, Any] = json.loads((folder / _HISTORY).read_text())
    return history


def load_weights(scorer: keras.Model, folder: Path) -> None:
    """Sets the scorer's variables to those of the best epoch."""
    checkpoint.assign(scorer.variables, checkpoint.load_arrays(folder / _BEST)[0])

"""The student and the baseline: their losses, their artifacts, their training.

Artifact: `student`, the weights of the best epoch and the history of one of the two models.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.config import Config, ConfigError, LossConfig, nearest
from pipeline.context import Context
from pipeline.data import RankingData
from pipeline.data.packing import PackedBatches
from pipeline.data.stage import DataArtifacts
from pipeline.errors import UserError
from pipeline.losses.registry import DISTILLATION, make_loss
from pipeline.models.networks import Scorer
from pipeline.models.scorer import build_scorer
from pipeline.provenance import code_digest, versions
from pipeline.store import Artifact
from pipeline.tracking import events_folder, track_epoch
from pipeline.training.distribute import make_together
from pipeline.training.loop import fit, load_history, load_weights
from pipeline.training.step import ListLoss, label_loss

STUDENT, BASELINE = "student", "baseline"

# Options of train.* that do not change what is trained.
_NOT_OF_TRAINING = ("baseline", "strategy", "tpu", "worker_timeout_s")


def label_weight(config: LossConfig, step: tf.Tensor, num_steps: int) -> tf.Tensor:
    """Weight of the label loss at a step [] (0 to num_steps - 1, then constant): scalar float32.

        w = a + (b - a) p,   p = t (linear) or (1 - cos(pi t)) / 2 (cosine),   t = step / (num_steps - 1)

    with a = label_weight at the first step and b = label_weight_end at the last.
    """
    if config.label_schedule == "constant":
        return tf.constant(config.label_weight, tf.float32)
    assert config.label_weight_end is not None
    progress = tf.minimum(tf.cast(step, tf.float32) / max(num_steps - 1, 1), 1.0)
    if config.label_schedule == "cosine":
        progress = (1.0 - tf.cos(math.pi * progress)) / 2.0
    return config.label_weight + (config.label_weight_end - config.label_weight) * progress


def distillation_loss(config: LossConfig, *, num_steps: int = 1) -> ListLoss:
    """(1 - w) * distillation loss on the teacher's scores + w * label loss, a value a list.

    A list whose first label is negative has no labels: there w is 0.

    Args:
      config: which losses; w and its schedule.
      num_steps: of the whole training, for the schedule.

    Raises:
      ValueError: an unknown loss (ConfigError), or an option that it does not have.
    """
    if config.name not in DISTILLATION:
        raise ConfigError(f"loss.name={config.name} is unknown: {nearest(config.name, DISTILLATION)}")
    try:
        distil = functools.partial(make_loss(config.name, **config.options), reduce=None)
    except UserError as error:  # names the argument
        raise ConfigError(
            error.what, where=f"loss.{error.where}" if error.where else f"loss={config.name}", fix=error.fix
        ) from None
    label = label_loss(config.label_loss, option="loss.label_loss")
    largest = max(config.label_weight, config.label_weight_end or 0.0)

    def loss(
        teacher: tf.Tensor,
        labels: tf.Tensor,
        student: tf.Tensor,
        mask: tf.Tensor,
        *,
        seed: tf.Tensor,
        list_ids: tf.Tensor,
    ) -> tf.Tensor:
        distilled = distil(teacher, student, mask, seed=seed, list_ids=list_ids)
        if largest == 0:
            return distilled
        weight = tf.cast(label_weight(config, seed[1], num_steps), student.dtype)  # seed: of the run, step
        weights = tf.where(labels[:, 0] >= 0, weight, 0.0)
        # Where it counts nothing its scores are 0: 0 times what is not finite would not be 0.
        student = tf.where(weights[:, tf.newaxis] > 0, student, 0.0)
        learned = label(teacher, tf.maximum(labels, 0.0), student, mask, seed=seed, list_ids=list_ids)
        return (1 - weights) * distilled + weights * learned

    return loss


def loss_of(config: LossConfig, model: str, num_steps: int = 1) -> ListLoss:
    """What `model` learns from: the student from the teacher (and labels), the baseline from labels only."""
    if model == STUDENT:
        return distillation_loss(config, num_steps=num_steps)
    return label_loss(config.label_loss, option="loss.label_loss")


def model_artifact(
    config: Config, model: str, data: DataArtifacts, scores: Artifact, lists: Artifact | None, ctx: Context
) -> Artifact:
    """The artifact of `student` or `baseline`.

    Args:
      config: of the run.
      model: which of the two.
      data: what both are trained on.
      scores: of the teacher.
      lists: what the student is trained on in place of the training split.
      ctx: of the run.
    """
    train = {k: v for k, v in dataclasses.asdict(config.train).items() if k not in _NOT_OF_TRAINING}
    key: dict[str, Any] = {
        "model": model,
        "features": data.features.name,
        "student": dataclasses.asdict(config.student),
        "train": train,
        "seed": config.seed,
        "device": ctx.device_key,
        "code": code_digest("training.loop", "student", "training_set"),
        **versions("tensorflow", "tf-keras", "numpy"),
    }
    if model == STUDENT:
        key["scores"] = scores.name
        key["lists"] = None if lists is None else lists.name
        key["transform_scores"] = dataclasses.asdict(config.teacher.scores)
        key["loss"] = config.plain()["loss"]
    else:  # whatever the student's loss: a sweep over it trains the baseline once
        key["loss"] = {"label_loss": config.loss.label_loss}
    return ctx.store.artifact("student", key, model)


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """Weights and history of a trained scorer on transformed features."""

    config: Config
    num_features: int
    artifact: Artifact

    def history(self) -> dict[str, Any]:
        """{"best_epoch": int, "epochs": [rows]}."""
        return load_history(self.artifact.path)

    def load(self) -> Scorer:
        """The scorer of the best epoch."""
        scorer = build_scorer(self.config.student, self.num_features, seed=self.config.seed)
        load_weights(scorer, self.artifact.path)
        return scorer


def train_model(
    config: Config,
    artifact: Artifact,
    vali: RankingData,
    training_set: Callable[[], tuple[RankingData, np.ndarray]],
    ctx: Context,
) -> TrainedModel:
    """Trains the student or the baseline, or takes it from the store. Several workers call this at the same time.

    Args:
      config: of the run.
      artifact: of the model.
      vali: transformed; its NDCG@10 picks the epoch.
      training_set: returns the transformed lists and the teacher's logits [docs]; called where there is work to do.
      ctx: its trackers receive the training curves, also those of a model that was trained before.

    Raises:
      Whatever `fit` raises.
    """
    model, tracked = artifact.label, False

    def make(folder: Path) -> None:
        nonlocal tracked
        tracked = True
        lists, logits = training_set()
        batches = PackedBatches(lists, logits, config.train.lists_per_batch, config.seed)

        def on_epoch(row: dict[str, Any]) -> None:
            track_epoch(ctx.trackers, model, row)
            ctx.progress.epoch(model, row, config.train.epochs)

        fit(
            functools.partial(build_scorer, config.student, lists.num_features, seed=config.seed),
            batches,
            vali,
            loss_of(config.loss, model, config.train.epochs * batches.steps_per_epoch),
            config.train,
            ctx.strategy,
            seed=config.seed,
            folder=folder,
            chief=ctx.chief,
            on_epoch=on_epoch,
            profile_to=events_folder(config.run_dir) / model if ctx.chief else None,
        )

    make_together(ctx.strategy, artifact, make)
    trained = TrainedModel(config, vali.num_features, artifact)
    if ctx.chief and not tracked:
        for row in trained.history()["epochs"]:
            track_epoch(ctx.trackers, model, row)
    return trained

"""What a student learns: the mixed loss, and the joined lists with cached teacher scores."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.config import ConfigError, LossConfig, nearest
from pipeline.data import RankingData
from pipeline.data.transform import Transform
from pipeline.data.writer import create_npy
from pipeline.losses.registry import DISTILLATION, make_loss
from pipeline.training.step import ListLoss, label_loss

_ROWS = 1 << 15  # documents at a time


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
    distil = functools.partial(make_loss(config.name, **config.options), reduce=None)
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


def join_lists(parts: Sequence[tuple[RankingData, np.ndarray]], transform: Transform, folder: Path) -> None:
    """Writes the lists of all parts, one after another, with transformed features, in bounded memory.

    Args:
      parts: raw lists and their raw teacher scores [docs].
      transform: fitted on the training split.
      folder: exists; `RankingData.load` maps it, and `teacher.npy` holds the scores, float64.
    """
    num_docs = sum(lists.num_docs for lists, _ in parts)
    with create_npy(folder / "features.npy", (num_docs, transform.num_features)) as file:
        for lists, _ in parts:
            for start in range(0, lists.num_docs, _ROWS):
                transform(lists.features[start : start + _ROWS]).tofile(file)
    sizes = np.concatenate([lists.list_sizes for lists, _ in parts])
    for name, array in (
        ("labels", np.concatenate([lists.labels for lists, _ in parts])),
        ("offsets", np.concatenate([[0], np.cumsum(sizes)])),
        ("query_ids", np.concatenate([lists.query_ids for lists, _ in parts])),
        ("teacher", np.concatenate([scores for _, scores in parts]).astype(np.float64)),
    ):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)

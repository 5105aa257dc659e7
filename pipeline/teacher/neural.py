"""Networks as teachers: trained on labels by the code that trains students."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.config import AttentionTeacher, MLPTeacher, TrainConfig
from pipeline.data import RankingData
from pipeline.data.packing import PackedBatches
from pipeline.data.transform import Transform
from pipeline.models.layout import Layout
from pipeline.models.networks import Scorer
from pipeline.models.scorer import build_scorer, num_parameters, scoring_function
from pipeline.training.loop import fit, load_weights
from pipeline.training.step import label_loss

NeuralTeacherConfig = MLPTeacher | AttentionTeacher


def train_config(config: NeuralTeacherConfig, train: TrainConfig) -> TrainConfig:
    """The run's options of training with the teacher's own in their place."""
    own = ("epochs", "lists_per_batch", "learning_rate", "schedule", "weight_decay", "patience")
    return dataclasses.replace(train, **{key: getattr(config, key) for key in own}, profile=None)


def fit_network(
    config: NeuralTeacherConfig,
    train: RankingData,
    vali: RankingData,
    options: TrainConfig,
    strategy: tf.distribute.Strategy,
    folder: Path,
    *,
    chief: bool,
    on_epoch: Callable[[dict[str, Any]], None],
) -> None:
    """Trains the network on transformed lists; see `fit`, also for what it raises."""
    fit(
        lambda: build_scorer(config, train.num_features, seed=config.seed),
        PackedBatches(train, np.zeros(train.num_docs, np.float32), config.lists_per_batch, config.seed),
        vali,
        label_loss(config.label_loss, option="teacher.label_loss"),
        train_config(config, options),
        strategy,
        seed=config.seed,
        folder=folder,
        chief=chief,
        on_epoch=on_epoch,
        option="teacher",
    )


class NeuralTeacher:
    """A trained network on raw features.

    Args:
      config: of the network.
      folder: what `fit_network` wrote.
      transform: that the network was trained behind.
    """

    def __init__(self, config: NeuralTeacherConfig, folder: Path, transform: Transform) -> None:
        scorer = build_scorer(config, len(transform.mean), seed=config.seed)
        load_weights(scorer, folder)
        self.num_parameters: int | None = num_parameters(scorer)
        self._score = scoring_function(_OnRawFeatures(transform, scorer))

    def __call__(self, features: np.ndarray, offsets: np.ndarray | None = None, /) -> np.ndarray:
        """Raw features float32 [docs, F] -> float32 [docs]."""
        return self._score(features, offsets)


class _OnRawFeatures:
    """Transform and scorer, called as a scorer."""

    def __init__(self, transform: Transform, scorer: Scorer) -> None:
        self.transform, self.scorer = transform, scorer
        self.num_features, self.listwise = transform.num_features, scorer.listwise

    def __call__(self, features: tf.Tensor, layout: Layout | None, training: bool) -> tf.Tensor:
        return self.scorer(self.transform.in_graph(features), layout, training=training)

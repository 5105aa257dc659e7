"""Students on raw features: the transform is inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.data.transform import Transform
from pipeline.export.fold import fold_standardisation
from pipeline.models.layout import Layout
from pipeline.models.networks import Scorer
from pipeline.models.scorer import scoring_function


class RawScorer:
    """Transform and scorer in one, called as a `Scorer` is, with the signatures of the SavedModel.

    `rank`: features float32 [docs, F] -> scores float32 [docs]. For a listwise scorer they are all the documents of one
      list; a pointwise one takes any documents.
    `rank_lists`: features float32 [lists, list_size, F], mask bool [lists, list_size] -> scores
      [lists, list_size]; what the mask leaves out is not looked at and gets -inf, so that it sorts last.

    Args:
      transform: of raw features.
      scorer: on transformed features.
      fold: whether the standardisation goes into the first layer, where that can be.
    """

    def __init__(self, transform: Transform, scorer: Scorer, *, fold: bool = True) -> None:
        self.transform, self.scorer = transform, scorer
        self.num_features, self.listwise = transform.num_features, scorer.listwise
        self._folded = fold_standardisation(transform, scorer) if fold else None
        # What is saved with the signatures: variables alone. Keras' objects could not be loaded without this package.
        self.module = tf.Module()
        self.module.weights = scorer.variables

        @tf.function(
            input_signature=[tf.TensorSpec([None, self.num_features], tf.float32, "features")],
            autograph=False,
        )
        def rank(features: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"scores": self(features)}

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, self.num_features], tf.float32, "features"),
                tf.TensorSpec([None, None], tf.bool, "mask"),
            ],
            autograph=False,
        )
        def rank_lists(features: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
            if not self.listwise:
                scores = tf.reshape(self(tf.reshape(features, [-1, self.num_features])), tf.shape(mask))
                return {"scores": tf.where(mask, scores, -np.inf)}
            sizes = tf.reduce_sum(tf.cast(mask, tf.int32), 1)
            scores = self(tf.boolean_mask(features, mask), Layout.of_sizes(sizes))
            empty = tf.fill(tf.shape(mask), tf.constant(-np.inf, tf.float32))
            return {"scores": tf.tensor_scatter_nd_update(empty, tf.where(mask), scores)}

        self.rank, self.rank_lists = rank, rank_lists
        self.score = scoring_function(self)

    def __call__(
        self, features: tf.Tensor, layout: Layout | None = None, training: bool = False
    ) -> tf.Tensor:
        """Raw features float32 [D, F] -> float32 [D]."""
        if self._folded is not None and not training:
            return self._folded(features)
        return self.scorer(self.transform.in_graph(features), layout, training=training)

    def save(self, folder: Path) -> None:
        """Writes the SavedModel; `rank` is its default signature too."""
        signatures = {"serving_default": self.rank, "rank": self.rank, "rank_lists": self.rank_lists}
        tf.saved_model.save(self.module, str(folder), signatures=signatures)

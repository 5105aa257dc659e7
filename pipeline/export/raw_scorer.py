"""Students on raw features: the transform is inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pipeline.data.transform import Transform
from pipeline.export.fold import fold_standardisation

_ROWS = 1 << 15  # documents scored at a time


class RawScorer(tf.Module):
    """Transform and scorer in one, with the signatures of the SavedModel.

    `rank`: features float32 [docs, F] -> scores float32 [docs].
    `rank_lists`: features float32 [lists, list_size, F], mask bool [lists, list_size] -> scores
    [lists, list_size]; padding gets -inf, so that it sorts last.

    Args:
      transform: of raw features.
      scorer: on transformed features.
      fold: whether the standardisation goes into the first layer, where that can be.
    """

    def __init__(self, transform: Transform, scorer: keras.Model, *, fold: bool = True) -> None:
        super().__init__()
        self.transform, self.scorer = transform, scorer
        num_features = transform.num_features
        folded = fold_standardisation(transform, scorer) if fold else None

        @tf.function(input_signature=[tf.TensorSpec([None, num_features], tf.float32, "features")])
        def rank(features: tf.Tensor) -> dict[str, tf.Tensor]:
            if folded is not None:
                return {"scores": folded(features)}
            return {"scores": scorer(transform.in_graph(features), training=False)}

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, num_features], tf.float32, "features"),
                tf.TensorSpec([None, None], tf.bool, "mask"),
            ]
        )
        def rank_lists(features: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
            scores = rank(tf.reshape(features, [-1, num_features]))["scores"]
            return {"scores": tf.where(mask, tf.reshape(scores, tf.shape(mask)), -np.inf)}

        self.rank, self.rank_lists = rank, rank_lists

    def score(self, features: np.ndarray) -> np.ndarray:
        """float32 [docs, F] raw -> float32 [docs], in blocks of bounded size."""
        blocks = [
            self.rank(tf.constant(features[i : i + _ROWS]))["scores"].numpy()
            for i in range(0, len(features), _ROWS)
        ]
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    def save(self, folder: Path) -> None:
        """Writes the SavedModel; `rank` is its default signature too."""
        signatures = {"serving_default": self.rank, "rank": self.rank, "rank_lists": self.rank_lists}
        tf.saved_model.save(self, str(folder), signatures=signatures)

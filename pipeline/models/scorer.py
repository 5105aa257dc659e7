"""Scorers by their options, and scoring in blocks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pipeline.config import LinearStudent, NetworkConfig
from pipeline.models.layout import Layout
from pipeline.models.networks import Scorer, make_network

_ROWS = 1 << 13  # documents scored at a time; larger blocks are no faster
_PAIRS = 1 << 23  # of documents in the lists that are scored at a time: 32 MB for each attention head


class Score(Protocol):
    """Scores of documents: features float32 [docs, F], offsets int64 [lists + 1] -> [docs].

    Pointwise scorers ignore the offsets and need none.
    """

    def __call__(self, features: np.ndarray, offsets: np.ndarray | None = None, /) -> np.ndarray: ...


def build_scorer(config: LinearStudent | NetworkConfig, num_features: int, *, seed: int) -> Scorer:
    """A scorer with freshly initialised weights.

    Args:
      config: the architecture.
      num_features: F.
      seed: of the initial weights, of dropout and input noise.

    Returns:
      A model (features [docs, F], layout) -> [docs]; see `Scorer`.
    """
    # TensorFlow's optimizer of graphs sorts what it adds up by name: a scorer's last bits would depend on how many
    # layers the process made before.
    keras.backend.reset_uids()
    return make_network(config, num_features, seed=seed)


def num_parameters(scorer: keras.Model) -> int:
    """Trained numbers of a scorer."""
    return int(sum(np.prod(weight.shape) for weight in scorer.trainable_weights))


def blocks_of_lists(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of lists, in order, to score together: memory is bounded, but a list is never cut.

    A block has at most `_ROWS` slots and `_PAIRS` pairs of slots, padded to its longest list; or it is one list.
    """
    sizes = np.diff(offsets)
    first, longest = 0, 0
    for number, size in enumerate(sizes.tolist()):
        longest = max(longest, size)
        lists = number + 1 - first
        if lists > 1 and (lists * longest > _ROWS or lists * longest**2 > _PAIRS):
            yield first, number
            first, longest = number, size
    if len(sizes):
        yield first, len(sizes)


def scoring_function(scorer: Any) -> Score:
    """A function that runs the scorer on numpy arrays in blocks of bounded size.

    Args:
      scorer: a `Scorer`, or whatever is called as one and has its `num_features` and `listwise`.

    Returns:
      See `Score`; float32 scores. Without offsets, a listwise scorer raises ValueError.
    """
    features_spec = tf.TensorSpec([None, scorer.num_features], tf.float32)

    @tf.function(input_signature=[features_spec], autograph=False)
    def forward(features: tf.Tensor) -> tf.Tensor:
        return scorer(features, None, training=False)

    @tf.function(input_signature=[features_spec, tf.TensorSpec([None], tf.int32)], autograph=False)
    def forward_lists(features: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        return scorer(features, Layout.of_sizes(sizes), training=False)

    def score(features: np.ndarray, offsets: np.ndarray | None = None, /) -> np.ndarray:
        blocks = []
        if not scorer.listwise:
            for start in range(0, len(features), _ROWS):
                blocks.append(forward(tf.constant(features[start : start + _ROWS])).numpy())
        elif offsets is None:
            raise ValueError("a listwise scorer needs the offsets of the lists")
        else:
            for first, last in blocks_of_lists(offsets):
                rows = features[offsets[first] : offsets[last]]
                sizes = np.diff(offsets[first : last + 1]).astype(np.int32)
                blocks.append(forward_lists(tf.constant(rows), tf.constant(sizes)).numpy())
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    return score

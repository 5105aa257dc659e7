"""Scorers: Keras models from transformed features [docs, F] to scores [docs]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pipeline.config import MLPStudent, StudentConfig

_ROWS = 1 << 15  # documents scored at a time


class Dropout(keras.layers.Layer):
    """Dropout whose noise is a function of (seed, number of calls, replica), so that a resumed run repeats it.

    Args:
      rate: share of units set to 0 in training.
      seed: of this layer.
    """

    def __init__(self, rate: float, *, seed: int) -> None:
        super().__init__()
        self.rate, self.seed = rate, seed
        self.calls = self.add_weight(
            name="calls",
            shape=(),
            dtype=tf.int32,
            initializer="zeros",
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context is not None else 0
        seed = tf.stack([self.seed + 1_000_003 * tf.cast(replica, tf.int32), self.calls])
        self.calls.assign_add(1)
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed=seed, rng_alg="philox")


def build_scorer(config: StudentConfig, num_features: int, *, seed: int) -> keras.Model:
    """A scorer with freshly initialised weights.

    Args:
      config: the architecture.
      num_features: F.
      seed: of the initial weights and of the dropout.

    Returns:
      A model [docs, F] -> [docs].
    """
    inputs = keras.Input((num_features,))

    def dense(units: int, number: int, activation: str | None) -> keras.layers.Dense:
        initializer = keras.initializers.GlorotUniform(seed=1000 * seed + number)
        return keras.layers.Dense(units, activation, kernel_initializer=initializer)

    x, number = inputs, 0
    if isinstance(config, MLPStudent):
        for number, units in enumerate(config.hidden, 1):
            x = dense(units, number, config.activation)(x)
            if config.dropout:
                x = Dropout(config.dropout, seed=1000 * seed + number)(x)
    x = dense(1, number + 1, None)(x)
    return keras.Model(inputs, keras.layers.Reshape(())(x))


def num_parameters(scorer: keras.Model) -> int:
    """Trained numbers of a scorer."""
    return int(sum(np.prod(weight.shape) for weight in scorer.trainable_weights))


def scoring_function(scorer: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function from float32 [docs, F] to float32 [docs] that runs the scorer in blocks of bounded size."""
    forward = tf.function(
        lambda features: scorer(features, training=False),
        input_signature=[tf.TensorSpec([None, scorer.input_shape[-1]], tf.float32)],
    )

    def score(features: np.ndarray) -> np.ndarray:
        blocks = [forward(features[i : i + _ROWS]).numpy() for i in range(0, len(features), _ROWS)]
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    return score

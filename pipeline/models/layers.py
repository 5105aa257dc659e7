"""Layers of the scorers. Shapes: D packed documents, B lists, L slots of a list, C channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tf_keras as keras

from pipeline.models.layout import Layout
from pipeline.noise import bits_of_docs, uniform

_MOMENTUM = 0.9  # of batch norm's moving averages, for each step: a few epochs of a small data set must do
_EPSILON = 1e-3  # added to its variances, as in Keras


class _Noise(keras.layers.Layer):
    """A layer whose noise is a function of (seed, number of calls, list, place in the list, unit).

    So it is the same on any number of replicas, and a resumed run repeats it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.calls = self.add_weight(
            name="calls",
            shape=(),
            dtype=tf.int64,
            initializer="zeros",
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def next_bits(self, inputs: tf.Tensor, layout: Layout | None) -> tf.Tensor:
        """uint32 [D, C] for inputs [D, C]."""
        layout = Layout.one_list(inputs) if layout is None else layout
        bits = bits_of_docs(tf.stack([self.seed, self.calls]), *layout.places, inputs.shape[1])
        self.calls.assign_add(1)
        return bits


class Dropout(_Noise):
    """Sets a share of the units to 0 in training and scales the others up.

    Args:
      rate: the share.
      seed: of this layer.
    """

    def __init__(self, rate: float, *, seed: int) -> None:
        super().__init__(seed)
        self.rate = rate

    def call(self, inputs: tf.Tensor, layout: Layout | None = None, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        least = min(round(self.rate * 2**32), 2**32 - 1)
        kept = self.next_bits(inputs, layout) >= tf.constant(least, tf.uint32)
        return tf.where(kept, inputs * (1 / (1 - self.rate)), tf.zeros([], inputs.dtype))


class GaussianNoise(_Noise):
    """Adds noise in training.

    Args:
      deviation: standard deviation.
      seed: of this layer.
    """

    def __init__(self, deviation: float, *, seed: int) -> None:
        super().__init__(seed)
        self.deviation = deviation

    def call(self, inputs: tf.Tensor, layout: Layout | None = None, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        u = uniform(self.next_bits(inputs, layout), tf.float32)
        noise = tf.math.ndtri(tf.minimum(u, 1.0 - 2.0**-24))  # at 1 it is infinite
        return inputs + tf.cast(self.deviation * noise, inputs.dtype)


class BatchNorm(keras.layers.Layer):
    """Batch norm in float32 whose statistics are those of the global batch, over all replicas.

        y = gamma (x - mean) / sqrt(variance + 0.001) + beta

    So the number of replicas does not change what a model computes. The variance is a sum of squared deviations:
    Keras's, E[x^2] - E[x]^2, is rounding error where a mean is thousands of deviations, as of a raw year.

    Args:
      width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__(dtype="float32")
        self.gamma = self.add_weight(name="gamma", shape=(width,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(width,), initializer="zeros")
        # The same on each replica, so that one can be read for all.
        moving: dict[str, Any] = {
            "shape": (width,),
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **moving)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **moving)

    def call(self, x: tf.Tensor, layout: Layout | None = None, training: bool = False) -> tf.Tensor:
        """[D, C] -> [D, C]; what only pads is in no statistic."""
        mean, variance = self.moving_mean, self.moving_variance
        if training:
            weights = tf.ones_like(x[:, :1])
            if layout is not None:
                weights *= tf.cast(layout.is_document, tf.float32)[:, tf.newaxis]
            num_docs = _sum_over_replicas(tf.reduce_sum(weights))
            mean = _sum_over_replicas(tf.reduce_sum(weights * x, 0)) / num_docs
            variance = _sum_over_replicas(tf.reduce_sum(weights * tf.square(x - mean), 0)) / num_docs
            for average, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign(_MOMENTUM * average + (1 - _MOMENTUM) * now)
        return self.gamma * (x - mean) * tf.math.rsqrt(variance + _EPSILON) + self.beta


def _sum_over_replicas(x: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    if (
        context.num_replicas_in_sync == 1
    ):  # a custom gradient, too: TensorFlow keeps the graph around each for ever
        return x
    return context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def swish(x: tf.Tensor) -> tf.Tensor:
    """x sigmoid(x). Not Keras's, a custom gradient: TensorFlow keeps the graph around each for ever."""
    return x * tf.sigmoid(x)


def dense(
    inputs: int, units: int, seeds: Iterator[int], *, activation: str | None = None, **options: Any
) -> keras.layers.Dense:
    """A dense layer [D, inputs] -> [D, units]."""
    layer = keras.layers.Dense(
        units,
        swish if activation == "swish" else activation,
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
        **options,
    )
    layer.build((None, inputs))
    return layer


class Cross(keras.layers.Layer):
    """A cross layer of DCN-v2: x0 * (W x + b) + x (Wang et al., WWW 2021).

    Args:
      width: C.
      rank: W is a product [C, rank] [rank, C]; None: W is [C, C].
      seeds: of the weights.
    """

    def __init__(self, width: int, rank: int | None, seeds: Iterator[int]) -> None:
        super().__init__()
        self.down = None if rank is None else dense(width, rank, seeds, use_bias=False)
        self.up = dense(rank or width, width, seeds)

    def call(self, x0: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        y = self.up(x if self.down is None else self.down(x))
        return tf.cast(x0, y.dtype) * y + tf.cast(x, y.dtype)


class ListAttention(keras.layers.Layer):
    """Self-attention among the documents of a list: LayerNorm(x + Dropout(MHA(x))) (Pasumarthi et al., CIKM 2020).

    All but the attention itself works on packed documents, without padding.

    Args:
      heads: H.
      head_size: channels of a head; C = H * head_size.
      dropout: of the attention's output.
      seeds: of weights and dropout.
    """

    def __init__(self, heads: int, head_size: int, dropout: float, seeds: Iterator[int]) -> None:
        super().__init__(autocast=False)
        self.heads, self.head_size = heads, head_size
        width = heads * head_size
        self.projections = [dense(width, width, seeds) for _ in range(3)]  # queries, keys, values
        self.output_projection = dense(width, width, seeds)
        self.dropout = Dropout(dropout, seed=next(seeds)) if dropout else None
        self.norm = keras.layers.LayerNormalization(dtype="float32")
        self.norm.build((None, width))

    def call(self, x: tf.Tensor, layout: Layout, training: bool = False) -> tf.Tensor:
        """[D, C] -> [D, C]."""
        packed = tf.concat([project(x) for project in self.projections], -1)
        lists = layout.to_lists(packed)  # [B, L, 3 C]
        shape = tf.concat([tf.shape(lists)[:2], [3, self.heads, self.head_size]], 0)
        query, key, value = tf.unstack(tf.reshape(lists, shape), axis=2)  # [B, L, H, head_size]
        logits = tf.einsum("bqhc,bkhc->bhqk", query, key) * self.head_size**-0.5
        # Finite, so that a list without documents gives numbers; its rows are then dropped.
        logits = tf.where(layout.mask[:, tf.newaxis, tf.newaxis], tf.cast(logits, tf.float32), -1e9)
        weights = tf.cast(tf.nn.softmax(logits), value.dtype)
        mixed = tf.einsum("bhqk,bkhc->bqhc", weights, value)
        width = self.heads * self.head_size
        mixed = layout.to_docs(tf.reshape(mixed, tf.concat([tf.shape(lists)[:2], [width]], 0)))
        y = self.output_projection(mixed)
        if self.dropout is not None:
            y = self.dropout(y, layout, training=training)
        return self.norm(tf.cast(x, tf.float32) + tf.cast(y, tf.float32))


class Tower(keras.layers.Layer):
    """Hidden layers, each dense, activation, batch norm, dropout.

    Args:
      inputs: C of the input.
      hidden: widths.
      activation: name.
      use_batch_norm: after each activation.
      dropout: after each hidden layer.
      seeds: of weights and dropout.
    """

    def __init__(
        self,
        inputs: int,
        hidden: list[int],
        activation: str,
        use_batch_norm: bool,
        dropout: float,
        seeds: Iterator[int],
    ) -> None:
        super().__init__(autocast=False)
        self.width = inputs
        self.blocks: list[list[keras.layers.Layer]] = []
        for units in hidden:
            block = [dense(self.width, units, seeds, activation=activation)]
            if use_batch_norm:
                block.append(BatchNorm(units))
            if dropout:
                block.append(Dropout(dropout, seed=next(seeds)))
            self.blocks.append(block)
            self.width = units

    def call(self, x: tf.Tensor, layout: Layout | None, training: bool = False) -> tf.Tensor:
        return self._apply([layer for block in self.blocks for layer in block], x, layout, training)

    def split_first(self) -> tuple[keras.layers.Dense, Callable[[tf.Tensor], tf.Tensor]]:
        """The first dense layer, and what the others make of its output when they score."""
        first, *others = (layer for block in self.blocks for layer in block)
        return first, lambda x: self._apply(others, x, None, training=False)

    @staticmethod
    def _apply(
        layers: list[keras.layers.Layer], x: tf.Tensor, layout: Layout | None, training: bool
    ) -> tf.Tensor:
        for layer in layers:
            x = layer(x, layout, training=training) if isinstance(layer, BatchNorm | Dropout) else layer(x)
        return x

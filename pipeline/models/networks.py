"""The architectures. Shapes: D packed documents, F features."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import tensorflow as tf
import tf_keras as keras

from pipeline.config import AttentionNetwork, DCNNetwork, LinearStudent, MLPNetwork, NetworkConfig
from pipeline.models.layers import BatchNorm, Cross, GaussianNoise, ListAttention, Tower, dense
from pipeline.models.layout import Layout


class Scorer(keras.Model):
    """scorer(features float32 [D, F], layout, training) -> scores float32 [D].

    `layout` says where the lists are. Without one there is no padding, and all documents are of one list: a pointwise
    scorer does not care, a listwise one lets the documents of a list see each other.

    Attributes:
      num_features: F.
      listwise: whether a document's score depends on the others of its list.
    """

    listwise = False

    def __init__(self, num_features: int) -> None:
        super().__init__(autocast=False)
        self.num_features = num_features

    def call(self, features: tf.Tensor, layout: Layout | None = None, training: bool = False) -> tf.Tensor:
        raise NotImplementedError  # of each scorer

    def split_first(self) -> tuple[keras.layers.Dense, Callable[[tf.Tensor], tf.Tensor]] | None:
        """The one dense layer that sees the features, and what makes scores of its output; None if others see them."""
        return None


class LinearScorer(Scorer):
    def __init__(self, num_features: int, seeds: Iterator[int]) -> None:
        super().__init__(num_features)
        self.head = dense(num_features, 1, seeds, dtype="float32")
        self.built = True

    def call(self, features: tf.Tensor, layout: Layout | None = None, training: bool = False) -> tf.Tensor:
        return tf.squeeze(self.head(features), -1)

    def split_first(self) -> tuple[keras.layers.Dense, Callable[[tf.Tensor], tf.Tensor]] | None:
        return self.head, lambda x: tf.squeeze(x, -1)


class _Network(Scorer):
    """Input batch norm and noise, then what `hidden` of a subclass computes, then a linear head in float32."""

    def __init__(self, config: NetworkConfig, num_features: int, seeds: Iterator[int]) -> None:
        super().__init__(num_features)
        self.input_norm = BatchNorm(num_features) if config.input_batch_norm else None
        self.noise = GaussianNoise(config.input_noise, seed=next(seeds)) if config.input_noise else None

    def make_tower(self, config: NetworkConfig, inputs: int, seeds: Iterator[int]) -> Tower:
        return Tower(inputs, config.hidden, config.activation, config.batch_norm, config.dropout, seeds)

    def make_head(self, inputs: int, seeds: Iterator[int]) -> None:
        self.head = dense(inputs, 1, seeds, dtype="float32")
        self.built = True

    def call(self, features: tf.Tensor, layout: Layout | None = None, training: bool = False) -> tf.Tensor:
        x = features
        if self.input_norm is not None:
            x = self.input_norm(x, layout, training=training)
        if self.noise is not None:
            x = self.noise(x, layout, training=training)
        return tf.squeeze(self.head(self.hidden(x, layout, training)), -1)

    def hidden(self, x: tf.Tensor, layout: Layout | None, training: bool) -> tf.Tensor:
        """[D, F] -> [D, C]."""
        raise NotImplementedError  # of each scorer


class MLPScorer(_Network):
    def __init__(self, config: MLPNetwork, num_features: int, seeds: Iterator[int]) -> None:
        super().__init__(config, num_features, seeds)
        self.tower = self.make_tower(config, num_features, seeds)
        self.make_head(self.tower.width, seeds)

    def hidden(self, x: tf.Tensor, layout: Layout | None, training: bool) -> tf.Tensor:
        return self.tower(x, layout, training=training)

    def split_first(self) -> tuple[keras.layers.Dense, Callable[[tf.Tensor], tf.Tensor]] | None:
        if self.input_norm is not None:
            return None
        first, rest = self.tower.split_first()
        return first, lambda x: tf.squeeze(self.head(rest(x)), -1)


class DCNScorer(_Network):
    """DCN-v2, stacked: cross layers, then a tower."""

    def __init__(self, config: DCNNetwork, num_features: int, seeds: Iterator[int]) -> None:
        super().__init__(config, num_features, seeds)
        self.cross = [Cross(num_features, config.cross_rank, seeds) for _ in range(config.cross_layers)]
        self.tower = self.make_tower(config, num_features, seeds)
        self.make_head(self.tower.width, seeds)

    def hidden(self, x: tf.Tensor, layout: Layout | None, training: bool) -> tf.Tensor:
        x0 = x
        for layer in self.cross:
            x = layer(x0, x)
        return self.tower(x, layout, training=training)


class AttentionScorer(_Network):
    """DASALC: a tower's output h crossed with what self-attention over the list gives, h * (1 + a).

    Qin et al., ICLR 2021, without their ensemble.
    """

    listwise = True

    def __init__(self, config: AttentionNetwork, num_features: int, seeds: Iterator[int]) -> None:
        super().__init__(config, num_features, seeds)
        self.tower = self.make_tower(config, num_features, seeds)
        width = config.heads * config.head_size
        self.embedding = dense(num_features, width, seeds, activation=config.activation)
        self.attention = [
            ListAttention(config.heads, config.head_size, config.dropout, seeds)
            for _ in range(config.attention_layers)
        ]
        self.latent = dense(width, self.tower.width, seeds)
        self.make_head(self.tower.width, seeds)

    def hidden(self, x: tf.Tensor, layout: Layout | None, training: bool) -> tf.Tensor:
        layout = Layout.one_list(x) if layout is None else layout.narrow()
        context = self.embedding(x)
        for layer in self.attention:
            context = layer(context, layout, training=training)
        latent = self.latent(context)
        return tf.cast(self.tower(x, layout, training=training), latent.dtype) * (1.0 + latent)


def make_network(config: LinearStudent | NetworkConfig, num_features: int, *, seed: int) -> Scorer:
    """The scorer of an architecture, its weights initialised by `seed`."""
    seeds = itertools.count(1000 * seed + 1)
    if isinstance(config, MLPNetwork):
        return MLPScorer(config, num_features, seeds)
    if isinstance(config, DCNNetwork):
        return DCNScorer(config, num_features, seeds)
    if isinstance(config, AttentionNetwork):
        return AttentionScorer(config, num_features, seeds)
    return LinearScorer(num_features, seeds)

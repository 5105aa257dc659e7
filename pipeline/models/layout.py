"""Where the lists are among packed documents. Shapes: D documents, B lists, L slots of a list."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from pipeline.data.packing import to_docs, to_lists


class Layout(NamedTuple):
    """The lists of a packed batch; what a scorer is called with beside the features.

    Attributes:
      slot: int32 [D]: row * L + column of a document; B * L or more for one that only pads.
      sizes: int32 [B]: documents of each list; they stand one list after another.
      list_size: L, at least the longest list; a Python number where shapes must be static.
      list_ids: integers [B] that noise is drawn by; None: 0, 1, ...
    """

    slot: tf.Tensor
    sizes: tf.Tensor
    list_size: Any
    list_ids: tf.Tensor | None = None

    @staticmethod
    def of_sizes(sizes: tf.Tensor) -> Layout:
        """Lists one after another, no padding between or behind them."""
        list_size = tf.reduce_max(tf.concat([sizes, [0]], 0))
        starts = tf.cumsum(sizes, exclusive=True)
        row = tf.repeat(tf.range(tf.size(sizes)), sizes)
        return Layout(row * list_size + tf.range(tf.size(row)) - tf.gather(starts, row), sizes, list_size)

    @staticmethod
    def one_list(docs: tf.Tensor) -> Layout:
        """All of `docs` [D, ...] are one list."""
        size = tf.shape(docs)[0]
        return Layout(tf.range(size), size[tf.newaxis], size)

    @property
    def is_document(self) -> tf.Tensor:
        """bool [D]: not padding."""
        return self.slot < tf.size(self.sizes) * self.list_size

    @property
    def places(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The list id and the place in its list of each document, int32 [D] both; of padding anything."""
        list_size = tf.maximum(self.list_size, 1)  # of a replica without lists it may be 0
        row = tf.minimum(self.slot // list_size, tf.size(self.sizes) - 1)
        return row if self.list_ids is None else tf.gather(self.list_ids, row), self.slot % list_size

    @property
    def mask(self) -> tf.Tensor:
        """bool [B, L]."""
        return tf.range(self.list_size) < self.sizes[:, tf.newaxis]

    def to_lists(self, docs: tf.Tensor) -> tf.Tensor:
        """[D, C] -> [B, L, C], zeros in empty slots."""
        return to_lists(docs, self.sizes, self.list_size)

    def to_docs(self, lists: tf.Tensor) -> tf.Tensor:
        """[B, L, C] -> [D, C], zeros for documents that only pad."""
        return to_docs(lists, self.slot)

    def narrow(self) -> Layout:
        """The same lists in as few slots as the longest of this batch needs.

        Static shapes, which the number of documents tells, stay as they are.
        """
        if self.slot.shape[0] is not None:
            return self
        list_size = tf.reduce_max(self.sizes)
        row, column = self.slot // self.list_size, self.slot % self.list_size
        return self._replace(slot=row * list_size + column, list_size=list_size)

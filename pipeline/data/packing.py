"""Packed batches: the documents of a batch stand in one matrix, list after list, without padding between them.

A batch is a row of list numbers. The training step looks up everything else in arrays that stay on the device.

Shapes: D documents of a batch, B list slots of one replica, L slots for the documents of a list.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipeline.data.ranking import RankingData

ROWS_MULTIPLE = (
    32  # D is a multiple of this: oneDNN compiles a new kernel for each number of rows that it meets
)


@functools.lru_cache(maxsize=2)
def epoch_order(num_queries: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation int64 [queries] that depends only on its arguments."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_queries)


@dataclasses.dataclass(frozen=True)
class PackedBatches:
    """The training batches of a data set. Each is a pure function of (seed, step).

    Args:
      data: transformed features, and labels.
      teacher: transformed teacher scores of the same rows, float32 [docs].
      lists_per_batch: number of lists in the global batch.
      seed: of the order of the lists.
      num_replicas: the lists of a global batch are dealt out to this many replicas in turn.
      epochs: number of epochs; `num_rows` holds for these.
    """

    data: RankingData
    teacher: np.ndarray
    lists_per_batch: int
    seed: int
    num_replicas: int = 1
    epochs: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.data.num_queries // self.lists_per_batch)

    @functools.cached_property
    def list_size(self) -> int:
        """L, a multiple of 8."""
        return max(8, _round_up(int(self.data.list_sizes.max()), 8))

    @property
    def slots(self) -> int:
        """B of each replica."""
        return -(-self.lists_per_batch // self.num_replicas)

    @functools.cached_property
    def num_rows(self) -> int:
        """D of the largest batch of a replica: the number of rows where shapes must be static."""
        sizes = np.append(self.data.list_sizes, 0)  # list number -1 has size 0
        steps = range(self.epochs * self.steps_per_epoch)
        return _round_up(max(int(sizes[self.lists(step)].sum(1).max()) for step in steps), ROWS_MULTIPLE)

    def lists(self, step: int) -> np.ndarray:
        """int32 [replicas, B]: the lists of a global step, which is counted over all epochs; -1 in an empty slot."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = epoch_order(self.data.num_queries, seed=self.seed, epoch=epoch)
        chosen = order[position * self.lists_per_batch : (position + 1) * self.lists_per_batch]
        slots = np.full(self.slots * self.num_replicas, -1, np.int32)
        slots[: len(chosen)] = chosen
        return slots.reshape(self.slots, self.num_replicas).T

    def features(self, lists: np.ndarray) -> np.ndarray:
        """float32 [num_rows, F]: the features of these lists, one list after another; zeros in the rows behind."""
        data = np.asarray(
            self.data.features
        )  # slicing a np.memmap takes ten times as long as slicing an array
        offsets = self.data.offsets
        packed = np.zeros((self.num_rows, self.data.num_features), np.float32)
        end = 0
        for number in lists[lists >= 0]:
            rows = data[offsets[number] : offsets[number + 1]]
            packed[end : end + len(rows)] = rows
            end += len(rows)
        return packed


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


class Documents(NamedTuple):
    """Where the documents of a batch are.

    Attributes:
      rows: int64 [D], the row of each document in the data set; 0 for padding.
      slot: int32 [D], list slot * L + place in the list; B * L for padding.
      starts: int64 [B], the row in the data set where each list starts.
      sizes: int32 [B], documents of each list; 0 for an empty slot.
    """

    rows: tf.Tensor
    slot: tf.Tensor
    starts: tf.Tensor
    sizes: tf.Tensor


def find_documents(
    lists: tf.Tensor, offsets: tf.Tensor, list_size: int, num_rows: int | None = None
) -> Documents:
    """Looks up the documents of a batch.

    Args:
      lists: int32 [B], list numbers; -1 in an empty slot.
      offsets: int64 [queries + 1], of the data set.
      list_size: L.
      num_rows: D, where shapes must be static; None: the number of documents, rounded up.
    """
    starts, ends = (tf.gather(offsets, tf.maximum(lists, 0) + last) for last in (0, 1))
    sizes = tf.where(lists >= 0, tf.cast(ends - starts, tf.int32), 0)
    packed_ends = tf.cumsum(sizes)
    if num_rows is None:
        num_rows = tf.maximum(-(-packed_ends[-1] // ROWS_MULTIPLE), 1) * ROWS_MULTIPLE
    number = tf.range(num_rows)
    list_slot = tf.searchsorted(packed_ends, number, side="right")
    is_document = number < packed_ends[-1]
    list_slot = tf.where(is_document, list_slot, 0)
    place = number - tf.gather(packed_ends - sizes, list_slot)
    rows = tf.gather(starts, list_slot) + tf.cast(place, starts.dtype)
    slot = tf.where(is_document, list_slot * list_size + place, tf.size(lists) * list_size)
    return Documents(tf.where(is_document, rows, 0), slot, starts, sizes)


def list_index(sizes: tf.Tensor, list_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the document of each slot [B, L] stands among the packed ones, 0 in the padding; and the mask [B, L]."""
    starts = tf.cumsum(sizes, exclusive=True)
    columns = tf.range(list_size)
    mask = columns[None, :] < sizes[:, None]
    return tf.where(mask, starts[:, None] + columns[None, :], 0), mask


def to_lists(docs: tf.Tensor, sizes: tf.Tensor, list_size: int) -> tf.Tensor:
    """Packed values [D, C] as padded lists [B, L, C], 0 in the padding."""
    index, mask = list_index(sizes, list_size)
    return tf.where(mask[..., tf.newaxis], tf.gather(docs, index), tf.zeros([], docs.dtype))


def to_docs(lists: tf.Tensor, slot: tf.Tensor) -> tf.Tensor:
    """Padded lists [B, L, C] as packed values [D, C], 0 for padding."""
    return at_slots(tf.reshape(lists, [-1, lists.shape[-1]]), slot)


def at_slots(values: tf.Tensor, slot: tf.Tensor) -> tf.Tensor:
    """The rows of `values` [B * L, C] at the slots [D]; 0 at slot B * L, which is that of padding."""
    return tf.gather(tf.pad(values, [[0, 1], [0, 0]]), slot)

"""Packed batches: the documents of a batch stand in one matrix without padding.

Shapes: D documents of a batch, B lists, L documents of the longest list of the data set.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from pipeline.data.ranking import RankingData


@functools.lru_cache(maxsize=2)
def epoch_order(num_queries: int, *, seed: int, epoch: int) -> np.ndarray:
    """int64 [queries]: a permutation that depends on nothing but its arguments."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_queries)


@dataclasses.dataclass(frozen=True)
class PackedBatches:
    """Training batches over a data set, each a pure function of (seed, step, replica).

    Args:
      data: transformed features; labels.
      teacher: float32 [docs], the transformed teacher scores of the same rows.
      lists_per_batch: B of the global batch.
      seed: of the order of lists.
      num_replicas: the global batch is dealt out to this many; each gets B / num_replicas list slots, rounded up.
      static_epochs: where shapes must not change (XLA, TPU), the epochs to come: every batch is then padded to as
        many documents as the largest of them has. None: no padding.
    """

    data: RankingData
    teacher: np.ndarray
    lists_per_batch: int
    seed: int
    num_replicas: int = 1
    static_epochs: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.data.num_queries // self.lists_per_batch)

    @property
    def list_size(self) -> int:
        """L, a multiple of 8."""
        return -(-int(self.data.list_sizes.max()) // 8) * 8

    @property
    def slots(self) -> int:
        """List slots of a replica's batch."""
        return -(-self.lists_per_batch // self.num_replicas)

    @functools.cached_property
    def num_rows(self) -> int | None:
        """D, a multiple of 8, where it is static."""
        if self.static_epochs is None:
            return None
        most = 1
        for epoch in range(self.static_epochs):
            order = epoch_order(self.data.num_queries, seed=self.seed, epoch=epoch)
            sizes = np.zeros(self.steps_per_epoch * self.lists_per_batch, np.int64)
            sizes[: len(order)] = self.data.list_sizes[order]
            batches = sizes.reshape(-1, self.lists_per_batch)
            for replica in range(self.num_replicas):
                most = max(most, int(batches[:, replica :: self.num_replicas].sum(1).max()))
        return -(-most // 8) * 8

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """Names, shapes and types of one replica's batch.

        features [D, F]; teacher, labels [D]; slot int32 [D]: row * L + column of a document among the lists, B * L
        for one that pads; sizes int32 [B]: documents of each list, 0 for an empty slot; list_ids int32 [B]: number of
        the list in the data set; num_lists []: lists in the global batch, over all replicas.
        """
        return {
            "features": tf.TensorSpec([self.num_rows, self.data.num_features], tf.float32),
            "teacher": tf.TensorSpec([self.num_rows], tf.float32),
            "labels": tf.TensorSpec([self.num_rows], tf.float32),
            "slot": tf.TensorSpec([self.num_rows], tf.int32),
            "sizes": tf.TensorSpec([self.slots], tf.int32),
            "list_ids": tf.TensorSpec([self.slots], tf.int32),
            "num_lists": tf.TensorSpec([], tf.float32),
        }

    def batch(self, step: int, replica: int = 0) -> dict[str, np.ndarray]:
        """The batch of global step `step` (counted over epochs) for one replica."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = epoch_order(self.data.num_queries, seed=self.seed, epoch=epoch)
        chosen = order[position * self.lists_per_batch : (position + 1) * self.lists_per_batch]
        num_lists = len(chosen)
        chosen = chosen[replica :: self.num_replicas]
        offsets, num_slots = self.data.offsets, self.slots
        sizes = np.zeros(num_slots, np.int32)
        sizes[: len(chosen)] = offsets[chosen + 1] - offsets[chosen]
        list_ids = np.zeros(num_slots, np.int32)
        list_ids[: len(chosen)] = chosen
        starts = np.zeros(num_slots, np.int64)
        starts[: len(chosen)] = offsets[chosen]
        column = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = np.repeat(starts, sizes) + column
        slot = np.repeat(np.arange(num_slots) * self.list_size, sizes) + column
        # Rows that are in no list: to the static shape, or one where more replicas than lists are left.
        padding = max(self.num_rows or 1, len(rows)) - len(rows)
        rows = np.pad(rows, (0, padding))
        slot = np.pad(slot, (0, padding), constant_values=num_slots * self.list_size)
        return {
            "features": self.data.features[rows],
            "teacher": self.teacher[rows],
            "labels": self.data.labels[rows],
            "slot": slot.astype(np.int32),
            "sizes": sizes,
            "list_ids": list_ids,
            "num_lists": np.float32(num_lists),
        }

    def dataset(self, first_step: int, replicas: range) -> tf.data.Dataset:
        """Endless batches from `first_step` on; those of `replicas` in turn within each step."""
        names = list(self.signature)

        def load(index: tf.Tensor) -> dict[str, tf.Tensor]:
            def pack(i: np.int64) -> list[np.ndarray]:
                step, replica = divmod(int(i), len(replicas))
                batch = self.batch(first_step + step, replicas[replica])
                return [batch[name] for name in names]

            tensors = tf.numpy_function(pack, [index], [self.signature[name].dtype for name in names])
            for name, tensor in zip(names, tensors, strict=True):
                tensor.set_shape(self.signature[name].shape)
            return dict(zip(names, tensors, strict=True))

        return (
            tf.data.Dataset.counter()
            .map(load, num_parallel_calls=2, deterministic=True)
            .prefetch(2 * len(replicas))
        )


def to_lists(
    docs: tf.Tensor, slot: tf.Tensor, sizes: tf.Tensor, list_size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Packed values [D, ...] as padded lists [B, L, ...] and their mask [B, L]; both directions are gathers.

    The gradient of the obvious `tf.gather` is a scatter-add, which is slow on accelerators and, on a GPU, not
    deterministic; every document has exactly one slot, so it is a gather too.
    """
    starts = tf.cumsum(sizes, exclusive=True)
    columns = tf.range(list_size)
    mask = columns[None, :] < sizes[:, None]
    index = tf.where(mask, starts[:, None] + columns[None, :], 0)

    @tf.custom_gradient
    def gather(values: tf.Tensor) -> tuple[tf.Tensor, object]:
        return _fill(mask, tf.gather(values, index)), lambda upstream: _at_slots(upstream, slot)

    return gather(docs), mask


def to_docs(lists: tf.Tensor, slot: tf.Tensor, sizes: tf.Tensor, list_size: int) -> tf.Tensor:
    """The other way: padded lists [B, L, ...] as packed values [D, ...], 0 for the documents that only pad."""
    starts = tf.cumsum(sizes, exclusive=True)
    columns = tf.range(list_size)
    mask = columns[None, :] < sizes[:, None]
    index = tf.where(mask, starts[:, None] + columns[None, :], 0)

    @tf.custom_gradient
    def gather(values: tf.Tensor) -> tuple[tf.Tensor, object]:
        return _at_slots(values, slot), lambda upstream: _fill(mask, tf.gather(upstream, index))

    return gather(lists)


def _fill(mask: tf.Tensor, lists: tf.Tensor) -> tf.Tensor:
    """`lists` [B, L, ...], 0 where the mask [B, L] is False."""
    mask = tf.reshape(mask, tf.concat([tf.shape(mask), tf.ones([tf.rank(lists) - 2], tf.int32)], 0))
    return tf.where(mask, lists, tf.zeros([], lists.dtype))


def _at_slots(lists: tf.Tensor, slot: tf.Tensor) -> tf.Tensor:
    """Rows `slot` [D] of `lists` [B, L, ...]; 0 for slot B * L, which documents have that only pad."""
    flat = tf.reshape(lists, tf.concat([[-1], tf.shape(lists)[2:]], 0))
    padding = [[0, 1]] + [[0, 0]] * (len(lists.shape) - 2)
    return tf.gather(tf.pad(flat, padding), slot)

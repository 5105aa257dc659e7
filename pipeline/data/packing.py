"""Packed batches: the documents of a batch stand in one matrix without padding.

Shapes: D documents of a batch, B lists, L documents of the longest list of the data set.
"""

from __future__ import annotations

import dataclasses
import functools
import weakref

import numpy as np
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops

from pipeline.data.ranking import RankingData

_BLOCK = 32  # rows: oneDNN compiles anew for each other number; TensorFlow copies slices that begin within 64 bytes


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
      epochs: how many there are; `num_rows` holds for these.
      is_static: every batch is padded to `num_rows` documents, for XLA and TPUs; it is one chunk.
      threads: that pack; None under TensorFlow's determinism, which would make it one and complain.
      num_chunks: C, into how many groups of whole lists a replica's batch falls.
    """

    data: RankingData
    teacher: np.ndarray
    lists_per_batch: int
    seed: int
    num_replicas: int = 1
    epochs: int = 1
    is_static: bool = False
    threads: int | None = 2
    num_chunks: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.data.num_queries // self.lists_per_batch)

    @functools.cached_property
    def list_size(self) -> int:
        """L, a multiple of 8."""
        return _multiple_of_8(self.data.list_sizes.max())

    @property
    def slots(self) -> int:
        """List slots of a replica's batch, a multiple of the number of chunks."""
        return -(-self.lists_per_batch // (self.num_replicas * self.num_chunks)) * self.num_chunks

    @functools.cached_property
    def num_rows(self) -> int:
        """D of the largest batch, a multiple of 8."""
        most = 1
        for epoch in range(self.epochs):
            order = epoch_order(self.data.num_queries, seed=self.seed, epoch=epoch)
            sizes = np.zeros(self.steps_per_epoch * self.lists_per_batch, np.int64)
            sizes[: len(order)] = self.data.list_sizes[order]
            batches = sizes.reshape(-1, self.lists_per_batch)
            for replica in range(self.num_replicas):
                most = max(most, int(batches[:, replica :: self.num_replicas].sum(1).max()))
        return _multiple_of_8(most)

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """Names, shapes and types of one replica's batch.

        features [D, F]; teacher, labels [B, L], 0 in the padding; slot int32 [D]: row * L + column of a document among
        the lists, B * L for one that pads; bounds int32 [C + 1]: where the rows of each of the C chunks begin and end,
        those of B / C lists and what pads them; sizes int32 [B]: documents of each list, 0 for an empty slot; list_ids
        int32 [B]: number of the list in the data set; num_lists []: lists in the global batch, over all replicas.
        """
        num_rows = self.num_rows if self.is_static else None
        return {
            "features": tf.TensorSpec([num_rows, self.data.num_features], tf.float32),
            "teacher": tf.TensorSpec([self.slots, self.list_size], tf.float32),
            "labels": tf.TensorSpec([self.slots, self.list_size], tf.float32),
            "slot": tf.TensorSpec([num_rows], tf.int32),
            "bounds": tf.TensorSpec([self.num_chunks + 1], tf.int32),
            "sizes": tf.TensorSpec([self.slots], tf.int32),
            "list_ids": tf.TensorSpec([self.slots], tf.int32),
            "num_lists": tf.TensorSpec([], tf.float32),
        }

    def batch(
        self, step: int, replica: int = 0, *, free: list[np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """The batch of global step `step` (counted over epochs) for one replica.

        Args:
          step: counted over epochs.
          replica: which.
          free: memory to use again, given back when the array of the features is let go: of that array, then, no
            view must be kept.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        order = epoch_order(self.data.num_queries, seed=self.seed, epoch=epoch)
        lists = order[position * self.lists_per_batch : (position + 1) * self.lists_per_batch]
        num_lists = len(lists)
        # Plain views: a slice of a np.memmap takes ten times as long.
        offsets, all_features = np.asarray(self.data.offsets), np.asarray(self.data.features)
        slots = np.full(self.slots, -1)
        mine = lists[replica :: self.num_replicas]
        if self.num_chunks > 1:  # of like numbers of documents, for two are computed at a time
            mine = mine[np.argsort(offsets[mine] - offsets[mine + 1], kind="stable")]
        slots[: len(mine)] = mine
        dealt = slots.reshape(-1, self.num_chunks)
        dealt[1::2] = dealt[1::2, ::-1]
        slots = dealt.T  # [C, lists of a chunk], dealt out to and fro
        list_ids = np.maximum(slots, 0).astype(np.int32)
        sizes = np.where(slots >= 0, offsets[list_ids + 1] - offsets[list_ids], 0).astype(np.int32)
        docs = sizes.sum(1)
        rows = np.array([self.num_rows]) if self.is_static else np.maximum(1, -(-docs // _BLOCK)) * _BLOCK
        bounds = np.concatenate([[0], np.cumsum(rows)]).astype(np.int32)
        # Of each document: its slot, and its row in the data set.
        flat_sizes = sizes.ravel()
        number_in_list = np.arange(docs.sum()) - np.repeat(np.cumsum(flat_sizes) - flat_sizes, flat_sizes)
        slot_of_doc = number_in_list + np.repeat(np.arange(self.slots) * self.list_size, flat_sizes)
        row_of_doc = number_in_list + np.repeat(offsets[list_ids.ravel()], flat_sizes)
        features = _aligned(bounds[-1], self.data.num_features, free)
        slot = np.full(bounds[-1], self.slots * self.list_size, np.int32)
        first = 0
        for chunk, (start, size) in enumerate(zip(bounds, docs, strict=False)):
            end = start + size
            slot[start:end] = slot_of_doc[first : first + size]
            first += size
            parts = [all_features[offsets[i] : offsets[i + 1]] for i in slots[chunk] if i >= 0]
            if parts:
                np.concatenate(parts, out=features[start:end])
            features[end : bounds[chunk + 1]] = 0.0

        def padded(values: np.ndarray) -> np.ndarray:
            array = np.zeros(self.slots * self.list_size, np.float32)
            array[slot_of_doc] = np.asarray(values)[row_of_doc]
            return array.reshape(self.slots, self.list_size)

        return {
            "features": features,
            "teacher": padded(self.teacher),
            "labels": padded(self.data.labels),
            "slot": slot,
            "bounds": bounds,
            "sizes": sizes.ravel(),
            "list_ids": list_ids.ravel(),
            "num_lists": np.float32(num_lists),
        }

    def dataset(self, first_step: int, replicas: range) -> tf.data.Dataset:
        """Batches from `first_step` to the last epoch's end, those of `replicas` in turn within each step; then again.

        (What is prefetched after the end is not used. A data set that ends costs workers a question at each step.)

        Let go of its iterators before the process ends: at Python's end TensorFlow would wait, perhaps for ever, for
        a batch that Python no longer packs.
        """
        specs = self.signature
        # TensorFlow keeps every `pack` as long as the process lives: it must not keep the data, and their open files.
        weak = weakref.ref(self)
        num_batches = (self.epochs * self.steps_per_epoch - first_step) * len(replicas)
        free: list[np.ndarray] = []  # the system would clear new memory, page by page, for each batch

        def load(index: tf.Tensor) -> dict[str, tf.Tensor]:
            def pack(i: np.int64) -> list[np.ndarray]:
                batches = weak()
                assert batches is not None, "the data set holds it"
                step, replica = divmod(int(i), len(replicas))
                batch = batches.batch(first_step + step, replicas[replica], free=free)
                return [batch[name] for name in specs]

            tensors = tf.numpy_function(pack, [index], [spec.dtype for spec in specs.values()])
            for tensor, spec in zip(tensors, specs.values(), strict=True):
                tensor.set_shape(spec.shape)
            return dict(zip(specs, tensors, strict=True))

        dataset = (
            tf.data.Dataset.range(num_batches)
            .repeat()
            .map(load, num_parallel_calls=self.threads)
            .prefetch(2 * len(replicas))
        )
        dataset = _untuned(dataset)
        dataset.batches = self  # lives as long as the data set and its iterators
        return dataset


def _untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without TensorFlow's thread that tunes buffers: it now and then misses that it shall end, and sleeps on for up to
    a minute, which the end of the iterator waits for."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


_to_device = multi_device_iterator_ops._create_device_dataset
# What hands the batches to the devices: its options are not to be had otherwise.
multi_device_iterator_ops._create_device_dataset = lambda *args, **named: _untuned(_to_device(*args, **named))


def _multiple_of_8(number: int) -> int:
    return max(8, -(-int(number) // 8) * 8)


def _aligned(rows: int, columns: int, free: list[np.ndarray] | None) -> np.ndarray:
    """An empty float32 [rows, columns] at a multiple of 64 bytes: TensorFlow takes such memory over uncopied.

    Its memory is from `free` if there is enough, and goes there in the end.
    """
    size = rows * columns + 16
    buffer = free.pop() if free else None
    if buffer is None or buffer.size < size:
        buffer = np.empty(size + size // 4, np.float32)
    start = -buffer.ctypes.data % 64 // 4
    array = buffer[start : start + rows * columns].reshape(rows, columns)
    if free is not None:
        weakref.finalize(array, free.append, buffer).atexit = False
    return array


def list_index(sizes: tf.Tensor, list_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the document of each slot [B, L] stands among the packed ones, 0 in the padding; and the mask [B, L]."""
    starts = tf.cumsum(sizes, exclusive=True)
    columns = tf.range(list_size)
    mask = columns[None, :] < sizes[:, None]
    return tf.where(mask, starts[:, None] + columns[None, :], 0), mask


def to_lists(
    docs: tf.Tensor, slot: tf.Tensor, sizes: tf.Tensor, list_size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Packed values [D, ...] as padded lists [B, L, ...] and their mask [B, L]; both directions are gathers.

    The gradient of the obvious `tf.gather` is a scatter-add, which is slow on accelerators and, on a GPU, not
    deterministic; every document has exactly one slot, so it is a gather too.
    """
    index, mask = list_index(sizes, list_size)
    return _lists_of_docs(docs, index, mask, slot), mask


def to_docs(lists: tf.Tensor, slot: tf.Tensor, sizes: tf.Tensor, list_size: int) -> tf.Tensor:
    """The other way: padded lists [B, L, ...] as packed values [D, ...], 0 for the documents that only pad."""
    return _docs_of_lists(lists, *list_index(sizes, list_size), slot)


# TensorFlow keeps the graph around each custom gradient as long as the process lives: here a small one for each shape,
# not that of every training.
@tf.function(autograph=False)
def _lists_of_docs(docs: tf.Tensor, index: tf.Tensor, mask: tf.Tensor, slot: tf.Tensor) -> tf.Tensor:
    @tf.custom_gradient
    def gather(values: tf.Tensor) -> tuple[tf.Tensor, object]:
        return _fill(mask, tf.gather(values, index)), lambda upstream: _at_slots(upstream, slot)

    return gather(docs)


@tf.function(autograph=False)
def _docs_of_lists(lists: tf.Tensor, index: tf.Tensor, mask: tf.Tensor, slot: tf.Tensor) -> tf.Tensor:
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

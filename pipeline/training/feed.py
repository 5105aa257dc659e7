"""How the features of a batch reach the step: from a copy on each device, or read batch by batch."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.data.packing import PackedBatches

_SHARE = 0.25  # of the memory that features may take to stay there while training runs


def memory_bytes() -> int:
    """The memory that this process may use: that of the machine, or the smallest limit of its Linux cgroups."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kind, group = line.split(":", 2)
            if kind not in ("", "memory"):
                continue
            top = Path("/sys/fs/cgroup", kind)
            folder = top / group.lstrip("/")
            for parent in (folder, *folder.parents):
                for name in ("memory.max", "memory.limit_in_bytes"):
                    with contextlib.suppress(OSError, ValueError):  # "max": no limit
                        memory = min(memory, int((parent / name).read_text()))
                if parent == top:
                    break
    return memory


def are_resident(batches: PackedBatches, strategy: tf.distribute.Strategy) -> bool:
    """Whether the features fit into memory, once for each device of this process."""
    features = batches.data.features
    return features.nbytes * len(strategy.extended.worker_devices) <= _SHARE * memory_bytes()


def on_each_device(strategy: tf.distribute.Strategy, *arrays: np.ndarray) -> Any:
    """A tuple of the arrays as tensors, with a copy on each device of this process."""
    devices = strategy.extended.worker_devices

    def copies(context: tf.distribute.experimental.ValueContext) -> tuple[tf.Tensor, ...]:
        with tf.device(devices[context.replica_id_in_sync_group % len(devices)]):
            return tuple(map(tf.constant, arrays))

    return strategy.experimental_distribute_values_from_function(copies)


def streamed(
    batches: PackedBatches, strategy: tf.distribute.Strategy, steps: range
) -> Iterator[tuple[np.ndarray, Any]]:
    """For each step the lists and the features [num_rows, F] of the replicas of this process.

    A thread reads the next batch while this one is trained on.
    """

    def read(step: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        lists = batches.lists(step)
        return lists, {replica: batches.features(lists[replica]) for replica in local}

    local = strategy.experimental_local_results(
        strategy.experimental_distribute_values_from_function(
            lambda context: context.replica_id_in_sync_group
        )
    )
    devices = strategy.extended.worker_devices

    def value(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        replica = context.replica_id_in_sync_group
        with tf.device(devices[replica % len(devices)]):
            return tf.constant(features[replica])

    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        following: collections.deque[concurrent.futures.Future] = collections.deque()
        for step in steps:
            lists, features = (following.popleft() if following else reader.submit(read, step)).result()
            if step + 1 in steps:
                following.append(reader.submit(read, step + 1))
            yield lists, strategy.experimental_distribute_values_from_function(value)

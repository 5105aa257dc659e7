"""The reference workload of the training benchmark and its meter; NumPy only, so that every peer can read it.

2,000 lists of 136 standardised features, log-normal sizes from 10 to 400 documents (mean about 118), teacher scores
with a standard deviation of 2 nats. Scorer 136-128-64-32-1, Adam, 128 lists a step, topk=10, 8 samples.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

NUM_FEATURES, HIDDEN = 136, (128, 64, 32)
LISTS_PER_STEP, TOPK, SAMPLE_SIZE, LEARNING_RATE = 128, 10, 8, 1e-3
CUT = 200  # documents of a list that the peers see: they pad every list to one size


@dataclasses.dataclass(frozen=True)
class Workload:
    features: np.ndarray  # float32 [docs, 136]
    labels: np.ndarray  # float32 [docs], 0 to 4
    teacher: np.ndarray  # float32 [docs]
    offsets: np.ndarray  # int64 [lists + 1]

    def padded(self, num_lists: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first lists cut and padded to CUT: features [lists, CUT, 136], teacher [lists, CUT], mask."""
        features = np.zeros((num_lists, CUT, NUM_FEATURES), np.float32)
        teacher, mask = np.zeros((num_lists, CUT), np.float32), np.zeros((num_lists, CUT), bool)
        for i in range(num_lists):
            start, size = self.offsets[i], min(CUT, self.offsets[i + 1] - self.offsets[i])
            features[i, :size] = self.features[start : start + size]
            teacher[i, :size] = self.teacher[start : start + size]
            mask[i, :size] = True
        return features, teacher, mask


def make(sizes: np.ndarray, *, num_features: int = NUM_FEATURES, seed: int = 1) -> Workload:
    """Lists of the given sizes."""
    random = np.random.default_rng(seed)
    num_docs = int(sizes.sum())
    features = random.standard_normal((num_docs, num_features), np.float32)
    weights = random.standard_normal((num_features, 16), np.float32) / np.float32(np.sqrt(num_features))
    utility = np.tanh(features @ weights).sum(1) + random.standard_normal(num_docs, np.float32)
    teacher = 2.0 * (utility - utility.mean()) / utility.std()
    labels = np.digitize(teacher, np.quantile(teacher, [0.52, 0.84, 0.968, 0.99]))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return Workload(features, labels.astype(np.float32), teacher.astype(np.float32), offsets)


def reference(num_lists: int = 2000) -> Workload:
    sizes = np.random.default_rng(1).lognormal(4.607, 0.6, num_lists)
    return make(np.clip(np.round(sizes), 10, 400).astype(np.int64))


class Meter:
    """Wall and CPU seconds (of all threads of this process and of its children) of a block."""

    def __enter__(self) -> Meter:
        self._cpu, self._wall = _cpu_seconds(), time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.cpu = _cpu_seconds() - self._cpu


def _cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def print_rates(num_docs: int, meters: list[Meter], **more: Any) -> None:
    """One line of JSON: documents per CPU and per wall second, the median of the epochs after the first."""
    later = meters[1:]
    row = {
        "docs_per_cpu_s": num_docs / float(np.median([meter.cpu for meter in later])),
        "docs_per_s": num_docs / float(np.median([meter.wall for meter in later])),
        "first_epoch_s": meters[0].wall,
    }
    print(json.dumps(row | more), flush=True)


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def limit_threads(threads: int) -> None:
    """For the libraries that read it from the environment; before they are imported."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)


CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rankdistil-bench"

"""What scoring costs."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

LIST_SIZE = 120  # documents a query in MSLR-WEB30K, mean


def latency(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    features: np.ndarray,
    *,
    bulk_docs: int = 8192,
    repetitions: int = 15,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Microseconds a document that `score` takes: the least of several calls after one to warm up.

    Trees are scored on one thread. TensorFlow's cannot be limited once it runs; their CPU time adds up.

    Args:
      score: (features [docs, F], offsets of lists of 120 documents) -> scores [docs]. It runs until its result is a
        numpy array.
      features: float32 [docs, F], rows to score; repeated or cut to the sizes needed.
      bulk_docs: documents in the bulk call.
      repetitions: timed calls of each size.
      clock: seconds; CPU time of all threads, which other processes change least, unless another is given.

    Returns:
      `us_per_doc` (one bulk call) and `us_per_doc_list120` (one list of 120 documents a call).

    Raises:
      ValueError: no documents, or scores of another shape.
    """
    if len(features) == 0:
        raise ValueError("features has no documents to time")
    with threadpool_limits(1, user_api="openmp"):
        return {
            "us_per_doc": _microseconds_per_doc(score, features, bulk_docs, repetitions, clock),
            f"us_per_doc_list{LIST_SIZE}": _microseconds_per_doc(
                score, features, LIST_SIZE, repetitions, clock
            ),
        }


def _microseconds_per_doc(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    features: np.ndarray,
    num_docs: int,
    repetitions: int,
    clock: Callable[[], float],
) -> float:
    rows = features[np.arange(num_docs) % len(features)]
    offsets = np.append(np.arange(0, num_docs, LIST_SIZE), num_docs)
    shape = np.shape(score(rows, offsets))
    if shape != (num_docs,):
        raise ValueError(f"score must give [{num_docs}] scores for {num_docs} documents, not {shape}")
    seconds = []
    for _ in range(repetitions):
        start = clock()
        np.asarray(score(rows, offsets))
        seconds.append(clock() - start)
    return min(seconds) / num_docs * 1e6

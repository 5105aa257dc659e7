"""The cost of scoring."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

LIST_SIZE = 120  # the mean number of documents of an MSLR-WEB30K query


def latency(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    features: np.ndarray,
    *,
    bulk_docs: int = 8192,
    repetitions: int = 15,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Microseconds per document that `score` takes: the minimum over several calls, after one call to warm up.

    Tree ensembles score on one thread. TensorFlow's threads cannot be limited after its start; the default clock adds
    up their CPU time.

    Args:
      score: (features [docs, F], offsets of lists of 120 documents) -> scores [docs], as a numpy array.
      features: float32 [docs, F], rows to score; repeated or cut to the number of documents.
      bulk_docs: documents in the bulk call.
      repetitions: timed calls of each kind.
      clock: seconds; by default the CPU time of all threads, which other processes influence least.

    Returns:
      `us_per_doc` (calls of `bulk_docs` documents) and `us_per_doc_list120` (calls of one list of 120 documents).

    Raises:
      ValueError: no documents, or scores of another shape.
    """
    if len(features) == 0:
        raise ValueError("features has no documents to time")

    def us_per_doc(num_docs: int) -> float:
        rows = features[np.arange(num_docs) % len(features)]
        offsets = np.append(np.arange(0, num_docs, LIST_SIZE), num_docs)
        shape = np.shape(score(rows, offsets))
        if shape != (num_docs,):
            raise ValueError(f"score must give [{num_docs}] scores for {num_docs} documents, not {shape}")
        seconds = []
        for _ in range(repetitions):
            start = clock()
            score(rows, offsets)
            seconds.append(clock() - start)
        return min(seconds) / num_docs * 1e6

    with threadpool_limits(1, user_api="openmp"):
        return {"us_per_doc": us_per_doc(bulk_docs), f"us_per_doc_list{LIST_SIZE}": us_per_doc(LIST_SIZE)}

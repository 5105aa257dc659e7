"""RankingData: query-grouped documents as four flat arrays, in memory or memory-mapped."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np

_ARRAYS = ("features", "labels", "offsets", "query_ids")


@dataclasses.dataclass(frozen=True, eq=False)
class RankingData:
    """Lists of documents, one list a query, stored without padding.

    Attributes:
      features: float32 [docs, F], finite.
      labels: float32 [docs], relevance labels, finite and >= 0; -1 throughout a list that nobody judged.
      offsets: int64 [queries + 1]; list q is rows `offsets[q]:offsets[q + 1]`, never empty.
      query_ids: str [queries], unique.
      num_missing: int64 [F], the values of each feature that stood for missing when they were read and are 0 now; None:
        none could. Not among what `save` writes.

    Raises:
      ValueError: the arrays do not fit together.
    """

    features: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    query_ids: np.ndarray
    num_missing: np.ndarray | None = None

    def __post_init__(self) -> None:
        num_docs = len(self.features)
        if self.features.ndim != 2 or self.features.dtype != np.float32:
            raise ValueError(
                f"features must be float32 [docs, F], not {self.features.dtype} {self.features.shape}"
            )
        if self.labels.shape != (num_docs,) or self.labels.dtype != np.float32:
            raise ValueError(
                f"labels must be float32 [{num_docs}], not {self.labels.dtype} {self.labels.shape}"
            )
        if self.offsets.dtype != np.int64 or self.offsets.ndim != 1 or len(self.offsets) < 1:
            raise ValueError(
                f"offsets must be int64 [queries + 1], not {self.offsets.dtype} {self.offsets.shape}"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != num_docs or (np.diff(self.offsets) < 1).any():
            raise ValueError(f"offsets must rise from 0 to {num_docs}: every list has at least one document")
        if self.query_ids.shape != (self.num_queries,) or self.query_ids.dtype.kind != "U":
            raise ValueError(f"query_ids must be str [{self.num_queries}], not {self.query_ids.dtype}")

    @property
    def num_queries(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_docs(self) -> int:
        return len(self.labels)

    @property
    def num_features(self) -> int:
        return int(self.features.shape[1])

    @property
    def list_sizes(self) -> np.ndarray:
        """int64 [queries]."""
        return np.diff(self.offsets)

    @property
    def list_of_doc(self) -> np.ndarray:
        """int64 [docs]: the number of the list that a document belongs to."""
        return np.repeat(np.arange(self.num_queries), self.list_sizes)

    @property
    def num_blank_queries(self) -> int:
        """Queries without a document of label > 0."""
        if self.num_queries == 0:
            return 0
        return int((np.maximum.reduceat(self.labels, self.offsets[:-1]) <= 0).sum())

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest of the content: equal for equal arrays, in memory or mapped."""
        digest = hashlib.sha256()
        for name in _ARRAYS:
            array = getattr(self, name)
            if name == "query_ids":  # the width of a numpy string type is not content
                digest.update("\n".join(array.tolist()).encode())
            else:
                digest.update(f"{name} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def take(self, queries: np.ndarray) -> RankingData:
        """The lists of `queries` (int [n]), in that order, copied."""
        sizes = self.list_sizes[queries]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[queries] - offsets[:-1], sizes)
        return RankingData(self.features[rows], self.labels[rows], offsets, self.query_ids[queries])

    def save(self, folder: Path) -> None:
        """Writes one .npy an array into an existing folder."""
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @staticmethod
    def load(folder: Path) -> RankingData:
        """Memory-maps what `save` wrote."""
        return RankingData(
            *(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS)
        )

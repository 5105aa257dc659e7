"""RankingData written list by list, in bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.data.ranking import RankingData
from pipeline.errors import UserError

_NPY_HEADER_BYTES = 128


@contextlib.contextmanager
def create_npy(path: Path, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """A new .npy file to which the float32 values of an array of that shape are then written."""
    with path.open("wb") as file:
        _write_header(file, shape)
        yield file


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    assert file.tell() == _NPY_HEADER_BYTES


class RankingWriter:
    """Writes the files of `RankingData.save` into an existing folder; the features go to the disk as they come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._features = (folder / "features.npy").open("w+b")
        self._features.write(b"\0" * _NPY_HEADER_BYTES)
        self._num_features: int | None = None
        self._labels: list[np.ndarray] = []
        self._query_ids: dict[str, None] = {}

    def append(self, query_id: str, features: np.ndarray, labels: np.ndarray) -> None:
        """One list: float32 [list_size, F], float32 [list_size].

        Raises:
          ValueError: the query was there before, or has no documents, or another number of features.
        """
        if query_id in self._query_ids:
            raise UserError(
                f"query {query_id!r} comes twice",
                fix="bring its documents together",
            )
        if len(labels) == 0 or features.shape != (len(labels), self._num_features or features.shape[-1]):
            raise ValueError(
                f"query {query_id!r} has features {list(features.shape)} and {len(labels)} labels; it needs "
                f"[{len(labels)}, {self._num_features or 'F'}] and at least one document"
            )
        self._num_features = int(features.shape[1])
        self._query_ids[query_id] = None
        self._labels.append(labels.astype(np.float32))
        features.astype(np.float32, copy=False).tofile(self._features)

    def finish(self) -> RankingData:
        """Completes the files -> the data, mapped from them.

        Raises:
          ValueError: there was no list.
        """
        if not self._labels:
            raise UserError(
                "the split holds no query",
                fix="give a data set whose splits all have some",
            )
        labels = np.concatenate(self._labels)
        self._features.seek(0)
        assert self._num_features is not None
        _write_header(self._features, (len(labels), self._num_features))
        self._features.close()
        offsets = np.cumsum([0, *map(len, self._labels)]).astype(np.int64)
        arrays = {"labels": labels, "offsets": offsets, "query_ids": np.array(list(self._query_ids))}
        for name, array in arrays.items():
            np.save(self._folder / f"{name}.npy", array, allow_pickle=False)
        return RankingData.load(self._folder)

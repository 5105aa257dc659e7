"""The dense matrix that parsed rows are written to, in memory or in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.data.letor.block import Block
from pipeline.data.letor.parser import fill

_HEADER_BYTES = 128  # of an .npy file
_CHUNK_VALUES = 1 << 18  # written or moved at a time: 1 MiB


class Matrix:
    """A float32 matrix that grows by rows and columns without a second copy, in memory or in an .npy file."""

    def __init__(self, path: Path | None, num_features: int) -> None:
        self.num_features = num_features
        self.num_missing = np.zeros(num_features, np.int64)  # see RankingData
        self._path = path
        self._rows = 0
        self._width = num_features  # columns stored: while the matrix grows, sometimes more than num_features
        self._flat = np.zeros(0, np.float32)  # in memory; has room for more rows than there are
        self._file: BinaryIO | None = None
        if path is not None:
            self._file = path.open("w+b", buffering=0)
            self._file.write(bytes(_HEADER_BYTES))

    def append(self, block: Block, *, duplicates: str) -> int:
        """Adds the rows -> the first row of the block with a sum that overflows, or -1."""
        self.num_features = max(self.num_features, block.num_features)
        before, self.num_missing = self.num_missing, np.bincount(block.missing, minlength=self.num_features)
        self.num_missing[: before.size] += before
        if self.num_features > self._width:
            # An eighth more than needed: indices that rise throughout a file would move the matrix at each block.
            self._set_width(max(self.num_features, self._width * 9 // 8 if self._rows else 0))
        first = self._rows
        self._rows += len(block.labels)
        if self._file is None:
            size = self._rows * self._width
            if size > self._flat.size:  # realloc, which moves pages and not bytes where the C library can
                self._flat.resize(max(size, self._flat.size * 17 // 16), refcheck=False)
            return write_rows(self._flat, first, self._width, block, duplicates)
        overflow = -1
        step = max(_CHUNK_VALUES // max(self._width, 1), 1)
        for first in range(0, len(block.labels), step):
            part = _rows_of(block, first, first + step)
            flat = np.zeros(len(part.labels) * self._width, np.float32)
            found = write_rows(flat, 0, self._width, part, duplicates)
            if overflow < 0 <= found:
                overflow = first + found
            _write(self._file, flat)
        return overflow

    def finish(self) -> np.ndarray:
        """float32 [rows, num_features], writable."""
        if self._width > self.num_features:
            self._set_width(self.num_features)
        size, shape = self._rows * self.num_features, (self._rows, self.num_features)
        if self._file is None:
            self._flat.resize(size, refcheck=False)
            return self._flat.reshape(shape)
        self._file.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        assert self._file.tell() == _HEADER_BYTES
        self._file.close()
        return self._mapped(size).reshape(shape)

    def discard(self) -> None:
        """Removes the file after an error."""
        if self._path is not None and self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _set_width(self, width: int) -> None:
        old, self._width = self._width, width
        if self._rows == 0:
            return
        size = self._rows * max(old, width)
        if self._file is None:
            self._flat.resize(max(size, self._flat.size), refcheck=False)
            change_width(self._flat, self._rows, old, width)
            return
        num_bytes = _HEADER_BYTES + 4 * size
        if hasattr(os, "posix_fallocate"):  # a full disk is an OSError here, but a SIGBUS in a mapping
            os.posix_fallocate(self._file.fileno(), 0, num_bytes)
        else:
            self._file.truncate(num_bytes)
        change_width(self._mapped(size), self._rows, old, width)
        self._file.truncate(_HEADER_BYTES + 4 * self._rows * width)
        self._file.seek(0, os.SEEK_END)

    def _mapped(self, size: int) -> np.ndarray:
        assert self._path is not None
        return np.memmap(self._path, np.float32, "r+", _HEADER_BYTES, (size,)).view(np.ndarray)


def _rows_of(block: Block, first: int, last: int) -> Block:
    """The part of the block with its rows `first:last`."""
    start = int(block.row_ends[first - 1]) if first else 0
    return block._replace(
        labels=block.labels[first:last],
        row_ends=block.row_ends[first:last] - start,
        indices=block.indices[start:],
        values=block.values[start:],
    )


def _write(file: BinaryIO, values: np.ndarray) -> None:
    left = values.view(np.uint8)
    while left.size:
        left = left[file.write(left.data) :]


def write_rows(flat: np.ndarray, first: int, width: int, block: Block, duplicates: str) -> int:
    """Writes the rows of a block from row `first` on; see parser.fill."""
    how = (duplicates == "first", duplicates == "sum")
    overflow: int = fill(flat, first, width, block.row_ends, block.indices, block.values, *how)
    return overflow


def change_width(flat: np.ndarray, rows: int, old: int, new: int) -> None:
    """Turns [rows, old] into [rows, new] in place: removes columns, or adds columns of zeros."""
    step = max(_CHUNK_VALUES // max(old, new), 1)
    starts = range(0, rows, step)
    kept = min(old, new)
    for first in starts if new < old else reversed(starts):
        last = min(first + step, rows)
        moved = np.zeros((last - first, new), np.float32)
        moved[:, :kept] = flat[first * old : last * old].reshape(last - first, old)[:, :kept]
        flat[first * new : last * new] = moved.reshape(-1)


def reorder_rows(matrix: np.ndarray, order: np.ndarray) -> None:
    """matrix[:] = matrix[order] in place, for a permutation `order`."""
    left = order.tolist()
    for first in range(len(left)):
        if left[first] == first:
            continue
        kept = matrix[first].copy()
        row = first
        while left[row] != first:
            source = left[row]
            matrix[row] = matrix[source]
            left[row] = row
            row = source
        matrix[row] = kept
        left[row] = row

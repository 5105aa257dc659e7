"""The dense matrix that scanned rows go to, in memory or in a file, and its compiled loops."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.data.letor_block import Block
from pipeline.data.letor_parse import compiled

_NPY_HEADER_BYTES = 128
_WRITTEN_VALUES = 1 << 16  # at a time: 256 kB, what a processor's cache holds; whole pages of the file
_U64 = np.uint64  # as an index it spares the test for numbers that count from the end


class Matrix:
    """A float32 matrix that grows by rows and columns without a second copy, in memory or in an .npy file."""

    def __init__(self, path: Path | None, num_features: int) -> None:
        self.num_features = num_features
        self.num_missing = np.zeros(num_features, np.int64)  # see RankingData
        self._path = path
        self._rows = 0
        self._width = num_features  # may run ahead of num_features
        # In memory: zeros behind the last row. Else the end of the file, `_held` values of it still to be written.
        self._flat = np.zeros(0, np.float32)
        self._held = 0
        self._file: BinaryIO | None = None
        if path is not None:
            # Written to, not mapped: mapping costs a fault for each page.
            self._file = path.open("w+b", buffering=0)
            self._flat = np.zeros(_WRITTEN_VALUES + num_features, np.float32)
            self._held = _NPY_HEADER_BYTES // 4

    def append(self, block: Block, *, duplicates: str, share: float) -> int:
        """Takes the rows in -> the first row of the block with a sum that overflows, or -1.

        About `share` of the file has been read: so much memory is asked for at once; pages never touched cost nothing.
        """
        self.num_features = max(self.num_features, block.num_features)
        before, self.num_missing = self.num_missing, np.bincount(block.missing, minlength=self.num_features)
        self.num_missing[: before.size] += before
        if self.num_features > self._width:
            width = self.num_features
            if self._rows:
                # Wider than needed: else a file whose indices rise to its end is moved at each block.
                width = max(width, self._width * 9 // 8)
                self._change_width(width, share)
            self._width = width
        first = self._rows
        self._rows += len(block.labels)
        if self._file is not None:
            return self._write(block, duplicates)
        self._reserve(self._rows * self._width, share)
        return write_rows(self._flat, first, self._width, block, duplicates=duplicates)

    def finish(self) -> np.ndarray:
        """float32 [rows, num_features], writable."""
        if self._width > self.num_features:
            self._change_width(self.num_features, 1.0)
        size, shape = self._rows * self.num_features, (self._rows, self.num_features)
        if self._file is None:
            self._flat.resize(size, refcheck=False)
            return self._flat.reshape(shape)
        self._write_held(self._held)
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        assert self._file.tell() == _NPY_HEADER_BYTES
        self._file.close()
        return self._mapped(size).reshape(shape)

    def discard(self) -> None:
        """Removes the file of a reading that failed."""
        if self._path is not None and self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _write(self, block: Block, duplicates: str) -> int:
        """Appends the rows to the file."""
        if self._flat.size < _WRITTEN_VALUES + self._width:
            wider = np.empty(_WRITTEN_VALUES + self._width, np.float32)
            wider[: self._held] = self._flat[: self._held]
            self._flat = wider
        overflow, first = -1, 0
        while first < len(block.labels) and self._width:
            part = block.part(first, first + (self._flat.size - self._held) // self._width)
            rows = self._flat[self._held : self._held + len(part.labels) * self._width]
            rows[:] = 0
            found = write_rows(rows, 0, self._width, part, duplicates=duplicates)
            if overflow < 0 <= found:
                overflow = first + found
            first += len(part.labels)
            self._held += rows.size
            self._write_held(self._held - self._held % _WRITTEN_VALUES)
        return overflow

    def _write_held(self, size: int) -> None:
        """The first `size` values of those that are held."""
        assert self._file is not None
        left = self._flat[:size].view(np.uint8)
        while left.size:
            left = left[self._file.write(left.data) :]
        self._held -= size
        self._flat[: self._held] = self._flat[size : size + self._held]

    def _change_width(self, width: int, share: float) -> None:
        """Of the rows that are there."""
        size = self._rows * max(width, self._width)
        if self._file is None:
            self._reserve(size, share)
            change_width(self._flat, self._rows, self._width, width)
            return
        self._write_held(self._held)
        num_bytes = _NPY_HEADER_BYTES + 4 * size
        if hasattr(os, "posix_fallocate"):  # a full disk is an OSError here, and a SIGBUS in a mapping
            os.posix_fallocate(self._file.fileno(), 0, num_bytes)
        else:
            self._file.truncate(num_bytes)
        change_width(self._mapped(size), self._rows, self._width, width)
        self._file.truncate(_NPY_HEADER_BYTES + 4 * self._rows * width)
        self._file.seek(0, os.SEEK_END)

    def _reserve(self, size: int, share: float) -> None:
        if size <= self._flat.size:
            return
        if self._flat.size == 0:
            with contextlib.suppress(MemoryError):  # it is a guess
                self._flat = np.zeros(max(int(size * 1.01 / share), size), np.float32)
                return
        # realloc, which moves pages, not bytes, where the C library can; numpy fills the rest with zeros
        self._flat.resize(max(self._flat.size * 17 // 16, size), refcheck=False)

    def _mapped(self, size: int) -> np.ndarray:
        assert self._path is not None
        return np.memmap(self._path, np.float32, "r+", _NPY_HEADER_BYTES, (size,)).view(np.ndarray)


def write_rows(flat: np.ndarray, first: int, width: int, block: Block, *, duplicates: str) -> int:
    """Writes the rows of a block from row `first` on; see `fill`."""
    how = (duplicates == "first", duplicates == "sum")
    overflow: int = fill(flat, first, width, block.row_ends, block.indices, block.values, *how)
    return overflow


@compiled
def fill(
    flat: np.ndarray,  # float32 [at least (first + rows) * width], zero where these rows go
    first: int,
    width: int,
    row_ends: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    backwards: bool,  # so that of two values of a feature the first one stays
    add: bool,
) -> int:
    """Writes scanned rows into a dense matrix -> the first row with a sum that overflows, or -1."""
    overflow = -1
    start = 0
    for row in range(row_ends.size):
        base = (first + row) * width
        stop = row_ends[row]
        if add:
            for entry in range(start, stop):
                flat[_U64(base + indices[entry])] += values[entry]
                if overflow < 0 and not np.isfinite(flat[_U64(base + indices[entry])]):
                    overflow = row
        elif backwards:
            for entry in range(stop - 1, start - 1, -1):
                flat[_U64(base + indices[entry])] = values[entry]
        else:
            for entry in range(start, stop):
                flat[_U64(base + indices[entry])] = values[entry]
        start = stop
    return overflow


@compiled
def change_width(flat: np.ndarray, rows: int, old: int, new: int) -> None:
    """Turns [rows, old] into [rows, new] in place: cuts columns off, or adds columns of zeros."""
    if new < old:
        for row in range(rows):
            for column in range(new):
                flat[row * new + column] = flat[row * old + column]
    else:
        for row in range(rows - 1, -1, -1):
            for column in range(old - 1, -1, -1):
                flat[row * new + column] = flat[row * old + column]
            flat[row * new + old : (row + 1) * new] = 0


@compiled
def take_rows(matrix: np.ndarray, order: np.ndarray) -> None:
    """matrix[:] = matrix[order] in place, for a permutation `order`, which is used up."""
    for first in range(order.size):
        if order[first] == first:
            continue
        kept = matrix[first].copy()
        row = first
        while order[row] != first:
            source = order[row]
            matrix[row] = matrix[source]
            order[row] = row
            row = source
        matrix[row] = kept
        order[row] = row

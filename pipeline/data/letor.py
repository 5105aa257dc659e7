"""LETOR / SVMrank text, plain or compressed, to RankingData: streamed, parsed by compiled code in threads, checked."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.data import letor_parse as parse
from pipeline.data.letor_block import Block, Fault, Options, Scratch, scan_block
from pipeline.data.letor_matrix import Matrix, take_rows
from pipeline.data.letor_queries import Queries
from pipeline.data.letor_text import LetorError, Text, read_blocks
from pipeline.data.ranking import RankingData

DUPLICATES = ("error", "first", "last", "sum")
UNSORTED = ("error", "accept")

_STRAY_TIMES, _LARGE_BYTES = 300, 1 << 30  # see _stray_index
_AHEAD = 1  # blocks more than threads, so that all of these are at work while rows are written


def read_letor(
    path: Path | str,
    *,
    num_features: int | None = None,
    duplicates: str = "error",
    unsorted: str = "error",
    regroup: bool = False,
    missing_value: float | None = None,
    group_sizes: Path | str | None = None,
    judged: bool = True,
    out_dir: Path | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    block_bytes: int | None = None,
) -> RankingData:
    """Reads `<label> qid:<id> <index>:<value> ... # comment` lines, plain or .gz, .bz2, .xz (told by content).

    Every value is the float32 nearest to its text; indices start at 1, a feature that a line leaves out is 0.
    Blank lines, lines of comment only, CRLF, tabs, repeated spaces and a missing last newline (of a line that does not
    look cut off) are fine; `#` begins a comment anywhere; a query id is any UTF-8 text without white space, up to
    1024 bytes. Whatever else is unusual is an error: nothing is skipped or guessed. `threads` and `block_bytes` change
    neither the arrays nor the error.

    Args:
      path: the file.
      num_features: the columns; a larger index is an error. (Errors call this data.num_features, and so on: the options
        of data=letor.) None: the largest index in the file (up to 1,000,000, and an error where it is 300 times what
        rows hold and the matrix would have more than 1 GiB, as estimated from the blocks so far).
      duplicates: which of several values of a feature in one line counts: "error" (none may be), "first", "last",
        or "sum" (in float32, from left to right).
      unsorted: "error" or "accept" feature ids that do not rise within a line.
      regroup: gathers the rows of each query, in order of first appearance; else a query that
        returns after another one is an error.
      missing_value: a number that stands for "missing" and becomes 0, compared in float64 to a relative 1e-9. What
        overflows float64, as Istella's 1.79769313486232e+308 does, counts as the largest float64.
      group_sizes: LightGBM's .query or XGBoost's .group file, the number of rows of each query, one a line, for a file
        without qid; the ids are "1", "2", ...
      judged: a label below 0 is an error; False where labels are not used (-1: LETOR 4's sets of unjudged documents).
      out_dir: an existing folder to write the arrays to as `RankingData.save` does, in bounded memory; the
        result is mapped from there.
      threads: that parse; None: one a core, at most 4.
      progress: called with (bytes read, bytes in all) of the file as it lies on the disk.
      block_bytes: of text that is parsed at a time; None: a 256th of the file, within 2^19 to 2^21.

    Raises:
      LetorError: the first thing that is wrong in the file.
      ValueError: an option that cannot be.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "tiny.txt"
    >>> _ = path.write_text("2 qid:a 1:0.5 3:-1e1 # a comment\\n0 qid:a 2:7\\n1 qid:b 3:4\\n")
    >>> data = read_letor(path)
    >>> data.features.tolist(), data.labels.tolist()
    ([[0.5, 0.0, -10.0], [0.0, 7.0, 0.0], [0.0, 0.0, 4.0]], [2.0, 0.0, 1.0])
    >>> data.query_ids.tolist(), data.offsets.tolist()
    (['a', 'b'], [0, 2, 3])
    """
    path = Path(path)
    _check(
        num_features is None or 1 <= num_features <= parse.MAX_INDEX,
        "num_features",
        num_features,
        "1 to 1000000",
    )
    _check(duplicates in DUPLICATES, "duplicates", duplicates, ", ".join(DUPLICATES))
    _check(unsorted in UNSORTED, "unsorted", unsorted, ", ".join(UNSORTED))
    _check(
        not regroup or group_sizes is None, "regroup", regroup, "False with group_sizes, which hold the order"
    )
    _check(
        missing_value is None or not math.isnan(missing_value),
        "missing_value",
        missing_value,
        "a number",
    )
    _check(out_dir is None or out_dir.is_dir(), "out_dir", out_dir, "an existing folder")
    _check(threads is None or threads >= 1, "threads", threads, "1 or more")
    _check(block_bytes is None or block_bytes >= 1, "block_bytes", block_bytes, "1 or more")
    options = Options(num_features, duplicates, unsorted, missing_value, group_sizes is None, judged)
    queries = Queries(path, regroup=regroup, group_sizes=None if group_sizes is None else Path(group_sizes))
    matrix = Matrix(None if out_dir is None else out_dir / "features.npy", num_features or 0)
    try:
        scanned = scanned_blocks(path, options, threads or num_cores(), block_bytes)
        with contextlib.closing(scanned) as blocks:
            labels, starts, names = _collect(queries, blocks, matrix, duplicates, progress)
        features = matrix.finish()
        offsets, query_ids = _gather(features, labels, starts, names)
    except BaseException:
        matrix.discard()
        raise
    num_missing = None if missing_value is None else matrix.num_missing
    if out_dir is None:
        return RankingData(features, labels, offsets, query_ids, num_missing)
    for name, array in (("labels", labels), ("offsets", offsets), ("query_ids", query_ids)):
        np.save(out_dir / f"{name}.npy", array, allow_pickle=False)
    return dataclasses.replace(RankingData.load(out_dir), num_missing=num_missing)


def _check(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise ValueError(f"{name}={value!r} is not possible; allowed: {allowed}")


def num_cores() -> int:
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def scanned_blocks(
    path: Path, options: Options, threads: int, block_bytes: int | None
) -> Generator[tuple[Block, int, int], None, None]:
    """The blocks in the order of the file, `threads` of them at work."""
    spare: list[bytearray] = []
    scratches: list[Scratch] = []
    texts = enumerate(read_blocks(path, block_bytes, spare))
    reading = threading.Lock()

    def scanned() -> _Scanned | LetorError | None:
        """The next block, read and decompressed here, too: whoever takes the blocks has the rows to write."""
        with reading:
            try:
                number, text = next(texts)
            except StopIteration:
                return None
            except LetorError as error:
                return error
            scratch = scratches.pop() if scratches else Scratch()
        return _Scanned(number, text, scan_block(text.buffer, text.size, options, scratch), scratch)

    with ThreadPoolExecutor(threads) as pool:
        tasks = deque(pool.submit(scanned) for _ in range(threads + _AHEAD))
        early: dict[int, _Scanned] = {}
        failure = None
        for number in itertools.count():
            while tasks and number not in early:  # threads may read in another order than they were asked
                found = tasks.popleft().result()
                if isinstance(found, _Scanned):
                    early[found.number] = found
                elif found:
                    failure = found
            if number not in early:
                break
            found = early.pop(number)
            yield found.block, found.text.position, found.text.num_bytes
            spare.append(found.text.buffer)
            scratches.append(found.scratch)
            tasks.append(pool.submit(scanned))
    if failure is not None:  # comes after whatever is wrong in the blocks before it
        raise failure


class _Scanned(NamedTuple):
    number: int
    text: Text
    block: Block
    scratch: Scratch


def _collect(
    queries: Queries,
    blocks: Iterator[tuple[Block, int, int]],
    matrix: Matrix,
    duplicates: str,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Fills the matrix -> labels float32 [docs], the first row of each run of one query, the query ids of the runs."""
    labels: list[np.ndarray] = []
    runs: list[tuple[int, str]] = []
    num_rows = 0
    for block, position, num_bytes in blocks:
        runs += [(num_rows + row, name) for row, name in queries.begin(block)]
        share, overflow = position / num_bytes, -1
        stray = _stray_index(block, matrix.num_features, round((num_rows + len(block.labels)) / share))
        try:
            if stray is None:
                overflow = matrix.append(block, duplicates=duplicates, share=share)
        except MemoryError as error:
            shape = f"{num_rows + len(block.labels)} rows of {matrix.num_features} features"
            what = f"the memory does not hold {shape}, the largest index here"
            mend = "check the largest feature index, or give out_dir"
            raise queries.error(block.widest_line, what, mend) from error
        queries.end(block, stray, overflow=overflow)
        labels.append(block.labels.copy())
        num_rows += len(block.labels)
        if progress is not None:
            progress(position, num_bytes)
    if progress is not None and num_rows and position < num_bytes:  # the check sums at the end of a .gz
        progress(num_bytes, num_bytes)

    queries.finish()
    if matrix.num_features == 0:
        raise queries.error(
            None, "holds no feature", "give data.num_features if all values are meant to be 0"
        )
    starts, names = zip(*runs, strict=True)
    return np.concatenate(labels), np.array(starts, np.int64), list(names)


def _stray_index(block: Block, num_features: int, num_rows: int) -> Fault | None:
    """An index that makes a large matrix of rows that hold little; `num_features`: without the block."""
    mean = len(block.indices) / max(len(block.labels), 1)
    if (
        block.num_features <= max(num_features, _STRAY_TIMES * mean)
        or 4 * block.num_features * num_rows < _LARGE_BYTES
    ):
        return None
    return Fault(
        block.widest_line,
        f"the feature index {block.num_features}, more than {_STRAY_TIMES} times what rows hold here",
        f"correct it, or set data.num_features ({block.num_features} or more): the matrix then has more than 1 GiB",
    )


def _gather(
    features: np.ndarray, labels: np.ndarray, starts: np.ndarray, names: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Brings the runs of each query together, in place -> (offsets, query ids)."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    sizes = np.diff(starts, append=len(labels))
    query_of_run = np.array([numbers[name] for name in names])
    if len(numbers) < len(names):
        runs = np.argsort(query_of_run, kind="stable")
        ends = np.cumsum(sizes[runs])
        order = np.arange(len(labels)) + np.repeat(starts[runs] - ends + sizes[runs], sizes[runs])
        labels[:] = labels[order]
        take_rows(features, order)
    offsets = np.zeros(len(numbers) + 1, np.int64)
    np.add.at(offsets, query_of_run + 1, sizes)
    return np.cumsum(offsets), np.array(list(numbers))

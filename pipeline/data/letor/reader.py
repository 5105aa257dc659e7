"""LETOR / SVMrank text to RankingData: read in blocks, parsed by compiled code in threads, checked."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.data.letor import DUPLICATES, UNSORTED
from pipeline.data.letor.block import Block, scan_block
from pipeline.data.letor.checks import MAX_INDEX, Options, Problem
from pipeline.data.letor.errors import LetorError
from pipeline.data.letor.matrix import Matrix, reorder_rows
from pipeline.data.letor.queries import Queries
from pipeline.data.letor.text import Text, read_blocks
from pipeline.data.ranking import RankingData
from pipeline.errors import UserError

_STRAY_RATIO, _LARGE_BYTES = 300, 1 << 30  # see _stray_index


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
    """Reads `<label> qid:<id> <index>:<value> ... # comment` lines, plain or .gz, .bz2, .xz (detected by content).

    Every value is the float32 nearest to its text. Indices start at 1; a feature that a line leaves out is 0.
    Blank lines, comment lines, CRLF, tabs, repeated spaces and a missing last newline (unless the line looks cut off)
    are accepted. `#` begins a comment anywhere. A query id is UTF-8 text without white space, up to 1024 bytes.
    Everything else is an error: nothing is skipped or guessed. `threads` and `block_bytes` change neither the
    arrays nor the error.

    Args:
      path: the file.
      num_features: the columns; a larger index is an error. None: the largest index in the file, up to 1,000,000. Then
        an index is an error if it makes a matrix of more than 1 GiB (as estimated from the blocks read so far) and is
        300 times the number of values in a row.
      duplicates: which of several values of a feature in one line is kept: "error" (more than one is an error),
        "first", "last", or "sum" (in float32, from left to right).
      unsorted: feature indices that fall within a line: "error" or "accept".
      regroup: True gathers the rows of each query, in order of first appearance; False: a query that returns after
        another one is an error.
      missing_value: a number that stands for "missing" and becomes 0, compared in float64 with a relative tolerance of
        1e-9. Values that overflow float64, such as Istella's 1.79769313486232e+308, count as the largest float64.
      group_sizes: LightGBM's .query or XGBoost's .group file, with the number of rows of each query, one a line, for a
        file without qid. The query ids are then "1", "2", ...
      judged: a label below 0 is an error. False where labels are not used (-1 in LETOR 4's unjudged sets).
      out_dir: an existing folder to write the arrays to, as `RankingData.save` does, in bounded memory. The result
        is memory-mapped from there.
      threads: the number of parsing threads; None: one for each available core, at most 4.
      progress: called with (bytes read, bytes in total) of the file on the disk.
      block_bytes: the amount of text parsed at a time; None: a 256th of the file, within 2^19 to 2^21.

    Raises:
      LetorError: the first error in the file.
      UserError: an argument that is not possible.

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
    in_range = num_features is None or 1 <= num_features <= MAX_INDEX
    _check(in_range, "num_features", num_features, "a number from 1 to 1000000")
    _check(duplicates in DUPLICATES, "duplicates", duplicates, " or ".join(DUPLICATES))
    _check(unsorted in UNSORTED, "unsorted", unsorted, " or ".join(UNSORTED))
    _check(not regroup or group_sizes is None, "regroup", regroup, "False with group_sizes")
    is_number = missing_value is None or not math.isnan(missing_value)
    _check(is_number, "missing_value", missing_value, "a number")
    _check(out_dir is None or out_dir.is_dir(), "out_dir", out_dir, "an existing folder")
    _check(threads is None or threads >= 1, "threads", threads, "1 or more")
    _check(block_bytes is None or block_bytes >= 1, "block_bytes", block_bytes, "1 or more")
    options = Options(num_features, duplicates, unsorted, missing_value, group_sizes is None, judged)
    queries = Queries(path, regroup=regroup, group_sizes=None if group_sizes is None else Path(group_sizes))
    matrix = Matrix(None if out_dir is None else out_dir / "features.npy", num_features or 0)
    try:
        with contextlib.closing(parsed_blocks(path, options, threads, block_bytes)) as blocks:
            labels, starts, names = _collect(queries, blocks, matrix, duplicates, progress)
        if matrix.num_features == 0:
            fix = "give a file with features"
            raise LetorError("no feature in the file", path, fix=fix, argument="num_features")
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
        raise UserError("this value is not possible", where=f"{name}={value!r}", fix=f"give {allowed}")


def _num_cores() -> int:
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def parsed_blocks(
    path: Path, options: Options, threads: int | None, block_bytes: int | None
) -> Generator[tuple[Block, Text], None, None]:
    """The blocks in the order of the file; `threads` of them are parsed at the same time."""
    threads = threads or _num_cores()
    texts = read_blocks(path, block_bytes)
    pending: deque[tuple[Future[Block], Text]] = deque()
    failure = None
    with ThreadPoolExecutor(threads) as pool:
        while True:
            try:
                text = next(texts, None)
            except LetorError as error:  # raised after the errors in the blocks before it
                failure, text = error, None
            if text is not None:
                pending.append((pool.submit(scan_block, text.buffer, text.size, options), text))
            elif not pending:
                break
            if text is None or len(pending) > threads:
                future, text = pending.popleft()
                yield future.result(), text
    if failure is not None:
        raise failure


def _collect(
    queries: Queries,
    blocks: Iterator[tuple[Block, Text]],
    matrix: Matrix,
    duplicates: str,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Fills the matrix -> labels float32 [docs], the first row of each run of one query, the query ids of the runs."""
    labels: list[np.ndarray] = []
    runs: list[tuple[int, str]] = []
    num_rows = 0
    for block, text in blocks:
        runs += [(num_rows + row, name) for row, name in queries.begin(block)]
        num_rows += len(block.labels)
        overflow, problem = -1, _stray_index(block, matrix, round(num_rows * text.num_bytes / text.position))
        if problem is None:
            try:
                overflow = matrix.append(block, duplicates=duplicates)
            except MemoryError:
                what = f"not enough memory for {num_rows} rows of {matrix.num_features} features, the largest index"
                problem = Problem(block.widest_line, what, "check the largest feature index", "out_dir")
        queries.end(block, problem, overflow=overflow, is_compressed=text.is_compressed)
        labels.append(block.labels.copy())
        if progress is not None:
            progress(text.position, text.num_bytes)
    if (
        progress is not None and num_rows and text.position < text.num_bytes
    ):  # the checksums at the end of a .gz
        progress(text.num_bytes, text.num_bytes)
    queries.finish()
    starts, names = zip(*runs, strict=True)
    return np.concatenate(labels), np.array(starts, np.int64), list(names)


def _stray_index(block: Block, matrix: Matrix, num_rows: int) -> Problem | None:
    """A new largest index that makes a large matrix of rows with few values; `num_rows`: expected in the file."""
    largest = block.num_features
    per_row = len(block.indices) / max(len(block.labels), 1)
    if largest <= max(matrix.num_features, _STRAY_RATIO * per_row) or 4 * largest * num_rows < _LARGE_BYTES:
        return None
    what = f"the feature index {largest} is more than {_STRAY_RATIO} times the number of values in a row"
    value = f"{largest} or more: the matrix then has more than 1 GiB"
    return Problem(block.widest_line, what, "correct the index", "num_features", value)


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
        reorder_rows(features, order)
    offsets = np.zeros(len(numbers) + 1, np.int64)
    np.add.at(offsets, query_of_run + 1, sizes)
    return np.cumsum(offsets), np.array(list(numbers))

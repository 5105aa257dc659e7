"""LETOR text of any size, a few complete lists at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pipeline.data.letor.checks import Options
from pipeline.data.letor.matrix import write_rows
from pipeline.data.letor.queries import Queries
from pipeline.data.letor.reader import parsed_blocks
from pipeline.data.ranking import RankingData


def read_lists(
    path: Path | str,
    *,
    num_features: int,
    duplicates: str = "error",
    unsorted: str = "error",
    missing_value: float | None = None,
    group_sizes: Path | None = None,
    judged: bool = True,
    progress: Callable[[int, int], None] | None = None,
    block_bytes: int | None = None,
) -> Iterator[RankingData]:
    """The lists of `read_letor` in parts; only a few blocks, the longest list and the query ids are in memory.

    Args:
      path: the file; the rows of each query are together.
      num_features: the columns; a larger index is an error.
      duplicates, unsorted, missing_value, group_sizes, judged, progress, block_bytes: as for `read_letor`.

    Yields:
      Complete lists in the order of the file.

    Raises:
      LetorError: the first error in the file, when it is reached.
    """
    path = Path(path)
    options = Options(num_features, duplicates, unsorted, missing_value, group_sizes is None, judged)
    queries = Queries(path, group_sizes=group_sizes)
    # The last list, as far as it has been read:
    features, labels = np.zeros((0, num_features), np.float32), np.zeros(0, np.float32)
    name: str | None = None
    with contextlib.closing(parsed_blocks(path, options, None, block_bytes)) as blocks:
        for block, text in blocks:
            rows = np.zeros((len(block.labels), num_features), np.float32)
            overflow = write_rows(rows.reshape(-1), 0, num_features, block, duplicates)
            begun = queries.begin(block)
            queries.end(block, overflow=overflow, is_compressed=text.is_compressed)
            starts = [len(labels) + row for row, _ in begun]
            names = [query for _, query in begun]
            if name is not None:
                starts, names = [0, *starts], [name, *names]
            features, labels = np.concatenate([features, rows]), np.concatenate([labels, block.labels])
            if len(starts) > 1:
                end = starts[-1]
                offsets, ids = np.array(starts, np.int64), np.array(names[:-1])
                yield RankingData(features[:end], labels[:end], offsets, ids)
                features, labels = features[end:].copy(), labels[end:].copy()
            name = names[-1] if names else None
            if progress is not None:
                progress(text.position, text.num_bytes)
    queries.finish()
    assert name is not None
    yield RankingData(features, labels, np.array([0, len(labels)]), np.array([name]))

"""per_query.csv: every metric of every model for every query."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import numpy as np

from pipeline.data import RankingData

_QUERY_COLUMNS = ["query_id", "num_docs", "num_relevant"]


@dataclasses.dataclass(frozen=True, eq=False)
class PerQuery:
    """What per_query.csv holds.

    Attributes:
      query_ids: str [queries].
      num_docs: int64 [queries].
      num_relevant: int64 [queries], documents with label > 0.
      metrics: model -> metric -> float64 [queries], NaN where it has no value.
    """

    query_ids: np.ndarray
    num_docs: np.ndarray
    num_relevant: np.ndarray
    metrics: dict[str, dict[str, np.ndarray]]


def write_per_query(
    file: Path | TextIO, data: RankingData, metrics: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Writes a row a query: id, list size, number of relevant documents, a cell for each `model/metric`.

    Numbers are written in full, so that reading gives the same bits; NaN (no relevant document) is an empty
    cell. A query id may hold anything printable; one that a spreadsheet would take for a formula gets a ' in
    front, which `read_per_query` takes away. An open file needs `newline=""`.

    Raises:
      ValueError: a metric that does not have one value a query.
    """
    columns = {f"{model}/{metric}": v for model, values in metrics.items() for metric, v in values.items()}
    for name, values in columns.items():
        if np.shape(values) != (data.num_queries,):
            raise ValueError(f"{name}: shape {np.shape(values)}, must be ({data.num_queries},), one a query")
    if isinstance(file, Path):
        with file.open("w", encoding="utf-8", newline="") as opened:
            write_per_query(opened, data, metrics)
        return
    num_relevant = np.bincount(data.list_of_doc, weights=data.labels > 0, minlength=data.num_queries)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_QUERY_COLUMNS, *columns])
    table = np.column_stack([np.empty((data.num_queries, 0)), *columns.values()])
    facts = zip(data.query_ids, data.list_sizes, num_relevant.astype(int), table.tolist(), strict=True)
    for query_id, num_docs, relevant, row in facts:
        writer.writerow([_as_text(query_id), num_docs, relevant, *("" if v != v else repr(v) for v in row)])


def _as_text(query_id: str) -> str:
    """
    >>> [_as_text(query_id) for query_id in ("q1", "-5", "=1+1", "-x", "'q")]
    ['q1', '-5', "'=1+1", "'-x", "''q"]
    """
    if not query_id.startswith(("=", "+", "-", "@", "'")):
        return query_id
    try:
        float(query_id)
    except ValueError:
        return f"'{query_id}"
    return query_id


def read_per_query(file: Path | TextIO) -> PerQuery:
    """Reads what `write_per_query` wrote. An open file needs `newline=""`.

    Raises:
      ValueError: another header, or a row with more or fewer cells.
    """
    if isinstance(file, Path):
        with file.open(encoding="utf-8", newline="") as opened:
            return read_per_query(opened)
    reader = csv.reader(file)
    header = next(reader, [])
    names = header[len(_QUERY_COLUMNS) :]
    if header[: len(_QUERY_COLUMNS)] != _QUERY_COLUMNS or not all("/" in name for name in names):
        raise ValueError(
            f"per_query.csv must begin with {','.join(_QUERY_COLUMNS)},MODEL/METRIC..., not {header}"
        )
    rows = list(reader)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"per_query.csv: query {number} has {len(row)} cells, the header {len(header)}")
    metrics: dict[str, dict[str, np.ndarray]] = {}
    for column, name in enumerate(names, start=len(_QUERY_COLUMNS)):
        model, metric = name.split("/", 1)
        metrics.setdefault(model, {})[metric] = np.array([float(row[column] or "nan") for row in rows])
    return PerQuery(
        query_ids=np.array([row[0].removeprefix("'") for row in rows], dtype=np.str_),
        num_docs=np.array([int(row[1]) for row in rows], dtype=np.int64),
        num_relevant=np.array([int(row[2]) for row in rows], dtype=np.int64),
        metrics=metrics,
    )

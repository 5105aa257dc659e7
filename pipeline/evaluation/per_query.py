"""per_query.csv: every metric of every model for every query."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.data import RankingData

_QUERY_COLUMNS = ["query_id", "num_docs", "num_relevant"]


@dataclasses.dataclass(frozen=True, eq=False)
class PerQuery:
    """The contents of per_query.csv.

    Attributes:
      query_ids: str [queries].
      num_docs: int64 [queries].
      num_relevant: int64 [queries], documents with label > 0.
      metrics: model -> metric -> float64 [queries], NaN where the query has no value.
    """

    query_ids: np.ndarray
    num_docs: np.ndarray
    num_relevant: np.ndarray
    metrics: dict[str, dict[str, np.ndarray]]


def write_per_query(path: Path, data: RankingData, metrics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes one row for each query: id, list size, number of relevant documents, one cell for each `model/metric`.

    Numbers are written with all digits, so that reading gives the same bits; NaN (no relevant document) is an empty
    cell. A query id may hold any printable text. One that a spreadsheet would run as a formula gets a ' in front, which
    `read_per_query` removes.

    Raises:
      ValueError: a metric that does not have one value for each query.
    """
    columns = {f"{model}/{metric}": v for model, values in metrics.items() for metric, v in values.items()}
    for name, values in columns.items():
        if np.shape(values) != (data.num_queries,):
            raise ValueError(f"{name}: shape {np.shape(values)}, must be ({data.num_queries},), one a query")
    num_relevant = np.bincount(data.list_of_doc, weights=data.labels > 0, minlength=data.num_queries)
    cells = [["" if v != v else repr(float(v)) for v in values] for values in columns.values()]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_QUERY_COLUMNS, *columns])
        ids = map(_as_text, data.query_ids)
        writer.writerows(zip(ids, data.list_sizes, num_relevant.astype(int), *cells, strict=True))


def _as_text(query_id: str) -> str:
    """The query id as a cell that no spreadsheet runs as a formula.

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


def read_per_query(path: Path) -> PerQuery:
    """Reads a file of `write_per_query`.

    Raises:
      ValueError: another header, or a row with more or fewer cells.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    names = header[len(_QUERY_COLUMNS) :]
    if header[: len(_QUERY_COLUMNS)] != _QUERY_COLUMNS or not all("/" in name for name in names):
        raise ValueError(f"{path}: must begin with {','.join(_QUERY_COLUMNS)},MODEL/METRIC..., not {header}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"{path}: query {number} has {len(row)} cells, the header {len(header)}")
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

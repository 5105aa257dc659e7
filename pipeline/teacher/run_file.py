"""Teacher scores made elsewhere: a TREC run file or a .npy, aligned with the data by query id and row."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pipeline.data import RankingData


def read_scores(path: Path, data: RankingData) -> np.ndarray:
    """The scores in `path` for each document of `data`.

    Args:
      path: `.npy`: numbers [docs] in the order of the rows. Anything else: a TREC run, lines of
        `query_id Q0 document rank score tag`, in any order, where document is the number of the row within its
        query, counted from 0 or from 1 throughout the file. The rank is not looked at. Where a qrels file lies beside
        (`trec_qrel.txt` beside `trec_run.txt`, as in RD-Suite; lines of `query_id 0 document label`), documents may
        have any names: the n-th line of a query there is the n-th row of the query, which the labels must bear out.
      data: the split that was scored.

    Returns:
      float64 [docs].

    Raises:
      ValueError: a document has no score or two, a line names a document that is not there, a score is not a
        finite number; names the file and the line.
    """
    return _read_npy(path, data) if path.suffix == ".npy" else _read_trec(path, data)


def _read_npy(path: Path, data: RankingData) -> np.ndarray:
    scores = np.load(path, allow_pickle=False)
    if scores.shape != (data.num_docs,) or scores.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: holds {scores.dtype} {list(scores.shape)}, the data has {data.num_docs} documents; "
            "Fix: one number for each row of the data, in the same order"
        )
    scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"{path}: row {row}: score {scores[row]} is not a finite number")
    return scores


def _read_trec(path: Path, data: RankingData) -> np.ndarray:
    qrels = path.with_name(path.name.replace("run", "qrel"))
    named = _read_qrels(qrels, data) if qrels != path and qrels.is_file() else None
    first_row = {query: int(start) for query, start in zip(data.query_ids, data.offsets[:-1], strict=True)}
    queries: list[str] = []
    documents: list[int] = []
    values: list[float] = []
    lines: list[int] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 6:
                raise ValueError(
                    f"{path}:{number}: {len(fields)} fields. Fix: query_id Q0 document rank score tag"
                )
            query, _, document, _, value, _ = fields
            if query not in first_row:
                raise ValueError(f"{path}:{number}: query {query!r} is not in the data")
            try:
                row = int(document) if named is None else named[query].get(document, -1)
                score = float(value)
            except ValueError:
                raise ValueError(
                    f"{path}:{number}: document {document!r}, score {value!r}. Fix: the document is the number of "
                    "its row within the query, the score a number"
                ) from None
            if row < 0:
                raise ValueError(
                    f"{path}:{number}: document {document!r} of query {query!r} is not in {qrels}"
                )
            if not math.isfinite(score):
                raise ValueError(f"{path}:{number}: score {value!r} is not a finite number")
            queries.append(query)
            documents.append(row)
            values.append(score)
            lines.append(number)
    base = 0 if named is not None else min(documents, default=0)
    if base not in (0, 1):
        raise ValueError(f"{path}: the smallest document number is {base}. Fix: count rows from 0 or from 1")
    sizes = dict(zip(data.query_ids, data.list_sizes, strict=True))
    scores = np.full(data.num_docs, np.nan)
    for query, row_number, score, number in zip(queries, documents, values, lines, strict=True):
        if row_number - base >= sizes[query]:
            raise ValueError(
                f"{path}:{number}: document {row_number} of query {query!r}, which has {sizes[query]} documents "
                f"(counted from {base})"
            )
        row = first_row[query] + row_number - base
        if not np.isnan(scores[row]):
            raise ValueError(f"{path}:{number}: a second score for document {row_number} of query {query!r}")
        scores[row] = score
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        list_number = int(np.searchsorted(data.offsets, missing[0], side="right")) - 1
        raise ValueError(
            f"{path}: {len(missing)} documents have no score; the first is document "
            f"{missing[0] - data.offsets[list_number] + base} of query {str(data.query_ids[list_number])!r}. Fix: a "
            "line for each row of this split, or the file that was made for it"
        )
    return scores


def _read_qrels(path: Path, data: RankingData) -> dict[str, dict[str, int]]:
    """The row within its query of each document name: {query: {document: row}}."""
    named: dict[str, dict[str, int]] = {query: {} for query in data.query_ids.tolist()}
    labels: dict[str, list[float]] = {query: [] for query in named}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            fields = line.split()
            if not fields:
                continue
            try:
                query, _, document, label = fields
                labels[query].append(float(label))
            except (ValueError, KeyError):
                raise ValueError(
                    f"{path}:{number}: {line.strip()!r}. Fix: query_id 0 document label, queries of the data"
                ) from None
            if document in named[query]:
                raise ValueError(f"{path}:{number}: document {document!r} of query {query!r} a second time")
            named[query][document] = len(named[query])
    for query, start, stop in zip(data.query_ids.tolist(), data.offsets[:-1], data.offsets[1:], strict=True):
        if labels[query] != data.labels[start:stop].tolist():
            raise ValueError(
                f"{path}: the labels of query {query!r} are not those of the data. Fix: the documents of a query must "
                "stand in the order of the data's rows"
            )
    return named

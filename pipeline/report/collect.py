"""Finds the runs below a folder and reads their result.json; what cannot be read is kept by name."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import flat
from pipeline.evaluation import PerQuery, read_per_query
from pipeline.metrics import NoRelevant
from pipeline.status import ENDED, FAILURE, read_status

MODELS = ("teacher", "baseline", "student")
NDCG = ("ndcg@1", "ndcg@5", "ndcg@10")
MAIN = "ndcg@10"
FOLD = "data.fold"
CONVENTIONS: tuple[NoRelevant, ...] = ("skip", "zero", "one")

_UNREADABLE = (OSError, ValueError, OverflowError, RecursionError, csv.Error)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A folder or a file that the report could not use, and why."""

    where: str
    what: str


@dataclasses.dataclass(frozen=True)
class Model:
    """One model of a run. `ndcg` is split -> metric -> convention -> mean, None where no query has a value."""

    parameters: float | None
    us_per_doc: float | None
    us_per_doc_list120: float | None
    ndcg: dict[str, dict[str, dict[NoRelevant, float | None]]]


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that evaluate.gate asked of a student. `value`: None where the test split cannot tell."""

    name: str
    limit: str
    value: float | None
    passed: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What the report needs of one result.json.

    Attributes:
      name: its folder, relative to the folder of the report.
      options: flat config, `loss.topk` -> 10.
      counts: of the test split: queries, docs, blank_queries.
      agreement: with the teacher on the test split.
      gate: what evaluate.gate asked; empty where it asked nothing.
      clock: of the scoring times.
    """

    name: str
    folder: Path
    seed: int
    command: str
    started: str
    device: str
    made_with: str
    options: dict[str, Any]
    data_name: str
    fingerprint: str
    counts: dict[str, int]
    models: dict[str, Model]
    agreement: dict[str, float | None]
    gate: list[Check]
    clock: str


@dataclasses.dataclass(frozen=True)
class Collection:
    runs: list[Run]
    unfinished: list[Problem]  # runs without result.json
    problems: list[Problem]


def collect(folder: Path) -> Collection:
    """Every run below `folder`, in the order of their paths. Links to folders are not followed."""
    found = Collection([], [], [])

    def unreadable(error: OSError) -> None:
        found.problems.append(Problem(str(error.filename), str(error.strerror)))

    for path, folders, files in os.walk(folder, onerror=unreadable):
        folders.sort()
        here = Path(path)
        name = folder.resolve().name if here == folder else here.relative_to(folder).as_posix()
        if "result.json" in files:
            try:
                found.runs.append(read_run(here, name))
            except _UNREADABLE as error:
                found.problems.append(Problem(f"{name}/result.json", str(error)))
        elif unfinished := _unfinished(here, name):
            found.unfinished.append(unfinished)
    return found


def read_run(folder: Path, name: str) -> Run:
    """The run whose result.json lies in `folder`. Keys beyond those needed may be there.

    Raises:
      ValueError: not JSON, or a key is missing or of another type.
      OSError: it cannot be read.
    """

    def not_a_number(constant: str) -> None:
        raise ValueError(f"holds {constant}, which is not JSON")

    text = (folder / "result.json").read_text(encoding="utf-8")
    result = json.loads(text, parse_constant=not_a_number)
    present = _get(result, dict, "models")
    agreement = _get(result, dict, "agreement", "test")
    return Run(
        name=name,
        folder=folder,
        seed=_get(result, int, "run", "seed"),
        command=_get(result, str, "run", "command"),
        started=_get(result, str, "run", "started"),
        device=_get(result, str, "run", "device"),
        made_with=_made_with(result),
        options=flat(_get(result, dict, "config")),
        data_name=_get(result, str, "data", "name"),
        fingerprint=_get(result, str, "data", "fingerprint"),
        counts={
            key: _get(result, int, "data", "splits", "test", key)
            for key in ("queries", "docs", "blank_queries")
        },
        models={
            model: _model(result, model) for model in MODELS if model != "baseline" or "baseline" in present
        },
        agreement={key: _number(result, "agreement", "test", key) for key in agreement},
        gate=_gate(result),
        clock=result["run"].get("clock", "elapsed"),
    )


def read_queries(runs: Sequence[Run]) -> tuple[PerQuery | None, list[Problem]]:
    """NDCG@10 of each test query of one group: the mean over the seeds of a fold, one fold after another.

    A run whose per_query.csv cannot be read, or holds other queries than the first of its fold, is left out and
    named. A model counts where all other runs have it. None where no file can be read.
    """
    by_fold: dict[Any, list[PerQuery]] = {}
    problems = []
    for run in runs:
        tables = by_fold.setdefault(run.options.get(FOLD), [])
        try:
            table = read_per_query(run.folder / "per_query.csv")
            if MAIN not in table.metrics.get("student", {}):
                raise ValueError(f"has no column student/{MAIN}")
            if tables and not (
                np.array_equal(table.query_ids, tables[0].query_ids)
                and np.array_equal(table.num_docs, tables[0].num_docs)
            ):
                raise ValueError("holds other queries than the first run with the same options")
            tables.append(table)
        except _UNREADABLE as error:
            what = f"{error}; its run is in no per-query figure"
            problems.append(Problem(f"{run.name}/per_query.csv", what))
    folds = [tables for tables in by_fold.values() if tables]
    if not folds:
        return None, problems
    metrics = {
        model: {
            MAIN: np.concatenate([np.mean([t.metrics[model][MAIN] for t in fold], axis=0) for fold in folds])
        }
        for model in MODELS
        if all(MAIN in table.metrics.get(model, {}) for fold in folds for table in fold)
    }
    facts = {
        key: np.concatenate([getattr(fold[0], key) for fold in folds])
        for key in ("query_ids", "num_docs", "num_relevant")
    }
    return PerQuery(metrics=metrics, **facts), problems


def _get(result: Any, kind: type, *path: str) -> Any:
    value = result
    for depth, key in enumerate(path):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"has no key {'.'.join(path[: depth + 1])}")
        value = value[key]
    if not isinstance(value, kind):
        raise ValueError(f"{'.'.join(path)} must be {kind.__name__}, not {type(value).__name__}")
    return value


def _number(result: Any, *path: str) -> float | None:
    value = _get(result, object, *path)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{'.'.join(path)} must be a number or null, not {str(value)[:40]!r}")
    return float(value)


def _gate(result: Any) -> list[Check]:
    if result.get("gate") is None:
        return []
    return [
        Check(
            _get(check, str, "name"),
            _get(check, str, "limit"),
            _number(check, "value"),
            _get(check, bool, "passed"),
        )
        for check in _get(result, list, "gate", "checks")
    ]


def _model(result: Any, name: str) -> Model:
    facts = _get(result, dict, "models", name)
    cost = {
        key: _number(result, "models", name, key) if key in facts else None
        for key in ("parameters", "us_per_doc", "us_per_doc_list120")
    }
    ndcg = {
        split: {
            metric: {c: _number(result, "models", name, "metrics", split, metric, c) for c in CONVENTIONS}
            for metric in NDCG
        }
        for split in ("vali", "test")
    }
    return Model(**cost, ndcg=ndcg)


def _made_with(result: Any) -> str:
    versions = _get(result, dict, "run", "versions")
    found = commits(result)
    made = [
        f"commit {commit}" if len(found) == 1 else f"{', '.join(names)}: commit {commit}"
        for commit, names in found.items()
    ]
    return ", ".join([*(f"{name} {version}" for name, version in versions.items()), *made])


def commits(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """The commits that made the models of a result.json, such as `1a2b (dirty)`, and the names of these models.

    A result without this fact names the commit that evaluated its models.
    """
    found: dict[str, list[str]] = {}
    for name, model in result["models"].items():
        made_by = model.get("made_by") or {}
        commit = made_by.get("commit") or result["run"].get("commit")
        if commit:
            found.setdefault(f"{commit}{' (dirty)' if made_by.get('dirty') else ''}", []).append(name)
    return found


def _unfinished(folder: Path, name: str) -> Problem | None:
    """What status.json says of a run without a result; None for other folders and for runs of earlier stages only."""
    status = read_status(folder)
    if status is None:
        is_run = (folder / "config.yaml").exists()
        return Problem(name, "unfinished: no readable status.json") if is_run else None
    if status.state == ENDED:
        return None
    reason = " ".join((status.error or f"in stage {status.stage}").split())[:500]
    return Problem(name, f"{'failed' if status.state == FAILURE else 'unfinished'}: {reason}")

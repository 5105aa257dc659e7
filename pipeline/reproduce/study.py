"""Rows of a comparison against its reference row: paired tests over the queries, time to a given NDCG, cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluation import Comparison, compare, read_per_query
from pipeline.report.page import Block, Heading, Paragraph
from pipeline.report.statistics import has_gap, holm
from pipeline.reproduce.claim import Claim, Job, Row
from pipeline.reproduce.results import Results, make_lines, measured
from pipeline.tables import NONE, Table, comparison_cells, gap_closed, number

_METRIC = "ndcg@10"
_LEVEL = 0.05
_TESTS = (
    "row", "NDCG@10", "sd", "difference", "95 % CI", "p (Holm)", "win/tie/loss",
    "epochs to target", "seconds to target", "reached",
)  # fmt: skip
_COSTS = (
    "row",
    "parameters",
    "us a document",
    "share of the teacher's",
    "share of the teacher's NDCG@10",
    "gap closed",
)


def study_blocks(claim: Claim, jobs: Sequence[Job], results: Results) -> list[Block]:
    """The additional tables of a comparison that has a reference."""
    tests = paired_rows(claim, jobs, results)
    known = {row: p for row, test in tests.items() if (p := test["p"]) is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    lines = {
        line.row: line
        for line in make_lines(claim, results)
        if (line.metric, line.convention) == (_METRIC, claim.convention)
    }
    rows = [
        [
            name,
            number(lines[name].mean),
            number(lines[name].sd),
            *(comparison_cells(tests[name], corrected.get(name)) if name in tests else [NONE] * 4),
            *_times(claim, row, results),
        ]
        for name, row in claim.rows.items()
    ]
    ahead = [row for row, p in corrected.items() if p < _LEVEL and (tests[row]["difference"] or 0) > 0]
    summary = (
        f"Significantly better than it: {', '.join(ahead)}."
        if ahead
        else "No row is significantly better than it."
    )
    seeds = ", with a query's value averaged over the seeds" if "seed" in claim.axis else ""
    costs = [[name, *_costs(claim, row, jobs, results)] for name, row in claim.rows.items()]
    return [
        Heading(f"{_METRIC.upper()} against {claim.reference}"),
        Table("", _TESTS, rows, num_names=1),
        Paragraph(
            f"Student's paired t-test over the queries with a relevant document{seeds}; Holm over {len(tests)} tests. "
            f"{summary} The target is validation NDCG@10 {claim.target} (skip): medians over the jobs that reached it, "
            "in seconds of training only."
        ),
        Heading("Cost"),
        Table("", _COSTS, costs, num_names=1),
        Paragraph(
            "Medians over the jobs, means of NDCG. Gap closed: (row - baseline) / (teacher - baseline); no gap: the "
            "teacher is not significantly above the baseline."
        ),
    ]


def paired_rows(claim: Claim, jobs: Sequence[Job], results: Results) -> dict[str, Comparison]:
    """Every row against the reference over the queries of all folds; without rows that miss a result."""
    values = {
        name: per_query
        for name, row in claim.rows.items()
        if row.minus is None and (per_query := _per_query(claim, row, jobs, results)) is not None
    }
    reference = claim.reference
    if reference not in values:
        return {}
    return {
        name: compare(per_query, values[reference], a=name, b=reference, metric=_METRIC)
        for name, per_query in values.items()
        if name != reference
    }


def _per_query(claim: Claim, row: Row, jobs: Sequence[Job], results: Results) -> np.ndarray | None:
    """A row's NDCG@10 of each query: the mean over the seeds, one fold after another."""
    folders = [job.folder for job in jobs if job.run == row.run]
    of_fold: dict[int, list[np.ndarray]] = {}
    for axis, folder, result in zip(claim.axes, folders, results[row.run], strict=True):
        if result is None or row.model not in result["models"]:
            return None
        table = read_per_query(folder / "per_query.csv")
        of_fold.setdefault(axis.get("fold", 0), []).append(table.metrics[row.model][_METRIC])
    return np.concatenate([np.mean(seeds, axis=0) for seeds in of_fold.values()])


def _found(row: Row, results: Results) -> list[Mapping[str, Any]]:
    return [result for result in results[row.run] if result is not None and row.model in result["models"]]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _times(claim: Claim, row: Row, results: Results) -> list[str]:
    if row.minus is not None or row.model == "teacher":
        return [NONE] * 3
    found = _found(row, results)
    times = []
    for result in found:
        vali = result["models"][row.model].get("vali_by_epoch", [])
        epoch = next(
            (i for i, v in enumerate(vali, 1) if claim.target is not None and v >= claim.target), None
        )
        if epoch is not None:
            seconds = result["run"].get("epoch_seconds", {}).get(row.model, [])[:epoch]
            complete = len(seconds) == epoch and None not in seconds
            times.append((epoch, sum(seconds) if complete else None))
    return [
        number(_median([epoch for epoch, _ in times]), ".0f"),
        number(_median([seconds for _, seconds in times]), ".1f"),
        f"{len(times)}/{len(found)}",
    ]


def _costs(claim: Claim, row: Row, jobs: Sequence[Job], results: Results) -> list[str]:
    if row.minus is not None:
        return [NONE] * (len(_COSTS) - 1)
    teacher = Row(row.run, "teacher")
    baseline = next((r for r in claim.rows.values() if r.model == "baseline" and r.minus is None), None)

    def cost(of: Row, key: str) -> float | None:
        return _median([result["models"][of.model].get(key) for result in _found(of, results)])

    def mean(of: Row | None) -> float | None:
        found = (
            [] if of is None else [measured(r, of, _METRIC, claim.convention) for r in _found(of, results)]
        )
        known = [value for value in found if value is not None]
        return statistics.fmean(known) if known else None

    def ratio(a: float | None, b: float | None, form: str) -> str:
        return NONE if a is None or b is None else format(a / b, form)

    gap = None
    if baseline is not None:
        gap = has_gap(*(_per_query(claim, r, jobs, results) for r in (teacher, baseline)))
    return [
        number(cost(row, "parameters"), ",.0f"),
        number(cost(row, "us_per_doc"), ".2f"),
        ratio(cost(row, "us_per_doc"), cost(teacher, "us_per_doc"), ".3f"),
        ratio(mean(row), mean(teacher), ".1%"),
        gap_closed(mean(row), mean(baseline), mean(teacher), gap),
    ]

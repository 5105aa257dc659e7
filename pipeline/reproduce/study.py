"""Rows of a comparison against one of them: paired tests over the queries, cost, time to a given NDCG."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluation import Comparison, compare, read_per_query
from pipeline.report.statistics import holm
from pipeline.reproduce.claim import Claim, Job, Row
from pipeline.reproduce.table import make_lines, markdown, measured

_METRIC = "ndcg@10"
_LEVEL = 0.05
_TESTS = (
    "row", "NDCG@10", "sd", "difference", "95 % CI", "p (Holm)", "win/tie/loss",
    "epochs to target", "seconds to target", "reached",
)  # fmt: skip
_COSTS = ("row", "parameters", "us a document", "of the teacher's", "of the teacher's NDCG@10", "gap closed")

Results = Mapping[str, Sequence[Mapping[str, Any] | None]]


def study_page(claim: Claim, jobs: Sequence[Job], results: Results) -> str:
    """The further tables of a comparison with a reference, Markdown."""
    tests = paired_rows(claim, jobs, results)
    corrected = _corrected(tests)
    lines = {
        line.row: line
        for line in make_lines(claim, results)
        if (line.metric, line.convention) == (_METRIC, claim.convention)
    }
    rows = [
        [
            name,
            _number(lines[name].mean),
            _number(lines[name].sd),
            *_tested(tests.get(name), corrected.get(name)),
            *_times(claim, row, results),
        ]
        for name, row in claim.rows.items()
    ]
    ahead = [
        row
        for row, test in tests.items()
        if (test["difference"] or 0) > 0 and (p := corrected[row]) is not None and p < _LEVEL
    ]
    verdict = (
        f"Significantly ahead of it: {', '.join(ahead)}." if ahead else "No row is significantly ahead of it."
    )
    seeds = ", a query's value its mean over the seeds" if "seed" in claim.axis else ""
    costs = [[row, *_costs(claim, claim.rows[row], results)] for row in claim.rows]
    return (
        f"\n## {_METRIC.upper()} against {claim.reference}\n\n{markdown(_TESTS, rows)}\n"
        f"Student's paired t-test over the queries with a relevant document{seeds}; Holm over {len(tests)} tests. "
        f"{verdict} The target is validation NDCG@10 {claim.target} (skip): medians over the jobs that reached it, "
        f"seconds of training alone.\n\n## Cost\n\n"
        f"{markdown(_COSTS, costs)}\nMedians over the jobs, means of NDCG.\n"
    )


def paired_rows(claim: Claim, jobs: Sequence[Job], results: Results) -> dict[str, Comparison]:
    """Every row against the reference over the queries of all folds; rows that miss a job are left out."""
    values = {
        name: of_row
        for name, row in claim.rows.items()
        if row.minus is None and (of_row := _of_queries(claim, row, jobs, results)) is not None
    }
    reference = claim.reference
    if reference not in values:
        return {}
    return {
        name: compare(of_row, values[reference], a=name, b=reference, metric=_METRIC)
        for name, of_row in values.items()
        if name != reference
    }


def _of_queries(claim: Claim, row: Row, jobs: Sequence[Job], results: Results) -> np.ndarray | None:
    """A row's value of each query: the mean over the seeds, one fold after another."""
    folders = [job.folder for job in jobs if job.run == row.run]
    of_fold: dict[int, list[np.ndarray]] = {}
    for axis, folder, result in zip(claim.axes, folders, results[row.run], strict=True):
        if result is None or row.model not in result["models"]:
            return None
        table = read_per_query(folder / "per_query.csv")
        of_fold.setdefault(axis.get("fold", 0), []).append(table.metrics[row.model][_METRIC])
    return np.concatenate([np.mean(seeds, axis=0) for seeds in of_fold.values()])


def _corrected(tests: Mapping[str, Comparison]) -> dict[str, float | None]:
    known = {row: p for row, test in tests.items() if (p := test["p"]) is not None}
    return dict.fromkeys(tests) | dict(zip(known, holm(list(known.values())), strict=True))


def _tested(test: Comparison | None, corrected: float | None) -> list[str]:
    if test is None:
        return ["-"] * 4
    return [
        _number(test["difference"], "+.4f"),
        "-" if test["ci95"] is None else "{:+.4f} to {:+.4f}".format(*test["ci95"]),
        "<0.0001" if corrected is not None and corrected < 1e-4 else _number(corrected),
        f"{test['win']}/{test['tie']}/{test['loss']}",
    ]


def _found(row: Row, results: Results) -> list[Mapping[str, Any]]:
    return [result for result in results[row.run] if result is not None and row.model in result["models"]]


def _median(of: Sequence[float | None]) -> float | None:
    known = [value for value in of if value is not None]
    return statistics.median(known) if known else None


def _times(claim: Claim, row: Row, results: Results) -> list[str]:
    if row.minus is not None or row.model == "teacher":
        return ["-"] * 3
    found = _found(row, results)
    reached = [
        _time_to(
            claim.target,
            result["models"][row.model].get("vali_by_epoch", []),
            result["run"].get("epoch_seconds", {}).get(row.model, []),
        )
        for result in found
    ]
    times = [time for time in reached if time is not None]
    return [
        _number(_median([epoch for epoch, _ in times]), ".0f"),
        _number(_median([seconds for _, seconds in times]), ".1f"),
        f"{len(times)}/{len(found)}",
    ]


def _costs(claim: Claim, row: Row, results: Results) -> list[str]:
    found = _found(row, results)

    def fact(model: str, key: str) -> float | None:
        return _median([result["models"].get(model, {}).get(key) for result in found])

    def quality(model: str) -> float | None:
        row_of = Row(run=row.run, model=model)
        values = [measured(result, row_of, _METRIC, claim.convention) for result in found]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None

    if row.minus is not None:
        return ["-"] * (len(_COSTS) - 1)
    own, teacher = fact(row.model, "us_per_doc"), fact("teacher", "us_per_doc")
    ndcg, best = quality(row.model), quality("teacher")
    least = _baseline(claim, results)
    return [
        _number(fact(row.model, "parameters"), ",.0f"),
        _number(own, ".2f"),
        "-" if own is None or teacher is None else f"{own / teacher:.3f}",
        "-" if ndcg is None or best is None else f"{ndcg / best:.1%}",
        "-" if ndcg is None or best is None or least is None else f"{(ndcg - least) / (best - least):.0%}",
    ]


def _baseline(claim: Claim, results: Results) -> float | None:
    """Mean NDCG@10 of the first row that is a baseline."""
    for row in claim.rows.values():
        if row.model == "baseline" and row.minus is None:
            values = [
                measured(result, row, _METRIC, claim.convention)
                for result in results[row.run]
                if result is not None
            ]
            known = [value for value in values if value is not None]
            return statistics.fmean(known) if known else None
    return None


def _time_to(
    target: float | None, vali_by_epoch: Sequence[float], epoch_seconds: Sequence[float | None]
) -> tuple[int, float | None] | None:
    """Epochs and seconds until validation NDCG@10 reached the target; None where it never did."""
    for number, vali in enumerate(vali_by_epoch, start=1):
        if target is not None and vali >= target:
            seconds = [value for value in epoch_seconds[:number] if value is not None]
            return number, sum(seconds) if len(seconds) == number else None
    return None


def _number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)

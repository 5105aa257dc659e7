"""The tables of the page, as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.table import Cells
from pipeline.metrics import NoRelevant
from pipeline.report.collect import MAIN, MODELS, NDCG, Asked, Collection
from pipeline.report.statistics import DataSet, Group, PairedTest, Spread, best, gap_closed, has_gap, spread

NONE = "-"


def models_table(data_set: DataSet, convention: NoRelevant) -> Cells:
    """The main table: mean and spread of NDCG of each model in each group."""
    rows = []
    for model in MODELS:
        for label, groups in distinct(data_set.groups, model, convention):
            spreads = [groups[0].ndcg(model, metric, convention) for metric in NDCG]
            closed = NONE
            if model == "student":
                closed = format_share(gap_closed(groups[0], convention))
                closed = "no gap" if has_gap(groups[0]) is False else closed
            rows.append(
                [
                    label,
                    model,
                    str(spreads[-1].n) if spreads[-1] else "0",
                    *map(mean_sd, spreads),
                    closed,
                ]
            )
    header = ["options", "model", "n", *(metric.upper() for metric in NDCG), "gap"]
    title = (
        f"Test, convention '{convention}'. Gap closed: (student - baseline) / (teacher - baseline) of NDCG@10"
    )
    title += (
        "; no gap: the teacher is not significantly above the baseline."
        if any("no gap" in row for row in rows)
        else "."
    )
    return Cells(title, header, rows, num_names=2)


def choice(data_set: DataSet, convention: NoRelevant) -> str | None:
    """Which of several groups validation chooses; None where there is but one."""
    if len(data_set.groups) == 1:
        return None
    chosen = best(data_set.groups, convention)
    vali, test = (chosen.ndcg("student", MAIN, convention, split=split) for split in ("vali", "test"))
    return (
        f"Highest validation NDCG@10 of the student ({mean_sd(vali)}): {chosen.label} (test {mean_sd(test)}). "
        "Choosing by the test column instead would flatter the choice."
    )


def gate_table(data_set: DataSet) -> list[Cells]:
    """The verdicts of evaluate.gate, one row for each thing asked in each group; nothing where it asked nothing."""
    verdicts = [all(asked.passed for asked in run.gate) for run in data_set.runs if run.gate]
    if not verdicts:
        return []
    rows = []
    for group in data_set.groups:
        by_name: dict[tuple[str, str], list[Asked]] = {}
        for asked in (asked for run in group.runs for asked in run.gate):
            by_name.setdefault((asked.name, asked.limit), []).append(asked)
        for (name, limit), of_runs in by_name.items():
            values = sorted({format_number(asked.value, ".4g") for asked in of_runs})
            passed = [asked.passed for asked in of_runs]
            rows.append([group.label, name, ", ".join(values), limit, _verdict(passed)])
    header = ["options", "what the student must reach", "value", "limit", "gate"]
    return [Cells(f"Gate: {_verdict(verdicts)}", header, rows, num_names=2)]


def _verdict(passed: Sequence[bool]) -> str:
    if len(set(passed)) == 1:
        return "PASS" if passed[0] else "FAIL"
    return f"{sum(passed)} of {len(passed)} PASS"


def tests_table(tests: Sequence[PairedTest]) -> Cells:
    """Paired tests, in the form of the table of a run, with Holm's correction."""
    rows = []
    for test in tests:
        c = test.comparison
        ci95 = c["ci95"]
        rows.append(
            [
                test.group.label,
                f"{c['a']} - {c['b']}",
                f"{c['queries']:,}",
                format_number(c["difference"], "+.4f"),
                NONE if ci95 is None else f"{ci95[0]:+.4f} to {ci95[1]:+.4f}",
                format_p(c["p"]),
                format_p(test.p_holm),
                f"{c['win']}/{c['tie']}/{c['loss']}",
            ]
        )
    header = ["options", "comparison", "queries", "diff", "95 % CI", "p", "p (Holm)", "win/tie/loss"]
    return Cells("Differences of NDCG@10", header, rows, num_names=2)


def agreement_table(data_set: DataSet) -> Cells:
    """How far the student's order agrees with its teacher's (`pipeline.evaluation.agreement`)."""
    names = list(dict.fromkeys(name for run in data_set.runs for name in run.agreement))
    rows = [
        [group.label, *(mean_sd(spread([run.agreement.get(name) for run in group.runs])) for name in names)]
        for group in data_set.groups
    ]
    return Cells("", ["options", *names], rows, num_names=1)


def left_out(found: Collection) -> list[Cells]:
    """Runs without a result, and files that could not be used."""
    tables = []
    if found.unfinished:
        rows = [[run.name, run.state, run.log] for run in found.unfinished]
        tables.append(
            Cells("Failed and unfinished runs", ["folder", "state", "end of its log"], rows, num_names=3)
        )
    if found.problems:
        rows = [[problem.where, problem.what] for problem in found.problems]
        tables.append(Cells("Files not used", ["file or folder", "why"], rows, num_names=2))
    return tables


def run_list(data_sets: Sequence[DataSet], convention: NoRelevant) -> Cells:
    """Every run, so that a number can be traced to its folder."""
    rows = [
        [
            run.name,
            group.label,
            str(run.seed),
            format_number(run.models["student"].ndcg["test"][MAIN][convention], ".4f"),
        ]
        for data_set in data_sets
        for group in data_set.groups
        for run in group.runs
    ]
    return Cells("", ["folder", "options", "seed", "student NDCG@10"], rows, num_names=2)


def distinct(groups: Sequence[Group], model: str, convention: NoRelevant) -> list[tuple[str, list[Group]]]:
    """The groups that have the model; all together where an option does not change teacher or baseline."""
    having = [group for group in groups if any(model in run.models for run in group.runs)]
    results = {
        (
            group.cost(model, "parameters"),
            *(round(s.mean, 12) if (s := group.ndcg(model, metric, convention)) else None for metric in NDCG),
        )
        for group in having
    }
    if model != "student" and len(having) > 1 and len(results) == 1:
        return [("all", having)]
    return [(group.label, [group]) for group in having]


def mean_sd(value: Spread | None) -> str:
    """
    >>> mean_sd(Spread(0.5, 0.01, 3))
    '0.5000 ± 0.0100'
    """
    if value is None:
        return NONE
    return f"{value.mean:.4f}" + ("" if value.sd is None else f" ± {value.sd:.4f}")


def format_p(value: float | None) -> str:
    return NONE if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def format_share(value: float | None) -> str:
    """
    >>> format_share(0.5), format_share(-0.0001), format_share(None)
    ('50.0%', '0.0%', '-')
    """
    return NONE if value is None else f"{round(value, 3) + 0.0:.1%}"  # + 0.0: no -0.0


def format_number(value: float | None, form: str) -> str:
    """`NONE` for None and NaN."""
    return NONE if value is None or np.isnan(value) else format(value, form)

"""The tables of the page, as text."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.metrics import NoRelevant
from pipeline.report.collect import MAIN, MODELS, NDCG, Check, Collection
from pipeline.report.statistics import DataSet, Group, PairedTest, Spread, best, spread
from pipeline.tables import NONE, Table, comparison_cells, number, verdict


def models_table(data_set: DataSet, convention: NoRelevant) -> Table:
    """The main table: mean and spread of NDCG of each model in each group."""
    rows = []
    for model in MODELS:
        for label, groups in distinct(data_set.groups, model, convention):
            spreads = [groups[0].ndcg(model, metric, convention) for metric in NDCG]
            closed = groups[0].gap_closed(convention) if model == "student" else NONE
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
    return Table(title, header, rows, num_names=2)


def choice(data_set: DataSet, convention: NoRelevant) -> str | None:
    """Which of several groups validation chooses; None where there is only one."""
    if len(data_set.groups) == 1:
        return None
    chosen = best(data_set.groups, convention)
    vali, test = (chosen.ndcg("student", MAIN, convention, split=split) for split in ("vali", "test"))
    return (
        f"Highest validation NDCG@10 of the student ({mean_sd(vali)}): {chosen.label} (test {mean_sd(test)}). "
        "Choosing by the test column instead would flatter the choice."
    )


def gate_table(data_set: DataSet) -> list[Table]:
    """The verdicts of evaluate.gate, one row for each requirement of each group; empty without requirements."""
    verdicts = [all(check.passed for check in run.gate) for run in data_set.runs if run.gate]
    if not verdicts:
        return []
    rows = []
    for group in data_set.groups:
        by_name: dict[tuple[str, str], list[Check]] = {}
        for check in (check for run in group.runs for check in run.gate):
            by_name.setdefault((check.name, check.limit), []).append(check)
        for (name, limit), of_runs in by_name.items():
            values = sorted({number(check.value, ".4g") for check in of_runs})
            passed = [check.passed for check in of_runs]
            rows.append([group.label, name, ", ".join(values), limit, _verdicts(passed)])
    header = ["options", "what the student must reach", "value", "limit", "gate"]
    return [Table(f"Gate: {_verdicts(verdicts)}", header, rows, num_names=2)]


def _verdicts(passed: Sequence[bool]) -> str:
    if len(set(passed)) == 1:
        return verdict(passed[0])
    return f"{sum(passed)} of {len(passed)} PASS"


def tests_table(tests: Sequence[PairedTest]) -> Table:
    """Paired tests, in the form of the table of a run, with Holm's correction."""
    rows = [
        [
            test.group.label,
            f"{c['a']} - {c['b']}",
            f"{c['queries']:,}",
            *comparison_cells(c, c["p"], test.p_holm),
        ]
        for test in tests
        if (c := test.comparison)
    ]
    header = ["options", "comparison", "queries", "diff", "95 % CI", "p", "p (Holm)", "win/tie/loss"]
    return Table("Differences of NDCG@10", header, rows, num_names=2)


def agreement_table(data_set: DataSet) -> Table:
    """How far the student's order agrees with its teacher's (`pipeline.evaluation.agreement`)."""
    names = list(dict.fromkeys(name for run in data_set.runs for name in run.agreement))
    rows = [
        [group.label, *(mean_sd(spread([run.agreement.get(name) for run in group.runs])) for name in names)]
        for group in data_set.groups
    ]
    return Table("", ["options", *names], rows, num_names=1)


def left_out(found: Collection) -> list[Table]:
    """Runs without a result, and files that could not be used."""
    return [
        Table(title, header, [[problem.where, problem.what] for problem in problems], num_names=2)
        for title, header, problems in (
            ("Failed and unfinished runs", ["folder", "state"], found.unfinished),
            ("Files not used", ["file or folder", "why"], found.problems),
        )
        if problems
    ]


def run_list(data_sets: Sequence[DataSet], convention: NoRelevant) -> Table:
    """Every run, so that a number can be traced to its folder."""
    rows = [
        [
            run.name,
            group.label,
            str(run.seed),
            number(run.models["student"].ndcg["test"][MAIN][convention]),
        ]
        for data_set in data_sets
        for group in data_set.groups
        for run in group.runs
    ]
    return Table("", ["folder", "options", "seed", "student NDCG@10"], rows, num_names=2)


def distinct(groups: Sequence[Group], model: str, convention: NoRelevant) -> list[tuple[str, list[Group]]]:
    """The groups that have the model; one entry for all of them where no option changes teacher or baseline."""
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
    return NONE if value is None else f"{value.mean:.4f}" + ("" if value.sd is None else f" ± {value.sd:.4f}")

"""Groups of runs that differ only in their seed or fold, and the statistics of these groups."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from statsmodels.stats.multitest import multipletests

from pipeline.evaluation import Comparison, PerQuery, compare
from pipeline.metrics import NoRelevant
from pipeline.report.collect import FOLD, MAIN, Problem, Run, read_queries
from pipeline.tables import NONE, gap_closed

# Runs that differ only in these options belong to one group.
_NO_OPTION = {"seed", FOLD, "run_dir", "cache_dir", "stage", "train.profile"}
_NO_OPTION_GROUP = ("tracking.", "export.", "evaluate.gate.")  # change no metric


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (ddof 1; None for one value) over the n runs of a group."""

    mean: float
    sd: float | None
    n: int


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ only in the seed and, for data with folds, the fold.

    Attributes:
      label: the options that vary, or "all runs".
      options: the values of the options that vary, without those that the runs do not have.
      queries: NDCG@10 of each query, mean over the seeds, one fold after another; None where no per_query.csv can be
        read.
    """

    label: str
    options: dict[str, Any]
    runs: list[Run]
    queries: PerQuery | None

    def ndcg(self, model: str, metric: str, convention: NoRelevant, *, split: str = "test") -> Spread | None:
        """None where no run has the model, or no query a value."""
        return spread(
            [run.models[model].ndcg[split][metric][convention] for run in self.runs if model in run.models]
        )

    def gap_closed(self, convention: NoRelevant) -> str:
        """The share of the way from baseline to teacher that the student covers, in mean NDCG@10."""
        means = [self.ndcg(model, MAIN, convention) for model in ("student", "baseline", "teacher")]
        student, baseline, teacher = (None if mean is None else mean.mean for mean in means)
        return gap_closed(student, baseline, teacher, self.has_gap)

    @property
    def has_gap(self) -> bool | None:
        values = self.queries.metrics if self.queries else {}
        teacher, baseline = (values[m][MAIN] if m in values else None for m in ("teacher", "baseline"))
        return has_gap(teacher, baseline)

    def cost(self, model: str, key: str) -> float | None:
        """Median over the runs of `parameters`, `us_per_doc` or `us_per_doc_list120`."""
        values = [getattr(run.models[model], key) for run in self.runs if model in run.models]
        known = [value for value in values if value is not None]
        return float(np.median(known)) if known else None


@dataclasses.dataclass(frozen=True, eq=False)
class DataSet:
    """All groups on the same data, or on the folds of the same data.

    Attributes:
      label: the name, and the fingerprint or the folds.
      varying: the options whose values differ between the groups, with short names.
    """

    label: str
    varying: dict[str, str]
    groups: list[Group]

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]

    @property
    def repeats(self) -> str:
        """The options that the runs of a group differ in."""
        folds, seeds = {run.options.get(FOLD) for run in self.runs}, {run.seed for run in self.runs}
        return "seeds" if len(folds) == 1 else "folds" if len(seeds) == 1 else "folds and seeds"

    def num_queries(self, kind: str) -> int:
        """Of the test split, in all folds together: `queries`, or `blank_queries`."""
        return sum({run.fingerprint: run.counts[kind] for run in self.runs}.values())


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """A paired test, and its p-value after Holm's correction over all tests of the page."""

    data_set: DataSet
    group: Group
    comparison: Comparison
    p_holm: float | None


def group_runs(runs: Sequence[Run]) -> tuple[list[DataSet], list[Problem]]:
    """Groups the runs by data, then by options. Of runs with equal options, seed and fold, the last one counts.

    The folds of a data set are one data set here, because publications give the mean over them.
    """
    by_data: dict[str, list[Run]] = {}
    folds = _sets_of_folds(runs)
    for run in runs:
        which = folds.get(run.data_name, run.fingerprint[:8])
        by_data.setdefault(f"{run.data_name} ({which})", []).append(run)
    data_sets: list[DataSet] = []
    problems: list[Problem] = []
    for data_label, members in by_data.items():
        varying = _short(varying_options(members))
        by_options: dict[tuple[str, ...], list[Run]] = {}
        for run in members:
            by_options.setdefault(tuple(_text(run, key) for key in varying), []).append(run)
        groups = []
        for values, same in by_options.items():
            kept, repeated = _one_per_seed(same)
            queries, unread = read_queries(kept)
            problems += repeated + unread
            label = " ".join(
                f"{k}={_brief(value)}"
                for k, value in zip(varying.values(), values, strict=True)
                if value != NONE
            )
            options = {key: kept[0].options[key] for key in varying if key in kept[0].options}
            groups.append(Group(label or "all runs", options, kept, queries))
        groups.sort(key=lambda group: [_rank(group.options.get(key)) for key in varying])
        data_sets.append(DataSet(data_label, varying, groups))
    return data_sets, problems


def _sets_of_folds(runs: Sequence[Run]) -> dict[str, str]:
    """Name of the data -> `folds 1, 2, 3`, where there are several and each is always the same data."""
    found: dict[str, dict[Any, set[str]]] = {}
    for run in runs:
        found.setdefault(run.data_name, {}).setdefault(run.options.get(FOLD), set()).add(run.fingerprint)
    return {
        name: f"folds {', '.join(map(str, sorted(of_fold)))}"
        for name, of_fold in found.items()
        if len(of_fold) > 1 and None not in of_fold and all(len(data) == 1 for data in of_fold.values())
    }


def varying_options(runs: Sequence[Run]) -> list[str]:
    """The options, in the order of the config, that do not have the same value in all runs that have them.

    Options that only one choice has, such as the trees of a teacher, follow from the name of the choice.
    """
    keys = dict.fromkeys(
        key
        for run in runs
        for key in run.options
        if key not in _NO_OPTION and not key.startswith(_NO_OPTION_GROUP)
    )
    return [key for key in keys if len({_text(run, key) for run in runs if key in run.options}) > 1]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def spread(values: Sequence[float | None]) -> Spread | None:
    """
    >>> spread([1.0, 2.0, None, 3.0])
    Spread(mean=2.0, sd=1.0, n=3)
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None, len(known))


def has_gap(teacher: np.ndarray | None, baseline: np.ndarray | None) -> bool | None:
    """Whether the teacher is significantly above the baseline, from their NDCG of each query.

    It is where the 95 % confidence interval of the paired difference lies above 0. Otherwise a share of the difference
    would be a share of noise. None where a model is missing or the queries are too few to tell.
    """
    if teacher is None or baseline is None:
        return None
    interval = compare(teacher, baseline)["ci95"]
    return None if interval is None else interval[0] > 0


def best(groups: Sequence[Group], convention: NoRelevant) -> Group:
    """The group whose student has the highest mean validation NDCG@10: test data are never used to choose."""

    def vali(group: Group) -> float:
        found = group.ndcg("student", MAIN, convention, split="vali")
        return found.mean if found else -np.inf

    return max(groups, key=vali)


def paired_tests(data_sets: Sequence[DataSet]) -> list[PairedTest]:
    """Student against baseline and against teacher in each group, over the queries."""
    pairs = [
        (data_set, group, compare(values["student"][MAIN], values[other][MAIN], a="student", b=other))
        for data_set in data_sets
        for group in data_set.groups
        if group.queries and (values := group.queries.metrics)
        for other in ("baseline", "teacher")
        if other in values
    ]
    p_values = [comparison["p"] for _, _, comparison in pairs]
    corrected = iter(holm([p for p in p_values if p is not None]))
    return [
        PairedTest(*pair, p_holm=None if p is None else next(corrected))
        for pair, p in zip(pairs, p_values, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction.

    >>> [round(p, 4) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    corrected: list[float] = multipletests(p_values, method="holm")[1].tolist()
    return corrected


def pareto_front(costs: Sequence[float], qualities: Sequence[float], *, tolerance: float = 0.0) -> list[bool]:
    """Whether no other point is at least as cheap and as good, and better in one of the two.

    `tolerance`: the share by which a measured cost may be higher and still count as equal.

    >>> pareto_front([1, 2, 3], [0.5, 0.4, 0.6])
    [True, False, True]
    >>> pareto_front([1, 1.05, 3], [0.5, 0.55, 0.6], tolerance=0.1)
    [False, True, True]
    """
    points = list(zip(costs, qualities, strict=True))
    return [
        not any(
            (c <= cost and q >= quality and (c, q) != (cost, quality))
            or (c <= cost * (1 + tolerance) and q > quality)
            for c, q in points
        )
        for cost, quality in points
    ]


def quantile_bins(values: np.ndarray, *, num_bins: int = 5) -> list[np.ndarray]:
    """Indices of `values` in bins of about the same size; equal values are in the same bin.

    >>> [bin.tolist() for bin in quantile_bins(np.array([3, 1, 1, 9]), num_bins=2)]
    [[1, 2], [0, 3]]
    """
    edges = np.unique(np.quantile(values, np.arange(1, num_bins + 1) / num_bins, method="inverted_cdf"))
    of_value = np.searchsorted(edges, values)
    return [np.flatnonzero(of_value == number) for number in range(len(edges))]


def _one_per_seed(runs: Sequence[Run]) -> tuple[list[Run], list[Problem]]:
    kept: dict[tuple[Any, int], Run] = {}
    problems = []
    for run in sorted(runs, key=lambda run: run.started):
        place = run.options.get(FOLD), run.seed
        if place in kept:
            what = f"left out: {run.name} has the same options and seed and started later"
            problems.append(Problem(kept[place].name, what))
        kept[place] = run
    return [kept[place] for place in sorted(kept)], problems


def _text(run: Run, key: str) -> str:
    if key not in run.options:
        return NONE
    value = run.options[key]
    return value if isinstance(value, str) else json.dumps(value)


def _brief(value: str) -> str:
    """
    >>> _brief("1.498559588670432"), _brief("0.001")
    ('1.499', '0.001')
    """
    return f"{float(value):.4g}" if re.fullmatch(r"\d+\.\d{5,}", value) else value


def _short(keys: Sequence[str]) -> dict[str, str]:
    """`loss.topk` -> `topk` where that is clear, `loss.name` -> `loss` as on the command line."""
    groups = {key: key.removesuffix(".name") for key in keys}
    last = {key: group.rsplit(".", 1)[-1] for key, group in groups.items()}
    return {key: last[key] if list(last.values()).count(last[key]) == 1 else groups[key] for key in keys}


def _rank(value: Any) -> tuple[bool, float, str]:
    return (False, value, "") if is_number(value) else (True, 0.0, str(value))

"""Groups, spreads, Holm's correction, Pareto fronts, bins."""

import doctest
import importlib

import numpy as np
import pytest

from pipeline.report.collect import collect
from pipeline.report.statistics import (
    group_runs,
    holm,
    paired_tests,
    pareto_front,
    quantile_bins,
)
from tests.closeness import assert_close
from tests.report.tree import make_run

FLAT = {"teacher": [0.5, 0.5], "baseline": [0.5, 0.5], "student": [0.5, 0.5]}


@pytest.mark.parametrize("module", ["report.statistics", "report.tables", "tables"])
def test_examples(module):
    failed, attempted = doctest.testmod(importlib.import_module(f"pipeline.{module}"))
    assert attempted > 0
    assert failed == 0


def test_holm_by_hand():
    # sorted: .01 x 5 = .05, .02 x 4 = .08, .025 x 3 = .075 -> .08, .3 x 2 = .6, .7 x 1 = .7
    given, expected = [0.3, 0.01, 0.025, 0.7, 0.02], [0.6, 0.05, 0.08, 0.7, 0.08]
    assert_close(holm(given), expected, atol=1e-12)


def test_holm_stops_at_one_and_takes_equal_and_no_values():
    assert holm([0.5, 0.9, 0.6]) == [1.0, 1.0, 1.0]
    assert_close(holm([0.02, 0.02]), [0.04, 0.04], atol=1e-12)
    assert holm([]) == []


def test_pareto_front_keeps_equal_points_and_drops_dominated_ones():
    costs = [1, 1, 2, 3, 3]
    qualities = [0.5, 0.5, 0.5, 0.7, 0.6]
    assert pareto_front(costs, qualities) == [True, True, False, True, False]


def test_quantile_bins_hold_every_value_once_and_never_split_equals():
    values = np.array([5, 1, 1, 1, 1, 1, 2, 3, 4, 5])
    bins = quantile_bins(values)
    assert sorted(np.concatenate(bins).tolist()) == list(range(10))
    assert [sorted(set(values[members].tolist())) for members in bins] == [[1], [2], [3, 4], [5]]


def grouped(folder):
    data_sets, problems = group_runs(collect(folder).runs)
    return data_sets, [(problem.where, problem.what) for problem in problems]


def test_groups_are_the_options_that_vary_in_numeric_order(tmp_path):
    for topk in (10, 9):
        for hidden in ([128], [64, 32]):
            for seed in (0, 1):
                make_run(
                    tmp_path / f"{topk}-{len(hidden)}-{seed}",
                    FLAT,
                    seed=seed,
                    options={"loss.topk": topk, "student.hidden": hidden, "cache_dir": f"{topk}{hidden}"},
                )
    (data_set,), problems = grouped(tmp_path)
    assert data_set.varying == {"student.hidden": "hidden", "loss.topk": "topk"}
    assert [group.label for group in data_set.groups] == [
        "hidden=[128] topk=9",
        "hidden=[128] topk=10",
        "hidden=[64, 32] topk=9",
        "hidden=[64, 32] topk=10",
    ]
    assert [[run.seed for run in group.runs] for group in data_set.groups] == [[0, 1]] * 4
    assert problems == []


def test_where_numbers_were_written_makes_no_other_experiment(tmp_path):
    for seed, writers in enumerate((["csv"], ["csv", "mlflow"])):
        options = {"tracking.writers": writers, "train.profile": None if seed else [1, 2]}
        make_run(tmp_path / str(seed), FLAT, seed=seed, options=options)
    (data_set,), _ = grouped(tmp_path)
    assert [group.label for group in data_set.groups] == ["all runs"]


def test_short_names_stay_clear(tmp_path):
    make_run(tmp_path / "a", FLAT, options={"loss.name": "x", "data.seed": 1, "loss.seed": 1, "loss.only": 3})
    make_run(tmp_path / "b", FLAT, options={"loss.name": "y", "data.seed": 2, "loss.seed": 2})
    (data_set,), _ = grouped(tmp_path)
    assert [group.label for group in data_set.groups] == [
        "data.seed=1 loss=x loss.seed=1",  # only=3 is clear from loss=x
        "data.seed=2 loss=y loss.seed=2",
    ]


def test_other_data_are_another_data_set(tmp_path):
    make_run(tmp_path / "a", FLAT)
    make_run(tmp_path / "b", FLAT, fingerprint="0" * 64)
    data_sets, _ = grouped(tmp_path)
    assert [(len(d.groups), d.groups[0].label) for d in data_sets] == [(1, "all runs")] * 2


def test_a_seed_counts_once(tmp_path):
    late = {**FLAT, "student": [0.75, 0.75]}
    make_run(tmp_path / "a-late", late, started="2026-01-02T00:00:00+00:00")
    make_run(tmp_path / "b-early", FLAT, started="2026-01-01T00:00:00+00:00")
    (data_set,), problems = grouped(tmp_path)
    assert data_set.groups[0].ndcg("student", "ndcg@10", "skip").n == 1
    assert data_set.groups[0].ndcg("student", "ndcg@10", "skip").mean == 0.75
    assert problems == [("b-early", "left out: a-late has the same options and seed and started later")]


def test_queries_are_averaged_over_the_seeds_that_have_them(tmp_path):
    student = {0: [0.25, 0.5], 1: [0.75, 1.0]}
    for seed, values in student.items():
        make_run(tmp_path / f"{seed}", {**FLAT, "student": values}, seed=seed)
    make_run(tmp_path / "other", FLAT, seed=2, query_ids=["q0", "other"])
    make_run(tmp_path / "damaged", FLAT, seed=3)
    (tmp_path / "damaged" / "per_query.csv").write_text("query_id,num_docs\n")
    (data_set,), problems = grouped(tmp_path)
    group = data_set.groups[0]
    assert group.queries.metrics["student"]["ndcg@10"].tolist() == [0.5, 0.75]
    assert group.ndcg("student", "ndcg@10", "skip").n == 4
    assert [where for where, _ in problems] == ["other/per_query.csv", "damaged/per_query.csv"]


def test_folds_of_a_set_are_one_data_set_and_their_queries_stand_together(tmp_path):
    teacher = {1: [0.75, 1.0, None], 2: [0.5, 0.75]}
    student = {
        (1, 0): [0.5, 0.75, None],
        (1, 1): [0.75, 0.75, None],
        (2, 0): [0.25, 0.5],
        (2, 1): [0.25, 0.0],
    }
    for (fold, seed), values in student.items():
        make_run(
            tmp_path / f"{fold}-{seed}",
            {"teacher": teacher[fold], "student": values},
            seed=seed,
            fingerprint=str(fold) * 64,
            options={"data.fold": fold},
        )
    (data_set,), problems = grouped(tmp_path)
    assert problems == []
    assert (data_set.label, data_set.repeats) == ("synthetic (folds 1, 2)", "folds and seeds")
    assert (data_set.num_queries("queries"), data_set.num_queries("blank_queries")) == (5, 1)
    (group,) = data_set.groups
    assert group.label == "all runs"
    # of the runs: 0.625, 0.75, 0.375, 0.125
    spread = group.ndcg("student", "ndcg@10", "skip")
    assert (spread.mean, spread.n) == (0.46875, 4)
    np.testing.assert_array_equal(
        group.queries.metrics["student"]["ndcg@10"], [0.625, 0.75, np.nan, 0.25, 0.25]
    )
    np.testing.assert_array_equal(group.queries.metrics["teacher"]["ndcg@10"], teacher_values(teacher))
    make_run(
        tmp_path / "elsewhere", {"teacher": teacher[2], "student": teacher[2]}, fingerprint="e" * 64,
        options={"data.fold": 2},
    )  # fmt: skip
    data_sets, _ = grouped(tmp_path)  # which of the two is fold 2 of the set?
    assert sorted(data_set.label for data_set in data_sets) == [
        "synthetic (11111111)", "synthetic (22222222)", "synthetic (eeeeeeee)",
    ]  # fmt: skip


def teacher_values(of_fold):
    return [np.nan if value is None else value for values in of_fold.values() for value in values]


@pytest.mark.parametrize(
    ("teacher", "gap", "closed"),
    [
        ([0.75, 0.625, 0.75, 0.625], True, "25.0%"),  # 0.25 above, significant
        ([0.75, 0.375, 0.75, 0.375], False, "no gap"),  # 0.0625 above, not significant
        ([0.25, 0.375, 0.25, 0.375], False, "no gap"),
        ([0.5] * 4, False, "no gap"),  # equal: the interval has no width
    ],
)
def test_a_gap_is_a_significant_one(tmp_path, teacher, gap, closed):
    baseline = [0.5, 0.375, 0.5, 0.375] if gap else [0.5, 0.5, 0.5, 0.5]
    student = [value + 0.0625 for value in baseline]
    make_run(tmp_path / "run", {"teacher": teacher, "baseline": baseline, "student": student})
    (data_set,), _ = grouped(tmp_path)
    assert data_set.groups[0].has_gap is gap
    assert data_set.groups[0].gap_closed("skip") == closed
    (tmp_path / "run" / "per_query.csv").unlink()
    (data_set,), _ = grouped(tmp_path)
    assert data_set.groups[0].has_gap is None
    assert data_set.groups[0].gap_closed("skip") == "-"


def test_holm_is_over_all_groups_and_data_sets(tmp_path):
    base = [0.1, 0.2, 0.3]
    for number, (fingerprint, topk) in enumerate([("a", 5), ("a", 10), ("b", 5)]):
        # the differences are 0.15, 0.1, 0.2 and their negatives: t = sqrt(27), two degrees of freedom
        student = [b + d for b, d in zip(base, [0.15, 0.1, 0.2], strict=True)]
        make_run(
            tmp_path / str(number),
            {"teacher": student, "baseline": base, "student": student},
            fingerprint=fingerprint,
            options={"loss.topk": topk},
        )
    tests = paired_tests(grouped(tmp_path)[0])
    p = 1 - np.sqrt(27 / 29)  # closed form of Student's t with two degrees of freedom
    expected = {"baseline": 6 * p, "teacher": 1.0}  # six tests on the page, three of them with p
    assert len(tests) == 6
    for test in tests:
        assert_close(test.p_holm, expected[test.comparison["b"]], atol=1e-9)

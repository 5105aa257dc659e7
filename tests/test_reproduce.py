"""The comparisons of conf/reproduce: each composes and runs tiny; the command skips, goes on, judges."""

import dataclasses
import itertools
import json
import re
import signal
import sys

import numpy as np
import pytest
import yaml

from pipeline.data.sources import PUBLISHED
from pipeline.errors import UserError
from pipeline.losses import make_loss
from pipeline.report.page import to_markdown
from pipeline.reproduce import claim as claims
from pipeline.reproduce import command, main, study
from pipeline.reproduce.claim import Claim, Figure, Row, load, make_jobs, names
from pipeline.reproduce.results import make_lines, measured, result_blocks, verdict
from pipeline.run import run as run_stages
from pipeline.status import ENDED, PAUSED, Status, read_status
from pipeline.store import write_json
from pipeline.tables import Table
from tests.closeness import assert_close
from tests.conftest import ROOT

MSLR = {"num_features": 136, "max_label": 4, "sizes": (5, 30, 1251), "scale": 1000.0}
ISTELLA = {
    "num_features": 220,
    "max_label": 4,
    "sizes": (8, 100, 320),
    "scale": 10.0,
    "missing": sys.float_info.max,
}
# What the true files look like.
SHAPES = {
    "mq2008": {"num_features": 46, "max_label": 2, "sizes": (8, 20, 31), "scale": 1.0},
    "web10k": MSLR,
    "web30k": MSLR,
    "istella": ISTELLA,
    "istella_s": ISTELLA,
    "yahoo": {"num_features": 700, "max_label": 4, "sizes": (1, 23, 139), "scale": 1.0, "share_set": 0.3},
}
SAME_FILES = ("web30k", "istella_s")


def write_letor(
    path, *, num_features, max_label, sizes, scale, seed, missing=None, share_set=1.0, num_queries=6
):
    """Lists with a signal in the first feature; every fifth query is blank, as in the true files."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for query in range(num_queries):
            for _ in range(sizes[query % len(sizes)]):
                features = rng.random(num_features)
                label = 0 if query % 5 == 4 else int(features[0] * (max_label + 0.99))
                written = [f"{value * scale:.6f}" for value in features]
                if missing is not None:
                    written[-2] = repr(missing)
                kept = rng.random(num_features) < share_set
                kept[[0, -1]] = True
                values = " ".join(f"{i + 1}:{written[i]}" for i in np.flatnonzero(kept))
                file.write(f"{label} qid:{1000 * seed - 995 + query} {values}\n")


def write_data(folder, claim):
    """The files that the comparison needs, as their publisher lays them out."""
    if not claim.data.brought:
        return folder
    axis_values = claim.axis.get("fold", [1])
    files = list(claim.data.files.values()) or list(
        PUBLISHED[
            {"web10k": "mslr_web10k", "web30k": "mslr_web30k", "yahoo": "yahoo/set1"}.get(
                claim.name, claim.name
            )
        ].files.values()
    )
    for seed, (fold, pattern) in enumerate(itertools.product(axis_values, files), 1):
        path = folder / pattern.format(fold=fold, set=1)
        if fold == axis_values[0]:
            write_letor(path, seed=seed, **SHAPES[claim.name.removeprefix("study_")])
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()  # the test runs the first fold
    return folder


def run_here(overrides, folder):
    """A job in this process: its own would take seconds to import TensorFlow."""
    config = command.compose([*overrides, command.quoted("run_dir", folder)])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.plain()))
    run_stages(config)
    return Status(ENDED, exit_code=0)


@pytest.fixture
def ran(monkeypatch):
    """The names of the jobs. They are not run: a result is made up from the run's name and the seed."""
    jobs = []

    def made_up_run(overrides, folder):
        run, axis = folder.parts[-2:]
        jobs.append(f"{run} {axis}")
        config = command.compose([*overrides, command.quoted("run_dir", folder)])
        value = len(run) / 10 + config.seed / 100
        models = {
            model: {"metrics": {"test": {"ndcg@10": {"zero": value * share}}}}
            for model, share in (("teacher", 1.0), ("student", 0.5), ("baseline", 0.25))
        }
        models["student"]["made_by"] = {"commit": "def", "dirty": True}
        facts = {
            "seconds": {"data": 1.5},
            "commit": "abc",
            "device": "none",
            "started": "now",
            "versions": {},
        }
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config.plain()))))
        write_json(folder / "result.json", {"config": config.plain(), "models": models, "run": facts})
        return Status(ENDED, exit_code=0)

    monkeypatch.setattr(command, "run_job", made_up_run)
    return jobs


def run_main(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


# ---------------------------------------------------------------------------------- what is in conf/reproduce


@pytest.mark.parametrize("name", names())
def test_each_comparison_is_consistent(name):
    claim = load(name)
    assert list(claim.axis) in (["fold"], ["seed"], ["fold", "seed"])
    assert claim.reference is None or claim.rows[claim.reference].minus is None
    assert {row.run for row in claim.rows.values()} == set(claim.runs)
    for row in claim.rows.values():
        assert {row.model, row.minus} <= {"teacher", "baseline", "student", None}
    keys = [(figure.row, figure.metric, figure.convention) for figure in claim.expected]
    assert len(keys) == len(set(keys))
    for figure in [*claim.expected, *claim.published]:
        assert figure.row in claim.rows
        assert figure.source
        assert -1 <= figure.value <= 1
    for figure in claim.expected:
        assert figure.tolerance > 0
        assert figure.convention in ("zero", "skip", "one")


@pytest.mark.parametrize("name", names())
def test_the_head_of_each_file_says_what_the_data_below_it_says(name):
    text = (ROOT / "conf" / "reproduce" / f"{name}.yaml").read_text()
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    stated = dict(re.findall(r"^#   (\w+) +(.+)$", head, flags=re.MULTILINE))
    assert set(stated) == {"paper", "command", "cost", "hardware", "result", "date"}
    recorded = load(name).recorded
    assert stated["command"] == load(name).command
    assert stated["date"] == ("not run" if recorded is None else recorded.date)
    assert stated["hardware"] == ("not run" if recorded is None else recorded.hardware)
    assert (stated["result"] == "not run") == (recorded is None)


@pytest.mark.parametrize("name", names())
def test_each_comparison_runs_tiny_on_data_of_its_shape(name, tmp_path, monkeypatch, capsys):
    claim = load(name)
    data = write_data(tmp_path / "data", claim)
    jobs = make_jobs(claim, data=data, out=tmp_path, further=[])
    assert len(jobs) == len(claim.runs) * len(claim.axes)
    for job in jobs:
        if job.axis == jobs[0].axis:  # the others have another number there
            loss = command.compose(job.overrides).loss  # at full size too
            make_loss(loss.name, **loss.options)
    if name in SAME_FILES:  # only the numbers in the files differ from another set's
        assert all(command.finished(job) is None for job in jobs)  # options and files are right
        return
    # The web sets share their runs: all of them on one set, the first one on the others.
    runs = claim.runs if name == "yahoo" else dict(itertools.islice(claim.runs.items(), 1))
    rows = {row: options for row, options in claim.rows.items() if options.run in runs}
    part = dataclasses.replace(
        claim, axis={axis: values[:1] for axis, values in claim.axis.items()}, runs=runs, rows=rows
    )
    monkeypatch.setattr(command, "load", lambda name: part)
    monkeypatch.setattr(command, "run_job", run_here)
    assert run_main(name, "--data", data, "--out", tmp_path / "out", "--tiny") == 0
    written = json.loads((tmp_path / "out" / name / "reproduction.json").read_text())
    assert {line["row"] for line in written["lines"]} == set(rows)
    assert all(line["mean"] is not None for line in written["lines"])
    printed = capsys.readouterr().out
    assert all(row in printed for row in rows)
    assert (f"NDCG@10 against {claim.reference}" in printed) == (claim.reference is not None)


def test_the_web_sets_share_their_runs():
    shared = [load(name).runs for name in names() if name != "mq2008" and not name.startswith("study")]
    for runs in shared:
        assert runs.pop("neural")[:3] == [
            "loss=coupled_rankdistil",
            "train.baseline=false",
            "teacher=attention",
        ]
    assert shared == [shared[0]] * 5


def test_results_md_is_up_to_date(capsys):
    assert run_main("--results") == 0
    assert (ROOT / "RESULTS.md").read_text() == capsys.readouterr().out, (
        "Fix: rankdistil-reproduce --results > RESULTS.md"
    )


def test_list_names_every_comparison_with_its_state(capsys):
    assert run_main("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names()
    states = ["not run" if load(name).recorded is None else "run" for name in names()]
    assert all(state in line for state, line in zip(states, lines, strict=True))


# ------------------------------------------------------------------------------------------------ the command

SMALL = claims.parse(
    "small",
    {
        "title": "Two seeds | a test",
        "paper": "none",
        "data": {
            "name": "A test",
            "get": "this file",
            "files": {"train": "train.txt", "vali": "vali.txt", "test": "test.txt"},
            "overrides": ["data=letor", "data.train={train}", "data.vali={vali}", "data.test={test}"],
        },
        "axis": {"seed": [0, 1]},
        "overrides": [
            "seed={seed}",
            "stage=evaluate",
            "student=linear",
            "teacher.min_docs_in_leaf=1",
            "train.jit=off",
        ],
        "runs": {"ours": ["train.epochs=2"], "other": ["train.epochs=1"]},
        "rows": {
            "teacher": {"run": "ours", "model": "teacher"},
            "ours": {"run": "ours", "model": "student"},
            "ours - other": {"run": "other", "model": "student", "minus": "baseline"},
        },
        "metrics": ["ndcg@10"],
        "convention": "zero",
        "tiny": ["teacher.num_trees=2"],
        "expected": [],
        "published": [],
        "recorded": None,
    },
)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A comparison of 2 x 2 jobs, in a folder whose name needs quoting."""
    data = tmp_path / "it's, a = {folder}"
    for seed, split in enumerate(("train", "vali", "test")):
        path = data / f"{split}.txt"
        write_letor(path, num_features=4, max_label=4, sizes=(5, 9), scale=1.0, seed=seed + 1)
    monkeypatch.setattr(command, "load", lambda name: SMALL)
    return ["small", "--data", data, "--out", tmp_path / "my out", "--tiny"]


def test_jobs_run_in_processes_of_their_own_and_a_failed_one_does_not_stop_the_others(
    small, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "my out" / "small"
    only = {"seed": [0]}
    broken = dataclasses.replace(
        SMALL, axis=only, runs={"ours": ["loss.topk=-1"], "other": ["train.epochs=1"]}
    )
    monkeypatch.setattr(command, "load", lambda name: broken)
    assert run_main(*small) == 1
    log = out / "ours" / "seed-0" / "log"
    assert "topk" in read_status(log.parent).error
    captured = capsys.readouterr()
    assert f"failed: ours seed-0, see {log}" in captured.err
    assert " ".join(captured.out.split()).count("INCOMPLETE 0/1") == 2  # teacher and ours
    written = json.loads((out / "reproduction.json").read_text())
    assert written["failed"] == [str(log)]
    ours, other = written["lines"][1:]
    assert (ours["mean"], ours["verdict"]) == (None, "INCOMPLETE")
    result = json.loads((out / "other" / "seed-0" / "result.json").read_text())
    test = {
        model: result["models"][model]["metrics"]["test"]["ndcg@10"]["zero"] for model in result["models"]
    }
    assert other["values"] == [test["student"] - test["baseline"]]


def test_the_same_command_runs_only_what_is_missing(small, tmp_path, ran, capsys):
    out = tmp_path / "my out" / "small"
    assert run_main(*small) == 0
    assert ran == ["ours seed-0", "ours seed-1", "other seed-0", "other seed-1"]
    first = json.loads((out / "reproduction.json").read_text())
    teacher, ours, difference = first["lines"]
    assert_close(teacher["values"], [0.4, 0.41])
    assert_close(ours["values"], [0.2, 0.205])
    assert_close(difference["values"], [0.125, 0.1275])
    assert first["commit"] == ["abc", "def (dirty)"]  # that made the models
    assert first["seconds"] == 6.0  # of four jobs
    (out / "ours" / "seed-1").rename(out / "moved")
    ran.clear()
    assert run_main(*small) == 0
    assert ran == ["ours seed-1"]
    assert "[1/4] ours seed-0 was done before" in capsys.readouterr().err
    assert json.loads((out / "reproduction.json").read_text()) == first


def test_several_names_run_one_after_another(small, tmp_path, monkeypatch, ran, capsys):
    monkeypatch.setattr(command, "load", lambda name: dataclasses.replace(SMALL, name=name))
    assert run_main("first", "second", *small[1:]) == 0
    assert ran == 2 * ["ours seed-0", "ours seed-1", "other seed-0", "other seed-1"]
    printed = capsys.readouterr().out
    for name in ("first", "second"):
        table = tmp_path / "my out" / name / "table.md"
        assert table.is_file()
        assert f"tables: {table}" in printed


def test_a_damaged_result_counts_as_missing(small, tmp_path):
    jobs = make_jobs(SMALL, data=small[2], out=tmp_path / "my out", further=[])
    jobs[0].folder.mkdir(parents=True)
    (jobs[0].folder / "result.json").write_text('{"half')
    assert command.finished(jobs[0]) is None


@pytest.mark.parametrize(
    ("further", "named"),
    [("loss.topk=3", "loss.topk"), ("train.epoch=3", "train.epoch"), ("train.epochs=0", "train.epochs=0")],
)
def test_other_or_wrong_options_are_refused_before_anything_runs(small, ran, capsys, further, named):
    assert run_main(*small) == 0
    ran.clear()
    assert run_main(*small, "--", further) == 2
    assert ran == []
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert named in error


def test_files_may_be_compressed_and_a_missing_one_is_named_with_its_source(tmp_path, monkeypatch, capsys):
    claim = load("mq2008")
    for fold in range(1, 6):
        for split, end in (("train", ".txt"), ("vali", ".txt.xz"), ("test", ".txt.gz")):
            path = tmp_path / f"Fold{fold}" / f"{split}{end}"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    job = make_jobs(claim, data=tmp_path, out=tmp_path, further=["a=b"])[2]
    for name, end in (("train", ".txt"), ("vali", ".txt.xz"), ("test", ".txt.gz")):
        assert f"data.{name}='{tmp_path}/Fold3/{name}{end}'" in job.overrides
    assert job.overrides[-2:] == ["a=b", f"cache_dir='{tmp_path}/cache'"]
    assert job.folder == tmp_path / "mq2008" / "coupled" / "fold-3"
    (tmp_path / "Fold4" / "vali.txt.xz").unlink()
    assert run_main("mq2008", "--data", tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/Fold4/vali.txt: ")
    assert f"Fix: get {claim.data.name} from {claim.data.get}" in error
    assert "DIR/Fold{fold}/train.txt" in error
    assert run_main("mq2008") == 2
    assert "--data DIR" in capsys.readouterr().err


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="mq2008"):
        load("mq208")


def test_an_interrupted_job_ends_the_command_with_its_exit_code(small, monkeypatch, capsys):
    monkeypatch.setattr(command, "run_job", lambda overrides, folder: Status(PAUSED, exit_code=75))
    assert run_main(*small) == 75
    assert "[2/4]" not in capsys.readouterr().err


def test_sigterm_is_an_interruption(small, monkeypatch):
    monkeypatch.setattr(command, "run_job", lambda overrides, folder: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run_main(*small) == 75
    finally:
        signal.signal(signal.SIGTERM, before)


# ------------------------------------------------------------------------------------------------- the verdict


def result(**ndcg):
    return {
        "models": {
            "student": {"metrics": {"test": {"ndcg@10": ndcg, "map": 0.4}}},
            "teacher": {"metrics": {"test": {"ndcg@10": {"zero": 0.5, "skip": None}, "map": 0.25}}},
        }
    }


def test_measured_takes_the_convention_where_the_metric_has_one():
    row = Row(run="r", model="student")
    assert measured(result(zero=0.25, one=0.75), row, "ndcg@10", "one") == 0.75
    assert measured(result(zero=0.25), row, "map", "one") == 0.4
    difference = dataclasses.replace(row, minus="teacher")
    assert measured(result(zero=0.25), difference, "ndcg@10", "zero") == -0.25
    assert measured(result(skip=0.25), difference, "ndcg@10", "skip") is None
    assert measured(result(zero=0.25), Row(run="r", model="baseline"), "map", "zero") is None


@pytest.mark.parametrize(
    ("value", "expected"), [(0.51, "OK"), (0.49, "OK"), (0.515, "CLOSE"), (0.48, "CLOSE"), (0.521, "FAIL")]
)
def test_verdict_at_the_borders(value, expected):
    assert verdict(value - 0.5, 0.01) == expected


def lines_of(values, **options):
    figure = Figure(row="s", metric="ndcg@10", convention="one", value=0.5, tolerance=0.01, source="a book")
    claim = Claim(
        **{field.name: getattr(SMALL, field.name) for field in dataclasses.fields(Claim)}
        | {"rows": {"s": Row(run="ours", model="student")}, "convention": "one", "expected": [figure]}
        | {"axis": {"seed": list(range(len(values)))}}
        | options
    )
    return claim, make_lines(claim, {"ours": [None if v is None else result(one=v) for v in values]})


def test_a_line_has_mean_sd_and_difference():
    _, (line,) = lines_of([0.5, 0.54, 0.508])
    assert_close(line.mean, 0.516)
    assert_close(line.sd, np.std([0.5, 0.54, 0.508], ddof=1))
    assert_close(line.difference, 0.016)
    assert line.verdict == "CLOSE"
    _, (line,) = lines_of([0.5])
    assert (line.sd, line.verdict) == (None, "OK")


def test_a_line_without_all_its_jobs_gets_no_verdict():
    _, (line,) = lines_of([0.5, None])
    assert (line.mean, line.verdict) == (0.5, "INCOMPLETE")


def test_what_is_expected_in_another_convention_gets_a_line_of_its_own():
    _, lines = lines_of([0.5], convention="zero", metrics=["map"])
    assert [(line.metric, line.convention, line.verdict) for line in lines] == [
        ("map", "zero", None), ("ndcg@10", "one", "OK")
    ]  # fmt: skip


def test_the_page_shows_the_published_value_beside_whatever_its_convention():
    published = Figure(row="s", metric="ndcg@10", convention="not known", value=0.4792, source="a | b 2021")
    claim, lines = lines_of([0.53], published=[published])
    page = to_markdown("", result_blocks(claim, lines))
    assert r"| s | NDCG@10 (one) | 0.5300 | - | 0.5000 ± 0.0100 | +0.0300 | FAIL | 0.4792 \[1\] |" in page
    assert r"| \[1\] | not known; a \| b 2021 |" in page


def test_a_value_that_fails_ends_with_code_1(small, monkeypatch, ran):
    impossible = [
        Figure(row="ours", metric="ndcg@10", convention="zero", value=-1, tolerance=0.1, source="-")
    ]
    claim = dataclasses.replace(SMALL, axis={"seed": [0]}, expected=impossible)
    monkeypatch.setattr(command, "load", lambda name: claim)
    arguments = [argument for argument in small if argument != "--tiny"]
    assert run_main(*arguments, "--", "teacher.num_trees=2") == 1
    assert run_main(*small) == 0  # tiny proves nothing, so nothing is held against it


# ---------------------------------------------------------------------------------------------------- the study


def study_of(tmp_path, values):
    """A study over 2 folds x 2 seeds whose runs `a`, `b` have these NDCG@10 of 2 queries a fold."""
    claim = dataclasses.replace(
        SMALL,
        axis={"fold": [1, 2], "seed": [0, 1]},
        runs={"a": [], "b": []},
        rows={"A": Row("a", "student"), "B": Row("b", "student"), "A - B": Row("a", "student", "teacher")},
        reference="A",
        target=0.5,
    )
    jobs, results = [], {}
    for run in claim.runs:
        results[run] = []
        for axis in claim.axes:
            folder = tmp_path / run / f"{axis}"
            folder.mkdir(parents=True)
            ndcg = values[run][axis["fold"]][axis["seed"]]
            lines = [
                "query_id,num_docs,num_relevant,student/ndcg@10",
                *(f"q{i},3,1,{v}" for i, v in enumerate(ndcg)),
            ]
            (folder / "per_query.csv").write_text("\n".join(lines) + "\n")
            jobs.append(claims.Job(run, f"{axis}", folder, []))
            facts = {"parameters": 10, "us_per_doc": 0.5, "vali_by_epoch": [0.4, 0.5]}
            metrics = {"test": {"ndcg@10": {"zero": float(np.mean(ndcg))}}}
            models = {"student": {**facts, "metrics": metrics}, "teacher": {"us_per_doc": 5.0, "metrics": {}}}
            results[run].append({"models": models, "run": {"epoch_seconds": {"student": [2.0, 3.0]}}})
    return claim, jobs, results


VALUES = {
    "a": {1: [[0.1, 0.2], [0.3, 0.4]], 2: [[0.5, 0.5], [0.5, 0.7]]},
    "b": {1: [[0.2, 0.4], [0.4, 0.6]], 2: [[0.5, 0.7], [0.7, 0.9]]},
}


def test_rows_are_tested_against_the_reference_over_the_queries_of_all_folds(tmp_path):
    claim, jobs, results = study_of(tmp_path, VALUES)
    tests = study.paired_rows(claim, jobs, results)
    assert list(tests) == ["B"]
    # Means over the seeds: a 0.2, 0.3, 0.5, 0.6; b 0.3, 0.5, 0.6, 0.8.
    assert_close(tests["B"]["difference"], 0.15)
    assert tests["B"]["queries"] == 4
    assert (tests["B"]["win"], tests["B"]["loss"]) == (4, 0)
    page = to_markdown("", study.study_blocks(claim, jobs, results))
    assert (
        "Significantly better than it: B" in page
    )  # t = 0.15 / (0.0577 / 2) = 5.2 with 3 degrees of freedom
    assert "| A | 10 | 0.50 | 0.100 | - | - |" in page
    assert "| A | 0.4000 | 0.1061 | - | - | - | - | 2 | 5.0 | 4/4 |" in page  # of 0.325, 0.475
    results["b"][3] = None
    assert study.paired_rows(claim, jobs, results) == {}  # B misses a job


def test_with_folds_and_seeds_a_value_is_the_mean_over_the_folds_of_a_seed(tmp_path):
    claim, _, results = study_of(tmp_path, VALUES)
    line = next(line for line in make_lines(claim, results) if line.row == "A")
    assert_close(line.values, [(0.15 + 0.5) / 2, (0.35 + 0.6) / 2])
    results["a"][0] = None
    line = next(line for line in make_lines(claim, results) if line.row == "A")
    assert_close(line.values, [(0.35 + 0.6) / 2])
    assert line.verdict == "INCOMPLETE"


@pytest.mark.parametrize(
    ("teacher", "closed"),
    [
        ([0.75, 0.625, 0.75, 0.625], "25.0%"),  # 0.25 above the baseline in every query
        ([0.875, 0.125, 0.875, 0.125], "no gap"),  # 0.0625 above, not significant
        ([0.5, 0.375, 0.5, 0.375], "no gap"),  # equal to the baseline
    ],
)
def test_the_share_of_the_gap_needs_a_significant_gap(tmp_path, teacher, closed):
    baseline = [0.5, 0.375, 0.5, 0.375]
    values = {"teacher": teacher, "baseline": baseline, "student": [v + 0.0625 for v in baseline]}
    claim = dataclasses.replace(
        SMALL,
        axis={"seed": [0]},
        runs={"a": []},
        rows={"labels": Row("a", "baseline"), "ours": Row("a", "student")},
        reference="labels",
    )
    lines = [
        f"q{i},3,1,{','.join(map(str, row))}" for i, row in enumerate(zip(*values.values(), strict=True))
    ]
    header = f"query_id,num_docs,num_relevant,{','.join(f'{model}/ndcg@10' for model in values)}"
    (tmp_path / "per_query.csv").write_text("\n".join([header, *lines]) + "\n")
    models = {
        model: {"metrics": {"test": {"ndcg@10": {"zero": float(np.mean(ndcg))}}}}
        for model, ndcg in values.items()
    }
    blocks = study.study_blocks(
        claim, [claims.Job("a", "seed-0", tmp_path, [])], {"a": [{"models": models, "run": {}}]}
    )
    costs = [block for block in blocks if isinstance(block, Table)][1]
    assert {row[0]: row[-1] for row in costs.rows} == {
        "labels": "0.0%" if closed == "25.0%" else closed,
        "ours": closed,
    }

"""The command on trees of runs with known answers."""

import io
import json
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from pipeline.report import figures, main
from pipeline.status import ENDED, FAILURE, PAUSED, RUNNING, Status, write_status
from tests.report.tree import make_run, make_sweep

TEACHER, BASELINE = [0.8, 0.6, 0.7, None], [0.5, 0.4, 0.3, None]
STUDENT = {  # (topk, seed)
    (5, 0): [0.6, 0.5, 0.4, None],
    (5, 1): [0.7, 0.5, 0.6, None],
    (10, 0): [0.4, 0.4, 0.3, None],
    (10, 1): [0.6, 0.4, 0.3, None],
}


@pytest.fixture
def known(tmp_path):
    for (topk, seed), student in STUDENT.items():
        make_run(
            tmp_path / f"topk={topk}" / f"seed={seed}",
            {"teacher": TEACHER, "baseline": BASELINE, "student": student},
            seed=seed,
            options={"loss.topk": topk},
            vali={5: 0.4, 10: 0.6}[topk],
            command=f"rankdistil loss.topk={topk} seed={seed}",
        )
    return tmp_path


def rows(markdown, *names):
    """The cells behind the first columns `names` in every table."""
    lines = [line[2:-2].split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return [line[len(names) :] for line in lines if line[: len(names)] == list(names)]


def report(folder, *arguments):
    assert main([str(folder), *arguments]) == 0
    return (folder / "report" / "report.md").read_text()


def assert_pictures(out, names):
    assert sorted(path.name for path in out.glob("*.png")) == sorted(names)
    for name in names:
        image = matplotlib.image.imread(out / name)
        assert image.shape[:2] == (608, 832)
        assert len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 50


def test_the_tables_hold_the_expected_numbers(known):
    text = report(known)
    sd = 0.1 / np.sqrt(2)
    main_teacher, cost_teacher = rows(text, "all", "teacher")
    assert main_teacher == ["2", *["0.7000 ± 0.0000"] * 3, "-"]
    assert cost_teacher == ["5,000", "20.000", "20.000", "0.7000", "time, parameters"]
    assert rows(text, "all", "baseline")[0] == ["2", *["0.4000 ± 0.0000"] * 3, "-"]
    assert rows(text, "topk=5", "student")[0] == ["2", *[f"0.5500 ± {sd:.4f}"] * 3, "50.0%"]
    assert rows(text, "topk=5", "student")[1][-1] == "time, parameters"
    assert rows(text, "topk=10", "student")[0] == ["2", *[f"0.4000 ± {sd * 2 / 3:.4f}"] * 3, "0.0%"]
    assert rows(text, "topk=10", "student")[1][-1] == "-"
    # differences 0.15, 0.1, 0.2: mean 0.15, t = sqrt(27) with two degrees of freedom; the quantile is 4.3027
    p, half = 1 - np.sqrt(27 / 29), 4.302653 * 0.05 / np.sqrt(3)
    assert rows(text, "topk=5", "student - baseline") == [
        ["3", "+0.1500", f"{0.15 - half:+.4f} to {0.15 + half:+.4f}", f"{p:.4f}", f"{4 * p:.4f}", "3/0/0"]
    ]
    assert rows(text, "topk=5", "student - teacher")[0][3:] == [f"{p:.4f}", f"{4 * p:.4f}", "0/0/3"]
    assert rows(text, "topk=10", "student - baseline")[0][3:] == ["1.0000", "1.0000", "0/3/0"]
    assert "convention 'skip'" in text
    assert "Highest validation NDCG@10 of the student (0.6000 ± 0.0000): topk=10 (test 0.4000" in text
    # in words, of the chosen group alone
    assert text.count("Student against baseline, NDCG@10:") == 1
    assert "NDCG@10: +0.0000 (95 % CI +0.0000 to +0.0000, p after Holm 1.0000); better on 0 of 3" in text
    assert "That is 0.0% of the way from baseline to teacher." in text
    assert rows(text, "topk=5")[-1] == ["0.5500 ± 0.0707", "0.7500 ± 0.0000", "0.9000 ± 0.0000"]
    assert rows(text, "topk=5/seed=1", "topk=5") == [["1", "0.6000"]]
    for (topk, seed), _ in STUDENT.items():
        assert f"\nrankdistil loss.topk={topk} seed={seed}\n" in text


def test_a_baseline_that_an_option_changes_has_a_row_for_each(tmp_path):
    for hidden, level in ([8], 0.25), ([16], 0.5):
        flat = {"teacher": [0.75, 1.0], "baseline": [level] * 2, "student": [level] * 2}
        make_run(tmp_path / str(hidden[0]), flat, options={"student.hidden": hidden})
    text = report(tmp_path)
    assert rows(text, "all", "teacher")[0] == ["1", *["0.8750"] * 3, "-"]
    assert rows(text, "all", "baseline") == []
    assert rows(text, r"hidden=\[8\]", "baseline")[0] == ["1", *["0.2500"] * 3, "-"]
    assert rows(text, r"hidden=\[16\]", "baseline")[0] == ["1", *["0.5000"] * 3, "-"]


def test_the_gate_and_a_teacher_that_leaves_no_gap(tmp_path, capsys):
    values = {"teacher": [0.25, 0.5], "baseline": [0.5, 0.5], "student": [0.25, 0.75]}
    for seed, cost in ((0, 2.5), (1, 6.0)):
        check = {"name": "us a document", "value": cost, "limit": "<= 5", "passed": cost <= 5}
        share = {"name": "share", "value": None, "limit": ">= 1", "passed": False}
        gate = {"passed": False, "checks": [check, share]}
        make_run(tmp_path / f"{seed}", values, seed=seed, gate=gate)
    text = report(tmp_path)
    assert "Gate: FAIL" in text
    assert "Gate: FAIL" in capsys.readouterr().out
    assert rows(text, "all runs", "us a document") == [["2.5, 6", "&lt;= 5", "1 of 2 PASS"]]
    assert rows(text, "all runs", "share") == [["-", "&gt;= 1", "FAIL"]]
    assert rows(text, "all runs", "student")[0][-1] == "no gap"
    assert "no gap: the teacher is not significantly above the baseline." in text
    assert "The teacher is not significantly above the baseline: there is no gap to close." in text
    assert "mean over 2 seeds" in text


def test_another_convention(known):
    text = report(known, "--no-relevant", "zero")
    assert rows(text, "all", "teacher")[0][3] == "0.5250 ± 0.0000"
    assert rows(text, "topk=5", "student")[0][3] == f"0.4125 ± {0.075 / np.sqrt(2):.4f}"
    assert "convention 'zero'" in text
    assert "count 0" in text


def test_queries_by_length_by_relevance_and_by_gain(tmp_path):
    student = [0.5, 0.6, 0.7, 0.1, None, 0.2]
    make_run(
        tmp_path / "run",
        {
            "teacher": [0.9, 0.8, 0.7, 0.6, None, 0.5],
            "baseline": [0.2, 0.6, 0.6, 0.3, None, 0.6],
            "student": student,
        },
        num_docs=[10, 10, 20, 30, 99, 40],
        num_relevant=[1, 2, 3, 4, 0, 5],
    )
    text = report(tmp_path)
    assert "NDCG@10: -0.0400 (95 % CI" in text
    assert "better on 2 of 5 queries, worse on 2." in text
    assert rows(text, "10") == [["2", "0.8500", "0.4000", "0.5500"]]
    assert rows(text, "30") == [["1", "0.6000", "0.3000", "0.1000"]]
    assert rows(text, "5") == [["1", "0.5000", "0.6000", "0.2000"]]
    gained, lost = text.split("Queries that gained most")[1].split("Queries that lost most")
    lost = lost.split("\n## ")[0]
    assert [line.split(" | ")[:2] for line in gained.splitlines() if line.startswith("| q")][1:] == [
        ["| q0", "+0.3000"],
        ["| q2", "+0.1000"],
    ]
    assert rows(lost, "q5") == [["-0.4000", "0.5000", "0.6000", "0.2000", "40", "5"]]
    assert [line[:4] for line in lost.splitlines() if line.startswith("| q")][1:] == ["| q5", "| q3"]


def test_a_sweep_has_a_heat_map_for_each_sample_size(tmp_path, monkeypatch):
    maps = []
    draw = figures.heat_map
    monkeypatch.setattr(
        figures, "heat_map", lambda cells, **facts: maps.append((cells, facts)) or draw(cells, **facts)
    )
    make_sweep(tmp_path, topk=(5, 10), temperature=(0.5, 2.0), sample_size=(1, 8), seeds=(0, 1))
    text = report(tmp_path)
    panels = ["heatmap-1-1.png", "heatmap-1-2.png"]
    others = [
        "quality-time-1.png",
        "quality-parameters-1.png",
        "ndcg-by-length-1.png",
        "ndcg-by-relevant-1.png",
    ]
    assert_pictures(tmp_path / "report", ["ndcg-1.png", *panels, *others])
    assert [facts["title"] for _, facts in maps] == ["sample_size=1", "sample_size=8"]
    assert {(f["x_label"], f["y_label"]) for _, f in maps} == {("loss.topk (documents)", "loss.temperature")}
    for cells, facts in maps:
        assert len(cells) == 4
        for (topk, temperature), value in cells.items():
            label = f"topk={topk} temperature={temperature} {facts['title']}"
            assert rows(text, label, "student")[0][3].startswith(f"{value:.4f} ± ")


def test_any_two_numbers_make_a_map_and_one_does_not(tmp_path, monkeypatch):
    maps = []
    monkeypatch.setattr(figures, "heat_map", lambda cells, **facts: maps.append((cells, facts)) or b"")
    flat = {name: [0.5, 0.25] for name in ("teacher", "baseline", "student")}
    for i, (size, rate) in enumerate([(1, 0.1), (2, 0.1), (2, 0.2)]):
        make_run(tmp_path / "one" / str(i), flat, options={"train.size": size})
        options = {"train.size": size, "train.rate": rate, "train.jit": "off"}
        make_run(tmp_path / "two" / str(i), flat, options=options)
    report(tmp_path / "one")
    assert maps == []
    report(tmp_path / "two")
    ((cells, facts),) = maps
    assert cells == {(1, 0.1): 0.375, (2, 0.1): 0.375, (2, 0.2): 0.375}
    assert (facts["x_label"], facts["y_label"]) == ("train.size", "train.rate")


def test_null_stands_after_the_numbers(tmp_path, monkeypatch):
    maps = []
    draw = figures.heat_map
    monkeypatch.setattr(
        figures, "heat_map", lambda cells, **facts: maps.append(cells) or draw(cells, **facts)
    )
    flat = {name: [0.5, 0.25] for name in ("teacher", "baseline", "student")}
    for topk in (5, None):
        for temperature in (1, 2):
            options = {"loss.topk": topk, "loss.temperature": temperature}
            make_run(tmp_path / f"{topk}-{temperature}", flat, options=options)
    report(tmp_path)
    assert [list(cells) for cells in maps] == [[(5, 1), (5, 2), (np.inf, 1), (np.inf, 2)]]


def test_the_heat_map_puts_values_where_the_axes_say():
    png = figures.heat_map(
        {(10.0, 2.0): 0.9, (5.0, 1.0): 0.1},
        x_label="x",
        y_label="y",
        value_label="v",
        title="$\\bad{ mathematics$",
        limits=(0.1, 0.9),
    )
    image = matplotlib.image.imread(io.BytesIO(png))[..., :3]
    panel = image[:, : int(image.shape[1] * 0.75)]  # the colour bar has all colours

    def middle(colour):
        return np.argwhere(np.abs(panel - np.array(colour)).max(axis=2) < 0.02).mean(axis=0)

    low, high = middle([0.267, 0.005, 0.329]), middle([0.993, 0.906, 0.144])
    assert low[1] < high[1]  # left of
    assert low[0] > high[0]  # below


def test_a_single_run_without_a_baseline_and_with_a_teacher_of_unknown_cost(tmp_path):
    make_run(
        tmp_path / "run",
        {"teacher": [0.75, 0.5], "student": [0.5, 0.5]},
        options={"train.baseline": False},
        cost={"teacher": (None, None)},
    )
    text = report(tmp_path)
    assert ": one seed." in text
    assert "Gate" not in text
    assert rows(text, "all runs", "teacher") == [
        ["1", *["0.6250"] * 3, "-"],
        ["-", "-", "-", "0.6250", "-"],
    ]
    assert rows(text, "all runs", "student")[0] == ["1", *["0.5000"] * 3, "-"]
    assert "baseline" not in text.replace("(student - baseline) / (teacher - baseline)", "")
    names = ["ndcg", "quality-time", "quality-parameters", "ndcg-by-length", "ndcg-by-relevant"]
    assert_pictures(tmp_path / "report", [f"{name}-1.png" for name in names])


def test_no_query_with_a_relevant_document(tmp_path):
    make_run(tmp_path / "run", {name: [None, None] for name in ("teacher", "baseline", "student")})
    text = report(tmp_path)
    assert rows(text, "all runs", "student") == [["0", "-", "-", "-", "-"]]
    assert rows(text, "all runs", "student - baseline") == [["0", "-", "-", "-", "-", "0/0/0"]]


def test_the_folder_may_be_the_run_itself(tmp_path):
    make_run(tmp_path / "the-run", {name: [0.5, 1.0] for name in ("teacher", "student")})
    assert rows(report(tmp_path / "the-run"), "the-run", "all runs") == [["0", "0.7500"]]


def test_damaged_results_are_named(known, capsys):
    def damage(name, change):
        folder = make_run(known / name, {name: [0.5] for name in ("teacher", "student")}, seed=9)
        path = folder / "result.json"
        path.write_text(change(path.read_text()))

    def without(*path):
        def change(text):
            result = inner = json.loads(text)
            for key in path[:-1]:
                inner = inner[key]
            del inner[path[-1]]
            return json.dumps(result)

        return change

    damage("cut", lambda text: text[:100])
    damage("empty", lambda text: "")
    damage("list", lambda text: "[]")
    damage("deep", lambda text: "[" * 100_000)
    damage("nan", lambda text: text.replace("20.0", "NaN", 1))
    damage("infinite", lambda text: text.replace("20.0", "1e999", 1))
    damage("words", lambda text: text.replace('"parameters": 300', '"parameters": "many"'))
    damage("student", without("models", "student"))
    damage("metric", without("models", "teacher", "metrics", "test", "ndcg@10"))
    text = report(known)
    found = {
        cells[0]: cells[1]
        for cells in (line[2:-2].split(" | ") for line in text.splitlines())
        if len(cells) == 2
    }
    assert set(found) - {"file or folder", ":--"} == {
        f"{name}/result.json"
        for name in ("cut", "empty", "list", "deep", "nan", "infinite", "words", "student", "metric")
    }
    assert found["student/result.json"] == "has no key models.student"
    assert found["metric/result.json"] == "has no key models.teacher.metrics.test.ndcg@10"
    assert "NaN" in found["nan/result.json"]
    assert "9 files not used" in text
    assert rows(text, "topk=5", "student")[0][0] == "2"
    assert "models.student" in capsys.readouterr().out


def test_failed_and_unfinished_runs(known):
    def folder(name, status=None, *, config=True):
        (known / name).mkdir()
        if config:
            (known / name / "config.yaml").write_text("stage: all\n")
        if status:
            write_status(known / name, status)

    folder("crashed", Status(FAILURE, stage="data", error_type="OSError", error="disk full", exit_code=1))
    folder("killed", Status(RUNNING, stage="teacher"))
    folder("stopped", Status(PAUSED, stage="student", exit_code=75))
    folder("wrong-option", Status(FAILURE, error="loss.topk=0 is not possible"), config=False)
    folder("silent")
    folder("no-run", config=False)
    folder("only-data", Status(ENDED, stage="data", exit_code=0))
    text = report(known)
    assert "only-data" not in text
    assert rows(text, "crashed") == [["failed: disk full"]]
    assert rows(text, "killed") == [["unfinished: in stage teacher"]]
    assert rows(text, "stopped") == [["unfinished: in stage student"]]
    assert rows(text, "wrong-option") == [["failed: loss.topk=0 is not possible"]]
    assert rows(text, "silent") == [["unfinished: no readable status.json"]]
    assert "no-run" not in text
    assert "5 failed or unfinished" in text


def test_hostile_names_stay_text_and_in_the_output_folder(tmp_path):
    script, up = "<script>alert(1)</script>", "../../../up"
    flat = {name: [0.5, 0.25, 0.75] for name in ("teacher", "baseline")}
    for seed, topk in enumerate((5, 10)):
        make_run(
            tmp_path / "in" / "<script>alert(2)<" / f"script>\n{seed}",
            {**flat, "student": [0.75, 0.125, 0.75]},
            seed=seed,
            fingerprint=up,
            options={
                "data.name": up,
                "loss.name": f"{script} $x{topk}",
                "loss.topk": topk,
                "train.jit": seed,
            },
            query_ids=[script, up, "a\nb"],
            command=f"rankdistil {script}\n```\n",
        )
    out = tmp_path / "out"
    assert main([str(tmp_path / "in"), "-o", str(out)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert all(path.is_file() for path in out.iterdir())
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;script&gt;alert(2)" in page
    outside_code = (out / "report.md").read_text().split("````")[::2]
    assert len(outside_code) == 2
    assert all("<script" not in part for part in outside_code)
    assert rows(outside_code[0], "../../../up (../../..)")


def test_nothing_to_report_on(tmp_path, capsys):
    assert main([str(tmp_path / "absent")]) == 1
    assert f"{tmp_path / 'absent'}: no such folder" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: no result.json below it can be used\n  run/result.json: has no key models. "
        "Fix: give the folder of a run that has ended\n"
    )
    assert not (tmp_path / "report").exists()


def test_the_terminal_gets_the_table_and_the_place(known, capsys):
    report(known)
    out = capsys.readouterr().out
    assert "50.0%" in out
    assert "0.5500" in out
    assert "Highest validation NDCG@10 of the student (0.6000 ± 0.0000): topk=10" in " ".join(out.split())
    assert out.splitlines()[-1] == f"{known / 'report' / 'report.html'} (also report.md and PNGs)"


def test_each_model_names_the_commit_that_made_it(tmp_path):
    folder = make_run(tmp_path / "run", {name: [0.5, 1.0] for name in ("teacher", "student")})
    path = folder / "result.json"
    result = json.loads(path.read_text())
    result["run"]["commit"] = "evaluated"
    path.write_text(json.dumps(result))
    assert "commit evaluated" in report(tmp_path)  # a result from before models had this fact
    result["models"]["teacher"]["made_by"] = {"commit": "1a2b", "dirty": False}
    result["models"]["student"]["made_by"] = {"commit": "3c4d", "dirty": True}
    path.write_text(json.dumps(result))
    text = report(tmp_path)
    assert "teacher: commit 1a2b, student: commit 3c4d (dirty)" in text
    assert "evaluated" not in text


def test_it_starts_without_tensorflow():
    code = "import sys, pipeline.report; print([m for m in ('tensorflow', 'tf_keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

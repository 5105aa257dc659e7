"""The command, run as people run it: in its own process."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT, TINY


def rankdistil(*overrides, cwd, python_path=None):
    environment = os.environ | ({"PYTHONPATH": str(python_path)} if python_path else {})
    command = [sys.executable, "-m", "pipeline", *overrides]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_a_wheel_runs_from_any_folder(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    conf = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    installed = tmp_path / "installed" / "pipeline" / "conf"
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == conf
    (tmp_path / "work").mkdir()
    done = rankdistil(*TINY, "run_dir=out", cwd=tmp_path / "work", python_path=tmp_path / "installed")
    assert done.returncode == 0, done.stderr
    assert "NDCG@10" in done.stdout
    out = tmp_path / "work" / "out"
    assert {path.name for path in out.iterdir()} == {
        "config.yaml", "events", "log", "per_query.csv", "report", "result.json", "student",
    }  # fmt: skip
    result = json.loads((out / "result.json").read_text())
    assert result["run"]["commit"] is None  # not from a checkout: it is the wheel's code that ran
    assert (tmp_path / "work" / ".cache" / "rankdistil" / "teacher").is_dir()


def test_mistakes_end_with_one_line_and_code_2(tmp_path):
    done = rankdistil("train.epochs=0", cwd=tmp_path)
    assert done.returncode == 2
    assert "train.epochs=0 is not possible: at least 1" in done.stderr
    assert "Traceback" not in done.stderr
    (log,) = tmp_path.glob("outputs/*/log")
    assert "train.epochs=0" in log.read_text()


def test_a_folder_of_another_run_is_refused(tmp_path):
    assert rankdistil(*TINY, "stage=data", "run_dir=out", cwd=tmp_path).returncode == 0
    done = rankdistil(*TINY, "stage=data", "run_dir=out", "seed=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "holds another run" in done.stderr


def test_a_broken_data_file_is_named_with_its_line(tmp_path):
    (tmp_path / "good.txt").write_text("1 qid:1 1:0.5\n0 qid:1 1:0.1\n")
    (tmp_path / "bad.txt").write_text("1 qid:1 1:0.5\n0 qid:1 1:x\n")
    overrides = ["data=letor", "data.train=bad.txt", "data.vali=good.txt", "data.test=good.txt"]
    done = rankdistil(*overrides, cwd=tmp_path)
    assert done.returncode == 2
    assert "bad.txt:2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_trains_the_teacher_once_and_survives_a_failed_job(tmp_path):
    grid = ["loss.temperature=-1,1,2", "run_dir=sweep"]
    done = rankdistil("-m", *TINY, *grid, cwd=tmp_path)
    assert done.returncode == 1  # a job failed; the others ran
    (failed,) = [path for path in tmp_path.glob("sweep/*/") if not (path / "result.json").exists()]
    assert "temperature" in (failed / "log").read_text()
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("sweep/*/result.json"))]
    assert sorted(result["config"]["loss"]["temperature"] for result in results) == [1, 2]
    cache = tmp_path / ".cache" / "rankdistil"
    assert len(list(cache.glob("teacher/*/manifest.json"))) == 1
    assert len(list(cache.glob("student/*/manifest.json"))) == 3  # two students, one baseline

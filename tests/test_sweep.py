"""Sweeps, run as people run them: in their own process, with every launcher that is installed."""

import importlib.util
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline import cli
from pipeline.cli import compose
from pipeline.config import ConfigError
from pipeline.status import ENDED, FAILURE, RUNNING, Status, read_status, write_status
from pipeline.sweep import folder_name, own_overrides, plan, sweep_folder
from pipeline.sweep_watch import SweepWatch
from tests.conftest import ROOT, TINY
from tests.test_cli import rankdistil

AGAIN = "The same command runs only the jobs that are missing."
SMALL = (*TINY, "train.baseline=false", "train.epochs=1")


@pytest.mark.slow
def test_a_sweep_trains_the_teacher_once_lists_what_failed_and_resumes(tmp_path):
    grid = ["-m", *SMALL, "launcher=joblib", "loss.temperature=-1,1,2", "run_dir=sweep"]
    done = rankdistil(*grid, cwd=tmp_path)  # two jobs at a time
    assert done.returncode == 1
    sweep = tmp_path / "sweep"
    names = [f"loss.temperature={value}" for value in ("-1", "1", "2")]
    assert {path.parent.name for path in sweep.glob("*/log")} == set(names)
    told = done.stderr.splitlines()  # and nothing of Hydra's
    assert sorted(line.split()[1].rstrip(":") for line in told[:3]) == names
    assert told[3] == f"{sweep}: 3 jobs, 1 failed"
    assert told[5:] == [f"    {sweep / names[0] / 'log'}", AGAIN]
    assert "loss.temperature=-1: " in read_status(sweep / names[0]).error
    for name in names[1:]:
        result = json.loads((sweep / name / "result.json").read_text())
        assert name == f"loss.temperature={result['config']['loss']['temperature']:g}"
        assert result["run"]["command"] == shlex.join(["rankdistil", *grid])
    assert len(list(tmp_path.glob(".cache/rankdistil/teacher/*/manifest.json"))) == 1
    assert len(list(tmp_path.glob(".cache/rankdistil/scores/*/manifest.json"))) == 1
    assert (sweep / "report" / "report.html").is_file()

    kept = (sweep / names[1] / "result.json").stat().st_mtime_ns
    torn = sweep / names[2] / "result.json"
    torn.write_text(torn.read_text()[:100])
    again = rankdistil(*grid, cwd=tmp_path)
    assert again.returncode == 1
    assert f"{names[1]}: already complete" in again.stderr
    assert f"{names[2]}: done" in again.stderr
    assert (sweep / names[1] / "result.json").stat().st_mtime_ns == kept
    assert json.loads(torn.read_text())["models"]


@pytest.mark.parametrize("flag", ["-m", "hydra.mode=MULTIRUN"])
def test_an_error_in_a_job_is_shown_once_and_listed(flag, tmp_path):
    done = rankdistil(flag, "train.epochs=0,-1", "run_dir=sweep", cwd=tmp_path)
    assert done.returncode == 1
    why = "is not possible. Fix: at least 1"
    listed = [
        line
        for epochs in ("-1", "0")
        for line in (
            f"  train.epochs={epochs}: train.epochs={epochs} {why}",
            f"    {tmp_path}/sweep/train.epochs={epochs}/log",
        )
    ]
    assert {line.partition(" ")[2] for line in done.stderr.splitlines()[:2]} == {
        f"train.epochs={epochs}: failed: train.epochs={epochs} {why}" for epochs in (0, -1)
    }
    assert done.stderr.splitlines()[2:] == [f"{tmp_path}/sweep: 2 jobs, 2 failed", *listed, AGAIN]
    assert f"train.epochs=0 {why}" in (tmp_path / "sweep" / "train.epochs=0" / "log").read_text()


def test_a_crash_leaves_its_traceback_in_the_log_of_its_job(tmp_path):
    (tmp_path / "loop").symlink_to("loop")  # an error that the program does not explain
    done = rankdistil("-m", *SMALL, "stage=data", "cache_dir=loop/below,fine", "run_dir=sweep", cwd=tmp_path)
    assert done.returncode == 1
    failed = [
        path.parent
        for path in tmp_path.glob("sweep/*/status.json")
        if read_status(path.parent).state == FAILURE
    ]
    assert len(failed) == 1
    assert "symbolic links" in read_status(failed[0]).error
    assert "Traceback (most recent call last)" in (failed[0] / "log").read_text()
    assert "2 jobs, 1 failed" in done.stderr


def test_a_killed_sweep_takes_its_job_along(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "-m",
        *TINY,
        "train.epochs=5000",
        "seed=0,1",
        "run_dir=sweep",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        log = tmp_path / "sweep" / "seed=0" / "log"
        deadline = time.monotonic() + 120
        while not (log.exists() and b"stage student" in log.read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        (job,) = map(int, children.read_text().split())
        process.send_signal(signal.SIGKILL)
    while Path(f"/proc/{job}").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not Path(f"/proc/{job}").exists()
    assert b"stage student" in log.read_bytes()


def test_what_a_sweep_shows_of_its_jobs_and_when_it_is_stopped(tmp_path, capsys):
    for name in ("a", "b", "old"):
        (tmp_path / name).mkdir()
    write_status(tmp_path / "old", Status(ENDED, exit_code=0))
    time.sleep(0.05)
    watch = SweepWatch(tmp_path, 3)
    with watch.shown():
        write_status(tmp_path / "a", Status(RUNNING))
        write_status(tmp_path / "b", Status(FAILURE, error="no memory", exit_code=1))
    assert capsys.readouterr().err == "1/3 b: failed: no memory\n"
    assert (
        watch.stopped() == f"{tmp_path}: stopped after 1 of 3 jobs; a was running; the same command continues"
    )
    write_status(tmp_path / "a", Status(ENDED, exit_code=0))
    assert watch.summary() == (
        [
            f"{tmp_path}: 2 jobs, 1 failed, 1 did not start",
            "  b: no memory",
            f"    {tmp_path / 'b' / 'log'}",
            AGAIN,
        ],
        1,
    )


def test_the_number_of_jobs(tmp_path):
    assert plan(["sweep=topk_temperature_sample_size"]) == 3 * 3 * 2 * 3
    assert plan(["sweep=topk", "seed=0,1", "loss=coupled_rankdistil"]) == 5 * 2
    assert plan(["seed=range(1,4)", "student=mlp,dcn"]) == 3 * 2
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "own.yaml").write_text(
        "# @package _global_\nhydra: {sweeper: {params: {seed: '1,2'}}}\n"
    )
    assert plan(["sweep=own"], config_dir=str(tmp_path)) == 2


@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None, reason="no optuna"
)
def test_the_number_of_trials():
    assert plan(["sweep=search", "hydra.sweeper.n_trials=7"]) == 7


@pytest.fixture
def ray_cluster(monkeypatch):
    """A head without a CPU for jobs and a second node with two: what runs, runs on the second."""
    pytest.importorskip("ray", reason="ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray = [Path(sys.executable).with_name("ray"), "start", "--block", "--node-ip-address=127.0.0.1"]
    head = [
        *ray,
        "--head",
        f"--port={port}",
        "--num-cpus=0",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    node = [*ray, f"--address=127.0.0.1:{port}", "--num-cpus=2"]
    processes = []
    try:
        for command in (head, node):
            processes.append(
                subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
            )
            assert any("Ray runtime started" in line for line in processes[-1].stdout)
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        yield
    finally:
        for process in reversed(processes):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            process.stdout.close()


@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_other_launchers(launcher, tmp_path, request):
    if launcher == "ray":
        request.getfixturevalue("ray_cluster")
    else:
        pytest.importorskip("submitit", reason="submitit is not installed")
    done = rankdistil("-m", *SMALL, f"launcher={launcher}", "seed=0,1", "run_dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 jobs, 0 failed" in done.stderr
    assert len(list(tmp_path.glob("sweep/seed=*/result.json"))) == 2


@pytest.mark.slow
def test_a_search_maximises_the_validation_ndcg_and_resumes(tmp_path):
    search = ["-m", "sweep=search", *SMALL, "run_dir=search"]
    assert rankdistil(*search, "hydra.sweeper.n_trials=1", cwd=tmp_path).returncode == 0
    done = rankdistil(*search, "hydra.sweeper.n_trials=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already complete") == 1
    results = [json.loads(path.read_text()) for path in tmp_path.glob("search/*/result.json")]
    vali = [result["models"]["student"]["metrics"]["vali"]["ndcg@10"]["skip"] for result in results]
    best = yaml.safe_load((tmp_path / "search" / "optimization_results.yaml").read_text())
    assert len(vali) == 2
    assert best["best_value"] == max(vali)


def test_folders_are_named_by_what_differs():
    assert folder_name(["loss.topk=5", "launcher=joblib", "hydra.verbose=true"]) == "loss.topk=5"
    paths = [folder_name([f"data.train={path}"]) for path in ("a/b", "a_b")]
    assert paths[0] != paths[1]
    assert "/" not in paths[0]
    lists = [folder_name([f"student.hidden={sizes}"]) for sizes in ("[32]", "[64,32]")]
    assert lists[0].startswith(
        "student.hidden=_32_-"
    )  # TensorFlow loads no model below a folder with brackets
    assert lists[1].startswith("student.hidden=_64,32_-")
    long = [folder_name([f"seed={digit * 300}"]) for digit in "12"]
    assert long[0] != long[1]
    assert max(map(len, long)) < 200
    assert folder_name(["../.."]).startswith("_") or not folder_name(["../.."]).startswith(".")


@pytest.mark.parametrize("override", ["hydra.sweep.dir=b", r"run_dir=a/${now:%Y}"])
def test_a_folder_that_no_sweep_goes_on_in_is_refused(monkeypatch, capsys, override):
    monkeypatch.setattr(sys, "argv", ["rankdistil", "-m", "seed=1,2", override])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err.startswith(f"{override}: ")


def test_the_folder_of_a_sweep_is_found_again():
    command = ["sweep=topk", "cache_dir=/somewhere"]
    assert sweep_folder(command) == Path.cwd() / "sweeps" / "sweep=topk"
    assert sweep_folder([*command, "launcher=joblib"]) == sweep_folder(command)
    assert sweep_folder([*command, "run_dir='a b'"]) == Path.cwd() / "a b"
    run_dir, left_out, *_ = own_overrides(["train.epochs=3", "loss.topk=1,2", r"run_dir='it\'s'"])
    assert OverridesParser.create().parse_override(run_dir).value() == str(Path("it's").absolute())
    assert left_out.endswith("=['train.epochs','run_dir']")


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_value_of_a_named_sweep_is_possible(path, tmp_path):
    extra = {"folds": ["data=mslr_web30k", f"data.dir={tmp_path}"]}.get(path.stem, [])
    parsed = OverridesParser.create().parse_overrides(
        [
            f"{key}={value}"
            for key, value in yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"].items()
        ]
    )
    for override in parsed:
        assert override.is_sweep_override()
        if override.is_discrete_sweep():
            for value in override.sweep_string_iterator():
                assert compose([*extra, f"{override.key_or_group}={value}"])
    with pytest.raises(ConfigError):
        compose([*extra, f"{parsed[0].key_or_group}x=1"])


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf" / "launcher").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_launcher_composes_or_names_its_extra(path):
    extra = {"submitit_local": "submitit", "submitit_slurm": "submitit"}.get(path.stem, path.stem)
    if importlib.util.find_spec(f"hydra_plugins.hydra_{extra}_launcher"):
        with hydra.initialize_config_module("pipeline.conf", version_base="1.3"):
            composed = hydra.compose("config", [f"launcher={path.stem}"], return_hydra_config=True)
        assert f"hydra_{extra}_launcher" in composed.hydra.launcher._target_
    else:
        with pytest.raises(ConfigError, match=rf"pip install 'rankdistil-pipeline\[{extra}\]'"):
            compose([f"launcher={path.stem}"])

"""Several local worker processes give the numbers of one device."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from pipeline.errors import INTERRUPTED, USER_ERROR
from tests.closeness import assert_close
from tests.conftest import TINY


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(folder, *overrides, environment=None, program=("-m", "pipeline")):
    other = any(override.startswith("teacher=") for override in overrides)
    tiny = [override for override in TINY if not (other and override.startswith("teacher."))]
    command = [sys.executable, *program, *tiny, "run_dir=out", *overrides]
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | (environment or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_workers(folder, number, *overrides, apart=False, others=("-m", "pipeline")):
    """`apart`: all but the first work in folders of their own, with caches of their own. `others`: what these run."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(number)]}
    configs = [
        json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}) for i in range(number)
    ]
    options = ["train.strategy=multi_worker", *overrides]
    folders = [folder / f"worker_{i}" if apart and i else folder for i in range(number)]
    return [
        start(each, *options, environment={"TF_CONFIG": config}, program=others if i else ("-m", "pipeline"))
        for i, (each, config) in enumerate(zip(folders, configs, strict=True))
    ]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    process = start(folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return history_and_result(folder)


def history_and_result(folder):
    (history,) = [
        json.loads(path.read_text())["epochs"]
        for path in (folder / ".cache" / "rankdistil" / "student").glob("*/history.json")
        if "coupled" in (path.parent / "manifest.json").read_text()
    ]
    return history, json.loads((folder / "out" / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_workers_give_the_curve_and_the_metrics_of_one_device(tmp_path, one_device, number):
    apart = number == 2
    workers = start_workers(tmp_path, number, apart=apart)
    errors = [worker.communicate(timeout=600)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * number, "\n".join(errors)
    if apart:  # only the chief writes a student, a result, events
        other = tmp_path / "worker_1"
        assert {path.name for path in (other / "out").rglob("*")} == {"log"}
        kinds = {path.name for path in (other / ".cache" / "rankdistil").iterdir()}
        assert "student" not in kinds
        assert "teacher" in kinds
    (history, result), (expected_history, expected) = history_and_result(tmp_path), one_device
    assert_close([row["loss"] for row in history], [row["loss"] for row in expected_history], rtol=1e-4)
    for model in ("teacher", "baseline", "student"):
        for split in ("vali", "test"):
            got, want = (r["models"][model]["metrics"][split]["ndcg@10"]["skip"] for r in (result, expected))
            assert got == pytest.approx(want, abs=1e-3)
    assert (
        len(list((tmp_path / ".cache" / "rankdistil" / "student").iterdir())) == 2
    )  # nothing half-made is left


@pytest.mark.slow
def test_tasks_of_slurm_give_the_curve_of_one_device(tmp_path, one_device):
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2"}
    job = step | {"SLURM_NODEID": "0", "SLURM_JOB_ID": str(os.getpid())}
    workers = [
        start(tmp_path, "train.strategy=multi_worker", environment=job | {"SLURM_PROCID": str(rank)})
        for rank in range(2)
    ]
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    (history, _), (expected, _) = history_and_result(tmp_path), one_device
    assert_close([row["loss"] for row in history], [row["loss"] for row in expected], rtol=1e-4)


def wait_for(found, worker):
    deadline = time.monotonic() + 300
    while not found():
        assert time.monotonic() < deadline
        assert worker.poll() is None, worker.communicate()[1]
        time.sleep(0.05)


@pytest.mark.slow
def test_a_lost_worker_ends_the_others_and_a_restart_goes_on(tmp_path):
    options = ("train.epochs=40", "train.baseline=false")
    workers = start_workers(tmp_path, 2, *options)
    wait_for(lambda: list((tmp_path / ".cache").rglob("checkpoint.npz")), workers[0])
    workers[1].kill()
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [INTERRUPTED, -signal.SIGKILL], errors[0]
    assert "another worker is gone" in errors[0]
    assert not (tmp_path / "out" / "result.json").exists()

    workers = start_workers(tmp_path, 2, *options)
    errors = [worker.communicate(timeout=600)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    assert "of an interrupted run" in errors[0]
    history, _ = history_and_result(tmp_path)
    assert [row["epoch"] for row in history] == list(range(1, 41))


@pytest.mark.slow
@pytest.mark.parametrize("told", [[1], [0, 1]], ids=["one", "both in turn"])
def test_workers_that_are_told_to_stop_all_save_the_same_step(tmp_path, told):
    options = ("train.epochs=30", "train.baseline=false", "data.train_queries=200", "train.lists_per_batch=4")
    workers = start_workers(tmp_path, 2, *options)
    wait_for(lambda: list((tmp_path / ".cache").rglob("checkpoint.npz")), workers[0])
    for number in told:
        workers[number].send_signal(signal.SIGTERM)
        time.sleep(0.3)
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [INTERRUPTED] * 2, "\n".join(errors)
    stopped = [re.findall(r"stopped after epoch \d+(?:, step \d+)?; run again", text) for text in errors]
    assert stopped[0] == stopped[1]
    assert len(stopped[0]) == 1
    if told == [1]:  # the other case goes on
        return

    workers = start_workers(tmp_path, 2, *options)
    errors = [worker.communicate(timeout=600)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    assert "of an interrupted run" in errors[1]
    history, _ = history_and_result(tmp_path)
    assert [row["epoch"] for row in history] == list(range(1, 31))

    # What the chief finds damaged all train again.
    (weights,) = (tmp_path / ".cache" / "rankdistil" / "student").glob("*/weights.npz")
    weights.write_bytes(weights.read_bytes()[:-100])
    workers = start_workers(tmp_path, 2, *options)
    errors = [worker.communicate(timeout=600)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    assert "weights.npz is not what was written" in errors[0]
    again, _ = history_and_result(tmp_path)
    assert_close([row["loss"] for row in again], [row["loss"] for row in history])


@pytest.mark.slow
def test_the_validation_of_the_chief_decides_for_all(tmp_path):
    """On unlike CPUs it differs; here that of the other worker gets worse and worse."""
    program = (
        "import itertools, numpy, pipeline.cli, pipeline.training.loop as loop; better = itertools.count();"
        "loop.ranked_ndcg = lambda ranked, cutoff: numpy.array([-next(better)]); pipeline.cli.main()"
    )
    options = ["train.epochs=40", "train.patience=3", "train.baseline=false", "student.batch_norm=true"]
    workers = start_workers(tmp_path, 2, *options, others=("-c", program))
    try:
        errors = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    history, _ = history_and_result(tmp_path)
    best = max(range(len(history)), key=lambda epoch: history[epoch]["vali"]["ndcg@10"])
    assert best > 0
    assert len(history) == min(40, best + 1 + 3)


@pytest.mark.slow
def test_workers_stop_outside_of_training_too(tmp_path):
    """TensorFlow takes SIGTERM for itself where the workers meet."""
    endless = ("teacher.num_trees=1000000", "teacher.early_stopping=1000000", "train.baseline=false")
    workers = start_workers(tmp_path, 2, *endless)
    log = tmp_path / "out" / "log"
    wait_for(lambda: log.exists() and "stage teacher" in log.read_text(errors="replace"), workers[0])
    for worker in workers:
        worker.terminate()
    try:
        errors = [worker.communicate(timeout=60)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [INTERRUPTED] * 2, "\n".join(errors)
    assert all("stopped; the same command continues" in text for text in errors)


@pytest.mark.slow
def test_a_worker_that_waits_for_the_others_stops_when_told_or_after_its_limit(tmp_path):
    ports = free_ports(2)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    config = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})}
    told = start(tmp_path, environment=config)
    seen = ""
    while "waiting for all workers to start" not in seen:
        seen = told.stderr.readline()
        assert seen, "ended before it waited"
    told.terminate()
    errors = told.communicate(timeout=30)[1]
    assert told.returncode == INTERRUPTED, errors

    late = start(tmp_path, "train.worker_timeout_s=1", environment=config)
    errors = late.communicate(timeout=60)[1]
    assert late.returncode == USER_ERROR, errors
    assert f"did not start within 1 s: 127.0.0.1:{ports[1]}" in errors


@pytest.mark.slow
def test_a_worker_stops_while_another_is_still_reading_its_data(tmp_path):
    """It waits within TensorFlow."""
    program = (
        "import pipeline.run, pipeline.cli, time;"
        "pipeline.run.load_data = lambda *arguments: time.sleep(600); pipeline.cli.main()"
    )
    workers = start_workers(tmp_path, 2, others=("-c", program))
    try:
        log = tmp_path / "out" / "log"
        wait_for(lambda: log.exists() and "stage student" in log.read_text(errors="replace"), workers[0])
        time.sleep(3)
        workers[0].terminate()
        errors = workers[0].communicate(timeout=60)[1]
        assert workers[0].returncode == INTERRUPTED, errors
    finally:
        for worker in workers:
            worker.kill()


@pytest.mark.slow
def test_a_network_as_teacher_needs_one_cache(tmp_path):
    options = ("stage=teacher", "teacher=mlp", "teacher.hidden=[4]", "teacher.epochs=2")
    workers = start_workers(tmp_path, 2, *options, apart=True)
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert workers[1].returncode == 2, errors[1]
    assert "give all workers the same cache_dir" in errors[1]
    assert not list((tmp_path / "worker_1").rglob("teacher/*/manifest.json"))


@pytest.mark.slow
def test_a_worker_that_is_lost_before_the_first_step_is_named(tmp_path):
    workers = start_workers(tmp_path, 2, "train.baseline=false")
    log = tmp_path / "out" / "log"
    wait_for(lambda: log.exists() and "stage student" in log.read_text(errors="replace"), workers[0])
    workers[1].kill()
    errors = workers[0].communicate(timeout=300)[1]
    assert workers[0].returncode == INTERRUPTED, errors
    assert "another worker is gone" in errors


@pytest.mark.slow
def test_workers_with_caches_apart_do_not_go_on_from_one_checkpoint_of_them(tmp_path):
    options = ("train.epochs=40", "train.baseline=false")
    workers = start_workers(tmp_path, 2, *options, apart=True)
    wait_for(lambda: list((tmp_path / ".cache").rglob("checkpoint.npz")), workers[0])
    workers[0].send_signal(signal.SIGTERM)
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [INTERRUPTED] * 2, "\n".join(errors)
    workers = start_workers(tmp_path, 2, *options, apart=True)
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [2, 2], "\n".join(errors)
    for text in errors:
        assert "Fix: give all workers the same cache_dir" in text


@pytest.mark.slow
def test_workers_train_a_listwise_network_as_teacher_together(tmp_path):
    options = [
        "stage=teacher",
        "teacher=attention",
        "teacher.hidden=[8]",
        "teacher.head_size=4",
        "teacher.attention_layers=1",
        "teacher.dropout=0",
        "teacher.batch_norm=true",
        "teacher.input_batch_norm=true",
        "teacher.input_noise=0",
        "teacher.epochs=2",
        "teacher.lists_per_batch=8",
    ]
    processes = [
        start(tmp_path / "one", *options),
        *start_workers(tmp_path / "two", 2, *options),
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(errors)

    def of_teacher(folder, kind, file):
        (path,) = (tmp_path / folder / ".cache" / "rankdistil" / kind).glob(f"*/{file}")
        return path

    expected, got = (
        [
            row["loss"]
            for row in json.loads(of_teacher(folder, "teacher", "history.json").read_text())["epochs"]
        ]
        for folder in ("one", "two")
    )
    assert_close(got, expected, rtol=1e-4)
    expected, got = (np.load(of_teacher(folder, "scores", "test.npy")) for folder in ("one", "two"))
    # The loss doesn't see a constant added to every score, so the last bias follows rounding alone.
    assert_close(got - got.mean(), expected - expected.mean(), rtol=1e-3, atol=1e-4)

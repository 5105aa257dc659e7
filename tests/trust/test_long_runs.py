"""Memory and open files over many epochs and many runs stay where they were. In full:
RANKDISTIL_LONG=1 scripts/test.sh tests/trust/test_long_runs.py (2,000 epochs, an hour of runs).
"""

import dataclasses
import gc
import os
import time

import psutil
import tf_keras as keras

from pipeline.run import Run
from tests.conftest import tiny_config
from tests.training.test_fit import CONFIG, train
from tests.trust.command import FAST

LONG = os.environ.get("RANKDISTIL_LONG") == "1"


def measured():
    """(resident memory in MB, open files)."""
    gc.collect()
    process = psutil.Process()
    return process.memory_info().rss / 1e6, process.num_fds()


def growth(points):
    """MB from a third on to the end, and open files more at the end."""
    start, end = points[len(points) // 3], points[-1]
    return end[0] - start[0], end[1] - start[1]


def test_many_epochs(tmp_path, fault):
    epochs = 2000 if LONG else 90
    points = []

    def measure(row):
        if row["epoch"] % 10 == 0:
            points.append(measured())

    train(tmp_path / "a", config=dataclasses.replace(CONFIG, epochs=epochs), on_epoch=measure)
    memory, files = growth(points)
    with fault("many epochs", f"{epochs} epochs: {memory:+.0f} MB, {files:+d} open files"):
        assert files <= 0
        assert memory < (60 if LONG else 30)


def test_many_runs_in_one_process(tmp_path, fault):
    """One process, as of a notebook or a search; a sweep has a process a job."""
    points = []
    until = time.monotonic() + 3600
    while (LONG and time.monotonic() < until) or (not LONG and len(points) < 6):
        overrides = (*FAST, "train.epochs=1", "train.baseline=false", f"seed={len(points)}")
        Run(tiny_config(tmp_path, *overrides, run=f"run{len(points)}"))()
        keras.backend.clear_session()  # Keras numbers its layers' names for ever otherwise
        points.append(measured())
    memory, files = growth(points)
    runs = len(points) - len(points) // 3 - 1
    with fault(
        "many runs in one process", f"{runs} runs: {memory / runs:+.1f} MB a run, {files:+d} open files"
    ):
        assert files <= 0
        assert memory / runs < 8

"""Memory and open files stay where they were over many epochs and many runs; 2,000 and 60 of them with
RANKDISTIL_LONG=1 scripts/test.sh tests/trust/test_long_runs.py
"""

import dataclasses
import gc
import os

import psutil
import pytest
from tensorflow.python.framework.func_graph import FuncGraph

from pipeline.config import MLPStudent
from pipeline.run import run
from tests.conftest import tiny_config
from tests.training.test_fit import CONFIG, STUDENTS, train
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
    runs = 60 if LONG else 6
    quick = (*FAST, "train.epochs=1", "train.baseline=false", "stage=student")
    points = []
    for seed in range(runs):
        run(tiny_config(tmp_path, *quick, f"seed={seed}", run=f"run{seed}"))
        points.append(measured())
    memory, files = growth(points)
    with fault("many runs in one process", f"{runs} runs: {memory:+.0f} MB, {files:+d} open files"):
        assert files <= 0
        assert memory < 4 * runs


ACTIVATIONS = {name: MLPStudent(hidden=[3], activation=name) for name in ("relu", "gelu", "swish")}
NORM = {"batch norm": MLPStudent(hidden=[3], batch_norm=True, input_batch_norm=True)}


@pytest.mark.parametrize("student", [*ACTIVATIONS, "dcn", *NORM])
def test_the_graph_of_a_training_does_not_stay(tmp_path, student):
    """A custom gradient of TensorFlow's would keep it. So do sums over replicas: see the README."""
    student = (ACTIVATIONS | STUDENTS | NORM)[student]

    def graphs_after(folder):
        train(tmp_path / folder, config=dataclasses.replace(CONFIG, epochs=1), student=student)
        gc.collect()
        return sum(isinstance(kept, FuncGraph) for kept in gc.get_objects())

    first = graphs_after("first")  # and small ones, one for each shape
    assert graphs_after("second") == first

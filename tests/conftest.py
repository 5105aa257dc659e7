# ruff: noqa: E402
"""Shared by the tests: where real data lies, logical CPU devices, tiny configs."""

import pipeline  # isort: skip  first: it sets what TensorFlow reads when it is imported
from pipeline.environment import set_environment  # isort: skip

set_environment()

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hydra import compose, initialize_config_module

from pipeline.config import Config, from_composed
from pipeline.context import NO_PROGRESS, Context, Progress
from pipeline.data import RankingData
from pipeline.data.stage import Dataset, load_data
from pipeline.run import RunArtifacts, find_artifacts, make_context
from pipeline.teacher.stage import Teacher, make_teacher
from pipeline.training_set import make_lists, training_set
from tests.browser import NAMES, Browser

ROOT = Path(pipeline.__file__).resolve().parent.parent
# One process can test tf.distribute over several devices; must happen before TensorFlow makes its devices.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)

TINY = (
    "data.train_queries=24",
    "data.vali_queries=12",
    "data.test_queries=12",
    "teacher.num_trees=8",
    "teacher.num_leaves=7",
    "train.epochs=3",
    "train.lists_per_batch=8",
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real LETOR data sets; tests that need it are skipped where it is not."""
    folder = Path(os.environ.get("RANKDISTIL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; RANKDISTIL_TEST_DATA names another folder")
    return folder


@pytest.fixture
def browser(tmp_path):
    """A page of a real browser; tests that need it are skipped where there is none."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} (Debian: apt-get install chromium)")
    opened = Browser(executable, tmp_path / "profile")
    yield opened
    opened.close()


@pytest.fixture
def screenshots(tmp_path) -> Path:
    """Where tests leave screenshots for people: the folder that RANKDISTIL_SCREENSHOTS names, or pytest's own."""
    folder = Path(os.environ.get("RANKDISTIL_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def fault(record_property) -> Callable[..., contextlib.AbstractContextManager[None]]:
    """`with fault(kind):` around one fault and the checks after it: a row of the table at the end of the session."""

    @contextlib.contextmanager
    def one(kind: str, note: str = ""):
        survived = False
        try:
            yield
            survived = True
        finally:
            record_property("fault", [kind, survived, note])

    return one


def pytest_terminal_summary(terminalreporter) -> None:
    """Faults tried, survived and lost in this session; from all workers of xdist."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    faults = [value for report in reports for name, value in report.user_properties if name == "fault"]
    if not faults:
        return
    terminalreporter.section("faults")
    row = "{:<72}{:>7}{:>10}{:>6}  {}".format
    terminalreporter.write_line(row("fault", "tried", "survived", "lost", "").rstrip())
    for kind in [*dict.fromkeys(kind for kind, _, _ in sorted(faults)), "all"]:
        of_kind = [fault for fault in faults if kind in (fault[0], "all")]
        survived = sum(survived for _, survived, _ in of_kind)
        notes = "; ".join(dict.fromkeys(note for _, _, note in of_kind if note)) if kind != "all" else ""
        line = row(kind, len(of_kind), survived, len(of_kind) - survived, notes)
        terminalreporter.write_line(line.rstrip())


def tiny_config(root: Path, *overrides: str, run: str = "run", cache: str = "cache") -> Config:
    """The checked Config of a run of seconds, with its folders below `root`."""
    chosen = {override.split("=")[0] for override in overrides}
    base = [
        override for override in TINY if override.split(".")[0] not in chosen
    ]  # not data.* with data=letor
    folders = (f"run_dir={root / run}", f"cache_dir={root / cache}")
    with initialize_config_module("pipeline.conf", version_base="1.3"):
        config = from_composed(compose("config", overrides=[*base, *folders, *overrides]))
    config.run_dir.mkdir(exist_ok=True, parents=True)
    (config.run_dir / "config.yaml").write_text("seed: 0\n")  # as the command line writes it
    return config


def find(config: Config) -> tuple[RunArtifacts, Context]:
    """Where the artifacts of a run are, or will be, and its context."""
    ctx = make_context(config)
    return find_artifacts(config, ctx), ctx


def load_splits(config: Config) -> Dataset:
    """The data of a run."""
    return load_data(config.data, find(config)[0].data)


def load_teacher(config: Config, progress: Progress = NO_PROGRESS) -> Teacher:
    """The teacher of a run, and its scores."""
    ctx = make_context(config, progress)
    artifacts = find_artifacts(config, ctx)
    data = load_data(config.data, artifacts.data)
    return make_teacher(config.teacher, config.train, data, artifacts.teacher, ctx)


def load_training_set(config: Config) -> tuple[RankingData, np.ndarray]:
    """What the student of a run learns from, and the teacher's logits."""
    artifacts, _ = find(config)
    data, teacher = load_splits(config), load_teacher(config)
    lists = None if artifacts.lists is None else make_lists(artifacts.lists, data, teacher)
    return training_set(data, teacher, lists)

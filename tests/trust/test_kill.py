"""SIGKILL at random moments of all stages: the same numbers at the end, and no finished stage again."""

import json
import random
import re
import signal
import time

import pytest

from tests.trust.command import finished, metrics, run, start

NUM_MOMENTS = 14  # in time
NUM_WRITES = 14  # at a write to the file system, where a kill hurts most


def last_stage(text):
    return (re.findall(r"INFO stage (\w+)", text) or ["start"])[-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of a run that nothing disturbed, and how long each stage took."""
    folder = tmp_path_factory.mktemp("whole")
    code, text = run(folder)
    assert code == 0, text
    return json.loads((folder / "run" / "result.json").read_text())


def end(folder, whole, before):
    code, text = run(folder, log="last")
    assert code == 0, text
    kept = finished(folder)
    assert before.items() <= kept.items()
    assert metrics(json.loads((folder / "run" / "result.json").read_text())) == metrics(whole)
    assert not list(folder.glob("cache/*/*.work"))
    assert not list(folder.glob("cache/*/*.lock"))
    assert not list(folder.glob("**/*.part"))
    assert not (folder / "run" / ".lock").exists()


def test_killed_at_random_moments(tmp_path, whole, fault):
    """Each process goes on where the one before was killed."""
    chance = random.Random(8)
    seconds = whole["run"]["seconds"]
    stages = []
    before = {}
    for number in range(NUM_MOMENTS):
        log = f"log{number}"
        process = start(tmp_path, log=log)
        while "INFO stage" not in (tmp_path / log).read_text() if (tmp_path / log).exists() else True:
            time.sleep(0.01)  # until TensorFlow is up
        # So that the chain of kills goes through every stage: about two a stage, then all over the evaluation.
        time.sleep(chance.uniform(0, 2.5 * sum(seconds.values()) / NUM_MOMENTS))
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was faster
            continue
        stage = last_stage((tmp_path / log).read_text())
        stages.append(stage)
        now = finished(tmp_path)
        with fault(f"SIGKILL at a random moment, stage {stage}"):
            assert process.exitcode == -signal.SIGKILL
            assert before.items() <= now.items()
        before = now
    assert len(stages) >= 10
    end(tmp_path, whole, before)


def test_killed_at_writes(tmp_path, whole, fault):
    chance = random.Random(3)
    stages = []
    before = {}
    for number in range(NUM_WRITES):
        log = f"log{number}"
        code, text = run(tmp_path, log=log, kill_at=chance.randint(4, 40))
        now = finished(tmp_path)
        stage = last_stage(text)
        stages.append(stage)
        with fault(f"SIGKILL at a random write, stage {stage}"):
            assert code == -signal.SIGKILL, text
            assert before.items() <= now.items()
        before = now
    assert {"data", "student", "evaluate"} <= set(stages)
    end(tmp_path, whole, before)

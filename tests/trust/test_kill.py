"""SIGKILL at random moments of all stages: the same numbers at the end, and no finished stage again."""

import json
import random
import re
import signal
import time

import pytest

from pipeline.status import PAUSED, read_status
from tests.trust.command import finished, metrics, run, start

# In the order of a run; each process goes on where the one before was killed.
MOMENTS = ["data"] * 2 + ["teacher"] * 2 + ["student"] * 4 + ["evaluate"] * 2 + ["export"] * 2
# (folder that is written to, most writes before the kill)
WRITES = [("data", 24)] * 2 + [("features", 5), ("teacher", 4), ("scores", 5)]
WRITES += [("student", 14)] * 3 + [("run", 12)] * 2


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
    chance = random.Random(8)
    stages, before = [], {}
    for number, stage in enumerate(MOMENTS):
        path = tmp_path / f"log{number}"
        process = start(tmp_path, log=path.name)
        while process.is_alive() and not (path.exists() and f"INFO stage {stage}" in path.read_text()):
            time.sleep(0.02)
        # The first kill in a stage comes early, the others when the next stage begins at the latest: otherwise, on a
        # machine that is faster now than when `whole` was made, a later stage would finish before its own kills.
        seconds = chance.uniform(0, whole["run"]["seconds"][stage] if stage in stages else 0.1)
        last = time.monotonic() + seconds
        while process.is_alive() and time.monotonic() < last and last_stage(path.read_text()) == stage:
            time.sleep(0.02)
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was faster
            continue
        stages.append(last_stage(path.read_text()))
        now = finished(tmp_path)
        with fault("SIGKILL at a random moment", f"stage {stages[-1]}"):
            assert process.exitcode == -signal.SIGKILL, path.read_text()
            assert before.items() <= now.items()
        before = now
    assert {"data", "teacher", "student", "evaluate"} <= set(stages)
    assert len(stages) >= len(MOMENTS) - 2
    end(tmp_path, whole, before)


def test_killed_at_writes(tmp_path, whole, fault):
    """Where a kill hurts most: as a file is opened to be written, renamed or removed."""
    chance = random.Random(3)
    kills, before = 0, {}
    for number, (where, most) in enumerate(WRITES):
        code, text = run(tmp_path, log=f"log{number}", kill_at=(f"/{where}/", chance.randint(1, most)))
        if code == 0:  # there were fewer writes
            continue
        kills += 1
        now = finished(tmp_path)
        with fault("SIGKILL at a random write", f"stage {last_stage(text)}"):
            assert code == -signal.SIGKILL, text
            assert before.items() <= now.items()
        before = now
    assert kills >= len(WRITES) - 1
    end(tmp_path, whole, before)


def test_sigterm_in_training_ends_with_code_75_and_the_same_command_goes_on(tmp_path, whole, fault):
    with fault("SIGTERM in training"):
        process = start(tmp_path, log="log")
        while process.is_alive() and not list(tmp_path.glob("cache/student/*.work/weights.npz")):
            time.sleep(0.01)
        process.terminate()
        process.join()
        assert process.exitcode == 75, (tmp_path / "log").read_text()
        assert read_status(tmp_path / "run").state == PAUSED
        end(tmp_path, whole, finished(tmp_path))
        assert "going on after epoch" in (tmp_path / "last").read_text()


def test_sigterm_in_any_stage_ends_with_code_75_and_the_same_command_goes_on(tmp_path, whole, fault):
    chance = random.Random(5)
    stages, before = [], {}
    for number, stage in enumerate(["data", "data", "teacher", "student", "evaluate", "evaluate"]):
        path = tmp_path / f"log{number}"
        process = start(tmp_path, log=path.name)
        while process.is_alive() and not (path.exists() and f"INFO stage {stage}" in path.read_text()):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, whole["run"]["seconds"][stage] / 2))
        for _ in range(2):  # a second one changes nothing
            if process.is_alive():
                process.terminate()
            time.sleep(0.01)
        process.join()
        if process.exitcode == 0:  # it was faster
            continue
        text = path.read_text()
        stages.append(last_stage(text))
        now = finished(tmp_path)
        with fault("SIGTERM at a random moment", f"stage {stages[-1]}"):
            assert process.exitcode == 75, text
            assert "Traceback" not in text
            assert read_status(tmp_path / "run").state == PAUSED
            assert not (tmp_path / "run" / ".lock").exists()
            assert before.items() <= now.items()
        before = now
    assert len(set(stages)) >= 3
    assert len(stages) >= 4
    end(tmp_path, whole, before)

"""Full disks, files too large, missing rights, inputs that change, no memory: a clear error, what was good stays."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.letor import reader as letor_module
from pipeline.store import Store
from pipeline.teacher.stage import make_teacher
from tests.conftest import find, load_splits, tiny_config
from tests.trust.command import finished, metrics, run

MISTAKE = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    code, text = run(folder)
    assert code == 0, text
    return json.loads((folder / "run" / "result.json").read_text())


def result_of(folder):
    return json.loads((folder / "run" / "result.json").read_text())


def assert_clear(code, text, *words):
    assert code == MISTAKE, text
    assert "Traceback" not in text
    error = text.splitlines()[-1]
    assert "Fix: " in error
    for word in words:
        assert re.search(word, error), error


def test_no_file_may_grow_beyond_a_limit(tmp_path, whole, fault):
    """The write that fails wanders through the stages; with room again, the same command ends as if nothing was."""
    before = {}
    for number, limit in enumerate((0, 3_000, 20_000, 200_000, 420_000)):
        with fault("disk full: no file beyond a limit", f"{limit} bytes"):
            code, text = run(tmp_path, log=f"log{number}", file_bytes=limit)
            if limit:
                assert_clear(code, text)
            assert code != 0
            assert before.items() <= finished(tmp_path).items()
            before = finished(tmp_path)
    code, text = run(tmp_path)
    assert code == 0, text
    assert before.items() <= finished(tmp_path).items()
    assert metrics(result_of(tmp_path)) == metrics(whole)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a size that can be set; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system here")

    def resize(kilobytes):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(folder)], check=True)

    yield folder, resize
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up(small_disk, tmp_path, whole, fault):
    folder, resize = small_disk
    logs = tmp_path
    before = {}
    sizes = (300, 1500, 1900, 2100, 2400, 2600, 2700, 2800)
    outcomes = []
    for kilobytes in sizes:
        resize(kilobytes)
        code, text = run(folder, log=str(logs / f"log{kilobytes}"))
        outcomes.append(code)
        with fault("disk full: a file system that is full", f"{kilobytes} kB"):
            if code != 0:
                assert_clear(code, text, "disk|space|No space")
            assert before.items() <= finished(folder).items()
            before = finished(folder)
    resize(64_000)
    code, text = run(folder, log=str(logs / "last"))
    assert code == 0, text
    assert metrics(result_of(folder)) == metrics(whole)


@pytest.fixture
def read_only(small_disk):
    """A file system, and what makes it read-only, or no longer."""
    folder, resize = small_disk
    resize(64_000)

    def remount(option):
        subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)

    yield folder, remount
    remount("rw")


def test_a_file_system_that_is_read_only(read_only, tmp_path, fault):
    disk, remount = read_only
    there, here = (f"cache_dir={disk}/cache", "stage=data"), f"run_dir={tmp_path}/run"
    assert run(tmp_path, *there, here)[0] == 0
    before = finished(disk)
    remount("ro")
    with fault("read-only file system", "run_dir"):
        code, text = run(tmp_path, *there, f"run_dir={disk}/run", log="log1")
        assert_one_line(code, text, f"run_dir={disk}/run: Read-only file system")
    with fault("read-only file system", "cache_dir, whole"):
        code, text = run(tmp_path, *there, here, log="log2")
        assert code == 0, text
    with fault("read-only file system", "cache_dir, something to be made"):
        code, text = run(tmp_path, *there, f"run_dir={tmp_path}/other", "data.seed=1", log="log3")
        assert_clear(code, text, "Read-only file system")
        assert finished(disk) == before


def assert_one_line(code, text, problem):
    """Before there is a log."""
    assert code == MISTAKE, text
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if problem in line]
    assert "Fix: " in line


def test_a_run_dir_that_is_a_file(tmp_path, fault):
    (tmp_path / "run").write_text("mine")
    with fault("run_dir is a file"):
        assert_one_line(*run(tmp_path, "stage=data"), f"run_dir={tmp_path}/run: File exists")
        code, text = run(tmp_path, "stage=data", "run_dir=run/a", log="log")
        assert_one_line(code, text, f"run_dir={tmp_path}/run/a: Not a directory")
        assert (tmp_path / "run").read_text() == "mine"


OTHER_USER = 54321


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
def test_a_folder_without_the_right_to_write(tmp_path, fault):
    assert run(tmp_path, "stage=data", "run_dir=before")[0] == 0
    before = finished(tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "log").touch()
    for path in (tmp_path, *tmp_path.rglob("cache/**/*"), tmp_path / "cache"):
        os.chown(path, OTHER_USER, OTHER_USER)
    tmp_path.chmod(0o755)
    with fault("no right to write: run_dir"):
        code, text = run(tmp_path, log="mine/log", without_capabilities=True)
        assert_one_line(code, text, f"run_dir={tmp_path}/run: Permission denied")
        assert not (tmp_path / "run").exists()
    with fault("no right to write: a run_dir that is there"):
        for path in (tmp_path / "before", tmp_path / "before" / "log"):
            os.chown(path, OTHER_USER, OTHER_USER)
        (mine / "log").write_text("")
        code, text = run(tmp_path, "stage=data", "run_dir=before", log="mine/log", without_capabilities=True)
        assert_one_line(code, text, f"{tmp_path}/before")
    with fault("no right to write: cache_dir"):
        (mine / "log").write_text("")
        where = ("run_dir=mine/run", "cache_dir=fresh")
        code, text = run(tmp_path, *where, log="mine/log", without_capabilities=True)
        assert_clear(code, text, "Permission denied", "fresh")
        assert not (tmp_path / "fresh").exists()
    with fault("a cache that is whole, but read-only"):
        (mine / "log").write_text("")
        code, text = run(
            tmp_path, "stage=data", "run_dir=mine/other", log="mine/log", without_capabilities=True
        )
        assert code == 0, text
    with fault("no right to read a file of an artifact"):
        (mine / "log").write_text("")
        features = next((tmp_path / "cache").glob("features/*/train.npy"))
        features.chmod(0)
        code, text = run(
            tmp_path, "stage=data", "run_dir=mine/third", log="mine/log", without_capabilities=True
        )
        assert_clear(code, text, "Permission denied")
    assert finished(tmp_path).keys() == before.keys()


def test_an_input_that_changes_while_it_is_read(tmp_path, fault, monkeypatch):
    lines = [f"{label} qid:{query} 1:{query + 0.5 * label}\n" for query in (1, 2, 3) for label in (1, 0, 2)]
    for split in ("train", "vali", "test"):
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    overrides = [
        "data=letor",
        *(f"data.{split}={tmp_path}/{split}.txt" for split in ("train", "vali", "test")),
    ]
    read = letor_module.read_letor

    def write_meanwhile(path, **options):
        data = read(path, **options)
        if Path(path).name == "vali.txt":
            (tmp_path / "train.txt").write_text("".join(lines) + "1 qid:4 1:1\n")
        return data

    with fault("input that changes while it is read"):
        monkeypatch.setattr(letor_module, "read_letor", write_meanwhile)
        with pytest.raises(ValueError, match=r"train\.txt: changed while it was read\. Fix: run again"):
            load_splits(tiny_config(tmp_path, *overrides))
        assert not finished(tmp_path)
        monkeypatch.undo()
        assert load_splits(tiny_config(tmp_path, *overrides)).splits["train"].num_queries == 4


def test_scores_that_change_while_they_are_read(tmp_path, fault, monkeypatch):
    config = tiny_config(tmp_path)
    overrides = ["teacher=run_file"]
    for split, data in load_splits(config).splits.items():
        np.save(tmp_path / f"{split}.npy", np.arange(float(data.num_docs)))
        overrides.append(f"teacher.{split}={tmp_path}/{split}.npy")
    changed = tiny_config(tmp_path, *overrides)
    artifacts, ctx = find(changed)
    data = load_splits(changed)
    with fault("scores that change while they are read"):
        np.save(tmp_path / "vali.npy", np.arange(float(data.splits["vali"].num_docs)) + 1)
        with pytest.raises(ValueError, match=r"vali\.npy: changed while it was read"):
            make_teacher(changed.teacher, changed.train, data, artifacts.teacher, ctx)
        assert not list(tmp_path.glob("cache/scores/*/manifest.json"))


def test_too_little_memory(tmp_path, whole, fault):
    """What fits differs between machines: every limit must end well or with an error, and leave nothing half-made."""
    large = ("data.train_queries=4000", "data.vali_queries=300", "data.test_queries=300", "stage=data")
    before = finished(tmp_path)
    with fault("memory limit in the data stage", "150 MB more than at the start"):
        code, text = run(tmp_path, *large, log="log", memory_bytes=150_000_000)
        assert_clear(code, text, "out of memory")
        assert finished(tmp_path) == before
    with fault("after the memory limit", "the same folder"):
        code, text = run(tmp_path, "run_dir=small")
        assert code == 0, text
        assert metrics(json.loads((tmp_path / "small" / "result.json").read_text())) == metrics(whole)


def test_a_disk_that_is_full_when_numpy_writes_has_a_name(tmp_path):
    def make(folder):
        raise OSError("1000 requested and 12 written")

    with pytest.raises(OSError, match=r"No space left on device: '.*kind.*\.work'"):
        Store(tmp_path).get("kind", {}, make)

"""Several processes at once: one cache, one run folder, dead and foreign holders of locks."""

import json
import multiprocessing
import os
import time

import pytest

from pipeline import locks
from pipeline.locks import exclusive
from pipeline.store import Store
from tests.trust.command import finished, run, start

FORK = multiprocessing.get_context("fork")


def _make(root, num_slow, made, outcome, maker):
    """Makes one artifact and reads it; a partial one would show. The first `num_slow` makers take too long."""

    def make(folder):
        with made.get_lock():
            made.value += 1
            seconds = 100.0 if made.value <= num_slow else 0.1
            maker.value = os.getpid()
        for part in range(4):
            (folder / f"{part}.txt").write_text(str(part) * 1000)
            time.sleep(seconds)

    folder = Store(root).get("teacher", {"a": 1}, make)
    whole = [(folder / f"{part}.txt").read_text() == str(part) * 1000 for part in range(4)]
    with outcome.get_lock():
        outcome.value += all(whole)


def eight(root, num_slow):
    made, good, maker = (FORK.Value("i", 0) for _ in range(3))
    processes = [FORK.Process(target=_make, args=(root, num_slow, made, good, maker)) for _ in range(8)]
    for process in processes:
        process.start()
    return processes, made, good, maker


def test_eight_processes_make_an_artifact_once(tmp_path, fault):
    with fault("eight processes, one cache"):
        processes, made, good, _ = eight(tmp_path, num_slow=0)
        for process in processes:
            process.join(60)
        assert (made.value, good.value) == (1, 8)
        assert not list(tmp_path.rglob("*.lock"))


def test_the_killed_maker_is_replaced_by_the_next(tmp_path, fault):
    with fault("eight processes, the maker killed twice"):
        processes, made, good, maker = eight(tmp_path, num_slow=2)
        for kills in (1, 2):
            while made.value < kills:
                assert any(process.is_alive() for process in processes)
                time.sleep(0.01)
            with made.get_lock():  # not by the lock's file, where a contender's own may stand for an instant
                pid = maker.value
            (process,) = [process for process in processes if process.pid == pid]
            time.sleep(0.1)
            process.kill()
            process.join()  # a zombie would count as alive until its lease is over
        for process in processes:
            process.join(60)
        assert sorted(process.exitcode for process in processes) == [-9, -9, 0, 0, 0, 0, 0, 0]
        assert (made.value, good.value) == (3, 6)
        assert [path.name for path in tmp_path.glob("teacher/*")] == [
            Store(tmp_path).path("teacher", {"a": 1}).name
        ]


def test_eight_runs_with_one_cache_train_the_teacher_once(tmp_path, fault):
    """The case of a sweep, each run with a folder of its own."""
    with fault("eight runs at once, one cache"):
        processes = [
            start(tmp_path, "stage=teacher", f"run_dir=run{number}", log=f"log{number}")
            for number in range(8)
        ]
        for process in processes:
            process.join()
        logs = [(tmp_path / f"log{number}").read_text() for number in range(8)]
        assert [process.exitcode for process in processes] == [0] * 8, logs
        for kind in ("data", "teacher", "scores"):
            assert len(list(tmp_path.glob(f"cache/{kind}/*"))) == 1, kind
        assert not any("made again" in log for log in logs)
        assert not list(tmp_path.glob("cache/**/*.lock"))


def foreign(lock, *, age, host="elsewhere", pid=1, duration=locks._LEASE):
    """The lock file of a holder on another host, last refreshed `age` seconds ago."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    record = ["filelock/2", f"pid={pid}", f"host={host}", "mode=lease", "token=ab", f"duration={duration!r}"]
    lock.write_text("\n".join(record) + "\n")
    os.utime(lock, (time.time() - age,) * 2)


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setattr(locks, "_LEASE", 1.5)


def test_a_stale_lock_of_another_host_is_recognised_by_its_silence(tmp_path, fault, short_lease, caplog):
    """Whatever its clock says: the time is taken here, from when the file was first seen."""
    caplog.set_level("INFO")
    store = Store(tmp_path)
    with fault("lock of a dead process on another host"):
        lock = store.path("kind", {}).with_suffix(".lock")
        foreign(lock, age=-3600, duration=1.5)
        began = time.monotonic()
        folder = store.get("kind", {}, lambda work: (work / "a").write_text("a"))
        assert time.monotonic() - began >= 1.5
        assert (folder / "a").read_text() == "a"
        assert "waiting for process 1 on elsewhere" in caplog.text


def test_the_lock_of_a_process_that_died_before_it_wrote_its_name_is_taken_over(tmp_path, fault, short_lease):
    store = Store(tmp_path)
    with fault("lock of a process killed as it made it"):
        lock = store.path("kind", {}).with_suffix(".lock")
        lock.parent.mkdir()
        lock.touch()
        began = time.monotonic()
        folder = store.get("kind", {}, lambda work: (work / "a").write_text("a"))
        assert time.monotonic() - began >= 1.5  # it may be about to write
        assert (folder / "a").read_text() == "a"
        assert not list(tmp_path.rglob("*.lock*"))


def test_a_lock_that_another_host_refreshes_is_waited_for(tmp_path, fault, short_lease):
    store = Store(tmp_path)
    with fault("lock of a live process on another host"):
        lock = store.path("kind", {}).with_suffix(".lock")
        foreign(lock, age=0, duration=1.5)
        process = FORK.Process(target=Store(tmp_path).get, args=("kind", {}, lambda work: None))
        process.start()
        for _ in range(8):  # alive for twice the lease
            time.sleep(0.4)
            lock.touch()
            assert not store.path("kind", {}).exists()
        lock.unlink()
        process.join(20)
        assert process.exitcode == 0


@pytest.mark.parametrize("text", ["garbage", "filelock/2\npid=1\n", "999999\nnowhere"])
def test_a_damaged_lock_file_does_not_block(tmp_path, fault, text):
    store = Store(tmp_path)
    with fault("lock file damaged"):
        lock = store.path("kind", {}).with_suffix(".lock")
        lock.parent.mkdir()
        lock.write_text(text)
        store.get("kind", {}, lambda work: None)


def test_a_maker_that_stood_still_gives_way_to_the_one_that_took_over(tmp_path, fault, short_lease, caplog):
    """SIGSTOP for longer than the lease, as of a laptop's lid, while another host takes over."""
    store, made = Store(tmp_path), []
    lock = store.path("kind", {}).with_suffix(".lock")

    def make(work):
        made.append(work)
        if len(made) == 1:  # while we stand still
            lock.unlink()
            foreign(lock, age=0, duration=1.5)

    with fault("a maker that stood still for longer than its lease"):
        store.get("kind", {}, make)
        assert len(made) == 2
        assert "another process took over" in caplog.text


def test_two_runs_in_one_folder_at_the_same_time_are_refused(tmp_path, fault):
    with fault("two runs in one folder at the same time"):
        (tmp_path / "run").mkdir()
        with exclusive(tmp_path / "run"):
            code, text = run(tmp_path, "stage=data")
        assert code == 2
        assert f"run: in use by process {os.getpid()} on " in text
        assert "another run_dir" in text
        assert "Traceback" not in text
        assert not (tmp_path / "cache").exists()
    with fault("the same run again, after the first"):
        assert run(tmp_path, "stage=data")[0] == 0
        before = finished(tmp_path)
        assert run(tmp_path, "stage=data")[0] == 0
        assert finished(tmp_path) == before


def test_a_folder_whose_run_died_on_another_host_is_taken_over(tmp_path, fault, short_lease):
    with fault("run folder of a dead process on another host"):
        foreign(tmp_path / ".lock", age=0, duration=1.5)
        with exclusive(tmp_path):
            assert json.dumps((tmp_path / ".lock").read_text()).count(str(os.getpid()))
    with fault("run folder of a live process on another host"):
        foreign(tmp_path / ".lock", age=0, duration=1.5)
        process = FORK.Process(target=_touch_for, args=(tmp_path / ".lock", 5))
        process.start()
        with pytest.raises(ValueError, match="in use by process 1 on elsewhere"), exclusive(tmp_path):
            pass
        process.kill()
        process.join()


def _touch_for(path, seconds):
    for _ in range(seconds * 5):
        time.sleep(0.2)
        path.touch()

import hashlib
import json
import multiprocessing
import os
import signal
import time

import pytest

import pipeline.store as store_module
from pipeline import locks
from pipeline.store import Store, atomic, fingerprint, write_json


def content(text="whole"):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / "a.txt").write_text(text)
        (folder / "b.txt").write_text("b")

    return make, made


def test_an_artifact_is_made_once_for_each_key(tmp_path):
    store = Store(tmp_path)
    make, made = content()
    first = store.get("kind", {"a": 1, "b": [2]}, make)
    assert store.get("kind", {"b": [2], "a": 1}, make) == first
    assert len(made) == 1
    assert store.get("kind", {"a": 2, "b": [2]}, make) != first
    assert (first / "sub" / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("name", ["sub/a.txt", "b.txt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_artifact_is_named_removed_and_made_again(tmp_path, caplog, name, damage):
    store = Store(tmp_path)
    make, made = content()
    folder = store.get("kind", {"a": 1}, make)
    path = folder / name
    raw = path.read_bytes()
    if damage == "flip":
        path.write_bytes(raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:] if len(raw) > 3 else b"x")
    elif damage == "truncate":
        path.write_bytes(raw[:-1] if name != "manifest.json" else raw[: len(raw) // 2])
    else:
        path.unlink()
    assert store.get("kind", {"a": 1}, make) == folder
    assert len(made) == 2
    assert path.read_bytes() == raw
    assert name in caplog.text


def test_an_artifact_of_another_format_is_made_again(tmp_path, caplog):
    store = Store(tmp_path)
    make, made = content()
    folder = store.get("kind", {}, make)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 0}))
    store.get("kind", {}, make)
    assert len(made) == 2
    assert "format 0" in caplog.text


def test_a_failed_make_leaves_no_artifact_and_its_work_to_the_next(tmp_path):
    store = Store(tmp_path)

    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.get("kind", {}, fail)
    assert not store.path("kind", {}).exists()

    def go_on(folder):
        assert (folder / "half.txt").read_text() == "half"

    assert (store.get("kind", {}, go_on) / "half.txt").exists()


def _make_slowly(root, seconds, counter):
    def make(folder):
        with counter.get_lock():
            counter.value += 1
        time.sleep(seconds)
        (folder / "a.txt").write_text(str(os.getpid()))

    Store(root).get("kind", {}, make)


def test_of_many_processes_one_makes_and_a_killed_maker_is_replaced(tmp_path):
    context = multiprocessing.get_context("fork")
    counter = context.Value("i", 0)
    # The first would take longer than the test may; the others start while it works.
    seconds = (100.0, 0.5, 0.5, 0.5)
    processes = [context.Process(target=_make_slowly, args=(tmp_path, s, counter)) for s in seconds]
    processes[0].start()
    while counter.value == 0:
        time.sleep(0.01)
    for process in processes[1:]:
        process.start()
    os.kill(processes[0].pid, signal.SIGKILL)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, 0, 0, 0]
    assert counter.value == 2


def test_an_atomic_write_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})

    def half_write():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        half_write()
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert json.loads(path.read_text()) == {"a": 1}


def test_fingerprints_do_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})


def large_file(path, *, age):
    """A file of more bytes than are hashed each time, whose times lie `age` seconds back (the ctime by waiting)."""
    path.write_bytes(os.urandom(1 << 20) + b"end")
    time.sleep(age)
    return path


def counted(monkeypatch):
    hashed = []

    def count(path, whole=store_module.file_digest):
        hashed.append(path)
        return whole(path)

    monkeypatch.setattr(store_module, "file_digest", count)
    return hashed


def test_the_digest_of_a_large_file_is_remembered_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_SETTLED", 0.05)
    hashed = counted(monkeypatch)
    path, store = large_file(tmp_path / "a", age=0.1), Store(tmp_path / "cache")
    first = store.digest(path)
    assert first == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Store(tmp_path / "cache").digest(path) == first
    assert len(hashed) == 1
    stat = path.stat()
    raw = bytearray(path.read_bytes())
    raw[7] ^= 1
    with path.open("r+b") as file:  # same size, same inode, the time of modification set back
        file.write(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.digest(path) == hashlib.sha256(raw).hexdigest() != first


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, monkeypatch):
    hashed = counted(monkeypatch)
    path, store = large_file(tmp_path / "a", age=0), Store(tmp_path / "cache")
    assert store.digest(path) == store.digest(path)
    assert len(hashed) == 2


def test_a_large_artifact_is_not_hashed_again_but_its_damage_is_found(tmp_path, monkeypatch, caplog):
    def make(folder):
        large_file(folder / "a.npy", age=0)

    store = Store(tmp_path)
    folder = store.get("kind", {}, make)
    hashed = counted(monkeypatch)
    store.get("kind", {}, make)
    assert hashed == []
    with (folder / "a.npy").open("r+b") as file:
        file.write(b"damage")
    store.get("kind", {}, make)
    assert "a.npy is not what was written" in caplog.text
    assert (folder / "a.npy").read_bytes()[-3:] == b"end"


def test_a_broken_memo_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_SETTLED", 0.05)
    path, store = large_file(tmp_path / "a", age=0.1), Store(tmp_path / "cache")
    first = store.digest(path)
    (memo,) = (tmp_path / "cache" / "digests").iterdir()
    for text in ("", "[]", '{"file": 1}'):
        memo.write_text(text)
        assert store.digest(path) == first


def test_the_manifest_names_the_commit_that_made_it(tmp_path):
    folder = Store(tmp_path).get("kind", {}, lambda work: None)
    made_by = json.loads((folder / "manifest.json").read_text())["made_by"]
    assert set(made_by) == {"commit", "dirty"}
    assert made_by["commit"] is None or len(made_by["commit"]) == 40


def test_a_lock_that_came_in_place_of_a_silent_one_stays(tmp_path):
    """Two contenders judge the same dead lock: the second must not remove the first one's."""
    lock = tmp_path / "a.lock"
    lock.write_text("dead")
    dead = locks._lock_state(lock)
    lock.unlink()
    lock.write_text("alive and longer")
    locks._remove_silent(lock, dead)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["alive and longer"]
    locks._remove_silent(lock, locks._lock_state(lock))
    assert list(tmp_path.iterdir()) == []

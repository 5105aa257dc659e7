"""Damaged files: each file of each artifact, a checkpoint, and what lies in a run's folder."""

import dataclasses
import functools
import itertools
import json
import os

import numpy as np
import pytest

import pipeline.store as store_module
from pipeline.config import ConfigError
from pipeline.locks import FolderInUseError
from pipeline.run import run
from pipeline.run_folder import check_folder
from pipeline.store import Store
from pipeline.training import checkpoint
from tests.closeness import assert_close
from tests.conftest import find, load_splits, load_teacher, tiny_config
from tests.training.test_fit import assert_same, train
from tests.trust.command import FAST, metrics


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return functools.partial(tiny_config, tmp_path_factory.mktemp("damage"), *FAST, "train.baseline=false")


@pytest.fixture(scope="module")
def whole(tiny):
    """A finished run, and the bytes of every file of its artifacts."""
    config = tiny()
    result = run(config).result
    files = {path: path.read_bytes() for path in config.cache_dir.rglob("*") if path.is_file()}
    return config, result, files


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = {"flipped": flip, "truncated": truncate, "deleted": lambda path: path.unlink()}


def restore(files):
    for path, raw in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_file_of_each_artifact_is_named_and_made_again(whole, tiny, fault, caplog, damage):
    """The stages of one run are made again from the first damaged one on; all of them give the same bytes."""
    config, _, files = whole
    kinds = {path.relative_to(config.cache_dir).parts[0] for path in files}
    assert kinds >= {"data", "features", "teacher", "scores", "student"}
    for path in files:
        kind = path.relative_to(config.cache_dir).parts[0]
        folder = config.cache_dir / kind / path.relative_to(config.cache_dir).parts[1]
        with fault(f"{kind}: a file {damage}"):
            DAMAGES[damage](path)
            caplog.clear()
            made_by_data = kind in ("data", "features", "digests")
            stage = "data" if made_by_data else "student" if kind == "student" else "teacher"
            run(dataclasses.replace(config, stage=stage))
            if kind != "digests":
                assert f"{folder}: " in caplog.text
                # A flip may change the digest of another file in the manifest, and that file is named then.
                assert path.name in caplog.text or path.name == "manifest.json"
                # The history of a student has speeds in it.
                assert path.read_bytes() == files[path] or kind == "student", path
        restore(files)


def test_the_result_after_damage_is_the_result_before(whole, tiny, fault):
    _, result, files = whole
    with fault("every artifact damaged at once"):
        for path in files:
            if path.name != "manifest.json":
                flip(path)
        assert metrics(run(tiny(run="repaired")).result) == metrics(result)
    restore(files)


def test_every_flipped_byte_of_a_manifest_is_found_or_harmless(tmp_path, fault):
    """Whatever byte flips: the artifact is made again, or the manifest still says the same."""
    made = []

    def make(folder):
        made.append(folder)
        (folder / "a.txt").write_text("whole")

    store = Store(tmp_path)
    path = store.get("kind", {"a": 1}, make) / "manifest.json"
    raw = path.read_bytes()
    for position in range(len(raw)):
        with fault("manifest: one byte flipped"):
            flipped = bytearray(raw)
            flipped[position] ^= 1
            path.write_bytes(flipped)
            before = len(made)
            store.get("kind", {"a": 1}, make)
            try:
                harmless = json.loads(flipped) == json.loads(raw)
            except ValueError:
                harmless = False
            assert harmless or len(made) == before + 1, flipped[max(0, position - 20) : position + 20]
            assert (path.parent / "a.txt").read_text() == "whole"
            path.write_bytes(raw)


def test_an_artifact_of_an_older_program_is_made_again(whole, fault, monkeypatch):
    config, _, files = whole
    with fault("artifacts of an older format"):
        monkeypatch.setattr(store_module, "FORMAT", store_module.FORMAT + 1)
        newer = load_splits(config).artifacts.data.path
        assert newer not in {path.parent for path in files}
        manifest = json.loads((newer / "manifest.json").read_text())
        assert manifest["format"] == store_module.FORMAT


def test_a_file_in_the_place_of_an_artifact_is_removed(tmp_path, fault):
    store = Store(tmp_path)
    with fault("a file in the place of an artifact"):
        store.path("kind", {}).parent.mkdir()
        store.path("kind", {}).write_text("mine?")
        folder = store.get("kind", {}, lambda work: (work / "a").write_text("a"))
        assert (folder / "a").read_text() == "a"


def test_a_damaged_memo_of_a_digest_costs_no_artifact(tmp_path, fault):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "a.bin").write_bytes(b"x" * (store_module._SMALL + 1))

    store = Store(tmp_path)
    store.get("kind", {}, make)
    (memo,) = (tmp_path / "digests").iterdir()
    with fault("memo of a digest: another digest in it"):
        stored = json.loads(memo.read_text())
        memo.write_text(json.dumps(stored | {"sha256": "0" * 64}))
        store.get("kind", {}, make)
        assert len(made) == 1


def test_scores_of_other_rows_are_not_used(tiny, tmp_path, fault):
    """A file under the same name, reordered rows, another transform: other scores, or an error; never the cached."""
    lines = [f"{label} qid:{query} 1:{0.1 * row + query} 2:{label}" for query in (1, 2, 3, 4)
             for row, label in enumerate((2, 0, 1))]  # fmt: skip
    paths = {split: tmp_path / f"{split}.txt" for split in ("train", "vali", "test")}
    for path in paths.values():
        path.write_text("\n".join(lines) + "\n")
    overrides = ["data=letor", *(f"data.{split}={path}" for split, path in paths.items())]
    overrides += ["teacher.num_trees=2", "teacher.min_docs_in_leaf=1", "train.epochs=1"]

    def config_of(*more):
        return tiny(*overrides, *more, cache=f"{tmp_path.name}-rows")

    def scores_of(config):
        teacher = load_teacher(config)
        return teacher.artifact.path, teacher.scores["train"]

    folder, scores = scores_of(config_of())
    with fault("scores: another file under the same name"):
        paths["train"].write_text("\n".join(lines).replace("qid:1 1:1.0", "qid:1 1:1.7") + "\n")
        assert scores_of(config_of())[0] != folder
    with fault("scores: reordered rows"):
        reordered = [*lines[3:], *lines[:3]]
        paths["train"].write_text("\n".join(reordered) + "\n")
        other, other_scores = scores_of(config_of())
        assert other != folder
        assert_close(sorted(other_scores), sorted(scores))
    with fault("scores: another transform of the scores"):
        paths["train"].write_text("\n".join(lines) + "\n")
        assert scores_of(config_of())[0] == folder  # the raw ones are the same
        plain, ranked = (find(config_of(*more))[0] for more in ((), ("teacher.scores.transform=rank",)))
        assert ranked.models["student"].path != plain.models["student"].path
    with fault("scores of a file: other rows than the data"):
        np.save(tmp_path / "short.npy", scores[:-1])
        files = [f"teacher.{split}={tmp_path / 'short.npy'}" for split in paths]
        config = tiny_config(tmp_path, *overrides[:4], "teacher=run_file", *files)
        with pytest.raises(ValueError, match=r"short\.npy.*the data has 12 documents"):
            load_teacher(config)


class StopError(Exception):
    pass


def test_a_damaged_checkpoint_is_named_and_training_starts_from_the_beginning(tmp_path, fault, caplog):
    def stop(row):
        if row["epoch"] == 2:
            raise StopError

    whole = train(tmp_path / "whole")
    for name, (damage, do) in itertools.product(("checkpoint.npz", "weights.npz"), DAMAGES.items()):
        with fault(f"{name} of an interrupted training {damage}"):
            folder = tmp_path / f"{name}-{damage}"
            with pytest.raises(StopError):
                train(folder, on_epoch=stop)
            do(folder / name)
            caplog.clear()
            assert_same(train(folder), whole)
            if (name, damage) != ("checkpoint.npz", "deleted"):  # then there is nothing to see
                assert name in caplog.text
                assert "starts from the beginning" in caplog.text


@pytest.mark.parametrize("name", ["history.json", "weights.npz"])
def test_a_training_that_was_killed_at_its_very_end_is_checked(tmp_path, fault, caplog, name):
    """Between the removal of the checkpoint and the end of the artifact."""
    whole = train(tmp_path / "a")
    untouched = (tmp_path / "a" / name).read_bytes()
    rows = []
    train(tmp_path / "a", on_epoch=rows.append)
    assert len(rows) == 4
    assert (tmp_path / "a" / name).read_bytes() == untouched
    with fault(f"{name} of a finished training truncated before its artifact was whole"):
        truncate(tmp_path / "a" / name)
        assert_same(train(tmp_path / "a"), whole)
        assert "starts from the beginning" in caplog.text


def test_any_flipped_byte_of_arrays_is_found(tmp_path, fault):
    path = tmp_path / "a.npz"
    checkpoint.save_arrays(path, [np.arange(3.0), np.zeros((2, 0))], {"step": 3})
    arrays, extra = checkpoint.load_arrays(path)
    assert [array.shape for array in arrays] == [(3,), (2, 0)]
    assert extra == {"step": 3}
    raw = path.read_bytes()
    for position in range(len(raw)):
        with fault("checkpoint: one byte flipped"):
            flipped = bytearray(raw)
            flipped[position] ^= 0x10
            path.write_bytes(flipped)
            with pytest.raises(checkpoint.DamagedError, match=r"a\.npz is damaged"):
                checkpoint.load_arrays(path)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["result.json", "per_query.csv", "student/saved_model.pb"])
def test_a_damaged_file_of_the_run_is_written_again(whole, fault, name, damage):
    config, result, _ = whole
    with fault(f"{name} in the run's folder {damage}"):
        DAMAGES[damage](config.run_dir / name)
        run(config)
        assert metrics(json.loads((config.run_dir / "result.json").read_text())) == metrics(result)
        assert (config.run_dir / "per_query.csv").read_text().count("\n") == 1 + 12
        assert (config.run_dir / "student" / "saved_model.pb").stat().st_size > 1000


@pytest.mark.parametrize("text", ["", "stage: [", "\x00\x01", "seed: 0\n", b"\xff\xfe"])
def test_a_damaged_config_of_the_run_is_an_error_with_the_fix(tiny, fault, text):
    config = tiny(run="config")
    with fault("config.yaml in the run's folder damaged"):
        (config.run_dir / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises((ConfigError, FolderInUseError), match=r"Fix: another run_dir, or remove"):
            check_folder(config)

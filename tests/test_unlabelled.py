"""Whole runs with lists that have a teacher's scores and no labels, on tiny data."""

import functools

import numpy as np
import pytest

from pipeline.config import ConfigError
from pipeline.run import run
from pipeline.teacher import stage as teacher_stage
from pipeline.teacher.augment import synthetic_lists
from pipeline.training.loop import load_history
from tests.closeness import assert_close
from tests.conftest import find, load_splits, load_teacher, load_training_set, tiny_config


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return functools.partial(tiny_config, tmp_path_factory.mktemp("runs"))


def never(*args, **kwargs):
    raise AssertionError("the teacher was trained again")


def write_letor(path, lists, label):
    with path.open("w") as file:
        for row, query in enumerate(lists.query_ids[lists.list_of_doc]):
            values = " ".join(f"{i}:{v!r}" for i, v in enumerate(lists.features[row].tolist(), 1))
            file.write(f"{label(row)} qid:{query} {values}\n")


def test_only_the_student_learns_from_them(tiny, monkeypatch):
    plain = tiny("train.epochs=1", run="plain")
    load_teacher(plain)
    monkeypatch.setattr(teacher_stage, "fit_lambdamart", never)
    config = tiny("train.epochs=1", "data.unlabelled_queries=8", "loss.label_weight=0.5", run="more")
    # All that the baseline's artifact depends on is the same.
    (before, _), (found, _) = find(plain), find(config)
    assert found.data.features.path == before.data.features.path
    assert found.teacher.scores.path == before.teacher.scores.path
    outcome = run(config)
    lists, teacher = load_training_set(config)
    judged, raw = outcome.data.splits["train"].num_docs, outcome.data.unlabelled
    assert lists.num_queries == 24 + 8
    assert outcome.data.facts()["unlabelled"] == {"queries": 8, "docs": raw.num_docs}
    assert_close(teacher[judged:], outcome.teacher.model(raw.features))
    assert np.isfinite(load_history(found.models["student"].path)["epochs"][0]["loss"])


def test_a_file_of_them_whatever_its_labels_and_scores_made_elsewhere(tiny, tmp_path):
    config = tiny("data.unlabelled_queries=8", run="embedded")
    data, teacher = load_splits(config), load_teacher(config)
    expected, expected_scores = load_training_set(config)
    overrides = ["data=letor"]
    for split, lists in data.splits.items():
        write_letor(tmp_path / f"{split}.txt", lists, lambda row, lists=lists: int(lists.labels[row]))
        overrides.append(f"data.{split}={tmp_path / split}.txt")
    lists = data.unlabelled
    write_letor(tmp_path / "u.txt", lists, lambda row: row % 5)
    overrides.append(f"data.unlabelled={tmp_path / 'u.txt'}")
    got, scores = load_training_set(tiny(*overrides, run="letor"))
    assert got.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(scores, expected_scores)
    for split in data.splits:
        np.save(tmp_path / f"{split}.npy", teacher.scores[split])
        overrides.append(f"teacher.{split}={tmp_path / split}.npy")
    np.save(tmp_path / "u.npy", teacher.model(lists.features))
    overrides += ["teacher=run_file", f"teacher.unlabelled={tmp_path / 'u.npy'}"]
    got, scores = load_training_set(tiny(*overrides, run="run_file"))
    assert got.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(scores, expected_scores)
    with pytest.raises(ConfigError, match=r"teacher\.unlabelled=null.*Fix: "):
        tiny(*(o for o in overrides if not o.startswith("teacher.unlabelled")), run="missing")


def test_synthetic_lists_come_last_and_are_scored_by_the_teacher(tiny, monkeypatch):
    train, scores = load_training_set(tiny("teacher.scores.scale=2", run="plain"))
    monkeypatch.setattr(teacher_stage, "fit_lambdamart", never)  # the option does not change the teacher
    config = tiny("teacher.synthetic_lists=2", "teacher.scores.scale=2", run="synthetic")
    lists, all_scores = load_training_set(config)
    teacher = load_teacher(config)
    assert lists.list_sizes.tolist() == train.list_sizes.tolist() * 3
    np.testing.assert_array_equal(lists.features[: train.num_docs], train.features)
    np.testing.assert_array_equal(all_scores[: train.num_docs], scores)
    raw = synthetic_lists(teacher.model.members, load_splits(config).splits["train"], per_list=2)
    assert_close(all_scores[train.num_docs :], 2 * teacher.model(raw.features))

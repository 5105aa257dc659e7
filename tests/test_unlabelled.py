"""Whole runs with lists that have a teacher's scores and no labels, on tiny data."""

import functools

import numpy as np
import pytest

import pipeline.run as run_module
from pipeline.config import ConfigError
from pipeline.run import Run
from pipeline.teacher import stage as teacher_stage
from pipeline.teacher.augment import synthetic_lists
from pipeline.training.loop import load_history
from tests.conftest import tiny_config


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
    plain = Run(tiny("train.epochs=1", run="plain"))
    made = (plain.data.features_folder, plain.teacher.scores_folder)
    monkeypatch.setattr(teacher_stage, "fit_lambdamart", never)
    run = Run(tiny("train.epochs=1", "data.unlabelled_queries=8", "loss.label_weight=0.5", run="more"))
    assert (
        run.data.features_folder,
        run.teacher.scores_folder,
    ) == made  # all that the baseline's artifact depends on
    lists, teacher = run.training_lists()
    judged = run.data.splits["train"].num_docs
    raw = run_module.RankingData.load(run.data.unlabelled_folder)
    assert lists.num_queries == 24 + 8
    assert run.data.facts()["unlabelled"] == {"queries": 8, "docs": raw.num_docs}
    np.testing.assert_allclose(teacher[judged:], run.teacher.model(raw.features), rtol=1e-6)
    assert np.isfinite(load_history(run.trained("student"))["epochs"][0]["loss"])


def test_a_file_of_them_whatever_its_labels_and_scores_made_elsewhere(tiny, tmp_path):
    embedded = Run(tiny("data.unlabelled_queries=8", run="embedded"))
    expected, expected_scores = embedded.training_lists()
    overrides = ["data=letor"]
    for split, lists in embedded.data.splits.items():
        write_letor(tmp_path / f"{split}.txt", lists, lambda row, lists=lists: int(lists.labels[row]))
        overrides.append(f"data.{split}={tmp_path / split}.txt")
    lists = run_module.RankingData.load(embedded.data.unlabelled_folder)
    write_letor(tmp_path / "u.txt", lists, lambda row: row % 5)
    overrides.append(f"data.unlabelled={tmp_path / 'u.txt'}")
    got, scores = Run(tiny(*overrides, run="letor")).training_lists()
    assert got.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(scores, expected_scores)
    for split in embedded.data.splits:
        np.save(tmp_path / f"{split}.npy", embedded.teacher.scores(split))
        overrides.append(f"teacher.{split}={tmp_path / split}.npy")
    np.save(tmp_path / "u.npy", embedded.teacher.model(lists.features))
    overrides += ["teacher=run_file", f"teacher.unlabelled={tmp_path / 'u.npy'}"]
    got, scores = Run(tiny(*overrides, run="run_file")).training_lists()
    assert got.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(scores, expected_scores)
    with pytest.raises(ConfigError, match=r"teacher\.unlabelled=null .* mend: teacher\.unlabelled=FILE"):
        tiny(*(o for o in overrides if not o.startswith("teacher.unlabelled")), run="missing")


def test_synthetic_lists_come_last_and_are_scored_by_the_teacher(tiny, monkeypatch):
    plain = Run(tiny("teacher.scores.scale=2", run="plain"))
    train, scores = plain.training_lists()
    monkeypatch.setattr(teacher_stage, "fit_lambdamart", never)  # the option does not change the teacher
    run = Run(tiny("teacher.synthetic_lists=2", "teacher.scores.scale=2", run="synthetic"))
    lists, all_scores = run.training_lists()
    assert lists.list_sizes.tolist() == train.list_sizes.tolist() * 3
    np.testing.assert_array_equal(lists.features[: train.num_docs], train.features)
    np.testing.assert_array_equal(all_scores[: train.num_docs], scores)
    raw = synthetic_lists(run.teacher.model.members, run.data.splits["train"], per_list=2)
    np.testing.assert_allclose(all_scores[train.num_docs :], 2 * run.teacher.model(raw.features), rtol=1e-6)

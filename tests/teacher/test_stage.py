"""Every teacher in a tiny run: cached by what determines it, its scores aligned with the data."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats

from pipeline.config import ConfigError
from pipeline.errors import UserError
from pipeline.run import run
from pipeline.teacher import stage
from tests.closeness import assert_close
from tests.conftest import find, load_splits, load_teacher, tiny_config

NETWORK = ("teacher.hidden=[8]", "teacher.epochs=2", "teacher.lists_per_batch=8")
LISTWISE = ("teacher=attention", *NETWORK, "teacher.attention_layers=1", "teacher.head_size=4")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    def config(*overrides, run):
        return tiny_config(root, "train.epochs=1", "train.baseline=false", *overrides, run=run)

    root = tmp_path_factory.mktemp("runs")
    return config


@pytest.fixture(scope="module")
def listwise(tiny):
    """A finished run: an attention teacher and a student dcn."""
    config = tiny(*LISTWISE, "student=dcn", "student.hidden=[8]", run="attention")
    return config, run(config)


class Recorded:
    """Keeps what a progress display receives."""

    def __init__(self):
        self.epochs, self.counts = [], []

    def epoch(self, model, row, num_epochs):
        self.epochs.append((model, row["epoch"], num_epochs))

    def counted(self, what, num_done, num_total, unit):
        self.counts.append((what, num_done, num_total, unit))


def test_a_network_is_trained_once_and_scores_by_lists(tiny, listwise, monkeypatch):
    _, outcome = listwise
    assert outcome.result["models"]["teacher"]["parameters"] > 0
    assert outcome.result["models"]["teacher"]["us_per_doc"] > 0
    test, teacher = outcome.data.splits["test"], outcome.teacher
    scores = teacher.scores["test"]
    first = test.offsets[1]
    alone = teacher.model(test.features[:first], test.offsets[:2])
    assert_close(alone, scores[:first])
    assert np.abs(teacher.model(test.features[:2], np.array([0, 2])) - scores[:2]).max() > 1e-4

    def never(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(stage, "fit_network", never)
    progress = Recorded()
    again = load_teacher(tiny(*LISTWISE, "teacher.scores.scale=2", run="again"), progress)
    assert (again.scores["test"] == scores).all()
    assert not progress.counts
    monkeypatch.undo()
    other = load_teacher(tiny(*LISTWISE, "teacher.seed=1", run="other"), progress)
    assert (other.scores["test"] != scores).any()
    assert progress.epochs == [("teacher", 1, 2), ("teacher", 2, 2)]
    assert progress.counts[-1] == ("teacher scores test", test.num_docs, test.num_docs, "documents")


def test_the_student_of_a_run_teaches_the_next_generation(tiny, listwise):
    config, outcome = listwise
    born_again = run(tiny("teacher=student", f"teacher.run={config.run_dir}", run="born_again"))
    test = outcome.data.splits["test"]
    expected = outcome.raw_scorer("student").score(test.features, test.offsets)
    assert_close(born_again.teacher.scores["test"], expected)
    found, student = born_again.result["models"]["teacher"], outcome.result["models"]["student"]
    assert found["parameters"] == student["parameters"]
    assert found["metrics"]["test"]["ndcg@10"]["skip"] == pytest.approx(
        student["metrics"]["test"]["ndcg@10"]["skip"], abs=1e-6
    )
    by_path = f"teacher.path={config.run_dir / 'student'}"
    saved = load_teacher(tiny("teacher=saved_model", by_path, run="saved"))
    assert_close(saved.scores["test"], expected)
    key = saved.artifact.key
    assert "saved_model.pb" in key["teacher"]["files"]
    (config.run_dir / "student" / "note").write_text("another file, another digest")
    again, _ = find(tiny("teacher=saved_model", by_path, run="saved2"))
    assert again.teacher.scores.key != key


def test_an_ensemble_is_the_mean_of_standardised_scores(tiny, listwise, tmp_path):
    config, outcome = listwise
    for split in ("train", "vali", "test"):
        np.save(tmp_path / f"{split}.npy", np.arange(outcome.data.splits[split].num_docs) % 7)
    files = ", ".join(f"{split}: {tmp_path / split}.npy" for split in ("train", "vali", "test"))
    trees = "{name: lambdamart, num_trees: 5, num_leaves: 4}"
    members = f"[{trees}, {config.run_dir}, {{name: run_file, {files}}}]"
    ensemble = load_teacher(tiny("teacher=ensemble", f"teacher.members={members}", run="ensemble"))
    test = outcome.data.splits["test"]
    parts = [member.scores["test"] for member in ensemble.members]
    expected = np.concatenate(
        [
            np.mean(
                [stats.zscore(part[a:b]) if np.ptp(part[a:b]) else 0 * part[a:b] for part in parts], axis=0
            )
            for a, b in itertools.pairwise(test.offsets)
        ]
    )
    assert_close(ensemble.scores["test"], expected, atol=1e-9)
    assert ensemble.model is None  # one member is a file
    with pytest.raises(ConfigError, match=r"run_file\) has no scores for the unlabelled lists"):
        ensemble.score(test)
    models = load_teacher(
        tiny("teacher=ensemble", f"teacher.members=[{trees}, {config.run_dir}]", run="models")
    )
    assert_close(models.model(test.features, test.offsets), models.scores["test"], atol=1e-5)
    assert models.model.num_parameters > 0


def test_wrong_options_show_before_anything_is_made(tiny):
    config = tiny("teacher=mlp", "teacher.label_loss=sofmax", run="wrong")
    with pytest.raises(ConfigError, match=r"teacher\.label_loss=sofmax.*softmax"):
        run(config)
    assert [path.name for path in config.run_dir.iterdir()] == ["config.yaml"]


def test_a_teacher_that_ranks_nothing_is_an_error_with_the_fix(tiny, tmp_path, caplog):
    one_leaf = tiny("teacher.min_docs_in_leaf=100000", run="one_leaf")
    with pytest.raises(UserError, match=r"ranks nothing.*teacher\.min_docs_in_leaf"):
        run(one_leaf)
    assert not (one_leaf.cache_dir / "student").exists() or not (one_leaf.run_dir / "result.json").exists()
    splits = load_splits(one_leaf).splits

    def run_file(name, scores_of):
        files = [f"teacher.{split}={tmp_path / name}-{split}.npy" for split in splits]
        for split, lists in splits.items():
            np.save(tmp_path / f"{name}-{split}.npy", scores_of(lists))
        return tiny("teacher=run_file", *files, "stage=teacher", run=name)

    with pytest.raises(UserError, match="ranks nothing"):  # another constant in each query
        run(run_file("constant", lambda lists: lists.list_of_doc * 1.5))
    half = run_file("half", lambda lists: np.where(lists.list_of_doc % 4 < 3, 7.0, np.arange(lists.num_docs)))
    caplog.clear()
    run(half)
    assert "18 of 24 queries" in caplog.text
    caplog.clear()
    run(run_file("few", lambda lists: np.where(lists.list_of_doc % 4 < 1, 7.0, np.arange(lists.num_docs))))
    assert "RANKS" not in caplog.text


def test_an_unfinished_run_cannot_teach(tiny, listwise, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match=r"saved_model among export\.formats"):
        tiny("teacher=student", f"teacher.run={tmp_path}", run="unfinished")

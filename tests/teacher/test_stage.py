"""Every teacher in a tiny run: cached by what determines it, its scores aligned with the data."""

import json

import numpy as np
import pytest
from scipy import stats

from pipeline.config import ConfigError
from pipeline.run import Run
from pipeline.teacher import stage
from tests.conftest import tiny_config

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
    run = Run(tiny(*LISTWISE, "student=dcn", "student.hidden=[8]", run="attention"))
    return run, run()


def test_a_network_is_trained_once_and_scores_by_lists(tiny, listwise, monkeypatch):
    run, result = listwise
    assert result["models"]["teacher"]["parameters"] > 0
    assert result["models"]["teacher"]["us_per_doc"] > 0
    test = run.data.splits["test"]
    scores = run.teacher.scores("test")
    first = test.offsets[1]
    alone = run.teacher.model(test.features[:first], test.offsets[:2])
    np.testing.assert_allclose(alone, scores[:first], rtol=1e-4, atol=1e-5)
    assert np.abs(run.teacher.model(test.features[:2], np.array([0, 2])) - scores[:2]).max() > 1e-4

    def never(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(stage, "fit_network", never)
    told = []
    again = Run(
        tiny(*LISTWISE, "teacher.scores.scale=2", run="again"), counted=lambda *args: told.append(args)
    )
    assert (again.teacher.scores("test") == scores).all()
    assert not told
    monkeypatch.undo()
    trained = []
    other = Run(
        tiny(*LISTWISE, "teacher.seed=1", run="other"),
        progress=lambda model, row, epochs: trained.append((model, row["epoch"], epochs)),
        counted=lambda *args: told.append(args),
    )
    assert (other.teacher.scores("test") != scores).any()
    assert trained == [("teacher", 1, 2), ("teacher", 2, 2)]
    assert told[-1] == ("teacher scores test", test.num_docs, test.num_docs, "documents")


def test_the_student_of_a_run_teaches_the_next_generation(tiny, listwise):
    run, result = listwise
    born_again = Run(tiny("teacher=student", f"teacher.run={run.config.run_dir}", run="born_again"))
    test = run.data.splits["test"]
    expected = run.raw_scorer("student").score(test.features, test.offsets)
    np.testing.assert_allclose(born_again.teacher.scores("test"), expected, rtol=1e-4, atol=1e-5)
    found = born_again()["models"]["teacher"]
    assert found["parameters"] == result["models"]["student"]["parameters"]
    assert found["metrics"]["test"]["ndcg@10"]["skip"] == pytest.approx(
        result["models"]["student"]["metrics"]["test"]["ndcg@10"]["skip"], abs=1e-6
    )
    by_path = f"teacher.path={run.config.run_dir / 'student'}"
    saved = Run(tiny("teacher=saved_model", by_path, run="saved"))
    np.testing.assert_allclose(saved.teacher.scores("test"), expected, rtol=1e-4, atol=1e-5)
    digests = saved.teacher.scores_key["teacher"]["files"]
    assert "saved_model.pb" in digests
    (run.config.run_dir / "student" / "note").write_text("another file, another fingerprint")
    assert (
        Run(tiny("teacher=saved_model", by_path, run="saved2")).teacher.scores_key != saved.teacher.scores_key
    )


def test_an_ensemble_is_the_mean_of_standardised_scores(tiny, listwise, tmp_path):
    run, _ = listwise
    for split in ("train", "vali", "test"):
        np.save(tmp_path / f"{split}.npy", np.arange(run.data.splits[split].num_docs) % 7)
    files = ", ".join(f"{split}: {tmp_path / split}.npy" for split in ("train", "vali", "test"))
    trees = "{name: lambdamart, num_trees: 5, num_leaves: 4}"
    members = f"[{trees}, {run.config.run_dir}, {{name: run_file, {files}}}]"
    ensemble = Run(tiny("teacher=ensemble", f"teacher.members={members}", run="ensemble"))
    test = ensemble.data.splits["test"]
    parts = [member.scores("test") for member in ensemble.teacher.members]
    expected = np.concatenate(
        [
            np.mean(
                [stats.zscore(part[a:b]) if np.ptp(part[a:b]) else 0 * part[a:b] for part in parts], axis=0
            )
            for a, b in zip(test.offsets[:-1], test.offsets[1:], strict=True)
        ]
    )
    np.testing.assert_allclose(ensemble.teacher.scores("test"), expected, atol=1e-9)
    assert ensemble.teacher.model is None  # one member is a file
    assert [name for name, _, _ in ensemble.teacher.artifacts()][-1] == "scores"
    with pytest.raises(ValueError, match=r"run_file\) has no scores for the unlabelled lists"):
        ensemble.teacher.score(test)
    models = Run(tiny("teacher=ensemble", f"teacher.members=[{trees}, {run.config.run_dir}]", run="models"))
    np.testing.assert_allclose(
        models.teacher.model(test.features, test.offsets), models.teacher.scores("test"), atol=1e-5
    )
    assert models.teacher.model.num_parameters > 0


def test_wrong_options_show_before_anything_is_made(tiny):
    with pytest.raises(ConfigError, match=r"teacher\.label_loss=sofmax is unknown: did you mean softmax"):
        Run(tiny("teacher=mlp", "teacher.label_loss=sofmax", run="wrong"))


def test_an_unfinished_run_cannot_teach(tiny, listwise, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match=r"saved_model among export\.formats"):
        tiny("teacher=student", f"teacher.run={tmp_path}", run="unfinished")

"""Every format is read without this package and gives the scores of Keras; what it cannot give is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.config import (
    AttentionStudent,
    ConfigError,
    DCNStudent,
    ExportConfig,
    MLPStudent,
    TransformConfig,
)
from pipeline.data import RankingData
from pipeline.data.transform import fit_transform
from pipeline.export import formats
from pipeline.export.load import ModelError, load_exported
from pipeline.export.raw_scorer import RawScorer
from pipeline.metrics import ndcg
from pipeline.models.scorer import build_scorer, scoring_function
from pipeline.store import write_json
from tests.closeness import assert_close

NUM_FEATURES = 20
ALL = ["saved_model", "serving", "tflite", "tflite_int8", "onnx"]


def lists(num_queries=30, list_size=20):
    rng = np.random.default_rng(0)
    num_docs = num_queries * list_size
    features = rng.lognormal(0, 2, (num_docs, NUM_FEATURES)).astype(np.float32)
    features[:, 1] *= -1000
    labels = rng.integers(0, 3, num_docs).astype(np.float32)
    offsets = np.arange(0, num_docs + 1, list_size, dtype=np.int64)
    return RankingData(features, labels, offsets, np.array([f"q{i}" for i in range(num_queries)]))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(folder of the run, the lists, scores of Keras, what `export` said)."""
    data, folder = lists(), tmp_path_factory.mktemp("run")
    transform = fit_transform(TransformConfig(log1p=True), data.features)
    scorer = build_scorer(MLPStudent(hidden=[64, 32]), NUM_FEATURES, seed=0)
    facts = formats.export(RawScorer(transform, scorer), data, ExportConfig(formats=ALL, version=7), folder)
    return folder, data, scorer(transform(data.features)).numpy(), facts


def test_each_format_is_where_it_says_and_as_near_to_keras(exported):
    folder, data, keras_scores, facts = exported
    assert list(facts) == ALL
    assert facts["serving"]["path"] == "serving/7"
    shape = (data.num_queries, -1)
    labels = data.labels.reshape(shape)
    keras_ndcg = np.nanmean(ndcg(keras_scores.reshape(shape), labels))
    written = json.loads((folder / "export.json").read_text())["formats"]
    for name, fact in facts.items():
        scores = load_exported(folder / fact["path"]).score(data.features)
        assert np.abs(scores - keras_scores).max() == pytest.approx(fact["max_difference"], abs=2e-6)
        own_ndcg = np.nanmean(ndcg(scores.reshape(shape), labels))
        assert own_ndcg - keras_ndcg == pytest.approx(fact["ndcg@10_difference"], abs=1e-6)
        assert fact["max_difference"] < (0.1 if name == "tflite_int8" else 1e-4) * keras_scores.std()
        assert written[name].pop("bytes") > 0
        assert written[name] == fact
    assert facts["tflite_int8"]["max_difference"] > facts["tflite"]["max_difference"]
    size = {name: (folder / facts[name]["path"]).stat().st_size for name in ("tflite", "tflite_int8")}
    assert size["tflite_int8"] < 0.8 * size["tflite"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "export.json", "serving", "student", "student.onnx", "student.tflite", "student_int8.tflite"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"log1p": False, "log_offset": 0.01, "log_except": [2]},
        {"log1p": False, "quantiles": 16, "standardise": False},
        {"clip": 2.0},
    ],
    ids=lambda options: "-".join(options),
)
def test_each_format_holds_every_transform(options, tmp_path):
    data = lists(10)
    transform = fit_transform(TransformConfig(**options), data.features)
    scorer = build_scorer(MLPStudent(hidden=[4]), NUM_FEATURES, seed=0)
    config = ExportConfig(formats=["saved_model", "tflite", "onnx"])
    facts = formats.export(RawScorer(transform, scorer), data, config, tmp_path)
    deviation = scorer(transform(data.features)).numpy().std()
    assert all(fact["max_difference"] < 1e-4 * deviation for fact in facts.values())


@pytest.mark.parametrize("missing", [-999.0, -0.0, 0.1, 1.7976931348623157e308])
@pytest.mark.parametrize("student", [MLPStudent(hidden=[4]), DCNStudent(hidden=[4])], ids=["folded", "dcn"])
def test_each_format_reads_the_missing_value_as_training_did(missing, student, tmp_path):
    """Raw rows with the missing value have the scores of rows with 0 in its place."""
    data = lists(10)
    data.features[::3, 0] = data.features[1::4, 2] = 0
    transform = fit_transform(TransformConfig(), data.features, missing_value=missing)
    scorer = build_scorer(student, NUM_FEATURES, seed=0)
    names = ["saved_model", "serving", "tflite", "tflite_int8", "onnx"]
    facts = formats.export(RawScorer(transform, scorer), data, ExportConfig(formats=names), tmp_path)
    raw = data.features.astype(np.float64)
    raw[::3, 0] = raw[1::4, 2] = missing
    with np.errstate(over="ignore"):
        raw = raw.astype(np.float32)  # a number beyond float32 is infinite
    for fact in facts.values():
        model = load_exported(tmp_path / fact["path"])
        assert_close(model.score(raw), model.score(data.features), atol=1e-7)
    assert_close(scorer(transform(raw)), scorer(transform(data.features)), atol=1e-7)
    of_largest = np.clip(raw, *np.finfo(np.float32).max * np.array([-1, 1]))  # as some callers write it
    assert_close(transform(of_largest), transform(raw), atol=1e-7)


@pytest.mark.parametrize("student", [DCNStudent(hidden=[4]), AttentionStudent(hidden=[4], head_size=4)])
def test_tflite_and_onnx_hold_every_student_and_see_whole_lists(student, tmp_path):
    data = lists(6)
    transform = fit_transform(TransformConfig(), data.features)
    scorer = build_scorer(student, NUM_FEATURES, seed=0)
    config = ExportConfig(formats=["tflite", "onnx"])
    facts = formats.export(RawScorer(transform, scorer), data, config, tmp_path)
    expected = scoring_function(scorer)(transform(data.features), data.offsets)
    for fact in facts.values():
        scores = load_exported(tmp_path / fact["path"]).call(data.features[20:40])  # the second list
        assert_close(scores, expected[20:40], rtol=1e-4, atol=1e-5)
        alone = load_exported(tmp_path / fact["path"]).call(data.features[20:21])
        assert np.allclose(alone, expected[20:21], rtol=1e-4, atol=1e-5) != scorer.listwise


def another_program(script, *arguments):
    """Runs a script that must not need this package."""
    check = 'assert not any(module.split(".")[0] == "pipeline" for module in sys.modules)'
    script = f"import sys\nimport numpy as np\ngiven = np.load(sys.argv[1])\n{script}\n{check}"
    folder = arguments[0].parent
    subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=True, cwd=folder)


@pytest.fixture(scope="module")
def given(exported, tmp_path_factory):
    """A file with raw features and the scores of Keras."""
    _, data, keras_scores, _ = exported
    path = tmp_path_factory.mktemp("given") / "given.npz"
    np.savez(path, features=data.features, scores=keras_scores)
    return path


def test_tensorflow_alone_reads_savedmodel_and_tflite(exported, given):
    folder, _, _, facts = exported
    script = """
import tensorflow as tf
features, expected = given["features"], given["scores"]
signatures = tf.saved_model.load(sys.argv[2]).signatures
scores = signatures["rank"](features=tf.constant(features))["scores"].numpy()
np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
assert (signatures["serving_default"](features=tf.constant(features))["scores"].numpy() == scores).all()
mask = tf.constant([[True, True, False], [True, True, True]])
lists = signatures["rank_lists"](features=features[:6].reshape(2, 3, -1), mask=mask)["scores"].numpy()
assert lists[0, 2] == -np.inf
np.testing.assert_allclose(lists[[0, 0, 1, 1, 1], [0, 1, 0, 1, 2]], scores[[0, 1, 3, 4, 5]], rtol=1e-5, atol=1e-6)
rank = tf.lite.Interpreter(model_path=sys.argv[3]).get_signature_runner("serving_default")
np.testing.assert_allclose(rank(features=features)["scores"], expected, rtol=1e-4, atol=1e-5)
"""
    another_program(script, given, folder / facts["saved_model"]["path"], folder / facts["tflite"]["path"])


def test_onnxruntime_alone_reads_onnx(exported, given):
    folder, _, _, facts = exported
    script = """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
(scores,) = session.run(["scores"], {"features": given["features"]})
np.testing.assert_allclose(scores, given["scores"], rtol=1e-4, atol=1e-5)
assert "tensorflow" not in sys.modules
"""
    another_program(script, given, folder / facts["onnx"]["path"])


def test_scores_do_not_depend_on_how_many_are_asked_for_at_once(exported):
    folder, data, _, facts = exported
    for fact in facts.values():
        model = load_exported(folder / fact["path"])
        whole = model.score(data.features)
        parts = [model.score(part) for part in np.split(data.features, [1, 20, 20, 333])]
        assert_close(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)


def test_a_format_with_other_scores_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    data = lists(5)
    student = RawScorer(
        fit_transform(TransformConfig(log1p=False), data.features),
        build_scorer(MLPStudent(hidden=[4]), NUM_FEATURES, seed=0),
    )
    other = RawScorer(student.transform, build_scorer(MLPStudent(hidden=[4]), NUM_FEATURES, seed=1))
    monkeypatch.setattr(student, "save", other.save)
    with pytest.raises(ValueError, match=r"export\.formats=saved_model gives other scores than Keras"):
        formats.export(student, data, ExportConfig(), tmp_path)
    assert not (tmp_path / "student").exists()
    assert not (tmp_path / "export.json").exists()


def test_options_that_cannot_be():
    with pytest.raises(ConfigError, match=r"onx is unknown: did you mean onnx"):
        ExportConfig(formats=["onx"])
    for wrong in ({"formats": []}, {"formats": ["onnx", "onnx"]}, {"version": 2}):
        with pytest.raises(ConfigError, match="not possible"):
            ExportConfig(**wrong)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs tf2onnx. Fix: pip install 'rankdistil-pipeline\[onnx\]'"):
        formats.check_formats(ExportConfig(formats=["onnx"]))
    formats.check_formats(ExportConfig())


def test_what_is_no_model_is_an_error_with_its_fix(exported, tmp_path):
    folder, *_ = exported
    assert load_exported(folder).num_features == NUM_FEATURES  # a run's folder
    assert load_exported(folder / "serving").num_features == NUM_FEATURES
    write_json(tmp_path / "result.json", {})
    damaged = {"a.onnx": b"damaged", "a.tflite": b"damaged", "a/saved_model.pb": b"damaged"}
    for name, content in damaged.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    for name in ("nothing", "nothing.onnx", ".", "result.json", "a.onnx", "a.tflite", "a"):
        with pytest.raises(ModelError, match=f"{tmp_path / name} "):
            load_exported(tmp_path / name)

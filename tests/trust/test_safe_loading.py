"""No file that is read can run code, but for models of others, about which there is a warning."""

import ast
import json
import zipfile

import pytest
import tensorflow as tf
import tf_keras as keras

from pipeline.teacher.saved_model import SavedModel
from tests.conftest import ROOT, load_teacher, tiny_config

RUN_CODE_WHEN_READ = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
NEVER = {
    "unsafe_load",
    "full_load",
    "unsafe_load_all",
    "load_all",
    "read_pickle",
    "enable_unsafe_deserialization",
}
# Call: keyword and the value that it must be given.
NUMPY = dict.fromkeys(("load", "save", "savez", "savez_compressed"), ("allow_pickle", False))
# Where a program is loaded, for a user who chose it.
LOADS_SAVED_MODELS = {"teacher/saved_model.py", "export/load.py"}


def unsafe(source, where=""):
    """Lines of Python code that could run what a file holds."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            if {name.partition(".")[0] for name in names} & RUN_CODE_WHEN_READ:
                lines.append(ast.unparse(node))
        if not isinstance(node, ast.Call):
            continue
        owner, _, name = ast.unparse(node.func).rpartition(".")
        given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        required = NUMPY.get(name) if owner in ("np", "numpy") else None
        if name == "load_model":
            required = ("safe_mode", True)
        if (
            (not owner and name in BUILTINS)
            or name in NEVER
            or (owner == "yaml" and name == "load")
            or (required and given.get(required[0]) is not required[1])
            or (owner.endswith("saved_model") and name == "load" and where not in LOADS_SAVED_MODELS)
        ):
            lines.append(ast.unparse(node))
    return lines


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import os, marshal",
        "eval(text)",
        "exec(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.savez(path, a=a)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "keras.models.load_model(path)",
        "keras.models.load_model(path, safe_mode=False)",
        "tf.saved_model.load(path)",
        "keras.config.enable_unsafe_deserialization()",
    ],
)
def test_what_is_unsafe_is_found(source):
    assert unsafe(source)


def test_the_package_reads_files_by_safe_paths_only(fault):
    paths = sorted((ROOT / "pipeline").rglob("*.py"))
    assert len(paths) > 50
    with fault("a file that holds code"):
        where = {path: path.relative_to(ROOT / "pipeline").as_posix() for path in paths}
        found = {name: unsafe(path.read_text(), name) for path, name in where.items()}
        assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_model_of_others_is_said_to_be_a_program(tmp_path, fault, caplog):
    module = tf.Module()
    spec = tf.TensorSpec([None, None], tf.float32, "features")
    module.call = tf.function(lambda features: features[:, 0], input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serving_default": module.call})
    config = tiny_config(tmp_path, "teacher=saved_model", f"teacher.path={tmp_path}/model")
    with fault("a SavedModel as teacher"):
        assert load_teacher(config).model is not None
        assert f"{tmp_path}/model is a program that runs with your rights" in caplog.text


EVIL = {"class_name": "F", "module": "evil", "config": {}, "registered_name": "F"}
WRAPPED = {"class_name": "TimeDistributed", "module": "keras.layers", "config": {"layer": EVIL}}
NAMED = {
    "model": lambda config: config.update(EVIL),  # this module Keras's safe mode would import
    "layer": lambda config: config["config"]["layers"].append(EVIL),
    "layer of a layer": lambda config: config["config"]["layers"].append(WRAPPED),
    "activation": lambda config: config["config"]["layers"][-1]["config"].update(activation=EVIL),
    "layer that reads a file": lambda config: config["config"]["layers"][-1].update(
        class_name="StringLookup"
    ),
    "layer that loads a program": lambda config: config["config"]["layers"][-1].update(
        class_name="TFSMLayer"
    ),
}


@pytest.mark.parametrize("what", NAMED)
def test_code_that_a_keras_file_names_does_not_run(tmp_path, fault, monkeypatch, what):
    mark = tmp_path / "the-mark"
    (tmp_path / "evil.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nF = print\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]).save(path)
    assert SavedModel(path, None, 3).num_parameters == 4
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    NAMED[what](config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | {"config.json": json.dumps(config)}).items():
            archive.writestr(name, content)
    with fault("a Keras file that names code", what):
        with pytest.raises(
            ValueError, match=r"m\.keras holds .*not among the layers that are known to run no"
        ):
            SavedModel(path, None, 3)
        assert not mark.exists()


def test_code_in_a_keras_file_does_not_run(tmp_path, fault):
    layers = keras.layers
    model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x[:, :1])])
    model.save(tmp_path / "new.keras")
    model.save(tmp_path / "old.h5")
    (tmp_path / "old.h5").rename(tmp_path / "old.keras")
    with fault("a Keras file with a lambda"):
        with pytest.raises(ValueError, match=r"new\.keras holds keras\.layers\.Lambda"):
            SavedModel(tmp_path / "new.keras", None, 3)
        with pytest.raises(ValueError, match=r"old\.keras is not in the format of \.keras files"):
            SavedModel(tmp_path / "old.keras", None, 3)

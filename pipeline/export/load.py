"""Exported models back into memory: a function from raw features to scores, whatever the format."""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError

_ROWS = 1 << 12  # documents scored at a time; larger blocks are no faster
ONNX_FIX = "pip install 'rankdistil-pipeline[onnx]'"


class ModelError(UserError):
    """A file or folder that is no exported student."""


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """A student on raw features.

    Attributes:
      num_features: F.
      call: float32 [docs, F] -> float32 [docs], for any number of documents that the memory holds.
    """

    num_features: int
    call: Callable[[np.ndarray], np.ndarray]

    def score(self, features: np.ndarray) -> np.ndarray:
        """float32 [docs, F] -> float32 [docs], in blocks of bounded size."""
        blocks = [
            self.call(np.ascontiguousarray(features[i : i + _ROWS])) for i in range(0, len(features), _ROWS)
        ]
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def load_exported(path: Path, *, threads: int | None = None) -> ExportedModel:
    """The model at `path`.

    Args:
      path: a folder with a SavedModel, a run's folder (its `student`), a folder for TensorFlow Serving (its highest
        version), a `.tflite` or an `.onnx` file.
      threads: for one call; None: the runtime's choice. A SavedModel's threads can be set only before TensorFlow
        has run anything in this process.

    Raises:
      ModelError: nothing there that can be loaded, or not a student's signature.
    """
    if path.is_dir():
        folder = _saved_model_folder(path)
        return _load_saved_model(folder, threads)
    if not path.is_file():
        raise ModelError(
            f"{path} is not there",
            fix="give a run's folder, a SavedModel, a .tflite or an .onnx",
        )
    if path.suffix == ".tflite":
        return _load_tflite(path, threads)
    if path.suffix == ".onnx":
        return _load_onnx(path, threads)
    raise ModelError(
        f"{path} is no model",
        fix="give a run's folder, a SavedModel, a .tflite or an .onnx",
    )


def _saved_model_folder(path: Path) -> Path:
    versions = sorted((int(p.name), p) for p in path.iterdir() if p.name.isdigit() and p.is_dir())
    candidates = [path, path / "student", *(p for _, p in versions[-1:])]
    for folder in candidates:
        if (folder / "saved_model.pb").is_file():
            return folder
    raise ModelError(
        f"{path} holds no SavedModel",
        fix="give a run's folder after its stage export",
    )


def _load_saved_model(folder: Path, threads: int | None) -> ExportedModel:
    import pipeline  # noqa: F401  (before tensorflow: legacy Keras)

    import tensorflow as tf  # isort: skip

    if threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ModelError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    if "rank" not in loaded.signatures:
        raise ModelError(f"{folder} has no signature rank; it has {', '.join(loaded.signatures) or 'none'}")
    rank = loaded.signatures["rank"]
    (spec,) = rank.structured_input_signature[1].values()

    def call(features: np.ndarray) -> np.ndarray:
        return rank(features=tf.constant(features))["scores"].numpy()

    call.model = loaded  # type: ignore[attr-defined]  # its variables live as long as it does
    return ExportedModel(int(spec.shape[-1]), call)


def _load_tflite(path: Path, threads: int | None) -> ExportedModel:
    import tensorflow as tf

    try:
        with (
            warnings.catch_warnings()
        ):  # it is also in a package of its own, which TensorFlow does not depend on
            warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated", UserWarning)
            interpreter = tf.lite.Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()  # here it tells of its delegate, not at the first call
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    num_features = int(inputs["shape"][-1])
    rows = -1

    def call(features: np.ndarray) -> np.ndarray:
        nonlocal rows
        if len(features) != rows:
            rows = len(features)
            interpreter.resize_tensor_input(inputs["index"], [rows, num_features])
            interpreter.allocate_tensors()
        interpreter.set_tensor(inputs["index"], features)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(outputs["index"]))

    return ExportedModel(num_features, call)


def _load_onnx(path: Path, threads: int | None) -> ExportedModel:
    if importlib.util.find_spec("onnxruntime") is None:
        raise ModelError(
            f"{path}: onnxruntime is not installed",
            fix=ONNX_FIX,
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    errors: Any = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented) as error:
        raise ModelError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    (inputs,), (outputs,) = session.get_inputs(), session.get_outputs()

    def call(features: np.ndarray) -> np.ndarray:
        return np.asarray(session.run([outputs.name], {inputs.name: features})[0])

    return ExportedModel(int(inputs.shape[-1]), call)

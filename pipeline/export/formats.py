"""The student as SavedModel, TensorFlow Serving folder, TFLite and ONNX; each read back and held against Keras."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.config import ConfigError, ExportConfig
from pipeline.data import RankingData
from pipeline.errors import UserError
from pipeline.export.load import ONNX_FIX, ExportedModel, ModelError, load_exported
from pipeline.export.raw_scorer import RawScorer
from pipeline.metrics.ndcg import ranked_ndcg
from pipeline.metrics.ranked import rank_lists
from pipeline.models.scorer import scoring_function
from pipeline.store import write_json

log = logging.getLogger(__name__)

ONNX_OPSET = 17
_TOLERANCE = 1e-3  # of a score's difference, in standard deviations of the scores; float32 formats


def check_formats(config: ExportConfig) -> None:
    """Raises ConfigError where a format needs a package that is not there."""
    if "onnx" in config.formats:
        for package in ("tf2onnx", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise ConfigError(
                    f"export.formats=onnx needs {package}",
                    fix=ONNX_FIX,
                )


def export(student: RawScorer, test: RankingData, config: ExportConfig, run_dir: Path) -> dict[str, Any]:
    """Writes each format into the run's folder, and export.json, which says how far each is from Keras.

    Args:
      student: with the standardisation folded in.
      test: the lists that the formats are compared on.
      config: which formats.
      run_dir: gets `student/`, `serving/VERSION/`, `student.tflite`, `student_int8.tflite`, `student.onnx`.

    Returns:
      A dict for each format: `path` relative to the run's folder; `max_difference` of a score to that of the Keras
      model on features that numpy transformed; `ndcg@10_difference` of the means (convention skip; None without
      relevant documents).

    Raises:
      ValueError: a format cannot express the student, or a float32 format gives other scores.
    """
    with tempfile.TemporaryDirectory(dir=run_dir) as folder:  # in bounded memory
        transformed = Path(folder) / "features.npy"
        student.transform.write(test.features, transformed)
        features = np.load(transformed, mmap_mode="r", allow_pickle=False)
        expected = scoring_function(student.scorer)(features, test.offsets)
    expected_ndcg = _mean_ndcg(expected, test)
    # The weights of a folded layer differ by the features' scales, which 8 bits a matrix do not hold.
    unfolded = RawScorer(student.transform, student.scorer, fold=False)
    writers: dict[str, tuple[str, Callable[[Path], None]]] = {
        "saved_model": ("student", student.save),
        "serving": (f"serving/{config.version}", student.save),
        "tflite": ("student.tflite", lambda path: _write_tflite(student, path, int8=False)),
        "tflite_int8": ("student_int8.tflite", lambda path: _write_tflite(unfolded, path, int8=True)),
        "onnx": ("student.onnx", lambda path: _write_onnx(student, path)),
    }
    facts: dict[str, dict[str, Any]] = {}
    for name in config.formats:
        path, write = writers[name]
        target = run_dir / path
        part = target.with_name(f".{target.stem}.part{target.suffix}")
        _remove(part)
        target.parent.mkdir(exist_ok=True)
        write(part)
        try:
            scores = _score(load_exported(part), test, listwise=student.listwise)
        except ModelError as error:
            raise ValueError(f"export.formats={name} cannot hold this student: {error}") from None
        difference = float(np.abs(scores.astype(np.float64) - expected).max())
        allowed = np.inf if name == "tflite_int8" else _TOLERANCE * max(float(expected.std()), 1e-6)
        if not difference <= allowed:
            raise UserError(
                f"export.formats={name} gives other scores than Keras, by up to "
                f"{difference:.3g} ({allowed:.3g} is allowed)",
                fix="leave it out (stage=evaluate: no export), or another data.transform of extreme values",
            )
        _remove(target)
        os.rename(part, target)
        ndcg = _mean_ndcg(scores, test)
        facts[name] = {
            "path": path,
            "max_difference": difference,
            "ndcg@10_difference": None if ndcg is None or expected_ndcg is None else ndcg - expected_ndcg,
        }
        log.info("%s: scores within %.2g of Keras", target, difference)
    sizes = {name: _num_bytes(run_dir / fact["path"]) for name, fact in facts.items()}
    write_json(
        run_dir / "export.json",
        {
            "num_features": test.num_features,
            "docs": test.num_docs,
            "formats": {name: fact | {"bytes": sizes[name]} for name, fact in facts.items()},
        },
    )
    return facts


def _score(model: ExportedModel, data: RankingData, *, listwise: bool) -> np.ndarray:
    if not listwise:
        return model.score(data.features)
    return np.concatenate([model.call(data.features[a:b]) for a, b in itertools.pairwise(data.offsets)])


def _mean_ndcg(scores: np.ndarray, data: RankingData) -> float | None:
    per_list = ranked_ndcg(rank_lists(scores, data.labels, data.offsets))
    return None if np.isnan(per_list).all() else float(np.nanmean(per_list))


def _write_tflite(student: RawScorer, path: Path, *, int8: bool) -> None:
    """float32; with `int8` the weights of large matrices in 8 bits, and products with them too (dynamic range)."""
    function = student.rank.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], student.module)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path.write_bytes(converter.convert())


def _write_onnx(student: RawScorer, path: Path) -> None:
    import tf2onnx

    def log1p(graph: Any, node: Any, name: str, arguments: Any) -> None:  # ONNX has log only
        one = graph.make_const(f"{name}/one", np.array(1, np.float32))
        add = graph.insert_new_node_on_input(node, "Add", [node.input[0], one.output[0]])
        graph.set_dtype(add.output[0], graph.get_dtype(node.output[0]))
        node.type = "Log"

    tf2onnx.convert.from_function(
        student.rank,
        input_signature=student.rank.input_signature,
        opset=ONNX_OPSET,
        custom_op_handlers={"Log1p": (log1p, [])},
        output_path=str(path),
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _num_bytes(path: Path) -> int:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files)

"""Models made elsewhere as teachers: a SavedModel's signature, or a Keras file, on raw features."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.teacher.keras_file import load_keras_file


class SavedModel:
    """Called with one list at a time, without padding: right for pointwise and for listwise models.

    The model takes float features [docs, F] or [lists, list_size, F], the latter with or without a bool mask
    [lists, list_size], and gives one tensor, or one that is called `scores`: a score for each document.

    Args:
      path: SavedModel folder or .keras file.
      signature: None: rank_lists if it has that, else serving_default.
      num_features: F of the data.
      num_parameters: if it is known.

    Raises:
      ValueError: no such signature, or one that takes something else; names what there is. A file that holds a
        layer that might run code, or is not of the format `.keras`.
    """

    def __init__(
        self, path: Path, signature: str | None, num_features: int, *, num_parameters: int | None = None
    ) -> None:
        self.path, self.num_parameters = path, num_parameters
        self._model: Any  # keeps the variables alive
        if path.is_dir():
            self._model = tf.saved_model.load(str(path))
            signatures = self._model.signatures
            name = signature or ("rank_lists" if "rank_lists" in signatures else "serving_default")
            if name not in signatures:
                raise ValueError(
                    f"{path} has no signature {name}; it has {', '.join(signatures) or 'none'}. Fix: teacher.signature"
                )
            self._where = f"{path}, signature {name}"
            self._call: Callable[..., Any] = signatures[name]
            specs = dict(signatures[name].structured_input_signature[1])
        else:
            self._model = load_keras_file(path)
            self._where = str(path)
            if len(self._model.inputs) != 1:
                raise ValueError(f"{path} has {len(self._model.inputs)} inputs. Fix: a model of the features")
            specs = {"features": tf.TensorSpec(self._model.inputs[0].shape, self._model.inputs[0].dtype)}
            call = tf.function(lambda features: self._model(features, training=False))
            self._call = call
            self.num_parameters = int(sum(np.prod(v.shape) for v in self._model.trainable_weights))
        self._features, self._mask = self._inputs(specs, num_features)

    def _inputs(
        self, specs: dict[str, tf.TensorSpec], num_features: int
    ) -> tuple[tuple[str, Any], str | None]:
        floats = [(n, s) for n, s in specs.items() if s.dtype.is_floating and s.shape.rank in (2, 3)]
        masks = [n for n, s in specs.items() if s.dtype == tf.bool and s.shape.rank == 2]
        if (
            len(floats) != 1
            or len(floats) + len(masks) != len(specs)
            or len(masks) > (floats[0][1].shape.rank == 3)
        ):
            found = ", ".join(f"{n} {s.dtype.name} {s.shape}" for n, s in specs.items())
            raise ValueError(
                f"{self._where} takes {found}; it must take float features [docs, F], or [lists, list_size, F] with or "
                "without a bool mask [lists, list_size]. Fix: another teacher.signature"
            )
        width = floats[0][1].shape[-1]
        if width not in (None, num_features):
            raise ValueError(f"{self._where} takes {width} features, the data has {num_features}")
        return floats[0], masks[0] if masks else None

    def __call__(self, features: np.ndarray, offsets: np.ndarray | None = None, /) -> np.ndarray:
        """Raw features float32 [docs, F], offsets int64 [lists + 1] -> float64 [docs]."""
        assert offsets is not None, "it scores lists"
        lists = [self._list(features[a:b]) for a, b in itertools.pairwise(offsets)]
        return np.concatenate(lists) if lists else np.zeros(0)

    def _list(self, features: np.ndarray) -> np.ndarray:
        name, spec = self._features
        tensor = tf.cast(tf.constant(features), spec.dtype)
        inputs = {name: tensor if spec.shape.rank == 2 else tensor[tf.newaxis]}
        if self._mask is not None:
            inputs[self._mask] = tf.ones([1, len(features)], tf.bool)
        out = self._call(**inputs)
        if isinstance(out, dict):
            if len(out) > 1 and "scores" not in out:
                raise ValueError(
                    f"{self._where} gives {', '.join(sorted(out))}; it must give one tensor, or `scores`"
                )
            out = out["scores"] if "scores" in out else next(iter(out.values()))
        scores = np.asarray(out, np.float64)
        if scores.size != len(features):
            raise ValueError(f"{self._where} gives {scores.shape} for a list of {len(features)} documents")
        return scores.reshape(-1)

"""Keras files that run no code. Keras's safe mode keeps out lambdas, but imports the module that a model names."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tf_keras as keras

# Modules whose classes compute from numbers alone, and what may stand in a model besides.
_PURE = ("keras.initializers", "keras.regularizers", "keras.constraints")
_MODELS = {
    "Sequential": ("keras",),
    "Functional": ("keras", "keras.src.engine.functional", "tf_keras.src.engine.functional"),
    "Policy": ("keras.mixed_precision",),
}
_LAYERS = (
    "Activation", "ActivityRegularization", "Add", "AlphaDropout", "Attention", "Average", "BatchNormalization",
    "Concatenate", "Dense", "Dot", "Dropout", "ELU", "Flatten", "GaussianDropout", "GaussianNoise",
    "InputLayer", "LayerNormalization", "LeakyReLU", "Masking", "Maximum", "Minimum", "MultiHeadAttention",
    "Multiply", "Normalization", "PReLU", "Permute", "ReLU", "RepeatVector", "Rescaling", "Reshape", "Softmax",
    "Subtract", "ThresholdedReLU", "TimeDistributed", "UnitNormalization",
)  # fmt: skip


def load_keras_file(path: Path) -> Any:
    """The model of a .keras file, not compiled.

    Raises:
      ValueError: it is of another format, or holds what is not known to run no code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
    ) as error:  # Keras would read HDF5, whose layers may hold code
        raise ValueError(f"{path} is not in the format of .keras files. Fix: save the model again") from error
    config["compile_config"] = None  # is not read
    for part in _parts(config):
        name, module = str(part["class_name"]), str(part.get("module"))
        is_pure = module in _PURE and name[:1].isupper()
        if not is_pure and module not in _MODELS.get(name, ("keras.layers",) if name in _LAYERS else ()):
            raise ValueError(
                f"{path} holds {module}.{name}, which is not among the layers that are known to run no code "
                f"({', '.join(_LAYERS)}). Fix: if you trust it, save the model as a SavedModel"
            )
    return keras.models.load_model(str(path), compile=False, safe_mode=True)


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """All that Keras would make an object of."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _parts(value)

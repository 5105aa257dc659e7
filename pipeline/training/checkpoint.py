"""The state of a training run between two epochs, in one file: bit-exact to go on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.artifacts import atomic


def save_arrays(path: Path, arrays: list[np.ndarray], extra: dict[str, Any]) -> None:
    """Writes arrays in their order, and JSON-like `extra`, atomically to an .npz."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        named = {f"a{number:04d}": array for number, array in enumerate(arrays)}
        np.savez(file, allow_pickle=False, extra=np.array(json.dumps(extra)), **named)


def load_arrays(path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """What `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        names = sorted(name for name in stored.files if name != "extra")
        return [stored[name] for name in names], json.loads(str(stored["extra"]))


def values_of(variables: list[tf.Variable]) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def assign(variables: list[tf.Variable], values: list[np.ndarray]) -> None:
    """Sets the variables.

    Raises:
      ValueError: number or shapes differ.
    """
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise ValueError("the stored values belong to another architecture")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)

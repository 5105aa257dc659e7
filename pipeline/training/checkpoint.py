"""The state of a training run between two epochs, in one file: bit-exact to go on from."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.store import atomic

_DIGEST_BYTES = hashlib.sha256().digest_size


class DamagedError(ValueError):
    """A file of arrays is not what was written."""


def save_arrays(path: Path, arrays: list[np.ndarray], extra: dict[str, Any]) -> None:
    """Writes arrays in their order, and JSON-like `extra`, atomically to an .npz, with its sha256 after its end."""
    named = {f"a{number:04d}": array for number, array in enumerate(arrays)}
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, extra=np.array(json.dumps(extra)), **named)
    content = packed.getvalue()
    with atomic(path) as temporary:
        temporary.write_bytes(content + hashlib.sha256(content).digest())


def load_arrays(path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """What `save_arrays` wrote.

    Raises:
      DamagedError: the file is not whole.
      OSError: it cannot be read.
    """
    raw = path.read_bytes()
    content, digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise DamagedError(f"{path} is damaged: it is not what was written")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
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

"""The only module that imports tensorflow-ranking, and only when asked.

tensorflow-ranking 0.5.x imports `tensorflow.estimator`, which TensorFlow 2.16 removed. Stand-ins satisfy the
import: they can be subclassed and looked up, and raise when called.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

_ESTIMATOR_MODULES = ("tensorflow.estimator", "tensorflow.compat.v1.estimator")


class _StandIn(type):
    """A class that may be subclassed and whose attributes are stand-ins again."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(name, (), {})

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"tf.estimator ({cls.__name__}) is not part of TensorFlow {tf.__version__}")


class _EstimatorModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(name, (), {})


@contextmanager
def _estimator_stand_ins() -> Iterator[None]:
    """Puts the stand-ins where an import looks for them, and takes them away again."""
    missing = [name for name in _ESTIMATOR_MODULES if name not in sys.modules]
    for name in missing:
        sys.modules[name] = _EstimatorModule(name)
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


@functools.cache
def load_tfr() -> Any:
    """The module `tensorflow_ranking`.

    Raises:
      RuntimeError: TensorFlow came up with Keras 3, under which tensorflow-ranking's losses come back unreduced
        without an error.
    """
    keras_version = getattr(tf.keras, "__version__", "2")  # tf_keras does not set it
    if not keras_version.startswith("2"):
        raise RuntimeError(
            f"tensorflow-ranking needs legacy Keras 2, but tf.keras is Keras {keras_version}. "
            "Fix: import pipeline before tensorflow, or set TF_USE_LEGACY_KERAS=1 in the environment"
        )
    with _estimator_stand_ins():
        return importlib.import_module("tensorflow_ranking")

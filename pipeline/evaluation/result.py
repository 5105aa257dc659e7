"""`run` of result.json: which code, which versions and which device made the result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pipeline.provenance import commit

_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-ranking", "lightgbm", "numpy", "hydra-core")


def provenance() -> dict[str, Any]:
    """The commit, the versions, the device and the clock of a result."""
    code = commit()
    return {
        "commit": code["commit"] and code["commit"] + "-dirty" * code["dirty"],
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": device(),
        "clock": scoring_clock()[0],
    }


def scoring_clock() -> tuple[str, Callable[[], float]]:
    """Name and clock of us_per_doc: `CPU` time of all threads, or `elapsed` time where a GPU computes."""
    if tf.config.list_physical_devices("GPU"):
        return "elapsed", time.perf_counter
    return "CPU", time.process_time


def device() -> str:
    """The device that TensorFlow computes on."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return ", ".join(
            tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus
        )
    return f"CPU {platform.machine()}, {os.cpu_count()} cores"

"""`run` of result.json: which code, which versions and which device made the result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-ranking", "lightgbm", "numpy", "hydra-core")


def provenance() -> dict[str, Any]:
    """The commit, the versions, the device and the clock of a result."""
    return {
        "commit": _commit(),
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


def _commit() -> str | None:
    """The commit of this checkout; for an installed package RANKDISTIL_COMMIT, which the Docker image sets, or None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return os.environ.get("RANKDISTIL_COMMIT")
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None

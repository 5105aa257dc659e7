"""Parts of result.json."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.data import RankingData
from pipeline.metrics import Ties, ranking_metrics

_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-ranking", "lightgbm", "numpy", "hydra-core")


def metrics_of_splits(
    scores: Mapping[str, np.ndarray], data: Mapping[str, RankingData], *, ties: Ties
) -> dict[str, dict[str, np.ndarray]]:
    """Every metric of every query, float64 [queries], for the scores [docs] of each split."""
    # One scale for ERR whatever split is looked at; five grades are the least.
    max_grade = max(4.0, *(float(lists.labels.max()) for lists in data.values()))
    return {
        split: ranking_metrics(
            values, data[split].labels, data[split].offsets, max_grade=max_grade, ties=ties
        )
        for split, values in scores.items()
    }


def provenance() -> dict[str, Any]:
    """The commit, the versions and the device that a result comes from."""
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": device(),
        "clock": scoring_clock()[0],
    }


def scoring_clock() -> tuple[str, Callable[[], float]]:
    """Name and clock of us_per_doc: `CPU`, the time of all threads; `elapsed` where a GPU does the work."""
    if tf.config.list_physical_devices("GPU"):
        return "elapsed", time.perf_counter
    return "CPU", time.process_time


def device() -> str:
    """What TensorFlow computes on."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return ", ".join(
            tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus
        )
    return f"CPU {platform.machine()}, {os.cpu_count()} cores"


def _commit() -> str | None:
    """The commit of the checkout that this package runs from; an installed one's is what its image says, or None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return os.environ.get("RANKDISTIL_COMMIT")
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None

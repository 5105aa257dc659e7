"""Environment variables that the commands set for TensorFlow, LightGBM and XLA before they import them."""

from __future__ import annotations

import importlib.metadata
import os

_VECTOR_WIDTH = "xla_cpu_prefer_vector_width"
_KNOW_VECTOR_WIDTH = (
    "2.20",
    "2.21",
)  # versions of TensorFlow; XLA aborts the process at a flag that it does not know


def set_environment() -> None:
    """Sets what the user has not set. Call it before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # By default TensorFlow reserves all GPU memory at start-up, and the next job of a sweep finds none.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # By default LightGBM's threads wait in busy loops, which takes several times as long beside another process.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # By default XLA uses half of an AVX-512 register, which makes the losses at least 10 % slower.
    flags = os.environ.get("XLA_FLAGS", "").strip()
    names_a_file = flags != "" and not flags.startswith("-")
    version = importlib.metadata.version("tensorflow").rpartition(".")[0]
    if version in _KNOW_VECTOR_WIDTH and _VECTOR_WIDTH not in flags and not names_a_file:
        os.environ["XLA_FLAGS"] = f"{flags} --{_VECTOR_WIDTH}=512".strip()

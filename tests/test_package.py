"""What importing the package does to the process's environment, and what the commands set."""

import os
import subprocess
import sys

import pytest

from pipeline import environment


@pytest.mark.parametrize("module", ["pipeline", "pipeline.config", "pipeline.cli", "pipeline.rank"])
def test_an_import_changes_one_variable_only(module):
    ours = ("TF_", "OMP_", "XLA_")
    given = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    code = f"import os; before = set(os.environ.items()); import {module}; "
    code += "print(sorted(before ^ set(os.environ.items())))"
    done = subprocess.run([sys.executable, "-c", code], env=given, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[('TF_USE_LEGACY_KERAS', '1')]"


@pytest.mark.parametrize(
    ("version", "preset", "expected"),
    [
        ("2.21.0", None, "--xla_cpu_prefer_vector_width=512"),
        ("2.21.0", "--xla_dump_to=x", "--xla_dump_to=x --xla_cpu_prefer_vector_width=512"),
        ("2.21.0", "--xla_cpu_prefer_vector_width=256", "--xla_cpu_prefer_vector_width=256"),
        ("2.21.0", "flags.txt", "flags.txt"),  # XLA reads the flags from this file
        ("2.22.0", "--xla_dump_to=x", "--xla_dump_to=x"),  # may not know the flag
    ],
)
def test_xla_flags_of_the_user_stay(version, preset, expected, monkeypatch):
    monkeypatch.setattr(environment.importlib.metadata, "version", lambda name: version)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if preset is not None:
        monkeypatch.setenv("XLA_FLAGS", preset)
    for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    environment.set_environment()
    assert os.environ["XLA_FLAGS"] == expected
    assert (os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["TF_FORCE_GPU_ALLOW_GROWTH"]) == ("2", "true")
    assert os.environ["OMP_WAIT_POLICY"] == "active"

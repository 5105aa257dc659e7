"""What importing the package does to the process's environment."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (None, "--xla_cpu_prefer_vector_width=512"),
        ("--xla_dump_to=x", "--xla_dump_to=x --xla_cpu_prefer_vector_width=512"),
        ("--xla_cpu_prefer_vector_width=256", "--xla_cpu_prefer_vector_width=256"),
        ("flags.txt", "flags.txt"),  # XLA reads them from there
    ],
)
def test_xla_flags_of_the_user_stay(preset: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {} if preset is None else {"XLA_FLAGS": preset}
    command = [sys.executable, "-c", "import os, pipeline; print(os.environ['XLA_FLAGS'])"]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert output.strip() == expected

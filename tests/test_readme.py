"""The README tells the truth: its commands run, on tiny data, and what it names is there."""

import re
import shlex

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
LINES = [
    line.split(" #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
RUNS = [line for line in LINES if line.startswith("scripts/run.sh")]
# Placeholders for what the user has.
USER_FILES = {"data.train": "train.txt", "data.vali": "vali.txt", "data.test": "test.txt"}


def as_run(line, folder):
    """The overrides of a `scripts/run.sh` line, with the user's files in place."""
    overrides = []
    for word in shlex.split(line)[1:]:
        key, _, value = word.partition("=")
        if key in USER_FILES:
            value = str(folder / USER_FILES[key])
        elif key.startswith("teacher.") and value.endswith(".run"):
            value = str(folder / value)
        overrides.append(f"{key}={value}" if "=" in word else word)
    return overrides

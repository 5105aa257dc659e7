"""Whether a folder holds this run, and its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from pipeline import status
from pipeline.config import Config, ConfigError, flat
from pipeline.locks import FolderInUseError

_PLACES = ("run_dir", "cache_dir")  # they do not change what a run computes
_WITHOUT_OUTPUT = {"config.yaml", "log", ".lock", status.FILE}  # files of a run that has not written results


def _differences(there: dict[str, Any], config: Config, ignored: tuple[str, ...]) -> list[str]:
    before, now = flat(there), flat(json.loads(json.dumps(config.plain())))
    return [
        f"{key}={before.get(key, '-')} there, {now.get(key, '-')} now"
        for key in {**before, **now}
        if key not in ignored and before.get(key, "-") != now.get(key, "-")
    ]


def compare(folder: Path, config: Config) -> str:
    """What is in the folder of a run: "empty", "same", or the first differences between its options and `config`.

    A folder counts as empty where a run failed before it had written any result. `stage` may differ.

    Raises:
      ConfigError: its config.yaml is damaged.
    """
    path = folder / "config.yaml"
    if not path.exists():
        return "empty"
    before = status.read_status(folder)
    failed = before is not None and before.state == status.FAILURE
    if failed and {file.name for file in folder.iterdir()} <= _WITHOUT_OUTPUT:
        return "empty"
    try:
        there = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        there = None
    if not isinstance(there, dict):
        raise ConfigError("damaged", where=str(path), fix="another run_dir, or remove the file")
    other = _differences(there, config, ("stage",))
    more = f" and {len(other) - 3} more" * (len(other) > 3)
    return "; ".join(other[:3]) + more if other else "same"


def make_folder(folder: Path) -> None:
    """Makes the folder of a run or of a sweep.

    Raises:
      ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = "a folder that this user can make and write to"
        raise ConfigError(str(error.strerror), where=f"run_dir={folder}", fix=fix) from error


def check_folder(config: Config) -> None:
    """Raises FolderInUseError where run_dir holds another run."""
    found = compare(config.run_dir, config)
    if found not in ("empty", "same"):
        raise FolderInUseError(
            f"run_dir={config.run_dir} holds another run ({found}). Fix: another run_dir, or remove it; what its "
            "stages made is in cache_dir and is used again"
        )


def complete_result(folder: Path, config: Config) -> dict[str, Any] | None:
    """result.json of this folder, where it is complete and has the options of `config`; None otherwise."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        there = result["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    same = isinstance(there, dict) and not _differences(there, config, _PLACES)
    return result if same else None

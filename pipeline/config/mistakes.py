"""What a command line that Hydra cannot compose most likely meant."""

from __future__ import annotations

import difflib
import importlib.resources
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import yaml
from hydra.errors import HydraException

from pipeline.config.checks import nearest

if TYPE_CHECKING:
    from importlib.abc import Traversable

_GLOBAL = "# @package _global_"  # the head of a file that sets options of other groups
_NO_GROUP = ("reproduce", "__pycache__")
_EXTRAS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "submitit",
    "hydra/launcher/submitit_slurm": "submitit",
    "hydra/launcher/ray": "ray",
    "hydra/sweeper/optuna": "optuna",
}


def explain(error: HydraException, overrides: Sequence[str]) -> str:
    """One or two lines for a person: what is wrong with these overrides, and what is nearest to it."""
    text = str(error)
    if found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        return _unknown_key(found[1], overrides)
    if found := re.search(r"Could not find '([^']+)/([^/']+)'", text):
        group, choice = found[1], found[2]
        if extra := _EXTRAS.get(f"{group}/{choice}"):
            return f"{group}={choice} needs a package; mend: pip install 'rankdistil-pipeline[{extra}]'"
        available = re.findall(r"^\t(?!provider=)(\S+)$", text, re.MULTILINE)
        return f"{group}={choice} is unknown: {nearest(choice, available)}"
    lines = [line for line in text.splitlines() if line and not line.startswith("See https://")]
    return "\n".join(lines[:2])


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    if key.startswith("hydra"):
        return f"{key} is unknown: Hydra has no such option; rankdistil --cfg hydra prints them"
    known = _known(_chosen(overrides))
    if choices := known.get(key):
        return f"{key} is an option of {' or '.join(choices)} only; choose that, for example {choices[0]} {key}=..."
    of_chosen = [name for name, choices in known.items() if not choices]
    close = difflib.get_close_matches(key, of_chosen, n=3, cutoff=0.8)
    if close := close or difflib.get_close_matches(key, known, n=3, cutoff=0.7):
        meant = (f"{name} (of {known[name][0]})" if known[name] else name for name in close)
        return f"{key} is unknown: did you mean {', '.join(meant)}?"
    group = key.rpartition(".")[0]
    below = sorted(
        name for name, choices in known.items() if name.rpartition(".")[0] == group and not choices
    )
    return f"{key} is unknown; available: {', '.join(below or sorted(n for n in known if '.' not in n))}"


def groups_and_choices() -> str:
    """A line a group for --help."""
    root = importlib.resources.files("pipeline.conf")
    folders = [folder for folder in root.iterdir() if folder.is_dir() and folder.name not in _NO_GROUP]
    lines = []
    for folder in sorted(folders, key=lambda folder: folder.name):
        names = sorted(
            file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
        )
        if names != ["default"]:
            lines.append(f"  {folder.name}: {', '.join(names)}")
    return "\n".join(lines)


def _chosen(overrides: Sequence[str]) -> set[str]:
    """The choice of each group, `data=letor`: the default one or what was given instead."""
    text = importlib.resources.files("pipeline.conf").joinpath("config.yaml").read_text()
    chosen = {
        k: v for entry in yaml.safe_load(text)["defaults"] if entry != "_self_" for k, v in entry.items()
    }
    given = (override.partition("=") for override in overrides)
    chosen |= {key: value for key, _, value in given if key in chosen}
    return {f"{group}={choice}" for group, choice in chosen.items()}


def _known(chosen: set[str]) -> dict[str, list[str]]:
    """Every option and group in conf/, with the choices that have it where the chosen one has not."""
    root = importlib.resources.files("pipeline.conf")
    known: dict[str, list[str]] = {}
    for entry in sorted(root.iterdir(), key=lambda entry: entry.name):
        if entry.name == "config.yaml":
            keys = yaml.safe_load(entry.read_text())
            known |= {key: [] for key in keys if key not in ("defaults", "hydra")}
        elif entry.is_dir() and entry.name not in _NO_GROUP:
            known |= {entry.name: []} | _of_group(entry, chosen)
    return known


def _of_group(folder: Traversable, chosen: set[str]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    for file in sorted(files, key=lambda file: file.name):
        text = file.read_text()
        if text.startswith(_GLOBAL):
            continue
        for key in _flat(yaml.safe_load(text) or {}, folder.name):
            options.setdefault(key, []).append(f"{folder.name}={file.name.removesuffix('.yaml')}")
    return {key: [] if chosen & set(choices) else choices for key, choices in options.items()}


def _flat(values: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        if key == "defaults":
            continue
        yield f"{prefix}.{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}.{key}")

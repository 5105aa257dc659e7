"""Overrides of the command line: their errors, with the option that was most likely meant."""

from __future__ import annotations

import difflib
import importlib.resources
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.errors import HydraException

from pipeline.config.checks import nearest
from pipeline.config.defaults import shipped

if TYPE_CHECKING:
    from importlib.abc import Traversable

_GLOBAL = "# @package _global_"  # the head of a file that sets options of other groups
RECIPES = ("data_recipe", "teacher_recipe")  # groups that `data` and `teacher` choose
_NO_GROUP = ("reproduce", "parts", *RECIPES, "__pycache__")
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
            return f"{group}={choice} needs a package. Fix: pip install 'rankdistil-pipeline[{extra}]'"
        available = re.findall(r"^\t(?!provider=)(\S+)$", text, re.MULTILINE)
        return f"{group}={choice} is unknown: {nearest(choice, available)}"
    lines = [line for line in text.splitlines() if line and not line.startswith("See https://")]
    if text.startswith("Error merging override") and error.__cause__ is not None:
        lines[1:] = str(error.__cause__).splitlines()
    return "\n".join(lines[:2])


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    if key.startswith("hydra"):
        return f"{key} is unknown: Hydra has no such option; rankdistil --cfg hydra prints them"
    known = _known(_chosen(overrides))
    if choices := known.get(key):
        example = f"{choices[0]} {key}=..."
        return f"{key} is an option of {' or '.join(choices)} only. Fix: choose that, for example {example}"
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


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def quoted(key: str, value: object) -> str:
    """An override whose value is this text, whatever characters it has."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def searchpath(folder: str | Path) -> str:
    """The override that lets Hydra find files of options in this folder, too."""
    return f"hydra.searchpath=[{quoted('', f'file://{Path(folder).absolute()}')[1:]}]"


def groups_and_choices() -> str:
    """One line for each group, for --help."""
    lines = []
    for folder in _groups():
        names = choices_of(folder.name)
        if names != ["default"]:
            lines.append(f"  {folder.name}: {', '.join(names)}")
    return "\n".join(lines)


def choices_of(group: str) -> list[str]:
    folder = importlib.resources.files("pipeline.conf").joinpath(group)
    return [file.name.removesuffix(".yaml") for file in _files(folder)]


def _groups() -> list[Traversable]:
    root = importlib.resources.files("pipeline.conf")
    folders = [folder for folder in root.iterdir() if folder.is_dir() and folder.name not in _NO_GROUP]
    return sorted(folders, key=lambda folder: folder.name)


def _files(folder: Traversable) -> list[Traversable]:
    return sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda file: file.name)


def _primary() -> dict[str, Any]:
    return yaml.safe_load(importlib.resources.files("pipeline.conf").joinpath("config.yaml").read_text())


def _chosen(overrides: Sequence[str]) -> set[str]:
    """The choice of each group, such as `data=letor`: the default, or what was given in its place."""
    entries = (entry for entry in _primary()["defaults"] if isinstance(entry, dict))
    chosen = {group: choice for entry in entries for group, choice in entry.items()}
    given = (override.partition("=") for override in overrides)
    chosen |= {key: value for key, _, value in given if key in chosen}
    return {f"{group}={choice}" for group, choice in chosen.items()}


def _known(chosen: set[str]) -> dict[str, list[str]]:
    """Every option and group in conf/ -> the choices that have it, empty where a chosen one has it."""
    known: dict[str, list[str]] = {key: [] for key in _primary() if key not in ("defaults", "hydra")}
    for folder in _groups():
        known[folder.name] = []
        choices_of: dict[str, list[str]] = {}
        for file in _files(folder):
            if not file.read_text().startswith(_GLOBAL):
                name = file.name.removesuffix(".yaml")
                for key in _flat(shipped(f"{folder.name}/{name}"), folder.name):
                    choices_of.setdefault(key, []).append(f"{folder.name}={name}")
        known |= {key: [] if chosen & set(names) else names for key, names in choices_of.items()}
    return known


def _flat(values: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}.{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}.{key}")

"""A comparison as data (conf/reproduce/NAME.yaml): what to run, on which files, and the expected results."""

from __future__ import annotations

import dataclasses
import importlib.resources
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import nearest
from pipeline.config.overrides import quoted
from pipeline.errors import UserError

_COMPRESSED = ("", ".gz", ".bz2", ".xz")


@dataclasses.dataclass(frozen=True)
class DataNeeds:
    """The files that the user brings."""

    name: str
    get: str  # where they come from, and on which terms; empty where the program makes them
    files: dict[str, str]  # name -> path below --data, also with .gz, .bz2, .xz; empty where data.dir={data}
    overrides: list[str]  # {data}, {fold} and the names of the files are filled in

    @property
    def brought(self) -> bool:
        """Whether the user must give --data."""
        return bool(self.get)

    @property
    def how_to_get(self) -> str:
        layout = "its archive or the unpacked files"
        if self.files:
            paths = [f"\n  DIR/{path}" for path in self.files.values()]
            layout = "these files (or .gz, .bz2, .xz of them):" + "".join(paths)
        return f"get {self.name} from {self.get} and give --data DIR, where DIR holds {layout}"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: the test metric of one model of one run, or its difference to another's."""

    run: str
    model: str  # teacher, student, baseline
    minus: str | None = None


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number that the comparison should give, or that somebody published."""

    row: str
    metric: str  # such as ndcg@10
    convention: str  # for a query without a relevant document: zero, skip or one; published: also "not known"
    value: float  # mean over the axis, in [0, 1]
    source: str
    tolerance: float | None = None  # OK within it, CLOSE within twice of it; null: only shown
    sd: float | None = None  # over the axis


@dataclasses.dataclass(frozen=True)
class Recorded:
    """The full run that the expected values of this project come from."""

    date: str
    commit: str
    hardware: str
    seconds: float  # wall time, all jobs together


@dataclasses.dataclass(frozen=True)
class Claim:
    name: str
    title: str
    paper: str
    data: DataNeeds
    axis: dict[str, list[int]]  # fold, seed or both, with their values: one job for each run and combination
    overrides: list[str]  # of every job
    runs: dict[str, list[str]]  # name -> further overrides
    rows: dict[str, Row]
    metrics: list[str]  # shown for every row, with `convention`, whether expected or not
    convention: str
    tiny: list[str]  # overrides that shorten each job to seconds
    expected: list[Figure]
    published: list[Figure]
    recorded: Recorded | None  # null: not run
    reference: str | None = None  # the row that every other one is tested against, query by query
    target: float | None = None  # validation NDCG@10 (skip) whose time to reach the study shows
    tiny_runs: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # run -> more of `tiny`

    @property
    def state(self) -> str:
        if self.recorded is None:
            return "not run"
        return f"run {self.recorded.date}, {self.recorded.hardware}, {self.recorded.seconds / 60:.0f} minutes"

    @property
    def command(self) -> str:
        return f"scripts/reproduce.sh {self.name}" + (" --data DIR" if self.data.brought else "")

    @property
    def axes(self) -> list[dict[str, int]]:
        """Every combination, in the order of the jobs of a run."""
        return [
            dict(zip(self.axis, values, strict=True)) for values in itertools.product(*self.axis.values())
        ]

    @property
    def extent(self) -> str:
        """Such as `5 folds x 3 seeds`."""
        return " x ".join(f"{len(values)} {name}s" for name, values in self.axis.items())

    @property
    def groups(self) -> list[list[int]]:
        """The jobs of a run, as indices into `axes`, by value of the last axis: a group's mean is one value."""
        last = list(self.axis)[-1]
        of_job = [axis[last] for axis in self.axes]
        return [[i for i, value in enumerate(of_job) if value == wanted] for wanted in self.axis[last]]


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of the rankdistil command."""

    run: str
    axis: str  # such as fold-1, or fold-1_seed-0
    folder: Path
    overrides: list[str]

    @property
    def log(self) -> Path:
        return self.folder / "log"


def names() -> list[str]:
    """The comparisons that ship with the package."""
    folder = importlib.resources.files("pipeline.conf") / "reproduce"
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))


def load(name: str) -> Claim:
    """The comparison `name`.

    Raises:
      UserError: there is no such comparison; names the nearest.
    """
    if name not in names():
        raise UserError(f"{name} is unknown: {nearest(name, names())}")
    path = importlib.resources.files("pipeline.conf") / "reproduce" / f"{name}.yaml"
    return parse(name, yaml.safe_load(path.read_text()))


def parse(name: str, values: dict[str, Any]) -> Claim:
    """The comparison with these contents of its YAML file; changes `values`."""
    recorded = values.pop("recorded")
    return Claim(
        name=name,
        data=DataNeeds(**values.pop("data")),
        rows={row: Row(**options) for row, options in values.pop("rows").items()},
        expected=[Figure(**figure) for figure in values.pop("expected")],
        published=[Figure(**figure) for figure in values.pop("published")],
        recorded=Recorded(**recorded) if recorded else None,
        **values,
    )


def _files(needs: DataNeeds, folder: Path, axis: Mapping[str, int]) -> dict[str, Path]:
    found, missing = {}, []
    for key, pattern in needs.files.items():
        path = folder / _fill(pattern, axis)
        there = [other for end in _COMPRESSED if (other := path.with_name(path.name + end)).is_file()]
        if there:
            found[key] = there[0]
        else:
            missing.append(str(path))
    if missing:
        others = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise UserError(f"no such file{others}", where=missing[0], fix=needs.how_to_get)
    return found


def _fill(text: str, values: Mapping[str, object]) -> str:
    for key, value in values.items():
        text = text.replace("{" + key + "}", str(value))
    return text


def _overrides(templates: list[str], axis: Mapping[str, int], paths: Mapping[str, Path]) -> list[str]:
    filled = []
    for template in templates:
        key, _, value = template.partition("=")
        is_path = value.strip("{}") in paths
        filled.append(quoted(key, _fill(value, paths)) if is_path else _fill(template, axis))
    return filled


def _not_replaced(overrides: list[str], claim: Claim, own: list[str]) -> list[str]:
    """The overrides without the choices that a run replaces (`teacher=b` after `teacher=a`) and their options."""

    def choices(of: list[str]) -> set[str]:
        return {key for override in of if "." not in (key := override.partition("=")[0])}

    replaced = choices(claim.overrides) & choices(own)
    return [override for override in overrides if override.partition("=")[0].split(".")[0] not in replaced]


def make_jobs(claim: Claim, *, data: Path, out: Path, tiny: bool = False, further: list[str]) -> list[Job]:
    """All jobs of a comparison, run after run.

    Args:
      claim: the comparison.
      data: folder of the user's files.
      out: jobs write to out/NAME/RUN/AXIS and share out/cache.
      tiny: jobs of seconds.
      further: the user's overrides.

    Raises:
      UserError: a file is missing; the message says where to get the data and how to lay it out.
    """
    found = [_files(claim.data, data, axis) for axis in claim.axes]
    jobs = []
    for run, own in claim.runs.items():
        for axis, files in zip(claim.axes, found, strict=True):
            label = "_".join(f"{name}-{value}" for name, value in axis.items())
            folder = out / claim.name / run / label
            templates = [
                *claim.data.overrides,
                *_not_replaced(claim.overrides, claim, own),
                *own,
                *(_not_replaced(claim.tiny, claim, own) if tiny else []),
                *(claim.tiny_runs.get(run, []) if tiny else []),
            ]
            overrides = [
                *_overrides(templates, axis, {"data": data, **files}),
                *further,
                quoted("cache_dir", out / "cache"),
            ]
            jobs.append(Job(run=run, axis=label, folder=folder, overrides=overrides))
    return jobs

"""Sweeps: Hydra expands a command into jobs, and each job runs in a process of its own.

A launcher starts `sweep_job`: here, on other cores, or on other machines. It does not import TensorFlow, but starts
the command that runs the job, unless the job's result is there. So GPU memory is free after each job.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pipeline.config import ConfigError, from_composed
from pipeline.config.compose import compose_hydra
from pipeline.config.errors import user_message
from pipeline.config.hydra_policy import NEUTRAL, check_hydra, forbid_resolvers
from pipeline.config.overrides import explain, key_of, quoted
from pipeline.errors import DONE, FAILED, REFUSED_BY_GATE, USER_ERROR
from pipeline.jobs import run_job
from pipeline.run_folder import complete_result
from pipeline.status import ENDED, FAILURE, FILE, Status, read_status, write_status

OBJECTIVE = "ndcg@10"  # of the student on the validation split, lists without relevant documents skipped
COMMAND = (
    "RANKDISTIL_COMMAND"  # environment of a sweep and its jobs: the command of the sweep, for result.json
)
_LONGEST = 180  # characters of a folder's name; file systems allow 255


def folder_name(overrides: Sequence[str], *, leave_out: Sequence[str] = ()) -> str:
    """A folder's name that shows the overrides; equal overrides give equal names. It has no brackets, as run_dir.

    >>> folder_name(["loss.topk=5", "run_dir=somewhere", "seed=1"])
    'loss.topk=5,seed=1'
    """
    left_out = {"run_dir", "launcher", *leave_out}
    kept = [o for o in overrides if key_of(o) not in left_out and not key_of(o).startswith("hydra")]
    exact = ",".join(kept) or "job"
    name = re.sub(r"[^\w.,=+\-@]", "_", exact).lstrip(".")[:_LONGEST]
    return name if name == exact else f"{name}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


def _job_folder(overrides: Sequence[str], leave_out: Sequence[str]) -> str:
    return folder_name(list(overrides), leave_out=["sweep", *leave_out])


OmegaConf.register_new_resolver("job_folder", _job_folder, replace=True)  # of hydra.sweep.subdir


def sweep_folder(overrides: Sequence[str]) -> Path:
    """The folder of a sweep's jobs: `run_dir`, or a folder that the same command finds again.

    Raises:
      ConfigError: run_dir differs at each start.
    """
    folder = f"sweeps/{folder_name(overrides, leave_out=['cache_dir'])}"
    for override in _parsed(overrides):
        if override.key_or_group == "run_dir":
            folder = str(override.value())
            if "${" in folder or override.is_sweep_override():
                where = str(override.input_line)
                raise ConfigError(
                    "a sweep continues in its folder", where=where, fix="run_dir=FOLDER, a plain path"
                )
    return Path(folder).absolute()


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(explain(error, overrides)) from error


def _values(override: Override) -> Iterator[str]:
    """The values of a sweep override; none of one that only a search knows, such as an interval."""
    return override.sweep_string_iterator() if override.is_discrete_sweep() else iter(())


def plan(overrides: Sequence[str], config_name: str = "config", config_dir: str | None = None) -> int | None:
    """Composes and checks a sweep before its first job.

    Returns:
      The number of jobs; None where only Hydra's sweeper knows it.

    Raises:
      ConfigError: it cannot be composed, or a file of options asks for something that is not allowed.
    """
    parsed = _parsed(overrides)
    same = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    settings = compose_hydra(same, config_name, config_dir).hydra
    check_hydra(settings, overrides)
    params = [f"{key}={values}" for key, values in (settings.sweeper.get("params") or {}).items()]
    swept = {o.key_or_group: o for o in [*_parsed(params), *parsed] if o.is_sweep_override()}
    given = {o.key_or_group for o in parsed}
    swept = {key: o for key, o in swept.items() if o in parsed or key not in given}
    for key, override in swept.items():
        values = list(_values(override))
        for value in (
            values[:1] if "." in key else values
        ):  # each choice of a group is a file with its own options
            composed = compose_hydra(
                [*same, f"{override.get_key_element()}={value}"], config_name, config_dir
            )
            check_hydra(composed.hydra, overrides)
    if "n_trials" in settings.sweeper:  # a search
        return int(settings.sweeper.n_trials)
    if not str(settings.sweeper["_target_"]).endswith("BasicSweeper"):
        return None
    return math.prod(len(list(_values(override))) for override in swept.values())


def own_overrides(overrides: Sequence[str]) -> list[str]:
    """What Hydra gets beside the user's overrides: the folder of the sweep, and the options that all jobs share, which
    the names of the jobs' folders leave out."""
    shared = [o for o in _parsed(overrides) if not o.is_sweep_override() and not o.is_hydra_override()]
    names = ",".join(f"'{override.key_or_group}'" for override in shared)
    folder = quoted("run_dir", sweep_folder(overrides))
    return [folder, f"hydra.job.config.override_dirname.exclude_keys=[{names}]", *NEUTRAL]


def sweep_job(composed: DictConfig) -> float | None:
    """One job of a sweep, which Hydra calls. It reports how the job ended in status.json of the job's folder.

    Returns:
      The objective; None where the job ends before the evaluation, or fails. A failure raises nothing: Hydra would
      print it, too.
    """
    forbid_resolvers()
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    try:
        check_hydra(settings, settings.overrides.hydra)  # type: ignore[arg-type]  # a DictConfig
        OmegaConf.set_struct(composed, False)
        composed.run_dir = str(folder)
        config = from_composed(composed)
        result = complete_result(folder, config)
        if result is not None:
            _report_complete(folder, result)
        else:
            status = run_job(
                _overrides(settings), folder, flags=_flags(settings), cwd=Path(settings.runtime.cwd)
            )
            result = complete_result(folder, config)
            if status.state == ENDED and result is None and "evaluate" in config.stages():
                write_status(folder, Status(FAILURE, error="wrote no complete result.json", exit_code=FAILED))
    except Exception as error:
        message, name = user_message(error), type(error).__name__
        code = FAILED if message is None else USER_ERROR
        write_status(folder, Status(FAILURE, error_type=name, error=message or str(error), exit_code=code))
        (folder / "log").write_text(message or "".join(traceback.format_exception(error)))
        return None
    return objective(result)


def _report_complete(folder: Path, result: dict[str, Any]) -> None:
    if read_status(folder) is None or read_status(folder).state != ENDED:  # type: ignore[union-attr]
        refused = result.get("gate") and not result["gate"]["passed"]
        write_status(folder, Status(ENDED, exit_code=REFUSED_BY_GATE if refused else DONE))
    os.utime(folder / FILE)  # the sweep sees by the time that it is one of its jobs


def objective(result: dict[str, Any] | None) -> float | None:
    """What a search maximises."""
    if result is None:
        return None
    value = result["models"]["student"]["metrics"]["vali"][OBJECTIVE]["skip"]
    return None if value is None else float(value)


def _overrides(settings: HydraConf) -> list[str]:
    kept = [o for o in settings.overrides.hydra if key_of(o) in ("hydra.searchpath", "hydra.verbose")]
    return kept + [o for o in settings.overrides.task if key_of(o) not in ("run_dir", "launcher")]


def _flags(settings: HydraConf) -> list[str]:
    return ["--config-name", str(settings.job.config_name)]

"""Sweeps: each job in a process of its own, whole jobs left alone.

Hydra expands the command into jobs and a launcher starts them: here, on other cores, or on other machines. What the
launcher runs is `run_job`: light, without TensorFlow, it starts the same command that runs one job by hand. So
memory of a GPU is free after each job, and launchers need not know anything of this package.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from pipeline.config import Config, ConfigError

GATE = 3  # exit code of a run whose student does not pass evaluate.gate
OBJECTIVE = (
    "ndcg@10"  # of the student on the validation split, blank queries skipped: what a search maximises
)
COMMAND = (
    "RANKDISTIL_COMMAND"  # environment of a sweep and of its jobs: how the sweep was started, for result.json
)
TO_FILE = "hydra.job_logging.root.handlers=[file]"  # no log on the terminal: the sweep tells of its jobs
PARENT = "RANKDISTIL_PARENT"  # environment of a job's process: the process that waits for it
_FOLDERS = ("run_dir", "cache_dir")
FAILED = "failed"  # a file in the folder of a failed job that says why
LINES = "sweep.log"  # in the folder of the sweep: a line for each job that ended, wherever it ran
LEFT_ALONE = "whole already, left alone"
_LONGEST = 180  # characters of a folder's name; file systems take 255


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def folder_name(overrides: Sequence[str], *, leave_out: Sequence[str] = ()) -> str:
    """A folder's name that says what was overridden; equal overrides give equal names. No brackets: run_dir has none.

    >>> folder_name(["loss.topk=5", "run_dir=somewhere", "seed=1"])
    'loss.topk=5,seed=1'
    """
    left_out = {"run_dir", "launcher", *leave_out}
    kept = [o for o in overrides if key_of(o) not in left_out and not key_of(o).startswith("hydra")]
    exact = ",".join(kept) or "job"
    name = re.sub(r"[^\w.,=+\-@]", "_", exact).lstrip(".")[:_LONGEST]
    return name if name == exact else f"{name}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


# hydra.sweep.subdir
OmegaConf.register_new_resolver(
    "job_folder",
    lambda overrides, leave_out: folder_name(list(overrides), leave_out=["sweep", *leave_out]),
    replace=True,
)


def folder_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides that set the folders of a sweep: one that the same command finds again, and in it a folder for each
    job, named by what differs between jobs."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    same = ",".join(
        f"'{o.key_or_group}'" for o in parsed if not o.is_sweep_override() and not o.is_hydra_override()
    )
    return [
        quoted("run_dir", sweep_folder(overrides)),
        f"hydra.job.config.override_dirname.exclude_keys=[{same}]",
    ]


def sweep_folder(overrides: Sequence[str]) -> Path:
    """Where the jobs of a sweep lie: `run_dir`, or else a folder that the same command finds again.

    Raises:
      ConfigError: another folder at each start, or Hydra's own option for it.
    """
    folder = f"sweeps/{folder_name(overrides, leave_out=['cache_dir'])}"
    for override in overrides:
        if key_of(override) == "hydra.sweep.dir":
            raise ConfigError(f"{override}: run_dir is the folder of a sweep; mend: run_dir=FOLDER")
        if key_of(override) == "run_dir":
            folder = str(OverridesParser.create().parse_override(override).value())
            if "${" in folder:
                raise ConfigError(
                    f"{override}: a sweep goes on where it began; mend: run_dir=FOLDER, a plain path"
                )
    return Path(folder).absolute()


def quoted(key: str, path: Path) -> str:
    """An override whose value is this path, whatever characters it has."""
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def whole_result(config: Config) -> dict[str, Any] | None:
    """The result in the folder of this config, if it is there, whole, and of this config."""
    try:
        result = json.loads((config.run_dir / "result.json").read_text())
        found = result["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    wanted = json.loads(json.dumps(config.plain()))
    same = isinstance(found, dict) and _elsewhere(found) == _elsewhere(wanted)
    return result if same else None


def _elsewhere(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _FOLDERS}


def run_job(config: Config) -> float | None:
    """One job of a sweep, in its own process, unless its result is there already.

    Returns:
      The objective; None where the job ends before the evaluation, or fails: the file `failed` says why, `log` holds
      the traceback. That is no exception, because Hydra would tell of it, too.
    """
    folder = config.run_dir
    (folder / FAILED).unlink(missing_ok=True)
    (folder / "log").touch()  # belongs to this sweep's summary
    result = whole_result(config)
    if result is not None:
        _ended(folder, f"{LEFT_ALONE}{_outcome(result)}")
        return _objective(result)
    began = time.perf_counter()
    code = _in_its_own_process(folder)
    result = whole_result(config)
    if code not in (0, GATE) or (result is None and "evaluate" in config.stages()):
        note_failure(folder, _reason(folder / "log", code))
        return None
    seconds = time.perf_counter() - began
    _ended(folder, f"done in {seconds:.0f} s{_outcome(result) if result else ''}")
    return _objective(result) if result else None


def note_failure(folder: Path, reason: object) -> None:
    """Writes down why a job failed, for the summary."""
    (folder / FAILED).write_text(f"{reason}\n")
    _ended(folder, f"failed: {reason}")


def _ended(folder: Path, how: str) -> None:
    with (folder.parent / LINES).open("a") as lines:
        lines.write(f"{folder.name}: {how}\n")


def _objective(result: dict[str, Any]) -> float | None:
    value = result["models"]["student"]["metrics"]["vali"][OBJECTIVE]["skip"]
    return None if value is None else float(value)


def _outcome(result: dict[str, Any]) -> str:
    value, gate = _objective(result), result.get("gate")
    shown = "" if value is None else f"; validation {OBJECTIVE.upper()} {value:.4f}"
    return shown + ("" if not gate else "; gate PASS" if gate["passed"] else "; gate FAIL")


def _command(settings: HydraConf, folder: Path) -> list[str]:
    """The command of one job, as one would type it."""
    flags = ["--config-name", str(settings.job.config_name)]
    for source in settings.runtime.config_sources:
        if source.provider == "command-line":
            flags += ["--config-dir", str(source.path)]
    kept = [o for o in settings.overrides.hydra if key_of(o) in ("hydra.searchpath", "hydra.verbose")]
    kept += [o for o in settings.overrides.task if key_of(o) not in ("run_dir", "launcher")]
    kept.append(TO_FILE)  # what the process prints goes to the log already
    return [sys.executable, "-m", "pipeline", *flags, *kept, quoted("run_dir", folder)]


def _in_its_own_process(folder: Path) -> int:
    settings = HydraConfig.get()
    environment = os.environ | {PARENT: str(os.getpid())}
    with (folder / "log").open("ab") as output:
        process = subprocess.Popen(
            _command(settings, folder),
            cwd=settings.runtime.cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            return process.wait()
        except BaseException:  # SIGTERM, Ctrl-C: the job saves where it is
            process.terminate()
            process.wait()
            raise


def _reason(path: Path, code: int) -> str:
    """In one line what the last error in a log is, or how the process ended."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    # At the start of a line: TensorFlow tells of an "UNKNOWN ERROR" where there is no GPU.
    _, *errors = re.split(r"^[\d:., -]+ ERROR ", path.read_text(errors="replace"), flags=re.M)
    if not errors:
        return f"exit code {code}"
    own = [line for line in errors[-1].splitlines() if line and not re.match(r"\s|[IWE]\d{4} ", line)]
    return own[-1] if any(line.startswith("Traceback ") for line in own) else own[0]


def end_with_parent() -> None:
    """In a job's process: SIGTERM when the process that waits for it is killed, so that nothing runs on unseen."""
    parent = os.environ.pop(PARENT, None)
    if parent is None or sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(parent):
        raise SystemExit(f"the sweep that started this job (process {parent}) is gone")

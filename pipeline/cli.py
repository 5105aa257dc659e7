"""The command line: composes the Hydra config, checks it, runs the stages, shows the table."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import re
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
import rich
import yaml
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.config import Config, ConfigError, flat, from_composed
from pipeline.config.guard import guard
from pipeline.config.mends import explained
from pipeline.config.mistakes import explain, groups_and_choices
from pipeline.stderr import stderr_to
from pipeline.store import FolderInUseError, atomic, exclusive
from pipeline.sweep import (
    COMMAND,
    GATE,
    TO_FILE,
    end_with_parent,
    folder_overrides,
    key_of,
    note_failure,
    run_job,
    sweep_folder,
)
from pipeline.sweep_watch import Sweep, num_jobs

log = logging.getLogger("pipeline")

_OF_KERAS = ("pandas", "PIL", "scipy")
_ALWAYS_THERE = {"config.yaml", "log", ".lock"}  # in the folder of a run, whatever it has made
guard()  # here: the workers of launchers import this module, too

# Exit codes: what the user can mend; Ctrl-C; the same command goes on (EX_TEMPFAIL). GATE: see evaluate.gate.
MISTAKE, STOPPED, INTERRUPTED = 2, 130, 75


OmegaConf.register_new_resolver("groups_and_choices", groups_and_choices, replace=True)  # of --help


def compose(overrides: Sequence[str]) -> Config:
    """The checked Config that the command would have with these overrides.

    Raises:
      ConfigError: Hydra cannot compose them, or an option is wrong.
    """
    try:
        with hydra.initialize_config_module("pipeline.conf", version_base="1.3"):
            return from_composed(hydra.compose("config", overrides=list(overrides)))
    except HydraException as error:
        raise ConfigError(f"{shlex.join(overrides)}: {explain(error, overrides)}") from None


def _check_folder(config: Config) -> None:
    """Refuses a folder that holds another run, unless that ended with a mistake before it had made anything."""
    path = config.run_dir / "config.yaml"
    if not path.exists() or _is_barren(config.run_dir):
        return
    mend = "mend: another run_dir, or remove it"
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged ({str(error).splitlines()[0]}); {mend}") from None
    if not isinstance(before, dict):
        raise ConfigError(f"{path} is damaged; {mend}")
    there, now = flat(before), flat(config.plain())
    other = [
        f"{key}={there.get(key, '-')} there, {now.get(key, '-')} now"
        for key in {**there, **now}
        if key != "stage" and there.get(key, "-") != now.get(key, "-")
    ]
    if other:
        more = f" and {len(other) - 3} more" * (len(other) > 3)
        raise FolderInUseError(
            f"run_dir={config.run_dir} holds another run ({'; '.join(other[:3])}{more}); {mend} (what its stages made "
            "is in cache_dir and is taken up again)"
        )


def _is_barren(folder: Path) -> bool:
    log_file = folder / "log"
    text = log_file.read_text(encoding="utf-8", errors="replace") if log_file.exists() else ""
    return (
        re.search(r"\d ERROR ", text) is not None  # not TensorFlow's UNKNOWN ERROR where there is no GPU
        and {file.name for file in folder.iterdir()} <= _ALWAYS_THERE
    )


@contextlib.contextmanager
def _claimed(config: Config) -> Iterator[None]:
    """The run's folder, with config.yaml, to be written to by this process alone."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    with exclusive(config.run_dir):
        _check_folder(config)
        with atomic(config.run_dir / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config.plain(), sort_keys=False), encoding="utf-8")
        yield


def _plan(stages: dict[str, list[tuple[str, str]]]) -> str:
    """
    >>> _plan({"student": [("student", "to be made"), ("baseline", "made before")], "evaluate": []})
    'student (student to be made, baseline made before), evaluate'
    """
    parts = []
    for stage, artifacts in stages.items():
        states = {state for _, state in artifacts}
        each = states if len(states) == 1 else [f"{name} {state}" for name, state in artifacts]
        parts.append(f"{stage} ({', '.join(each)})" if artifacts else stage)
    return ", ".join(parts)


class _Progress:
    """How far the run is: bars on a terminal, elsewhere a line of the log, at most one in 30 seconds."""

    _PAUSE_SECONDS = 30

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(),
            disable=not sys.stderr.isatty(),
            console=rich.console.Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}
        self._told = time.monotonic()

    def counted(self, what: str, done: int, total: int, unit: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self.bars.add_task(what, total=total, unit=unit)
        self.bars.update(self._tasks[what], completed=done, unit=unit)
        if self.bars.disable and time.monotonic() - self._told >= self._PAUSE_SECONDS:
            log.info("%s: %d of %d %s", what, done, total, unit)
            self._told = time.monotonic()

    def epoch(self, model: str, row: dict[str, Any], epochs: int) -> None:
        ndcg = row["vali"]["ndcg@10"]
        self.counted(f"training {model}", row["epoch"], epochs, f"epochs, validation NDCG@10 {ndcg:.4f}")


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Imports inside take less time, once a process: nobody looks for garbage among what is to stay, and packages that
    Keras imports only if they are installed, and that serve nothing here, look as if they were not."""
    hidden: dict[str, Any] = {name: None for name in _OF_KERAS if name not in sys.modules}
    sys.modules.update(hidden)
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        gc.freeze()
        gc.enable()


def _run(config: Config) -> None:
    _check_folder(config)
    with stderr_to(config.run_dir / "log"):
        # TensorFlow takes seconds to import; --help and mistakes need not wait.
        with _quick_imports():
            from pipeline.evaluation.result import device
            from pipeline.run import Interrupted, Run

        where = device()
    progress = _Progress()
    with progress.bars:
        command = os.environ.get(COMMAND) or shlex.join(["rankdistil", *sys.argv[1:]])
        try:
            run = Run(config, command=command, progress=progress.epoch, counted=progress.counted)
            with _claimed(config) if run.chief else contextlib.nullcontext():
                if run.chief:
                    log.info("on %s, to do: %s", where, _plan(run.plan()))
                result = run()
        except Interrupted as stopped:
            # A scheduler tells one worker after another: this one may have stopped before its turn.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            log.warning("%s", stopped)
            raise SystemExit(INTERRUPTED) from None
    from pipeline.evaluation import terminal_table
    from pipeline.metrics import NoRelevant, Ties

    convention, ties = cast(NoRelevant, config.evaluate.no_relevant), cast(Ties, config.evaluate.ties)
    if result is not None:
        from pipeline.report import write_report

        rich.print(terminal_table(result, no_relevant=convention, ties=ties))
        write_report(config.run_dir, config.run_dir / "report", no_relevant=convention)
        print(f"report: {config.run_dir / 'report' / 'report.html'}")
    elif config.stage in ("teacher", "student") and run.chief:
        made = run.made()
        for split in ("vali", "test"):
            rich.print(terminal_table(made, split=split, no_relevant=convention, ties=ties))
    elif config.stage == "data" and run.chief:
        from pipeline.data.check import data_table

        rich.print(data_table(json.loads((run.data.folder / "data.json").read_text())))
    print(f"{config.run_dir}: " + ", ".join(sorted(path.name for path in config.run_dir.iterdir())))
    if result is not None and result["gate"] and not result["gate"]["passed"]:
        raise SystemExit(GATE)


def _job(composed: DictConfig) -> float | None:
    """What Hydra calls with a composed config: a run, or a job of a sweep."""
    OmegaConf.set_struct(composed, False)
    composed.run_dir = HydraConfig.get().runtime.output_dir  # in a sweep, the job's own folder
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        config = from_composed(composed)
        if in_sweep:
            return run_job(config)
        _run(config)
    except Exception as error:
        line = explained(error)
        if isinstance(error, FolderInUseError):
            _leave_log()
        log.error("%s", line or error, exc_info=line is None)
        if in_sweep:
            note_failure(Path(composed.run_dir), error)
            return None
        if line and "run_dir" not in map(key_of, HydraConfig.get().overrides.task):
            _forget(Path(composed.run_dir))
        raise SystemExit(MISTAKE if line else 1) from error
    return None


def _leave_log() -> None:
    """From here on, what is logged goes to the terminal only: the file is another run's."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, logging.FileHandler):
            root.removeHandler(handler)


def _forget(folder: Path) -> None:
    """Removes the folder that Hydra made for a run that has not begun: it holds but the log of the mistake."""
    if not (folder / "config.yaml").exists():
        (folder / "log").unlink()
        folder.rmdir()


def _hydra() -> None:
    # Hydra would compose everything once more to see whether a file asks for many runs; here -m alone does.
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]  # replaced on purpose
    hydra.main(config_path="pkg://pipeline.conf", config_name="config", version_base="1.3")(_job)()


def _sweep(overrides: Sequence[str], config_dir: str | None, config_name: str | None) -> None:
    """All jobs, then the summary and the report; raises SystemExit."""
    try:
        folder = sweep_folder(overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(MISTAKE) from None
    number = num_jobs(overrides, config_dir, config_name)
    os.environ[COMMAND] = shlex.join(["rankdistil", *sys.argv[1:]])
    sys.argv += [*folder_overrides(overrides), TO_FILE]
    signal.signal(signal.SIGTERM, _terminate)
    sweep = Sweep(folder)
    crashed = False
    try:
        with sweep.shown(number):
            _hydra()
    except (KeyboardInterrupt, SystemExit) as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(sweep.stopped(number), file=sys.stderr)
        raise SystemExit(STOPPED if isinstance(stop, KeyboardInterrupt) else INTERRUPTED) from None
    except HydraException:
        sweep.forget_if_empty()
        raise
    except Exception:  # of a launcher, such as a worker that was killed
        crashed = True
        traceback.print_exc()
    lines, code = sweep.summary()
    print("\n".join(lines), file=sys.stderr)
    if any(folder.glob("*/result.json")):
        from pipeline.report import main as report

        report([str(folder)])
    raise SystemExit(1 if crashed else code)


class _Terminated(SystemExit):
    """By SIGTERM, outside of training: what is half made is removed on the way out, a sweep's jobs are told."""


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one would break into that
    raise _Terminated(INTERRUPTED)


def main() -> None:
    """The `rankdistil` command."""
    end_with_parent()
    # First, wherever the user put it: Hydra's parser takes no override after it where others stand before.
    words = ["-m" if word == "hydra.mode=MULTIRUN" else word for word in sys.argv[1:]]
    sys.argv[1:] = sorted(words, key=lambda word: word not in ("-m", "--multirun"))
    given = get_args_parser().parse_args()
    wanted_by_user = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here, and are told below
    try:
        if given.multirun:
            _sweep(given.overrides, given.config_dir, given.config_name)
        signal.signal(signal.SIGTERM, _terminate)
        _hydra()
    except HydraException as error:
        if wanted_by_user:
            raise
        print(explain(error, given.overrides), file=sys.stderr)
        raise SystemExit(MISTAKE) from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:  # of a config's file, or of Hydra's own options
        if wanted_by_user:
            raise
        print(f"{' '.join(str(error).split())}; mend: correct the file that says so", file=sys.stderr)
        raise SystemExit(MISTAKE) from None
    except (
        OSError,
        ValueError,
    ) as error:  # of the run's folder and its log, which Hydra makes before the run
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        line = explained(cause) if isinstance(cause, OSError) else None
        if line is None:
            raise
        print(line, file=sys.stderr)
        raise SystemExit(MISTAKE) from None
    except _Terminated:
        print("stopped; the same command goes on", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # another one would break into the interpreter's end
        print("stopped; the same command goes on", file=sys.stderr)
        raise SystemExit(STOPPED) from None

"""The command line: composes the Hydra config, checks it, runs the stages, shows the table."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
import rich
import yaml
from omegaconf import OmegaConf

from pipeline.config import Config, compose, from_composed
from pipeline.config.compose import compose_hydra
from pipeline.config.errors import user_message
from pipeline.config.hydra_policy import check_hydra, forbid_resolvers
from pipeline.config.overrides import explain, groups_and_choices, key_of, searchpath
from pipeline.environment import set_environment
from pipeline.errors import DONE, FAILED, INTERRUPTED, REFUSED_BY_GATE, STOPPED, USER_ERROR
from pipeline.jobs import end_with_parent
from pipeline.locks import exclusive
from pipeline.progress_bars import ProgressBars
from pipeline.run_folder import check_folder, make_folder
from pipeline.status import Recorder, read_status, recorded, write_status
from pipeline.store import atomic
from pipeline.sweep import COMMAND, own_overrides, plan, sweep_folder, sweep_job
from pipeline.sweep_watch import SweepWatch

if TYPE_CHECKING:
    import pipeline.run

__all__ = ["INTERRUPTED", "compose", "main"]

log = logging.getLogger("pipeline")

_CONTINUES = "stopped; the same command continues"
_QUIET = (
    "hydra",
    "hydra_plugins",
    "optuna.storages",
    "alembic",
    "tensorflow",
    "absl",
)  # their INFO lines are many

OmegaConf.register_new_resolver("groups_and_choices", groups_and_choices, replace=True)  # of --help


# ------------------------------------------------------------------------------------------------------- one run


def _stages(
    config: Config, command: str, progress: ProgressBars, recorder: Recorder | None
) -> pipeline.run.Outcome | None:
    """Runs the stages; None in a worker that writes nothing."""
    from pipeline.evaluation.result import device  # imports TensorFlow
    from pipeline.run import make_context, plan, run

    with _interruption_ends_the_command():
        ctx = make_context(config, progress)
    with contextlib.ExitStack() as stack:
        if ctx.chief:
            stack.enter_context(_claimed(config))
            recorder = recorder or stack.enter_context(recorded(config.run_dir))
        stack.enter_context(_logged_to(config.run_dir / "log"))
        stack.enter_context(_interruption_ends_the_command())  # inside: status.json says "interrupted"
        if ctx.chief:
            log.info("on %s, to do: %s", device(), _plan(plan(config, ctx)))
        outcome = run(config, ctx, command=command, recorder=recorder if ctx.chief else None)
    return outcome if ctx.chief else None


@contextlib.contextmanager
def _interruption_ends_the_command() -> Iterator[None]:
    from pipeline.run import Interrupted

    try:
        yield
    except Interrupted as stopped:
        # A scheduler signals one worker after another: this one may have stopped before its turn.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        log.warning("%s", stopped)
        raise SystemExit(INTERRUPTED) from None


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


@contextlib.contextmanager
def _claimed(config: Config) -> Iterator[None]:
    """Keeps other processes out of the run's folder, and writes config.yaml there."""
    make_folder(config.run_dir)
    with exclusive(config.run_dir):
        check_folder(config)
        with atomic(config.run_dir / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config.plain(), sort_keys=False), encoding="utf-8")
        yield


def _show(config: Config, outcome: pipeline.run.Outcome) -> None:
    from pipeline.evaluation import terminal_table
    from pipeline.metrics import NoRelevant, Ties
    from pipeline.run import summary

    convention, ties = cast(NoRelevant, config.evaluate.no_relevant), cast(Ties, config.evaluate.ties)
    if outcome.result is not None:
        from pipeline.report import write_report

        rich.print(terminal_table(outcome.result, no_relevant=convention, ties=ties))
        write_report(config.run_dir, config.run_dir / "report", no_relevant=convention)
        print(f"report: {config.run_dir / 'report' / 'report.html'}")
    elif outcome.teacher is not None:
        result = summary(config, outcome)
        for split in ("vali", "test"):
            rich.print(terminal_table(result, split=split, no_relevant=convention, ties=ties))
    else:
        from pipeline.data.check import data_table

        rich.print(data_table(outcome.data.described))
    print(f"{config.run_dir}: " + ", ".join(sorted(path.name for path in config.run_dir.iterdir())))


def _run(given: argparse.Namespace, command: str, *, is_job: bool) -> int:
    """One run; its exit code."""
    composed = compose_hydra(given.overrides, given.config_dir)
    if str(composed.hydra.mode).endswith("MULTIRUN"):
        return _sweep(given, command)
    config = from_composed(composed)
    check_hydra(composed.hydra, given.overrides)
    check_folder(config)
    os.environ.update({name: str(value) for name, value in composed.hydra.job.env_set.items()})
    _set_verbosity(composed.hydra.verbose)
    with contextlib.ExitStack() as stack:
        recorder = None
        if is_job:  # who started the job reads in status.json how it ended, wherever that is
            make_folder(config.run_dir)
            recorder = stack.enter_context(recorded(config.run_dir))
        progress = ProgressBars()
        with progress.bars:
            outcome = _stages(config, os.environ.get(COMMAND) or command, progress, recorder)
        if outcome is not None:
            _show(config, outcome)
    result = None if outcome is None else outcome.result
    if result is None or not result["gate"] or result["gate"]["passed"]:
        return DONE
    ended = read_status(config.run_dir)
    if ended is not None:
        write_status(config.run_dir, dataclasses.replace(ended, exit_code=REFUSED_BY_GATE))
    return REFUSED_BY_GATE


# ------------------------------------------------------------------------------------------------------- logging


def _set_verbosity(verbose: Any) -> None:
    """hydra.verbose: true, or the names of loggers."""
    names = [""] if verbose is True else [verbose] if isinstance(verbose, str) else list(verbose or [])
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)


def _log_to_terminal() -> None:
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(
        logging.ERROR
    )  # warns of each failed job
    if not root.handlers:
        root.addHandler(_formatted(logging.StreamHandler()))


def _formatted(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


@contextlib.contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """While the block runs, the log goes to this file, too, and so does the exception that ends the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    with path.open("a", encoding="utf-8") as file:
        if os.path.sameopenfile(file.fileno(), 2):  # stderr is this file: of a job
            yield
            return
        handler = _formatted(logging.StreamHandler(file))
        root.addHandler(handler)
        try:
            yield
        except Exception as error:
            message = user_message(error)
            info = None if message else (type(error), error, error.__traceback__)
            handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, message or str(error), (), info))
            raise
        finally:
            root.removeHandler(handler)


# --------------------------------------------------------------------------------------------------------- sweeps


def _sweep(given: argparse.Namespace, command: str) -> int:
    """All jobs, then the summary and the report; the exit code."""
    overrides = [o for o in given.overrides if key_of(o) != "hydra.mode"]
    folder = sweep_folder(overrides)
    watch_jobs = plan(overrides, given.config_dir)
    os.environ[COMMAND] = command
    if given.config_dir is not None:
        overrides.append(searchpath(given.config_dir))
    watch = SweepWatch(folder, watch_jobs)
    crashed = False
    try:
        with watch.shown():
            _hydra_main(["--multirun", *overrides, *own_overrides(overrides)])
    except (KeyboardInterrupt, SystemExit) as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(watch.stopped(), file=sys.stderr)
        return STOPPED if isinstance(stop, KeyboardInterrupt) else INTERRUPTED
    except hydra.errors.HydraException:
        watch.remove_empty_folder()
        raise
    except Exception:  # of a launcher, such as a worker that was killed
        crashed = True
        traceback.print_exc()
    lines, code = watch.summary()
    print("\n".join(lines), file=sys.stderr)
    if any(folder.glob("*/result.json")):
        from pipeline.report import main as report

        report([str(folder)])
    return FAILED if crashed else code


def _hydra_main(words: Sequence[str]) -> None:
    """Hydra's own command line: sweeps, --help, --cfg, --info and completion."""
    sys.argv[1:] = words
    hydra.main(config_path="pkg://pipeline.conf", config_name="config", version_base="1.3")(sweep_job)()


# -------------------------------------------------------------------------------------------------------- command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "rankdistil", add_help=False, usage="rankdistil [--help] [OPTION=VALUE ...]"
    )
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("-p", "--package")
    parser.add_argument("--resolve", action="store_true")
    infos = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=infos)
    parser.add_argument("-sc", "--shell-completion", action="store_true")
    return parser


class _Terminated(SystemExit):
    """By SIGTERM outside of training: the way out removes what is half made, and ends a sweep's jobs."""


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one would interrupt that
    raise _Terminated(INTERRUPTED)


def _command(words: list[str], *, is_job: bool) -> int:
    given = _parser().parse_intermixed_args(words)
    command = shlex.join(["rankdistil", *words])
    if given.shell_completion or given.hydra_help:
        _hydra_main(words)
    elif given.help or given.cfg or given.info:
        check_hydra(compose_hydra(given.overrides, given.config_dir).hydra)
        _hydra_main(words)
    else:
        _log_to_terminal()
        if given.multirun or "hydra.mode=MULTIRUN" in given.overrides:
            return _sweep(given, command)
        return _run(given, command, is_job=is_job)
    return DONE


def main() -> None:
    """The `rankdistil` command; raises SystemExit unless it is done."""
    is_job = end_with_parent()
    set_environment()
    forbid_resolvers()
    signal.signal(signal.SIGTERM, _terminate)
    full_error = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors, which are explained here
    try:
        code = _command(sys.argv[1:], is_job=is_job)
    except _Terminated:
        print(_CONTINUES, file=sys.stderr)
        raise
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # another one would interrupt the interpreter's end
        print(_CONTINUES, file=sys.stderr)
        code = STOPPED
    except Exception as error:
        if isinstance(error, hydra.errors.HydraException):
            message: str | None = explain(error, sys.argv[1:])
        else:
            message = user_message(error)
        if message is None or full_error == "1":
            traceback.print_exc()
        else:
            print(message, file=sys.stderr)
        code = FAILED if message is None else USER_ERROR
    finally:
        os.environ["HYDRA_FULL_ERROR"] = full_error
    if code != DONE:
        raise SystemExit(code)

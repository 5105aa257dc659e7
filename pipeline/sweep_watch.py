"""A sweep as a whole, seen by the command that started it: its jobs as they end, what is left, the summary."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from pipeline.sweep import FAILED, GATE, LEFT_ALONE, LINES


def num_jobs(
    overrides: Sequence[str], config_dir: str | None = None, config_name: str | None = None
) -> int | None:
    """How many jobs Hydra makes of a command; None where only its sweeper knows.

    Args:
      overrides: of the command line.
      config_dir, config_name: of the options of Hydra.

    Raises:
      HydraException: it cannot be composed.
    """
    if config_dir is not None:
        overrides = [*overrides, f"hydra.searchpath=['file://{Path(config_dir).absolute()}']"]
    with hydra.initialize_config_module("pipeline.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        settings = loader.load_configuration(
            config_name or "config", list(overrides), RunMode.MULTIRUN, from_shell=False
        ).hydra
    if "n_trials" in settings.sweeper:  # of a search
        return int(settings.sweeper.n_trials)
    if not str(settings.sweeper._target_).endswith("BasicSweeper"):
        return None
    given = [f"{key}={values}" for key, values in (settings.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=loader)
    (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides([*given, *settings.overrides.task]), None)
    return len(jobs)


class Sweep:
    """From before the first job to the summary after the last one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ended: set[str] = set()  # names of jobs
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / ".began"
        mark.touch()
        self.began_ns = mark.stat().st_mtime_ns  # by the file system's clock, which other machines share
        mark.unlink()

    def forget_if_empty(self) -> None:
        """Removes the folder where no job has started: of a command that Hydra cannot compose, nothing stays."""
        if {path.name for path in self.folder.iterdir()} <= {"multirun.yaml", LINES}:
            for name in ("multirun.yaml", LINES):
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()

    @contextlib.contextmanager
    def shown(self, num_jobs: int | None) -> Iterator[None]:
        """While the block runs, tells of each job that ends, here or on another machine; on a terminal, how many are
        left, the time that they will take, and what goes on."""
        stop = threading.Event()
        columns = (
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("jobs"),
            TimeRemainingColumn(),
        )
        on_terminal = sys.stderr.isatty()
        forever = 1e9  # seconds over which the speed is taken: jobs are long
        bars = Progress(
            *columns,
            disable=not on_terminal,
            console=Console(stderr=True, soft_wrap=True),
            expand=True,
            speed_estimate_period=forever,
        )
        path = self.folder / LINES
        path.touch()
        with bars, path.open() as lines:
            lines.seek(0, os.SEEK_END)
            bar = bars.add_task("", total=num_jobs)
            left = num_jobs

            def tell() -> None:
                nonlocal left
                for line in lines:
                    self._ended.add(line.partition(": ")[0])
                    of = "" if num_jobs is None else f"/{num_jobs}"
                    text = f"{len(self._ended)}{of} {line.rstrip()}"
                    if on_terminal:
                        bars.console.print(Text(text))
                    else:
                        print(text, file=sys.stderr)
                    if (
                        LEFT_ALONE in line and left is not None
                    ):  # takes no time: the others' is not to be told from it
                        left -= 1
                        bars.update(bar, total=left)
                    else:
                        bars.advance(bar)
                if on_terminal and (running := self.running()):
                    stages = re.findall(
                        r" INFO (stage \w+)$", (running[0] / "log").read_text(errors="replace"), re.M
                    )
                    bars.update(bar, description=f"{running[0].name}: {stages[-1] if stages else 'starts'}")

            def follow() -> None:
                while not stop.wait(0.5):
                    tell()

            follower = threading.Thread(target=follow, daemon=True)
            follower.start()
            try:
                yield
            finally:
                stop.set()
                follower.join()
                tell()

    def running(self) -> list[Path]:
        """The folders of the jobs that have begun and not ended."""
        return [log.parent for log in self._logs() if log.parent.name not in self._ended]

    def _logs(self) -> list[Path]:
        """Of the jobs that ran or were looked at since `began`."""
        return [log for log in sorted(self.folder.glob("*/log")) if log.stat().st_mtime_ns >= self.began_ns]

    def stopped(self, num_jobs: int | None) -> str:
        """What to say when the sweep is told to end."""
        of = "" if num_jobs is None else f" of {num_jobs}"
        running = "".join(f"; {job.name} was running" for job in self.running())
        return f"{self.folder}: stopped after {len(self._ended)}{of} jobs{running}; the same command goes on"

    def summary(self) -> tuple[list[str], int]:
        """Lines about the jobs that ran or were looked at since `began`, and the exit code."""
        logs = self._logs()
        failed = [path.parent for path in logs if (path.parent / FAILED).exists()]
        refused = []
        for path in logs:
            try:
                gate = json.loads((path.parent / "result.json").read_text()).get("gate")
            except (OSError, ValueError, AttributeError):
                continue
            if gate and not gate["passed"]:
                refused.append(path.parent)
        lines = [f"{self.folder}: {len(logs)} jobs, {len(failed)} failed"]
        if refused:
            lines[0] += f", {len(refused)} refused by the gate: " + ", ".join(job.name for job in refused)
        for job in failed:
            lines += [f"  {job.name}: {(job / FAILED).read_text().strip()}", f"    {job / 'log'}"]
        if failed:
            lines.append("The same command runs only what is not whole.")
        return lines, 1 if failed else GATE if refused else 0

"""What the command that started a sweep shows: jobs as they end, what is left, the summary."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from pipeline.errors import DONE, FAILED, REFUSED_BY_GATE
from pipeline.run_folder import make_folder
from pipeline.status import ENDED, FAILURE, FILE, RUNNING, Status, read_status
from pipeline.sweep import OBJECTIVE, objective

_EVER = 1e9  # seconds over which the progress bar averages the speed: jobs are long
_PAUSE_SECONDS = 0.5  # between two looks at the folder


class SweepWatch:
    """Follows status.json of the jobs in a sweep's folder, from before the first job to the summary.

    Args:
      folder: of the sweep.
      num_jobs: None where only Hydra's sweeper knows it.
    """

    def __init__(self, folder: Path, num_jobs: int | None) -> None:
        self.folder, self.num_jobs = folder, num_jobs
        make_folder(folder)
        mark = folder / ".began"
        mark.touch()
        self._began_ns = (
            mark.stat().st_mtime_ns
        )  # by the clock of the file system, which other machines share
        mark.unlink()
        self._before = {path.parent: read_status(path.parent) for path in folder.glob(f"*/{FILE}")}
        self._ended: dict[Path, Status] = {}

    def remove_empty_folder(self) -> None:
        """Removes the folder where no job has started."""
        if {path.name for path in self.folder.iterdir()} <= {"multirun.yaml"}:
            (self.folder / "multirun.yaml").unlink(missing_ok=True)
            self.folder.rmdir()

    def jobs(self) -> dict[Path, Status]:
        """The jobs that this sweep has started or looked at."""
        files = sorted(self.folder.glob(f"*/{FILE}"))
        found = {f.parent: read_status(f.parent) for f in files if f.stat().st_mtime_ns >= self._began_ns}
        return {folder: status for folder, status in found.items() if status is not None}

    def running(self) -> list[tuple[Path, Status]]:
        return [(folder, status) for folder, status in self.jobs().items() if status.state == RUNNING]

    def _new(self) -> Iterator[tuple[str, bool]]:
        """For each job that has ended since the last call: its line, and whether it was complete before."""
        for folder, status in self.jobs().items():
            if status.state != RUNNING and folder not in self._ended:
                self._ended[folder] = status
                complete = status.state == ENDED and self._before.get(folder) == status
                how = "already complete" if complete else _how(status)
                how += _score(folder) if status.state == ENDED else ""
                of = "" if self.num_jobs is None else f"/{self.num_jobs}"
                yield f"{len(self._ended)}{of} {folder.name}: {how}", complete

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """While the block runs, prints each job that ends, here or on another machine; on a terminal also a bar."""
        on_terminal = sys.stderr.isatty()
        bars = Progress(
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("jobs"),
            TimeRemainingColumn(),
            disable=not on_terminal,
            console=Console(stderr=True, soft_wrap=True),
            expand=True,
            speed_estimate_period=_EVER,
        )
        bar = bars.add_task("", total=self.num_jobs)
        stop = threading.Event()

        def show() -> None:
            for line, complete in self._new():
                if on_terminal:
                    bars.console.print(Text(line))
                else:
                    print(line, file=sys.stderr)
                total = bars.tasks[0].total
                if complete and total is not None:  # it took no time, so the estimate leaves it out
                    bars.update(bar, total=total - 1)
                else:
                    bars.advance(bar)
            if on_terminal and (running := self.running()):
                folder, status = running[0]
                bars.update(bar, description=f"{folder.name}: {status.stage or 'starts'}")

        def follow() -> None:
            while not stop.wait(_PAUSE_SECONDS):
                show()

        follower = threading.Thread(target=follow, daemon=True)
        with bars:
            follower.start()
            try:
                yield
            finally:
                stop.set()
                follower.join()
                show()

    def stopped(self) -> str:
        """What to print when the sweep is stopped."""
        of = "" if self.num_jobs is None else f" of {self.num_jobs}"
        running = "".join(f"; {folder.name} was running" for folder, _ in self.running())
        return (
            f"{self.folder}: stopped after {len(self._ended)}{of} jobs{running}; the same command continues"
        )

    def summary(self) -> tuple[list[str], int]:
        """Lines about all jobs, and the exit code."""
        jobs = self.jobs()
        refused = [folder.name for folder, s in jobs.items() if s.exit_code == REFUSED_BY_GATE]
        failed = {folder: s for folder, s in jobs.items() if s.state != ENDED and folder.name not in refused}
        missing = 0 if self.num_jobs is None else max(0, self.num_jobs - len(jobs))
        lines = [f"{self.folder}: {len(jobs)} jobs, {len(failed)} failed"]
        if missing:
            lines[0] += f", {missing} did not start"
        if refused:
            lines[0] += f", {len(refused)} refused by the gate: {', '.join(refused)}"
        for folder, status in failed.items():
            lines += [f"  {folder.name}: {status.error or status.state}", f"    {folder / 'log'}"]
        if failed or missing:
            lines.append("The same command runs only the jobs that are missing.")
        return lines, FAILED if failed or missing else REFUSED_BY_GATE if refused else DONE


def _how(status: Status) -> str:
    if status.exit_code == REFUSED_BY_GATE:
        return "done; refused by the gate"
    return f"{status.state}: {status.error}" if status.state == FAILURE else status.state


def _score(folder: Path) -> str:
    try:
        value = objective(json.loads((folder / "result.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return "" if value is None else f"; validation {OBJECTIVE.upper()} {value:.4f}"

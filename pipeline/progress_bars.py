"""How far a run is, on the terminal or in the log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("pipeline")


class ProgressBars:
    """How far the run is: bars on a terminal; elsewhere a line of the log, at most one in 30 seconds."""

    _PAUSE_SECONDS = 30

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(),
            disable=not sys.stderr.isatty(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}
        self._last_line = time.monotonic()

    def counted(self, what: str, num_done: int, num_total: int, unit: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self.bars.add_task(what, total=num_total, unit=unit)
        self.bars.update(self._tasks[what], completed=num_done, unit=unit)
        if self.bars.disable and time.monotonic() - self._last_line >= self._PAUSE_SECONDS:
            log.info("%s: %d of %d %s", what, num_done, num_total, unit)
            self._last_line = time.monotonic()

    def epoch(self, model: str, row: dict[str, Any], num_epochs: int) -> None:
        ndcg = row["vali"]["ndcg@10"]
        self.counted(f"training {model}", row["epoch"], num_epochs, f"epochs, validation NDCG@10 {ndcg:.4f}")

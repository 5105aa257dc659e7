"""metrics.csv: one row for each number."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

FILE = "metrics.csv"


class CSVTracker:
    """Rows `model,step,metric,value` in `run_dir/metrics.csv`; the summary's rows have no model and no step.

    The values of each query are in per_query.csv.
    """

    def __init__(self, run_dir: Path) -> None:
        self._file = (run_dir / FILE).open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(["model", "step", "metric", "value"])

    def scalars(self, model: str, step: int, values: Mapping[str, float]) -> None:
        self._rows.writerows([model, step, tag, repr(float(value))] for tag, value in values.items())
        self._file.flush()

    def histogram(self, model: str, step: int, tag: str, values: np.ndarray) -> None:
        pass

    def summary(self, values: Mapping[str, float]) -> None:
        self._rows.writerows(["", "", tag, repr(float(value))] for tag, value in values.items())

    def close(self, *, failed: bool) -> None:
        self._file.close()

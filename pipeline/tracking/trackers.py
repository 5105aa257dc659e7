"""The interface of a tracker, and one tracker that passes each call to all trackers of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np

from pipeline.config import Config
from pipeline.tracking.csv_file import CSVTracker
from pipeline.tracking.mlflow_run import MLflowTracker
from pipeline.tracking.options import hyper_parameters, own_options
from pipeline.tracking.tensorboard import TensorBoardTracker


class Tracker(Protocol):
    """Receives the numbers of one run. `model` is teacher, baseline or student; the tags are the same for all."""

    def scalars(self, model: str, step: int, values: Mapping[str, float]) -> None:
        """Values of a step (an epoch). The last call for a step wins."""

    def histogram(self, model: str, step: int, tag: str, values: np.ndarray) -> None:
        """One value for each query, float [queries] without NaN. Trackers without histograms do nothing."""

    def summary(self, values: Mapping[str, float]) -> None:
        """The values by which runs of a sweep are compared. Called once."""

    def close(self, *, failed: bool) -> None:
        """No call comes after this one."""


class Trackers:
    """Passes each call to all of `trackers`; without any, it does nothing."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers

    def scalars(self, model: str, step: int, values: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.scalars(model, step, values)

    def histogram(self, model: str, step: int, tag: str, values: np.ndarray) -> None:
        for tracker in self._trackers:
            tracker.histogram(model, step, tag, values)

    def summary(self, values: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.summary(values)

    def close(self, *, failed: bool) -> None:
        for tracker in self._trackers:
            tracker.close(failed=failed)


@contextlib.contextmanager
def open_trackers(config: Config) -> Iterator[Trackers]:
    """The trackers of `tracking.writers` while the block runs. They replace what an earlier run in the folder wrote.

    Raises:
      ConfigError: the package of a tracker is not installed, or its store cannot be opened.
    """
    make: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoardTracker(config.run_dir, hyper_parameters(config)),
        "csv": lambda: CSVTracker(config.run_dir),
        "mlflow": lambda: MLflowTracker(config.tracking, config.run_dir, own_options(config)),
    }
    names = sorted(
        set(config.tracking.writers), key=lambda name: name != "mlflow"
    )  # first, because it may fail
    trackers = Trackers(*(make[name]() for name in names))
    try:
        yield trackers
    except BaseException:
        trackers.close(failed=True)
        raise
    trackers.close(failed=False)

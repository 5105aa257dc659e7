"""What the stages share: the store, the strategy, the progress display and the trackers."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import tensorflow as tf

from pipeline.store import Store
from pipeline.tracking import Trackers
from pipeline.training.distribute import is_chief


class Progress(Protocol):
    """Receives how far a run is."""

    def epoch(self, model: str, row: dict[str, Any], num_epochs: int) -> None:
        """One epoch of `model` has ended; `row` is its row of the history."""

    def counted(self, what: str, num_done: int, num_total: int, unit: str) -> None:
        """`num_done` of `num_total` units of a task are done."""


class _NoProgress:
    def epoch(self, model: str, row: dict[str, Any], num_epochs: int) -> None:
        pass

    def counted(self, what: str, num_done: int, num_total: int, unit: str) -> None:
        pass


NO_PROGRESS: Progress = _NoProgress()


@dataclasses.dataclass(frozen=True)
class Context:
    """What every stage gets beside its inputs."""

    store: Store
    strategy: tf.distribute.Strategy
    progress: Progress = NO_PROGRESS
    trackers: Trackers = dataclasses.field(default_factory=Trackers)

    @property
    def chief(self) -> bool:
        """Whether this process writes; of several workers one does."""
        return is_chief(self.strategy)

    @property
    def device_key(self) -> list[str | int]:
        """Kind of the devices, such as "CPU", and number of replicas: training depends on both."""
        return [self.strategy.extended.worker_devices[0].split(":")[-2], self.strategy.num_replicas_in_sync]

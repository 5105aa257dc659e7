"""A profile of some training steps, on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import tensorflow as tf
import tf_keras as keras

from pipeline.config import ConfigError


class Profile(keras.callbacks.Callback):
    """Writes `folder/plugins/profile` for the steps first to last while the block runs.

    Args:
      steps: first and last, from 1, counted over all epochs; None: no profile.
      folder: of the model's events.
      num_steps: of the whole training.
      done: how many of them an interrupted run has made already.

    Raises:
      ConfigError: training does not have as many steps.
    """

    def __init__(
        self, steps: Sequence[int] | None, folder: Path | None, *, num_steps: int, done: int
    ) -> None:
        super().__init__()
        if steps and steps[1] > num_steps:
            raise ConfigError(
                f"train.profile={list(steps)} is not possible: training has {num_steps} steps at most"
            )
        self._steps = range(steps[0], steps[1] + 1) if steps and folder else range(0)
        self._folder, self._step, self._running = folder, done, False

    def __enter__(self) -> Profile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._step += 1
        if self._step in self._steps and not self._running:
            tf.profiler.experimental.start(str(self._folder))
            self._running = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._step + 1 not in self._steps:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False

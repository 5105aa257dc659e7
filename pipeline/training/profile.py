"""A profile of some training steps, on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from pipeline.config import ConfigError


class Profile:
    """Writes `folder/plugins/profile` for the steps first to last.

    Call `before` and `after` around each step, and use it as a context manager, which ends the profile after an error.

    Args:
      steps: first and last, from 1, counted over all epochs; None: no profile.
      folder: the folder of the model's events.
      num_steps: number of steps of the complete training.

    Raises:
      ConfigError: training does not have as many steps.
    """

    def __init__(self, steps: Sequence[int] | None, folder: Path | None, *, num_steps: int) -> None:
        if steps and steps[1] > num_steps:
            raise ConfigError(
                "training has fewer steps",
                where=f"train.profile={list(steps)}",
                fix=f"choose steps from 1 to {num_steps}",
            )
        self._steps = range(steps[0] - 1, steps[1]) if steps and folder else range(0)
        self._folder, self._running = folder, False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False

    def before(self, step: int) -> None:
        """step: from 0."""
        if step in self._steps and not self._running:
            tf.profiler.experimental.start(str(self._folder))
            self._running = True

    def after(self, step: int) -> None:
        if step + 1 not in self._steps:
            self.__exit__()

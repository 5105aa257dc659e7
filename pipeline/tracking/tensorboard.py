"""TensorBoard: one folder a model with equal tags, so that models share each chart, and one folder for HParams."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.tracking.options import Option

_TRIAL = "trial"  # a folder of its own, because HParams treats every scalar in a trial's folder as a metric


def events_folder(run_dir: Path) -> Path:
    """The folder of a run's events, with one folder below it for each model."""
    return run_dir / "events"


class TensorBoardTracker:
    """Events below `run_dir/events`: teacher, baseline, student and trial.

    HParams finds the trials of a sweep below TensorBoard's folder, and infers the types and ranges of the options.
    """

    def __init__(self, run_dir: Path, options: Mapping[str, Option]) -> None:
        self._folder, self._run_dir, self._options = events_folder(run_dir), run_dir, options
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        shutil.rmtree(self._folder, ignore_errors=True)

    def _writer(self, name: str) -> tf.summary.SummaryWriter:
        if name not in self._writers:
            self._writers[name] = tf.summary.create_file_writer(str(self._folder / name))
        return self._writers[name]

    def scalars(self, model: str, step: int, values: Mapping[str, float]) -> None:
        writer = self._writer(model)
        with writer.as_default(step=step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)
        writer.flush()

    def histogram(self, model: str, step: int, tag: str, values: np.ndarray) -> None:
        with self._writer(model).as_default(step=step):
            tf.summary.histogram(tag, values)

    def summary(self, values: Mapping[str, float]) -> None:
        from tensorboard.plugins.hparams import api as hp

        with self._writer(_TRIAL).as_default(step=0):
            trial = f"{self._run_dir.name} ({self._run_dir.parent.name})"
            hp.hparams(dict(self._options), trial_id=trial)
            config = (self._run_dir / "config.yaml").read_text(encoding="utf-8")
            tf.summary.text("config", f"```yaml\n{config}```")
        self.scalars(_TRIAL, 0, values)

    def close(self, *, failed: bool) -> None:
        for writer in self._writers.values():
            writer.close()

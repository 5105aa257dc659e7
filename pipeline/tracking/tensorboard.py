"""TensorBoard: one folder a model with equal tags, so that models share each chart; one folder a trial for HParams."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.tracking.options import Option

_TRIAL = (
    "trial"  # apart from the models' folders: HParams takes every scalar of a trial's folder for a metric
)


def events_folder(run_dir: Path) -> Path:
    """Where the events of a run are; a folder a model below it."""
    return run_dir / "events"


class TensorBoardTracker:
    """Events below `run_dir/events`: teacher, baseline, student and trial.

    HParams finds the trials of a whole sweep below the folder that TensorBoard is given, with the types and ranges of
    the options; nothing has to be declared beforehand.
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
        from tensorboard.plugins.hparams import api as hp  # 0.06 s, which a start need not wait

        with self._writer(_TRIAL).as_default(step=0):
            trial = f"{self._run_dir.name} ({self._run_dir.parent.name})"
            hp.hparams(dict(self._options), trial_id=trial)
            config = (self._run_dir / "config.yaml").read_text(encoding="utf-8")
            tf.summary.text("config", f"```yaml\n{config}```")
        self.scalars(_TRIAL, 0, values)

    def close(self, *, failed: bool) -> None:
        for writer in self._writers.values():
            writer.close()

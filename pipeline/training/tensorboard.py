"""TensorBoard events: one folder a model, equal tags, so that the models share each chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf


class EventWriter:
    """Scalars and text of one model.

    Args:
      folder: of all models of a run; the model's own is below it.
      model: teacher, student or baseline.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._writer = tf.summary.create_file_writer(str(folder / model))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self._writer.as_default(step=step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)
        self._writer.flush()

    def text(self, tag: str, markdown: str) -> None:
        with self._writer.as_default(step=0):
            tf.summary.text(tag, markdown)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

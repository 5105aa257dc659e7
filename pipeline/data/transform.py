"""Feature transforms, fitted on the training split; the same arithmetic in numpy and in TensorFlow."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.config import TransformConfig

_ROWS = 1 << 16  # documents at a time: bounds the memory of float64 intermediates


@dataclasses.dataclass(frozen=True)
class Transform:
    """clip((log1p?(x) - mean) / deviation).

    Attributes:
      log1p: x -> sign(x) log(1 + |x|) first.
      mean: float32 [F]; zeros without standardisation.
      deviation: float32 [F], > 0; ones without standardisation and for constant features.
      clip: None, or the largest magnitude of a result.
    """

    log1p: bool
    mean: np.ndarray
    deviation: np.ndarray
    clip: float | None

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float32 [docs, F] raw -> float32 [docs, F]."""
        out = np.empty(features.shape, np.float32)
        for start in range(0, len(features), _ROWS):
            rows = np.asarray(features[start : start + _ROWS])
            if self.log1p:
                rows = np.copysign(np.log1p(np.abs(rows)), rows)
            rows = (rows - self.mean) / self.deviation
            out[start : start + _ROWS] = rows if self.clip is None else np.clip(rows, -self.clip, self.clip)
        return out

    def save(self, folder: Path) -> None:
        """Writes transform.npz into an existing folder."""
        clip = np.inf if self.clip is None else self.clip
        np.savez(
            folder / "transform.npz", log1p=self.log1p, mean=self.mean, deviation=self.deviation, clip=clip
        )

    @staticmethod
    def load(folder: Path) -> Transform:
        with np.load(folder / "transform.npz", allow_pickle=False) as stored:
            clip = float(stored["clip"])
            return Transform(
                bool(stored["log1p"]), stored["mean"], stored["deviation"], None if np.isinf(clip) else clip
            )

    def in_graph(self, features: tf.Tensor) -> tf.Tensor:
        """The same on a float32 [..., F] tensor, for exported models."""
        if self.log1p:
            features = tf.sign(features) * tf.math.log1p(tf.abs(features))
        if self.mean.any():  # else the pass over the features would change nothing
            features = features - self.mean
        if (self.deviation != 1).any():
            features = features / self.deviation
        return features if self.clip is None else tf.clip_by_value(features, -self.clip, self.clip)


def fit_transform(config: TransformConfig, features: np.ndarray) -> Transform:
    """The transform whose statistics are those of `features` [docs, F].

    Mean and standard deviation are exact float64 sums over blocks of rows; a feature whose deviation is below
    1e-6 of its magnitude is constant and gets deviation 1.
    """
    num_features = features.shape[1]
    transform = Transform(
        config.log1p, np.zeros(num_features, np.float32), np.ones(num_features, np.float32), config.clip
    )
    if not config.standardise:
        return transform
    plain = dataclasses.replace(transform, clip=None)
    blocks = range(0, len(features), _ROWS)
    mean = sum(plain(features[i : i + _ROWS]).sum(0, dtype=np.float64) for i in blocks) / len(features)
    square = sum(np.square(plain(features[i : i + _ROWS]) - mean).sum(0) for i in blocks) / len(features)
    deviation = np.sqrt(square)
    deviation[deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-30)] = 1.0
    return dataclasses.replace(
        transform, mean=mean.astype(np.float32), deviation=deviation.astype(np.float32)
    )

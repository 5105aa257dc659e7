"""Feature transforms, fitted on the training split; the same arithmetic in numpy and in TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.config import TransformConfig
from pipeline.data.writer import create_npy
from pipeline.errors import UserError

_BLOCK_VALUES = 1 << 20  # at a time: bounds the memory, also of float64 intermediates
_SAMPLE_VALUES = 1 << 24  # that quantiles are taken of: about 120,000 documents of 136 features
_LARGEST = float(np.finfo(np.float32).max)
_NARROW = 1e-4  # of logarithms' size: in less than that float32 shows too few of the differences


@dataclasses.dataclass(frozen=True)
class Transform:
    """clip((quantile?(log?(x)) - mean) / deviation), where x is 0 in place of a missing value.

    Attributes:
      log1p: x -> sign(x) log(1 + |x|), where `signs` is 1 or -1.
      log_offset: 0, or x -> log(max(s x, 0) + log_offset), where `signs` has s = 1 or -1.
      signs: float32 [F]; 0 for a feature that no logarithm is taken of.
      knots: float32 [F, K], rising, and `levels` float32 [F, K]: what they become, values between them by linear
        interpolation, beyond them as the outermost; K is a power of two, or 0: no quantiles. The last knot is repeated.
      mean: float32 [F]; zeros without standardisation.
      deviation: float32 [F], > 0; ones without standardisation and for constant features.
      clip: None, or the largest magnitude of a result.
      missing_value: None, or the raw value that stands for "missing" and counts as 0, as the reader counts it. It is
        compared as float32; for one beyond float32, as in Istella, the largest float32 and infinity count.
    """

    log1p: bool
    log_offset: float
    signs: np.ndarray
    knots: np.ndarray
    levels: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    clip: float | None
    missing_value: float | None = None

    @property
    def num_features(self) -> int:
        return len(self.mean)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float32 [docs, F] raw -> float32 [docs, F]."""
        out = np.empty(features.shape, np.float32)
        for rows in _blocks(features):
            out[rows] = self._of_block(features[rows])
        return out

    def write(self, features: np.ndarray, path: Path) -> None:
        """The same into an .npy file, in bounded memory."""
        with create_npy(path, features.shape) as file:
            for rows in _blocks(features):
                self._of_block(features[rows]).astype(np.float32, copy=False).tofile(file)

    def save(self, folder: Path) -> None:
        """Writes transform.npz into an existing folder."""
        values = dataclasses.asdict(self)
        np.savez(
            folder / "transform.npz",
            allow_pickle=False,
            **{name: value for name, value in values.items() if value is not None},
        )

    @staticmethod
    def load(folder: Path) -> Transform:
        with np.load(folder / "transform.npz", allow_pickle=False) as stored:
            values = {name: value if value.ndim else value.item() for name, value in stored.items()}
        return Transform(**{"clip": None, **values})

    def _is_missing(self, features: Any) -> Any:
        """bool, of the shape of the array or tensor."""
        assert self.missing_value is not None
        value = np.float32(np.clip(self.missing_value, -_LARGEST, _LARGEST))
        if value == _LARGEST:
            return features >= value
        return features <= value if value == -_LARGEST else (features >= value) & (features <= value)

    def in_graph(self, features: tf.Tensor) -> tf.Tensor:
        """The same on a float32 [..., F] tensor, for exported models: only elementwise operations and gathers."""
        if self.missing_value is not None:
            if abs(self.missing_value) >= _LARGEST:  # finite, because ONNX computes `where` as a product
                features = tf.clip_by_value(features, -_LARGEST, _LARGEST)
            features = tf.where(self._is_missing(features), 0.0, features)
        if self.log_offset:
            logs = tf.math.log(tf.maximum(self.signs * features, 0.0) + np.float32(self.log_offset))
            features = tf.where(self.signs != 0, logs, features)
        elif self.log1p:
            logs = tf.sign(features) * tf.math.log1p(tf.abs(features))
            features = logs if self.signs.all() else tf.where(self.signs != 0, logs, features)
        if self.knots.size:
            features = self._quantiles_in_graph(features)
        if self.mean.any():  # else the pass over the features would change nothing
            features = features - self.mean
        if (self.deviation != 1).any():
            features = features / self.deviation
        return features if self.clip is None else tf.clip_by_value(features, -self.clip, self.clip)

    def _of_block(self, rows: np.ndarray) -> np.ndarray:
        if self.missing_value is not None:
            rows = np.where(self._is_missing(rows), np.float32(0), rows)
        if self.log_offset:
            logs = np.log(np.maximum(self.signs * rows, 0) + np.float32(self.log_offset))
            rows = np.where(self.signs != 0, logs, rows)
        elif self.log1p:
            logs = np.copysign(np.log1p(np.abs(rows)), rows)
            rows = logs if self.signs.all() else np.where(self.signs != 0, logs, rows)
        if self.knots.size:
            rows = self._quantiles(rows)
        rows = (rows - self.mean) / self.deviation
        return rows if self.clip is None else np.clip(rows, -self.clip, self.clip)

    def _slopes(self) -> np.ndarray:
        """float32 [F, K]: from each knot to the next; 0 behind the last."""
        width = np.diff(self.knots.astype(np.float64), axis=1, append=self.knots[:, -1:])
        rise = np.diff(self.levels.astype(np.float64), axis=1, append=self.levels[:, -1:])
        return np.where(width > 0, rise / np.where(width > 0, width, 1), 0).astype(np.float32)

    def _quantiles(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty(rows.shape, np.float32)
        slopes = self._slopes()
        for feature in range(rows.shape[1]):
            knots = self.knots[feature]
            values = np.maximum(rows[:, feature], knots[0])
            last = np.maximum(np.searchsorted(knots, values, side="right") - 1, 0)
            out[:, feature] = self.levels[feature, last] + slopes[feature, last] * (values - knots[last])
        return out

    def _quantiles_in_graph(self, features: tf.Tensor) -> tf.Tensor:
        num_features, num_knots = self.knots.shape
        knots, levels, slopes = (np.ravel(table) for table in (self.knots, self.levels, self._slopes()))
        values = tf.maximum(features, self.knots[:, 0])
        # The last knot <= the value, by halving; tf.searchsorted has no counterpart in TFLite and ONNX.
        last = tf.zeros_like(values, tf.int32) + num_knots * np.arange(num_features, dtype=np.int32)
        step = num_knots // 2
        while step:
            last = tf.where(tf.gather(knots, last + step) <= values, last + step, last)
            step //= 2
        return tf.gather(levels, last) + tf.gather(slopes, last) * (values - tf.gather(knots, last))


def fit_transform(
    config: TransformConfig, features: np.ndarray, *, missing_value: float | None = None
) -> Transform:
    """The transform whose statistics are those of `features` [docs, F], in bounded memory.

    Mean and standard deviation are exact float64 sums over blocks of rows; the deviation of a feature is 1e-6 of its
    magnitude, or 1 if that is less, where it would be smaller than that 1e-6: it is as good as constant. Quantiles are
    those of up to 2^24 values, of rows that are spread evenly.

    Raises:
      ValueError: `log_except` names a feature that is not there, or lacks one, such as a time in seconds since 1970,
        whose logarithms float32 cannot tell apart.
    """
    num_features = features.shape[1]
    plain = Transform(
        log1p=config.log1p,
        log_offset=config.log_offset or 0.0,
        signs=_log_signs(config, features),
        knots=np.zeros((num_features, 0), np.float32),
        levels=np.zeros((num_features, 0), np.float32),
        mean=np.zeros(num_features, np.float32),
        deviation=np.ones(num_features, np.float32),
        clip=None,
        missing_value=missing_value,
    )
    num_rows = min(len(features), max(1, _SAMPLE_VALUES // num_features))
    sample = features[np.linspace(0, len(features) - 1, num_rows).astype(np.int64)]
    if plain.log1p or plain.log_offset:
        _check_logs(config, plain, sample)
    if config.quantiles is not None:
        knots, levels = _quantile_knots(plain(sample), config.quantiles)
        plain = dataclasses.replace(plain, knots=knots, levels=levels)
    if not config.standardise:
        return dataclasses.replace(plain, clip=config.clip)
    mean = sum(plain(features[rows]).sum(0, dtype=np.float64) for rows in _blocks(features)) / len(features)
    square = sum(np.square(plain(features[rows]) - mean).sum(0) for rows in _blocks(features)) / len(features)
    deviation = np.sqrt(square)
    least = 1e-6 * np.maximum(np.abs(mean), 1e-30)
    deviation = np.where(deviation <= least, np.maximum(least, 1.0), deviation)
    return dataclasses.replace(
        plain, mean=mean.astype(np.float32), deviation=deviation.astype(np.float32), clip=config.clip
    )


def _blocks(features: np.ndarray) -> Iterator[slice]:
    num_rows = max(1, _BLOCK_VALUES // features.shape[1])
    return (slice(i, i + num_rows) for i in range(0, len(features), num_rows))


def _log_signs(config: TransformConfig, features: np.ndarray) -> np.ndarray:
    num_features = features.shape[1]
    wrong = [index for index in config.log_except if index > num_features]
    if wrong:
        raise UserError(
            f"data.transform.log_except names feature {wrong[0]}, but the data has {num_features}",
            fix="give numbers from 1 on, as in the files",
        )
    signs = np.ones(num_features, np.float32)
    if config.log_offset is not None:
        low = np.min([features[rows].min(0) for rows in _blocks(features)], axis=0)
        high = np.max([features[rows].max(0) for rows in _blocks(features)], axis=0)
        signs = np.select([low >= 0, high <= 0], [1, -1], 0).astype(np.float32)
    signs[np.array(config.log_except, np.int64) - 1] = 0
    return signs


def _check_logs(config: TransformConfig, plain: Transform, features: np.ndarray) -> None:
    """Raises ValueError where the logarithms lose what raw values [docs, F] differ by."""
    logs = plain(features)
    size, width = np.abs(logs).max(0), np.ptp(logs, axis=0)
    low, high = features.min(0), features.max(0)
    lost = 1 + np.flatnonzero((plain.signs != 0) & (width < _NARROW * size) & (low < high))
    if len(lost):
        first = lost[0]
        numbers = ",".join(map(str, sorted({*config.log_except, *lost.tolist()})))
        raise UserError(
            f"feature {first} goes from {low[first - 1]:.9g} to {high[first - 1]:.9g}, and "
            "float32 hardly tells the logarithms apart",
            fix=f"data.transform.log_except=[{numbers}]",
        )


def _quantile_knots(sample: np.ndarray, num_quantiles: int) -> tuple[np.ndarray, np.ndarray]:
    """Values [docs, F] -> knots and levels of Transform. Of quantiles with one value, the mean is its level."""
    num_features = sample.shape[1]
    num_knots = 1 << (num_quantiles - 1).bit_length()
    knots = np.empty((num_features, num_knots), np.float32)
    levels = np.empty_like(knots)
    shares = np.linspace(0, 1, num_quantiles)
    for feature in range(num_features):
        quantiles = np.quantile(sample[:, feature], shares).astype(np.float32)
        values, inverse = np.unique(quantiles, return_inverse=True)
        knots[feature], levels[feature] = values[-1], 0
        knots[feature, : len(values)] = values
        levels[feature, : len(values)] = np.bincount(inverse, shares) / np.bincount(inverse)
        levels[feature, len(values) :] = levels[feature, len(values) - 1]
    return knots, levels

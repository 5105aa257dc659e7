"""The named step between the teacher's raw scores and the loss: cap(scale * transform(t) + offset)."""

from __future__ import annotations

import itertools

import numpy as np

from pipeline.config import ScoresConfig


def _per_list(reduce: np.ufunc, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """`reduce` over each list, repeated for each of its documents: [docs] -> [docs]."""
    return np.repeat(reduce.reduceat(values, offsets[:-1]), np.diff(offsets))


def zscore(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Each list's scores with mean 0 and standard deviation 1; zeros where they are all equal. [docs] -> [docs]."""
    sizes = np.repeat(np.diff(offsets), np.diff(offsets))
    centred = scores - _per_list(np.add, scores, offsets) / sizes
    deviation = np.sqrt(_per_list(np.add, centred**2, offsets) / sizes)
    # A list of equal scores says nothing: all zeros.
    constant = deviation <= 1e-12 * _per_list(np.maximum, np.abs(scores), offsets)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, deviation))


def _rank(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """-log2(1 + rank), rank 1 the best, ties share their mean rank."""
    from scipy import stats  # takes half a second to import

    ranks = np.concatenate([stats.rankdata(-scores[a:b]) for a, b in itertools.pairwise(offsets)])
    return -np.log2(1.0 + ranks)


def mean_entropy(scores: np.ndarray, offsets: np.ndarray) -> float:
    """Mean over lists of the entropy of softmax(scores), in nats; scores [docs]."""
    shifted = scores - _per_list(np.maximum, scores, offsets)
    weights = np.exp(shifted)
    total = _per_list(np.add, weights, offsets)
    share = weights / total
    return float(np.add.reduceat(share * (np.log(total) - shifted), offsets[:-1]).mean())


def _base(config: ScoresConfig, scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    match config.transform:
        case "shift_min":
            return scores - _per_list(np.minimum, scores, offsets)
        case "zscore":
            return zscore(scores, offsets)
        case "rank":
            return _rank(scores, offsets)
    return scores


def entropy_matched_scale(target: float, scores: np.ndarray, offsets: np.ndarray) -> float:
    """The scale that gives the lists a mean softmax entropy of `target` nats, by bisection.

    Raises:
      ValueError: no scale between 1e-6 and 1e6 does.
    """
    from scipy import optimize

    def excess(log_scale: float) -> float:
        return mean_entropy(np.exp(log_scale) * scores, offsets) - target

    low, high = np.log(1e-6), np.log(1e6)
    if excess(low) < 0 or excess(high) > 0:
        raise ValueError(
            f"teacher.scores.entropy={target} cannot be reached: these scores can have "
            f"{excess(high) + target:.3g} to {excess(low) + target:.3g} nats"
        )
    return float(np.exp(optimize.bisect(excess, low, high, xtol=1e-9)))


def transform_scores(
    config: ScoresConfig, scores: np.ndarray, offsets: np.ndarray, *, num_fitted: int | None = None
) -> np.ndarray:
    """Teacher logits for the loss.

    Args:
      config: which transform.
      scores: [docs], the raw scores, any sign and range.
      offsets: int64 [queries + 1].
      num_fitted: lists, from the first on, that the scale of an entropy is fitted to; None: all.

    Returns:
      float32 [docs].

    Raises:
      ValueError: scores do not fit the offsets or are not finite.
    """
    if scores.shape != (offsets[-1],):
        raise ValueError(f"{len(scores)} teacher scores for {offsets[-1]} documents")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"teacher score {scores[row]} of row {row} is not a finite number")
    base = _base(config, scores, offsets)
    scale = config.scale
    if config.entropy is not None:
        fitted = offsets if num_fitted is None else offsets[: num_fitted + 1]
        scale = entropy_matched_scale(config.entropy, base[: fitted[-1]], fitted)
    logits = scale * base + config.offset
    if config.cap is not None:
        logits = np.maximum(logits, _per_list(np.maximum, logits, offsets) - config.cap)
    return logits.astype(np.float32)

"""From the teacher's raw scores t to the logits of the loss: cap(scale * transform(t) + offset)."""

from __future__ import annotations

import itertools
import logging

import numpy as np
from scipy import optimize, stats

from pipeline.config import ConfigError, ScoresConfig
from pipeline.errors import UserError

log = logging.getLogger(__name__)


def _per_list(reduce: np.ufunc, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """`reduce` over each list, repeated for each of its documents: [docs] -> [docs]."""
    return np.repeat(reduce.reduceat(values, offsets[:-1]), np.diff(offsets))


def _is_constant(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """bool [lists]: all scores of the list are equal within float64 rounding."""
    low, high = (reduce.reduceat(scores, offsets[:-1]) for reduce in (np.minimum, np.maximum))
    return high - low <= 1e-12 * np.maximum(np.abs(low), np.abs(high))


def check_teacher_ranks(scores: np.ndarray, offsets: np.ndarray, split: str) -> None:
    """Checks that the teacher tells documents apart. A list of one document says nothing and does not count.

    Args:
      scores: [docs], raw.
      offsets: [queries + 1].
      split: named in the messages.

    Raises:
      UserError: every list has equal scores only. From half of the lists on it is a warning.
    """
    several = np.diff(offsets) > 1
    num_tied = int((_is_constant(scores, offsets) & several).sum())
    num_lists = int(several.sum())
    if 2 * num_tied < num_lists or not num_lists:
        return
    where = f"teacher scores of the {split} split"
    fix = (
        "give teacher=lambdamart more data or a smaller teacher.min_docs_in_leaf; for teacher=run_file check that the "
        "file holds the scores of the model"
    )
    if num_tied == num_lists:
        raise UserError(
            f"the teacher ranks nothing: in each of the {num_lists:,} queries all documents have the same score",
            where=where,
            fix=fix,
        )
    log.warning(
        "%s: THE TEACHER RANKS LITTLE: in %s of %s queries all documents have the same score, so a student learns "
        "nothing from them. Fix: %s",
        where,
        f"{num_tied:,}",
        f"{num_lists:,}",
        fix,
    )


def zscore(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Each list's scores with mean 0 and standard deviation 1; zeros where they are all equal. [docs] -> [docs]."""
    sizes = np.diff(offsets)
    mean = np.repeat(np.add.reduceat(scores, offsets[:-1]) / sizes, sizes)
    variance = np.add.reduceat((scores - mean) ** 2, offsets[:-1]) / sizes
    constant = np.repeat(_is_constant(scores, offsets), sizes)
    deviation = np.sqrt(np.repeat(variance, sizes))
    return np.where(constant, 0.0, (scores - mean) / np.where(constant, 1.0, deviation))


def _rank(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """-log2(1 + rank), where rank 1 is the best and tied documents share their mean rank."""
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
      ConfigError: no scale between 1e-6 and 1e6 does.
    """

    def excess(log_scale: float) -> float:
        return mean_entropy(np.exp(log_scale) * scores, offsets) - target

    low, high = np.log(1e-6), np.log(1e6)
    if excess(low) < 0 or excess(high) > 0:
        raise ConfigError(
            f"no scale gives these scores that entropy; they can have {excess(high) + target:.3g} to "
            f"{excess(low) + target:.3g} nats",
            where=f"teacher.scores.entropy={target}",
            fix="give a number in this range",
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
      num_fitted: the entropy is that of the first `num_fitted` lists; None: of all.

    Returns:
      float32 [docs].

    Raises:
      ValueError: scores that do not fit the offsets or are not finite.
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

"""Normalised discounted cumulative gain.

Järvelin and Kekäläinen, ACM TOIS 2002, with the gain of Burges et al., ICML 2005.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pipeline.metrics.ranked import NoRelevant, RankedLists, Ties, fill_blank, rank_lists, rank_padded


def ranked_ndcg(ranked: RankedLists, *, cutoff: int | None = 10) -> np.ndarray:
    """NDCG of each list, float64 [lists]; NaN for a blank list. See `ndcg` for the formula."""
    top = ranked.within(cutoff)
    discounts = 1 / np.log2(1 + ranked.rank[top])
    # Every order of tied documents is equally likely, so the expected gain at each of their ranks is their mean gain.
    gains = ranked.mean_over_ties(np.exp2(ranked.labels) - 1)
    dcg = ranked.sum_by_list(gains[top] * discounts, top)
    ideal = ranked.sum_by_list((np.exp2(ranked.ideal_labels[top]) - 1) * discounts, top)
    return np.where(ideal > 0, dcg / np.where(ideal > 0, ideal, 1), np.nan)


def mean_ndcg(
    scores: ArrayLike,
    labels: ArrayLike,
    offsets: ArrayLike,
    *,
    cutoffs: Sequence[int] = (1, 5, 10),
    ties: Ties = "average",
) -> dict[str, float]:
    """`ndcg@k` for each cut-off: the mean over the lists with a relevant document, NaN where no list has one.

    Arguments and errors as `rank_lists`.

    >>> mean_ndcg([1.0, 2.0, 0.0], [0, 1, 0], [0, 2, 3], cutoffs=[1])
    {'ndcg@1': 1.0}
    """
    ranked = rank_lists(scores, labels, offsets, ties=ties)
    judged = ranked.num_relevant > 0
    if not judged.any():
        return {f"ndcg@{k}": np.nan for k in cutoffs}
    return {f"ndcg@{k}": float(ranked_ndcg(ranked, cutoff=k)[judged].mean()) for k in cutoffs}


def ndcg(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    cutoff: int | None = 10,
    no_relevant: NoRelevant = "skip",
    ties: Ties = "average",
) -> np.ndarray:
    """NDCG of each list.

        DCG@k = sum over ranks r = 1..k of (2^label_r - 1) / log2(1 + r)
        NDCG@k = DCG@k / (DCG@k of the documents sorted by descending label)

    Args:
      scores: [lists, list_size], or [list_size] for a single list; a higher score is a better rank.
      labels: as scores; graded relevance in 0..1000.
      mask: as scores, true where there is a document; None for no padding. Padding may hold anything.
      cutoff: k; None for the full list.
      no_relevant: the value of a blank list, which has no label above 0 (or no document at all):
        `skip` gives NaN (Qin et al. 2021, gdeval.pl), `zero` 0 (tfr, sklearn, trec_eval), `one` 1 (LightGBM,
        XGBoost).
      ties: the rule for equal scores: their `average` value over all orders, the order of the rows (`index`), or the
        lower label first (`pessimistic`).

    Returns:
      float64 [lists].

    Raises:
      ValueError: shapes that do not match, scores that are not finite, labels out of range, unknown options.

    >>> ndcg([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], [[0, 1, 2], [0, 0, 0]], no_relevant="zero").round(6).tolist()
    [0.586883, 0.0]
    >>> ndcg([5.0, 5.0], [1, 0], cutoff=1).tolist()
    [0.5]
    """
    ranked = rank_padded(scores, labels, mask, ties=ties)
    return fill_blank(ranked_ndcg(ranked, cutoff=cutoff), no_relevant)

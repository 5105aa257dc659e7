"""Normalised discounted cumulative gain.

Järvelin and Kekäläinen, ACM TOIS 2002, with the gain of Burges et al., ICML 2005.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pipeline.metrics.ranked import NoRelevant, RankedLists, Ties, fill_blank, rank_padded


def ranked_ndcg(ranked: RankedLists, *, cutoff: int | None = 10) -> np.ndarray:
    """NDCG of each list, float64 [lists]; NaN for a blank list. The formula is that of `ndcg`."""
    dcg = _dcg(ranked, ranked.labels, cutoff)
    ideal = _dcg(ranked, ranked.ideal_labels, cutoff)
    return np.where(ideal > 0, dcg / np.where(ideal > 0, ideal, 1), np.nan)


def _dcg(ranked: RankedLists, labels: np.ndarray, cutoff: int | None) -> np.ndarray:
    top = ranked.within(cutoff)
    return ranked.sum_by_list((np.exp2(labels[top]) - 1) / np.log2(1 + ranked.rank[top]), top)


def ndcg(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    cutoff: int | None = 10,
    no_relevant: NoRelevant = "skip",
    ties: Ties = "index",
) -> np.ndarray:
    """NDCG of each list.

        DCG@k = sum over ranks r = 1..k of (2^label_r - 1) / log2(1 + r)
        NDCG@k = DCG@k / (DCG@k of the documents sorted by falling label)

    Args:
      scores: [lists, list_size], or [list_size] for a single list; a higher score is a better rank.
      labels: as scores; graded relevance >= 0.
      mask: as scores, true where there is a document; None for no padding. Padding may hold anything.
      cutoff: k; None for the full list.
      no_relevant: what a list without a label above 0 (a blank list; an all-masked one as well) counts as:
        `skip` gives NaN (Qin et al. 2021, gdeval.pl), `zero` 0 (tfr, sklearn, trec_eval), `one` 1 (LightGBM,
        XGBoost).
      ties: equal scores rank by position (`index`), or the lower label first (`pessimistic`).

    Returns:
      float64 [lists].

    Raises:
      ValueError: shapes that do not match, scores that are not finite, negative labels, unknown options.

    >>> ndcg([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], [[0, 1, 2], [0, 0, 0]], no_relevant="zero").round(6).tolist()
    [0.586883, 0.0]
    """
    ranked = rank_padded(scores, labels, mask, ties=ties)
    return fill_blank(ranked_ndcg(ranked, cutoff=cutoff), no_relevant)

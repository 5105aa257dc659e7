"""Reciprocal rank, average precision and expected reciprocal rank.

The first two know only relevant (label > 0) and not relevant.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pipeline.metrics.ranked import NoRelevant, RankedLists, Ties, fill_blank, rank_padded


def ranked_mrr(ranked: RankedLists, *, cutoff: int | None = 10) -> np.ndarray:
    """Reciprocal rank of each list, float64 [lists]; NaN for a blank list."""
    first = (ranked.labels > 0) & (_relevant_so_far(ranked) == 1)
    top = ranked.within(cutoff)
    return _blank_to_nan(ranked, ranked.sum_by_list(first[top] / ranked.rank[top], top))


def ranked_average_precision(ranked: RankedLists, *, cutoff: int | None = None) -> np.ndarray:
    """Average precision of each list, float64 [lists]; NaN for a blank list."""
    precision = (ranked.labels > 0) * _relevant_so_far(ranked) / ranked.rank
    top = ranked.within(cutoff)
    return _blank_to_nan(ranked, ranked.sum_by_list(precision[top], top) / np.maximum(ranked.num_relevant, 1))


def ranked_err(ranked: RankedLists, *, cutoff: int | None = 10, max_grade: float = 4) -> np.ndarray:
    """Expected reciprocal rank of each list, float64 [lists]; NaN for a blank list."""
    highest = ranked.labels.max(initial=0)
    if highest > max_grade:
        raise ValueError(f"max_grade={max_grade}: a label is {highest:g}; give the data's highest grade")
    ranked.within(cutoff)  # checks it
    satisfied = (np.exp2(ranked.labels) - 1) / 2.0**max_grade
    sizes = np.diff(ranked.offsets)
    value, unsatisfied = np.zeros(ranked.num_lists), np.ones(ranked.num_lists)
    depth = int(sizes.max(initial=0)) if cutoff is None else min(cutoff, int(sizes.max(initial=0)))
    for place in range(depth):  # down the ranks, all lists at once: no [lists, longest list] table
        lists = np.flatnonzero(sizes > place)
        p = satisfied[ranked.offsets[lists] + place]
        value[lists] += unsatisfied[lists] * p / (place + 1)
        unsatisfied[lists] *= 1 - p
    return _blank_to_nan(ranked, value)


def _relevant_so_far(ranked: RankedLists) -> np.ndarray:
    """int64 [docs]: relevant documents of the list up to and with this rank."""
    so_far: np.ndarray = np.cumsum(ranked.labels > 0)
    so_far -= np.concatenate([[0], so_far])[ranked.offsets[ranked.list_of_doc]]
    return so_far


def _blank_to_nan(ranked: RankedLists, values: np.ndarray) -> np.ndarray:
    return np.where(ranked.num_relevant > 0, values, np.nan)


def mrr(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    cutoff: int | None = 10,
    no_relevant: NoRelevant = "skip",
    ties: Ties = "index",
) -> np.ndarray:
    """Reciprocal rank of each list (Voorhees, TREC-8 1999); its mean over lists is MRR.

        RR@k = 1 / (rank of the first document with label > 0), and 0 where that rank is above k

    Arguments, shapes and errors as `pipeline.metrics.ndcg`.

    >>> mrr([[3.0, 2.0, 1.0]], [[0, 1, 2]]).tolist()
    [0.5]
    """
    ranked = rank_padded(scores, labels, mask, ties=ties)
    return fill_blank(ranked_mrr(ranked, cutoff=cutoff), no_relevant)


def average_precision(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    cutoff: int | None = None,
    no_relevant: NoRelevant = "skip",
    ties: Ties = "index",
) -> np.ndarray:
    """Average precision of each list; its mean over lists is MAP.

        AP@k = sum over the relevant (label > 0) ranks r = 1..k of (relevant documents up to r) / r,
               divided by all the relevant documents of the list, as trec_eval's map and map_cut do

    Arguments, shapes and errors as `pipeline.metrics.ndcg`.

    >>> average_precision([[3.0, 2.0, 1.0]], [[0, 1, 2]]).round(6).tolist()
    [0.583333]
    """
    ranked = rank_padded(scores, labels, mask, ties=ties)
    return fill_blank(ranked_average_precision(ranked, cutoff=cutoff), no_relevant)


def err(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    cutoff: int | None = 10,
    max_grade: float = 4,
    no_relevant: NoRelevant = "skip",
    ties: Ties = "index",
) -> np.ndarray:
    """Expected reciprocal rank of each list (Chapelle et al., CIKM 2009).

        ERR@k = sum over ranks r = 1..k of R_r / r * product over i < r of (1 - R_i)
        R_r = (2^label_r - 1) / 2^max_grade

    Arguments, shapes and errors as `pipeline.metrics.ndcg`; a label above `max_grade` is an error too.

    >>> err([[3.0, 2.0, 1.0]], [[0, 1, 2]], max_grade=2).tolist()
    [0.3125]
    """
    ranked = rank_padded(scores, labels, mask, ties=ties)
    return fill_blank(ranked_err(ranked, cutoff=cutoff, max_grade=max_grade), no_relevant)

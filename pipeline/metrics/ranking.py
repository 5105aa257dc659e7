"""Reciprocal rank, average precision and expected reciprocal rank.

For the first two a document is relevant (label > 0) or not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pipeline.metrics.ranked import NoRelevant, RankedLists, Ties, fill_blank, rank_padded


def ranked_mrr(ranked: RankedLists, *, cutoff: int | None = 10) -> np.ndarray:
    """Reciprocal rank of each list, float64 [lists]; NaN for a blank list."""
    return _expected_reciprocal_rank(ranked, (ranked.labels > 0).astype(np.float64), cutoff)


def ranked_err(ranked: RankedLists, *, cutoff: int | None = 10, max_grade: float = 4) -> np.ndarray:
    """Expected reciprocal rank of each list, float64 [lists]; NaN for a blank list."""
    highest = ranked.labels.max(initial=0)
    if highest > max_grade:
        raise ValueError(f"max_grade={max_grade}: a label is {highest:g}; give the data's highest grade")
    return _expected_reciprocal_rank(ranked, (np.exp2(ranked.labels) - 1) / 2.0**max_grade, cutoff)


def _expected_reciprocal_rank(ranked: RankedLists, stops: np.ndarray, cutoff: int | None) -> np.ndarray:
    """The mean of 1 / rank where a user stops who reads down a list, float64 [lists]; NaN for a blank list.

    `stops` [docs] is the probability to stop at a document that the user has reached. Reading on past j documents of a
    tie group has the mean probability m_j = mean over all choices of j documents of the product of (1 - stops), so
    the user stops at the j-th of them with probability m_(j-1) - m_j.
    """
    ranked.within(cutoff)  # checks the cut-off
    depth = np.inf if cutoff is None else cutoff
    first_rank = ranked.rank[ranked.group_start]
    groups = np.flatnonzero(first_rank <= depth)
    group_list = ranked.list_of_doc[ranked.group_start[groups]]
    num_groups = np.bincount(group_list, minlength=ranked.num_lists)
    first_group = np.searchsorted(group_list, np.arange(ranked.num_lists))
    value, reached = np.zeros(ranked.num_lists), np.ones(ranked.num_lists)
    for number in range(num_groups.max(initial=0)):  # down the groups, all lists at once
        lists = np.flatnonzero(num_groups > number)
        group = groups[first_group[lists] + number]
        size = ranked.group_size[group][:, np.newaxis]
        width = int(min(size.max(), depth))
        read_on = _mean_products(1 - stops, ranked.group_start[group], size[:, 0], width)
        place = np.arange(width)
        rank = first_rank[group][:, np.newaxis] + place
        stop = np.where((place < size) & (rank <= depth), read_on[:, :-1] - read_on[:, 1:], 0)
        value[lists] += reached[lists] * (stop / rank).sum(axis=1)
        reached[lists] *= np.take_along_axis(read_on, np.minimum(size, width), axis=1)[:, 0]
    return np.where(ranked.num_relevant > 0, value, np.nan)


def _mean_products(values: np.ndarray, start: np.ndarray, size: np.ndarray, width: int) -> np.ndarray:
    """float64 [groups, width + 1]: column j is the mean product of j different values of `start:start + size`.

    The n-th value v of a group changes these means to m_j = ((n - j) * m_j + j * v * m_(j-1)) / n.
    """
    means = np.zeros((len(start), width + 1))
    means[:, 0] = 1
    j = np.arange(1, width + 1)
    for n in range(1, int(size.max()) + 1):
        groups = np.flatnonzero(size >= n)
        value = values[start[groups] + n - 1][:, np.newaxis]
        means[groups, 1:] = (np.maximum(n - j, 0) * means[groups, 1:] + j * value * means[groups, :-1]) / n
    return means


def ranked_average_precision(ranked: RankedLists, *, cutoff: int | None = None) -> np.ndarray:
    """Average precision of each list, float64 [lists]; NaN for a blank list."""
    relevant = ranked.labels > 0
    start, size = ranked.group_start[ranked.tie_group], ranked.group_size[ranked.tie_group]
    before = np.concatenate([[0], np.cumsum(relevant)])
    before_group = before[start] - before[ranked.offsets[ranked.list_of_doc]]
    share = ranked.mean_over_ties(relevant)  # probability that the document at a place is relevant
    # Given that, each earlier document of its tie group is one of the other size - 1, of which share * size - 1 are.
    others = (np.arange(len(start)) - start) * (share * size - 1) / np.maximum(size - 1, 1)
    precision = share * (before_group + 1 + others) / ranked.rank
    top = ranked.within(cutoff)
    value = ranked.sum_by_list(precision[top], top) / np.maximum(ranked.num_relevant, 1)
    return np.where(ranked.num_relevant > 0, value, np.nan)


def mrr(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    cutoff: int | None = 10,
    no_relevant: NoRelevant = "skip",
    ties: Ties = "average",
) -> np.ndarray:
    """Reciprocal rank of each list (Voorhees, TREC-8 1999); its mean over lists is MRR.

        RR@k = 1 / (rank of the first document with label > 0), and 0 where that rank is above k

    Arguments, shapes, ties and errors as `pipeline.metrics.ndcg`.

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
    ties: Ties = "average",
) -> np.ndarray:
    """Average precision of each list; its mean over lists is MAP.

        AP@k = sum over the relevant (label > 0) ranks r = 1..k of (relevant documents up to r) / r,
               divided by the number of relevant documents in the full list, as trec_eval's map and map_cut do

    Arguments, shapes, ties and errors as `pipeline.metrics.ndcg`.

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
    ties: Ties = "average",
) -> np.ndarray:
    """Expected reciprocal rank of each list (Chapelle et al., CIKM 2009).

        ERR@k = sum over ranks r = 1..k of R_r / r * product over i < r of (1 - R_i)
        R_r = (2^label_r - 1) / 2^max_grade

    Arguments, shapes, ties and errors as `pipeline.metrics.ndcg`; a label above `max_grade` is an error too.

    >>> err([[3.0, 2.0, 1.0]], [[0, 1, 2]], max_grade=2).tolist()
    [0.3125]
    """
    ranked = rank_padded(scores, labels, mask, ties=ties)
    return fill_blank(ranked_err(ranked, cutoff=cutoff, max_grade=max_grade), no_relevant)

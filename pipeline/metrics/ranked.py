"""Ranks the documents of every list by score, once for all metrics and cut-offs, with a rule for ties."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

Ties = Literal["average", "index", "pessimistic"]
NoRelevant = Literal["skip", "zero", "one"]

_BLANK_VALUE = {"skip": np.nan, "zero": 0.0, "one": 1.0}
_MAX_LABEL = 1000.0  # the sum of 2^label over a list must stay finite in float64


@dataclasses.dataclass(frozen=True, eq=False)
class RankedLists:
    """All lists, one after the other, each with its best document first.

    A place is an index into these arrays.

    Attributes:
      order: int64 [docs], the row of the data at each place.
      labels: float64 [docs], the label at each place.
      list_of_doc: int64 [docs], the list of each place, ascending.
      rank: int64 [docs], 1 for the first document of a list.
      offsets: int64 [lists + 1]; list q has the places `offsets[q]:offsets[q + 1]` and may be empty.
      tie_group: int64 [docs], ascending from 0 without gaps. Metrics average over all orders of the documents of a
        group. With the rules `index` and `pessimistic` each document has a group of its own.
    """

    order: np.ndarray
    labels: np.ndarray
    list_of_doc: np.ndarray
    rank: np.ndarray
    offsets: np.ndarray
    tie_group: np.ndarray

    @property
    def num_lists(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def ideal_labels(self) -> np.ndarray:
        """float64 [docs]: the labels of each list, highest first."""
        return self.labels[np.lexsort((-self.labels, self.list_of_doc))]

    @functools.cached_property
    def num_relevant(self) -> np.ndarray:
        """int64 [lists]: documents with label > 0."""
        return self.sum_by_list(self.labels > 0).astype(np.int64)

    @functools.cached_property
    def group_start(self) -> np.ndarray:
        """int64 [groups]: the first place of each tie group."""
        return np.flatnonzero(np.diff(self.tie_group, prepend=-1))

    @functools.cached_property
    def group_size(self) -> np.ndarray:
        """int64 [groups]: the number of documents in each tie group."""
        return np.bincount(self.tie_group)

    def mean_over_ties(self, values: np.ndarray) -> np.ndarray:
        """float64 [docs]: for each place the mean of `values` [docs] over its tie group."""
        means: np.ndarray = (np.bincount(self.tie_group, weights=values) / self.group_size)[self.tie_group]
        return means

    def sum_by_list(self, values: np.ndarray, places: np.ndarray | slice = slice(None)) -> np.ndarray:
        """float64 [lists]: the sum over each list of `values`, which has one value for each of `places`."""
        sums: np.ndarray = np.bincount(self.list_of_doc[places], weights=values, minlength=self.num_lists)
        return sums

    def within(self, cutoff: int | None) -> np.ndarray | slice:
        """The places with a rank up to `cutoff`.

        Raises:
          ValueError: a cut-off below 1.
        """
        if cutoff is None:
            return slice(None)
        if cutoff < 1:
            raise ValueError(f"cutoff={cutoff}: must be 1 or more, or None for the full list")
        return self.rank <= cutoff


def rank_lists(
    scores: ArrayLike, labels: ArrayLike, offsets: ArrayLike, *, ties: Ties = "average"
) -> RankedLists:
    """Sorts the documents of each list by descending score.

    Args:
      scores: [docs]. Every floating-point type up to 64 bits is compared at its full precision.
      labels: [docs], in 0..1000.
      offsets: integers [lists + 1] from 0 to docs, as in `RankingData`; empty lists are allowed here.
      ties: the rule for documents with equal scores. `average`: each metric is its expected value over all orders of
        these documents (McSherry and Najork, ECIR 2008; scikit-learn's `ndcg_score`). `index`: they keep the order of
        the rows. `pessimistic`: the lower label comes first.

    Raises:
      ValueError: shapes that do not match, a score that is not finite, a label out of range, an unknown rule.

    >>> rank_lists([1.0, 2.0, 5.0, 5.0], [0, 1, 1, 0], [0, 2, 4], ties="pessimistic").order.tolist()
    [1, 0, 3, 2]
    """
    scores = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.float64)
    offsets = np.asarray(offsets, dtype=np.int64)
    if ties not in get_args(Ties):
        raise ValueError(f"ties={ties!r}: must be one of {', '.join(get_args(Ties))}")
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must both be [docs]")
    sizes = np.diff(offsets)
    if offsets.ndim != 1 or not len(offsets) or offsets[0] or offsets[-1] != len(scores) or (sizes < 0).any():
        raise ValueError(f"offsets must be [lists + 1] and rise from 0 to the {len(scores)} documents")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"scores must be finite; document {row} has {scores[row]}")
    invalid = np.flatnonzero(~((labels >= 0) & (labels <= _MAX_LABEL)))  # NaN is invalid too
    if len(invalid):
        row = int(invalid[0])
        raise ValueError(
            f"labels must be 0..{_MAX_LABEL:.0f} (mask padding); document {row} has {labels[row]}"
        )

    list_of_doc = np.repeat(np.arange(len(sizes)), sizes)
    keys = (labels, -scores, list_of_doc) if ties == "pessimistic" else (-scores, list_of_doc)
    order = np.lexsort(keys)  # stable, so the row decides last
    rank = np.arange(1, len(scores) + 1) - offsets[list_of_doc]
    tie_group = np.arange(len(scores))
    if ties == "average":
        tie_group = np.cumsum((rank == 1) | (np.diff(scores[order], prepend=np.nan) != 0)) - 1
    return RankedLists(order, labels[order], list_of_doc, rank, offsets, tie_group)


def rank_padded(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, *, ties: Ties = "average"
) -> RankedLists:
    """`rank_lists` for padded lists [lists, list_size] or for one list [list_size]; `mask` is true where a document is.

    Raises:
      ValueError: as `rank_lists`, and for shapes that differ or have more dimensions.
    """
    scores = np.atleast_1d(np.asarray(scores, dtype=np.float64))
    labels = np.atleast_1d(np.asarray(labels, dtype=np.float64))
    valid = np.ones(scores.shape, dtype=bool) if mask is None else np.atleast_1d(np.asarray(mask, dtype=bool))
    if scores.shape != labels.shape or scores.shape != valid.shape or scores.ndim > 2:
        raise ValueError(
            f"scores {scores.shape}, labels {labels.shape} and mask {valid.shape} must all be "
            "[lists, list_size], or [list_size] for a single list"
        )
    offsets = np.concatenate([[0], np.cumsum(np.atleast_2d(valid).sum(axis=1))])
    return rank_lists(scores[valid], labels[valid], offsets, ties=ties)


def fill_blank(values: np.ndarray, no_relevant: NoRelevant) -> np.ndarray:
    """Replaces NaN in `values` [lists], the value of a list without a relevant document, by what the convention says.

    Raises:
      ValueError: an unknown convention.
    """
    if no_relevant not in _BLANK_VALUE:
        raise ValueError(f"no_relevant={no_relevant!r}: must be one of {', '.join(_BLANK_VALUE)}")
    return np.where(np.isnan(values), _BLANK_VALUE[no_relevant], values)

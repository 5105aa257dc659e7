"""The order that scores give to every list: found once, shared by all metrics and cut-offs."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

Ties = Literal["index", "pessimistic"]
NoRelevant = Literal["skip", "zero", "one"]

_BLANK_VALUE = {"skip": np.nan, "zero": 0.0, "one": 1.0}
_MAX_LABEL = 1000.0  # 2^label, summed over a list, must stay finite in float64


@dataclasses.dataclass(frozen=True, eq=False)
class RankedLists:
    """Full lists one after the other, each with its best document first.

    Attributes:
      order: int64 [docs], the row of the data that stands at each place.
      labels: float64 [docs], the labels in that order.
      list_of_doc: int64 [docs], rising.
      rank: int64 [docs], 1 for the first document of a list.
      offsets: int64 [lists + 1]; list q is the places `offsets[q]:offsets[q + 1]` and may be empty.
    """

    order: np.ndarray
    labels: np.ndarray
    list_of_doc: np.ndarray
    rank: np.ndarray
    offsets: np.ndarray

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
    def rank_of_row(self) -> np.ndarray:
        """int64 [docs]: the rank of each row of the data."""
        ranks = np.empty_like(self.rank)
        ranks[self.order] = self.rank
        return ranks

    def sum_by_list(self, values: np.ndarray, places: np.ndarray | slice = slice(None)) -> np.ndarray:
        """float64 [lists]: sums over each list of `values`, one for each of `places`; 0 for an empty list."""
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
    scores: ArrayLike, labels: ArrayLike, offsets: ArrayLike, *, ties: Ties = "index"
) -> RankedLists:
    """Sorts the documents of each list by falling score.

    Equal scores: `ties="index"` keeps the order of the rows; `ties="pessimistic"` puts the lower label first,
    then the earlier row. Every floating-point type up to 64 bits is compared at its full precision.

    Args:
      scores: [docs].
      labels: [docs], in 0..1000.
      offsets: integers [lists + 1] from 0 to docs, as in `RankingData`; empty lists are allowed here.
      ties: the rule for equal scores.

    Raises:
      ValueError: shapes that do not match, a score that is not finite, a label out of its range, an unknown
        rule.

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
    broken = ~((labels >= 0) & (labels <= _MAX_LABEL))  # true for NaN as well
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        raise ValueError(
            f"labels must be 0..{_MAX_LABEL:.0f} (mask padding); document {row} has {labels[row]}"
        )

    list_of_doc = np.repeat(np.arange(len(sizes)), sizes)
    keys = (-scores, list_of_doc) if ties == "index" else (labels, -scores, list_of_doc)
    order = np.lexsort(keys)  # stable, so the row decides last
    rank = np.arange(1, len(scores) + 1) - offsets[list_of_doc]
    return RankedLists(order, labels[order], list_of_doc, rank, offsets)


def rank_padded(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, *, ties: Ties = "index"
) -> RankedLists:
    """`rank_lists` of the documents that `mask` keeps of [lists, list_size], or of one list [list_size].

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
    """`values` [lists] with its NaN (lists without a relevant document) as the convention counts them.

    Raises:
      ValueError: an unknown convention.
    """
    if no_relevant not in _BLANK_VALUE:
        raise ValueError(f"no_relevant={no_relevant!r}: must be one of {', '.join(_BLANK_VALUE)}")
    return np.where(np.isnan(values), _BLANK_VALUE[no_relevant], values)

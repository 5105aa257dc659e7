"""What a teacher with a model can do: score lists of raw features."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from pipeline.data import RankingData
from pipeline.errors import UserError
from pipeline.teacher.scores import zscore

_DOCS = 1 << 16  # documents scored at a time, in complete lists


class Model(Protocol):
    """A model on raw features: features float32 [docs, F], offsets int64 [lists + 1] -> scores [docs]."""

    num_parameters: int | None

    def __call__(self, features: np.ndarray, offsets: np.ndarray | None = None, /) -> np.ndarray: ...


class Ensemble:
    """The mean of the members' scores, standardised within each list."""

    def __init__(self, members: Sequence[Model]) -> None:
        self.members = members
        parameters = [member.num_parameters for member in members]
        self.num_parameters = None if None in parameters else sum(p for p in parameters if p is not None)

    def __call__(self, features: np.ndarray, offsets: np.ndarray | None = None, /) -> np.ndarray:
        assert offsets is not None, "standardises within lists"
        return mean_zscore([np.asarray(m(features, offsets), np.float64) for m in self.members], offsets)


def mean_zscore(scores: Sequence[np.ndarray], offsets: np.ndarray) -> np.ndarray:
    """The mean of several models' scores [docs], each standardised within its lists; float64 [docs]."""
    mean: np.ndarray = np.mean([zscore(values, offsets) for values in scores], axis=0)
    return mean


def score_lists(
    model: Model, lists: RankingData, where: str, scored: Callable[[int], None] = lambda num_docs: None
) -> np.ndarray:
    """The model's raw scores, float64 [docs].

    Args:
      model: see `Model`.
      lists: with raw features.
      where: names the model and the lists in messages.
      scored: called with the number of documents scored so far.

    Raises:
      UserError: a score is not finite.
    """
    scores = np.empty(lists.num_docs)
    starts = np.searchsorted(lists.offsets, np.arange(0, lists.num_docs, _DOCS), side="right") - 1
    for first, last in itertools.pairwise([*np.unique(starts).tolist(), lists.num_queries]):
        a, b = lists.offsets[first], lists.offsets[last]
        scores[a:b] = model(lists.features[a:b], lists.offsets[first : last + 1] - a)
        scored(int(b))
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise UserError(
            f"the score of document {row} is {scores[row]}",
            where=where,
            fix="a teacher must give every document a finite score",
        )
    return scores

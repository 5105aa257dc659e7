"""All metrics of one model on one split, per query, their means, and how far ties matter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from pipeline.metrics.ndcg import ranked_ndcg
from pipeline.metrics.ranked import Ties, fill_blank, rank_lists
from pipeline.metrics.ranking import ranked_average_precision, ranked_err, ranked_mrr


def ranking_metrics(
    scores: ArrayLike,
    labels: ArrayLike,
    offsets: ArrayLike,
    *,
    cutoffs: Sequence[int] = (1, 5, 10),
    max_grade: float = 4,
    ties: Ties = "average",
) -> dict[str, np.ndarray]:
    """Per-query values of every metric, from one sort of the documents.

    Args:
      scores: [docs], in the layout of `RankingData`; full lists.
      labels: [docs].
      offsets: [queries + 1].
      cutoffs: the k of each `ndcg@k`.
      max_grade: the highest grade of the data set, for ERR.
      ties: the rule for equal scores, as in `pipeline.metrics.ndcg`.

    Returns:
      `ndcg@k` for each cut-off, `mrr@10`, `map` (full list) and `err@10`, each float64 [queries], NaN for a
      query without a label above 0. MRR and MAP take label > 0 as relevant.

    Raises:
      ValueError: as `rank_lists`; a cut-off below 1; a label above `max_grade`.

    >>> {name: float(v[0]) for name, v in ranking_metrics([2.0, 1.0], [0, 1], [0, 2], cutoffs=[1]).items()}
    {'ndcg@1': 0.0, 'mrr@10': 0.5, 'map': 0.5, 'err@10': 0.03125}
    """
    ranked = rank_lists(scores, labels, offsets, ties=ties)
    values = {f"ndcg@{cutoff}": ranked_ndcg(ranked, cutoff=cutoff) for cutoff in cutoffs}
    values["mrr@10"] = ranked_mrr(ranked)
    values["map"] = ranked_average_precision(ranked)
    values["err@10"] = ranked_err(ranked, max_grade=max_grade)
    return values


def summarise(per_query: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The means of the values from `ranking_metrics`, as JSON.

    NDCG has one mean for each convention: a blank query (no relevant document) counts 0 (`zero`), is left out (`skip`;
    None if no query remains) or counts 1 (`one`). MRR, MAP and ERR have one mean: a blank query counts 0.

    Raises:
      ValueError: no queries.

    >>> summarise({"ndcg@10": np.array([0.5, np.nan]), "map": np.array([0.5, np.nan])})
    {'ndcg@10': {'zero': 0.25, 'skip': 0.5, 'one': 0.75}, 'map': 0.25}
    """
    means: dict[str, Any] = {}
    for name, values in per_query.items():
        if len(values) == 0:
            raise ValueError(f"{name}: no queries to average")
        zero = float(fill_blank(values, "zero").mean())
        if not name.startswith("ndcg@"):
            means[name] = zero
            continue
        judged = values[~np.isnan(values)]
        means[name] = {
            "zero": zero,
            "skip": float(judged.mean()) if len(judged) else None,
            "one": float(fill_blank(values, "one").mean()),
        }
    return means


# Its keys are those of result.json, so one of them is no Python name.
TieEffect = TypedDict(
    "TieEffect",
    {"pairs": int, "tied_pairs": int, "ndcg@10_worst": float | None, "ndcg@10_best": float | None},
)


def tie_effect(scores: ArrayLike, labels: ArrayLike, offsets: ArrayLike) -> TieEffect:
    """How many document pairs of a list have equal scores, and how far their order moves the mean NDCG@10.

    `ndcg@10_worst` and `ndcg@10_best` are the means over the lists with a relevant document (None without such a list)
    if each group of tied documents had the worst or the best order. Arguments and errors as `rank_lists`.

    >>> tie_effect([1.0, 1.0, 0.0], [0, 1, 0], [0, 3])
    {'pairs': 3, 'tied_pairs': 1, 'ndcg@10_worst': 0.6309297535714575, 'ndcg@10_best': 1.0}
    """
    ranked = rank_lists(scores, labels, offsets)
    judged = ranked.num_relevant > 0

    def mean_ndcg(key: np.ndarray) -> float | None:
        labels = ranked.labels[np.lexsort((key, ranked.tie_group))]
        ordered = dataclasses.replace(ranked, labels=labels, tie_group=np.arange(len(labels)))
        return float(ranked_ndcg(ordered)[judged].mean()) if judged.any() else None

    return {
        "pairs": _num_pairs(np.diff(ranked.offsets)),
        "tied_pairs": _num_pairs(ranked.group_size),
        "ndcg@10_worst": mean_ndcg(ranked.labels),
        "ndcg@10_best": mean_ndcg(-ranked.labels),
    }


def _num_pairs(sizes: np.ndarray) -> int:
    return int((sizes * (sizes - 1) // 2).sum())

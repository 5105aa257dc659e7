"""Ranking metrics in numpy: per query, full lists, ties averaged by default. `ndcg_tf` is for graphs."""

from pipeline.metrics.ndcg import mean_ndcg, ndcg, ranked_ndcg
from pipeline.metrics.ranked import NoRelevant, RankedLists, Ties, rank_lists
from pipeline.metrics.ranking import (
    average_precision,
    err,
    mrr,
    ranked_average_precision,
    ranked_err,
    ranked_mrr,
)
from pipeline.metrics.summary import TieEffect, ranking_metrics, summarise, tie_effect

__all__ = [
    "NoRelevant",
    "RankedLists",
    "TieEffect",
    "Ties",
    "average_precision",
    "err",
    "mean_ndcg",
    "mrr",
    "ndcg",
    "rank_lists",
    "ranked_average_precision",
    "ranked_err",
    "ranked_mrr",
    "ranked_ndcg",
    "ranking_metrics",
    "summarise",
    "tie_effect",
]

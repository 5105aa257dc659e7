"""The evaluation stage: every metric of every query for teacher, student and baseline, and what follows from them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.data import RankingData
from pipeline.evaluation.agreement import agreement
from pipeline.evaluation.compare import compare
from pipeline.evaluation.latency import latency
from pipeline.evaluation.result import metrics_of_splits, scoring_clock
from pipeline.metrics import Ties, summarise

_SPLITS = ("vali", "test")
_ORDER = ("student", "baseline", "teacher")  # of the pairs that are compared
_METRIC = "ndcg@10"


@dataclasses.dataclass(frozen=True)
class Scored:
    """A model to evaluate.

    Args:
      scores: split -> raw scores [docs].
      facts: what else result.json says of it.
      score: (features [docs, F], offsets) -> scores [docs], to be timed; None where the scores come from files.
    """

    scores: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    score: Callable[[np.ndarray, np.ndarray], np.ndarray] | None


def summaries(model: Scored, data: Mapping[str, RankingData], *, ties: Ties) -> dict[str, Any]:
    """`metrics` of result.json: split -> metric -> convention -> mean over the queries."""
    metrics = metrics_of_splits(model.scores, data, ties=ties)
    return {split: summarise(values) for split, values in metrics.items()}


def evaluate(
    models: Mapping[str, Scored], data: Mapping[str, RankingData], *, ties: Ties
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """`models`, `agreement` and `comparisons` of result.json, and model -> metric -> values of the test queries.

    Args:
      models: teacher and student at least.
      data: of the splits vali and test.
      ties: the order of equal scores.
    """
    evaluated, per_query = {}, {}
    _, clock = scoring_clock()
    for name, model in models.items():
        metrics = metrics_of_splits(model.scores, data, ties=ties)
        times: dict[str, float | None] = {"us_per_doc": None, "us_per_doc_list120": None}
        if model.score is not None:
            times = {**latency(model.score, data["test"].features, clock=clock)}
        summaries = {split: summarise(metrics[split]) for split in _SPLITS}
        evaluated[name] = {**model.facts, **times, "metrics": summaries}
        per_query[name] = metrics["test"]
    comparisons = [
        compare(per_query[a][_METRIC], per_query[b][_METRIC], a=a, b=b, metric=_METRIC)
        for a, b in itertools.combinations([name for name in _ORDER if name in models], 2)
    ]
    of_teacher, of_student = models["teacher"].scores["test"], models["student"].scores["test"]
    agrees = {"test": agreement(of_teacher, of_student, data["test"].offsets)}
    return {"models": evaluated, "agreement": agrees, "comparisons": comparisons}, per_query

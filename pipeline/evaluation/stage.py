"""The evaluation stage: every metric of every query for teacher, student and baseline, and the results from them."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.data import RankingData
from pipeline.evaluation.agreement import agreement
from pipeline.evaluation.compare import compare
from pipeline.evaluation.latency import latency
from pipeline.evaluation.result import scoring_clock
from pipeline.metrics import Ties, ranking_metrics, summarise, tie_effect

log = logging.getLogger(__name__)

_COMPARED = ("student", "baseline", "teacher")  # each with those after it
_METRIC = "ndcg@10"
_NOTABLE_TIE_EFFECT = 1e-3  # of NDCG@10; a smaller one is not logged


@dataclasses.dataclass(frozen=True)
class Scored:
    """A model to evaluate.

    Args:
      scores: split -> raw scores [docs].
      facts: other entries of the model in result.json.
      score: (features [docs, F], offsets) -> scores [docs], to be timed; None where the scores come from files.
    """

    scores: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    score: Callable[[np.ndarray, np.ndarray], np.ndarray] | None


def metrics_per_query(
    model: Scored, data: Mapping[str, RankingData], *, ties: Ties
) -> dict[str, dict[str, np.ndarray]]:
    """split -> metric -> values float64 [queries]."""
    # ERR has the same scale on all splits, and at least five grades.
    max_grade = max(4.0, *(float(lists.labels.max()) for lists in data.values()))
    return {
        split: ranking_metrics(
            scores, data[split].labels, data[split].offsets, max_grade=max_grade, ties=ties
        )
        for split, scores in model.scores.items()
    }


def summaries(model: Scored, data: Mapping[str, RankingData], *, ties: Ties) -> dict[str, Any]:
    """`metrics` of result.json: split -> metric -> convention -> mean over the queries."""
    return {s: summarise(values) for s, values in metrics_per_query(model, data, ties=ties).items()}


def evaluate(
    models: Mapping[str, Scored], data: Mapping[str, RankingData], *, ties: Ties
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """`models`, `agreement` and `comparisons` of result.json, and model -> metric -> values of the test queries.

    Args:
      models: at least teacher and student, scored on the splits of `data`.
      data: vali and test.
      ties: the rule for equal scores.
    """
    test = data["test"]
    evaluated, per_query = {}, {}
    for name, model in models.items():
        metrics = metrics_per_query(model, data, ties=ties)
        costs: dict[str, float | None] = {"us_per_doc": None, "us_per_doc_list120": None}
        if model.score is not None:
            costs = {**latency(model.score, test.features, clock=scoring_clock()[1])}
        evaluated[name] = {
            **model.facts,
            **costs,
            "metrics": {split: summarise(values) for split, values in metrics.items()},
            "ties": _tie_effect(name, model.scores["test"], test),
        }
        per_query[name] = metrics["test"]
    comparisons = [
        compare(per_query[a][_METRIC], per_query[b][_METRIC], a=a, b=b, metric=_METRIC)
        for a, b in itertools.combinations([name for name in _COMPARED if name in models], 2)
    ]
    agrees = agreement(models["teacher"].scores["test"], models["student"].scores["test"], test.offsets)
    return {"models": evaluated, "agreement": {"test": agrees}, "comparisons": comparisons}, per_query


def _tie_effect(name: str, scores: np.ndarray, test: RankingData) -> dict[str, Any]:
    """`ties` of result.json; logs them where the order of tied documents matters."""
    effect = tie_effect(scores, test.labels, test.offsets)
    worst, best = effect["ndcg@10_worst"], effect["ndcg@10_best"]
    if worst is not None and best is not None and best - worst > _NOTABLE_TIE_EFFECT:
        log.warning(
            "%s: %s of %s document pairs in the test lists have equal scores. NDCG@10 is %.4f or %.4f "
            "with the worst or best order of these documents.",
            name,
            f"{effect['tied_pairs']:,}",
            f"{effect['pairs']:,}",
            worst,
            best,
        )
    return {**effect}

"""The gate: does the student reach the limits of evaluate.gate?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from pipeline.config import GateConfig
from pipeline.metrics import NoRelevant

_METRIC = "ndcg@10"


class Check(TypedDict):
    """One limit. `value` is None where the test split is too small to tell; then the check fails."""

    name: str
    value: float | None
    limit: str
    passed: bool


class Gate(TypedDict):
    passed: bool
    checks: list[Check]


def judge(
    result: Mapping[str, Any], config: GateConfig, *, no_relevant: NoRelevant = "skip", split: str = "test"
) -> Gate | None:
    """The verdict on the student; None where the gate has no limit.

    Args:
      result: `models` and `comparisons` of result.json.
      config: the limits.
      no_relevant: the convention of the NDCG in the share of the teacher's.
      split: the split of that NDCG; the comparisons are of the test split.
    """
    if not config.asks:
        return None
    checks: list[Check] = []
    models = result["models"]
    if config.min_share_of_teacher is not None:
        student, teacher = (
            models[model]["metrics"][split][_METRIC][no_relevant] for model in ("student", "teacher")
        )
        share = student / teacher if student is not None and teacher else None
        checks.append(_at_least("share of the teacher's NDCG@10", share, config.min_share_of_teacher))
    if config.not_below_baseline:
        pair = ("student", "baseline", _METRIC)
        (found,) = (c for c in result["comparisons"] if (c["a"], c["b"], c["metric"]) == pair)
        highest = None if found["ci95"] is None else found["ci95"][1]
        checks.append(_at_least("not below the baseline: NDCG@10 gain at best (95 % CI)", highest, 0.0))
    if config.max_us_per_doc is not None:
        cost, limit = models["student"]["us_per_doc"], config.max_us_per_doc
        passed = cost is not None and cost <= limit
        checks.append(Check(name="us a document", value=cost, limit=f"<= {limit:g}", passed=passed))
    return {"passed": all(check["passed"] for check in checks), "checks": checks}


def _at_least(name: str, value: float | None, limit: float) -> Check:
    return Check(name=name, value=value, limit=f">= {limit:g}", passed=value is not None and value >= limit)

"""The gate: is the student good enough to be let through?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from pipeline.config import GateConfig
from pipeline.metrics import NoRelevant

_METRIC = "ndcg@10"


class Check(TypedDict):
    """One thing asked. `value` is None where the test split cannot tell; that fails."""

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
    """The verdict on the student of a result.json; None where the gate asks nothing.

    Args:
      result: its `models` and `comparisons`.
      config: what is asked.
      no_relevant: the convention of the NDCG of which the student must have its share.
      split: whose metrics count; `comparisons` are of the test split.
    """
    if not config.asks:
        return None
    checks: list[Check] = []
    student = result["models"]["student"]
    if config.min_share_of_teacher is not None:
        own, teacher = (
            result["models"][model]["metrics"][split][_METRIC][no_relevant]
            for model in ("student", "teacher")
        )
        share = own / teacher if own is not None and teacher else None
        checks.append(
            {
                "name": f"share of the teacher's {_METRIC.upper()}",
                "value": share,
                "limit": f">= {config.min_share_of_teacher:g}",
                "passed": share is not None and share >= config.min_share_of_teacher,
            }
        )
    if config.not_below_baseline:
        (found,) = (
            c
            for c in result["comparisons"]
            if (c["a"], c["b"], c["metric"]) == ("student", "baseline", _METRIC)
        )
        interval = found["ci95"]
        checks.append(
            {
                "name": f"not below the baseline: {_METRIC.upper()} gain at best (95 % CI)",
                "value": None if interval is None else interval[1],
                "limit": ">= 0",
                "passed": interval is not None and interval[1] >= 0,
            }
        )
    if config.max_us_per_doc is not None:
        cost = student["us_per_doc"]
        checks.append(
            {
                "name": "us a document",
                "value": cost,
                "limit": f"<= {config.max_us_per_doc:g}",
                "passed": cost is not None and cost <= config.max_us_per_doc,
            }
        )
    return {"passed": all(check["passed"] for check in checks), "checks": checks}

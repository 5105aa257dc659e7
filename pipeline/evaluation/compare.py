"""Is one model better than another? A paired test over queries."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from scipy import stats


class Comparison(TypedDict):
    """Model `a` against model `b`, as JSON. A value that needs more queries is None."""

    a: str
    b: str
    metric: str
    queries: int
    difference: float | None
    ci95: list[float] | None
    p: float | None
    win: int
    tie: int
    loss: int


def compare(
    a_values: np.ndarray,
    b_values: np.ndarray,
    *,
    a: str = "student",
    b: str = "baseline",
    metric: str = "ndcg@10",
) -> Comparison:
    """Paired comparison of two models' per-query values (Student's paired t-test, two-sided).

    Uses the queries for which both have a value (not NaN); `queries` is their number. `difference` is the mean of
    a - b, `ci95` its 95 % confidence interval and `p` the p-value, which is 1 where all values are equal. One query
    gives a difference but no interval and no p; no query gives none of them. A tie is an equal value.

    Args:
      a_values: float [queries], NaN where the query has no value.
      b_values: the same queries in the same order.
      a: the name of the first model; `a`, `b` and `metric` are copied to the result.

    Raises:
      ValueError: the two are not both [queries].

    >>> compare([0.5, 0.75, 1.0, np.nan], [0.25, 0.75, 0.25, np.nan])["difference"]
    0.3333333333333333
    """
    a_values, b_values = np.asarray(a_values), np.asarray(b_values)
    if a_values.ndim != 1 or a_values.shape != b_values.shape:
        raise ValueError(f"{a} {a_values.shape} and {b} {b_values.shape} must both be [queries]")
    both = ~(np.isnan(a_values) | np.isnan(b_values))
    a_values, b_values = a_values[both], b_values[both]
    differences = a_values - b_values
    mean = float(differences.mean()) if len(differences) else None
    ci95, p = None, None
    if len(differences) >= 2 and mean is not None:
        if np.ptp(differences) == 0:  # without variance the test would divide by 0
            ci95, p = [mean, mean], 1.0 if mean == 0 else 0.0
        else:
            test = stats.ttest_rel(a_values, b_values)
            interval = test.confidence_interval(0.95)
            ci95, p = [float(interval.low), float(interval.high)], float(test.pvalue)
    return Comparison(
        a=a,
        b=b,
        metric=metric,
        queries=len(differences),
        difference=mean,
        ci95=ci95,
        p=p,
        win=int((differences > 0).sum()),
        tie=int((differences == 0).sum()),
        loss=int((differences < 0).sum()),
    )

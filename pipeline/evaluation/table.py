"""The tables of one run: models, comparisons and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group

from pipeline.metrics import NoRelevant, Ties
from pipeline.tables import Table, comparison_cells, number, to_terminal, verdict

_MODEL_ORDER = ("teacher", "baseline", "student")
_CONVENTIONS = {
    "skip": "queries without a relevant document are left out",
    "zero": "a query without a relevant document counts 0",
    "one": "a query without a relevant document counts 1",
}


def result_tables(
    result: Mapping[str, Any], *, split: str = "test", no_relevant: NoRelevant = "skip", ties: Ties = "index"
) -> list[Table]:
    """The tables of one result.json: the models, and the comparisons and the gate where there are any.

    Args:
      result: `models` and `comparisons` of result.json; `data` (number of queries) is used where it is there.
      split: the split whose metrics are shown.
      no_relevant: the NDCG convention, named in the title.
      ties: the rule that the metrics were computed with, named in the title.

    Raises:
      ValueError: an unknown convention.
    """
    if no_relevant not in _CONVENTIONS:
        raise ValueError(f"no_relevant={no_relevant!r}: must be one of {', '.join(_CONVENTIONS)}")
    title = (
        f"{split}: NDCG convention {no_relevant!r} ({_CONVENTIONS[no_relevant]}); full lists, ties: {ties}"
    )
    counts = result.get("data", {}).get("splits", {}).get(split)
    if counts:
        title += f"; {counts['queries']:,} queries, {counts['blank_queries']:,} of them without one"
    models = result["models"]
    names = [n for n in _MODEL_ORDER if n in models] + [n for n in models if n not in _MODEL_ORDER]
    metrics = {name: models[name]["metrics"][split] for name in names}
    ndcg_names = list(dict.fromkeys(m for name in names for m in metrics[name] if m.startswith("ndcg@")))
    us = f"{clock} us/doc" if (clock := result.get("run", {}).get("clock")) else "us/doc"
    latencies = {"us_per_doc": us, "us_per_doc_list120": "same, list of 120"}
    shown = [key for key in latencies if any(models[n].get(key) is not None for n in names)]
    rows = [
        [
            name,
            *(number(metrics[name].get(metric, {}).get(no_relevant)) for metric in ndcg_names),
            number(models[name].get("parameters"), ",d"),
            *(number(models[name].get(key), ".3g") for key in shown),
        ]
        for name in names
    ]
    header = ["model", *(m.upper() for m in ndcg_names), "parameters", *(latencies[key] for key in shown)]
    tables = [Table(title, header, rows, num_names=1)]
    if result.get("comparisons"):
        title = "Paired t-test over the queries with a relevant document"
        header = ["comparison", "metric", "diff", "95 % CI", "p", "win/tie/loss"]
        rows = [
            [f"{c['a']} - {c['b']}", c["metric"].upper(), *comparison_cells(c, c["p"])]
            for c in result["comparisons"]
        ]
        tables.append(Table(title, header, rows, num_names=2))
    if gate := result.get("gate"):
        rows = [
            [check["name"], number(check["value"], ".4g"), check["limit"], verdict(check["passed"])]
            for check in gate["checks"]
        ]
        header = ["what the student must reach", "value", "limit", "gate"]
        tables.append(Table(f"Gate: {verdict(gate['passed'])}", header, rows, num_names=1))
    return tables


def terminal_table(
    result: Mapping[str, Any], *, split: str = "test", no_relevant: NoRelevant = "skip", ties: Ties = "index"
) -> Group:
    """`result_tables` for `rich.print`."""
    tables = result_tables(result, split=split, no_relevant=no_relevant, ties=ties)
    return Group(*map(to_terminal, tables))

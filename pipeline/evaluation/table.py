"""The table of a run: models, then comparisons; for the terminal (rich) and as Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.metrics import NoRelevant, Ties

_MODEL_ORDER = ("teacher", "baseline", "student")
_NOTE = {
    "skip": "queries without a relevant document are left out",
    "zero": "a query without a relevant document counts 0",
    "one": "a query without a relevant document counts 1",
}
_NONE = "-"


@dataclasses.dataclass(frozen=True)
class Cells:
    """One table as text. Its first `num_names` columns are names, the rest numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]
    num_names: int


def result_cells(
    result: Mapping[str, Any], *, split: str = "test", no_relevant: NoRelevant = "skip", ties: Ties = "index"
) -> list[Cells]:
    """The tables of one result.json: the models, the comparisons and the gate where there are any.

    Args:
      result: `models` and `comparisons` of result.json; `data` (number of queries) is used where it is there.
      split: the split whose metrics are shown.
      no_relevant: the NDCG convention, named in the title.
      ties: the rule that the metrics were made with, named in the title.

    Raises:
      ValueError: an unknown convention.
    """
    if no_relevant not in _NOTE:
        raise ValueError(f"no_relevant={no_relevant!r}: must be one of {', '.join(_NOTE)}")
    title = f"{split}: NDCG convention {no_relevant!r} ({_NOTE[no_relevant]}); full lists, ties: {ties}"
    counts = result.get("data", {}).get("splits", {}).get(split)
    if counts:
        title += f"; {counts['queries']:,} queries, {counts['blank_queries']:,} of them without one"
    models = result["models"]
    names = [n for n in _MODEL_ORDER if n in models] + [n for n in models if n not in _MODEL_ORDER]
    ndcg_names = list(
        dict.fromkeys(m for n in names for m in models[n]["metrics"][split] if m.startswith("ndcg@"))
    )
    us = f"{clock} us/doc" if (clock := result.get("run", {}).get("clock")) else "us/doc"
    latencies = {"us_per_doc": us, "us_per_doc_list120": "same, list of 120"}
    shown = [key for key in latencies if any(models[n].get(key) is not None for n in names)]
    model_rows = [
        [
            name,
            *(_number(models[name]["metrics"][split].get(m, {}).get(no_relevant), ".4f") for m in ndcg_names),
            _number(models[name].get("parameters"), ",d"),
            *(_number(models[name].get(key), ".3g") for key in shown),
        ]
        for name in names
    ]
    header = ["model", *(m.upper() for m in ndcg_names), "parameters", *(latencies[key] for key in shown)]
    tables = [Cells(title, header, model_rows, num_names=1)]
    if result.get("comparisons"):
        tables.append(
            Cells(
                "Paired t-test over the queries with a relevant document",
                ["comparison", "metric", "diff", "95 % CI", "p", "win/tie/loss"],
                [_comparison_row(c) for c in result["comparisons"]],
                num_names=2,
            )
        )
    if result.get("gate"):
        gate = result["gate"]
        tables.append(
            Cells(
                f"Gate: {_verdict(gate['passed'])}",
                ["what the student must reach", "value", "limit", "gate"],
                [
                    [check["name"], _number(check["value"], ".4g"), check["limit"], _verdict(check["passed"])]
                    for check in gate["checks"]
                ],
                num_names=1,
            )
        )
    return tables


def _comparison_row(comparison: Mapping[str, Any]) -> list[str]:
    ci95, p = comparison["ci95"], comparison["p"]
    return [
        f"{comparison['a']} - {comparison['b']}",
        comparison["metric"].upper(),
        _number(comparison["difference"], "+.4f"),
        _NONE if ci95 is None else f"{ci95[0]:+.4f} to {ci95[1]:+.4f}",
        "too few" if p is None else "<0.0001" if p < 0.0001 else f"{p:.4f}",
        f"{comparison['win']}/{comparison['tie']}/{comparison['loss']}",
    ]


def _verdict(passed: bool) -> str:
    return "PASS" if passed else "FAIL"


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)


def terminal_table(
    result: Mapping[str, Any], *, split: str = "test", no_relevant: NoRelevant = "skip", ties: Ties = "index"
) -> Group:
    """`result_cells` for `rich.print`."""
    parts: list[Text | Table] = []
    for cells in result_cells(result, split=split, no_relevant=no_relevant, ties=ties):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))  # narrow: fits 80 columns
        for column, head in enumerate(cells.header):
            table.add_column(Text(head), justify="left" if column < cells.num_names else "right")
        for row in cells.rows:
            table.add_row(*map(Text, row))  # Text: names are not markup
        parts += [Text(cells.title), table]  # not as the table's own title, which wraps at the table's width
    return Group(*parts)


def markdown_table(
    result: Mapping[str, Any], *, split: str = "test", no_relevant: NoRelevant = "skip", ties: Ties = "index"
) -> str:
    """`result_cells` as Markdown, each table under its title."""
    lines = []
    for cells in result_cells(result, split=split, no_relevant=no_relevant, ties=ties):
        rules = [":--" if column < cells.num_names else "--:" for column in range(len(cells.header))]
        lines += [cells.title, ""]
        lines += [
            "| " + " | ".join(c.replace("|", r"\|") for c in row) + " |"
            for row in [cells.header, rules, *cells.rows]
        ]
        lines.append("")
    return "\n".join(lines)

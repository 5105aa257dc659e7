"""Results of a comparison beside the expected and the published values: lines, verdicts, tables, RESULTS.md."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.page import Block, Paragraph
from pipeline.reproduce.claim import Claim, Figure, Row
from pipeline.tables import NONE, Table, number, to_markdown

Results = Mapping[
    str, Sequence[Mapping[str, Any] | None]
]  # run -> result.json of each job; None: the job failed

_CONVENTIONS = (
    "In brackets the convention for a query without a relevant document: "
    "it counts 0 (zero), 1 (one), or is left out (skip)."
)
_VERDICTS = "OK: within the tolerance of the expected value; CLOSE: within twice the tolerance."


@dataclasses.dataclass(frozen=True)
class Line:
    """A row, a metric and a convention: the results and the expected values."""

    row: str
    metric: str
    convention: str
    values: list[float]  # one for each group of jobs that has all its results: see `Claim.groups`
    num_groups: int
    expected: Figure | None
    published: list[Figure]

    @property
    def name(self) -> str:
        return metric_name(self)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        return None if self.expected is None or self.mean is None else self.mean - self.expected.value

    @property
    def verdict(self) -> str | None:
        """OK, CLOSE or FAIL; INCOMPLETE where a result is missing; None where no value is expected."""
        if len(self.values) < self.num_groups:
            return "INCOMPLETE"
        if self.expected is None or self.difference is None:
            return None
        return verdict(self.difference, self.expected.tolerance or 0.0)

    def plain(self) -> dict[str, Any]:
        """The entry of reproduction.json."""
        derived = {key: getattr(self, key) for key in ("mean", "sd", "difference", "verdict")}
        return dataclasses.asdict(self) | derived


def metric_name(of: Line | Figure) -> str:
    return f"{of.metric.upper()} ({of.convention})"


def verdict(difference: float, tolerance: float) -> str:
    """OK within the tolerance, CLOSE within twice the tolerance, otherwise FAIL.

    >>> [verdict(difference, 0.01) for difference in (-0.01, 0.011, -0.02, 0.03)]
    ['OK', 'CLOSE', 'CLOSE', 'FAIL']
    """
    off = round(abs(difference), 12)  # 0.51 - 0.5 is slightly more than 0.01
    return "OK" if off <= tolerance else "CLOSE" if off <= 2 * tolerance else "FAIL"


def make_lines(claim: Claim, results: Results) -> list[Line]:
    """Every row with each of its metrics and conventions, in the order of the rows."""
    keys = {
        (row, metric, convention): None
        for row in claim.rows
        for metric, convention in [
            *((metric, claim.convention) for metric in claim.metrics),
            *((figure.metric, figure.convention) for figure in claim.expected if figure.row == row),
        ]
    }
    expected = {(figure.row, figure.metric, figure.convention): figure for figure in claim.expected}
    lines = []
    for name, metric, convention in keys:
        row = claim.rows[name]
        of_jobs = [
            None if result is None else measured(result, row, metric, convention)
            for result in results[row.run]
        ]
        groups = [[of_jobs[number] for number in group] for group in claim.groups]
        complete = [[v for v in group if v is not None] for group in groups if None not in group]
        published = [f for f in claim.published if (f.row, f.metric) == (name, metric)]
        values = [statistics.fmean(group) for group in complete]
        wanted = expected.get((name, metric, convention))
        lines.append(Line(name, metric, convention, values, len(groups), wanted, published))
    return lines


def measured(result: Mapping[str, Any], row: Row, metric: str, convention: str) -> float | None:
    """The test metric of a row in one result.json; None where it is missing. Only NDCG has conventions."""

    def of(model: str) -> float | None:
        value = result["models"].get(model, {}).get("metrics", {}).get("test", {}).get(metric)
        return value[convention] if isinstance(value, Mapping) else value

    value, other = of(row.model), of(row.minus) if row.minus else 0.0
    return None if value is None or other is None else value - other


def result_blocks(claim: Claim, lines: Sequence[Line]) -> list[Block]:
    """The table of all lines and the sources of the published values."""
    sources = list(dict.fromkeys(f"{f.convention}; {f.source}" for line in lines for f in line.published))
    rows = []
    for line in lines:
        expected = line.expected
        missing = f" {len(line.values)}/{line.num_groups}" if line.verdict == "INCOMPLETE" else ""
        published = [
            f"{f.value:.4f} [{sources.index(f'{f.convention}; {f.source}') + 1}]" for f in line.published
        ]
        rows.append(
            [
                line.row,
                line.name,
                number(line.mean),
                number(line.sd),
                NONE if expected is None else f"{expected.value:.4f} ± {expected.tolerance or 0:.4f}",
                number(line.difference, "+.4f"),
                (line.verdict or NONE) + missing,
                "; ".join(published) or NONE,
            ]
        )
    header = ["row", "metric", "mean", "sd", "expected", "diff", "verdict", "published"]
    notes = f"Means over {claim.extent}; sd: between the {list(claim.axis)[-1]}s. {_VERDICTS} {_CONVENTIONS}"
    blocks: list[Block] = [Table("", header, rows, num_names=2, grouped=True), Paragraph(notes)]
    if sources:
        named = [[f"[{index}]", source] for index, source in enumerate(sources, 1)]
        blocks.append(Table("Published values", ["number", "convention; source"], named, num_names=2))
    return blocks


def results_md(claims: Sequence[Claim]) -> str:
    """RESULTS.md: the recorded results of each comparison, and the published ones."""
    parts = [
        "# Results\n",
        "Made from conf/reproduce/*.yaml by `rankdistil-reproduce --results > RESULTS.md`; a test holds that.\n"
        f"{_CONVENTIONS}\nThe tolerance is what `scripts/reproduce.sh` calls OK; "
        "values without a tolerance are shown only for comparison.\n",
    ]
    for claim in claims:
        rows = [
            [
                figure.row,
                metric_name(figure),
                figure.source,
                number(figure.value),
                number(figure.sd),
                number(figure.tolerance),
            ]
            for name in claim.rows
            for figure in [*claim.expected, *claim.published]
            if figure.row == name
        ]
        commit = f", commit {claim.recorded.commit}" if claim.recorded else ""
        has_page = claim.recorded and claim.reference
        page = f"- [paired tests, time to a given NDCG, cost](docs/{claim.name}.md)\n" if has_page else ""
        header = ["row", "metric", "source", "value", "sd", "tolerance"]
        parts += [
            f"## {claim.title}\n",
            f"- {claim.state}{commit}; {claim.extent}\n- `{claim.command}`\n- {claim.paper}\n{page}",
            to_markdown(Table("", header, rows, num_names=3)) + "\n",
        ]
    return "\n".join(parts)

"""Results of a comparison beside what was expected and what was published: lines, the verdict, tables."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.reproduce.claim import Claim, Figure, Row

_HEADER = ("row", "metric", "mean", "sd", "expected", "diff", "verdict", "published")
_STYLE = {"OK": "green", "CLOSE": "yellow", "FAIL": "red", "INCOMPLETE": "red"}
_NAMES = ("row", "metric", "published", "source")
_CONVENTIONS = (
    "In brackets the convention for a query without a relevant document: "
    "it counts 0 (zero), 1 (one), or is left out (skip)."
)
_VERDICTS = "OK: within the tolerance of the expected value; CLOSE: within twice of it."


@dataclasses.dataclass(frozen=True)
class Line:
    """A row, a metric, a convention: what came out, what should have."""

    row: str
    metric: str
    convention: str
    values: list[
        float
    ]  # of the jobs that ended well; with folds and seeds, the mean over the folds for each seed
    num_jobs: int  # values that there should be
    expected: Figure | None
    published: list[Figure]

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
        """OK, CLOSE, FAIL; INCOMPLETE where a job is missing; None where nothing is expected."""
        if len(self.values) < self.num_jobs:
            return "INCOMPLETE"
        if self.difference is None:
            return None
        assert self.expected is not None
        return verdict(self.difference, self.expected.tolerance or 0.0)

    def plain(self) -> dict[str, Any]:
        """As in reproduction.json."""
        derived = {key: getattr(self, key) for key in ("mean", "sd", "difference", "verdict")}
        return dataclasses.asdict(self) | derived


def verdict(difference: float, tolerance: float) -> str:
    """OK within the tolerance, CLOSE within twice of it, else FAIL.

    >>> [verdict(difference, 0.01) for difference in (-0.01, 0.011, -0.02, 0.03)]
    ['OK', 'CLOSE', 'CLOSE', 'FAIL']
    """
    off = round(abs(difference), 12)  # 0.51 - 0.5 is a little more than 0.01
    return "OK" if off <= tolerance else "CLOSE" if off <= 2 * tolerance else "FAIL"


def make_lines(claim: Claim, results: Mapping[str, Sequence[Mapping[str, Any] | None]]) -> list[Line]:
    """Every row with each of its metrics and conventions, in the order of the rows.

    Args:
      claim: the comparison.
      results: for each run the result.json of each job; None where the job failed.
    """
    keys = {
        (row, metric, convention): None
        for row in claim.rows
        for metric, convention in [
            *((metric, claim.convention) for metric in claim.metrics),
            *((figure.metric, figure.convention) for figure in claim.expected if figure.row == row),
        ]
    }
    lines = []
    for name, metric, convention in keys:
        row = claim.rows[name]
        of_jobs = [
            None if result is None else measured(result, row, metric, convention)
            for result in results[row.run]
        ]
        groups = claim.groups
        found = [mean_of([of_jobs[number] for number in group]) for group in groups]
        expected = [
            f for f in claim.expected if (f.row, f.metric, f.convention) == (name, metric, convention)
        ]
        lines.append(
            Line(
                row=name,
                metric=metric,
                convention=convention,
                values=[value for value in found if value is not None],
                num_jobs=len(groups),
                expected=expected[0] if expected else None,
                published=[f for f in claim.published if (f.row, f.metric) == (name, metric)],
            )
        )
    return lines


def mean_of(values: Sequence[float | None]) -> float | None:
    """None where a value is missing."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def measured(result: Mapping[str, Any], row: Row, metric: str, convention: str) -> float | None:
    """The test metric of a row in one result.json; None where it is not there. Only NDCG has conventions."""

    def of(model: str) -> float | None:
        value = result["models"].get(model, {}).get("metrics", {}).get("test", {}).get(metric)
        return value[convention] if isinstance(value, Mapping) else value

    value, other = of(row.model), of(row.minus) if row.minus else 0.0
    return None if value is None or other is None else value - other


def _cells(line: Line) -> list[str]:
    expected = line.expected
    missing = f" {len(line.values)}/{line.num_jobs}" if line.verdict == "INCOMPLETE" else ""
    return [
        f"{line.metric.upper()} ({line.convention})",
        _number(line.mean),
        _number(line.sd),
        "-" if expected is None else f"{expected.value:.4f} ± {expected.tolerance or 0:.4f}",
        _number(line.difference, "+.4f"),
        (line.verdict or "-") + missing,
    ]


def _number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


def terminal_table(lines: Sequence[Line]) -> Group:
    """For `rich.print`; the sources of the published values stand below."""
    sources = list(dict.fromkeys(_source(figure) for line in lines for figure in line.published))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for head in _HEADER[1:]:
        table.add_column(head, justify="left" if head in _NAMES else "right", no_wrap=head == "metric")
    row = None
    for line in lines:
        if line.row != row:
            row = line.row
            table.add_row(Text(row, "bold"))
        *cells, last = _cells(line)
        style = _STYLE.get(line.verdict or "", "")
        published = "\n".join(f"{f.value:.4f} [{sources.index(_source(f)) + 1}]" for f in line.published)
        table.add_row(*map(Text, cells), Text(last, style), Text(published))
    return Group(table, *(Text(f"[{number}] {source}") for number, source in enumerate(sources, 1)))


def _source(figure: Figure) -> str:
    return f"{figure.convention}; {figure.source}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rules = [":--" if head in _NAMES else "--:" for head in header]
    return "".join(
        "| " + " | ".join(c.replace("|", r"\|") for c in row) + " |\n" for row in [header, rules, *rows]
    )


def result_page(claim: Claim, lines: Sequence[Line], *, heading: str, study: str = "") -> str:
    """table.md of a run of the comparison."""
    rows = [
        [
            line.row,
            *_cells(line),
            "; ".join(f"{f.value:.4f} ({_source(f)})" for f in line.published) or "-",
        ]
        for line in lines
    ]
    notes = f"Means over {claim.extent}; sd: between the {list(claim.axis)[-1]}s. {_VERDICTS} {_CONVENTIONS}"
    return f"# {claim.title}\n\n{heading}\n\n{markdown(_HEADER, rows)}\n{notes}\n{study}"


def results_md(claims: Sequence[Claim]) -> str:
    """RESULTS.md: what each comparison gave when it was run, and what was published."""
    parts = [
        "# Results\n",
        "Made from conf/reproduce/*.yaml by `rankdistil-reproduce --results > RESULTS.md`; a test holds that.\n"
        f"{_CONVENTIONS}\nThe tolerance is what `scripts/reproduce.sh` calls OK; "
        "values without one are shown beside the run's.\n",
    ]
    for claim in claims:
        rows = [
            [
                figure.row,
                f"{figure.metric.upper()} ({figure.convention})",
                f"{figure.value:.4f}",
                _number(figure.sd),
                _number(figure.tolerance),
                figure.source,
            ]
            for name in claim.rows
            for figure in [*claim.expected, *claim.published]
            if figure.row == name
        ]
        commit = f", commit {claim.recorded.commit}" if claim.recorded else ""
        tables = claim.recorded and claim.reference
        page = f"- [paired tests, time to a given NDCG, cost](docs/{claim.name}.md)\n" if tables else ""
        parts += [
            f"## {claim.title}\n",
            f"- {claim.state}{commit}; {claim.extent}\n- `{claim.command}`\n- {claim.paper}\n{page}",
            markdown(("row", "metric", "value", "sd", "tolerance", "source"), rows),
        ]
    return "\n".join(parts)

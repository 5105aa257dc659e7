"""One type of table, with writers for the terminal (rich), Markdown and HTML, and one format for each kind of value."""

from __future__ import annotations

import dataclasses
import html
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import rich.table
from rich import box
from rich.console import Group
from rich.text import Text

NONE = "-"  # a value that is not known
_VERDICTS = {"green": ("OK", "PASS"), "yellow": ("CLOSE",), "red": ("FAIL", "INCOMPLETE")}
_COLORS = {verdict: color for color, verdicts in _VERDICTS.items() for verdict in verdicts}
_MIN_NAME_WIDTH = 15


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
      num_names: the first columns hold names and are aligned left; the others hold numbers and are aligned right.
      grouped: in the terminal the first column becomes a line above the rows that share it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_names: int
    grouped: bool = False


# ------------------------------------------------------------------------------------------------------ values


def number(value: float | None, form: str = ".4f") -> str:
    """
    >>> number(0.5), number(None), number(float("nan"))
    ('0.5000', '-', '-')
    """
    return NONE if value is None or math.isnan(value) else format(value, form)


def p_value(value: float | None) -> str:
    """
    >>> p_value(0.00001), p_value(0.25)
    ('<0.0001', '0.2500')
    """
    return "<0.0001" if value is not None and value < 0.0001 else number(value)


def share(value: float | None, form: str = ".1%") -> str:
    """
    >>> share(0.5), share(-0.0001), share(None)
    ('50.0%', '0.0%', '-')
    """
    return number(None if value is None else round(value, 3) + 0.0, form)  # + 0.0 turns -0.0 into 0.0


def gap_closed(student: float | None, baseline: float | None, teacher: float | None, gap: bool | None) -> str:
    """The share of the way from baseline to teacher; `gap`: whether the teacher is significantly above the baseline.

    >>> gap_closed(0.5, 0.4, 0.6, True), gap_closed(0.5, 0.4, 0.6, False), gap_closed(0.5, 0.4, 0.6, None)
    ('50.0%', 'no gap', '-')
    """
    if gap is False:
        return "no gap"
    if not gap or student is None or baseline is None or teacher is None:
        return NONE
    return share((student - baseline) / (teacher - baseline))


def comparison_cells(comparison: Mapping[str, Any], *p_values: float | None) -> list[str]:
    """Difference, confidence interval, p-values and win/tie/loss of `pipeline.evaluation.compare`."""
    ci95 = comparison["ci95"]
    return [
        number(comparison["difference"], "+.4f"),
        NONE if ci95 is None else f"{ci95[0]:+.4f} to {ci95[1]:+.4f}",
        *map(p_value, p_values),
        f"{comparison['win']}/{comparison['tie']}/{comparison['loss']}",
    ]


def verdict(passed: bool) -> str:
    return "PASS" if passed else "FAIL"


# ----------------------------------------------------------------------------------------------------- writers


def printable(text: str) -> str:
    r"""The text on one line, with escapes for line breaks, control characters and lone surrogates.

    >>> printable("a\nb")
    'a\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def to_terminal(table: Table, width: int = 80) -> Group:
    """For `rich.print`: the title and the table. Names wrap where the numbers leave them no room."""
    title = [Text(printable(table.title))] if table.title else []
    if table.num_names == len(table.header):  # only text: one line for each row
        return Group(*title, *(Text(": ".join(map(printable, row))) for row in table.rows))
    skipped = int(table.grouped)
    header = table.header[skipped:]
    num_names = table.num_names - skipped
    shown = rich.table.Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=0
    )  # the box puts a space between columns
    for column, head in enumerate(header):
        name = column < num_names
        shown.add_column(Text(head), justify="left" if name else "right", no_wrap=name)
    rows = [[printable(cell).replace(" ± 0.", " ±.") for cell in row] for row in table.rows]
    words = [max(map(len, head.split())) for head in header]
    columns = zip(words, *([len(cell) for cell in row[skipped:]] for row in rows), strict=True)
    widths = [1 + max(column) for column in columns]
    longest = max(widths[:num_names], default=0)
    room = max(width - sum(widths) + longest, _MIN_NAME_WIDTH)
    group = None
    for row in rows:
        if table.grouped and row[0] != group:
            group = row[0]
            shown.add_row(Text(group, "bold"))
        names = [textwrap.fill(cell, room) for cell in row[skipped : table.num_names]]
        numbers = [Text(cell, _COLORS.get(cell.split(" ")[0], "")) for cell in row[table.num_names :]]
        shown.add_row(*map(Text, names), *numbers)  # Text: names are not markup
    return Group(*title, shown)


def escape_markdown(text: str) -> str:
    r"""Text that Markdown shows as it is.

    >>> escape_markdown("<b> a|b *c*")
    '&lt;b&gt; a\\|b \\*c\\*'
    """
    return html.escape(re.sub(r"([\\`*|\[\]])", r"\\\1", printable(text)), quote=False)


def to_markdown(table: Table) -> str:
    rules = [":--" if column < table.num_names else "--:" for column in range(len(table.header))]
    header, *rows = [list(map(escape_markdown, row)) for row in [table.header, *table.rows]]
    lines = ["| " + " | ".join(row) + " |" for row in [header, rules, *rows]]
    return "\n".join(([escape_markdown(table.title), ""] if table.title else []) + lines)


def escape_html(text: str) -> str:
    return html.escape(printable(text))


def to_html(table: Table) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        texts = map(escape_html, cells)
        return "".join(
            f"<{tag}>{text}</{tag}>" if column < table.num_names else f'<{tag} class="number">{text}</{tag}>'
            for column, text in enumerate(texts)
        )

    title = f'<p class="title">{escape_html(table.title)}</p>' if table.title else ""
    body = "\n".join(f"<tr>{row('td', cells)}</tr>" for cells in table.rows)
    return (
        f'{title}<div class="scroll"><table><thead><tr>{row("th", table.header)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )

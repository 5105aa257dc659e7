"""`rankdistil-report`: the page of every run below a folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.text import Text

from pipeline.errors import DONE, FAILED, UserError
from pipeline.metrics import NoRelevant
from pipeline.report.collect import CONVENTIONS, Collection, collect
from pipeline.report.page import Gallery, to_html, to_markdown
from pipeline.report.sections import page
from pipeline.report.statistics import group_runs, paired_tests
from pipeline.report.tables import choice, gate_table, left_out, models_table
from pipeline.tables import Table, printable, to_terminal


class NoResultError(UserError):
    """There is nothing to report on."""


def write_report(folder: Path, out: Path, *, no_relevant: NoRelevant = "skip") -> list[Table | str]:
    """Writes report.md, report.html and the PNGs of all runs below `folder` into `out`.

    Returns:
      The main tables of each data set, what validation chooses, and what was left out, for the terminal.

    Raises:
      NoResultError: no result.json below `folder` can be used.
      OSError: `out` cannot be written.
    """
    found = collect(folder)
    if not found.runs:
        raise _nothing(folder, found)
    data_sets, problems = group_runs(found.runs)
    found.problems.extend(problems)
    tests = paired_tests(data_sets)
    blocks = page(found, data_sets, tests, no_relevant)
    title = f"Runs in {folder.resolve().name}"
    out.mkdir(parents=True, exist_ok=True)
    for block in blocks:
        for picture in block.pictures if isinstance(block, Gallery) else ():
            (out / picture.file).write_bytes(picture.png)
    (out / "report.md").write_text(to_markdown(title, blocks), encoding="utf-8")
    (out / "report.html").write_text(to_html(title, blocks), encoding="utf-8")
    shown: list[Table | str] = []
    for data_set in data_sets:
        shown += [f"Data: {data_set.label}"] if len(data_sets) > 1 else []
        shown += [*gate_table(data_set), models_table(data_set, no_relevant)]
        shown += [text] if (text := choice(data_set, no_relevant)) else []
    return [*shown, *left_out(found)]


def _nothing(folder: Path, found: Collection) -> NoResultError:
    if not folder.is_dir():
        return NoResultError("no such folder", where=str(folder), fix="give the folder of a run or a sweep")
    lines = [f"{problem.where}: {problem.what}" for problem in [*found.problems, *found.unfinished]]
    what = "no result.json below it can be used" + "".join(f"\n  {printable(line)}" for line in lines)
    return NoResultError(what, where=str(folder), fix="give the folder of a run that has ended")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code is 1 if there is nothing to report on."""
    parser = argparse.ArgumentParser(
        prog="rankdistil-report",
        description="Tables and pictures from every result.json below FOLDER: report.md, report.html (one "
        "file that needs no network) and PNGs.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a run, a sweep, or any tree of runs")
    parser.add_argument("-o", "--out", type=Path, help="where to write (default: FOLDER/report)")
    parser.add_argument(
        "--no-relevant",
        choices=CONVENTIONS,
        default="skip",
        help="how NDCG counts a query without a relevant document (default: %(default)s)",
    )
    given = parser.parse_args(arguments)
    out: Path = given.out or given.folder / "report"
    try:
        tables = write_report(given.folder, out, no_relevant=cast(NoRelevant, given.no_relevant))
    except (NoResultError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    console = Console()
    for shown in tables:
        console.print(
            Text(shown) if isinstance(shown, str) else to_terminal(shown, console.width), "", sep="\n"
        )
    print(f"{out / 'report.html'} (also report.md and PNGs)")
    return DONE

"""What the page says: blocks from groups, tests and figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from pipeline.metrics import NoRelevant
from pipeline.report import figures
from pipeline.report.collect import MAIN, MODELS, NDCG, Collection, Run
from pipeline.report.cost import cost_section
from pipeline.report.page import Block, Code, Gallery, Heading, Paragraph, Picture
from pipeline.report.queries import query_section
from pipeline.report.statistics import DataSet, Group, PairedTest, best, is_number
from pipeline.report.tables import (
    agreement_table,
    choice,
    gate_table,
    left_out,
    models_table,
    run_list,
    tests_table,
)
from pipeline.tables import NONE, Table, p_value

_BLANK = {"skip": "are left out", "zero": "count 0", "one": "count 1"}
_AXES = {"loss.topk": "documents", "loss.temperature": "", "loss.sample_size": "samples of each list"}
_MAX_TICKS, _MAX_PANELS = 12, 24


def page(
    found: Collection, data_sets: Sequence[DataSet], tests: Sequence[PairedTest], convention: NoRelevant
) -> list[Block]:
    """The complete page without its title."""
    blocks = [*_overview(found, data_sets, convention)]
    for number, data_set in enumerate(data_sets, start=1):
        blocks.append(Heading(f"Data: {data_set.label}"))
        blocks += _results(data_set, tests, convention, number)
        blocks += _option_maps(data_set, convention, number)
        blocks += cost_section(data_set, convention, number)
        blocks += [Heading("Agreement of the student with its teacher", 3), agreement_table(data_set)]
        blocks += query_section(data_set, convention, number)
    if tables := left_out(found):
        blocks += [Heading("Left out"), *tables]
    blocks += _origin([run for data_set in data_sets for run in data_set.runs])
    blocks += [Heading("All runs"), run_list(data_sets, convention)]
    return blocks


def _results(
    data_set: DataSet, tests: Sequence[PairedTest], convention: NoRelevant, number: int
) -> list[Block]:
    """The group that validation chooses in words and as a picture, the main table, the tests."""
    blocks: list[Block] = []
    chosen = best(data_set.groups, convention)
    value = chosen.ndcg("student", MAIN, convention)
    if text := choice(data_set, convention):
        blocks.append(Paragraph(text))
    if value:
        blocks += [Paragraph(text) for test in tests if (text := _in_words(test, chosen, convention))]
        models = [m for m in MODELS if any(m in run.models for run in chosen.runs)]
        values = {m: [chosen.ndcg(m, metric, convention) for metric in NDCG] for m in models}
        png = figures.by_cutoff(
            [metric.upper() for metric in NDCG], values, y_label=f"test NDCG ({convention})"
        )
        caption = f"Test NDCG, {chosen.label}, convention '{convention}': "
        caption += (
            "one seed."
            if value.sd is None
            else f"mean over {value.n} {data_set.repeats}, bars are the standard deviation."
        )
        blocks.append(Gallery([Picture(f"ndcg-{number}.png", caption, png)]))
    blocks += [*gate_table(data_set), models_table(data_set, convention)]
    own = [test for test in tests if test.data_set is data_set]
    if own:
        blocks += [
            tests_table(own),
            Paragraph(
                "Student's paired t-test, two-sided, over the queries with a relevant document; a query's value is "
                f"its mean over the seeds, so the test says nothing about other seeds. Holm: corrected for all "
                f"{sum(test.p_holm is not None for test in tests)} tests on this page."
            ),
        ]
    return blocks


def _in_words(test: PairedTest, group: Group, convention: NoRelevant) -> str | None:
    """The main result; None for any other test."""
    c = test.comparison
    ci95, difference, closed = c["ci95"], c["difference"], group.gap_closed(convention)
    if test.group is not group or c["b"] != "baseline" or difference is None or ci95 is None:
        return None
    text = (
        f"Student against baseline, NDCG@10: {difference:+.4f} (95 % CI {ci95[0]:+.4f} to {ci95[1]:+.4f}, p after "
        f"Holm {p_value(test.p_holm)}); better on {c['win']:,} of {c['queries']:,} queries, worse on {c['loss']:,}."
    )
    if group.has_gap is False:
        return f"{text} The teacher is not significantly above the baseline: there is no gap to close."
    return text if closed == NONE else f"{text} That is {closed} of the way from baseline to teacher."


def _overview(found: Collection, data_sets: Sequence[DataSet], convention: NoRelevant) -> list[Block]:
    rows = []
    for data_set in data_sets:
        seeds = sorted({run.seed for run in data_set.runs})
        rows.append(
            [
                data_set.label,
                ", ".join(data_set.varying) or "none",
                str(len(data_set.runs)),
                str(len(data_set.groups)),
                f"{len(seeds)}" + (f" ({', '.join(map(str, seeds))})" if len(seeds) <= 10 else ""),
                f"{data_set.num_queries('queries'):,}",
                f"{data_set.num_queries('blank_queries'):,}",
            ]
        )
    ties = sorted({str(run.options.get("evaluate.ties", "unknown")) for d in data_sets for run in d.runs})
    lost = [
        f"{len(items)} {what}"
        for items, what in (
            (found.unfinished, "failed or unfinished"),
            (found.problems, "files not used"),
        )
        if items
    ]
    return [
        Paragraph(
            f"NDCG convention '{convention}': queries without a relevant document {_BLANK[convention]}. Full lists, "
            f"ties: {', '.join(ties)}. Values are of the test split unless stated otherwise. ± is the standard "
            "deviation over n seeds (or folds: their queries are taken together)."
        ),
        *([Paragraph(f"Also found, see the end: {', '.join(lost)}.")] if lost else []),
        Table(
            "",
            ["data", "options that vary", "runs", "groups", "seeds", "test queries", "none relevant"],
            rows,
            num_names=2,
        ),
    ]


def _option_maps(data_set: DataSet, convention: NoRelevant, number: int) -> list[Block]:
    """A heat map over the first two numeric options for each combination of all others."""
    values = {
        key: {place for g in data_set.groups if (place := _place(g, key)) is not None}
        for key in data_set.varying
    }
    numeric = [key for key in (*_AXES, *data_set.varying) if len(values.get(key, ())) > 1]
    x, y, *_ = [*dict.fromkeys(numeric), None, None]
    if x is None or y is None:
        return []
    panels: dict[str, dict[tuple[float, float], float]] = {}
    for group in data_set.groups:
        mean = group.ndcg("student", MAIN, convention)
        place = _place(group, x), _place(group, y)
        if mean and place[0] is not None and place[1] is not None:
            rest = " ".join(
                f"{name}={group.options.get(key, NONE)}"
                for key, name in data_set.varying.items()
                if key not in (x, y)
            )
            panels.setdefault(rest, {})[place[0], place[1]] = mean.mean
    panels = {rest: cells for rest, cells in panels.items() if len(cells) > 1}
    if not panels:
        return []
    title = f"Student NDCG@10 over {x} and {y}"
    if max(len(values[x]), len(values[y])) > _MAX_TICKS or len(panels) > _MAX_PANELS:
        return [Heading(title, 3), Paragraph("Too many values for heat maps; the table above has them all.")]
    means = [mean for cells in panels.values() for mean in cells.values()]
    pictures = [
        Picture(
            f"heatmap-{number}-{panel}.png",
            f"{title}{', ' if rest else ''}{rest}: mean over seeds, test, convention '{convention}'.",
            figures.heat_map(
                cells,
                x_label=_with_unit(x),
                y_label=_with_unit(y),
                value_label=f"student test NDCG@10 ({convention})",
                title=rest,
                limits=(min(means) - 1e-4, max(means) + 1e-4),
            ),
        )
        for panel, (rest, cells) in enumerate(panels.items(), start=1)
    ]
    return [Heading(title, 3), Gallery(pictures)]


def _place(group: Group, key: str) -> float | None:
    """Where the group stands on the axis of an option: null (all documents) after all numbers; None: nowhere."""
    value = group.options.get(key, NONE)
    return math.inf if value is None else value if is_number(value) else None


def _origin(runs: Sequence[Run]) -> list[Block]:
    def counted(what: Callable[[Run], str]) -> Code:
        counts = Counter(map(what, runs))
        return Code([f"{text}  # {n} runs" if n > 1 else text for text, n in counts.items()])

    return [
        Heading("Commands that made the runs"),
        counted(lambda run: run.command),
        Heading("Made with"),
        counted(lambda run: f"{run.device}; {run.made_with}"),
    ]


def _with_unit(key: str) -> str:
    unit = _AXES.get(key)
    return f"{key} ({unit})" if unit else key

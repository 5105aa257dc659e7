"""Query by query: which lists are hard, and which ones distillation helped or hurt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation import PerQuery
from pipeline.metrics import NoRelevant
from pipeline.metrics.ranked import fill_blank
from pipeline.report import figures
from pipeline.report.collect import MAIN, MODELS
from pipeline.report.page import Block, Gallery, Heading, Paragraph, Picture
from pipeline.report.statistics import DataSet, best, quantile_bins
from pipeline.tables import Table, number

_NUM_QUERIES = 5


def query_section(data_set: DataSet, convention: NoRelevant, index: int) -> list[Block]:
    """NDCG@10 by list length and by number of relevant documents, and the queries that changed most."""
    readable = [group for group in data_set.groups if group.queries]
    if not readable:
        return []
    group = best(readable, convention)
    queries = group.queries
    assert queries is not None
    blocks: list[Block] = [Heading("Query by query", 3)]
    if len(data_set.groups) > 1:
        blocks.append(Paragraph(f"For {group.label}, the best on the validation split."))
    shown = {m: fill_blank(queries.metrics[m][MAIN], convention) for m in MODELS if m in queries.metrics}
    judged = np.flatnonzero(~np.isnan(shown["student"]))
    if not len(judged):
        return [*blocks, Paragraph("No query has a relevant document.")]
    pictures, tables = [], []
    for file, facts, what in (
        ("length", queries.num_docs, "list length (documents)"),
        ("relevant", queries.num_relevant, "relevant documents (count)"),
    ):
        bins = [judged[members] for members in quantile_bins(facts[judged])]
        names = [_range(facts[members]) for members in bins]
        values = {model: [of_query[members] for members in bins] for model, of_query in shown.items()}
        caption = f"NDCG@10 by {what}: mean and standard error over the queries of each fifth."
        png = figures.by_bin(names, values, x_label=what, y_label=f"test NDCG@10 ({convention})")
        pictures.append(Picture(f"ndcg-by-{file}-{index}.png", caption, png))
        rows = [
            [name, f"{len(of_models[0]):,}", *(f"{of_bin.mean():.4f}" for of_bin in of_models)]
            for name, *of_models in zip(names, *values.values(), strict=True)
        ]
        tables.append(Table("", [what, "queries", *values], rows, num_names=1))
    return [*blocks, Gallery(pictures), *tables, *_gained_and_lost(queries)]


def _gained_and_lost(queries: PerQuery) -> list[Block]:
    if "baseline" not in queries.metrics:
        return []
    change = queries.metrics["student"][MAIN] - queries.metrics["baseline"][MAIN]
    order = [i for i in np.argsort(change, kind="stable") if not np.isnan(change[i])]
    lost = [i for i in order[:_NUM_QUERIES] if change[i] < 0]
    gained = [i for i in order[::-1][:_NUM_QUERIES] if change[i] > 0]
    models = [model for model in MODELS if model in queries.metrics]

    def table(title: str, chosen: Sequence[int]) -> Table:
        rows = [
            [
                str(queries.query_ids[i]),
                f"{change[i]:+.4f}",
                *(number(float(queries.metrics[model][MAIN][i])) for model in models),
                f"{queries.num_docs[i]:,}",
                f"{queries.num_relevant[i]:,}",
            ]
            for i in chosen
        ]
        header = ["query", "student - baseline", *models, "documents", "relevant"]
        return Table(title, header, rows, num_names=1)

    return [
        table("Queries that gained most (NDCG@10)", gained),
        table("Queries that lost most (NDCG@10)", lost),
    ]


def _range(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low}-{high}"

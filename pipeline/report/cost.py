"""Quality against cost: scoring time and number of parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pipeline.metrics import NoRelevant
from pipeline.report import figures
from pipeline.report.collect import MAIN, MODELS
from pipeline.report.page import Block, Gallery, Heading, Picture
from pipeline.report.statistics import DataSet, Group, pareto_front
from pipeline.report.tables import distinct
from pipeline.tables import NONE, Table, number

_AXES = {
    "us_per_doc": ("time", "scoring time, 8,192 documents a call (µs per document)"),
    "parameters": ("parameters", "size (number of parameters)"),
}
_TIME_TOLERANCE = 0.1  # two measurements of the same model differ by about this share


@dataclasses.dataclass(frozen=True, eq=False)
class _Point:
    """One model of one group, or of all groups that it is the same in. `cost`: None where not known."""

    label: str
    model: str
    quality: float
    cost: dict[str, float | None]


def cost_section(data_set: DataSet, convention: NoRelevant, index: int) -> list[Block]:
    """A picture and a table with the Pareto fronts; a model of unknown cost is only in the table."""
    points = _points(data_set, convention)
    fronts = {key: _front(points, key) for key in _AXES}
    devices = ", ".join(sorted({f"{run.device} ({run.clock} time)" for run in data_set.runs}))
    pictures = [
        Picture(
            f"quality-{name}-{index}.png",
            f"Quality against {label}; measured on {devices}. Ringed: no other model is as good and as "
            f"cheap{' (within 10 %)' if key == 'us_per_doc' else ''}.",
            figures.cost_quality(
                [
                    (point.model, cost, point.quality, point in fronts[key])
                    for point in points
                    if (cost := point.cost[key]) is not None
                ],
                cost_label=label,
                quality_label=f"test NDCG@10 ({convention})",
            ),
        )
        for key, (name, label) in _AXES.items()
        if fronts[key]
    ]
    rows = [
        [
            point.label,
            point.model,
            number(point.cost["parameters"], ",.0f"),
            number(point.cost["us_per_doc"], ",.3f"),
            number(point.cost["us_per_doc_list120"], ",.3f"),
            f"{point.quality:.4f}",
            ", ".join(name for key, (name, _) in _AXES.items() if point in fronts[key]) or NONE,
        ]
        for point in points
    ]
    header = ["options", "model", "parameters", "µs/doc", "µs/doc, list of 120", "NDCG@10", "Pareto front"]
    gallery: list[Block] = [Gallery(pictures)] if pictures else []
    return [Heading("Quality against cost", 3), *gallery, Table("", header, rows, num_names=2)]


def _points(data_set: DataSet, convention: NoRelevant) -> list[_Point]:
    points = []
    for model in MODELS:
        for label, groups in distinct(data_set.groups, model, convention):
            quality = groups[0].ndcg(model, MAIN, convention)
            pooled = Group(label, {}, [run for group in groups for run in group.runs], None)
            keys = ("parameters", "us_per_doc", "us_per_doc_list120")
            if quality:
                points.append(
                    _Point(label, model, quality.mean, {key: pooled.cost(model, key) for key in keys})
                )
    return points


def _front(points: Sequence[_Point], key: str) -> list[_Point]:
    known = [(point, cost) for point in points if (cost := point.cost[key]) is not None]
    tolerance = _TIME_TOLERANCE if key == "us_per_doc" else 0.0
    on_front = pareto_front(
        [cost for _, cost in known], [point.quality for point, _ in known], tolerance=tolerance
    )
    return [point for (point, _), on in zip(known, on_front, strict=True) if on]

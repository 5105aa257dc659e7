"""Which numbers of training and of the result go to the trackers, and their tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.metrics import NoRelevant
from pipeline.metrics.ranked import fill_blank
from pipeline.tracking.trackers import Tracker

_CUTOFFS = (1, 5, 10)
_MAIN = "ndcg@10"


def track_epoch(tracker: Tracker, model: str, row: Mapping[str, Any]) -> None:
    """A row of the training history."""
    own = ("loss", "learning_rate", "steps_per_second", "docs_per_second")
    values = {f"train/{key}": row[key] for key in own}
    tracker.scalars(
        model, row["epoch"], values | {f"eval/vali {k} (skip)": v for k, v in row["vali"].items()}
    )


def track_result(
    tracker: Tracker,
    models: Mapping[str, Any],
    per_query: Mapping[str, Mapping[str, np.ndarray]],
    epochs: Mapping[str, int],
    convention: NoRelevant,
) -> None:
    """Tracks each model's test NDCG, its distribution over the queries, and the values that compare runs of a sweep.

    Args:
      models: that of result.json.
      per_query: model -> metric -> [test queries].
      epochs: number of epochs of each model that was trained in epochs; other models become a horizontal line.
      convention: how a query without a relevant document counts.
    """
    longest = max(epochs.values())
    for model, result in models.items():
        ndcg = {
            split: {k: result["metrics"][split][f"ndcg@{k}"] for k in _CUTOFFS} for split in ("vali", "test")
        }
        if model not in epochs:
            for step in sorted({1, longest}):
                _scalars(
                    tracker,
                    model,
                    step,
                    {f"eval/vali ndcg@{k} (skip)": v["skip"] for k, v in ndcg["vali"].items()},
                )
        last = epochs.get(model, longest)
        _scalars(
            tracker,
            model,
            last,
            {f"eval/test ndcg@{k} ({convention})": v[convention] for k, v in ndcg["test"].items()},
        )
        of_query = fill_blank(per_query[model][_MAIN], convention)
        tracker.histogram(
            model, last, f"eval/test {_MAIN} of each query ({convention})", of_query[~np.isnan(of_query)]
        )
    # TensorBoard sorts the tags, opens the first two groups (eval, train) and colours by the first metric, which
    # should be the student's. They are short because they label axes.
    main = {"NDCG@10": ("student", "test"), "vali": ("student", "vali")}
    main |= {model: (model, "test") for model in models if model != "student"}
    compared = {
        f"vs/{name} {convention}": models[model]["metrics"][split][_MAIN][convention]
        for name, (model, split) in main.items()
    }
    tracker.summary({tag: value for tag, value in compared.items() if value is not None})


def _scalars(tracker: Tracker, model: str, step: int, values: Mapping[str, float | None]) -> None:
    tracker.scalars(model, step, {tag: value for tag, value in values.items() if value is not None})

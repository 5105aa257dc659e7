"""LambdaMART teachers: LightGBM's lambdarank objective with early stopping on the validation split."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import LambdaMARTTeacher
from pipeline.data import RankingData

if TYPE_CHECKING:
    import lightgbm  # takes half a second to import: only where it is used

_FEW = 1024  # documents
_MAX_LABEL = 30  # LightGBM's default gains, 2^label - 1, go this far


def _dataset(data: RankingData, reference: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
    import lightgbm

    labels = data.labels
    impossible = np.flatnonzero((labels != np.round(labels)) | (labels > _MAX_LABEL))
    if len(impossible):
        first = impossible[0]
        query = np.searchsorted(data.offsets, first, side="right") - 1
        raise ValueError(
            f"teacher=lambdamart needs whole relevance labels from 0 to {_MAX_LABEL}; document "
            f"{first - data.offsets[query] + 1} of query {data.query_ids[query]} of {'vali' if reference else 'train'} "
            f"has {labels[first]:g} (in all: {len(impossible)} documents); "
            "mend: correct the labels in the file, or take another teacher"
        )
    return lightgbm.Dataset(data.features, labels, group=data.list_sizes, reference=reference)


def fit_lambdamart(
    config: LambdaMARTTeacher,
    train: RankingData,
    vali: RankingData,
    folder: Path,
    grown: Callable[[int], None] = lambda trees: None,
) -> None:
    """Trains the members and writes each as LightGBM text, `member-<n>.txt`, cut at its best tree.

    The result depends on data and config alone, not on the number of threads. `grown` is told how many trees there are,
    a member that stopped early counted as whole.
    """
    import lightgbm

    for member in range(config.members):
        before = member * config.num_trees
        parameters = {
            "objective": "lambdarank",
            "metric": "ndcg",
            "eval_at": [10],
            "lambdarank_truncation_level": config.truncation_level,
            "learning_rate": config.learning_rate,
            "num_leaves": config.num_leaves,
            "min_data_in_leaf": config.min_docs_in_leaf,
            "min_sum_hessian_in_leaf": config.min_sum_hessian,
            "feature_fraction": config.feature_fraction,
            "bagging_fraction": config.bagging_fraction,
            "bagging_freq": int(config.bagging_fraction < 1),
            "seed": config.seed + member,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": os.cpu_count(),
            "verbosity": -1,
        }
        trainset = _dataset(train)
        booster = lightgbm.train(
            parameters,
            trainset,
            config.num_trees,
            valid_sets=[_dataset(vali, trainset)],
            callbacks=[
                lightgbm.early_stopping(config.early_stopping, verbose=False),
                lambda now, before=before: grown(before + now.iteration + 1),
            ],
        )
        booster.save_model(folder / f"member-{member}.txt", num_iteration=booster.best_iteration)


class LambdaMART:
    """The members in a folder; scores are their mean."""

    def __init__(self, folder: Path) -> None:
        import lightgbm

        paths = sorted(folder.glob("member-*.txt"))
        self.members = [lightgbm.Booster(model_file=path) for path in paths]

        trees = (tree for member in self.members for tree in member.dump_model()["tree_info"])
        self.num_parameters: int | None = sum(
            2 * tree["num_leaves"] - 1 for tree in trees
        )  # thresholds, leaves

    @property
    def num_trees(self) -> int:
        return sum(member.num_trees() for member in self.members)

    def __call__(self, features: np.ndarray, offsets: np.ndarray | None = None, /) -> np.ndarray:
        """Raw features float32 [docs, F] -> float64 [docs]."""
        # For a list or two LightGBM's threads cost more than they bring, on a busy machine a thousand times as much.
        threads = {"num_threads": 1} if len(features) < _FEW else {}
        return np.mean([member.predict(features, **threads) for member in self.members], axis=0)

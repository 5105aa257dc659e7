"""LambdaMART teachers: LightGBM's lambdarank objective with early stopping on the validation split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import LambdaMARTTeacher
from pipeline.data import RankingData
from pipeline.errors import UserError
from pipeline.metrics import mean_ndcg
from pipeline.threads import num_threads

if TYPE_CHECKING:
    import lightgbm  # takes half a second to import, so the functions that use it import it

_FEW_DOCS = 1024
# Both limits are constants in LightGBM's source.
_MAX_LABEL = 30  # its gains, 2^label - 1, are a table of this length
_MAX_DOCS_PER_QUERY = 10_000  # of the lambdarank objective


def fit_lambdamart(
    config: LambdaMARTTeacher,
    train: RankingData,
    vali: RankingData,
    folder: Path,
    grown: Callable[[int], None] = lambda num_trees: None,
) -> None:
    """Trains the members and writes each as LightGBM text, `member-<n>.txt`, up to its best tree.

    The best tree has the highest validation NDCG@10, ties averaged. The result depends on the data and the config, not
    on the number of threads. Calls `grown(num_trees)` after each tree; a member that stopped early counts in full.

    Raises:
      UserError: labels or list sizes that LightGBM does not accept.
    """
    import lightgbm

    _check_labels(train, "train")
    _check_labels(vali, "vali")
    longest = int(train.list_sizes.argmax())
    num_docs = train.list_sizes[longest]
    if num_docs > _MAX_DOCS_PER_QUERY:
        raise UserError(
            f"query {train.query_ids[longest]} has {num_docs:,} documents; LightGBM trains on at most "
            f"{_MAX_DOCS_PER_QUERY:,} documents a query",
            where="teacher=lambdamart, train split",
            fix="remove rows of this query from the training file, or give some of them another query id; or use "
            "another teacher, such as teacher=mlp",
        )

    def vali_ndcg(scores: np.ndarray, dataset: lightgbm.Dataset) -> tuple[str, float, bool]:
        value = mean_ndcg(scores, vali.labels, vali.offsets, cutoffs=(10,))["ndcg@10"]
        return "ndcg@10", float(np.nan_to_num(value)), True

    for member in range(config.members):
        before = member * config.num_trees
        parameters = {
            "objective": "lambdarank",
            "metric": "None",
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
            "num_threads": num_threads(),
            "verbosity": -1,
        }
        trainset = lightgbm.Dataset(train.features, train.labels, group=train.list_sizes)
        valiset = lightgbm.Dataset(vali.features, vali.labels, group=vali.list_sizes, reference=trainset)
        booster = lightgbm.train(
            parameters,
            trainset,
            config.num_trees,
            valid_sets=[valiset],
            feval=vali_ndcg,
            callbacks=[
                lightgbm.early_stopping(config.early_stopping, verbose=False),
                lambda now, before=before: grown(before + now.iteration + 1),
            ],
        )
        booster.save_model(folder / f"member-{member}.txt", num_iteration=booster.best_iteration)


def _check_labels(data: RankingData, split: str) -> None:
    invalid = np.flatnonzero((data.labels != np.round(data.labels)) | (data.labels > _MAX_LABEL))
    if len(invalid):
        first = invalid[0]
        query = data.list_of_doc[first]
        raise UserError(
            f"document {first - data.offsets[query] + 1} of query {data.query_ids[query]} has the label "
            f"{data.labels[first]:g} ({len(invalid)} such documents); LightGBM needs whole labels from 0 to "
            f"{_MAX_LABEL}",
            where=f"teacher=lambdamart, {split} split",
            fix="correct the labels in the file, or use another teacher, such as teacher=mlp",
        )


class LambdaMART:
    """The members in a folder; the score is their mean."""

    def __init__(self, folder: Path) -> None:
        import lightgbm

        self.members = [lightgbm.Booster(model_file=path) for path in sorted(folder.glob("member-*.txt"))]
        trees = [tree for member in self.members for tree in member.dump_model()["tree_info"]]
        self.num_trees = len(trees)
        self.num_parameters: int | None = sum(2 * tree["num_leaves"] - 1 for tree in trees)  # splits, leaves

    def __call__(self, features: np.ndarray, offsets: np.ndarray | None = None, /) -> np.ndarray:
        """Raw features float32 [docs, F] -> float64 [docs]."""
        # For a list or two, starting LightGBM's threads takes longer than scoring.
        threads = {"num_threads": 1} if len(features) < _FEW_DOCS else {}
        return np.mean([member.predict(features, **threads) for member in self.members], axis=0)

"""Options of the teachers and of the step between their scores and the loss."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import omegaconf

from pipeline.config.checks import check, one_of


@dataclasses.dataclass(frozen=True)
class ScoresConfig:
    """The step between the teacher's raw scores and the loss: cap(scale * transform(t) + offset)."""

    transform: str = "identity"  # identity, shift_min, zscore, rank; each within its list
    scale: float = 1.0  # 1 / teacher temperature
    offset: float = 0.0
    entropy: float | None = None  # nats: the scale that gives the training lists this mean softmax entropy
    cap: float | None = None  # nats: a list's scores lie at most this far below its best one

    def __post_init__(self) -> None:
        one_of("teacher.scores.transform", self.transform, ("identity", "shift_min", "zscore", "rank"))
        check(self.scale > 0, "teacher.scores.scale", self.scale, "a number > 0")
        check(
            self.entropy is None or self.scale == 1.0,
            "teacher.scores.scale",
            self.scale,
            "teacher.scores.entropy sets the scale; give one of the two",
        )
        check(
            self.entropy is None or self.entropy > 0,
            "teacher.scores.entropy",
            self.entropy,
            "nats > 0, or null",
        )
        check(self.cap is None or self.cap > 0, "teacher.scores.cap", self.cap, "nats > 0, or null")


@dataclasses.dataclass(frozen=True)
class LambdaMARTTeacher:
    """Gradient-boosted trees with LightGBM's lambdarank objective."""

    name: str = "lambdamart"
    seed: int = 0  # of the teacher alone; `seed` is the run's
    num_trees: int = 500  # at most; early stopping on the validation split usually needs fewer
    learning_rate: float = 0.05
    num_leaves: int = 31
    min_docs_in_leaf: int = 20
    min_sum_hessian: float = 1e-3
    feature_fraction: float = 1.0  # of the features, drawn for each tree
    bagging_fraction: float = 1.0  # of the documents, drawn for each tree
    truncation_level: int = 30  # LambdaMART looks at pairs with a document above this rank
    early_stopping: int = 50  # trees without a better validation NDCG@10
    members: int = 1  # models that differ in their seed; their scores are averaged
    synthetic_lists: int = 0  # for each training list, drawn from the midpoints of the trees' splits
    scores: ScoresConfig = dataclasses.field(default_factory=ScoresConfig)

    def __post_init__(self) -> None:
        for key in ("num_trees", "min_docs_in_leaf", "truncation_level", "early_stopping", "members"):
            check(getattr(self, key) >= 1, f"teacher.{key}", getattr(self, key), "at least 1")
        check(self.synthetic_lists >= 0, "teacher.synthetic_lists", self.synthetic_lists, "at least 0")
        check(self.num_leaves >= 2, "teacher.num_leaves", self.num_leaves, "at least 2")
        check(self.learning_rate > 0, "teacher.learning_rate", self.learning_rate, "a number > 0")
        check(self.min_sum_hessian >= 0, "teacher.min_sum_hessian", self.min_sum_hessian, "a number >= 0")
        for key in ("feature_fraction", "bagging_fraction"):
            check(0 < getattr(self, key) <= 1, f"teacher.{key}", getattr(self, key), "0 < x <= 1")
        check(
            self.members == 1 or self.feature_fraction < 1 or self.bagging_fraction < 1,
            "teacher.members",
            self.members,
            "members differ in what they sample; set teacher.feature_fraction or teacher.bagging_fraction below 1",
        )


@dataclasses.dataclass(frozen=True)
class RunFileTeacher:
    """Scores made elsewhere: a TREC run, or a .npy [docs] in the order of the rows, for each split."""

    name: str = "run_file"
    train: str = omegaconf.MISSING
    vali: str = omegaconf.MISSING
    test: str = omegaconf.MISSING
    unlabelled: str | None = None  # where data.unlabelled or data.unlabelled_queries gives such lists
    scores: ScoresConfig = dataclasses.field(default_factory=ScoresConfig)

    def __post_init__(self) -> None:
        for split in ("train", "vali", "test"):
            path = getattr(self, split)
            check(Path(path).is_file(), f"teacher.{split}", path, "no such file")
        if self.unlabelled is not None:
            check(Path(self.unlabelled).is_file(), "teacher.unlabelled", self.unlabelled, "no such file")

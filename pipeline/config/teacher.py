"""Types and limits of the teachers' options, and of the step between their scores and the loss."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from pipeline.config.checks import ConfigError, above_zero, at_least, check, one_of
from pipeline.config.defaults import defaults_of
from pipeline.config.student import AttentionNetwork, MLPNetwork


@dataclasses.dataclass(frozen=True)
@defaults_of("parts/scores")
class ScoresConfig:
    """The step between the teacher's raw scores and the loss."""

    transform: str
    scale: float
    offset: float
    entropy: float | None
    cap: float | None

    def __post_init__(self) -> None:
        one_of("teacher.scores.transform", self.transform, ("identity", "shift_min", "zscore", "rank"))
        above_zero("teacher.scores", self, "scale", "entropy", "cap")
        ok = self.entropy is None or self.scale == 1.0
        check(
            ok,
            "teacher.scores.scale",
            self.scale,
            "teacher.scores.entropy sets the scale; give one of the two",
        )


@dataclasses.dataclass(frozen=True)
@defaults_of("teacher/lambdamart")
class LambdaMARTTeacher:
    name: str
    seed: int
    num_trees: int
    learning_rate: float
    num_leaves: int
    min_docs_in_leaf: int
    min_sum_hessian: float
    feature_fraction: float
    bagging_fraction: float
    truncation_level: int
    early_stopping: int
    members: int
    synthetic_lists: int
    scores: ScoresConfig

    def __post_init__(self) -> None:
        at_least(
            1,
            "teacher",
            self,
            "num_trees",
            "min_docs_in_leaf",
            "truncation_level",
            "early_stopping",
            "members",
        )
        at_least(0, "teacher", self, "synthetic_lists", "min_sum_hessian")
        at_least(2, "teacher", self, "num_leaves")
        above_zero("teacher", self, "learning_rate")
        for key in ("feature_fraction", "bagging_fraction"):
            check(0 < getattr(self, key) <= 1, f"teacher.{key}", getattr(self, key), "0 < x <= 1")
        ok = self.members == 1 or self.feature_fraction < 1 or self.bagging_fraction < 1
        fix = "members differ in what they sample; set teacher.feature_fraction or teacher.bagging_fraction below 1"
        check(ok, "teacher.members", self.members, fix)


@dataclasses.dataclass(frozen=True)
@defaults_of("teacher/run_file")
class RunFileTeacher:
    name: str
    train: str
    vali: str
    test: str
    unlabelled: str | None
    scores: ScoresConfig

    def __post_init__(self) -> None:
        for split in ("train", "vali", "test", "unlabelled"):
            path = getattr(self, split)
            if path is not None and not Path(path).is_file():
                raise ConfigError(f"no such file, seen from {Path.cwd()}", where=f"teacher.{split}={path}")


@dataclasses.dataclass(frozen=True)
class NeuralTraining:
    """How a network is trained on labels, by the code that trains students."""

    group: ClassVar[str] = "teacher"

    seed: int
    label_loss: str
    epochs: int
    lists_per_batch: int
    learning_rate: float
    schedule: str
    weight_decay: float
    patience: int
    scores: ScoresConfig

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # of the network
        at_least(1, "teacher", self, "epochs", "lists_per_batch")
        check(0 <= self.seed < 2**31, "teacher.seed", self.seed, "0 <= seed < 2^31")
        above_zero("teacher", self, "learning_rate")
        one_of("teacher.schedule", self.schedule, ("constant", "cosine"))
        at_least(0, "teacher", self, "weight_decay", "patience")


@dataclasses.dataclass(frozen=True)
@defaults_of("teacher/mlp")
class MLPTeacher(NeuralTraining, MLPNetwork):
    name: str


@dataclasses.dataclass(frozen=True)
@defaults_of("teacher/attention")
class AttentionTeacher(NeuralTraining, AttentionNetwork):
    name: str


@dataclasses.dataclass(frozen=True)
@defaults_of("teacher/saved_model")
class SavedModelTeacher:
    name: str
    path: str
    signature: str | None
    scores: ScoresConfig

    def __post_init__(self) -> None:
        path = Path(self.path)
        ok = (path / "saved_model.pb").is_file() or (path.is_file() and path.suffix == ".keras")
        check(ok, "teacher.path", path, "a SavedModel folder, or a .keras file")
        ok = path.is_dir() or self.signature is None
        check(ok, "teacher.signature", self.signature, "null: a .keras file has no signature")


@dataclasses.dataclass(frozen=True)
@defaults_of("teacher/student")
class StudentTeacher:
    name: str
    run: str
    scores: ScoresConfig

    def __post_init__(self) -> None:
        run = Path(self.run)
        if not ((run / "result.json").is_file() and (run / "student" / "saved_model.pb").is_file()):
            raise ConfigError(
                "not the folder of a finished run with result.json and student/",
                where=f"teacher.run={run}",
                fix="run it with stage=all and saved_model among export.formats",
            )


@dataclasses.dataclass(frozen=True)
@defaults_of("teacher/ensemble")
class EnsembleTeacher:
    name: str
    members: list[Any]
    scores: ScoresConfig

    def __post_init__(self) -> None:
        check(len(self.members) >= 2, "teacher.members", self.members, "at least two")

"""Options of the teachers and of the step between their scores and the loss."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import omegaconf

from pipeline.config.checks import check, one_of
from pipeline.config.student import AttentionNetwork, MLPNetwork


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
            check(Path(path).is_file(), f"teacher.{split}", path, f"no such file, seen from {Path.cwd()}")
        if self.unlabelled is not None:
            check(
                Path(self.unlabelled).is_file(),
                "teacher.unlabelled",
                self.unlabelled,
                f"no such file, seen from {Path.cwd()}",
            )


@dataclasses.dataclass(frozen=True)
class NeuralTraining:
    """How a network is trained on labels, by the code that trains students, under the run's `train.strategy`."""

    group: ClassVar[str] = "teacher"

    seed: int = 0  # of the teacher alone; `seed` is the run's
    label_loss: str = "list_mle"  # the names of loss.label_loss
    epochs: int = 30  # at most; the one with the best validation NDCG@10 is kept
    lists_per_batch: int = 16  # over all replicas together
    learning_rate: float = 2e-3
    schedule: str = "cosine"  # of the learning rate: constant, cosine
    weight_decay: float = 0.01  # decoupled (AdamW)
    patience: int = 0  # epochs without a better validation NDCG@10 before the end; 0: run all epochs
    scores: ScoresConfig = dataclasses.field(default_factory=ScoresConfig)

    def _check_training(self) -> None:
        for key in ("epochs", "lists_per_batch"):
            check(getattr(self, key) >= 1, f"teacher.{key}", getattr(self, key), "at least 1")
        check(0 <= self.seed < 2**31, "teacher.seed", self.seed, "0 <= seed < 2^31")
        check(self.learning_rate > 0, "teacher.learning_rate", self.learning_rate, "a number > 0")
        one_of("teacher.schedule", self.schedule, ("constant", "cosine"))
        check(self.weight_decay >= 0, "teacher.weight_decay", self.weight_decay, "at least 0")
        check(self.patience >= 0, "teacher.patience", self.patience, "at least 0")


@dataclasses.dataclass(frozen=True)
class MLPTeacher(NeuralTraining, MLPNetwork):
    name: str = "mlp"
    hidden: list[int] = dataclasses.field(default_factory=lambda: [256, 128, 64])
    dropout: float = 0.3

    def __post_init__(self) -> None:
        self._check_training()
        MLPNetwork.__post_init__(self)


@dataclasses.dataclass(frozen=True)
class AttentionTeacher(NeuralTraining, AttentionNetwork):
    """DASALC. The published options are in conf/experiment/dasalc_web30k.yaml."""

    name: str = "attention"
    hidden: list[int] = dataclasses.field(default_factory=lambda: [128, 128])
    dropout: float = 0.1
    attention_layers: int = 1
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        self._check_training()
        AttentionNetwork.__post_init__(self)


@dataclasses.dataclass(frozen=True)
class SavedModelTeacher:
    """A model on raw features: a SavedModel folder with a signature, or a Keras file (.keras).

    It is called with one list at a time, so that it may be listwise. A SavedModel is a program: load none from people
    that you do not trust.
    """

    name: str = "saved_model"
    path: str = omegaconf.MISSING
    signature: str | None = None  # null: rank_lists if it has that, else serving_default
    scores: ScoresConfig = dataclasses.field(default_factory=ScoresConfig)

    def __post_init__(self) -> None:
        path = Path(self.path)
        allowed = "a SavedModel folder, or a .keras file"
        check((path / "saved_model.pb").is_file() or path.is_file(), "teacher.path", path, allowed)
        check(path.is_dir() or path.suffix == ".keras", "teacher.path", path, allowed)
        check(
            path.is_dir() or self.signature is None,
            "teacher.signature",
            self.signature,
            "a .keras file has none",
        )


@dataclasses.dataclass(frozen=True)
class StudentTeacher:
    """Born-again networks (Furlanello et al., ICML 2018): the student of a finished run teaches the next one."""

    name: str = "student"
    run: str = omegaconf.MISSING  # its folder
    scores: ScoresConfig = dataclasses.field(default_factory=ScoresConfig)

    def __post_init__(self) -> None:
        run = Path(self.run)
        check(
            (run / "result.json").is_file() and (run / "student" / "saved_model.pb").is_file(),
            "teacher.run",
            run,
            "the folder of a finished run with result.json and student/; mend: run it with stage=all and saved_model "
            "among export.formats",
        )


@dataclasses.dataclass(frozen=True)
class EnsembleTeacher:
    """The mean of the members' scores, each with mean 0 and standard deviation 1 within its list."""

    name: str = "ensemble"
    # Each the name of a teacher, the folder of a finished run (its student), or a teacher's options with its name.
    members: list[Any] = omegaconf.MISSING
    scores: ScoresConfig = dataclasses.field(default_factory=ScoresConfig)

    def __post_init__(self) -> None:
        check(len(self.members) >= 2, "teacher.members", self.members, "at least two")

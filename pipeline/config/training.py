"""Options of the loss, of training and of evaluation."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.config.checks import check, one_of


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The student's loss: (1 - w) * distillation loss + w * label loss; on lists without labels w is 0."""

    name: str
    label_loss: str  # of the mixture, and of the baseline: pipeline.losses.registry.LABEL
    label_weight: float  # w at the first step
    label_schedule: str  # of w: constant; linear or cosine, to label_weight_end at the last step
    label_weight_end: float | None
    options: dict[str, Any]  # of the distillation loss; pipeline.losses.registry checks them

    def __post_init__(self) -> None:
        check(0 <= self.label_weight <= 1, "loss.label_weight", self.label_weight, "0 <= x <= 1")
        one_of("loss.label_schedule", self.label_schedule, ("constant", "linear", "cosine"))
        end = self.label_weight_end
        if self.label_schedule == "constant":
            check(
                end is None,
                "loss.label_weight_end",
                end,
                "null, or with loss.label_schedule linear or cosine",
            )
        else:
            ok = end is not None and 0 <= end <= 1
            check(
                ok,
                "loss.label_weight_end",
                end,
                f"0 <= x <= 1 with loss.label_schedule={self.label_schedule}",
            )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the student, and the same student on labels alone, are trained."""

    strategy: str = "auto"  # of tf.distribute: auto, one_device, mirrored, multi_worker, tpu
    tpu: str | None = None  # name of the TPU; local: that of this TPU VM; null: the variable TPU_NAME
    worker_timeout_s: float = 900.0  # how long multi_worker waits until all workers have started
    epochs: int = 30  # at most
    lists_per_batch: int = 16  # over all replicas together
    learning_rate: float = 4e-3
    schedule: str = "cosine"  # of the learning rate: constant, cosine (to 0 at the last epoch)
    weight_decay: float = (
        0.01  # decoupled (AdamW): each step takes learning rate * this off the weights, not biases
    )
    patience: int = 0  # epochs without a better validation NDCG@10 before the end; 0: run all epochs
    jit: str = "auto"  # what XLA compiles: off, loss, step (all of it, static shapes); auto: by the device
    precision: str = "float32"  # of the layers: float32, bfloat16, float16; variables and loss are float32
    baseline: bool = True  # also train the student on labels alone, same budget
    deterministic: bool = True  # the same numbers from the same command
    profile: list[int] | None = None  # [first, last]: steps (from 1, over all epochs) to profile into events/

    def __post_init__(self) -> None:
        one_of("train.strategy", self.strategy, ("auto", "one_device", "mirrored", "multi_worker", "tpu"))
        for key in ("epochs", "lists_per_batch"):
            check(getattr(self, key) >= 1, f"train.{key}", getattr(self, key), "at least 1")
        check(self.learning_rate > 0, "train.learning_rate", self.learning_rate, "a number > 0")
        check(self.worker_timeout_s > 0, "train.worker_timeout_s", self.worker_timeout_s, "a number > 0")
        one_of("train.schedule", self.schedule, ("constant", "cosine"))
        check(self.weight_decay >= 0, "train.weight_decay", self.weight_decay, "a number >= 0")
        check(self.patience >= 0, "train.patience", self.patience, "at least 0")
        one_of("train.jit", self.jit, ("auto", "off", "loss", "step"))
        if self.profile is not None:
            ok = len(self.profile) == 2 and 1 <= self.profile[0] <= self.profile[1]
            check(ok, "train.profile", self.profile, "[first, last] with 1 <= first <= last, or null")
        one_of("train.precision", self.precision, ("float32", "bfloat16", "float16"))


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """What a student must reach on the test split; a run whose student does not ends with exit code 3."""

    min_share_of_teacher: float | None = None  # of the teacher's NDCG@10, such as 0.98
    not_below_baseline: bool = False  # its NDCG@10 is not significantly below the baseline's (95 %)
    max_us_per_doc: float | None = None  # microseconds a document, scored in bulk: CPU time, elapsed on a GPU

    def __post_init__(self) -> None:
        share, us = self.min_share_of_teacher, self.max_us_per_doc
        ok = share is None or 0 < share <= 2
        check(ok, "evaluate.gate.min_share_of_teacher", share, "a number in (0, 2], such as 0.98, or null")
        check(us is None or us > 0, "evaluate.gate.max_us_per_doc", us, "a number > 0, or null")

    @property
    def asks(self) -> bool:
        """Whether anything is asked of the student."""
        return self != GateConfig()


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    no_relevant: str = "skip"  # how the tables count a query without a relevant document: skip, zero, one
    ties: str = (
        "average"  # equal scores: average (the mean over all their orders), index (row order), pessimistic
    )
    gate: GateConfig = dataclasses.field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        one_of("evaluate.no_relevant", self.no_relevant, ("skip", "zero", "one"))
        one_of("evaluate.ties", self.ties, ("average", "index", "pessimistic"))

"""Types and limits of the options of the loss, of training and of evaluation."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.config.checks import above_zero, at_least, check, one_of
from pipeline.config.defaults import defaults_of


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The student's loss: (1 - w) * distillation loss + w * label loss; on lists without labels w is 0."""

    name: str
    label_loss: str
    label_weight: float
    label_schedule: str
    label_weight_end: float | None
    options: dict[str, Any]  # of the distillation loss; pipeline.losses.registry checks them

    def __post_init__(self) -> None:
        check(0 <= self.label_weight <= 1, "loss.label_weight", self.label_weight, "0 <= x <= 1")
        one_of("loss.label_schedule", self.label_schedule, ("constant", "linear", "cosine"))
        end = self.label_weight_end
        if self.label_schedule == "constant":
            fix = "null, or loss.label_schedule=linear or cosine"
            check(end is None, "loss.label_weight_end", end, fix)
        else:
            fix = f"0 <= x <= 1 with loss.label_schedule={self.label_schedule}"
            check(end is not None and 0 <= end <= 1, "loss.label_weight_end", end, fix)


@dataclasses.dataclass(frozen=True)
@defaults_of("train/default")
class TrainConfig:
    strategy: str
    tpu: str | None
    worker_timeout_s: float
    epochs: int
    lists_per_batch: int
    learning_rate: float
    schedule: str
    weight_decay: float
    patience: int
    jit: str
    precision: str
    baseline: bool
    deterministic: bool
    profile: list[int] | None

    def __post_init__(self) -> None:
        one_of("train.strategy", self.strategy, ("auto", "one_device", "mirrored", "multi_worker", "tpu"))
        at_least(1, "train", self, "epochs", "lists_per_batch")
        above_zero("train", self, "learning_rate", "worker_timeout_s")
        one_of("train.schedule", self.schedule, ("constant", "cosine"))
        at_least(0, "train", self, "weight_decay", "patience")
        one_of("train.jit", self.jit, ("auto", "off", "loss", "step"))
        one_of("train.precision", self.precision, ("float32", "bfloat16", "float16"))
        if self.profile is not None:
            ok = len(self.profile) == 2 and 1 <= self.profile[0] <= self.profile[1]
            check(ok, "train.profile", self.profile, "[first, last] with 1 <= first <= last, or null")


@dataclasses.dataclass(frozen=True)
@defaults_of("evaluate/default", "gate")
class GateConfig:
    """What a student must reach on the test split."""

    min_share_of_teacher: float | None
    not_below_baseline: bool
    max_us_per_doc: float | None

    def __post_init__(self) -> None:
        share = self.min_share_of_teacher
        ok = share is None or 0 < share <= 2
        check(ok, "evaluate.gate.min_share_of_teacher", share, "a number in (0, 2], such as 0.98, or null")
        above_zero("evaluate.gate", self, "max_us_per_doc")

    @property
    def asks(self) -> bool:
        """Whether anything is asked of the student."""
        limits = (self.min_share_of_teacher, self.max_us_per_doc)
        return self.not_below_baseline or any(limit is not None for limit in limits)


@dataclasses.dataclass(frozen=True)
@defaults_of("evaluate/default")
class EvaluateConfig:
    no_relevant: str
    ties: str
    gate: GateConfig

    def __post_init__(self) -> None:
        one_of("evaluate.no_relevant", self.no_relevant, ("skip", "zero", "one"))
        one_of("evaluate.ties", self.ties, ("average", "index", "pessimistic"))

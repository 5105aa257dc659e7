"""Types and limits of the students' options, and of the networks that students and teachers share."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pipeline.config.checks import at_least, check, one_of
from pipeline.config.defaults import defaults_of


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Every network: features, input batch normalisation, input noise, the layers of its kind, a linear head."""

    group: ClassVar[str] = "student"  # of the options, for messages

    hidden: list[int]
    activation: str
    batch_norm: bool
    dropout: float
    input_batch_norm: bool
    input_noise: float

    def __post_init__(self) -> None:
        ok = bool(self.hidden) and all(type(width) is int and width >= 1 for width in self.hidden)
        check(ok, f"{self.group}.hidden", self.hidden, "at least one width, each at least 1")
        one_of(f"{self.group}.activation", self.activation, ("relu", "relu6", "tanh", "gelu", "swish"))
        check(0 <= self.dropout < 1, f"{self.group}.dropout", self.dropout, "0 <= x < 1")
        at_least(0, self.group, self, "input_noise")


@dataclasses.dataclass(frozen=True)
class MLPNetwork(NetworkConfig):
    """A multi-layer perceptron."""


@dataclasses.dataclass(frozen=True)
class DCNNetwork(NetworkConfig):
    """DCN-v2 (Wang et al., WWW 2021), stacked: cross layers on the features, then the hidden layers."""

    cross_layers: int
    cross_rank: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.group, self, "cross_layers", "cross_rank")


@dataclasses.dataclass(frozen=True)
class AttentionNetwork(NetworkConfig):
    """DASALC (Qin et al., ICLR 2021): hidden layers, crossed with self-attention over the list."""

    attention_layers: int
    heads: int
    head_size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.group, self, "attention_layers", "heads", "head_size")


@dataclasses.dataclass(frozen=True)
@defaults_of("student/linear")
class LinearStudent:
    name: str


@dataclasses.dataclass(frozen=True)
@defaults_of("student/mlp")
class MLPStudent(MLPNetwork):
    name: str


@dataclasses.dataclass(frozen=True)
@defaults_of("student/dcn")
class DCNStudent(DCNNetwork):
    name: str


@dataclasses.dataclass(frozen=True)
@defaults_of("student/attention")
class AttentionStudent(AttentionNetwork):
    name: str

"""Options of the networks and of the students, which are networks."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pipeline.config.checks import check, one_of


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """What the networks have in common: features, input batch norm, input noise, ..., linear head."""

    group: ClassVar[str] = "student"  # of the options, for messages

    hidden: list[int] = dataclasses.field(default_factory=lambda: [64, 32])  # widths of the hidden layers
    activation: str = "relu"
    batch_norm: bool = False  # after each activation; statistics of the global batch, over all replicas
    dropout: float = 0.0  # after each hidden layer, and each attention layer
    input_batch_norm: bool = False
    input_noise: float = 0.0  # standard deviation of Gaussian noise on the features, in training

    def __post_init__(self) -> None:
        check(
            bool(self.hidden) and min(self.hidden) >= 1,
            f"{self.group}.hidden",
            self.hidden,
            "widths >= 1, at least one",
        )
        one_of(f"{self.group}.activation", self.activation, ("relu", "relu6", "tanh", "gelu", "swish"))
        check(0 <= self.dropout < 1, f"{self.group}.dropout", self.dropout, "0 <= x < 1")
        check(self.input_noise >= 0, f"{self.group}.input_noise", self.input_noise, "at least 0")

    def _at_least_1(self, *names: str) -> None:
        for name in names:
            check(getattr(self, name) >= 1, f"{self.group}.{name}", getattr(self, name), "at least 1")


@dataclasses.dataclass(frozen=True)
class MLPNetwork(NetworkConfig):
    """A multi-layer perceptron."""


@dataclasses.dataclass(frozen=True)
class DCNNetwork(NetworkConfig):
    """DCN-v2 (Wang et al., WWW 2021), stacked: cross layers on the features, then the hidden layers."""

    cross_layers: int = 2
    cross_rank: int | None = None  # of the cross layers' matrices; null: full

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_1("cross_layers")
        check(
            self.cross_rank is None or self.cross_rank >= 1,
            f"{self.group}.cross_rank",
            self.cross_rank,
            ">= 1",
        )


@dataclasses.dataclass(frozen=True)
class AttentionNetwork(NetworkConfig):
    """DASALC (Qin et al., ICLR 2021): hidden layers, crossed with self-attention over the list."""

    attention_layers: int = 2
    heads: int = 2
    head_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_1("attention_layers", "heads", "head_size")


@dataclasses.dataclass(frozen=True)
class LinearStudent:
    name: str = "linear"


@dataclasses.dataclass(frozen=True)
class MLPStudent(MLPNetwork):
    name: str = "mlp"


@dataclasses.dataclass(frozen=True)
class DCNStudent(DCNNetwork):
    name: str = "dcn"


@dataclasses.dataclass(frozen=True)
class AttentionStudent(AttentionNetwork):
    name: str = "attention"

"""Options of the students."""

from __future__ import annotations

import dataclasses

from pipeline.config.checks import check, one_of


@dataclasses.dataclass(frozen=True)
class LinearStudent:
    name: str = "linear"


@dataclasses.dataclass(frozen=True)
class MLPStudent:
    name: str = "mlp"
    hidden: list[int] = dataclasses.field(default_factory=lambda: [64, 32])  # widths of the hidden layers
    activation: str = "relu"
    dropout: float = 0.0  # after each hidden layer

    def __post_init__(self) -> None:
        check(
            bool(self.hidden) and min(self.hidden) >= 1,
            "student.hidden",
            self.hidden,
            "widths >= 1, at least one",
        )
        one_of("student.activation", self.activation, ("relu", "relu6", "tanh", "gelu", "swish"))
        check(0 <= self.dropout < 1, "student.dropout", self.dropout, "0 <= x < 1")

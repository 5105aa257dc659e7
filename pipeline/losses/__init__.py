"""Losses: pure functions of a teacher's scores or labels, a student's scores, and a mask; and their Keras classes."""

from typing import Any

from pipeline.losses.rankdistil import coupled_rankdistil
from pipeline.losses.registry import make_loss

__all__ = ["CoupledRankDistilLoss", "RankingLoss", "coupled_rankdistil", "make_loss"]


def __getattr__(name: str) -> Any:
    """The Keras classes, imported when first used: Keras 3 takes a second to import."""
    if name in ("CoupledRankDistilLoss", "RankingLoss"):
        from pipeline.losses import keras

        return getattr(keras, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

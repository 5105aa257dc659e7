"""Losses: pure functions of a teacher's scores or labels, a student's scores, and a mask."""

from pipeline.losses.rankdistil import coupled_rankdistil
from pipeline.losses.registry import make_loss

__all__ = ["coupled_rankdistil", "make_loss"]

"""Learning-to-rank data: RankingData and what makes it."""

from pipeline.data.letor import read_letor
from pipeline.data.letor_text import LetorError
from pipeline.data.ranking import RankingData

__all__ = ["LetorError", "RankingData", "read_letor"]

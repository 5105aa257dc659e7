"""Learning-to-rank data: RankingData and what makes it."""

from pipeline.data.ranking import RankingData

__all__ = ["RankingData"]

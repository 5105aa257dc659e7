"""Learning-to-rank data: RankingData and what makes it."""

from typing import TYPE_CHECKING, Any

from pipeline.data.letor import LetorError
from pipeline.data.ranking import RankingData

if TYPE_CHECKING:
    from pipeline.data.letor.reader import read_letor

__all__ = ["LetorError", "RankingData", "read_letor"]


def __getattr__(name: str) -> Any:
    if name == "read_letor":  # takes half a second to import, for numba: only where text is read
        from pipeline.data.letor.reader import read_letor

        return read_letor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""How far a student's order agrees with its teacher's, regardless of the labels."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pipeline.metrics import RankedLists, rank_lists, ranked_ndcg

_TOP_GRADE = 4.0


def agreement(
    teacher: ArrayLike, student: ArrayLike, offsets: ArrayLike, *, cutoff: int = 10
) -> dict[str, float | None]:
    """Mean agreement of two models' scores over the lists; None where no list has a value.

    - `kendall_tau`: tau-b, over the lists that the teacher orders (two documents or more, not all tied). A list in
      which the student ties all documents counts 0.
    - `overlap@k`: the share of common documents among the first min(k, list size) of each model, over all lists. With
      ties it is the expected value over all orders of each model's tied documents.
    - `ndcg@k_vs_teacher`: NDCG of the student, ties averaged, where the label of a document is its teacher score,
      scaled within the list from [min, max] to [0, 4], the range of LETOR grades. Shifting or stretching the teacher's
      scores of a list changes nothing. Over the lists that the teacher orders.

    Args:
      teacher: [docs] scores in the layout of `RankingData`.
      student: [docs].
      offsets: [lists + 1].
      cutoff: k.

    Raises:
      ValueError: shapes that do not match, scores that are not finite, a cut-off below 1.

    >>> agreement([3.0, 2.0, 1.0, 0.0], [3.0, 1.0, 2.0, 0.0], [0, 4], cutoff=2)["overlap@2"]
    0.5
    """
    teacher = np.asarray(teacher, dtype=np.float64)
    student = np.asarray(student, dtype=np.float64)
    teacher_ranked = rank_lists(teacher, np.zeros_like(teacher), offsets)
    grades = np.zeros_like(teacher)
    taus = []
    for start, end in itertools.pairwise(teacher_ranked.offsets):
        scores = teacher[start:end]
        if end - start < 2 or scores.min() == scores.max():
            continue
        grades[start:end] = _TOP_GRADE * ((scores - scores.min()) / np.ptp(scores))
        tau = stats.kendalltau(scores, student[start:end]).statistic
        taus.append(0.0 if np.isnan(tau) else tau)

    student_ranked = rank_lists(student, grades, offsets)
    ndcg_vs_teacher = ranked_ndcg(student_ranked, cutoff=cutoff)
    common = _chance_in_top(teacher_ranked, cutoff) * _chance_in_top(student_ranked, cutoff)
    overlap = student_ranked.sum_by_list(common) / np.minimum(np.diff(student_ranked.offsets), cutoff)
    return {
        "kendall_tau": _mean(np.asarray(taus)),
        f"overlap@{cutoff}": _mean(overlap),
        f"ndcg@{cutoff}_vs_teacher": _mean(ndcg_vs_teacher),
    }


def _chance_in_top(ranked: RankedLists, cutoff: int) -> np.ndarray:
    """float64 [docs]: for each row of the data the probability of a rank up to `cutoff`."""
    chance = np.empty(len(ranked.order))
    chance[ranked.order] = ranked.mean_over_ties(ranked.rank <= cutoff)
    return chance


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None

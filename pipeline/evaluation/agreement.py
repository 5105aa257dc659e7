"""How far a student's order agrees with its teacher's, whatever the labels say."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pipeline.metrics import rank_lists, ranked_ndcg

_TOP_GRADE = 4.0


def agreement(
    teacher: ArrayLike, student: ArrayLike, offsets: ArrayLike, *, cutoff: int = 10
) -> dict[str, float | None]:
    """Mean agreement of two models' scores over the lists; None where no list can tell.

    - `kendall_tau`: tau-b, over the lists that the teacher orders (two documents or more, not all tied). A
      list that the student ties throughout counts 0: a collapsed student agrees with nobody.
    - `overlap@k`: the share of the first min(k, list size) documents that are the same, over all lists; a
      list of k documents or fewer gives 1. Ties by index.
    - `ndcg@k_vs_teacher`: NDCG of the student where a document's label is its teacher score, scaled within
      the list from [min, max] to [0, 4], the range of LETOR grades; so gain and discount are those of every
      other NDCG, and shifting or stretching the teacher's scores of a list changes nothing. Over the lists
      that the teacher orders.

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
    from scipy import stats  # takes half a second; who only trains need not wait

    teacher = np.asarray(teacher, dtype=np.float64)
    student = np.asarray(student, dtype=np.float64)
    teacher_ranked = rank_lists(teacher, np.zeros_like(teacher), offsets)
    grades = np.zeros_like(teacher)
    taus = []
    for start, end in zip(teacher_ranked.offsets[:-1], teacher_ranked.offsets[1:], strict=True):
        scores = teacher[start:end]
        if end - start < 2 or scores.min() == scores.max():
            continue
        grades[start:end] = _TOP_GRADE * ((scores - scores.min()) / np.ptp(scores))
        tau = stats.kendalltau(scores, student[start:end]).statistic
        taus.append(0.0 if np.isnan(tau) else tau)

    student_ranked = rank_lists(student, grades, offsets)
    ndcg_vs_teacher = ranked_ndcg(student_ranked, cutoff=cutoff)
    shared = (teacher_ranked.rank_of_row <= cutoff) & (student_ranked.rank_of_row <= cutoff)
    places = np.minimum(np.diff(teacher_ranked.offsets), cutoff)
    overlap = student_ranked.sum_by_list(shared) / places
    return {
        "kendall_tau": _mean(np.asarray(taus)),
        f"overlap@{cutoff}": _mean(overlap),
        f"ndcg@{cutoff}_vs_teacher": _mean(ndcg_vs_teacher),
    }


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None

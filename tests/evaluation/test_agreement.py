"""Agreement of two models' scores."""

import itertools
import math

import numpy as np
import pytest

from pipeline.evaluation import agreement


def plain_tau_b(x, y):
    """Concordant less discordant pairs, over the geometric mean of the untied pairs of the two."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs]
    untied = [sum(s[side] != 0 for s in signs) for side in (0, 1)]
    return sum(a * b for a, b in signs) / math.sqrt(untied[0] * untied[1])


def test_worked_by_hand():
    teacher, student = [3.0, 2.0, 1.0, 0.0], [3.0, 1.0, 2.0, 0.0]
    got = agreement(teacher, student, [0, 4], cutoff=2)
    assert got["kendall_tau"] == pytest.approx((5 - 1) / 6, abs=1e-9)
    assert got["overlap@2"] == 1 / 2
    # the teacher's scores as labels: 4, 8/3, 4/3, 0; the student ranks the third second
    gains = [2**4 - 1, 2 ** (8 / 3) - 1, 2 ** (4 / 3) - 1]
    expected = (gains[0] + gains[2] / math.log2(3)) / (gains[0] + gains[1] / math.log2(3))
    assert got["ndcg@2_vs_teacher"] == pytest.approx(expected, abs=1e-9)


def test_tau_is_tau_b_with_ties_and_the_mean_is_over_lists():
    rng = np.random.default_rng(1)
    teacher, student = rng.integers(0, 5, 30).astype(float), rng.integers(0, 5, 30).astype(float)
    expected = np.mean([plain_tau_b(teacher[:11], student[:11]), plain_tau_b(teacher[11:], student[11:])])
    assert agreement(teacher, student, [0, 11, 30])["kendall_tau"] == pytest.approx(expected, abs=1e-9)


def test_the_same_order_and_the_reversed_one():
    teacher = np.random.default_rng(2).permutation(40).astype(np.float32)
    assert agreement(teacher, np.exp(teacher / 10), [0, 15, 40]) == {
        "kendall_tau": pytest.approx(1, abs=1e-9),
        "overlap@10": 1,
        "ndcg@10_vs_teacher": pytest.approx(1, abs=1e-9),
    }
    reversed_order = agreement(teacher, -teacher, [0, 15, 40])
    assert reversed_order["kendall_tau"] == pytest.approx(-1, abs=1e-9)
    assert reversed_order["overlap@10"] == (5 / 10 + 0) / 2


def test_scale_and_shift_of_the_teacher_change_nothing():
    rng = np.random.default_rng(3)
    teacher, student = rng.normal(size=(2, 60))
    expected = agreement(teacher, student, [0, 20, 60])
    teacher[:20] = teacher[:20] * 1e-3 - 50
    teacher[20:] = teacher[20:] * 1e6
    assert agreement(teacher, student, [0, 20, 60]) == pytest.approx(expected, abs=1e-9)


def test_lists_that_cannot_tell():
    # one document; a teacher that ties all; then a list that both order alike
    teacher, student = [1.0, 2.0, 2.0, 1.0, 0.0], [5.0, 1.0, 0.0, 7.0, 6.0]
    got = agreement(teacher, student, [0, 1, 3, 5])
    assert got == {"kendall_tau": pytest.approx(1, abs=1e-9), "overlap@10": 1.0, "ndcg@10_vs_teacher": 1.0}
    assert agreement([1.0], [1.0], [0, 1]) == {
        "kendall_tau": None,
        "overlap@10": 1.0,
        "ndcg@10_vs_teacher": None,
    }


def test_a_collapsed_student_agrees_with_nobody():
    assert agreement([2.0, 1.0], [0.0, 0.0], [0, 2])["kendall_tau"] == 0.0


def test_short_lists_overlap_in_their_own_size():
    # lists of 3 and 11: the short one is all in the top ten, the long one misses one document each
    teacher = np.concatenate([np.arange(3.0), np.arange(11.0)])
    student = np.concatenate([np.arange(3.0), np.roll(np.arange(11.0), -1)])
    assert agreement(teacher, student, [0, 3, 14])["overlap@10"] == pytest.approx((1 + 9 / 10) / 2, abs=1e-9)


def test_tied_documents_overlap_as_in_all_their_orders():
    teacher, student = [3.0, 1.0, 1.0, 1.0], [2.0, 2.0, 0.0, 2.0]
    # the second place of the teacher is one of three documents; the student's top two are two of documents 0, 1, 3
    pairs = [({0, second}, set(top)) for second in (1, 2, 3) for top in itertools.combinations((0, 1, 3), 2)]
    expected = np.mean([len(a & b) / 2 for a, b in pairs])
    assert agreement(teacher, student, [0, 4], cutoff=2)["overlap@2"] == pytest.approx(expected, abs=1e-12)


def test_the_order_of_the_rows_changes_nothing():
    rng = np.random.default_rng(4)
    teacher, student = rng.integers(0, 4, (2, 60)).astype(float)
    got = agreement(teacher[::-1], student[::-1], [0, 40, 60])
    assert got == pytest.approx(agreement(teacher, student, [0, 20, 60]), abs=1e-12)


def test_what_is_refused():
    with pytest.raises(ValueError, match="document 1 has nan"):
        agreement([1.0, 2.0], [1.0, np.nan], [0, 2])
    with pytest.raises(ValueError, match=r"scores \(3,\)"):
        agreement([1.0, 2.0], [1.0, 2.0, 3.0], [0, 2])
    with pytest.raises(ValueError, match="cutoff=0"):
        agreement([1.0, 2.0], [1.0, 2.0], [0, 2], cutoff=0)

"""Hand-worked cases, a second plain implementation, properties, ties and errors of the numpy metrics."""

import doctest
import functools
import importlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics import (
    average_precision,
    err,
    mean_ndcg,
    mrr,
    ndcg,
    rank_lists,
    ranking_metrics,
    summarise,
)
from tests.closeness import assert_close

# float64 on both sides; the order of a sum may differ
close = functools.partial(assert_close, rtol=1e-12, atol=1e-12)

METRICS = {"ndcg": ndcg, "mrr": mrr, "average_precision": average_precision, "err": err}


# --- the second implementation, for reading: one list, plain Python


def plain_orders(scores, labels, ties):
    """The labels in each equally likely order."""
    by_score = [
        [labels[i] for i in range(len(scores)) if scores[i] == score]
        for score in sorted(set(scores), reverse=True)
    ]
    if ties == "pessimistic":
        by_score = [sorted(tied) for tied in by_score]
    choices = [itertools.permutations(tied) if ties == "average" else [tied] for tied in by_score]
    return [[*itertools.chain(*order)] for order in itertools.product(*choices)]


def plain_mean(metric, scores, labels, ties, cutoff):
    if not any(labels):
        return math.nan
    values = [PLAIN[metric](order, cutoff) for order in plain_orders(scores, labels, ties)]
    return sum(values) / len(values)


def plain_dcg(labels, cutoff):
    return sum((2**y - 1) / math.log2(1 + rank) for rank, y in enumerate(labels[:cutoff], start=1))


def plain_ndcg(ordered, cutoff):
    return plain_dcg(ordered, cutoff) / plain_dcg(sorted(ordered, reverse=True), cutoff)


def plain_mrr(ordered, cutoff):
    return next((1 / rank for rank, y in enumerate(ordered[:cutoff], start=1) if y > 0), 0.0)


def plain_average_precision(ordered, cutoff):
    relevant = [y > 0 for y in ordered]
    precisions = [sum(relevant[:rank]) / rank for rank in range(1, len(ordered) + 1) if relevant[rank - 1]]
    return sum(precisions[: sum(relevant[:cutoff])]) / sum(relevant)


def plain_err(ordered, cutoff):
    value, looking = 0.0, 1.0
    for rank, y in enumerate(ordered[:cutoff], start=1):
        satisfied = (2**y - 1) / 16
        value += looking * satisfied / rank
        looking *= 1 - satisfied
    return value


PLAIN = {"ndcg": plain_ndcg, "mrr": plain_mrr, "average_precision": plain_average_precision, "err": plain_err}


@st.composite
def lists(draw, *, max_lists=5, max_size=14, tied=False):
    """(scores, labels) of some lists; without ties unless asked."""
    result = []
    for _ in range(draw(st.integers(1, max_lists))):
        size = draw(st.integers(1, max_size))
        numbers = (
            st.integers(-3, 3) if tied else st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)
        )
        unique_by = None if tied else (lambda x: x)
        scores = draw(st.lists(numbers, min_size=size, max_size=size, unique_by=unique_by))
        labels = draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
        result.append((scores, labels))
    return result


def flat(data):
    offsets = np.cumsum([0] + [len(s) for s, _ in data])
    return np.concatenate([s for s, _ in data]), np.concatenate([y for _, y in data]), offsets


def padded(data, *, extra=0):
    """scores, labels and mask [lists, longest + extra]; the padding holds NaN and a negative label."""
    shape = (len(data), max(len(s) for s, _ in data) + extra)
    scores, labels, mask = np.full(shape, np.nan), np.full(shape, -7.0), np.zeros(shape, dtype=bool)
    for row, (s, y) in enumerate(data):
        scores[row, : len(s)], labels[row, : len(s)], mask[row, : len(s)] = s, y, True
    return scores, labels, mask


# --- values


def test_ndcg_worked_by_hand():
    # ranked labels 2, 0, 1: DCG = 3/log2(2) + 0 + 1/log2(4) = 3.5; ideal 2, 1, 0: 3 + 1/log2(3)
    scores, labels = [[0.9, 0.1, 0.5]], [[2, 1, 0]]
    close(ndcg(scores, labels), [3.5 / (3 + 1 / math.log2(3))])
    close(ndcg(scores, labels, cutoff=1), [1.0])
    close(ndcg(scores, labels, cutoff=2), [3 / (3 + 1 / math.log2(3))])


def test_the_ideal_is_that_of_the_full_list():
    # the one relevant document is last of eleven: no gain in the top ten, but it is in the ideal top ten
    scores, labels = -np.arange(11.0), np.eye(11)[10]
    assert ndcg(scores, labels, cutoff=10).tolist() == [0.0]
    close(ndcg(scores, labels, cutoff=None), [1 / math.log2(12)])


def test_mrr_map_and_err_worked_by_hand():
    # ranked labels 0, 3, 0, 1
    scores, labels = [4.0, 3.0, 2.0, 1.0], [0, 3, 0, 1]
    assert mrr(scores, labels).tolist() == [1 / 2]
    assert mrr(scores, labels, cutoff=1).tolist() == [0.0]
    assert average_precision(scores, labels).tolist() == [(1 / 2 + 2 / 4) / 2]
    assert average_precision(scores, labels, cutoff=3).tolist() == [(1 / 2) / 2]
    # the probability to stop is 7/16 at rank 2 and 1/16 at rank 4
    close(err(scores, labels), [7 / 16 / 2 + (9 / 16) * (1 / 16) / 4])
    close(err(scores, labels, cutoff=3), [7 / 16 / 2])
    close(err(scores, labels, max_grade=3), [7 / 8 / 2 + (1 / 8) * (1 / 8) / 4])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("ties", ["index", "pessimistic"])
@settings(deadline=None)
@given(data=lists(tied=True), cutoff=st.sampled_from([1, 2, 5, 10, None]))
def test_agrees_with_the_plain_implementation(metric, ties, data, cutoff):
    expected = [plain_mean(metric, s, y, ties, cutoff) for s, y in data]
    close(METRICS[metric](*padded(data), cutoff=cutoff, ties=ties), expected)


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None)
@given(data=lists(max_lists=3, max_size=6, tied=True), cutoff=st.sampled_from([1, 2, 3, 5, None]))
def test_averaged_ties_are_the_mean_over_all_orders(metric, data, cutoff):
    expected = [plain_mean(metric, s, y, "average", cutoff) for s, y in data]
    close(METRICS[metric](*padded(data), cutoff=cutoff), expected)


@settings(deadline=None)
@given(data=lists(tied=True))
def test_flat_and_padded_lists_have_identical_values(data):
    per_query = ranking_metrics(*flat(data))
    for cutoff in (1, 5, 10):
        np.testing.assert_array_equal(per_query[f"ndcg@{cutoff}"], ndcg(*padded(data), cutoff=cutoff))
    np.testing.assert_array_equal(per_query["mrr@10"], mrr(*padded(data)))
    np.testing.assert_array_equal(per_query["map"], average_precision(*padded(data)))
    np.testing.assert_array_equal(per_query["err@10"], err(*padded(data)))


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None)
@given(data=lists(), extra=st.integers(1, 4), seed=st.integers(0, 99))
def test_padding_and_the_order_of_documents_change_nothing(metric, data, extra, seed):
    function, rng = METRICS[metric], np.random.default_rng(seed)
    expected = function(*padded(data))
    np.testing.assert_array_equal(function(*padded(data, extra=extra)), expected)
    orders = rng.permuted(np.tile(np.arange(padded(data, extra=extra)[0].shape[1]), (len(data), 1)), axis=1)
    scores, labels, mask = (np.take_along_axis(a, orders, axis=1) for a in padded(data, extra=extra))
    close(function(scores, labels, mask), expected)


@settings(deadline=None)
@given(data=lists(), cutoff=st.sampled_from([1, 3, 10, None]))
def test_ndcg_is_in_0_to_1_and_1_for_the_ideal_order(data, cutoff):
    scores, labels, mask = padded(data)
    values = ndcg(scores, labels, mask, cutoff=cutoff, no_relevant="zero")
    assert ((values >= 0) & (values <= 1 + 1e-12)).all()
    close(ndcg(labels, labels, mask, cutoff=cutoff, no_relevant="one"), np.ones(len(labels)))


@settings(deadline=None)
@given(data=lists(max_lists=8, max_size=3))
def test_how_the_three_conventions_relate(data):
    means = summarise(ranking_metrics(*flat(data)))
    blank = sum(not any(y) for _, y in data) / len(data)
    for name in ("ndcg@1", "ndcg@5", "ndcg@10"):
        zero, skip, one = means[name]["zero"], means[name]["skip"], means[name]["one"]
        assert one == pytest.approx(zero + blank, abs=1e-12)
        assert (skip is None) == (blank == 1)
        assert skip is None or skip == pytest.approx(zero / (1 - blank), abs=1e-12)
    for name, metric in {"mrr@10": mrr, "map": average_precision, "err@10": err}.items():
        assert means[name] == pytest.approx(metric(*padded(data), no_relevant="zero").mean(), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_blank_list_and_an_all_masked_one(metric):
    scores, labels = [[1.0, 2.0]] * 3, [[0, 0], [3, 3], [0, 1]]
    mask = [[True, True], [False, False], [False, True]]
    for no_relevant, value in {"skip": math.nan, "zero": 0.0, "one": 1.0}.items():
        got = METRICS[metric](scores, labels, mask, no_relevant=no_relevant)
        np.testing.assert_array_equal(got[:2], [value, value])
        assert got[2] == (1.0 if metric != "err" else 1 / 16)


def test_shapes_and_types_of_the_result():
    assert ndcg([1.0, 2.0], [0, 1]).shape == (1,)
    assert ndcg(np.zeros((3, 0)), np.zeros((3, 0)), no_relevant="one").tolist() == [1.0, 1.0, 1.0]
    assert ndcg(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)
    assert {v.dtype for v in ranking_metrics([1.0], [1], [0, 1]).values()} == {np.dtype(np.float64)}
    assert list(ranking_metrics([1.0], [1], [0, 1], cutoffs=(3, 20)))[:2] == ["ndcg@3", "ndcg@20"]


# --- ties and order


def test_ties_worked_by_hand():
    scores, labels = [1.0, 1.0, 2.0], [1, 0, 0]
    # index: labels 0, 1, 0; pessimistic: 0, 0, 1; average: half of each
    close(ndcg(scores, labels, ties="index"), [1 / math.log2(3)])
    close(ndcg(scores, labels, ties="pessimistic"), [1 / 2])
    close(ndcg(scores, labels), [(1 / math.log2(3) + 1 / 2) / 2])
    close(mrr(scores, labels, ties="index"), [1 / 2])
    close(mrr(scores, labels, ties="pessimistic"), [1 / 3])
    close(mrr(scores, labels), [(1 / 2 + 1 / 3) / 2])
    close(mrr(scores, labels, cutoff=2), [(1 / 2 + 0) / 2])
    close(ranking_metrics(scores, labels, [0, 3], ties="pessimistic")["mrr@10"], [1 / 3])
    assert mrr([0.0, -0.0], [0, 1], ties="index").tolist() == [1 / 2]  # 0.0 and -0.0 are equal
    assert mrr([0.0, -0.0], [0, 1]).tolist() == [(1 + 1 / 2) / 2]


def test_equal_scores_of_two_lists_are_no_tie():
    values = ranking_metrics([2.0, 1.0, 1.0, 0.0], [0, 1, 1, 0], [0, 2, 4])
    assert values["mrr@10"].tolist() == [1 / 2, 1.0]


@pytest.mark.parametrize("metric", METRICS)
def test_a_constant_scorer_gains_nothing_from_sorted_rows(metric):
    rng = np.random.default_rng(5)
    labels = -np.sort(-rng.integers(0, 5, (20, 150)), axis=1)
    for scores in (np.zeros(labels.shape), np.round(rng.normal(size=(20, 1))) * np.ones(150)):
        sorted_rows, reversed_rows = METRICS[metric](scores, labels), METRICS[metric](scores, labels[:, ::-1])
        close(sorted_rows, reversed_rows)
    ideal, worst = (METRICS[metric](s * np.arange(150.0) * np.ones((20, 1)), labels) for s in (-1, 1))
    assert ((worst < sorted_rows) & (sorted_rows < ideal)).all()


def test_labels_up_to_999():
    labels = [999, 0, 130, 1, 998]
    scores = [1.0, 5.0, 3.0, 3.0, 2.0]
    for cutoff in (1, 3, None):
        close(ndcg(scores, labels, cutoff=cutoff), [plain_mean("ndcg", scores, labels, "average", cutoff)])
    assert ndcg(labels, labels).tolist() == [1.0]
    # 1 - R = 1 - (2^999 - 1) / 2^999 is 0 in float64: whoever reaches that document stops there
    close(err([1.0, 2.0], [999, 0], max_grade=999), [1 / 2])


def test_mean_ndcg_leaves_blank_lists_out():
    got = mean_ndcg([1.0, 2.0, 3.0, 1.0], [0, 1, 1, 0], [0, 1, 2, 4], cutoffs=(1, 10))
    assert got == {"ndcg@1": 1.0, "ndcg@10": 1.0}
    rng = np.random.default_rng(3)
    scores, labels, offsets = rng.integers(0, 4, 60), rng.integers(0, 3, 60), [0, 25, 25, 60]
    close(
        mean_ndcg(scores, labels, offsets)["ndcg@5"],
        np.nanmean(ranking_metrics(scores, labels, offsets)["ndcg@5"]),
    )
    assert math.isnan(mean_ndcg([1.0, 2.0], [0, 0], [0, 2])["ndcg@10"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_neighbouring_scores_keep_their_order(dtype):
    low = np.asarray(0.7, dtype)
    high = np.nextafter(low, np.asarray(1, dtype))
    assert rank_lists(np.array([low, high]), [0, 0], [0, 2]).order.tolist() == [1, 0]


def test_integers_are_scores_too():
    assert rank_lists(np.array([0, 3, 1], np.uint8), [0, 0, 0], [0, 3]).order.tolist() == [1, 2, 0]


# --- errors


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("scores", "labels", "options", "message"),
    [
        ([1.0, np.nan], [0, 1], {}, "document 1 has nan"),
        ([1.0, -np.inf], [0, 1], {}, "document 1 has -inf"),
        ([1.0, 2.0], [0, -1], {}, "document 1 has -1"),
        ([1.0, 2.0], [np.nan, 1], {}, "document 0 has nan"),
        ([1.0, 2.0], [np.inf, 1], {}, "document 0 has inf"),
        ([1.0, 2.0], [0, 1, 2], {}, r"\(2,\), labels \(3,\)"),
        ([1.0, 2.0], [[0, 1]], {}, r"\(2,\), labels \(1, 2\)"),
        ([[[1.0]]], [[[1]]], {}, "list_size"),
        ([1.0, 2.0], [0, 1], {"mask": [True]}, r"mask \(1,\)"),
        ([1.0, 2.0], [0, 1], {"cutoff": 0}, "cutoff=0"),
        ([1.0, 2.0], [0, 1], {"no_relevant": "half"}, "no_relevant='half': must be one of skip, zero, one"),
        ([1.0, 2.0], [0, 1], {"ties": "random"}, "ties='random': must be one of average, index, pess"),
    ],
)
def test_what_is_refused(metric, scores, labels, options, message):
    with pytest.raises(ValueError, match=message):
        METRICS[metric](scores, labels, **options)


@pytest.mark.parametrize("offsets", [[], [0, 1], [1, 2], [0, 2, 1, 2], [0, 3], [[0, 2]]])
def test_offsets_that_do_not_fit_are_refused(offsets):
    with pytest.raises(ValueError, match="offsets must be"):
        ranking_metrics([1.0, 2.0], [0, 1], offsets)


def test_a_label_above_the_highest_grade_is_refused():
    with pytest.raises(ValueError, match="max_grade=4: a label is 5"):
        err([1.0, 2.0], [0, 5])
    assert err([2.0, 1.0], [5, 0], max_grade=5).tolist() == [31 / 32]


def test_no_queries_have_no_mean():
    with pytest.raises(ValueError, match="no queries"):
        summarise(ranking_metrics([], [], [0]))


@pytest.mark.parametrize("module", ["ranked", "ndcg", "ranking", "summary", "ndcg_tf"])
def test_the_examples_of_the_docstrings(module):
    failed, attempted = doctest.testmod(importlib.import_module(f"pipeline.metrics.{module}"))
    assert attempted > 0
    assert failed == 0

"""Hand-worked cases, a second plain implementation, properties, ties and errors of the numpy metrics."""

import doctest
import importlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics import average_precision, err, mrr, ndcg, rank_lists, ranking_metrics, summarise

METRICS = {"ndcg": ndcg, "mrr": mrr, "average_precision": average_precision, "err": err}


# --- the second implementation, for reading: one list, plain Python


def plain_order(scores, labels, ties):
    key = {"index": lambda i: (-scores[i], i), "pessimistic": lambda i: (-scores[i], labels[i], i)}[ties]
    return [labels[i] for i in sorted(range(len(scores)), key=key)]


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
    """scores, labels and mask [lists, longest + extra]; the padding is poison."""
    shape = (len(data), max(len(s) for s, _ in data) + extra)
    scores, labels, mask = np.full(shape, np.nan), np.full(shape, -7.0), np.zeros(shape, dtype=bool)
    for row, (s, y) in enumerate(data):
        scores[row, : len(s)], labels[row, : len(s)], mask[row, : len(s)] = s, y, True
    return scores, labels, mask


# --- values


def test_ndcg_worked_by_hand():
    # ranked labels 2, 0, 1: DCG = 3/log2(2) + 0 + 1/log2(4) = 3.5; ideal 2, 1, 0: 3 + 1/log2(3)
    scores, labels = [[0.9, 0.1, 0.5]], [[2, 1, 0]]
    np.testing.assert_allclose(ndcg(scores, labels), [3.5 / (3 + 1 / math.log2(3))], rtol=1e-15)
    np.testing.assert_allclose(ndcg(scores, labels, cutoff=1), [1.0], rtol=1e-15)
    np.testing.assert_allclose(ndcg(scores, labels, cutoff=2), [3 / (3 + 1 / math.log2(3))], rtol=1e-15)


def test_the_ideal_is_that_of_the_full_list():
    # the one relevant document is last of eleven: no gain in the top ten, but it is in the ideal top ten
    scores, labels = -np.arange(11.0), np.eye(11)[10]
    assert ndcg(scores, labels, cutoff=10).tolist() == [0.0]
    np.testing.assert_allclose(ndcg(scores, labels, cutoff=None), [1 / math.log2(12)], rtol=1e-15)


def test_mrr_map_and_err_worked_by_hand():
    # ranked labels 0, 3, 0, 1
    scores, labels = [4.0, 3.0, 2.0, 1.0], [0, 3, 0, 1]
    assert mrr(scores, labels).tolist() == [1 / 2]
    assert mrr(scores, labels, cutoff=1).tolist() == [0.0]
    assert average_precision(scores, labels).tolist() == [(1 / 2 + 2 / 4) / 2]
    assert average_precision(scores, labels, cutoff=3).tolist() == [(1 / 2) / 2]
    # R = 7/16 at rank 2 and 1/16 at rank 4
    np.testing.assert_allclose(err(scores, labels), [7 / 16 / 2 + (9 / 16) * (1 / 16) / 4], rtol=1e-15)
    np.testing.assert_allclose(err(scores, labels, cutoff=3), [7 / 16 / 2], rtol=1e-15)
    np.testing.assert_allclose(
        err(scores, labels, max_grade=3), [7 / 8 / 2 + (1 / 8) * (1 / 8) / 4], rtol=1e-15
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("ties", ["index", "pessimistic"])
@settings(deadline=None)
@given(data=lists(tied=True), cutoff=st.sampled_from([1, 2, 5, 10, None]))
def test_agrees_with_the_plain_implementation(metric, ties, data, cutoff):
    expected = [PLAIN[metric](plain_order(s, y, ties), cutoff) if any(y) else math.nan for s, y in data]
    got = METRICS[metric](*padded(data), cutoff=cutoff, ties=ties)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@settings(deadline=None)
@given(data=lists(tied=True))
def test_flat_equals_padded_to_the_last_bit(data):
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
    np.testing.assert_allclose(function(scores, labels, mask), expected, rtol=1e-12)


@settings(deadline=None)
@given(data=lists(), cutoff=st.sampled_from([1, 3, 10, None]))
def test_ndcg_is_in_0_to_1_and_1_for_the_ideal_order(data, cutoff):
    scores, labels, mask = padded(data)
    values = ndcg(scores, labels, mask, cutoff=cutoff, no_relevant="zero")
    assert ((values >= 0) & (values <= 1 + 1e-12)).all()
    assert (ndcg(labels, labels, mask, cutoff=cutoff, no_relevant="one") == 1).all()


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


def test_ties_by_index_and_pessimistic_by_hand():
    scores, labels = [1.0, 1.0, 2.0], [1, 0, 0]
    # index: labels 0, 1, 0; pessimistic: 0, 0, 1
    np.testing.assert_allclose(ndcg(scores, labels), [1 / math.log2(3)], rtol=1e-15)
    np.testing.assert_allclose(ndcg(scores, labels, ties="pessimistic"), [1 / 2], rtol=1e-15)
    assert mrr(scores, labels).tolist() == [1 / 2]
    assert mrr(scores, labels, ties="pessimistic").tolist() == [1 / 3]
    assert ranking_metrics(scores, labels, [0, 3], ties="pessimistic")["mrr@10"].tolist() == [1 / 3]
    assert mrr([0.0, -0.0], [0, 1]).tolist() == [1 / 2]  # -0.0 is no other score than 0.0


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
        ([1.0, 2.0], [0, 1], {"ties": "random"}, "ties='random': must be one of index, pessimistic"),
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
    with pytest.raises(ValueError, match="there is no query"):
        summarise(ranking_metrics([], [], [0]))


@pytest.mark.parametrize("module", ["ranked", "ndcg", "ranking", "summary", "ndcg_tf"])
def test_the_examples_of_the_docstrings(module):
    failed, attempted = doctest.testmod(importlib.import_module(f"pipeline.metrics.{module}"))
    assert attempted > 0
    assert failed == 0

"""What the evaluation stage says about ties."""

import logging

import numpy as np
import pytest

from pipeline.data import RankingData
from pipeline.evaluation.stage import Scored, evaluate
from pipeline.metrics import mean_ndcg, ndcg, tie_effect


@pytest.fixture
def lists():
    """Five lists of 20 documents, sorted by label."""
    labels = np.tile(np.repeat([2.0, 1.0, 0.0], [2, 4, 14]), 5).astype(np.float32)
    features = np.zeros((100, 1), np.float32)
    return RankingData(features, labels, np.arange(0, 101, 20), np.array([*"abcde"]))


def scored(scores):
    return Scored({"vali": scores, "test": scores}, {}, None)


@pytest.mark.parametrize("ties", ["average", "index", "pessimistic"])
def test_a_model_with_ties_is_named(lists, caplog, ties):
    caplog.set_level(logging.INFO)
    constant, distinct = np.zeros(100), -np.tile(np.arange(20.0), 5)
    models = {"teacher": scored(constant), "student": scored(distinct)}
    result, _ = evaluate(models, {"vali": lists, "test": lists}, ties=ties)
    assert result["models"]["student"]["ties"] == {
        "pairs": 5 * 190,
        "tied_pairs": 0,
        "ndcg@10_worst": 1.0,
        "ndcg@10_best": 1.0,
    }
    assert result["models"]["teacher"]["ties"]["tied_pairs"] == 5 * 190
    assert result["models"]["teacher"]["ties"]["ndcg@10_worst"] == 0.0  # fourteen irrelevant documents first
    assert "teacher: 950 of 950 document pairs" in caplog.text
    assert "student:" not in caplog.text


def test_worst_and_best_order_of_tied_documents():
    rng = np.random.default_rng(0)
    scores, labels, offsets = rng.integers(0, 5, 90), rng.integers(0, 3, 90), [0, 30, 30, 90]
    effect = tie_effect(scores, labels, offsets)
    pairs = [(i, j) for a, b in [(0, 30), (30, 90)] for i in range(a, b) for j in range(a, i)]
    assert effect["pairs"] == len(pairs)
    assert effect["tied_pairs"] == sum(scores[i] == scores[j] for i, j in pairs)
    worst = mean_ndcg(scores, labels, offsets, ties="pessimistic")["ndcg@10"]
    assert effect["ndcg@10_worst"] == pytest.approx(worst, abs=1e-12)
    best = np.mean([ndcg(scores[a:b] + labels[a:b] / 9, labels[a:b]) for a, b in [(0, 30), (30, 90)]])
    assert effect["ndcg@10_best"] == pytest.approx(best, abs=1e-12)
    assert tie_effect([1.0, 1.0], [0, 0], [0, 2])["ndcg@10_best"] is None

"""The metrics agree to 6 digits with sklearn (`zero`), and on lists without ties with LightGBM (`one`) and tfr."""

import lightgbm
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from pipeline.losses.tfr_compat import load_tfr
from pipeline.metrics import average_precision, mrr, ndcg, ranking_metrics, summarise
from tests.closeness import assert_close

NUM_LISTS, LONGEST, TOLERANCE = 60, 40, 1e-6
CUTOFFS = (1, 5, 10)


@pytest.fixture(scope="module")
def lists():
    """Scores [lists, longest] without ties, labels 0-4, mask; a sixth of the lists blank."""
    rng = np.random.default_rng(20)
    scores = rng.permuted(np.tile(np.arange(LONGEST), (NUM_LISTS, 1)), axis=1) + rng.uniform(
        0, 0.9, (NUM_LISTS, LONGEST)
    )
    labels = rng.integers(0, 5, (NUM_LISTS, LONGEST)) * (rng.random((NUM_LISTS, LONGEST)) < 0.3)
    labels[::6] = 0
    mask = np.arange(LONGEST) < rng.integers(2, LONGEST + 1, NUM_LISTS)[:, None]
    assert all(len(set(s[m])) == m.sum() for s, m in zip(scores, mask, strict=True))
    return scores, labels, mask


def in_layout(lists):
    scores, labels, mask = lists
    return scores[mask], labels[mask], np.concatenate([[0], np.cumsum(mask.sum(axis=1))])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cutoff", [*CUTOFFS, None])
def test_ndcg_zero_is_sklearns(lists, cutoff, tied):
    scores, labels, mask = lists
    if tied:
        scores = np.floor(scores / 7)
    expected = [  # sklearn's gain is linear, so it gets the gains; its zero is a blank list's value
        sklearn_metrics.ndcg_score([2.0 ** y[m] - 1], [s[m]], k=cutoff)
        for s, y, m in zip(scores, labels, mask, strict=True)
    ]
    got = ndcg(scores, labels, mask, cutoff=cutoff, no_relevant="zero")
    assert_close(got, expected, rtol=0, atol=TOLERANCE)


def test_average_precision_is_sklearns(lists):
    scores, labels, mask = lists
    judged = [i for i in range(NUM_LISTS) if labels[i][mask[i]].any()]
    expected = [
        sklearn_metrics.average_precision_score(labels[i][mask[i]] > 0, scores[i][mask[i]]) for i in judged
    ]
    assert_close(average_precision(scores, labels, mask)[judged], expected, rtol=0, atol=TOLERANCE)


def lightgbm_metrics(scores, labels, offsets):
    """LightGBM's own evaluation of given scores: they are the start scores of a model that cannot split."""
    options = {
        "objective": "lambdarank",
        "metric": ["ndcg", "map"],
        "eval_at": [*CUTOFFS, LONGEST],
        "min_data_in_leaf": len(labels) + 1,
        "num_threads": 1,
        "verbose": -1,
    }
    features = np.random.default_rng(0).normal(size=(len(labels), 1))
    train = lightgbm.Dataset(features, labels, group=np.diff(offsets), params=options)
    vali = lightgbm.Dataset(features, labels, group=np.diff(offsets), init_score=scores, reference=train)
    evals = {}
    lightgbm.train(
        options,
        train,
        1,
        valid_sets=[vali],
        valid_names=["vali"],
        callbacks=[lightgbm.record_evaluation(evals)],
    )
    return {name: values[0] for name, values in evals["vali"].items()}


def test_ndcg_one_and_map_are_lightgbms(lists):
    scores, labels, offsets = in_layout(lists)
    expected = lightgbm_metrics(scores, labels, offsets)
    means = summarise(ranking_metrics(scores, labels, offsets, cutoffs=[*CUTOFFS, LONGEST]))
    for cutoff in (*CUTOFFS, LONGEST):
        assert means[f"ndcg@{cutoff}"]["one"] == pytest.approx(expected[f"ndcg@{cutoff}"], abs=TOLERANCE)
    # LightGBM's MAP divides by min(k, relevant documents), at full length as ours; a blank list counts 1
    full = average_precision(*lists, no_relevant="one").mean()
    assert full == pytest.approx(expected[f"map@{LONGEST}"], abs=TOLERANCE)


def test_all_are_tfrs(lists):
    scores, labels, mask = lists
    tfr_metrics = load_tfr().keras.metrics
    y_true = np.where(mask, labels, -1).astype(np.float32)  # tfr's padding: a negative label
    means = summarise(ranking_metrics(*in_layout(lists), cutoffs=CUTOFFS))

    def tfr_mean(metric):
        return float(metric(y_true, scores.astype(np.float32)))

    for cutoff in CUTOFFS:
        expected = tfr_mean(tfr_metrics.NDCGMetric(topn=cutoff))
        assert means[f"ndcg@{cutoff}"]["zero"] == pytest.approx(expected, abs=TOLERANCE)
    assert means["mrr@10"] == pytest.approx(tfr_mean(tfr_metrics.MRRMetric(topn=10)), abs=TOLERANCE)
    assert means["map"] == pytest.approx(tfr_mean(tfr_metrics.MeanAveragePrecisionMetric()), abs=TOLERANCE)
    for cutoff in CUTOFFS:  # at a cut-off too, all relevant documents divide
        expected = tfr_mean(tfr_metrics.MeanAveragePrecisionMetric(topn=cutoff))
        got = average_precision(scores, labels, mask, cutoff=cutoff, no_relevant="zero").mean()
        assert got == pytest.approx(expected, abs=TOLERANCE)
    got = mrr(scores, labels, mask, cutoff=None, no_relevant="zero").mean()
    assert got == pytest.approx(tfr_mean(tfr_metrics.MRRMetric()), abs=TOLERANCE)

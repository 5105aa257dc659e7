"""NDCG in the graph equals NDCG in numpy."""

import numpy as np
import pytest

from pipeline.metrics import ndcg
from pipeline.metrics.ndcg_tf import ndcg_tf
from tests.closeness import assert_close

import tensorflow as tf  # isort: skip


@pytest.fixture(scope="module")
def lists():
    """Scores with many ties (0.0 and -0.0 too), labels, mask; list 0 is blank, list 1 all padding."""
    rng = np.random.default_rng(7)
    scores = (rng.integers(-4, 5, (30, 17)) / 2 * rng.choice([-1.0, 1.0], (30, 17))).astype(np.float32)
    assert (np.signbit(scores) & (scores == 0)).any()
    labels = rng.integers(0, 5, (30, 17))
    mask = np.arange(17) < rng.integers(1, 18, 30)[:, None]
    labels[0], mask[1] = 0, False
    return np.where(mask, scores, np.nan).astype(np.float32), np.where(mask, labels, -1), mask


@pytest.mark.parametrize("jit_compile", [None, True, False], ids=["eager", "xla", "graph"])
@pytest.mark.parametrize("cutoff", [1, 5, 10, 100])
def test_equals_numpy(lists, cutoff, jit_compile):
    function = ndcg_tf if jit_compile is None else tf.function(ndcg_tf, jit_compile=jit_compile)
    got = function(*map(tf.constant, lists), cutoff=cutoff)
    assert got.dtype == tf.float32
    assert_close(got, ndcg(*lists, cutoff=cutoff, no_relevant="zero"), atol=2e-6)


def test_lists_of_unknown_size(lists):
    signature = [tf.TensorSpec([None, None], dtype) for dtype in (tf.float32, tf.int64, tf.bool)]
    function = tf.function(ndcg_tf, input_signature=signature)
    assert_close(function(*lists), ndcg(*lists, no_relevant="zero"), atol=2e-6)


@pytest.mark.parametrize("jit_compile", [True, False], ids=["xla", "graph"])
def test_labels_up_to_999(jit_compile):
    rng = np.random.default_rng(8)
    labels = rng.choice([0, 1, 127, 128, 500, 998, 999], (50, 9))
    scores, mask = rng.integers(0, 5, (50, 9)).astype(np.float32), np.ones((50, 9), bool)
    got = tf.function(ndcg_tf, jit_compile=jit_compile)(scores, labels, mask, cutoff=4)
    assert_close(got, ndcg(scores, labels, mask, cutoff=4, no_relevant="zero"), atol=2e-6)

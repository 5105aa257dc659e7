"""Microseconds a document, with a clock that the scorer itself moves."""

import lightgbm  # noqa: F401  # brings the library whose threads are limited
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from pipeline.evaluation import latency


class Scorer:
    """The first feature; costs 100 us a call and 2 us a document, and half a second when first called."""

    def __init__(self):
        self.seconds, self.calls = 0.0, []

    def __call__(self, features, offsets):
        cost = 100e-6 + 2e-6 * len(features)
        self.seconds += 0.5 if not self.calls else cost
        if len(self.calls) == 3:
            self.seconds += 9  # something else had the machine: the least does not see it
        assert offsets[0] == 0
        assert offsets[-1] == len(features)
        assert set(np.diff(offsets)) <= {120, len(features) % 120}
        self.calls.append(features)
        return features[:, 0]


def test_the_least_without_the_first_call():
    scorer = Scorer()
    features = np.arange(50, dtype=np.float32)[:, None]
    got = latency(scorer, features, bulk_docs=1000, repetitions=5, clock=lambda: scorer.seconds)
    assert got == {
        "us_per_doc": pytest.approx(100 / 1000 + 2, abs=1e-9),
        "us_per_doc_list120": pytest.approx(100 / 120 + 2, abs=1e-9),
    }
    assert [len(rows) for rows in scorer.calls] == [1000] * 6 + [120] * 6
    assert scorer.calls[0][:, 0].tolist() == list(range(50)) * 20


def test_trees_are_timed_on_one_thread():
    seen = set()

    def score(features, offsets):
        seen.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
        return features[:, 0]

    latency(score, np.ones((3, 4), np.float32), repetitions=1)
    assert seen == {1}


def test_the_real_clock_gives_positive_numbers():
    got = latency(lambda x, offsets: x.sum(axis=1), np.ones((3, 4), np.float32), repetitions=3)
    assert all(value > 0 for value in got.values())


def test_what_is_refused():
    with pytest.raises(ValueError, match="no documents"):
        latency(lambda x, offsets: x[:, 0], np.ones((0, 4), np.float32))
    with pytest.raises(ValueError, match=r"\[8192\] scores for 8192 documents, not \(8192, 1\)"):
        latency(lambda x, offsets: x[:, :1], np.ones((3, 4), np.float32))

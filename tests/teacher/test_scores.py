import numpy as np
import pytest
from scipy import special, stats

from pipeline.config import ScoresConfig
from pipeline.teacher.scores import mean_entropy, transform_scores

OFFSETS = np.array([0, 3, 4, 8])
RAW = np.array([1.0, -2.0, 4.0, 5.0, 0.5, 0.5, -7.0, 2.0])
LISTS = [RAW[:3], RAW[3:4], RAW[4:]]


def per_list(function):
    return np.concatenate([function(scores) for scores in LISTS])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ScoresConfig(), RAW),
        (ScoresConfig("shift_min"), per_list(lambda s: s - s.min())),
        (ScoresConfig("zscore"), per_list(lambda s: (s - s.mean()) / (s.std() or 1))),
        (ScoresConfig("rank"), per_list(lambda s: -np.log2(1 + stats.rankdata(-s)))),
        (ScoresConfig(scale=2.0, offset=-1.0), 2 * RAW - 1),
        (ScoresConfig(cap=3.0), per_list(lambda s: np.maximum(s, s.max() - 3))),
        (
            ScoresConfig("shift_min", 3.0, 1.0, cap=2.0),
            per_list(lambda s: np.maximum(3 * s, 3 * s.max() - 2) - 3 * s.min() + 1),
        ),
    ],
)
def test_transforms(config, expected):
    got = transform_scores(config, RAW, OFFSETS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_entropy_is_matched():
    target = 0.7
    logits = transform_scores(ScoresConfig(entropy=target), RAW, OFFSETS)
    entropies = [stats.entropy(special.softmax(logits[a:b])) for a, b in [(0, 3), (3, 4), (4, 8)]]
    assert np.mean(entropies) == pytest.approx(target, abs=1e-5)
    assert mean_entropy(logits.astype(np.float64), OFFSETS) == pytest.approx(np.mean(entropies), abs=1e-9)


def test_an_entropy_that_cannot_be_reached_says_the_range():
    with pytest.raises(ValueError, match=r"these scores can have .* to 0.82"):
        transform_scores(ScoresConfig(entropy=3.0), RAW, OFFSETS)


def test_wrong_scores_are_refused():
    with pytest.raises(ValueError, match="7 teacher scores for 8 documents"):
        transform_scores(ScoresConfig(), RAW[:7], OFFSETS)
    with pytest.raises(ValueError, match="nan of row 2"):
        transform_scores(ScoresConfig(), np.where(np.arange(8) == 2, np.nan, RAW), OFFSETS)

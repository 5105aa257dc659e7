import numpy as np
import pytest
from scipy import special, stats

from pipeline.config import ConfigError, ScoresConfig
from pipeline.data import RankingData
from pipeline.errors import UserError
from pipeline.teacher.run_file import read_scores
from pipeline.teacher.scores import check_teacher_ranks, mean_entropy, transform_scores
from tests.closeness import assert_close

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
    assert_close(got, expected)


def test_entropy_is_matched():
    target = 0.7
    logits = transform_scores(ScoresConfig(entropy=target), RAW, OFFSETS)
    entropies = [stats.entropy(special.softmax(logits[a:b])) for a, b in [(0, 3), (3, 4), (4, 8)]]
    assert np.mean(entropies) == pytest.approx(target, abs=1e-5)
    assert mean_entropy(logits.astype(np.float64), OFFSETS) == pytest.approx(np.mean(entropies), abs=1e-9)


def test_an_entropy_that_cannot_be_reached_says_the_range():
    with pytest.raises(ConfigError, match=r"teacher.scores.entropy=3.0: .* to 0.82"):
        transform_scores(ScoresConfig(entropy=3.0), RAW, OFFSETS)


def test_wrong_scores_are_refused():
    with pytest.raises(ValueError, match="7 teacher scores for 8 documents"):
        transform_scores(ScoresConfig(), RAW[:7], OFFSETS)
    with pytest.raises(ValueError, match="nan of row 2"):
        transform_scores(ScoresConfig(), np.where(np.arange(8) == 2, np.nan, RAW), OFFSETS)


def test_a_run_file_of_equal_scores_is_an_error(tmp_path):
    data = RankingData(
        np.zeros((8, 1), np.float32), np.zeros(8, np.float32), OFFSETS, np.array(["a", "b", "c"])
    )
    sizes = zip("abc", data.list_sizes, strict=True)
    (tmp_path / "run").write_text("".join(f"{q} Q0 {d} 1 0.5 t\n" for q, size in sizes for d in range(size)))
    with pytest.raises(
        UserError, match=r"test split: the teacher ranks nothing.*the 2 queries.*Fix: .*run_file"
    ):
        check_teacher_ranks(read_scores(tmp_path / "run", data), OFFSETS, "test")


@pytest.mark.parametrize(
    ("num_tied", "outcome"), [(0, "fine"), (4, "fine"), (5, "warning"), (9, "warning"), (10, "error")]
)
def test_lists_of_constant_scores(num_tied, outcome, caplog):
    """Ten lists of three documents, and one of a single document that does not count."""
    scores = np.tile([1.0, 2.0, 3.0], 10)
    scores[: 3 * num_tied] = np.repeat(np.arange(num_tied) / 3, 3)  # a constant of its own for each list
    scores, offsets = np.append(scores, 7.0), np.append(np.arange(0, 31, 3), 31)
    if outcome == "error":
        with pytest.raises(UserError, match="in each of the 10 queries"):
            check_teacher_ranks(scores, offsets, "train")
        return
    check_teacher_ranks(scores, offsets, "train")
    assert (f"in {num_tied} of 10 queries" in caplog.text) == (outcome == "warning")


def test_lists_of_one_document_are_no_error():
    check_teacher_ranks(np.array([1.0, 2.0]), np.array([0, 1, 2]), "train")

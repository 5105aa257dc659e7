"""The paired comparison of two models."""

import json
import math

import numpy as np
import pytest

from pipeline.evaluation import compare


def test_worked_by_hand():
    # differences 0, 1, 2: mean 1, standard error 1/sqrt(3), t = sqrt(3), 2 degrees of freedom. There
    # F(t) = 1/2 + t / (2 sqrt(2 + t^2)), so p = 1 - sqrt(3/5), and F = .975 at t = .95 sqrt(2 / (1 - .95^2))
    got = compare(np.array([0.5, 2.0, 4.0]), np.array([0.5, 1.0, 2.0]), a="x", b="y", metric="map")
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) / math.sqrt(3)
    assert got == {
        "a": "x",
        "b": "y",
        "metric": "map",
        "queries": 3,
        "difference": 1.0,
        "ci95": pytest.approx([1 - half, 1 + half], abs=1e-12),
        "p": pytest.approx(1 - math.sqrt(3 / 5), abs=1e-12),
        "win": 2,
        "tie": 1,
        "loss": 0,
    }


def test_only_queries_where_both_have_a_value():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 50))
    expected = compare(a[3:-2], b[3:-2])
    a[:3], b[-2:], b[1] = np.nan, np.nan, np.nan
    assert compare(a, b) == expected
    assert expected["queries"] == 45


def test_exchanging_the_models_changes_the_sign():
    a, b = np.random.default_rng(0).random((2, 20))
    there, back = compare(a, b), compare(b, a)
    assert back["difference"] == pytest.approx(-there["difference"], abs=1e-12)
    assert back["ci95"] == pytest.approx([-there["ci95"][1], -there["ci95"][0]], abs=1e-12)
    assert back["p"] == pytest.approx(there["p"], abs=1e-12)
    assert (back["win"], back["loss"]) == (there["loss"], there["win"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("a", "b", "difference", "ci95", "p"),
    [
        ([0.3, 0.7, 0.1], [0.3, 0.7, 0.1], 0.0, [0.0, 0.0], 1.0),
        ([0.5, 1.0], [0.25, 0.75], 0.25, [0.25, 0.25], 0.0),  # the same gain everywhere
        ([0.5, np.nan], [0.25, 0.5], 0.25, None, None),
        ([np.nan], [0.5], None, None, None),
        ([], [], None, None, None),
    ],
)
def test_no_spread_and_too_few_queries(a, b, difference, ci95, p):
    got = compare(np.array(a), np.array(b))
    assert (got["difference"], got["ci95"], got["p"]) == (difference, ci95, p)
    json.dumps(got, allow_nan=False)


def test_ordinary_values_are_plain_json():
    got = compare(*np.random.default_rng(0).random((2, 9)).astype(np.float32))
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"student \(2,\) and baseline \(3,\)"):
        compare(np.zeros(2), np.zeros(3))

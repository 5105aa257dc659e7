"""The noise, the draws made of it, and the pieces they are computed with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

import pipeline  # noqa: F401  (before tensorflow)

import tensorflow as tf  # isort: skip

from pipeline.losses import plackett_luce
from pipeline.noise import exponential, random_bits, uniform
from tests.closeness import assert_close

SEED = (7, 11)


def bits(seed: Any = SEED, num_lists: int = 16, num_samples: int = 8, list_size: int = 200) -> np.ndarray:
    return random_bits(seed, tf.range(num_lists), tf.range(num_samples), tf.range(list_size)).numpy()


def plain_bits(seed: tuple[int, int], list_id: int, sample: int, slot: int) -> int:
    """random_bits once more, on Python's integers."""

    def mix(x: int) -> int:
        x ^= x >> 16
        x = x * 0x21F0AAAD & 0xFFFFFFFF
        x ^= x >> 15
        x = x * 0xD35A2D97 & 0xFFFFFFFF
        return x ^ x >> 15

    def key(state: int) -> int:
        for number in (*seed, list_id):
            for word in number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF:
                state = mix(state + word & 0xFFFFFFFF)
        return mix(state + sample & 0xFFFFFFFF)

    first = mix(slot * 0x9E3779B9 + key(0x243F6A88) & 0xFFFFFFFF)
    return mix(first ^ key(0x85A308D3))


@pytest.mark.parametrize("seed", [(0, 0), (7, 11), (2**31 - 1, 123_456), (2**40 + 5, 2**33), (-1, 5)])
def test_bits_against_plain_integers(seed: tuple[int, int]) -> None:
    list_ids = [0, 1, 2**31 - 1, 2**35 + 3]
    drawn = random_bits(
        tf.constant(seed, tf.int64), tf.constant(list_ids, tf.int64), tf.range(3), tf.constant([0, 1, 1250])
    ).numpy()
    for i, list_id in enumerate(list_ids):
        for sample in range(3):
            for j, slot in enumerate([0, 1, 1250]):
                assert drawn[i, sample, j] == plain_bits(seed, list_id, sample, slot)


def test_bits_are_the_same_everywhere() -> None:
    eager = bits()

    def draw(seed: Any) -> Any:
        return random_bits(seed, tf.range(16), tf.range(8), tf.range(200))

    for compiled in tf.function(draw), tf.function(draw, jit_compile=True):
        np.testing.assert_array_equal(compiled(tf.constant(SEED)), eager)
        np.testing.assert_array_equal(compiled(tf.constant(SEED, tf.int64)), eager)
    np.testing.assert_array_equal(bits(list_size=1251)[..., :200], eager)
    np.testing.assert_array_equal(bits(num_samples=20)[:, :8], eager)
    ids = [5, 3]
    np.testing.assert_array_equal(random_bits(SEED, ids, tf.range(8), tf.range(200)), eager[ids])


def test_uniforms_are_uniform() -> None:
    drawn = bits(num_lists=64, list_size=1000)
    uniforms = uniform(tf.constant(drawn), tf.float64).numpy()
    assert scipy.stats.kstest(uniforms.ravel()[:200_000], "uniform").pvalue > 1e-3
    for axis in range(3):  # each list, sample and slot by itself
        other_axes = tuple(i for i in range(3) if i != axis)
        means = uniforms.mean(axis=other_axes)
        z = (means - 0.5) * np.sqrt(12 * uniforms.size / len(means))
        assert abs(z).max() < 5
        assert scipy.stats.kstest(z, "norm").pvalue > 1e-3 or len(z) < 20
    shares = (drawn.reshape(-1, 1) >> np.arange(32, dtype=np.uint32) & 1).mean(axis=0)
    assert abs(shares - 0.5).max() < 5 * 0.5 / np.sqrt(drawn.size)


@pytest.mark.parametrize("neighbour", ["list", "sample", "slot", "step", "seed", "diagonal"])
def test_neighbours_are_independent(neighbour: str) -> None:
    def draw(seed: tuple[int, int] = SEED) -> np.ndarray:
        return bits(seed, num_lists=64, list_size=400)

    all_bits = draw()
    first, second = {
        "list": (all_bits[:-1], all_bits[1:]),
        "sample": (all_bits[:, :-1], all_bits[:, 1:]),
        "slot": (all_bits[..., :-1], all_bits[..., 1:]),
        "diagonal": (all_bits[:-1, :-1, :-1], all_bits[1:, 1:, 1:]),
        "step": (all_bits, draw((7, 12))),
        "seed": (all_bits, draw((8, 11))),
    }[neighbour]
    first, second = first.ravel(), second.ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(len(first))
    cells = np.bincount((first >> 28) * 16 + (second >> 28), minlength=256)  # pairs of leading bits
    assert scipy.stats.chisquare(cells).pvalue > 1e-4
    cells = np.bincount((first & 15) * 16 + (second & 15), minlength=256)  # and of last bits
    assert scipy.stats.chisquare(cells).pvalue > 1e-4
    flips = np.unpackbits((first ^ second).view(np.uint8)).mean()
    assert abs(flips - 0.5) < 5 * 0.5 / np.sqrt(32 * len(first))


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_exponential(dtype: tf.DType) -> None:
    extremes = exponential(tf.constant([0, 1, 2, 3, 2**32 - 1], tf.uint32), dtype).numpy()
    assert (extremes > 0).all()
    assert np.isfinite(np.log(extremes)).all()
    assert_close(extremes[[0, 2]], [2.0**-32, 1.5 * 2.0**-31], rtol=1e-6)  # resolution at the low end
    assert extremes[-1] > 15
    drawn = np.sort(bits(list_size=1000).ravel())
    times = exponential(tf.constant(drawn), dtype).numpy()
    expected = -np.log1p(-(drawn // 2 + 0.5) * 2.0**-31)
    if dtype == tf.float64:
        assert_close(times, expected, rtol=1e-9)
    else:  # the late ones, which decide nothing, are as coarse as float32 is near 1
        assert_close(times[expected < 5], expected[expected < 5], rtol=1e-5)
        assert_close(times, expected, rtol=1e-2)
    assert scipy.stats.kstest(times, "expon").pvalue > 1e-3


def draw(scores: Any, num_picks: int, num_samples: int, wide: bool = False) -> np.ndarray:
    scores = tf.constant(scores)
    scores -= tf.reduce_max(scores, axis=1, keepdims=True)
    return plackett_luce.draw(
        scores,
        num_picks=num_picks,
        num_samples=num_samples,
        seed=SEED,
        list_ids=tf.range(len(scores)),
        wide=wide,
    ).numpy()


@pytest.mark.parametrize("list_size", [8, 40, 640], ids=["top-k", "network", "groups"])
def test_first_and_second_picks_have_plackett_luce_frequencies(list_size: int) -> None:
    num_picks = 10 if list_size != 640 else 2
    num_picks = min(num_picks, list_size)
    assert (plackett_luce.group_size(list_size, num_picks) > 1) == (list_size == 640)
    scores = np.random.default_rng(0).normal(size=list_size).astype(np.float32) * 2
    picks = draw(np.repeat(scores[np.newaxis], 20, axis=0), num_picks, 1000).reshape(-1, num_picks)
    assert all(len(set(row)) == num_picks for row in picks[:200])
    p = np.exp(scores.astype(float)) / np.exp(scores.astype(float)).sum()
    pairs = p[:, np.newaxis] * p / (1 - p)[:, np.newaxis] * (1 - np.eye(list_size))
    for expected, seen in (
        (p, picks[:, 0]),
        (pairs.sum(axis=0), picks[:, 1]),
        (pairs.ravel(), picks[:, 0] * list_size + picks[:, 1]),
    ):
        counts, expected = np.bincount(seen, minlength=len(expected)), expected * len(picks)
        rare = (expected < 10) & (expected > 0)
        assert counts[expected == 0].sum() == 0
        counts = np.append(
            counts[expected >= 10], counts[rare].sum() + 10
        )  # 10 more: the cell is never empty
        expected = np.append(expected[expected >= 10], expected[rare].sum() + 10)
        assert scipy.stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-4


@pytest.mark.parametrize("spread", [0.0, 2.0, 15.0])
def test_draws_from_groups_are_the_plain_draws(spread: float) -> None:
    rng = np.random.default_rng(1)
    scores = (rng.normal(size=(16, 1280)) * spread).clip(-30, 30).astype(np.float32)
    scores[:, 1200:] = plackett_luce.NO_SCORE
    scores[0, 4:] = plackett_luce.NO_SCORE  # fewer documents than picks
    picks = draw(scores, 9, 8)
    scores = scores - scores.max(axis=1, keepdims=True)
    random = random_bits(SEED, tf.range(16), tf.range(8), tf.range(1280))
    with np.errstate(over="ignore"):
        times = exponential(random, tf.float32).numpy() * np.exp(-scores)[:, np.newaxis]
    expected = np.argsort(times, axis=-1, kind="stable")[..., :9]
    np.testing.assert_array_equal(picks[1:], expected[1:])
    np.testing.assert_array_equal(picks[0, :, :4], expected[0, :, :4])


def test_wide_draws_equal_narrow_ones() -> None:
    scores = np.random.default_rng(3).normal(size=(4, 50)).astype(np.float32)
    np.testing.assert_array_equal(draw(scores, 5, 8), draw(scores, 5, 8, wide=True))
    far = np.array([[0.0, -300.0, -600.0, -5000.0, -5500.0]], np.float32)
    assert (draw(far, 5, 50, wide=True) == np.arange(5)).all()


@pytest.mark.parametrize(("size", "k"), [(1, 1), (2, 1), (5, 5), (33, 7), (64, 16), (100, 99), (200, 60)])
def test_smallest(size: int, k: int) -> None:
    rng = np.random.default_rng(4)
    keys = rng.normal(size=(7, size)).astype(np.float32)
    keys[:, ::3] = rng.integers(-2, 3, size=keys[:, ::3].shape)  # ties
    keys[1], keys[2, : size // 2] = np.inf, np.inf
    expected = np.argsort(keys, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(plackett_luce.smallest(tf.constant(keys), k), expected)
    integers = rng.permuted(np.arange(-9, 6 * size - 9).reshape(size, 6), axis=0)
    np.testing.assert_array_equal(
        plackett_luce.smallest_integers(tf.constant(integers), k), np.sort(integers, axis=0)[:k]
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_scaled_cumsum(size: int, reverse: bool) -> None:
    rng = np.random.default_rng(5)
    scale, value = rng.normal(size=(3, size)) * 5, rng.uniform(size=(3, size))
    direction = slice(None, None, -1 if reverse else 1)
    expected = np.cumsum((value * np.exp(scale))[:, direction], axis=1)[:, direction]
    for shift in 0.0, 4000.0:
        top, (sums,) = plackett_luce.scaled_cumsum(
            tf.constant(scale + shift), tf.constant(value), reverse=reverse
        )
        assert_close(np.exp(top - shift) * sums, expected, rtol=1e-7, atol=1e-9)
    _, (sums,) = plackett_luce.scaled_cumsum(None, tf.constant(value), reverse=reverse)
    assert_close(sums, np.cumsum(value[:, direction], axis=1)[:, direction], rtol=1e-7, atol=1e-9)

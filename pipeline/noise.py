"""Noise that depends on nothing but its address: the same for any batching, padding, device or replica."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def _mix(x: tf.Tensor) -> tf.Tensor:
    """A bijection of uint32 whose every output bit depends on every input bit (lowbias32, C. Wellons 2018)."""
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _u32(16)))
    x *= _u32(0x21F0AAAD)
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _u32(15)))
    x *= _u32(0xD35A2D97)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _u32(15)))


def _u32(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)


def _words(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The low and the high 32 bits; int32 and int64 of equal value give the same."""
    x = tf.cast(x, tf.int64)
    low = tf.bitwise.bitwise_and(x, tf.constant(0xFFFFFFFF, tf.int64))
    return tf.cast(low, tf.uint32), tf.cast(
        tf.bitwise.right_shift(x - low, tf.constant(32, tf.int64)), tf.uint32
    )


def random_bits(seed: Any, list_ids: Any, samples: Any, slots: Any) -> tf.Tensor:
    """uint32 [B, S, n], a function of (seed, list id, sample, slot) alone.

    Integer arithmetic only: bit-equal in eager, graph and XLA, on every device, for any batching or padding.

    Args:
      seed: integers [2]: run seed and step.
      list_ids: integers [B].
      samples: integers [S], from 0.
      slots: integers [n] or [B, S, n].
    """
    seed, list_ids = tf.convert_to_tensor(seed), tf.convert_to_tensor(list_ids)
    # Two keys: with one, two of the 2^32 streams would now and then be shifted copies of each other.
    keys = tf.constant([[0x243F6A88], [0x85A308D3]], tf.uint32)
    for word in (*_words(seed[0]), *_words(seed[1]), *_words(list_ids)):
        keys = _mix(keys + word)
    keys = _mix(
        keys[..., tf.newaxis, tf.newaxis] + tf.cast(samples, tf.uint32)[:, tf.newaxis]
    )  # [2, B, S, 1]
    first, second = tf.unstack(keys, num=2)
    bits = _mix(tf.cast(slots, tf.uint32) * _u32(0x9E3779B9) + first)
    return _mix(tf.bitwise.bitwise_xor(bits, second))


def uniform(bits: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Numbers between 2^-32 and 1 (which float32 reaches by rounding) from uint32 bits, 2^-31 apart near 0."""
    # Signed, because no instruction set before AVX-512 converts unsigned integers.
    return (tf.cast(tf.cast(tf.bitwise.right_shift(bits, _u32(1)), tf.int32), dtype) + 0.5) * 2.0**-31


def exponential(bits: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Standard exponential variates from uint32 bits, in [2^-32, 17.4], the small ones 2^-31 apart.

    -log of them are standard Gumbel variates in [-2.9, 22.2].
    """
    u = uniform(bits, dtype)
    # -log1p(-u), which costs twice as much.
    series = u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * 0.25)))
    return tf.where(u < 2.0**-7, series, -tf.math.log(tf.maximum(1.0 - u, 2.0**-25)))


def bits_of_docs(seed: Any, list_ids: Any, columns: Any, num_units: int) -> tf.Tensor:
    """uint32 [D, units], a function of (seed, list id, column, unit) alone, in a third of the time of `random_bits`.

    Args:
      seed: integers [2], of a layer and the number of its call.
      list_ids: integers [D], the list of each document.
      columns: integers [D], its place there.
      num_units: numbers of a document.
    """
    docs = random_bits(seed, list_ids, [0], columns[:, tf.newaxis, tf.newaxis])[:, 0]  # [D, 1]
    units = random_bits(seed, [-1], [0], tf.range(num_units))[0]  # [1, units]
    x = tf.bitwise.bitwise_xor(docs, units) * _u32(0x21F0AAAD)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _u32(15))) * _u32(0xD35A2D97)

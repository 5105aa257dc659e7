"""Draws from Plackett-Luce distributions, on noise that depends on nothing but its address.

Shapes: B lists, S samples, n list_size, K picks.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pipeline.losses.lists import NO_SCORE, PARTS, Tensor, cut, over, take
from pipeline.noise import exponential, random_bits, uniform

NUM_GROUPS = 128
_SPARE_GROUPS = 5
_GROUP_BITS = NUM_GROUPS - 1
_FEW = 16  # picks are found one by one: the time to compile grows with them
_SHORT = 256  # slots of a list for that: beyond, XLA's top-k is as fast


def group_size(list_size: int, num_picks: int) -> int:
    """Into how many slots a group `draw` may cut the lists: 1 means not at all."""
    return -(-list_size // NUM_GROUPS) if list_size >= 64 * num_picks and num_picks <= 27 else 1


def draw(scores: Tensor, *, num_picks: Any, num_samples: int, seed: Any, list_ids: Any, wide: bool) -> Tensor:
    """The first K documents of S draws from the Plackett-Luce distribution of each list, int32 [B, S, K].

    Each document arrives after an exponential time with rate exp(score); the order of arrival is a draw. (The Gumbel
    trick, one logarithm cheaper.) Padding comes last.

    A long list is cut into 128 strided groups, if its size is a multiple of that. A cheap lower bound of every arrival
    time says which K + 5 groups can hold the first K; only those get the exact times. In the rare case that this was
    not enough, all are computed: the result is the same either way.

    Args:
      scores: [B, n], each list's best is 0, NO_SCORE in the padding.
      num_picks: K, 1 <= K <= n; may be a scalar tensor.
      num_samples: S.
      seed: of `random_bits`.
      list_ids: of `random_bits`.
      wide: scores may be more than 70 nats below 0: times are compared by their logarithms.
    """
    size = scores.shape[1] or tf.shape(scores)[1]
    dtype = scores.dtype
    rates = tf.exp(scores)

    samples = tf.range(num_samples)

    def from_all() -> Tensor:
        times = exponential(random_bits(seed, list_ids, samples, tf.range(size)), dtype)
        keys = tf.math.log(times) - scores[:, tf.newaxis] if wide else times / rates[:, tf.newaxis]
        picks = smallest(tf.reshape(keys, [-1, size]), num_picks)
        return tf.reshape(picks, [-1, num_samples, num_picks])

    def from_groups() -> tuple[Tensor, Tensor]:
        num_chosen, group_size = num_picks + _SPARE_GROUPS, size // NUM_GROUPS
        u = uniform(random_bits(seed, list_ids, samples, tf.range(size)), dtype)
        bounds = u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * 0.25))) / rates[:, tf.newaxis]
        bounds = tf.reduce_min(tf.reshape(bounds, [-1, group_size, NUM_GROUPS]), axis=1)
        # The group's number takes the place of the last bits of its bound, which can only lower it.
        order = tf.bitcast(tf.cast(bounds, tf.float32), tf.int32) & ~_GROUP_BITS | tf.range(NUM_GROUPS)
        order = smallest_integers(_transposed(order), num_chosen)
        slots = (order & _GROUP_BITS)[..., tf.newaxis] + NUM_GROUPS * tf.range(group_size)
        slots = tf.reshape(_transposed(slots, [1, 0, 2]), [-1, num_samples, num_chosen * group_size])
        times = exponential(random_bits(seed, list_ids, samples, slots), dtype) / at(rates, slots)
        times = tf.reshape(times, [-1, num_chosen * group_size])
        places = smallest(times, num_picks)
        picks = take(tf.reshape(slots, [-1, num_chosen * group_size]), places)
        # A reduction where [:, -1] would do: a slice of a slice keeps XLA from seeing a top-k in it, and it sorts.
        last = tf.reduce_max(take(times, places), axis=1)
        bound = tf.bitcast(order[-1] & ~_GROUP_BITS, tf.float32)
        picks = tf.reshape(picks, [-1, num_samples, num_picks])
        return picks, tf.reduce_all(last * (1.0 + 1e-5) <= tf.cast(bound, dtype))

    is_static = isinstance(size, int) and isinstance(num_picks, int)
    is_cut = is_static and group_size(size, num_picks) > 1 and size % NUM_GROUPS == 0
    if is_cut and not wide:
        picks, is_certain = from_groups()
        return tf.cond(is_certain, lambda: picks, from_all)
    return from_all()


def tfr_noise(shape: Tensor, num_samples: int, padding: Any) -> Tensor:
    """Gumbel noise from the generator and the op seed of `tfr.keras.losses.CoupledRankDistilLoss`, padded.

    Args:
      shape: [B, n], which tensorflow-ranking would see.
      num_samples: S.
      padding: of [B, n].
    """
    replica = tf.distribute.get_replica_context()
    # tensorflow-ranking draws the same noise on every replica.
    replica_id = 0 if replica is None else tf.get_static_value(replica.replica_id_in_sync_group) or 0
    seed = 37 + int(replica_id)
    u = tf.random.uniform([shape[0], num_samples, shape[1]], seed=seed)
    if (
        tf.executing_eagerly()
    ):  # tensorflow-ranking draws again, to shuffle ties; only so is its next draw the same
        tf.random.uniform([shape[0] * num_samples, shape[1]], seed=seed)
    return tf.pad(-tf.math.log(-tf.math.log(u + 1e-20) + 1e-20), [padding[0], [0, 0], padding[1]])


def smallest(keys: Tensor, k: Any) -> Tensor:
    """The places of the k smallest keys of each row, smallest first, int32 [rows, k].

    Args:
      keys: float [rows, n], no NaN. (XLA on CPU has a fast top-k for two dimensions only.)
      k: 1 <= k <= n; may be a scalar tensor.
    """
    size = keys.shape[1]
    is_static = isinstance(k, int) and size is not None and keys.dtype == tf.float32
    if not is_static or k > _FEW or size > _SHORT:
        return tf.math.top_k(-keys, k).indices
    # XLA would compute the keys once for each pick, were not the last step to them a division or a logarithm, which it
    # takes for dear. On CPU what follows is up to four times as fast as XLA's top-k.
    order = tf.bitcast(tf.transpose(keys), tf.int32)
    order = tf.where(order < 0, order ^ 0x7FFFFFFF, order)  # as integers in the order of the floats
    order = tf.cast(order, tf.int64) * (1 << 32) + tf.range(size, dtype=tf.int64)[:, tf.newaxis]
    return _transposed(tf.cast(smallest_integers(order, k) % (1 << 32), tf.int32))


def _transposed(x: Tensor, axes: list[int] | None = None) -> Tensor:
    """int32, moved as floats: of integers TensorFlow says on the terminal that oneDNN cannot move them."""
    return tf.bitcast(tf.transpose(tf.bitcast(x, tf.float32), axes), tf.int32)


def smallest_integers(x: Tensor, k: int) -> Tensor:
    """The k smallest of each column in rising order, [k, columns]: each is the smallest of those above the one before.

    Args:
      x: integers [n, columns], n static; those of a column differ, and none is the greatest of its type.
      k: 1 <= k <= n.
    """
    greatest = x.dtype.max
    x = tf.pad(x, [[0, -x.shape[0] % PARTS], [0, 0]], constant_values=greatest)
    rows = cut(x, 0, x.shape[0])
    chosen = [over(0, rows, tf.minimum)]
    while len(chosen) < k:
        last = chosen[-1]
        chosen.append(over(0, (tf.where(row > last, row, greatest) for row in rows), tf.minimum))
    return tf.stack(chosen)[:, 0]


def at(x: Tensor, slots: Tensor) -> Tensor:
    """x [B, n] at slots [B, S, m]."""
    return tf.reshape(
        tf.gather(x, tf.reshape(slots, [tf.shape(slots)[0], -1]), batch_dims=1), tf.shape(slots)
    )


def all_but(slots: Tensor, list_size: Any) -> Tensor:
    """bool [B, S, list_size]: False at slots [B, S, K], True elsewhere."""
    shape = tf.shape(slots)
    rows = tf.repeat(tf.range(shape[0] * shape[1]), shape[2])
    places = tf.stack([rows, tf.reshape(slots, [-1])], axis=-1)
    everything = tf.ones([shape[0] * shape[1], list_size], tf.bool)
    everything = tf.tensor_scatter_nd_update(everything, places, tf.zeros_like(rows, tf.bool))
    return tf.reshape(everything, [-1, slots.shape[1], list_size])


def scaled_cumsum(
    scale: Tensor | None, *values: Tensor, reverse: bool = False
) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """Cumulative sums over the last axis of values * exp(scale), for scales of any size.

    Args:
      scale: float [..., size], or None for zeros: then the sums are plain ones.
      values: floats [..., size].
      reverse: sums from the end instead of from the beginning.

    Returns:
      The running maximum of scale (None for None), and the sums divided by its exponential.
    """
    if scale is None:
        return None, tuple(tf.cumsum(value, axis=-1, reverse=reverse) for value in values)
    size = tf.shape(scale)[-1]
    distance = tf.range(size)[::-1] if reverse else tf.range(size)  # from where the sums begin

    def double(span: Tensor, scale: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        """Sums over 2 * span elements from sums over span."""
        shift = -span if reverse else span
        has_earlier = distance >= span
        earlier = tf.where(has_earlier, tf.roll(scale, shift, -1), NO_SCORE)
        new_scale = tf.maximum(scale, earlier)
        kept, added = tf.exp(scale - new_scale), tf.where(has_earlier, tf.exp(earlier - new_scale), 0.0)
        return 2 * span, new_scale, *(kept * value + added * tf.roll(value, shift, -1) for value in values)

    _, scale, *sums = tf.while_loop(lambda span, *_: span < size, double, (1, scale, *values))
    return scale, tuple(sums)


@tf.function(autograph=False)  # TensorFlow keeps the graph around a custom gradient: let it be a small one
@tf.custom_gradient
def suffix_logsumexp(x: Tensor) -> Any:
    """log sum_{j >= i} exp(x_j) over the last axis, for x of any size; NO_SCORE counts as minus infinity."""
    scale, (sums,) = scaled_cumsum(x, tf.ones_like(x), reverse=True)
    value = scale + tf.math.log(sums)

    def gradient(upstream: Tensor) -> Tensor:  # exp(x_j) times a cumulative sum of upstream_i / exp(value_i)
        scale, (sums,) = scaled_cumsum(-value, upstream)
        return tf.exp(x + scale) * sums

    return value, gradient


def choice_losses(scores: Tensor, order: Tensor, in_order: Tensor) -> Tensor:
    """-log of the probability of each choice in `order`, slots [B, m], among what is left; 0 where not `in_order`."""
    s = tf.where(in_order, take(scores, order), NO_SCORE)
    return tf.where(in_order, suffix_logsumexp(s) - s, 0.0)

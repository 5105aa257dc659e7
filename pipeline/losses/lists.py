"""What every loss does first and last: its arguments as padded lists, and the mean over lists."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

Tensor = Any  # tf.Tensor has no usable type stubs

NO_SCORE = -1e30  # stands for minus infinity in padded slots: sums and differences stay finite

PARTS = 8  # of an axis that `over` combines one over another, where its size is a multiple

_are_usual: contextvars.ContextVar[bool | None] = contextvars.ContextVar("are_usual", default=None)


@contextlib.contextmanager
def inputs_are_usual(are_usual: bool | None) -> Iterator[None]:
    """A loss that is traced inside is for usual inputs alone, or for others alone: it compiles in half the time.

    Made for usual inputs, it gives NaN for others; its caller checks for that. Made for others, it takes all, if more
    slowly. None: for all.
    """
    token = _are_usual.set(are_usual)
    try:
        yield
    finally:
        _are_usual.reset(token)


def usual_or_not(is_usual: Tensor, usual: Callable[[], Tensor], unusual: Callable[[], Tensor]) -> Tensor:
    """`usual()`, or `unusual()` where the scalar `is_usual` is False; tuples whose first is a float tensor."""
    if _are_usual.get() is None:
        return tf.cond(is_usual, usual, unusual)
    if not _are_usual.get():
        return unusual()
    first, *others = usual()
    return tf.where(is_usual, first, tf.constant(float("nan"), first.dtype)), *others


class NotLists(ValueError):
    """The arguments of a loss do not fit together as lists."""


def as_lists(target: Any, student: Any, mask: Any, temperature: Any = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """The arguments of a loss as dense tensors of one floating type, with 0 in the padding.

    Args:
      target: teacher's scores or labels [lists, list_size]; ragged if student is.
      student: scores [lists, list_size], dense or ragged.
      mask: bool [lists, list_size], or None: all are documents.
      temperature: > 0, divides the student's scores.

    Returns:
      target without gradient, student, mask; float64 where the student is, else float32.

    Raises:
      ValueError: the temperature is not > 0; only one of the two is ragged.
      NotLists: the ranks or the static shapes do not fit together.
    """
    if not tf.is_tensor(temperature):
        positive("temperature", temperature)
    is_ragged = isinstance(student, tf.RaggedTensor)
    if is_ragged != isinstance(target, tf.RaggedTensor):
        raise ValueError("target and student must both be ragged or both be dense")
    if is_ragged:
        row_mask = tf.sequence_mask(student.row_lengths(), tf.maximum(student.bounding_shape()[1], 1))
        shape = tf.shape(row_mask, out_type=tf.int64)
        if mask is not None:
            row_mask &= mask.to_tensor(False, shape=shape) if isinstance(mask, tf.RaggedTensor) else mask
        target, student, mask = target.to_tensor(shape=shape), student.to_tensor(shape=shape), row_mask
    target, student = tf.convert_to_tensor(target), tf.convert_to_tensor(student)
    mask = (
        tf.ones(tf.shape(student), tf.bool) if mask is None else tf.cast(tf.convert_to_tensor(mask), tf.bool)
    )
    for name, tensor in (("target", target), ("mask", mask)):
        if student.shape.rank != 2 or not tensor.shape.is_compatible_with(student.shape):
            raise NotLists(
                f"student {student.shape} and {name} {tensor.shape} must both be [lists, list_size]"
            )
    dtype = tf.float64 if student.dtype == tf.float64 else tf.float32
    target, student = tf.cast(target, dtype), tf.cast(student, dtype) / tf.cast(temperature, dtype)
    zeros = tf.zeros_like(student)
    return tf.stop_gradient(tf.where(mask, target, zeros)), tf.where(mask, student, zeros), mask


def from_best(scores: Tensor, mask: Tensor) -> Tensor:
    """Each list's scores less its best one; NO_SCORE in the padding."""
    masked = tf.where(mask, scores, NO_SCORE)
    best = over(1, cut(masked, 1, scores.shape[1]), tf.maximum)
    return tf.where(mask, scores - tf.stop_gradient(best), NO_SCORE)


def cut(x: Tensor, axis: int, size: int | None) -> list[Tensor]:
    """x along an axis of that size, for `over`: in PARTS of one size, or whole where that cannot be."""
    return tf.split(x, PARTS, axis) if size and size % PARTS == 0 else [x]


def over(axis: int, of_parts: Iterable[Tensor], combine: Callable = tf.add) -> Tensor:
    """The sum, minimum or maximum along an axis of an array that XLA never builds.

    XLA on CPU builds what it reduces, but not the parts that are combined before.

    Args:
      axis: is kept, with length 1.
      of_parts: the array, cut along the axis into parts of one size.
      combine: tf.add, tf.minimum or tf.maximum.
    """
    reduce = {tf.add: tf.reduce_sum, tf.minimum: tf.reduce_min, tf.maximum: tf.reduce_max}[combine]
    return reduce(functools.reduce(combine, of_parts), axis=axis, keepdims=True)


def log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Of each list, over its documents; 0 in the padding."""
    return tf.where(mask, tf.nn.log_softmax(from_best(scores, mask)), tf.zeros_like(scores))


def descending(scores: Tensor, mask: Tensor) -> Tensor:
    """The slots of each list by falling score, int32 [B, n]; equal ones by slot, padding last."""
    return tf.argsort(tf.where(mask, -scores, -NO_SCORE), axis=1, stable=True)


def ranks(scores: Tensor, mask: Tensor) -> Tensor:
    """The rank of each document in its list from 1, int32 [B, n]; equal ones by slot, padding last."""
    return 1 + tf.argsort(descending(scores, mask), axis=1)


def take(x: Tensor, slots: Tensor) -> Tensor:
    """x [B, n] at slots [B, m]."""
    return tf.gather(x, slots, batch_dims=1)


def mean_over_documents(x: Tensor, mask: Tensor) -> Tensor:
    """[B]; 0 for a list without documents."""
    total = tf.reduce_sum(tf.where(mask, x, 0.0), axis=1)
    return total / tf.maximum(tf.reduce_sum(tf.cast(mask, x.dtype), axis=1), 1.0)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown: available: {', '.join(allowed)}")


def positive(name: str, value: Any, *, or_zero: bool = False) -> None:
    """Raises unless value is a number > 0, or 0 with `or_zero`, that float32 holds and that is no mistake."""
    if not (1e-30 <= value <= 1e18 or (or_zero and value == 0)):
        raise ValueError(f"{name}={value!r} is not possible: a number >{'=' * or_zero} 0, from 1e-30 to 1e18")


def count(name: str, value: object, *, none: str = "") -> None:
    """Raises unless value is an integer >= 1 of 32 bits, or None where `none` says what that means."""
    if value is None and none:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= tf.int32.max:
        or_none = f", or None (null in a config) for {none}" if none else ""
        raise ValueError(f"{name}={value!r} is not possible: an integer >= 1{or_none}")


def reduce_lists(per_list: Tensor, mask: Tensor, reduce: str | None) -> Tensor:
    """`per_list` [lists] with 0 for the lists that have no document, or its mean over the others.

    Raises:
      ValueError: reduce is not "mean" or None.
    """
    if reduce not in ("mean", None):
        raise ValueError(f'reduce={reduce!r} is not possible: "mean", or None for one value a list')
    has_document = tf.reduce_any(mask, axis=1)
    per_list = tf.where(has_document, per_list, tf.zeros_like(per_list))
    if reduce is None:
        return per_list
    return tf.reduce_sum(per_list) / tf.maximum(tf.reduce_sum(tf.cast(has_document, per_list.dtype)), 1)

"""What every loss does first and last: its arguments as padded lists, and the mean over lists."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from pipeline.errors import UserError

Tensor = Any  # tf.Tensor has no usable type stubs

NO_SCORE = -1e30  # stands for minus infinity in padded slots: sums and differences stay finite

PARTS = 8  # of an axis that `over` combines one over another, where its size is a multiple


class NotLists(UserError):
    """The arguments of a loss do not fit together as lists."""


def as_lists(
    target: Any, student: Any, mask: Any, temperature: Any = 1.0, *, is_label: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The arguments of a loss as dense tensors of one floating type, with 0 in the padding.

    A target that is not finite, or a negative label, is an error. XLA cannot raise errors: there the student's scores,
    and so the loss, of that list become NaN.

    Args:
      target: teacher's scores or labels [lists, list_size]; ragged if student is.
      student: scores [lists, list_size], dense or ragged.
      mask: bool [lists, list_size], or None: all are documents.
      temperature: > 0, divides the student's scores.
      is_label: the target holds labels, which are >= 0.

    Returns:
      target without gradient, student, mask, of one slot or more; float64 where the student is, else float32.

    Raises:
      UserError: the temperature is not > 0; only one of the two is ragged; a target that is not possible.
      NotLists: the ranks or the static shapes do not fit together.
    """
    if not tf.is_tensor(temperature):
        positive("temperature", temperature)
    is_ragged = isinstance(student, tf.RaggedTensor)
    if is_ragged != isinstance(target, tf.RaggedTensor):
        raise NotLists("target and student must both be ragged or both be dense")
    if is_ragged:
        row_mask = tf.sequence_mask(student.row_lengths(), tf.maximum(student.bounding_shape()[1], 1))
        shape = tf.shape(row_mask, out_type=tf.int64)
        if mask is not None:
            row_mask &= mask.to_tensor(False, shape=shape) if isinstance(mask, tf.RaggedTensor) else mask
        target, student, mask = target.to_tensor(shape=shape), student.to_tensor(shape=shape), row_mask
    target, student = tf.convert_to_tensor(target), tf.convert_to_tensor(student)
    if student.shape.rank is None:
        student = tf.ensure_shape(student, [None, None])
    mask = (
        tf.ones(tf.shape(student), tf.bool) if mask is None else tf.cast(tf.convert_to_tensor(mask), tf.bool)
    )
    for name, tensor in (("target", target), ("mask", mask)):
        if student.shape.rank != 2 or not tensor.shape.is_compatible_with(student.shape):
            raise NotLists(
                f"student {student.shape} and {name} {tensor.shape} must both be [lists, list_size]"
            )
    if not student.shape[1]:  # 0 or unknown: room for one slot
        room = [[0, 0], [0, tf.maximum(1 - tf.shape(student)[1], 0)]]
        target, student, mask = tf.pad(target, room), tf.pad(student, room), tf.pad(mask, room)
    dtype = tf.float64 if student.dtype == tf.float64 else tf.float32
    target, student = tf.cast(target, dtype), tf.cast(student, dtype) / tf.cast(temperature, dtype)
    zeros = tf.zeros_like(student)
    target, student = tf.where(mask, target, zeros), tf.where(mask, student, zeros)
    is_bad = tf.reduce_any(~tf.math.is_finite(target) | (is_label & (target < 0)), axis=1, keepdims=True)
    what = "a label is not a finite number >= 0" if is_label else "a teacher's score is not finite"
    fix = 'mark padding by mask=False, or for the Keras losses by NaN in y_true or padding="negative"'
    if not tf.executing_eagerly():
        tf.debugging.Assert(~tf.reduce_any(is_bad), [str(UserError(what, fix=fix))])
    elif tf.reduce_any(is_bad):
        raise UserError(what, where=f"list {int(tf.argmax(is_bad)[0])}", fix=fix)
    student = tf.where(is_bad, tf.constant(float("nan"), dtype), student)
    return tf.stop_gradient(target), student, mask


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


def one_of(name: str, value: object, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        raise UserError(
            "there is no such choice",
            where=f"{name}={value!r}",
            fix=f"one of {', '.join(str(choice) for choice in allowed)}",
        )


def positive(name: str, value: Any, *, or_zero: bool = False) -> None:
    """Raises unless value is a number > 0, or 0 with `or_zero`, in a range that float32 can compute with."""
    is_number = isinstance(value, (int, float)) or hasattr(value, "dtype")
    if not is_number or not (1e-30 <= value <= 1e18 or (or_zero and value == 0)):
        raise UserError(
            f"must be a number >{'=' * or_zero} 0, from 1e-30 to 1e18", where=f"{name}={value!r}", fix="1.0"
        )


def count(name: str, value: Any, *, none: str = "") -> int | None:
    """The value as an int, if it is an integer >= 1 of 32 bits; or None, where `none` says what None means."""
    if value is None and none:
        return None
    is_integer = hasattr(value, "__index__") and not isinstance(value, bool)
    if is_integer and 1 <= operator.index(value) <= tf.int32.max:
        return operator.index(value)
    or_none = f", or None (null in a config) for {none}" if none else ""
    raise UserError("this number is not possible", where=f"{name}={value!r}", fix=f"an integer >= 1{or_none}")


def calling_keras() -> tuple[str, Any]:
    """The Keras that computes its compiled loss at the moment, "keras" or "tf_keras", and its model; or "", None.

    No interface of Keras says so to a loss. The call stack does: the module `compile_utils` of either calls it.
    """
    package, frame = "", inspect.currentframe()
    while frame is not None:
        first, _, rest = frame.f_globals.get("__name__", "").partition(".")
        if first in ("keras", "tf_keras") and rest.endswith("compile_utils"):
            package = first
        model = frame.f_locals.get("self") if package else None
        if hasattr(model, "train_step"):
            return package, model
        frame = frame.f_back
    return package, None


def reduce_lists(per_list: Tensor, mask: Tensor, reduce: str | None) -> Tensor:
    """`per_list` [lists] with 0 for the lists that have no document, or its mean over the others.

    Raises:
      UserError: reduce is not "mean" or None; or Keras calls the bare function, whose mean would ignore sample_weight
        and whose noise would always be that of seed (0, 0).
    """
    one_of("reduce", reduce, ("mean", None))
    if reduce == "mean" and calling_keras()[0]:
        raise UserError(
            "a bare loss function in compile() ignores sample_weight and repeats its noise",
            where="loss",
            fix='compile(loss=CoupledRankDistilLoss()), or RankingLoss("<name>"), both of pipeline.losses',
        )
    has_document = tf.reduce_any(mask, axis=1)
    per_list = tf.where(has_document, per_list, tf.zeros_like(per_list))
    if reduce is None:
        return per_list
    return tf.reduce_sum(per_list) / tf.maximum(tf.reduce_sum(tf.cast(has_document, per_list.dtype)), 1)

"""The student's losses and training: distils from cached teacher scores; the baseline learns from labels alone."""

from __future__ import annotations

import functools

import tensorflow as tf

from pipeline.config import LossConfig
from pipeline.losses.registry import DISTILLATION, LABEL, make_loss
from pipeline.training.fit import ListLoss


def _check(config: LossConfig) -> None:
    for key, name, table in (
        ("loss.name", config.name, DISTILLATION),
        ("loss.label_loss", config.label_loss, LABEL),
    ):
        if name not in table:
            raise ValueError(f"{key}={name} is unknown; available: {', '.join(sorted(table))}")


def distillation_loss(config: LossConfig) -> ListLoss:
    """(1 - label_weight) * distillation loss on the teacher's scores + label_weight * label loss, a value a list.

    Raises:
      ValueError: an unknown loss, or an option that it does not have.
    """
    _check(config)
    distil = functools.partial(make_loss(config.name, **config.options), reduce=None)
    label = functools.partial(make_loss(config.label_loss), reduce=None)
    weight = config.label_weight

    def loss(
        teacher: tf.Tensor,
        labels: tf.Tensor,
        student: tf.Tensor,
        mask: tf.Tensor,
        *,
        seed: tf.Tensor,
        list_ids: tf.Tensor,
    ) -> tf.Tensor:
        per_list = tf.zeros(tf.shape(student)[:1], student.dtype)
        if weight < 1:
            per_list += (1 - weight) * distil(teacher, student, mask, seed=seed, list_ids=list_ids)
        if weight > 0:
            per_list += weight * label(labels, student, mask, seed=seed, list_ids=list_ids)
        return per_list

    return loss


def label_loss(config: LossConfig) -> ListLoss:
    """The baseline's loss: the label loss alone."""
    _check(config)
    label = functools.partial(make_loss(config.label_loss), reduce=None)

    def loss(
        teacher: tf.Tensor,
        labels: tf.Tensor,
        student: tf.Tensor,
        mask: tf.Tensor,
        *,
        seed: tf.Tensor,
        list_ids: tf.Tensor,
    ) -> tf.Tensor:
        return label(labels, student, mask, seed=seed, list_ids=list_ids)

    return loss

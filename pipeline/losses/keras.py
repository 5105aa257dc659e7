"""The classes `CoupledRankDistilLoss` and `RankingLoss` for `model.compile`, in legacy Keras and in Keras 3."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import tensorflow as tf
import tf_keras

from pipeline.errors import UserError
from pipeline.losses import registry
from pipeline.losses.lists import NotLists, Tensor, calling_keras, count, one_of

_LISTS_PER_REPLICA = 1 << 20  # keeps the list ids of replicas apart
REDUCTIONS = ("auto", "sum_over_batch_size", "mean", "sum", "none", None)
PADDINGS = (None, "nan", "negative")


@tf_keras.saving.register_keras_serializable(package="rankdistil")
@keras.saving.register_keras_serializable(package="rankdistil")
class RankingLoss(tf_keras.losses.Loss, keras.losses.Loss):
    """A loss of `pipeline.losses.registry` for `model.compile`.

    y_true holds the teacher's scores or the labels and y_pred the student's scores, both [lists, list_size], dense or
    ragged; y_pred may be dense where y_true is ragged. sample_weight is a scalar, [lists], [lists, 1] or
    [lists, list_size]; the last is averaged over each list's documents, weighted by y_true less its minimum where
    that is negative.

    >>> loss = RankingLoss("softmax")
    >>> round(float(loss([[1.0, 0.0, float("nan")]], [[0.0, 0.0, 9.0]])), 4)
    0.6931

    Args:
      loss: name in `pipeline.losses.registry`.
      reduction: "auto", "sum_over_batch_size" and "mean" divide by the number of lists, empty ones included; "sum";
        "none" gives one value per list.
      name: name of the loss in Keras.
      ragged: accepted for compatibility; dense and ragged inputs both work with either value.
      padding: "nan" (default): NaN in y_true marks padding. "negative": negative values do as well.
      seed: run seed of the noise.
      step: variable that holds the step, such as `optimizer.iterations`: the noise is then a function of seed, step
        and position in the global batch. None: every call draws a step from TensorFlow's global generator. The
        variable is not saved with the model.
      **options: options of the loss.
    """

    def __init__(
        self,
        loss: str,
        *,
        reduction: str | None = "auto",
        name: str | None = None,
        ragged: bool = False,
        padding: str | None = None,
        seed: int = 0,
        step: Any = None,
        **options: Any,
    ) -> None:
        one_of("reduction", reduction, REDUCTIONS)
        one_of("padding", padding, PADDINGS)
        tf_keras.losses.Loss.__init__(self, "none", name or loss)
        keras.losses.Loss.__init__(self, name or loss, "none")
        # Legacy Keras divides by the number of replicas if it reads "auto" or "sum_over_batch_size" here.
        self.reduction = "sum_over_batch_size" if reduction == "mean" else reduction
        self._fn = registry.make_loss(loss, **options)
        self._config = {"loss": loss, "ragged": ragged, "padding": padding, "seed": seed, **options}
        self._step, self._may_warn = step, padding is None and loss in registry.DISTILLATION

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """The reduced loss."""
        y_true, y_pred, mask = self._dense(y_true, y_pred)
        per_list = self._per_list(y_true, y_pred, mask)
        if sample_weight is not None:
            per_list *= _list_weights(sample_weight, tf.cast(y_true, per_list.dtype), mask)
        if self.reduction in ("none", None):
            return per_list
        total = tf.reduce_sum(per_list)
        if self.reduction == "sum":
            return total
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        package, _ = calling_keras()
        if num_replicas > 1 and not package:
            raise UserError(
                "the mean over the lists of one replica is not the mean over the global batch",
                where=f"reduction={self.reduction!r}",
                fix='in a training loop of your own under tf.distribute use reduction="sum" or "none" and divide',
            )
        mean = tf.math.divide_no_nan(total, tf.cast(tf.size(per_list), total.dtype))
        return mean / num_replicas if package == "keras" else mean  # legacy Keras divides by itself

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Values per list [lists]."""
        return self._per_list(*self._dense(y_true, y_pred))

    def get_config(self) -> dict[str, Any]:
        return {"reduction": self.reduction, "name": self.name, **self._config}

    def _per_list(self, y_true: Tensor, y_pred: Tensor, mask: Tensor) -> Tensor:
        replica = tf.distribute.get_replica_context()
        replica_id = 0 if replica is None else replica.replica_id_in_sync_group
        step = self._step
        if step is None and self._config.get("estimator") != "tfr":  # which has a generator of its own
            step = tf.random.uniform([], maxval=tf.int32.max, dtype=tf.int32)
        seed = [tf.cast(0 if x is None else x, tf.int64) for x in (self._config["seed"], step)]
        first_id = tf.cast(replica_id, tf.int64) * _LISTS_PER_REPLICA
        list_ids = tf.range(tf.shape(y_pred, out_type=tf.int64)[0]) + first_id
        return self._fn(y_true, y_pred, mask, seed=tf.stack(seed), list_ids=list_ids, reduce=None)

    def _dense(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor, Tensor]:
        """y_true, y_pred and the mask of documents, all dense."""
        row_mask = True
        if isinstance(y_true, tf.RaggedTensor):
            if isinstance(y_pred, tf.RaggedTensor):
                y_pred = y_pred.to_tensor()
            shape = tf.shape(y_pred, out_type=tf.int64)
            row_mask = tf.sequence_mask(y_true.row_lengths(), shape[1])
            y_true = y_true.to_tensor(shape=shape)
        elif isinstance(y_pred, tf.RaggedTensor):
            raise NotLists("y_pred is ragged, so y_true must be ragged too")
        y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
        is_number = ~tf.math.is_nan(y_true) if y_true.dtype.is_floating else tf.ones_like(y_true, tf.bool)
        if self._may_warn:
            self._warn_of_minus_1(y_true, is_number & row_mask)
        if self._config["padding"] == "negative":
            is_number &= y_true >= 0
        return y_true, y_pred, is_number & row_mask

    def _warn_of_minus_1(self, y_true: Tensor, mask: Tensor) -> None:
        """Warns once if y_true looks as if -1 were padding."""

        def warn(is_suspect: Any) -> None:
            if is_suspect and self._may_warn:
                self._may_warn = False
                warnings.warn(
                    "y_true holds -1 beside values >= 0 only, and -1 counts as a score here. Fix: if -1 is padding, "
                    'give the loss padding="negative"; if it is a score, give padding="nan"',
                    stacklevel=2,
                )

        is_minus_1 = mask & (y_true == -1)
        is_suspect = (
            tf.reduce_any(is_minus_1)
            & tf.reduce_all(is_minus_1 | ~mask | (y_true >= 0))
            & tf.reduce_any(mask & (y_true >= 0))
        )
        if tf.executing_eagerly():
            warn(is_suspect)
        else:  # XLA cannot run Python, so there is no warning under jit_compile or on a TPU
            _, model = calling_keras()
            if model is not None and not model.jit_compile and not _on_tpu():
                tf.py_function(warn, [is_suspect], [])


@tf_keras.saving.register_keras_serializable(package="rankdistil")
@keras.saving.register_keras_serializable(package="rankdistil")
class CoupledRankDistilLoss(RankingLoss):
    """The coupled RankDistil loss with the arguments of `tfr.keras.losses.CoupledRankDistilLoss`.

    By default it draws the same permutations as tensorflow-ranking; estimator="rao_blackwell" has a smaller variance
    at the same cost and is recommended. docs/coming-from-tensorflow-ranking.md lists all differences.

    >>> tf.random.set_seed(1)
    >>> ln = tf.math.log
    >>> loss = CoupledRankDistilLoss(topk=2, sample_size=1)
    >>> y_true, y_pred = [[0.0, 2.0, 1.0], [1.0, 0.0, 2.0]], [[0.0, ln(3.0), ln(2.0)], [0.0, ln(2.0), ln(3.0)]]
    >>> round(float(loss(y_true, y_pred)), 6)
    2.138333

    Args:
      reduction: see `RankingLoss`.
      name: see `RankingLoss`.
      ragged: see `RankingLoss`.
      sample_size: permutations per list.
      topk: number of top documents whose order is matched; None: all.
      temperature: > 0, divides y_pred.
      estimator: "tfr", or another one of `coupled_rankdistil`.
      padding: see `RankingLoss`.
      seed: see `RankingLoss`; the estimator "tfr" does not use it.
      step: see `RankingLoss`; the estimator "tfr" does not use it.
    """

    def __init__(
        self,
        reduction: str | None = "auto",
        name: str | None = None,
        ragged: bool = False,
        sample_size: int = 8,
        topk: int | None = None,
        temperature: float = 1.0,
        *,
        estimator: str = "tfr",
        padding: str | None = None,
        seed: int = 0,
        step: Any = None,
    ) -> None:
        super().__init__(
            "coupled_rankdistil",
            reduction=reduction,
            name=name,
            ragged=ragged,
            padding=padding,
            seed=seed,
            step=step,
            sample_size=count("sample_size", sample_size),
            topk=count("topk", topk, none="all documents"),
            temperature=temperature,
            estimator=estimator,
        )

    def get_config(self) -> dict[str, Any]:
        return {key: value for key, value in super().get_config().items() if key != "loss"}


def _list_weights(sample_weight: Any, y_true: Tensor, mask: Tensor) -> Tensor:
    """sample_weight as [lists], or as the scalar that it is."""
    if isinstance(sample_weight, tf.RaggedTensor):
        sample_weight = sample_weight.to_tensor(shape=tf.shape(mask, out_type=tf.int64))
    weights = tf.cast(tf.convert_to_tensor(sample_weight), y_true.dtype)
    if weights.shape.rank == 0:
        return weights
    num_lists, list_size = mask.shape
    shape = tf.TensorShape([num_lists, list_size])
    if not any(weights.shape.is_compatible_with(allowed) for allowed in (shape[:1], [num_lists, 1], shape)):
        raise UserError(
            f"its shape {weights.shape} is none of [], [lists], [lists, 1] and [lists, list_size], here {shape}",
            where="sample_weight",
            fix="give one weight per list",
        )
    weights = tf.reshape(weights, [tf.shape(mask)[0], -1])
    if weights.shape[1] == 1:
        return weights[:, 0]
    worst = tf.reduce_min(tf.where(mask, y_true, 0.0), axis=1, keepdims=True)  # at most 0
    shares = tf.where(mask, y_true - worst, 0.0)
    is_blank = tf.reduce_sum(shares, axis=1, keepdims=True) == 0
    shares = tf.where(mask & is_blank, 1.0, shares)
    weighted = tf.reduce_sum(tf.where(mask, weights, 0.0) * shares, axis=1)
    return tf.math.divide_no_nan(weighted, tf.reduce_sum(shares, axis=1))


def _on_tpu() -> bool:
    return isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)

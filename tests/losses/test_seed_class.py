"""`CoupledRankDistilLoss` behaves as the class of tensorflow-ranking's page, in legacy Keras and in Keras 3."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline  # noqa: F401  (before tensorflow)

import tensorflow as tf  # isort: skip
import keras
import tf_keras

from pipeline.errors import UserError
from pipeline.losses import CoupledRankDistilLoss, RankingLoss, coupled_rankdistil
from pipeline.losses.tfr_compat import load_tfr
from tests.closeness import assert_close

Y_TRUE = [[0.0, 2.0, 1.0], [1.0, 0.0, 2.0]]
Y_PRED = np.log([[1.0, 3.0, 2.0], [1.0, 2.0, 3.0]]).astype(np.float32)
KERAS = {"keras": keras, "tf_keras": tf_keras}
ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("keras_fit.py")


def theirs(**options: Any) -> Any:
    return load_tfr().keras.losses.CoupledRankDistilLoss(**options)


def both(y_true: Any, y_pred: Any, sample_weight: Any = None, **options: Any) -> tuple[Any, Any]:
    """The values of this project's class and of tensorflow-ranking's for the same seed."""
    values = []
    for make in CoupledRankDistilLoss, theirs:
        tf.random.set_seed(1)
        values.append(make(**options)(y_true, y_pred, sample_weight).numpy())
    return values[0], values[1]


def test_the_example_of_the_page() -> None:
    tf.random.set_seed(1)
    ln = tf.math.log
    loss = CoupledRankDistilLoss(topk=2, sample_size=1)
    value = loss(
        [[0.0, 2.0, 1.0], [1.0, 0.0, 2.0]], [[0.0, ln(3.0), ln(2.0)], [0.0, ln(2.0), ln(3.0)]]
    ).numpy()
    assert_close(value, 2.138333)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "sample_weight", "topk", "expected"),
    [
        (Y_TRUE, Y_PRED, None, 2, 2.138333),
        (Y_TRUE, Y_PRED, [[2.0], [1.0]], 2, 3.380786),
        (Y_TRUE, np.log([[1.0, 3e30, 2e30], [1.0, 2e30, 3e30]]).astype(np.float32), None, 2, 70.68699),
        ([[0.0, 0.0, 1.0]], np.log([[1.0, 2.0, 3.0]]).astype(np.float32), None, 2, 1.791759),
    ],
)
def test_values_of_tfrs_own_tests(y_true, y_pred, sample_weight, topk, expected) -> None:
    ours, their_value = both(y_true, y_pred, sample_weight, topk=topk, sample_size=1)
    assert_close(ours, expected)
    assert_close(their_value, expected)


@pytest.mark.parametrize(
    "sample_weight",
    [None, 3.0, [2.0, 1.0], [[2.0], [1.0]], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]],
    ids=["none", "scalar", "lists", "lists_1", "items"],
)
@pytest.mark.parametrize("reduction", ["auto", "sum", "none"])
def test_sample_weight_of_every_shape_is_tfrs(sample_weight: Any, reduction: str) -> None:
    if reduction == "none" and np.ndim(sample_weight) == 0:
        sample_weight = None if sample_weight is None else [sample_weight] * 2
    if np.shape(sample_weight) == (2,):  # tensorflow-ranking broadcasts this against [lists, 1]
        ours, _ = both(
            Y_TRUE, Y_PRED, np.reshape(sample_weight, (2, 1)).astype(np.float32), topk=2, reduction=reduction
        )
        tf.random.set_seed(1)
        flat = CoupledRankDistilLoss(topk=2, reduction=reduction)(Y_TRUE, Y_PRED, sample_weight)
        assert_close(flat, ours)
        return
    ours, their_value = both(Y_TRUE, Y_PRED, sample_weight, topk=2, reduction=reduction)
    assert_close(ours, np.reshape(their_value, np.shape(ours)))


def test_items_weights_are_averaged_by_label() -> None:
    weights = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
    per_list = (weights * Y_TRUE).sum(axis=1) / np.sum(Y_TRUE, axis=1)
    values = []
    for sample_weight in weights, per_list:
        tf.random.set_seed(1)
        values.append(CoupledRankDistilLoss(topk=2)(Y_TRUE, Y_PRED, sample_weight))
    assert_close(values[0], values[1])


def test_a_weight_of_another_shape_is_an_error() -> None:
    with pytest.raises(UserError) as caught:
        CoupledRankDistilLoss()(Y_TRUE, Y_PRED, [1.0, 2.0, 3.0, 4.0])
    assert caught.value.where == "sample_weight"


@pytest.mark.parametrize("is_ragged", [False, True])
def test_ragged_equals_padded(is_ragged: bool) -> None:
    y_true, y_pred = (
        [[0.0, 2.0, 1.0], [1.0, 0.0, np.nan]],
        np.where(np.isnan([[0] * 3, [0, 0, np.nan]]), 0, Y_PRED),
    )
    options = {"topk": 2, "estimator": "rao_blackwell", "step": tf.Variable(3), "ragged": is_ragged}
    loss = CoupledRankDistilLoss(**options)
    ragged = [
        tf.RaggedTensor.from_tensor(tf.constant(x, tf.float32), lengths=[3, 2]) for x in (y_true, y_pred)
    ]
    assert_close(loss(*ragged), loss(y_true, y_pred))
    assert_close(loss(ragged[0], y_pred), loss(y_true, y_pred))


@pytest.mark.parametrize("temperature", [None, 0.0, -1.0])
def test_temperature_is_a_positive_number(temperature: Any) -> None:
    with pytest.raises(UserError, match=r"1\.0"):
        CoupledRankDistilLoss(temperature=temperature)(Y_TRUE, Y_PRED)


def test_arguments_by_position() -> None:
    config = CoupledRankDistilLoss("sum", "mine", True, 4, 2, 0.5).get_config()
    expected = {
        "reduction": "sum",
        "name": "mine",
        "ragged": True,
        "sample_size": 4,
        "topk": 2,
        "temperature": 0.5,
    }
    assert expected.items() <= config.items()


@pytest.mark.parametrize("package", KERAS)
@pytest.mark.parametrize(
    "loss",
    [CoupledRankDistilLoss("sum", "mine", topk=np.int64(2), seed=3), RankingLoss("softmax", padding="nan")],
)
def test_configuration_goes_round(package: str, loss: Any) -> None:
    losses = KERAS[package].losses
    for again in type(loss).from_config(loss.get_config()), losses.deserialize(losses.serialize(loss)):
        assert type(again) is type(loss)
        assert again.get_config() == loss.get_config()


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64])
def test_float_types(dtype: Any) -> None:
    tf.random.set_seed(1)
    value = CoupledRankDistilLoss(topk=2, sample_size=1)(tf.cast(Y_TRUE, dtype), tf.cast(Y_PRED, dtype))
    assert_close(float(value), 2.138333, rtol=1e-2)


def test_integer_y_true() -> None:
    tf.random.set_seed(1)
    assert_close(CoupledRankDistilLoss(topk=2, sample_size=1)(np.array(Y_TRUE, np.int32), Y_PRED), 2.138333)


@pytest.mark.parametrize("estimator", ["tfr", "rao_blackwell", "plackett"])
@pytest.mark.parametrize("list_size", [0, 1])
def test_lists_without_a_choice_are_zero(list_size: int, estimator: str) -> None:
    loss = CoupledRankDistilLoss(estimator=estimator, topk=2)
    y_pred = tf.ones([3, list_size])
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(tf.ones([3, list_size]), y_pred)
    assert_close(value, 0.0)
    assert_close(tape.gradient(value, y_pred), np.zeros([3, list_size]))
    assert_close(loss(np.full([2, 3], np.nan), Y_PRED), 0.0)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("estimator", ["tfr", "rao_blackwell"])
def test_shapes_need_not_be_known(estimator: str, jit_compile: bool) -> None:
    loss = CoupledRankDistilLoss(estimator=estimator, topk=1, sample_size=4, padding="nan")
    spec = tf.TensorSpec([None, None], tf.float32)
    value = tf.function(loss, input_signature=[spec, spec], jit_compile=jit_compile)(Y_TRUE, Y_PRED)
    if estimator == "rao_blackwell":  # exact for topk=1
        assert_close(value, coupled_rankdistil(Y_TRUE, Y_PRED, topk=1), rtol=1e-4)
    assert np.isfinite(value)


def test_negative_scores_are_scores_and_minus_1_warns_once() -> None:
    options = {"topk": 1, "estimator": "rao_blackwell"}
    y_true = [[0.0, 2.0, -1.0], [1.0, 0.0, 2.0]]
    loss = CoupledRankDistilLoss(**options)
    with pytest.warns(UserWarning, match="padding="):
        value = loss(y_true, Y_PRED)
    assert_close(value, coupled_rankdistil(y_true, Y_PRED, topk=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(y_true, Y_PRED)
        CoupledRankDistilLoss(**options, padding="nan")(y_true, Y_PRED)
        padded = CoupledRankDistilLoss(**options, padding="negative")(y_true, Y_PRED)
        CoupledRankDistilLoss(**options)([[0.5, -1.0, -2.0]], [[1.0, 2.0, 3.0]])
    assert_close(padded, coupled_rankdistil(y_true, Y_PRED, np.array(y_true) >= 0, topk=1))


@pytest.mark.parametrize("package", KERAS)
@pytest.mark.parametrize("name", ["plain", "ragged", "save", "mirrored", "mixed"])
def test_fit(package: str, name: str, tmp_path: Path) -> None:
    """In a process of its own, for tf.keras becomes one of the two when TensorFlow is imported."""
    env = {
        **os.environ,
        "TF_USE_LEGACY_KERAS": "1" if package == "tf_keras" else "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), package, name, str(tmp_path)],
        env={**env, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

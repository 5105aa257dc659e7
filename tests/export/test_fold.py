"""Standardisation inside the first layer gives the scores of standardised features."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import AttentionStudent, DCNStudent, LinearStudent, MLPStudent, TransformConfig
from pipeline.data.transform import fit_transform
from pipeline.export.fold import fold_standardisation
from pipeline.models.scorer import build_scorer
from tests.closeness import assert_close

STUDENTS = [
    LinearStudent(),
    MLPStudent(hidden=[7, 5]),
    MLPStudent(hidden=[6], activation="tanh", dropout=0.5),
]
RAW = np.random.default_rng(0).lognormal(0, 2, (500, 6)).astype(np.float32)
RAW[:, 1] *= -1
RAW[:, 2] = 7  # constant
RAW[:, 3] = 1e6 + RAW[:, 0]  # mean and values share most of their digits
RAW[:, 4] *= 1e-6
RAW[:, 5] *= 1e36  # its deviation leaves no float32 for weights divided by it


def dense_layers(scorer):
    tower = getattr(scorer, "tower", None)
    return [*(block[0] for block in tower.blocks), scorer.head] if tower else [scorer.head]


def in_float64(transform, scorer, raw):
    """The scores by plain arithmetic."""
    x = raw.astype(np.float64)
    if transform.log1p:
        x = np.where(transform.signs != 0, np.sign(x) * np.log1p(np.abs(x)), x)
    x = (x - transform.mean) / transform.deviation
    x = x if transform.clip is None else np.clip(x, -transform.clip, transform.clip)
    activation = {"relu": lambda v: np.maximum(v, 0), "tanh": np.tanh, "linear": lambda v: v}
    for layer in dense_layers(scorer):
        kernel, bias = (weight.numpy().astype(np.float64) for weight in layer.weights)
        x = activation[layer.activation.__name__](x @ kernel + bias)
    return x[:, 0]


@pytest.mark.parametrize("student", STUDENTS, ids=lambda student: f"{student.name}")
@pytest.mark.parametrize("log1p", [False, True])
@pytest.mark.parametrize("clip", [None, 1.5])
def test_folded_scores_are_as_exact_as_unfolded_ones(student, log1p, clip):
    transform = fit_transform(TransformConfig(log1p=log1p, log_except=[4] if log1p else [], clip=clip), RAW)
    scorer = build_scorer(student, RAW.shape[1], seed=0)
    first = dense_layers(scorer)[0]
    first.bias.assign(np.arange(first.units) / 8)
    folded = fold_standardisation(transform, scorer)
    expected = in_float64(transform, scorer, RAW)
    unfolded_error = np.abs(scorer(transform.in_graph(tf.constant(RAW))).numpy() - expected).max()
    folded_error = np.abs(folded(tf.constant(RAW)).numpy() - expected).max()
    assert folded_error <= 4 * unfolded_error + 1e-5 * np.abs(expected).max()


def test_no_pass_over_the_features_is_left():
    transform = fit_transform(TransformConfig(log1p=False), RAW[:, [0, 1, 4]])
    folded = fold_standardisation(transform, build_scorer(LinearStudent(), 3, seed=0))
    graph = tf.function(folded, input_signature=[tf.TensorSpec([None, 3])]).get_concrete_function().graph
    operations = {operation.type for operation in graph.get_operations()}
    assert "MatMul" in operations
    assert not operations & {"Sub", "RealDiv", "Mul"}


def test_a_scorer_that_uses_its_input_twice_is_left_alone():
    transform = fit_transform(TransformConfig(log_except=[4]), RAW)
    for student in (DCNStudent(hidden=[4]), AttentionStudent(), MLPStudent(input_batch_norm=True)):
        assert fold_standardisation(transform, build_scorer(student, 6, seed=0)) is None


def test_a_transform_that_does_not_standardise_folds_to_the_same_scores():
    transform = dataclasses.replace(fit_transform(TransformConfig(log_except=[4], standardise=False), RAW))
    scorer = build_scorer(MLPStudent(hidden=[4]), 6, seed=1)
    folded = fold_standardisation(transform, scorer)
    assert_close(folded(tf.constant(RAW)), scorer(transform.in_graph(tf.constant(RAW))), rtol=1e-6, atol=1e-6)

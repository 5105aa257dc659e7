"""One step: the same numbers whatever compiles it, and nothing in it that an accelerator cannot run."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pipeline.config import AttentionStudent, DCNStudent, LinearStudent, LossConfig, MLPStudent, TrainConfig
from pipeline.data.packing import PackedBatches
from pipeline.losses.registry import DISTILLATION
from pipeline.models.scorer import build_scorer
from pipeline.student import distillation_loss
from pipeline.training.feed import on_each_device
from pipeline.training.step import TrainingStep
from tests import closeness
from tests.training.test_fit import TRAIN

BATCHES = PackedBatches(TRAIN, 2 * TRAIN.labels + TRAIN.features[:, 0], lists_per_batch=6, seed=5)


def loss_config(name, **options):
    return LossConfig(name, "softmax", 0.3, "constant", None, options=options)


COUPLED = loss_config("coupled_rankdistil", topk=3, sample_size=2)
CHEAP = loss_config("mse")  # to compile, where the loss is not what is looked at
STUDENTS = {
    "mlp": MLPStudent(hidden=[8], batch_norm=True, input_batch_norm=True),
    "dcn": DCNStudent(hidden=[8], cross_layers=1),
    "attention": AttentionStudent(hidden=[8], attention_layers=1, head_size=4, input_batch_norm=True),
}
MLP = MLPStudent(hidden=[8])


def make_step(jit, *, student=MLP, loss=COUPLED, batches=BATCHES, precision="float32"):
    """A step with learning rate 0.1, and the arguments of the first batches."""
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        scorer = build_scorer(student, 5, seed=0)
        config = TrainConfig(weight_decay=0.0, precision=precision)
        step = TrainingStep(scorer, distillation_loss(loss), batches, config, strategy, seed=5, jit=jit)
    data = batches.data
    (features,) = on_each_device(strategy, data.features)
    documents = on_each_device(strategy, batches.teacher, data.labels, data.offsets)
    return step, features, documents


def after(jit, *, steps=1, **options):
    """The weights after some steps, statistics of batch norm included; without the bias of the output.

    Most losses do not depend on that bias. Its gradient is rounding noise, whose sign Adam turns into a step.
    """
    step, *arguments = make_step(jit, **options)
    for number in range(steps):
        step(BATCHES.lists(number), *arguments, step=number, learning_rate=0.01)
    return [weights for weights in step.scorer.get_weights() if weights.shape != (1,)]


def assert_close(a, b):
    for x, y in zip(a, b, strict=True):
        closeness.assert_close(x, y, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", sorted(DISTILLATION))
def test_every_loss_gives_the_same_step_compiled(name):
    plain, compiled = (after(jit, student=LinearStudent(), loss=loss_config(name)) for jit in ("off", "step"))
    assert_close(plain, compiled)


@pytest.mark.parametrize("key", ["list_mle", "softmax", "yeti_logistic"])
def test_a_loss_of_tfr_gives_the_same_step_whatever_is_compiled(key):
    """The property table compiles each alone."""
    loss = dataclasses.replace(CHEAP, label_loss=f"tfr_{key}", label_weight=0.5)
    off, *compiled = (after(jit, student=LinearStudent(), loss=loss) for jit in ("off", "loss", "step"))
    for weights in compiled:
        assert_close(off, weights)


@pytest.mark.parametrize("student", STUDENTS.values(), ids=STUDENTS)
def test_every_student_gives_the_same_step_compiled(student):
    """In static shapes: the rows that pad are in no statistic of batch norm."""
    before = [weights for weights in build_scorer(student, 5, seed=0).get_weights() if weights.shape != (1,)]
    plain, compiled = (after(jit, student=student, loss=CHEAP) for jit in ("off", "step"))
    assert all((x != y).any() for x, y in zip(before, compiled, strict=True))
    assert_close(plain, compiled)


def test_noise_compiles():
    """XLA draws it in another order, or for other shapes: only that it runs."""
    weights = after("step", student=MLPStudent(hidden=[8], dropout=0.3, input_noise=0.1), loss=CHEAP)
    assert all(np.isfinite(array).all() for array in weights)


def test_scores_of_a_huge_range_get_the_whole_loss():
    wide = dataclasses.replace(BATCHES, teacher=100 * BATCHES.teacher)
    off, on = (after(jit, batches=wide) for jit in ("off", "loss"))
    assert all(np.isfinite(weights).all() for weights in on)
    assert_close(off, on)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nothing_in_the_compiled_step_needs_a_host(precision):
    """As far as a CPU shows it: a TPU has no dynamic shapes, callbacks or strings."""
    keras.mixed_precision.set_global_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        step, features, documents = make_step("step", precision=precision)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    lists, number, rate = tf.constant(BATCHES.lists(0)), tf.constant(0, tf.int64), tf.constant(0.01)
    batch = (features, documents, lists, number, rate)
    function = tf.function(step.replica_step, jit_compile=True)
    graph = function.get_concrete_function(*batch).graph
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    assert {"AssignAddVariableOp", "MatMul"} <= {node.op for node in nodes}
    assert not [node.op for node in nodes if "PyFunc" in node.op or "String" in node.op]
    strings = [op.name for op in graph.get_operations() for out in op.outputs if out.dtype == tf.string]
    assert all(name.startswith("Assert") for name in strings)  # messages of checks, which XLA leaves out
    assert not [op.name for op in graph.get_operations() for out in op.outputs if out.dtype != tf.resource
                and not out.shape.is_fully_defined()]  # fmt: skip
    hlo = function.experimental_get_compiler_ir(*batch)(stage="hlo")
    assert "ENTRY" in hlo
    assert not re.search(r"\[[^\]]*<=|infeed|outfeed|send\(|recv\(|PyFunc", hlo)

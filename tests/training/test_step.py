"""One step: the same numbers whatever compiles it, and nothing in it that an accelerator cannot run."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pipeline.config import AttentionStudent, DCNStudent, LinearStudent, LossConfig, MLPStudent
from pipeline.data.packing import PackedBatches
from pipeline.losses.registry import DISTILLATION
from pipeline.models.scorer import build_scorer
from pipeline.student import distillation_loss
from pipeline.training.optimizer import FusedAdam
from pipeline.training.step import TrainingStep
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


def make_step(jit, *, student=MLP, loss=COUPLED, batches=BATCHES, optimizer=None):
    batches = dataclasses.replace(batches, is_static=jit == "step")
    scorer = build_scorer(student, 5, seed=0)
    step = TrainingStep(scorer, distillation_loss(loss), batches, seed=5, compile_loss=jit == "loss")
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    step.compile(optimizer, jit_compile=jit == "step", run_eagerly=jit == "eager")
    step.optimizer.build(scorer.trainable_variables)
    return step, batches


def after(jit, *, steps=1, **options):
    """The weights after some steps, statistics of batch norm included."""
    step, batches = make_step(jit, **options)
    step.fit(batches.dataset(0, range(1)).take(steps), verbose=0)
    return step.scorer.get_weights()


def assert_close(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", sorted(DISTILLATION))
def test_every_loss_gives_the_same_step_compiled(name):
    eager, compiled = (
        after(jit, student=LinearStudent(), loss=loss_config(name)) for jit in ("eager", "step")
    )
    assert_close(eager, compiled)


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
    before = build_scorer(student, 5, seed=0).get_weights()
    eager, compiled = (after(jit, student=student, loss=CHEAP) for jit in ("eager", "step"))
    assert all((x != y).any() for x, y in zip(before, compiled, strict=True))
    assert_close(eager, compiled)


@pytest.mark.parametrize("jit", ["off", "loss"])
@pytest.mark.parametrize("num_chunks", [2, 5])
def test_chunks_give_the_same_step(num_chunks, jit):
    """The last batch of an epoch has two lists: fewer than chunks."""
    attention = dataclasses.replace(STUDENTS["attention"], input_batch_norm=False)
    chunks = dataclasses.replace(BATCHES, num_chunks=num_chunks)
    whole, parts = (after(jit, steps=4, student=attention, batches=batches) for batches in (BATCHES, chunks))
    assert_close(whole, parts)


def test_noise_compiles():
    """XLA draws it in another order, or for other shapes: only that it runs."""
    weights = after("step", student=MLPStudent(hidden=[8], dropout=0.3, input_noise=0.1), loss=CHEAP)
    assert all(np.isfinite(array).all() for array in weights)


def test_scores_of_a_huge_range_get_the_whole_loss():
    """What XLA compiles first is for ranges below 70 nats."""
    wide = dataclasses.replace(BATCHES, teacher=100 * BATCHES.teacher)
    off, on = (after(jit, batches=wide) for jit in ("off", "loss"))
    assert all(np.isfinite(weights).all() for weights in on)
    assert_close(off, on)


@pytest.mark.parametrize("decay", [None, 0.1])
def test_fused_adam_is_keras_adam(decay):
    theirs = keras.optimizers.AdamW(0.01, weight_decay=decay) if decay else keras.optimizers.Adam(0.01)
    ours = FusedAdam(0.01, weight_decay=decay)
    assert_close(*(after("off", steps=3, loss=CHEAP, optimizer=optimizer) for optimizer in (theirs, ours)))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_nothing_in_the_compiled_step_needs_a_host(precision):
    """As far as a CPU shows it: a TPU has no dynamic shapes, callbacks or strings."""
    keras.mixed_precision.set_global_policy(precision)
    try:
        step, batches = make_step("step", optimizer=FusedAdam(0.01))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    batch = {name: tf.constant(array) for name, array in batches.batch(0).items()}
    function = tf.function(step.train_step, jit_compile=True)
    graph = function.get_concrete_function(batch).graph
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    assert {"ResourceApplyAdam", "StatelessIf", "MatMul"} & {node.op for node in nodes}
    assert not [node.op for node in nodes if "PyFunc" in node.op or "String" in node.op]
    assert not [op.name for op in graph.get_operations() for out in op.outputs if out.dtype == tf.string]
    assert not [op.name for op in graph.get_operations() for out in op.outputs if out.dtype != tf.resource
                and not out.shape.is_fully_defined()]  # fmt: skip
    hlo = function.experimental_get_compiler_ir(batch)(stage="hlo")
    assert "ENTRY" in hlo
    assert not re.search(r"\[[^\]]*<=|infeed|outfeed|send\(|recv\(|PyFunc", hlo)

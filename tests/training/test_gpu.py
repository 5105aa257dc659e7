"""What only a GPU can show: it trains to the CPU's numbers, twice to the same bits, in every precision.

Products are of whole float32 numbers here: TensorFlow else rounds their factors to 10 bits (TensorFloat-32).
"""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import MLPStudent
from pipeline.losses.rankdistil import coupled_rankdistil
from pipeline.noise import random_bits
from pipeline.student import distillation_loss
from pipeline.training.distribute import make_strategy
from tests.training.test_fit import CONFIG, train, vali_ndcg
from tests.training.test_step import loss_config
from tests.trust.command import metrics, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="TensorFlow sees no GPU here"),
]
STUDENT = MLPStudent(hidden=[16, 8], batch_norm=True, input_batch_norm=True)
COUPLED = distillation_loss(loss_config("coupled_rankdistil", topk=3, sample_size=4))


@pytest.fixture(autouse=True)
def whole_float32():
    tf.config.experimental.enable_tensor_float_32_execution(False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(True)


def on(device, folder, **options):
    strategy = tf.distribute.OneDeviceStrategy(f"/{device}:0")
    return train(folder, student=STUDENT, loss=COUPLED, strategy=strategy, **options)


def test_auto_takes_the_gpu():
    assert "GPU:0" in make_strategy("auto").extended.worker_devices[0]


def test_noise_is_bit_equal_to_the_cpus():
    def bits(device):
        with tf.device(f"/{device}:0"):
            found = random_bits([3, 2**31 - 1], [5, 2**30, -1], tf.range(4), tf.range(300))
        assert device in found.device
        return found.numpy()

    np.testing.assert_array_equal(bits("GPU"), bits("CPU"))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("size", [40, 1280])  # 1280: by groups of slots
def test_the_loss_and_its_gradient_are_the_cpus(size, jit_compile):
    random = np.random.default_rng(1)
    teacher, student = random.normal(scale=3, size=(2, 8, size)).astype(np.float32)
    mask = np.arange(size) < random.integers(2, size, 8)[:, np.newaxis]

    @tf.function(jit_compile=jit_compile)
    def value_and_gradient(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = coupled_rankdistil(
                teacher, student, mask, topk=5, sample_size=4, seed=[0, 1], list_ids=tf.range(8), reduce=None
            )
        return value, tape.gradient(value, student)

    def of(device):
        with tf.device(f"/{device}:0"):
            return [array.numpy() for array in value_and_gradient(*map(tf.constant, (teacher, student)))]

    for gpu, cpu in zip(of("GPU"), of("CPU"), strict=True):
        np.testing.assert_allclose(gpu, cpu, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("jit", ["off", "loss", "step"])
def test_training_takes_the_cpus_course(tmp_path, jit):
    _, expected = on("CPU", tmp_path / "cpu")
    scorer, history = on("GPU", tmp_path / "gpu", config=dataclasses.replace(CONFIG, jit=jit))
    losses, wanted = ([row["loss"] for row in h["epochs"]] for h in (history, expected))
    assert losses == pytest.approx(wanted, rel=1e-3)
    assert vali_ndcg(scorer) == pytest.approx(
        max(row["vali"]["ndcg@10"] for row in history["epochs"]), abs=1e-4
    )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_what_float32_does(tmp_path, precision):
    """float16 leaves out the first steps, until its scale is small enough."""
    config = dataclasses.replace(CONFIG, epochs=8)
    _, full = on("GPU", tmp_path / "full", config=config)
    _, mixed = on("GPU", tmp_path / "mixed", config=dataclasses.replace(config, precision=precision))
    losses = [[row["loss"] for row in history["epochs"]] for history in (mixed, full)]
    assert losses[0][-1] == pytest.approx(losses[1][-1], rel=0.1)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("student", ["mlp", "attention"])
def test_the_same_command_gives_the_same_bits(tmp_path, student):
    options = ("train.jit=auto", f"student={student}", "train.strategy=one_device", "teacher.num_trees=8")
    found = []
    for name in ("one", "two"):
        code, text = run(tmp_path, *options, f"run_dir={name}", f"cache_dir=cache-{name}", log=f"{name}.log")
        assert code == 0, text
        found.append(metrics(json.loads((tmp_path / name / "result.json").read_text())))
    assert found[0] == found[1]


def test_a_killed_run_goes_on(tmp_path):
    """To the same bits only under train.deterministic, which holds for a process."""

    class Killed(Exception):
        pass

    def kill(row):
        if row["epoch"] == 2:
            raise Killed

    _, whole = on("GPU", tmp_path / "whole")
    with pytest.raises(Killed):
        on("GPU", tmp_path / "killed", on_epoch=kill)
    _, resumed = on("GPU", tmp_path / "killed")
    assert [row["loss"] for row in resumed["epochs"]] == pytest.approx(
        [row["loss"] for row in whole["epochs"]], rel=1e-3
    )

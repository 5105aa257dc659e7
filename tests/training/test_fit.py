import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pipeline.config import (
    AttentionStudent,
    ConfigError,
    DCNStudent,
    LinearStudent,
    MLPStudent,
    MLPTeacher,
    TrainConfig,
)
from pipeline.data import RankingData
from pipeline.data.packing import PackedBatches
from pipeline.metrics import ndcg
from pipeline.models.scorer import build_scorer, scoring_function
from pipeline.training import loop as fit_module
from pipeline.training.checkpoint import load_arrays
from pipeline.training.fit import fit, load_history, load_weights
from pipeline.training.signals import Interrupted
from pipeline.training.step import TrainingStep
from pipeline.training.strategy import make_strategy

CONFIG = TrainConfig(
    epochs=4, lists_per_batch=6, learning_rate=0.01, schedule="constant", weight_decay=0.0, jit="off"
)
STUDENT = MLPStudent(hidden=[8])
WHOLE_BATCH = {"batch_norm": True, "dropout": 0.1, "input_batch_norm": True, "input_noise": 0.1}
STUDENTS = {
    "mlp": MLPStudent(hidden=[8, 4], dropout=0.3, batch_norm=True),
    "linear": LinearStudent(),
    "dcn": DCNStudent(hidden=[8], cross_layers=1, input_noise=0.1),
    "attention": AttentionStudent(
        hidden=[8],
        attention_layers=1,
        head_size=4,
        dropout=0.1,
        input_batch_norm=True,
        input_noise=0.1,
    ),
}


def make_data(num_queries, seed):
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 12, num_queries))]).astype(np.int64)
    features = random.normal(size=(offsets[-1], 5)).astype(np.float32)
    labels = np.digitize(features[:, 0] + 0.3 * features[:, 1] ** 2, [0, 1, 2]).astype(np.float32)
    return RankingData(features, labels, offsets, np.array([f"{seed}-{q}" for q in range(num_queries)]))


TRAIN, VALI = make_data(20, seed=1), make_data(10, seed=2)


def listnet(teacher, labels, student, mask, *, seed, list_ids):
    """A loss with weights that depend on (seed, list), so that step and list numbers matter."""
    weight = 1 + 0.5 * tf.cos(tf.cast(seed[0] + 31 * seed[1] + 7 * list_ids, tf.float32))
    teacher = tf.where(mask, teacher, -1e9)
    student = tf.where(mask, student, -1e9)
    cross = tf.reduce_sum(tf.where(mask, tf.nn.softmax(teacher) * tf.nn.log_softmax(student), 0.0), -1)
    return -cross * weight


def train(
    folder,
    *,
    config=CONFIG,
    student=STUDENT,
    strategy="one_device",
    loss=listnet,
    on_epoch=lambda row: None,
    **kwargs,
):
    folder.mkdir(exist_ok=True)
    batches = PackedBatches(TRAIN, 2 * TRAIN.labels, config.lists_per_batch, seed=5)
    fit(
        lambda: build_scorer(student, 5, seed=0),
        batches,
        VALI,
        loss,
        config,
        make_strategy(strategy) if isinstance(strategy, str) else strategy,
        seed=5,
        folder=folder,
        on_epoch=on_epoch,
        **kwargs,
    )
    scorer = build_scorer(student, 5, seed=1)
    load_weights(scorer, folder)
    return scorer, load_history(folder)


def numbers(history):
    """What must not depend on speed."""
    return [
        {key: row[key] for key in ("epoch", "loss", "vali", "learning_rate")} for row in history["epochs"]
    ]


def vali_ndcg(scorer):
    scores = scoring_function(scorer)(VALI.features, VALI.offsets)
    lists = zip(VALI.offsets[:-1], VALI.offsets[1:], strict=True)
    return np.nanmean([ndcg(scores[a:b], VALI.labels[a:b]) for a, b in lists])


def test_training_learns_and_keeps_the_best_epoch(tmp_path):
    scorer, history = train(tmp_path / "a", config=dataclasses.replace(CONFIG, epochs=12))
    values = [row["vali"]["ndcg@10"] for row in history["epochs"]]
    assert history["best_epoch"] == 1 + int(np.argmax(values))
    assert vali_ndcg(scorer) == pytest.approx(max(values), abs=1e-9)
    assert history["epochs"][-1]["loss"] < history["epochs"][0]["loss"]
    assert max(values) > values[0]
    assert not (tmp_path / "a" / "checkpoint.npz").exists()


def test_the_loss_of_an_epoch_is_the_mean_over_its_lists(tmp_path):
    still = dataclasses.replace(CONFIG, epochs=1, learning_rate=1e-12)

    def size(teacher, labels, student, mask, *, seed, list_ids):
        return tf.reduce_sum(tf.cast(mask, tf.float32), -1) + 0 * tf.reduce_sum(student, -1)

    _, history = train(tmp_path / "a", config=still, loss=size)
    assert history["epochs"][0]["loss"] == pytest.approx(TRAIN.num_docs / TRAIN.num_queries)


def centred_scores(scorer):
    """The scores of each list less their mean: the loss leaves a common shift to rounding errors."""
    scores = scoring_function(scorer)(VALI.features, VALI.offsets)
    return scores - np.repeat(np.add.reduceat(scores, VALI.offsets[:-1]) / VALI.list_sizes, VALI.list_sizes)


REPLICATED = {
    "mlp": STUDENT,
    "batch_norm": MLPStudent(hidden=[8], batch_norm=True, input_batch_norm=True),
    "attention": AttentionStudent(hidden=[8], attention_layers=1, head_size=4),
    "noise": MLPStudent(hidden=[8, 8], dropout=0.3, input_noise=0.3),
    "attention with noise": dataclasses.replace(STUDENTS["attention"], dropout=0.3),
}


@functools.cache
def devices(number):
    """The mirrored strategy over the first logical devices, of which there are 4."""
    if number == 4:
        return make_strategy("mirrored")
    # A process knows collectives by number, and each strategy begins with 1 unless told (as TensorFlow's tests do).
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.distribute.MirroredStrategy, "_collective_key_base", 100_000)
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(number)])


@pytest.mark.parametrize("student", REPLICATED.values(), ids=REPLICATED)
def test_replicas_give_the_numbers_of_one_device(tmp_path, student):
    one, one_history = train(tmp_path / "1", student=student)
    for number in (2, 4):
        strategy = devices(number)
        assert strategy.num_replicas_in_sync == number
        many, many_history = train(tmp_path / str(number), student=student, strategy=strategy)
        for a, b in zip(one_history["epochs"], many_history["epochs"], strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
            assert a["vali"] == pytest.approx(b["vali"], abs=1e-6)
        np.testing.assert_allclose(centred_scores(many), centred_scores(one), rtol=1e-4, atol=1e-4)

        with strategy.scope():  # evaluation under the strategy is evaluation without
            under = build_scorer(student, 5, seed=1)
            load_weights(under, tmp_path / str(number))
            np.testing.assert_array_equal(centred_scores(under), centred_scores(many))
        assert max(row["vali"]["ndcg@10"] for row in many_history["epochs"]) == pytest.approx(
            vali_ndcg(many), abs=1e-9
        )


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_large_batch_is_trained_on_in_chunks(tmp_path, monkeypatch, name):
    """Of whole lists, if no statistic or noise is of the whole batch: the same numbers, resumed or not."""
    whole = train(tmp_path / "whole", student=STUDENTS[name])
    seen, step = [], fit_module.TrainingStep
    monkeypatch.setattr(fit_module, "_CHUNK_DOCS", 9)  # a batch has about 36 documents
    monkeypatch.setattr(
        fit_module, "TrainingStep", lambda *args, **kw: seen.append(args[2].num_chunks) or step(*args, **kw)
    )

    def kill(row):
        if row["epoch"] == 2:
            raise Killed

    chunks = train(tmp_path / "chunks", student=STUDENTS[name])
    with pytest.raises(Killed):
        train(tmp_path / "killed", student=STUDENTS[name], on_epoch=kill)
    assert_same(train(tmp_path / "killed", student=STUDENTS[name]), chunks)
    two = train(tmp_path / "two", student=STUDENTS[name], strategy=devices(2))
    assert seen == ([4, 4, 4, 2] if name == "linear" else [1, 1, 1, 1])
    for scorer, _ in (chunks, two):
        np.testing.assert_allclose(centred_scores(scorer), centred_scores(whole[0]), rtol=1e-4, atol=1e-4)


def test_who_is_not_the_chief_writes_nothing(tmp_path):
    rows = []
    batches = PackedBatches(TRAIN, 2 * TRAIN.labels, CONFIG.lists_per_batch, seed=5)
    strategy = make_strategy("one_device")
    fit(
        lambda: build_scorer(STUDENT, 5, seed=0),
        batches,
        VALI,
        listnet,
        CONFIG,
        strategy,
        seed=5,
        folder=tmp_path,
        chief=False,
        on_epoch=rows.append,
    )
    assert len(rows) == CONFIG.epochs
    assert list(tmp_path.iterdir()) == []


def assert_same(a, b):
    """Two (scorer, history) have the same bits."""
    assert numbers(a[1]) == numbers(b[1])
    assert a[1]["best_epoch"] == b[1]["best_epoch"]
    for x, y in zip(a[0].get_weights(), b[0].get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_layers_that_the_process_made_before_change_no_bit(tmp_path):
    """TensorFlow adds up what dense_99 and dense_100 give in the order of these names."""
    config = dataclasses.replace(CONFIG, weight_decay=0.01)
    first = train(tmp_path / "first", config=config, student=STUDENTS["attention"])
    for before in range(91, 100):
        keras.backend.reset_uids()
        for _ in range(before):
            keras.layers.Dense(1)
        assert_same(train(tmp_path / str(before), config=config, student=STUDENTS["attention"]), first)


class Killed(Exception):
    pass


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("student", STUDENTS.values(), ids=STUDENTS)
def test_a_run_that_is_killed_goes_on_to_the_same_numbers(tmp_path, schedule, student):
    config = dataclasses.replace(CONFIG, schedule=schedule, weight_decay=0.01)

    def kill(row):
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "killed", config=config, student=student, on_epoch=kill)
    rows = []
    resumed = train(tmp_path / "killed", config=config, student=student, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert_same(resumed, train(tmp_path / "whole", config=config, student=student))


STOPS = [(signal.SIGTERM, Interrupted), (signal.SIGINT, KeyboardInterrupt)]


@pytest.mark.parametrize(("number", "raised"), STOPS)
@pytest.mark.parametrize("after_steps", [1, 6, 8, 15])  # 4 steps an epoch
def test_a_signal_saves_the_step_and_the_same_call_goes_on(
    tmp_path, after_steps, number, raised, monkeypatch
):
    count = 0
    batch = PackedBatches.batch

    def signalling(self, step, replica=0, **memory):
        nonlocal count
        count += 1
        if step == after_steps:  # loaded a few steps ahead of its use
            os.kill(os.getpid(), number)
        return batch(self, step, replica, **memory)

    monkeypatch.setattr(PackedBatches, "batch", signalling)
    monkeypatch.setattr(fit_module, "_STEPS_PER_CALL", 1)
    before = signal.getsignal(number)
    with pytest.raises(raised):
        train(tmp_path / "stopped")
    monkeypatch.undo()
    assert signal.getsignal(number) is before
    saved = load_arrays(tmp_path / "stopped" / "checkpoint.npz")[1]
    assert 1 <= 4 * len(saved["history"]) + saved["step"] <= after_steps + 1
    assert saved["step"] or after_steps > 1  # within the first epoch
    assert count < 16 + 4
    assert_same(train(tmp_path / "stopped"), train(tmp_path / "whole"))


@pytest.mark.parametrize(("number", "raised"), STOPS)
def test_a_signal_before_the_first_step_waits_until_the_step_is_built(tmp_path, number, raised, monkeypatch):
    def signalling(*arguments, **options):
        os.kill(os.getpid(), number)
        built.append(TrainingStep(*arguments, **options))
        return built[-1]

    built = []
    monkeypatch.setattr(fit_module, "TrainingStep", signalling)
    with pytest.raises(raised):
        train(tmp_path / "stopped")
    assert built
    monkeypatch.undo()
    assert_same(train(tmp_path / "stopped"), train(tmp_path / "whole"))


@pytest.mark.parametrize(("number", "raised"), STOPS)
def test_a_signal_after_the_last_epoch_is_not_lost(tmp_path, number, raised):
    def signalling(row):
        if row["epoch"] == CONFIG.epochs:
            os.kill(os.getpid(), number)

    with pytest.raises(raised):
        train(tmp_path / "stopped", on_epoch=signalling)
    assert_same(train(tmp_path / "stopped"), train(tmp_path / "whole"))


def test_a_second_ctrl_c_comes_at_once(tmp_path, monkeypatch):
    def signalling(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("still there")

    monkeypatch.setattr(fit_module, "TrainingStep", signalling)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_ctrl_c_stays_ignored(tmp_path):
    """As with nohup, or of a shell's background job."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(tmp_path, on_epoch=lambda row: os.kill(os.getpid(), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(load_history(tmp_path)["epochs"]) == CONFIG.epochs


def test_a_run_that_is_killed_when_patience_is_at_its_end_does_not_go_on(tmp_path):
    config = dataclasses.replace(CONFIG, epochs=50, patience=2, learning_rate=1e-9)

    def kill(row):
        if row["epoch"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "killed", config=config, on_epoch=kill)
    _, history = train(tmp_path / "killed", config=config)
    assert len(history["epochs"]) == 3


def test_patience_ends_training_early(tmp_path):
    config = dataclasses.replace(CONFIG, epochs=50, patience=2, learning_rate=1e-9)
    _, history = train(tmp_path / "a", config=config)
    assert len(history["epochs"]) == history["best_epoch"] + 2 < 50


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_cosine_schedule_falls_to_zero(tmp_path, precision):
    """In float16 the gradients of the first steps are too large, and are left out."""

    def large(teacher, labels, student, mask, *, seed, list_ids):
        return 1e6 * listnet(teacher, labels, student, mask, seed=seed, list_ids=list_ids)

    config = dataclasses.replace(CONFIG, schedule="cosine", precision=precision)
    _, history = train(tmp_path / "a", config=config, loss=large)
    rates = [row["learning_rate"] for row in history["epochs"]]
    expected = [0.01 * (1 + np.cos(np.pi * step / 16)) / 2 for step in (3, 7, 11, 15)]  # 4 steps an epoch
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    def explode(teacher, labels, student, mask, *, seed, list_ids):
        per_list = listnet(teacher, labels, student, mask, seed=seed, list_ids=list_ids)
        return per_list * tf.where(seed[1] >= 6, np.nan, 1.0)  # 4 steps an epoch: in the second

    with pytest.raises(
        FloatingPointError, match=r"epoch 2, step 3, on queries 1-\d+, .*train\.learning_rate"
    ):
        train(tmp_path / "a", loss=explode)
    arrays, extra = fit_module.checkpoint.load_arrays(tmp_path / "a" / "checkpoint.npz")
    assert len(extra["history"]) == 1
    assert all(np.isfinite(array).all() for array in arrays)


def test_weights_that_are_not_finite_under_a_finite_loss_stop_the_run(tmp_path):
    @tf.custom_gradient
    def steep(student):
        return student, lambda upstream: upstream / 0.0

    def explode(teacher, labels, student, mask, *, seed, list_ids):
        student = tf.cond(seed[1] == 3, lambda: steep(student), lambda: student)  # the last step of 4
        return listnet(teacher, labels, student, mask, seed=seed, list_ids=list_ids)

    with pytest.raises(FloatingPointError, match=r"weights .* after step 4 of epoch 1, .*learning_rate"):
        train(tmp_path / "a", loss=explode)
    assert not (tmp_path / "a" / "checkpoint.npz").exists()


def test_sigterm_after_a_loss_that_is_not_finite_saves_nothing(tmp_path, monkeypatch):
    batch = PackedBatches.batch

    def signalling(self, step, replica=0, **memory):
        if step == 5:  # of 20; the call ends after 8
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(self, step, replica, **memory)

    def explode(teacher, labels, student, mask, *, seed, list_ids):
        per_list = listnet(teacher, labels, student, mask, seed=seed, list_ids=list_ids)
        return per_list * tf.where(seed[1] >= 2, np.nan, 1.0)

    monkeypatch.setattr(PackedBatches, "batch", signalling)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 3, on queries 1-\d+;"):
        train(tmp_path / "a", loss=explode, config=dataclasses.replace(CONFIG, lists_per_batch=1))
    assert not (tmp_path / "a" / "checkpoint.npz").exists()


def test_a_loss_scale_that_has_changed_is_taken_up_again(tmp_path):
    config = dataclasses.replace(CONFIG, precision="float16", jit="off", epochs=2)

    def large(
        teacher, labels, student, mask, *, seed, list_ids
    ):  # its scaled gradients are beyond float16 at first
        return 1000.0 * listnet(teacher, labels, student, mask, seed=seed, list_ids=list_ids)

    def kill(row):
        raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "killed", config=config, loss=large, on_epoch=kill)
    arrays, _ = fit_module.checkpoint.load_arrays(tmp_path / "killed" / "checkpoint.npz")
    assert arrays[-2] < 2.0**15
    resumed = train(tmp_path / "killed", config=config, loss=large)
    assert_same(resumed, train(tmp_path / "whole", config=config, loss=large))


@pytest.mark.parametrize("jit", ["loss", "step"])
def test_jit_changes_nothing_but_speed(tmp_path, jit):
    """Noise is left out: XLA draws it in another order."""
    student = dataclasses.replace(STUDENTS["mlp"], dropout=0.0)
    off, _ = train(tmp_path / "off", student=student)
    on, _ = train(tmp_path / "on", student=student, config=dataclasses.replace(CONFIG, jit=jit))
    np.testing.assert_allclose(centred_scores(on), centred_scores(off), rtol=1e-3, atol=1e-3)


def test_the_loss_is_compiled_once_and_the_step_traced_once(tmp_path, monkeypatch):
    traced = []
    train_step = fit_module.TrainingStep.train_step
    monkeypatch.setattr(
        fit_module.TrainingStep, "train_step", lambda self, batch: traced.append(1) or train_step(self, batch)
    )
    train(tmp_path / "here", config=dataclasses.replace(CONFIG, jit="loss"))
    assert len(traced) == 1
    script = """if True:
        import dataclasses, pathlib, sys
        sys.path.insert(0, sys.argv[1])
        import test_fit
        config = dataclasses.replace(test_fit.CONFIG, jit="loss")
        test_fit.train(pathlib.Path(sys.argv[2]), config=config)"""
    done = subprocess.run(
        [sys.executable, "-c", script, Path(__file__).parent, tmp_path / "there"],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "cpu_compiler=1"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compiled = [line for line in done.stderr.splitlines() if "Compiling [" in line]
    assert len(compiled) == 1, compiled


def test_the_loss_is_compiled_while_the_step_is_traced(tmp_path, monkeypatch):
    """By another thread; what XLA cannot compile ends the training."""
    steps = []

    def step(*arguments, **options):
        steps.append(TrainingStep(*arguments, **options))
        return steps[-1]

    monkeypatch.setattr(fit_module, "TrainingStep", step)
    config = dataclasses.replace(CONFIG, jit="loss")
    train(tmp_path / "compiled", config=config)
    assert steps[0]._compilation.done()

    def not_for_xla(teacher, labels, student, mask, *, seed, list_ids):
        return tf.cast(tf.strings.length(tf.strings.as_string(list_ids)), tf.float32) * student[:, 0]

    with pytest.raises(tf.errors.InvalidArgumentError, match="unsupported operations"):
        train(tmp_path / "refused", config=config, loss=not_for_xla)


def test_mixed_precision_learns_what_float32_does(tmp_path):
    config = dataclasses.replace(CONFIG, weight_decay=0.1)
    full, full_history = train(tmp_path / "full", config=config)
    mixed, history = train(tmp_path / "mixed", config=dataclasses.replace(config, precision="bfloat16"))
    assert [row["loss"] for row in history["epochs"]] == pytest.approx(
        [row["loss"] for row in full_history["epochs"]], rel=0.01
    )
    difference = np.abs(centred_scores(mixed) - centred_scores(full)).max()
    assert 1e-6 < difference < 0.05  # it was another precision


def test_a_strategy_without_its_devices_names_those_found(monkeypatch):
    cpus = tf.config.list_logical_devices("CPU")
    assert make_strategy("auto").num_replicas_in_sync == 1
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: cpus[:1])
    with pytest.raises(ConfigError, match=r"found /device:CPU:0\. mend: train\.strategy=one_device"):
        make_strategy("mirrored")


@pytest.mark.parametrize(
    "task",
    [
        None,
        {},
        {"type": "worker"},
        {"type": "worker", "index": 2},
        {"type": "worker", "index": "x"},
        {"type": "chief", "index": 0},
        {"type": "evaluator", "index": 0},
    ],
)
def test_a_task_that_is_none_of_the_cluster_is_named(task, monkeypatch):
    cluster = {"worker": ["a:1", "b:1"], "evaluator": ["c:1"]}
    config = {"cluster": cluster} | ({} if task is None else {"task": task})
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(
        ConfigError, match=r"the task .* in TF_CONFIG is no chief or worker of its cluster .*'b:1'.*mend: "
    ):
        make_strategy("multi_worker")


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"worker": None}, "is not the JSON that TensorFlow describes"),
        ({"worker": ["a:1"], "ps": ["b:1"]}, "names parameter servers, .* mend: leave 'ps' out"),
    ],
)
def test_a_cluster_that_cannot_be_is_named(cluster, message, monkeypatch):
    config = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        make_strategy("multi_worker")


@pytest.mark.parametrize(("rank", "node"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_tasks_of_slurm_are_numbered_as_srun_does(rank, node, monkeypatch):
    """node9 comes before node10; the second node has two tasks."""
    names = {"STEP_NODELIST": "node[9-10],x", "STEP_TASKS_PER_NODE": "1,2,1", "JOB_ID": "20007"}
    names |= {"STEP_NUM_TASKS": "4", "PROCID": str(rank), "NODEID": str(node)}
    for name, value in names.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    found = []
    made = types.SimpleNamespace(extended=None)
    monkeypatch.setattr(
        tf.distribute, "MultiWorkerMirroredStrategy", lambda resolver, options: found.append(resolver) or made
    )
    assert make_strategy("multi_worker") is made
    (resolver,) = found
    addresses = ["node9:10007", "node10:10007", "node10:10008", "x:10007"]
    assert resolver.cluster_spec().as_dict() == {"worker": addresses}
    assert (resolver.task_type, resolver.task_id) == ("worker", rank)
    monkeypatch.setenv("SLURM_NODEID", str((node + 1) % 3))
    with pytest.raises(ConfigError, match=r"mend: srun --distribution=block"):
        make_strategy("multi_worker")


MANY_LISTS = dataclasses.replace(CONFIG, lists_per_batch=128, jit="auto")


@pytest.mark.parametrize(
    ("change", "networks", "cores", "before", "gpus", "chosen"),
    [
        ({}, [STUDENT], 2, 0, 0, [1]),
        ({}, [], 2, 0, 0, [1]),  # a linear student
        ({}, [AttentionStudent(), MLPTeacher(dropout=0.0, lists_per_batch=200)], 2, 0, 0, [1]),
        ({}, [STUDENT], 1, 0, 0, []),
        ({}, [STUDENT], 4, 0, 0, []),
        ({"lists_per_batch": 127}, [STUDENT], 2, 0, 0, []),
        ({"jit": "step"}, [STUDENT], 2, 0, 0, []),
        ({"strategy": "mirrored"}, [STUDENT], 2, 0, 0, []),
        ({}, [STUDENT], 2, 5, 0, []),
        ({}, [STUDENT], 2, 0, 1, []),
        ({}, [STUDENT, MLPTeacher(dropout=0.0, lists_per_batch=16)], 2, 0, 0, []),
        *(({}, [MLPStudent(**{name: value})], 2, 0, 0, []) for name, value in WHOLE_BATCH.items()),
    ],
)
def test_on_two_cores_operations_keep_to_one_where_batches_fall_into_chunks(
    change, networks, cores, before, gpus, chosen, monkeypatch
):
    found = []
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] * gpus)
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: before)
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", found.append)
    share_cores(dataclasses.replace(MANY_LISTS, **change), networks, num_cores=cores)
    assert found == chosen
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    share_cores(dataclasses.replace(MANY_LISTS, **change), networks, num_cores=cores)
    assert found == chosen


def test_a_worker_of_several_has_all_cores_for_an_operation(monkeypatch):
    found = []
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}}')
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", found.append)
    share_cores(MANY_LISTS, [STUDENT], num_cores=2)
    assert found == []


def test_what_tensorflow_has_begun_with_stays():
    tf.zeros([])
    before = tf.config.threading.get_intra_op_parallelism_threads()
    share_cores(MANY_LISTS, [STUDENT], num_cores=2)
    assert tf.config.threading.get_intra_op_parallelism_threads() == before

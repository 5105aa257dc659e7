import dataclasses
import functools
import json
import os
import signal
import socket
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
    TrainConfig,
)
from pipeline.data import RankingData
from pipeline.data.packing import PackedBatches
from pipeline.errors import UserError
from pipeline.metrics import ndcg
from pipeline.models.scorer import build_scorer, scoring_function
from pipeline.training import distribute, feed, loop
from pipeline.training.checkpoint import load_arrays
from pipeline.training.distribute import make_strategy
from pipeline.training.loop import NotFiniteError, fit, load_history, load_weights
from pipeline.training.signals import Interrupted
from pipeline.training.step import TrainingStep
from tests.closeness import assert_close

CONFIG = TrainConfig(
    epochs=4, lists_per_batch=6, learning_rate=0.01, schedule="constant", weight_decay=0.0, jit="off"
)
STUDENT = MLPStudent(hidden=[8])
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
    build=None,
    **kwargs,
):
    folder.mkdir(exist_ok=True)
    batches = PackedBatches(TRAIN, 2 * TRAIN.labels, config.lists_per_batch, seed=5)
    fit(
        build or (lambda: build_scorer(student, 5, seed=0)),
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
    assert_close(history["epochs"][0]["loss"], TRAIN.num_docs / TRAIN.num_queries)


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
            assert_close(a["loss"], b["loss"])
            assert a["vali"] == pytest.approx(b["vali"], abs=1e-6)
        assert_close(centred_scores(many), centred_scores(one), rtol=1e-4, atol=1e-4)

        with strategy.scope():  # evaluation under the strategy is evaluation without
            under = build_scorer(student, 5, seed=1)
            load_weights(under, tmp_path / str(number))
            np.testing.assert_array_equal(centred_scores(under), centred_scores(many))
        assert max(row["vali"]["ndcg@10"] for row in many_history["epochs"]) == pytest.approx(
            vali_ndcg(many), abs=1e-9
        )


@pytest.mark.parametrize("name", ["linear", "mlp", "attention"])
def test_features_that_do_not_fit_into_memory_give_the_same_bits(tmp_path, monkeypatch, name):
    resident = train(tmp_path / "resident", student=STUDENTS[name])
    monkeypatch.setattr(feed, "_SHARE", 0.0)

    def kill(row):
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "streamed", student=STUDENTS[name], on_epoch=kill)
    assert_same(train(tmp_path / "streamed", student=STUDENTS[name]), resident)
    two, _ = train(tmp_path / "two", student=STUDENTS[name], strategy=devices(2))
    assert_close(centred_scores(two), centred_scores(resident[0]), rtol=1e-4, atol=1e-4)


def test_the_memory_is_that_of_the_machine_or_less():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < feed.memory_bytes() <= total


def test_weight_decay_leaves_biases_and_normalisation_alone(tmp_path):
    """Without a gradient, 16 steps multiply the matrices by (1 - learning rate * decay) each."""
    student = MLPStudent(hidden=[8], batch_norm=True)
    config = dataclasses.replace(CONFIG, weight_decay=0.5)

    def build():
        scorer = build_scorer(student, 5, seed=0)
        for variable in scorer.trainable_variables:
            variable.assign(tf.ones_like(variable))
        return scorer

    def flat(teacher, labels, student, mask, *, seed, list_ids):
        return 0.0 * tf.reduce_sum(student, -1)

    scorer, history = train(tmp_path / "a", config=config, student=student, build=build, loss=flat)
    steps = 4 * history["best_epoch"]
    for variable in scorer.trainable_variables:
        expected = (1 - 0.01 * 0.5) ** steps if len(variable.shape) == 2 else 1.0
        assert_close(variable, np.full(variable.shape, expected))


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


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C interrupts, also where the tests run in the background of a shell, which then ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


STOPS = [(signal.SIGTERM, Interrupted), (signal.SIGINT, KeyboardInterrupt)]


@pytest.mark.parametrize(("number", "raised"), STOPS)
@pytest.mark.parametrize("after_steps", [1, 6, 8, 15])  # 4 steps an epoch
def test_a_signal_saves_the_step_and_the_same_call_goes_on(
    tmp_path, after_steps, number, raised, monkeypatch
):
    count = 0
    lists = PackedBatches.lists

    def signalling(self, step):
        nonlocal count
        count += 1
        if step == after_steps:
            os.kill(os.getpid(), number)
        return lists(self, step)

    monkeypatch.setattr(PackedBatches, "lists", signalling)
    before = signal.getsignal(number)
    with pytest.raises(raised):
        train(tmp_path / "stopped")
    monkeypatch.undo()
    assert signal.getsignal(number) is before
    saved = load_arrays(tmp_path / "stopped" / "checkpoint.npz")[1]
    assert 4 * len(saved["history"]) + saved["step"] == after_steps + 1 == count
    assert_same(train(tmp_path / "stopped"), train(tmp_path / "whole"))


@pytest.mark.parametrize(("number", "raised"), STOPS)
def test_a_signal_before_the_first_step_waits_until_the_step_is_built(tmp_path, number, raised, monkeypatch):
    def signalling(*arguments, **options):
        os.kill(os.getpid(), number)
        built.append(TrainingStep(*arguments, **options))
        return built[-1]

    built = []
    monkeypatch.setattr(loop, "TrainingStep", signalling)
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

    monkeypatch.setattr(loop, "TrainingStep", signalling)
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
    assert_close(rates, expected, rtol=1e-5)


@pytest.mark.parametrize("jit", ["off", "loss"])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, jit):
    """Here the scores are its cause, which 0 in their place has not."""

    def explode(teacher, labels, student, mask, *, seed, list_ids):
        per_list = listnet(teacher, labels, student, mask, seed=seed, list_ids=list_ids)
        is_large = (seed[1] >= 6) & tf.reduce_any(student != 0, -1)  # 4 steps an epoch: in the second
        return per_list * tf.where(is_large, np.nan, 1.0)

    config = dataclasses.replace(CONFIG, jit=jit)
    with pytest.raises(NotFiniteError) as raised:
        train(tmp_path / "a", loss=explode, config=config, option="teacher")
    assert raised.value.where.startswith("epoch 2, step 3, queries 1-")
    assert "teacher.learning_rate" in raised.value.fix
    assert "train." not in raised.value.fix
    arrays, extra = load_arrays(tmp_path / "a" / "checkpoint.npz")
    assert len(extra["history"]) == 1
    assert all(np.isfinite(array).all() for array in arrays)
    config = dataclasses.replace(config, precision="float16")
    with pytest.raises(NotFiniteError, match="bfloat16"):
        train(tmp_path / "b", loss=explode, config=config)


def test_data_that_make_the_loss_infinite_are_named(tmp_path):
    """Labels of the query that is called 1-3."""

    def explode(teacher, labels, student, mask, *, seed, list_ids):
        per_list = listnet(teacher, labels, student, mask, seed=seed, list_ids=list_ids)
        return per_list * tf.where(list_ids == 3, np.inf, 1.0)

    with pytest.raises(NotFiniteError) as raised:
        train(tmp_path / "a", loss=explode)
    labels = TRAIN.labels[TRAIN.offsets[3] : TRAIN.offsets[4]]
    assert raised.value.where.endswith("query 1-3")
    span = f"labels {labels.min():g} to {labels.max():g}, teacher scores {2 * labels.min():g} to {2 * labels.max():g}"
    assert span in raised.value.what
    assert "teacher.scores.cap" in raised.value.fix
    assert "learning_rate" not in str(raised.value)


def test_weights_that_are_not_finite_under_a_finite_loss_stop_the_run(tmp_path):
    @tf.custom_gradient
    def steep(student):
        return student, lambda upstream: upstream / 0.0

    def explode(teacher, labels, student, mask, *, seed, list_ids):
        student = tf.cond(seed[1] == 3, lambda: steep(student), lambda: student)  # the last step of 4
        return listnet(teacher, labels, student, mask, seed=seed, list_ids=list_ids)

    with pytest.raises(NotFiniteError, match=r"^step 4 of epoch 1: a weight .*Fix: .*train\.learning_rate"):
        train(tmp_path / "a", loss=explode)
    assert not (tmp_path / "a" / "checkpoint.npz").exists()


def test_sigterm_after_a_loss_that_is_not_finite_saves_nothing(tmp_path, monkeypatch):
    lists = PackedBatches.lists

    def signalling(self, step):
        if step == 5:  # of 20
            os.kill(os.getpid(), signal.SIGTERM)
        return lists(self, step)

    def explode(teacher, labels, student, mask, *, seed, list_ids):
        per_list = listnet(teacher, labels, student, mask, seed=seed, list_ids=list_ids)
        return per_list * tf.where(seed[1] >= 2, np.nan, 1.0)

    monkeypatch.setattr(PackedBatches, "lists", signalling)
    with pytest.raises(NotFiniteError, match=r"^epoch 1, step 3, query 1-\d+:"):
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
    arrays, _ = load_arrays(tmp_path / "killed" / "checkpoint.npz")
    assert arrays[-2] < 2.0**15
    resumed = train(tmp_path / "killed", config=config, loss=large)
    assert_same(resumed, train(tmp_path / "whole", config=config, loss=large))


@pytest.mark.parametrize("jit", ["loss", "step"])
def test_jit_changes_nothing_but_speed(tmp_path, jit):
    """Noise is left out: XLA draws it in another order."""
    student = dataclasses.replace(STUDENTS["mlp"], dropout=0.0)
    off, _ = train(tmp_path / "off", student=student)
    on, _ = train(tmp_path / "on", student=student, config=dataclasses.replace(CONFIG, jit=jit))
    assert_close(centred_scores(on), centred_scores(off), rtol=1e-3, atol=1e-3)


def test_the_loss_is_traced_and_compiled_once(tmp_path):
    traced = []

    def counted(*arguments, **options):
        traced.append(1)
        return listnet(*arguments, **options)

    train(tmp_path / "here", config=dataclasses.replace(CONFIG, jit="loss"), loss=counted)
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


def test_mixed_precision_learns_what_float32_does(tmp_path):
    config = dataclasses.replace(CONFIG, weight_decay=0.1)
    full, full_history = train(tmp_path / "full", config=config)
    mixed, history = train(tmp_path / "mixed", config=dataclasses.replace(config, precision="bfloat16"))
    losses, expected = ([row["loss"] for row in h["epochs"]] for h in (history, full_history))
    assert_close(losses, expected, rtol=0.01)
    difference = np.abs(centred_scores(mixed) - centred_scores(full)).max()
    assert 1e-6 < difference < 0.05  # it was another precision


def test_a_strategy_without_its_devices_names_those_found(monkeypatch):
    cpus = tf.config.list_logical_devices("CPU")
    assert make_strategy("auto").num_replicas_in_sync == 1
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: cpus[:1])
    with pytest.raises(ConfigError, match=r"found /device:CPU:0\. Fix: train\.strategy=one_device"):
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
    with pytest.raises(ConfigError, match=r"^TF_CONFIG: the task .*'b:1'.*Fix: "):
        make_strategy("multi_worker")


@pytest.mark.parametrize(
    ("workers", "named"),
    [
        (None, "JSON"),
        ("a:1", "JSON"),
        (["a:1", "b"], "'b'"),
        (["a:1", "b:"], "'b:'"),
        (["a:1", ":2222"], "':2222'"),
        (["a:1", "b:99999"], "'b:99999'"),
        (["a:1", "b:x"], "'b:x'"),
        (["a:1", "http://b:1"], "'http://b:1'"),
        (["a:1", 7], "7"),
    ],
)
def test_an_address_that_cannot_be_is_named(workers, named, monkeypatch):
    config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    for name in ("multi_worker", "auto"):
        with pytest.raises(ConfigError, match=r"^TF_CONFIG") as raised:
            make_strategy(name)
        assert named in raised.value.what
        assert raised.value.fix


@pytest.mark.parametrize("text", ["", "[]", "{", '{"cluster": []}'])
def test_tf_config_that_is_not_its_json_is_named(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=r"^TF_CONFIG="):
        make_strategy("auto")


def test_parameter_servers_are_refused(monkeypatch):
    cluster = {"worker": ["a:1"], "ps": ["b:1"]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ConfigError, match=r"parameter servers.*Fix: leave out 'ps'"):
        make_strategy("multi_worker")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_workers_that_do_not_start_are_named(monkeypatch):
    """The third one is there."""
    own, missing = free_port(), free_port()
    with socket.create_server(("127.0.0.1", 0)) as there:
        addresses = [f"127.0.0.1:{port}" for port in (own, missing, there.getsockname()[1])]
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        with pytest.raises(UserError, match="1 of the 2 other workers") as raised:
            make_strategy("multi_worker", worker_timeout_s=0.5)
        assert addresses[1] in raised.value.what
        assert addresses[2] not in raised.value.what
        assert "train.worker_timeout_s" in raised.value.fix
    config["task"]["index"] = 1
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with socket.create_server(("", missing)), pytest.raises(UserError, match=f"^{addresses[1]}: the port"):
        make_strategy("multi_worker", worker_timeout_s=0.5)


@pytest.mark.parametrize(("rank", "node"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_tasks_of_slurm_are_numbered_as_srun_does(rank, node, monkeypatch):
    """node9 comes before node10; the second node has two tasks."""
    names = {"STEP_NODELIST": "node[9-10],x", "STEP_TASKS_PER_NODE": "1,2,1", "JOB_ID": "20007"}
    names |= {"STEP_NUM_TASKS": "4", "PROCID": str(rank), "NODEID": str(node)}
    for name, value in names.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    found = []
    made = types.SimpleNamespace(extended=None)
    monkeypatch.setattr(distribute, "wait_for_workers", lambda resolver, timeout_s: None)
    monkeypatch.setattr(
        tf.distribute, "MultiWorkerMirroredStrategy", lambda resolver, options: found.append(resolver) or made
    )
    assert make_strategy("multi_worker") is made
    (resolver,) = found
    addresses = ["node9:10007", "node10:10007", "node10:10008", "x:10007"]
    assert resolver.cluster_spec().as_dict() == {"worker": addresses}
    assert (resolver.task_type, resolver.task_id) == ("worker", rank)
    monkeypatch.setenv("SLURM_NODEID", str((node + 1) % 3))
    with pytest.raises(ConfigError, match=r"Fix: srun --distribution=block"):
        make_strategy("multi_worker")

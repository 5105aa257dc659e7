"""The coupled RankDistil loss against enumeration, tensorflow-ranking, and the traps of the latter."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

import pipeline  # noqa: F401  (before tensorflow)

import tensorflow as tf  # isort: skip

from pipeline.losses import coupled_rankdistil
from pipeline.losses.tfr_compat import load_tfr
from tests.closeness import assert_close


def enumerated(teacher: np.ndarray, student: np.ndarray, topk: int | None) -> float:
    """The definition: the expectation over all ordered selections of k documents."""

    def lse(x: np.ndarray) -> float:
        return x.max() + np.log(np.exp(x - x.max()).sum())

    total = 0.0
    for picks in itertools.permutations(range(len(teacher)), min(topk or len(teacher), len(teacher))):
        left, log_probability, bracket = list(range(len(teacher))), 0.0, 0.0
        for pick in picks:
            log_probability += teacher[pick] - lse(teacher[left])
            bracket += lse(student[left]) - student[pick]
            left.remove(pick)
        total += np.exp(log_probability) * bracket
    return total


def gradient(teacher: Any, student: Any, mask: Any = None, **options: Any) -> np.ndarray:
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = tf.reduce_sum(coupled_rankdistil(teacher, student, mask, reduce=None, **options))
    return tape.gradient(value, student).numpy()


def scores(num_docs: int, teacher_sd: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=num_docs) * teacher_sd, rng.normal(size=num_docs)


# ----------------------------------------------------------------------------------------- expected values


@pytest.mark.parametrize("topk", [1, 2])
@pytest.mark.parametrize("num_docs", [1, 2, 3, 6])
@pytest.mark.parametrize("teacher_sd", [0.0, 2.0, 100.0])
def test_exact_is_the_enumeration(topk: int, num_docs: int, teacher_sd: float) -> None:
    teacher, student = scores(num_docs, teacher_sd)
    for student_scale in 1.0, 60.0:
        value = coupled_rankdistil(
            [teacher], student_scale * student[np.newaxis], topk=topk, estimator="exact"
        )
        assert_close(value, enumerated(teacher, student_scale * student, topk), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("peaks", "topk"), [([0, 30, 60, 90], 2), ([0, 0, 0, 200], 2), ([0, 30, 60, 90], None)]
)
def test_peaked_teachers(peaks: list[float], topk: int | None) -> None:
    student = np.array([3.0, -1.0, 2.0, 0.5])
    estimators = ["rao_blackwell", "plackett"] + ["exact"] * (topk == 2)
    for estimator in estimators if peaks[1] else ["exact", "rao_blackwell"]:
        for dtype, precision in (np.float32, 1e-5), (np.float64, 1e-9):
            value = coupled_rankdistil(
                np.array([peaks], dtype), student[np.newaxis].astype(dtype), topk=topk, estimator=estimator
            )
            assert_close(value, enumerated(np.array(peaks, float), student, topk), rtol=precision)


@pytest.mark.parametrize("estimator", ["rao_blackwell", "plackett", "tfr"])
@pytest.mark.parametrize("num_docs", [2, 4, 6])
def test_samples_agree_with_the_enumeration(estimator: str, num_docs: int) -> None:
    num_lists = 400
    for topk in (*range(1, num_docs + 1), num_docs + 3, None):
        for teacher_sd in (2.0,) if estimator == "tfr" else (2.0, 60.0):  # the second takes the wide path
            teacher, student = scores(num_docs, teacher_sd)
            padded = [[0, 0], [0, 2]]
            tf.random.set_seed(1)
            values = coupled_rankdistil(
                np.pad(np.repeat([teacher], num_lists, axis=0), padded),
                np.pad(np.repeat([student], num_lists, axis=0), padded),
                np.pad(np.ones((num_lists, num_docs), bool), padded),
                topk=topk,
                estimator=estimator,
                sample_size=4,
                reduce=None,
            ).numpy()
            error = values.std() / num_lists**0.5
            assert abs(values.mean() - enumerated(teacher, student, topk)) < 4 * error + 1e-5


@pytest.mark.parametrize("estimator", ["rao_blackwell", "plackett"])
def test_sampled_gradients_agree_with_the_enumeration(estimator: str) -> None:
    teacher, student = scores(5)
    for topk in 2, 3, None:
        expected = [
            (enumerated(teacher, student + step, topk) - enumerated(teacher, student - step, topk)) / 2e-5
            for step in 1e-5 * np.eye(5)
        ]
        sampled = gradient(
            np.repeat([teacher], 400, axis=0),
            np.repeat([student], 400, axis=0),
            topk=topk,
            estimator=estimator,
        )
        assert (abs(sampled.mean(axis=0) - expected) < 4 * sampled.std(axis=0) / 20 + 1e-6).all()


def test_narrow_and_wide_lists_give_the_same() -> None:
    rng = np.random.default_rng(2)
    teacher, student = rng.normal(size=(3, 40)) * 3, rng.normal(size=(3, 40)) * 3
    teacher[2] *= 50
    for estimator in "rao_blackwell", "plackett":
        for topk in 4, 39, None:
            options = {"topk": topk, "estimator": estimator}
            alone = coupled_rankdistil(teacher[:2], student[:2], reduce=None, **options)
            beside = coupled_rankdistil(teacher, student, reduce=None, **options)
            assert_close(beside[:2], alone, rtol=1e-9)
            assert_close(
                gradient(teacher, student, **options)[:2],
                gradient(teacher[:2], student[:2], **options),
                atol=1e-9,
            )


@pytest.mark.parametrize("student_scale", [1.0, 60.0, 500.0])
def test_float32_is_precise(student_scale: float) -> None:
    rng = np.random.default_rng(3)
    teacher, student = rng.normal(size=(4, 100)) * 5, rng.normal(size=(4, 100)) * student_scale
    teacher, student = teacher.astype(np.float32), student.astype(np.float32)
    for topk in 10, None:
        expected = gradient(teacher.astype(float), student.astype(float), topk=topk)
        assert_close(gradient(teacher, student, topk=topk), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("estimator", ["exact", "rao_blackwell"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_minimum_is_at_the_teacher(estimator: str, temperature: float) -> None:
    teacher = np.random.default_rng(4).normal(size=(5, 12)) * 2
    student = temperature * teacher + 3
    for topk in (1, 2) if estimator == "exact" else (2, 5, None):
        options = {"topk": topk, "estimator": estimator, "temperature": temperature}
        assert abs(gradient(teacher, student, **options)).max() < 1e-9
        at_minimum = coupled_rankdistil(teacher, student, **options)
        for step in np.random.default_rng(5).normal(size=(5, *teacher.shape)) * 0.3:
            assert coupled_rankdistil(teacher, student + step, **options) > at_minimum


def test_rao_blackwell_has_the_smaller_variance() -> None:
    teacher, student = scores(100)
    repeated = np.repeat([teacher], 200, axis=0), np.repeat([student], 200, axis=0)
    plain = gradient(*repeated, topk=10, sample_size=8, estimator="plackett").var(axis=0).sum()
    one_sample = gradient(*repeated, topk=10, sample_size=1).var(axis=0).sum()
    eight_samples = gradient(*repeated, topk=10, sample_size=8).var(axis=0).sum()
    assert one_sample < plain
    assert eight_samples < plain / 5


# ------------------------------------------------------------------------------------------ against tfr


def test_example_of_tfrs_docstring() -> None:
    tf.random.set_seed(1)
    teacher = [[0.0, 2.0, 1.0], [1.0, 0.0, 2.0]]
    student = np.log([[1.0, 3.0, 2.0], [1.0, 2.0, 3.0]]).astype(np.float32)
    value = coupled_rankdistil(teacher, student, topk=2, sample_size=1, estimator="tfr")
    assert_close(value, 2.138333, rtol=1e-6)


@pytest.mark.parametrize("topk", [1, 3, None])
def test_parity_with_tfr(topk: int | None) -> None:
    teacher, student = scores(7)
    teacher = np.repeat([teacher - teacher.min() + 0.1], 500, axis=0).astype(np.float32)
    student = np.repeat([student], 500, axis=0).astype(np.float32)
    tf.random.set_seed(2)
    tfr_loss = load_tfr().keras.losses.CoupledRankDistilLoss(topk=topk, sample_size=4, reduction="none")
    theirs = tfr_loss(teacher, student).numpy().ravel()
    for estimator in "plackett", "tfr":
        ours = coupled_rankdistil(
            teacher, student, topk=topk, sample_size=4, estimator=estimator, reduce=None
        )
        error = np.hypot(theirs.std(), ours.numpy().std()) / 500**0.5
        assert abs(theirs.mean() - ours.numpy().mean()) < 4 * error
        assert_close(theirs.std(), ours.numpy().std(), rtol=0.2)


# ------------------------------------- the traps of tfr's loss as it stands, in the order of the design notes

TEACHER, STUDENT = (x[np.newaxis].astype(np.float32) for x in scores(6, seed=6))


def test_trap_1_negative_teacher_scores_are_scores() -> None:
    for topk in 2, 4:
        values = [coupled_rankdistil(TEACHER + shift, STUDENT, topk=topk) for shift in (0.0, 50.0, -50.0)]
        assert_close(values[1:], values[0], rtol=1e-4)
    assert (abs(gradient(TEACHER - 50, STUDENT, topk=4)) > 1e-4).all()


def test_trap_2_lists_with_a_negative_sum_count() -> None:
    for estimator in "rao_blackwell", "plackett", "tfr":
        assert coupled_rankdistil(-abs(TEACHER), STUDENT, topk=2, estimator=estimator) > 0.1
        assert coupled_rankdistil(0 * TEACHER, STUDENT, topk=2, estimator=estimator) > 0.1


def test_trap_3_topk_may_exceed_the_list_size() -> None:
    for estimator in "rao_blackwell", "plackett":
        assert_close(
            coupled_rankdistil(TEACHER, STUDENT, topk=200, estimator=estimator),
            coupled_rankdistil(TEACHER, STUDENT, topk=6, estimator=estimator),
            rtol=1e-7,
            atol=1e-9,
        )
    assert np.isfinite(coupled_rankdistil(TEACHER, STUDENT, topk=200, estimator="tfr"))


def test_trap_4_padding_adds_nothing() -> None:
    wider = [[0, 0], [0, 194]]
    padded = np.pad(TEACHER, wider), np.pad(STUDENT, wider), np.pad(np.ones((1, 6), bool), wider)
    for estimator in "rao_blackwell", "plackett":
        value = coupled_rankdistil(TEACHER, STUDENT, estimator=estimator)
        assert_close(coupled_rankdistil(*padded, estimator=estimator), value, rtol=1e-5)
    few_samples = coupled_rankdistil(*padded, estimator="tfr")
    assert abs(few_samples - coupled_rankdistil(TEACHER, STUDENT, sample_size=500)) < 5  # 1,000 in tfr's own


def test_trap_5_a_shift_of_the_student_changes_nothing() -> None:
    padded = (
        np.pad(TEACHER, [[0, 0], [0, 3]]),
        np.pad(STUDENT, [[0, 0], [0, 3]]),
        np.arange(9)[np.newaxis] < 6,
    )
    for estimator in "rao_blackwell", "plackett", "tfr":
        values = []
        for shift in (0.0, 40.0, -40.0):
            tf.random.set_seed(3)
            values.append(coupled_rankdistil(padded[0], padded[1] + shift, padded[2], estimator=estimator))
        assert_close(values[1:], values[0], rtol=1e-4)


def test_trap_6_a_wide_teacher_keeps_its_order() -> None:
    teacher = -60.0 * np.arange(6)[np.newaxis]
    student = STUDENT.astype(float)
    expected = sum(np.log(np.exp(student[0, i:]).sum()) - student[0, i] for i in range(6))
    for estimator in "rao_blackwell", "plackett":
        assert_close(coupled_rankdistil(teacher, student, estimator=estimator), expected, rtol=1e-9)


def test_trap_7_other_types() -> None:
    for dtype in "float16", "bfloat16", "float64", "int32":
        value = coupled_rankdistil(tf.cast([[4, 1, 2]], dtype), tf.cast([[1, 2, 5]], dtype), topk=2)
        assert_close(value, coupled_rankdistil([[4.0, 1.0, 2.0]], [[1.0, 2.0, 5.0]], topk=2), rtol=1e-5)


def test_trap_8_lists_steps_and_seeds_have_noise_of_their_own() -> None:
    same = np.repeat(TEACHER, 4, axis=0), np.repeat(STUDENT, 4, axis=0)
    one_replica = coupled_rankdistil(*same, topk=3, sample_size=2, list_ids=[0, 1, 2, 3], reduce=None).numpy()
    other_replica = coupled_rankdistil(
        *same, topk=3, sample_size=2, list_ids=[4, 5, 6, 7], reduce=None
    ).numpy()
    assert len({*one_replica, *other_replica}) == 8
    values = [
        float(coupled_rankdistil(TEACHER, STUDENT, topk=3, seed=seed)) for seed in ((0, 0), (0, 1), (1, 0))
    ]
    assert len(set(values)) == 3
    assert values[0] == coupled_rankdistil(TEACHER, STUDENT, topk=3, seed=(0, 0))


def test_trap_9_temperatures_of_teacher_and_student_are_two_things() -> None:
    value = coupled_rankdistil(TEACHER, STUDENT, topk=2, estimator="exact", temperature=2.0)
    assert_close(value, coupled_rankdistil(TEACHER, STUDENT / 2, topk=2, estimator="exact"), rtol=1e-6)
    softened = gradient(TEACHER / 2, TEACHER + 1, topk=2, estimator="exact", temperature=2.0)
    assert_close(softened, 0, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"topk": 64}, {"topk": 9, "estimator": "plackett"}, {"topk": None}], ids=str
)
def test_trap_10_no_tensor_of_k_times_n(options: dict[str, Any]) -> None:
    num_lists, list_size, sample_size = 2, 768, 2

    @tf.function(jit_compile=True, autograph=False)
    def step(teacher: Any, student: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = coupled_rankdistil(teacher, student, sample_size=sample_size, **options)
        return tape.gradient(value, student)

    lists = tf.zeros([num_lists, list_size])
    hlo = step.experimental_get_compiler_ir(lists, lists)(stage="hlo")
    sizes = [
        np.prod([int(x) for x in dims.split(",")]) for dims in re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", hlo)
    ]
    topk = options["topk"] or list_size
    assert max(sizes) >= num_lists * sample_size * list_size  # the shapes were read
    assert max(sizes) <= 2 * num_lists * sample_size * 1024  # slots of picks come in pairs; rounded up to 2^m
    assert max(sizes) < num_lists * sample_size * topk * list_size / 2


# ------------------------------------------------------------------------------------------------ padding


def test_padding_beyond_the_sizes_where_the_method_changes() -> None:
    rng = np.random.default_rng(7)
    teacher, student = (
        rng.normal(size=(2, 30)).astype(np.float32) * 2,
        rng.normal(size=(2, 30)).astype(np.float32),
    )
    for topk in 5, 29, None:
        value, plain = coupled_rankdistil(teacher, student, topk=topk), gradient(teacher, student, topk=topk)
        for size in 31, 40, 120, 700:
            wider = [[0, 0], [0, size - 30]]
            padded = np.pad(teacher, wider), np.pad(student, wider), np.pad(np.ones((2, 30), bool), wider)
            assert_close(coupled_rankdistil(*padded, topk=topk), value, rtol=1e-5)
            assert_close(gradient(*padded, topk=topk)[:, :30], plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "gumbel"}, "rao_blackwell, plackett, exact, tfr"),
        ({"topk": 0}, "topk=0"),
        ({"topk": 2.5}, "topk=2.5"),
        ({"topk": 3, "estimator": "exact"}, "closed form"),
        ({"estimator": "exact"}, "closed form"),
        ({"sample_size": 0}, "sample_size=0"),
        ({"sample_size": None}, "sample_size=None"),
        ({"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_options_that_are_not_possible(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coupled_rankdistil(TEACHER, STUDENT, **options)


def test_the_tfr_estimator_gives_in_a_graph_what_it_gives_outside() -> None:
    teacher = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    student = teacher[::-1].copy()
    options = {"topk": 4, "estimator": "tfr", "sample_size": 1000, "reduce": None}
    in_graph = tf.function(lambda t, s: coupled_rankdistil(t, s, **options))(teacher, student)
    assert_close(in_graph, coupled_rankdistil(teacher, student, **options), rtol=0.1)

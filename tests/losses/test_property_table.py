"""The property table: what every loss must have. A new loss is one more row of ROWS."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import pipeline  # noqa: F401  (before tensorflow)

import tensorflow as tf  # isort: skip

from pipeline.losses import make_loss, registry
from tests.closeness import assert_close

NUM_LISTS, LIST_SIZE = 6, 9


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    options: dict[str, Any]
    shift_invariant: bool = True  # adding a constant to a list's student scores changes nothing
    noise_by_slot: bool = False  # samples; a permutation of the documents is then another draw
    blank_teaches: bool = False  # a list without relevant documents has a gradient
    far: bool = True  # finite for scores of 1e4
    atol: float = 1e-6  # of values, and of gradients beside padding

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{value}" for value in self.options.values())])

    def loss(self) -> Any:
        return make_loss(self.name, **self.options)

    def target(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return (
            rng.normal(size=shape) * 2
            if self.name in registry.DISTILLATION
            else rng.integers(0, 5, size=shape) * 1.0
        )


COUPLED = "coupled_rankdistil"
ROWS = [
    Row(COUPLED, {"topk": 1, "estimator": "exact"}),
    Row(COUPLED, {"topk": 2, "estimator": "exact"}),
    Row(COUPLED, {"topk": 3, "estimator": "rao_blackwell"}, noise_by_slot=True),
    Row(COUPLED, {"topk": None, "estimator": "rao_blackwell", "sample_size": 1}, noise_by_slot=True),
    Row(COUPLED, {"topk": 3, "estimator": "plackett", "temperature": 2.0}, noise_by_slot=True),
    Row("binary_rankdistil", {"topk": 3, "num_negatives": 4}, shift_invariant=False, noise_by_slot=True),
    Row("binary_rankdistil", {"topk": 3, "negatives": "hard", "top_loss": "mse"}, shift_invariant=False),
    Row("pairwise_rankdistil", {"topk": 3, "num_negatives": 4}, noise_by_slot=True),
    Row("pairwise_rankdistil", {"topk": 3, "num_negatives": None, "discount": "none"}),
    Row("ranking_distillation", {"topk": 3, "discrepancy": 0.5}, shift_invariant=False),
    Row("relaxed_ranking_distillation", {"topk": 3, "num_negatives": 4}, noise_by_slot=True),
    Row("relaxed_ranking_distillation", {"topk": 3}),
    Row("pld", {}),
    Row("listnet", {"temperature": 2.0}),
    Row("listnet", {"divergence": "kl"}),
    Row("mse", {}, shift_invariant=False),
    Row("margin_mse", {"topk": None}),
    Row("margin_mse", {"topk": 3}),
    Row("list_mle", {}, noise_by_slot=True),
    Row("pairwise_logistic", {}),
    Row("lambda_loss", {"topk": 3, "lambdarank": 0.5}),
    Row("approx_ndcg", {}),
    Row("softmax", {"gain": "label"}),
    Row("softmax", {"gain": "exponential", "temperature": 0.5}),
    Row("tfr_approx_mrr", {}),
    Row("tfr_approx_ndcg", {}),
    Row("tfr_gumbel_approx_ndcg", {}, noise_by_slot=True),
    Row("tfr_list_mle", {}, noise_by_slot=True, blank_teaches=True, far=False, atol=2e-5),
    Row("tfr_mean_squared", {}, shift_invariant=False, blank_teaches=True),
    Row("tfr_pairwise_hinge", {}),
    Row("tfr_pairwise_logistic", {}),
    Row("tfr_pairwise_mse", {}, blank_teaches=True),
    Row("tfr_pairwise_soft_zero_one", {}),
    Row("tfr_sigmoid_cross_entropy", {}, shift_invariant=False, blank_teaches=True),
    Row("tfr_softmax", {}),
    Row("tfr_unique_softmax", {}),
    Row("tfr_yeti_logistic", {}, noise_by_slot=True),
]
every_row = pytest.mark.parametrize("row", ROWS, ids=str)


def value_and_gradient(
    loss: Any, target: Any, student: Any, mask: Any = None, **arguments: Any
) -> tuple[Any, Any]:
    """Per-list values and the gradient of their sum."""
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        values = loss(target, student, mask, reduce=None, **arguments)
    return values.numpy(), tape.gradient(values, student).numpy()


def lists(row: Row, seed: int = 0, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target, student and mask; lists of 1 to LIST_SIZE documents, at the front."""
    rng = np.random.default_rng(seed)
    sizes = np.array([1, 2, 4, 7, 8, LIST_SIZE])
    mask = np.arange(LIST_SIZE) < sizes[:, np.newaxis]
    student = rng.normal(size=mask.shape)
    return row.target(rng, mask.shape).astype(dtype), student.astype(dtype), mask


def test_every_loss_has_a_row() -> None:
    assert {row.name for row in ROWS} == {*registry.DISTILLATION, *registry.LABEL}


@every_row
def test_mask_equals_slice(row: Row) -> None:
    target, student, mask = lists(row)
    values, gradient = value_and_gradient(row.loss(), target, student, mask)
    assert (gradient[~mask] == 0).all()
    for i in 0, 2, 4:
        docs = slice(mask[i].sum())
        value, slice_gradient = value_and_gradient(
            row.loss(), target[i : i + 1, docs], student[i : i + 1, docs], list_ids=[i]
        )
        assert_close(value[0], values[i], rtol=1e-5, atol=row.atol)
        assert_close(slice_gradient[0], gradient[i, docs], rtol=1e-4, atol=row.atol)


@every_row
def test_mask_may_have_holes(row: Row) -> None:
    target, student, mask = lists(row)
    rng = np.random.default_rng(1)
    holes = rng.permuted(np.pad(mask, [[0, 0], [0, 6]]), axis=1)
    if row.noise_by_slot:  # a document that moves draws other noise: leave out, but do not move
        holes = mask & (rng.random(mask.shape) < 0.6)
        values = value_and_gradient(row.loss(), target, student, holes)[0]
        scrambled = np.where(holes, target, 1e9), np.where(holes, student, -1e9)
        np.testing.assert_array_equal(value_and_gradient(row.loss(), *scrambled, holes)[0], values)
        return
    spread_target, spread_student = (
        np.full(holes.shape, 1e9, np.float32),
        np.full(holes.shape, -1e9, np.float32),
    )
    spread_target[holes], spread_student[holes] = target[mask], student[mask]
    values, gradient = value_and_gradient(row.loss(), target, student, mask)
    spread_values, spread_gradient = value_and_gradient(row.loss(), spread_target, spread_student, holes)
    assert_close(spread_values, values, rtol=1e-5, atol=1e-6)
    assert_close(spread_gradient[holes], gradient[mask], rtol=1e-4, atol=1e-6)


@every_row
def test_permutation_of_documents_changes_nothing(row: Row) -> None:
    target, student, _ = lists(row)
    repeats = 400 if row.noise_by_slot else 1  # the same list under many ids: a mean and its standard error
    target, student = np.repeat(target[-1:], repeats, axis=0), np.repeat(student[-1:], repeats, axis=0)
    order = np.random.default_rng(2).permutation(LIST_SIZE)
    values, gradient = value_and_gradient(row.loss(), target, student)
    permuted_values, permuted_gradient = value_and_gradient(row.loss(), target[:, order], student[:, order])
    if row.noise_by_slot:
        error = np.hypot(values.std(), permuted_values.std()) / repeats**0.5
        assert abs(values.mean() - permuted_values.mean()) < 4 * error
        error = np.hypot(gradient.std(axis=0)[order], permuted_gradient.std(axis=0)) / repeats**0.5
        assert (abs(gradient.mean(axis=0)[order] - permuted_gradient.mean(axis=0)) < 4 * error + 1e-6).all()
    else:
        assert_close(permuted_values, values, rtol=1e-5)
        assert_close(permuted_gradient, gradient[:, order], rtol=1e-4, atol=1e-6)


@every_row
def test_more_padding_changes_nothing(row: Row) -> None:
    target, student, mask = lists(row)
    values, gradient = value_and_gradient(row.loss(), target, student, mask)
    wider = [[0, 0], [0, 23]]
    padded_values, padded_gradient = value_and_gradient(
        row.loss(),
        np.pad(target, wider, constant_values=np.nan),
        np.pad(student, wider, constant_values=np.nan),
        np.pad(mask, wider),
    )
    assert_close(padded_values, values, rtol=1e-5, atol=row.atol)
    assert_close(padded_gradient[:, :LIST_SIZE], gradient, rtol=1e-4, atol=row.atol)
    assert (padded_gradient[:, LIST_SIZE:] == 0).all()


@every_row
def test_student_shift(row: Row) -> None:
    target, student, mask = lists(row)
    shift = np.array([[0.5], [-3], [7], [-40], [100], [1000]], np.float32)
    values, gradient = value_and_gradient(row.loss(), target, student, mask)
    shifted_values, shifted_gradient = value_and_gradient(row.loss(), target, student + shift, mask)
    if row.shift_invariant:
        assert_close(shifted_values, values, rtol=1e-3, atol=1e-4)
        assert_close(shifted_gradient, gradient, rtol=1e-2, atol=1e-4)
        assert_close(gradient.sum(axis=1), 0, atol=1e-5)
    else:
        assert abs(shifted_values - values).max() > 1e-3


def extreme_cases(row: Row) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Target, student and mask, each [4, LIST_SIZE]."""
    rng = np.random.default_rng(3)
    shape = (4, LIST_SIZE)
    target, student, everything = row.target(rng, shape), rng.normal(size=shape), np.ones(shape, bool)
    first = np.arange(LIST_SIZE) == 0
    signs = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    cases = {
        "all masked": (target, student, ~everything),
        "one document in front": (target, student, everything & first),
        "one document in the middle": (target, student, everything & (np.arange(LIST_SIZE) == 3)),
        "two documents": (target, student, everything & (np.arange(LIST_SIZE) < 2)),
        "equal targets": (np.ones(shape), student, everything),
        "targets 0": (np.zeros(shape), student, everything),
        "equal students": (target, np.zeros(shape), everything),
        "all equal": (np.ones(shape), np.ones(shape), everything),
        "students +-1e4": (target, 1e4 * signs, everything),
        "one student at 1e4": (target, np.where(first, 1e4, student), everything),
        "one student at -1e4": (target, np.where(first, -1e4, student), everything),
    }
    if row.name in registry.DISTILLATION:
        cases |= {
            "negative targets": (target - 1e3, student, everything),
            "targets +-1e4": (1e4 * signs, student, everything),
            "targets +-1e4, students -+1e4": (1e4 * signs, -1e4 * signs, everything),
            "targets from -1e4 to 1e4": (np.linspace(-1e4, 1e4, 36).reshape(shape), student, everything),
        }
    return cases


@every_row
def test_value_and_gradient_are_finite(row: Row) -> None:
    topks = (3, 50) if row.options.get("topk") == 3 else (row.options.get("topk"),)
    for topk in topks:
        loss = make_loss(row.name, **row.options | ({"topk": topk} if topk else {}))
        far = {name: case for name, case in extreme_cases(row).items() if "1e4" in name}
        near = {name: case for name, case in extreme_cases(row).items() if name not in far}
        # Apart, because one far list may change how the whole batch is computed.
        for cases in (near, far) if row.far else (near,):
            target, student, mask = (np.concatenate(parts) for parts in zip(*cases.values(), strict=True))
            values, gradient = value_and_gradient(
                loss, target.astype(np.float32), student.astype(np.float32), mask
            )
            for i, name in enumerate(cases):
                lists_of_case = slice(4 * i, 4 * i + 4)
                assert np.isfinite(values[lists_of_case]).all(), name
                assert np.isfinite(gradient[lists_of_case]).all(), name
            assert (values[~mask.any(axis=1)] == 0).all()
            assert (gradient[~mask] == 0).all()
        one_document = (x[:, :1] for x in near["two documents"])
        values, gradient = value_and_gradient(loss, *one_document)
        assert np.isfinite(values).all()
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in registry.LABEL], ids=str)
def test_blank_lists_teach_nothing_or_are_said_to(row: Row) -> None:
    target, student, mask = lists(row)
    target[2:4] = 0
    values, gradient = value_and_gradient(row.loss(), target, student, mask)
    if not row.blank_teaches:
        assert (values[2:4] == 0).all()
        assert (gradient[2:4] == 0).all()
    teaching = slice(2 if row.blank_teaches else 4, None)
    assert (abs(gradient[teaching]).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in registry.DISTILLATION], ids=str)
def test_negative_targets_keep_their_information(row: Row) -> None:
    target, student, mask = lists(row)
    target, student, mask = target[2:], student[2:], mask[2:]
    _, gradient = value_and_gradient(row.loss(), target - 50, student, mask)
    reversed_target = np.where(mask, -target, 0)
    _, reversed_gradient = value_and_gradient(row.loss(), reversed_target - 50, student, mask)
    assert (abs(gradient - reversed_gradient).max(axis=1) > 1e-3).all()


@every_row
def test_dtypes(row: Row) -> None:
    target, student, mask = lists(row)
    target, student = np.round(2 * target) / 2, np.round(3 * student)  # exact in every type
    values, gradient = value_and_gradient(row.loss(), target, student, mask)
    for dtype, precision in ("float16", 1e-3), ("bfloat16", 1e-2), ("float64", 1e-5):
        cast_target, cast_student = tf.cast(target, dtype), tf.cast(student, dtype)
        cast_values, cast_gradient = value_and_gradient(row.loss(), cast_target, cast_student, mask)
        assert cast_values.dtype == ("float64" if dtype == "float64" else "float32")
        assert cast_gradient.dtype == tf.as_dtype(dtype).as_numpy_dtype
        assert_close(cast_values, values, rtol=1e-5, atol=1e-6)
        assert_close(cast_gradient.astype(float), gradient, rtol=precision, atol=precision)
    integers = row.loss()(tf.cast(2 * target, "int32"), tf.cast(student, "int32"), mask)
    assert_close(integers, row.loss()(2 * target, student, mask), rtol=1e-6)


@every_row
def test_eager_equals_graph_equals_xla(row: Row) -> None:
    target, student, mask = lists(row)
    eager_values, eager_gradient = value_and_gradient(row.loss(), target, student, mask, seed=(3, 4))

    def step(target: Any, student: Any, mask: Any, seed: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(student)
            values = row.loss()(target, student, mask, seed=seed, reduce=None)
        return values, tape.gradient(values, student)

    unknown = tf.TensorSpec([None, None])
    signature = [unknown, unknown, tf.TensorSpec([None, None], tf.bool), tf.TensorSpec([2], tf.int64)]
    arguments = tf.constant(target), tf.constant(student), tf.constant(mask), tf.constant([3, 4], tf.int64)
    for compiled in tf.function(step, input_signature=signature), tf.function(step, jit_compile=True):
        values, gradient = compiled(*arguments)
        assert_close(values, eager_values, rtol=1e-5, atol=row.atol)
        assert_close(gradient, eager_gradient, rtol=1e-4, atol=1e-6)


@every_row
def test_ragged_equals_padded(row: Row) -> None:
    target, student, mask = lists(row)
    values, gradient = value_and_gradient(row.loss(), target, student, mask)
    ragged_target = tf.RaggedTensor.from_row_lengths(target[mask], mask.sum(axis=1))
    flat_student = tf.constant(student[mask])
    with tf.GradientTape() as tape:
        tape.watch(flat_student)
        ragged_student = tf.RaggedTensor.from_row_lengths(flat_student, mask.sum(axis=1))
        ragged_values = row.loss()(ragged_target, ragged_student, reduce=None)
    assert_close(ragged_values, values, rtol=1e-5, atol=1e-6)
    flat_gradient = tf.convert_to_tensor(tape.gradient(ragged_values, flat_student))
    assert_close(flat_gradient, gradient[mask], rtol=1e-4, atol=1e-6)
    empty = tf.RaggedTensor.from_row_lengths(tf.zeros([0]), [0, 0])
    np.testing.assert_array_equal(row.loss()(empty, empty, reduce=None), [0, 0])


@every_row
def test_mean_is_over_the_lists_that_have_documents(row: Row) -> None:
    target, student, mask = lists(row)
    mask[1] = False
    per_list = row.loss()(target, student, mask, reduce=None).numpy()
    assert per_list.shape == (NUM_LISTS,)
    assert per_list[1] == 0
    assert_close(row.loss()(target, student, mask), per_list.sum() / (NUM_LISTS - 1), rtol=1e-6)
    assert row.loss()(target, student, np.zeros_like(mask)).numpy() == 0
    with pytest.raises(ValueError, match="reduce='sum'"):
        row.loss()(target, student, mask, reduce="sum")


@every_row
def test_number_of_replicas_changes_nothing(row: Row) -> None:
    target, student, mask = lists(row)
    ids = np.arange(NUM_LISTS)
    whole = value_and_gradient(row.loss(), target, student, mask, list_ids=ids, seed=(1, 2))
    parts = [
        value_and_gradient(
            row.loss(), target[part], student[part], mask[part], list_ids=ids[part], seed=(1, 2)
        )
        for part in np.array_split(np.random.default_rng(4).permutation(ids), 3)
    ]
    order = np.argsort(np.concatenate(np.array_split(np.random.default_rng(4).permutation(ids), 3)))
    for whole_array, part_arrays in zip(whole, zip(*parts, strict=True), strict=True):
        assert_close(np.concatenate(part_arrays)[order], whole_array, rtol=1e-5, atol=1e-6)


@every_row
def test_no_gradient_reaches_the_target(row: Row) -> None:
    target, student, mask = (tf.constant(x) for x in lists(row))
    with tf.GradientTape() as tape:
        tape.watch(target)
        value = row.loss()(target, student, mask)
    assert tape.gradient(value, target) is None


# tfr's are float32 inside, too coarse for differences; test_tfr_labels.py holds their gradients against tfr's own.
@pytest.mark.parametrize("row", [row for row in ROWS if not row.name.startswith("tfr_")], ids=str)
def test_gradient_agrees_with_finite_differences(row: Row) -> None:
    target, student, mask = lists(row, seed=5, dtype=np.float64)
    _, gradient = value_and_gradient(row.loss(), target, student, mask)
    rng = np.random.default_rng(6)
    for _ in range(2):
        direction, step = rng.normal(size=student.shape), 1e-6
        above, below = (
            row.loss()(target, student + d, mask, reduce=None) for d in (step * direction, -step * direction)
        )
        assert_close((above - below) / (2 * step), (gradient * direction).sum(axis=1), rtol=1e-6, atol=1e-7)


@every_row
@pytest.mark.parametrize(
    ("target", "student", "mask", "message"),
    [
        (np.zeros([2, 3]), np.zeros([2, 4]), None, "must both be"),
        (np.zeros([2, 3]), np.zeros([2, 3]), np.ones([2, 2], bool), "must both be"),
        (np.zeros(3), np.zeros(3), None, "must both be"),
        (np.zeros([1, 3]), tf.ragged.constant([[0.0, 1.0]]), None, "both be ragged"),
    ],
    ids=["sizes", "mask", "rank", "ragged"],
)
def test_shapes_that_do_not_fit(row: Row, target: Any, student: Any, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        row.loss()(target, student, mask)

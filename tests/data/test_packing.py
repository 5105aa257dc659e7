import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from pipeline.data import RankingData
from pipeline.data.packing import PackedBatches, epoch_order, to_lists

SIZES = [3, 1, 7, 2, 5, 4, 9, 1, 6, 2, 8]


@pytest.fixture
def batches():
    offsets = np.cumsum([0, *SIZES]).astype(np.int64)
    rows = np.arange(offsets[-1], dtype=np.float32)
    ids = np.array([f"q{i}" for i in range(len(SIZES))])
    data = RankingData(np.stack([rows, -rows], 1), rows % 5, offsets, ids)
    return PackedBatches(data, teacher=10 * rows, lists_per_batch=4, seed=3)


def lists_of(batches, step, replica=0):
    """{list id: its rows}, read back from a packed batch through its slots."""
    batch = batches.batch(step, replica)
    size = batches.list_size
    found = {}
    for slot, features in zip(batch["slot"], batch["features"], strict=True):
        row, column = divmod(int(slot), size)
        if row < batches.slots:  # else it only pads
            assert column < batch["sizes"][row]
            assert batch["teacher"][row, column] == 10 * features[0]
            assert batch["labels"][row, column] == features[0] % 5
            found.setdefault(int(batch["list_ids"][row]), []).append(int(features[0]))
    return found


@pytest.mark.parametrize("num_chunks", [1, 2, 3])
@pytest.mark.parametrize("num_replicas", [1, 2, 3, 5])
def test_an_epoch_holds_every_document_of_every_list_once(batches, num_replicas, num_chunks):
    batches = dataclasses.replace(batches, num_replicas=num_replicas, num_chunks=num_chunks)
    for epoch in range(3):
        found = {}
        for step in range(batches.steps_per_epoch):
            for replica in range(num_replicas):
                part = lists_of(batches, epoch * batches.steps_per_epoch + step, replica)
                assert not set(part) & set(found)
                found |= part
        offsets = batches.data.offsets
        assert found == {q: list(range(offsets[q], offsets[q + 1])) for q in range(len(SIZES))}


@pytest.mark.parametrize("num_replicas", [2, 3, 5])
def test_replicas_share_out_the_same_global_batch(batches, num_replicas):
    parts = dataclasses.replace(batches, num_replicas=num_replicas)
    for step in range(2 * batches.steps_per_epoch):
        shared = {}
        for replica in range(num_replicas):
            shared |= lists_of(parts, step, replica)
            assert parts.batch(step, replica)["num_lists"] == batches.batch(step)["num_lists"]
        assert shared == lists_of(batches, step)


@pytest.mark.parametrize("num_replicas", [1, 2, 5])
def test_static_shapes_hold_the_same_lists(batches, num_replicas):
    dynamic = dataclasses.replace(batches, num_replicas=num_replicas, epochs=3)
    static = dataclasses.replace(dynamic, is_static=True)
    for step in range(3 * batches.steps_per_epoch):
        for replica in range(num_replicas):
            assert len(static.batch(step, replica)["slot"]) == static.num_rows
            assert lists_of(static, step, replica) == lists_of(dynamic, step, replica)


def test_the_documents_of_a_chunk_are_those_of_its_lists(batches):
    batches = dataclasses.replace(batches, num_chunks=3)
    for step in range(batches.steps_per_epoch):
        batch = batches.batch(step)
        sizes = batch["sizes"].reshape(3, -1)
        assert batch["bounds"][[0, -1]].tolist() == [0, len(batch["slot"])]
        for chunk, (start, end) in enumerate(zip(batch["bounds"][:-1], batch["bounds"][1:], strict=True)):
            rows = batch["slot"][start:end] // batches.list_size
            num_docs = sizes[chunk].sum()
            expected = np.repeat(np.arange(len(sizes[0])) + chunk * len(sizes[0]), sizes[chunk])
            np.testing.assert_array_equal(rows[:num_docs], expected)
            assert (rows[num_docs:] == batches.slots).all()
            assert not batch["features"][start + num_docs : end].any()


def test_chunks_have_like_numbers_of_documents():
    sizes = np.random.default_rng(0).lognormal(4.6, 0.6, 200).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    data = RankingData(
        np.zeros((offsets[-1], 1), np.float32),
        np.zeros(offsets[-1], np.float32),
        offsets,
        np.arange(200).astype(str),
    )
    batches = PackedBatches(
        data, np.zeros(offsets[-1], np.float32), lists_per_batch=100, seed=0, num_chunks=4
    )
    for step in range(batches.steps_per_epoch):
        docs = batches.batch(step)["sizes"].reshape(4, -1).sum(1)
        assert docs.max() < 1.05 * docs.min()


def test_order_is_a_function_of_seed_and_epoch():
    first = epoch_order(50, seed=1, epoch=0)
    assert sorted(first) == list(range(50))
    assert (first == epoch_order(50, seed=1, epoch=0)).all()
    assert (first != epoch_order(50, seed=1, epoch=1)).any()
    assert (first != epoch_order(50, seed=2, epoch=0)).any()


def test_dataset_gives_the_batches_in_order_from_any_step(batches):
    batches = dataclasses.replace(batches, num_replicas=2, epochs=3)
    elements = iter(batches.dataset(first_step=4, replicas=range(2)))
    for step in range(4, 9):  # 3 steps an epoch
        for replica in range(2):
            expected, got = batches.batch(step, replica), next(elements)
            for name, value in expected.items():
                np.testing.assert_array_equal(got[name], value)
                assert batches.signature[name].is_compatible_with(got[name])


def test_no_thread_of_tensorflow_s_holds_up_an_iterator_s_end(batches):
    """That which tunes buffers sleeps on, up to a minute, where it misses the end (seen once in some ten trainings)."""
    assert batches.dataset(0, range(1)).options().autotune.enabled is False
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    iterator = iter(strategy.distribute_datasets_from_function(lambda _: batches.dataset(0, range(1))))
    next(iterator)
    of_devices = iterator._iterators[0]._iterator._device_iterators
    assert [each._dataset.options().autotune.enabled for each in of_devices] == [False]


def test_what_is_still_held_is_not_written_over(batches):
    batches = dataclasses.replace(batches, epochs=20)
    held = list(batches.dataset(0, range(1)).take(60).enumerate())
    for step, got in held:
        np.testing.assert_array_equal(got["features"], batches.batch(int(step))["features"])


def test_memory_is_used_again(batches):
    free = []
    first = batches.batch(0, free=free)["features"]
    assert not free
    address = first.ctypes.data
    del first
    assert batches.batch(0, free=free)["features"].ctypes.data == address


def test_to_lists_and_its_gradient(batches):
    batch = batches.batch(1)
    docs = tf.constant(batch["features"][:, 0])
    weights = np.random.default_rng(0).normal(size=[4, batches.list_size]).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(docs)
        padded, mask = to_lists(docs, batch["slot"], batch["sizes"], batches.list_size)
        loss = tf.reduce_sum(padded * weights)
    is_document = batch["slot"] < 4 * batches.list_size
    slot = batch["slot"][is_document]
    expected = np.zeros(4 * batches.list_size, np.float32)
    expected[slot] = docs[is_document]
    np.testing.assert_array_equal(padded, expected.reshape(4, -1))
    np.testing.assert_array_equal(np.sum(mask, 1), batch["sizes"])
    gradient = tape.gradient(loss, docs)
    np.testing.assert_array_equal(gradient[is_document], weights.reshape(-1)[slot])
    assert not gradient[~is_document].numpy().any()

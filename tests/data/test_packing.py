import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from pipeline.data import RankingData
from pipeline.data.packing import PackedBatches, epoch_order, find_documents, to_docs, to_lists

SIZES = [3, 1, 7, 2, 5, 4, 9, 1, 6, 2, 8]


@pytest.fixture
def batches():
    offsets = np.cumsum([0, *SIZES]).astype(np.int64)
    rows = np.arange(offsets[-1], dtype=np.float32)
    ids = np.array([f"q{i}" for i in range(len(SIZES))])
    data = RankingData(np.stack([rows, -rows], 1), rows % 5, offsets, ids)
    return PackedBatches(data, teacher=10 * rows, lists_per_batch=4, seed=3)


def lists_of(batches, step, replica=0, num_rows=None):
    """{list id: its rows}, looked up as the training step does."""
    size, data = batches.list_size, batches.data
    lists = batches.lists(step)[replica]
    found = find_documents(tf.constant(lists), tf.constant(data.offsets), size, num_rows)
    assert len(found.rows) % 32 == 0
    streamed = batches.features(lists)
    rows_of_list = {}
    for number, (row, slot) in enumerate(zip(found.rows.numpy(), found.slot.numpy(), strict=True)):
        list_slot, place = divmod(int(slot), size)
        if list_slot == batches.slots:  # padding
            assert number >= sum(found.sizes)
            continue
        assert place < found.sizes[list_slot]
        assert row == found.starts[list_slot] + place
        np.testing.assert_array_equal(streamed[number], data.features[row])
        rows_of_list.setdefault(int(lists[list_slot]), []).append(int(row))
    return rows_of_list


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 5])
def test_an_epoch_holds_every_document_of_every_list_once(batches, num_replicas):
    batches = dataclasses.replace(batches, num_replicas=num_replicas)
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
        assert shared == lists_of(batches, step)


@pytest.mark.parametrize("num_replicas", [1, 2, 5])
def test_static_shapes_hold_the_same_lists(batches, num_replicas):
    batches = dataclasses.replace(batches, num_replicas=num_replicas, epochs=3)
    for step in range(3 * batches.steps_per_epoch):
        for replica in range(num_replicas):
            assert lists_of(batches, step, replica, batches.num_rows) == lists_of(batches, step, replica)


def test_order_is_a_function_of_seed_and_epoch():
    first = epoch_order(50, seed=1, epoch=0)
    assert sorted(first) == list(range(50))
    assert (first == epoch_order(50, seed=1, epoch=0)).all()
    assert (first != epoch_order(50, seed=1, epoch=1)).any()
    assert (first != epoch_order(50, seed=2, epoch=0)).any()


def test_lists_and_packed_documents_are_each_other_s_inverse_with_their_gradients(batches):
    found = find_documents(
        tf.constant(batches.lists(1)[0]), tf.constant(batches.data.offsets), batches.list_size
    )
    docs = tf.cast(found.rows, tf.float32)[:, tf.newaxis]
    values = docs.numpy()
    weights = np.random.default_rng(0).normal(size=[4, batches.list_size, 1]).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(docs)
        padded = to_lists(docs, found.sizes, batches.list_size)
        loss = tf.reduce_sum(padded * weights)
    is_document = found.slot.numpy() < 4 * batches.list_size
    slot = found.slot.numpy()[is_document]
    expected = np.zeros(4 * batches.list_size, np.float32)
    expected[slot] = values[is_document, 0]
    np.testing.assert_array_equal(padded, expected.reshape(4, -1, 1))
    np.testing.assert_array_equal(to_docs(padded, found.slot).numpy()[is_document], values[is_document])
    assert not to_docs(padded, found.slot).numpy()[~is_document].any()
    gradient = tf.convert_to_tensor(tape.gradient(loss, docs)).numpy()
    np.testing.assert_array_equal(gradient[is_document, 0], weights.reshape(-1)[slot])
    assert not gradient[~is_document].any()
    with tf.GradientTape() as tape:
        lists = tf.Variable(padded)
        loss = tf.reduce_sum(to_docs(lists, found.slot) * docs)
    expected[slot] = values[is_document, 0]
    np.testing.assert_array_equal(
        tf.convert_to_tensor(tape.gradient(loss, lists)), expected.reshape(4, -1, 1)
    )

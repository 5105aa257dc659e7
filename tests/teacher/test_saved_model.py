import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pipeline.teacher.saved_model import SavedModel

FEATURES = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
OFFSETS = np.array([0, 3, 4, 7])
CENTRED = np.concatenate([FEATURES[a:b, 0] - FEATURES[a:b, 0].mean() for a, b in [(0, 3), (3, 4), (4, 7)]])


def save(path, function, *specs, name="serving_default"):
    module = tf.Module()
    module.call = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(path), signatures={name: module.call})
    return path


DOCS = tf.TensorSpec([None, 3], tf.float32, "x")
LISTS = tf.TensorSpec([None, None, 3], tf.float32, "x")
MASK = tf.TensorSpec([None, None], tf.bool, "mask")


def test_lists_are_scored_one_at_a_time_whatever_the_signature(tmp_path):
    docs = save(tmp_path / "docs", lambda x: {"y": x[:, :1] - tf.reduce_mean(x[:, 0])}, DOCS)
    lists = save(tmp_path / "lists", lambda x: {"y": x[..., 0] - tf.reduce_mean(x[..., 0], 1)}, LISTS)
    masked = save(
        tmp_path / "masked",
        lambda x, mask: {"scores": tf.where(mask, x[..., 0], 9.0) - tf.reduce_mean(x[..., 0], 1), "z": x},
        LISTS,
        MASK,
        name="rank_lists",
    )
    for path in (docs, lists, masked):
        np.testing.assert_allclose(SavedModel(path, None, 3)(FEATURES, OFFSETS), CENTRED, atol=1e-6)


def test_a_keras_file(tmp_path):
    layers = keras.layers
    inputs = keras.Input((3,))
    x = layers.Dense(4, activation="relu", kernel_regularizer="l2", kernel_constraint="max_norm")(inputs)
    x = layers.Dropout(0.1)(layers.BatchNormalization()(x))
    deep = keras.Model(
        inputs, layers.Dense(1)(layers.Concatenate()([x, keras.Sequential([layers.Dense(2)])(inputs)]))
    )
    deep.compile("adam", "mse")
    for model in (keras.Sequential([inputs, layers.Dense(1, use_bias=False)]), deep):
        model.save(tmp_path / "m.keras")
        teacher = SavedModel(tmp_path / "m.keras", None, 3)
        np.testing.assert_allclose(teacher(FEATURES, OFFSETS), model(FEATURES)[:, 0], rtol=1e-5, atol=1e-6)
        assert teacher.num_parameters == sum(weights.numpy().size for weights in model.trainable_weights)


def test_what_does_not_fit_is_named(tmp_path):
    path = save(tmp_path / "docs", lambda x: {"y": x[:, 0]}, DOCS)
    with pytest.raises(ValueError, match="has no signature rank; it has serving_default"):
        SavedModel(path, "rank", 3)
    with pytest.raises(ValueError, match="takes 3 features, the data has 5"):
        SavedModel(path, None, 5)
    words = save(
        tmp_path / "words", lambda x: {"y": tf.strings.length(x)}, tf.TensorSpec([None], tf.string, "x")
    )
    with pytest.raises(ValueError, match=r"takes x string \(None,\); it must take float features"):
        SavedModel(words, None, 3)
    pair = save(tmp_path / "pair", lambda x: {"y": x[:, 0], "z": x[:, 0]}, DOCS)
    with pytest.raises(ValueError, match="gives y, z"):
        SavedModel(pair, None, 3)(FEATURES, OFFSETS)
    one = save(tmp_path / "one", lambda x: {"y": tf.reduce_sum(x)}, DOCS)
    with pytest.raises(ValueError, match="for a list of 3 documents"):
        SavedModel(one, None, 3)(FEATURES, OFFSETS)

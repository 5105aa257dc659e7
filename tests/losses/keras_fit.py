"""A program for test_seed_class.py: fits models with `CoupledRankDistilLoss` in one of the two versions of Keras."""

import sys

import numpy as np
import tensorflow as tf

from pipeline.losses import CoupledRankDistilLoss, RankingLoss, coupled_rankdistil
from tests.closeness import assert_close

PACKAGE, CASE, FOLDER = sys.argv[1:]
if PACKAGE == "keras":
    import keras
else:
    import tf_keras as keras

rng = np.random.default_rng(0)
FEATURES = rng.normal(size=(32, 6, 3)).astype(np.float32)
TEACHER = np.abs(FEATURES @ np.array([1.0, -2.0, 0.5], np.float32))
WEIGHTS = rng.uniform(size=32).astype(np.float32)
EXACT = {"topk": 1, "estimator": "rao_blackwell"}  # no noise: both versions learn the same weights


def model():
    made = keras.Sequential([keras.layers.Input((6, 3)), keras.layers.Dense(1), keras.layers.Reshape([6])])
    made.layers[0].set_weights([np.zeros((3, 1), np.float32), np.zeros(1, np.float32)])
    return made


def fitted(loss, weights=None, made=None, **options):
    made = made or model()
    made.compile(keras.optimizers.SGD(1.0), loss, **options)
    made.fit(FEATURES, TEACHER, sample_weight=weights, batch_size=32, epochs=3, shuffle=False, verbose=0)
    return made.get_weights()[0]


def expected(weights=None):
    """The same by gradient descent written out."""
    w = tf.Variable(tf.zeros([3, 1]))
    for _ in range(3):
        with tf.GradientTape() as tape:
            per_list = coupled_rankdistil(TEACHER, (FEATURES @ w)[..., 0], topk=1, reduce=None)
            loss = tf.reduce_mean(per_list * (1.0 if weights is None else weights))
        w.assign_sub(tape.gradient(loss, w))
    return w.numpy()


if CASE == "plain":
    for weights in None, WEIGHTS, WEIGHTS[:, np.newaxis]:
        right = expected(weights if weights is None else weights.ravel())
        for options in {}, {"jit_compile": True}:
            learned = fitted(CoupledRankDistilLoss(**EXACT), weights, **options)
            assert_close(learned, right, rtol=1e-4, atol=1e-5)
        assert_close(fitted(RankingLoss("coupled_rankdistil", **EXACT), weights), right, rtol=1e-4, atol=1e-5)
    assert np.isfinite(fitted(CoupledRankDistilLoss())).all()  # the page's second example
    try:
        fitted(coupled_rankdistil, WEIGHTS)
    except Exception as error:  # Keras wraps it in types of its own
        message = str(error)
    else:
        message = ""
    if "bare loss function" not in message:
        raise AssertionError("the bare function was taken, and would have ignored sample_weight")
elif CASE == "ragged":
    # NaN marks padding, and batches differ in their list size.
    made = keras.Sequential(
        [keras.layers.Input((None, 3)), keras.layers.Dense(1), keras.layers.Lambda(lambda x: x[..., 0])]
    )
    for loss in CoupledRankDistilLoss(sample_size=2), CoupledRankDistilLoss(ragged=True, **EXACT):
        made.compile(keras.optimizers.SGD(0.1), loss)
        teacher = TEACHER.copy()
        teacher[::2, 4:] = np.nan
        batches = [(FEATURES[:8, :size], teacher[:8, :size]) for size in (6, 5)]
        data = tf.data.Dataset.from_generator(
            lambda batches=batches: iter(batches),
            output_signature=(tf.TensorSpec([None, None, 3]), tf.TensorSpec([None, None])),
        )
        made.fit(data, epochs=1, verbose=0)
        if PACKAGE == "tf_keras":
            lengths = np.where(np.arange(32) % 2, 6, 4)
            ragged = tf.RaggedTensor.from_tensor(tf.constant(TEACHER), lengths=lengths)
            made.fit(tf.data.Dataset.from_tensor_slices((FEATURES, ragged)).batch(8), epochs=1, verbose=0)
        assert np.isfinite(made.get_weights()[0]).all()
elif CASE == "save":
    made = model()
    fitted(CoupledRankDistilLoss(**EXACT), made=made)
    paths = [f"{FOLDER}/model.keras", f"{FOLDER}/model.h5"]
    if PACKAGE == "tf_keras":
        paths.append(f"{FOLDER}/saved_model")
    for path in paths:
        made.save(path)
        again = keras.models.load_model(path)
        assert_close(again.predict(FEATURES, verbose=0), made.predict(FEATURES, verbose=0))
        before = made.evaluate(FEATURES, TEACHER, verbose=0)
        assert_close(again.evaluate(FEATURES, TEACHER, verbose=0), before, rtol=1e-4)
    if PACKAGE == "keras":
        made.export(f"{FOLDER}/saved_model", verbose=False)
        loaded = tf.saved_model.load(f"{FOLDER}/saved_model")
        assert_close(loaded.serve(FEATURES), made.predict(FEATURES, verbose=0), atol=1e-5)
elif CASE == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for weights in None, WEIGHTS:
        with strategy.scope():
            made = model()
            learned = fitted(CoupledRankDistilLoss(**EXACT), weights, made=made)
        assert_close(learned, expected(weights), rtol=1e-4, atol=1e-5)
elif CASE == "mixed":
    right = expected(WEIGHTS)
    if PACKAGE == "tf_keras":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    else:
        keras.config.set_dtype_policy("mixed_bfloat16")
    assert_close(fitted(CoupledRankDistilLoss(**EXACT), WEIGHTS), right, rtol=0.1, atol=0.05)
else:
    raise SystemExit(f"no case {CASE}")

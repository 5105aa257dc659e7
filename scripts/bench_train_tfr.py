"""tensorflow-ranking for `bench.py train`: its Keras pipeline on ELWC records, or Keras fit; one line of JSON."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import bench_workload as workload

mode, threads, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
workload.limit_threads(threads)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np  # noqa: E402  (after the limit of threads)
import tensorflow as tf  # noqa: E402  (after the limit of threads)
import tensorflow_ranking as tfr  # noqa: E402  (after the limit of threads)
from tensorflow_serving.apis import input_pb2  # noqa: E402  (after the limit of threads)

tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)
NUM_LISTS = 384 if mode == "scalar" else 1920
MASK, LABEL = "example_list_mask", "utility"
work = workload.reference()
sizes = np.minimum(np.diff(work.offsets)[:NUM_LISTS], workload.CUT)
loss = tfr.keras.losses.CoupledRankDistilLoss(topk=workload.TOPK, sample_size=workload.SAMPLE_SIZE)


class Clock(tf.keras.callbacks.Callback):
    """Meters of the training part of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.meters: list[workload.Meter] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.meters.append(workload.Meter().__enter__())

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.meters[-1].__exit__()


def spec() -> dict[str, tf.io.FixedLenFeature]:
    if mode == "scalar":
        return {f"f{i}": tf.io.FixedLenFeature((1,), tf.float32, 0.0) for i in range(workload.NUM_FEATURES)}
    size = workload.NUM_FEATURES
    return {"f": tf.io.FixedLenFeature((size,), tf.float32, [0.0] * size)}


def write(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        with tf.io.TFRecordWriter(f"{folder}/part") as writer:
            for start, end in zip(work.offsets[:NUM_LISTS], work.offsets[1:], strict=False):
                elwc = input_pb2.ExampleListWithContext()
                positive = work.teacher[start:end] - work.teacher[start:end].min() + 1e-3
                for features, target in zip(work.features[start:end], positive, strict=True):
                    feature = elwc.examples.add().features.feature
                    feature[LABEL].float_list.value.append(target)
                    if mode == "scalar":
                        for i, value in enumerate(features):
                            feature[f"f{i}"].float_list.value.append(value)
                    else:
                        feature["f"].float_list.value.extend(features)
                writer.write(elwc.SerializeToString())
        os.replace(f"{folder}/part", path)


clock = Clock()
if mode == "keras":
    features, teacher, mask = work.padded(NUM_LISTS)
    lowest = np.where(mask, teacher, np.inf).min(1, keepdims=True)
    target = np.where(mask, teacher - lowest + 1e-3, -1.0).astype(np.float32)
    inputs = tf.keras.Input((workload.CUT, workload.NUM_FEATURES))
    x = inputs
    for units in workload.HIDDEN:
        x = tf.keras.layers.Dense(units, "relu")(x)
    model = tf.keras.Model(inputs, tf.squeeze(tf.keras.layers.Dense(1)(x), -1))
    model.compile(tf.keras.optimizers.Adam(workload.LEARNING_RATE), loss, steps_per_execution=5)
    batches = tf.data.Dataset.from_tensor_slices((features, target)).batch(workload.LISTS_PER_STEP)
    model.fit(batches.prefetch(2), epochs=epochs, verbose=0, callbacks=[clock])
else:
    records = Path(sys.argv[4]) / f"train.{mode}.tfrecord"
    if not records.is_file():
        write(records)

    class Pipeline(tfr.keras.pipeline.SimplePipeline):
        def build_loss(self) -> tf.keras.losses.Loss:
            return loss

        def build_callbacks(self) -> list[tf.keras.callbacks.Callback]:
            return [*super().build_callbacks(), clock]

    batch = workload.LISTS_PER_STEP
    data = tfr.keras.pipeline.DatasetHparams(str(records), str(records), batch, batch, list_size=workload.CUT)
    label = (LABEL, tf.io.FixedLenFeature((1,), tf.float32, -1.0))
    scorer = tfr.keras.model.DNNScorer(
        hidden_layer_dims=list(workload.HIDDEN),
        output_units=1,
        activation=tf.nn.relu,
        input_batch_norm=False,
        use_batch_norm=False,
        dropout=0.0,
    )
    builder = tfr.keras.model.ModelBuilder(
        input_creator=tfr.keras.model.FeatureSpecInputCreator({}, spec()),
        preprocessor=tfr.keras.model.PreprocessorWithSpec({}),
        scorer=scorer,
        mask_feature_name=MASK,
        name="model",
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = tfr.keras.pipeline.PipelineHparams(
            folder, epochs, NUM_LISTS // batch, 1, workload.LEARNING_RATE, loss="softmax_loss", optimizer="adam"
        )  # fmt: skip
        Pipeline(
            builder,
            tfr.keras.pipeline.SimpleDatasetBuilder({}, spec(), MASK, label, data),
            settings,
        ).train_and_validate(verbose=0)
workload.print_rates(int(sizes.sum()), clock.meters)

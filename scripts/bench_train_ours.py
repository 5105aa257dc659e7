"""This project's training for `bench.py train` and `bench.py growth`, in a process of its own: one line of JSON.

All that `pipeline.training.loop.fit` does counts, checkpoints and the validation of five lists included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_workload as workload
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--sample-size", type=int, default=workload.SAMPLE_SIZE)
    parser.add_argument("--topk", type=int, default=workload.TOPK, help="0: all")
    parser.add_argument("--list-size", type=int, help="of all lists, in place of the reference workload's")
    parser.add_argument("--lists", type=int, default=2000)
    parser.add_argument("--lists-per-step", type=int, default=workload.LISTS_PER_STEP)
    parser.add_argument("--jit", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--part", choices=("all", "null_loss"), default="all")
    parser.add_argument("--not-deterministic", action="store_true")
    options = parser.parse_args()
    workload.limit_threads(options.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

    import tensorflow as tf

    import pipeline  # noqa: F401  (before tensorflow: legacy Keras)
    from pipeline.config import LossConfig, MLPStudent, TrainConfig
    from pipeline.data import RankingData
    from pipeline.data.packing import PackedBatches
    from pipeline.models.scorer import build_scorer
    from pipeline.student import distillation_loss
    from pipeline.training.distribute import make_strategy
    from pipeline.training.loop import fit

    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    student = MLPStudent(hidden=list(workload.HIDDEN))
    config = TrainConfig(
        epochs=options.epochs,
        lists_per_batch=min(options.lists_per_step, options.lists),
        learning_rate=workload.LEARNING_RATE,
        schedule="constant",
        weight_decay=0.0,
        jit=options.jit,
        precision=options.precision,
    )
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    if not options.not_deterministic:
        tf.config.experimental.enable_op_determinism()
        tf.keras.utils.set_random_seed(0)
    if options.list_size:
        work = workload.make(np.full(options.lists, options.list_size))
    else:
        work = workload.reference(options.lists)
    ids = np.arange(len(work.offsets) - 1).astype(str)
    data = RankingData(work.features, work.labels, work.offsets, ids)

    def null_loss(teacher: Any, labels: Any, student: Any, mask: Any, *, seed: Any, list_ids: Any) -> Any:
        return tf.reduce_sum(student, 1)

    loss_options = {"topk": options.topk or None, "sample_size": options.sample_size}
    loss: Any = distillation_loss(
        LossConfig("coupled_rankdistil", "softmax", 0.0, "constant", None, options=loss_options)
    )
    batches = PackedBatches(data, work.teacher, config.lists_per_batch, seed=0, epochs=options.epochs)
    marks = [(time.perf_counter(), time.process_time())]

    def mark(row: Any = None) -> None:
        marks.append((time.perf_counter(), time.process_time()))

    with tempfile.TemporaryDirectory() as folder:
        fit(
            lambda: build_scorer(student, workload.NUM_FEATURES, seed=0),
            batches,
            data.take(np.arange(5)),
            null_loss if options.part == "null_loss" else loss,
            config,
            make_strategy("auto"),
            seed=0,
            folder=Path(folder),
            on_epoch=mark,
        )
    seconds = np.diff(marks, axis=0)
    wall, cpu = np.median(seconds[1:], axis=0)
    gpus = tf.config.list_physical_devices("GPU")
    row = {
        "docs_per_s": data.num_docs / wall,
        "docs_per_cpu_s": data.num_docs / cpu,
        "first_step_s": seconds[0, 0] - wall,
        "first_step_cpu_s": seconds[0, 1] - cpu,
        "device": tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "CPU",
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

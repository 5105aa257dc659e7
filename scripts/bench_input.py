"""The input pipeline alone against the training step that it feeds: documents a second, and CPU time of each.

Lists like MSLR's (136 features, 1 to 1,251 documents, mean 120), memory-mapped; the student and its training are
those of the options. Rounds alternate: batches that nobody trains on, then `fit` over the same data. Of both the first
epoch does not count: it maps the data, and compiles. The best of each is shown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pipeline  # noqa: F401, I001  (before tensorflow: legacy Keras)

import numpy as np
import tensorflow as tf

from pipeline.cli import compose
from pipeline.data import RankingData
from pipeline.data.packing import PackedBatches
from pipeline.models.scorer import build_scorer
from pipeline.student import distillation_loss
from pipeline.training.loop import fit
from pipeline.training.distribute import make_strategy

NUM_FEATURES = 136
GOAL = 5


def _make_data(folder: Path, num_lists: int) -> RankingData:
    rng = np.random.default_rng(0)
    sizes = np.clip(rng.lognormal(4.5, 0.75, num_lists), 1, 1251).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    features = rng.normal(size=(int(offsets[-1]), NUM_FEATURES)).astype(np.float32)
    labels = rng.integers(0, 5, len(features)).astype(np.float32)
    RankingData(features, labels, offsets, np.arange(num_lists).astype(str)).save(folder)
    return RankingData.load(folder)


def _input_alone(batches: PackedBatches) -> tuple[float, float]:
    """-> (documents a second, CPU seconds a million documents)."""
    iterator = iter(batches.dataset(0, range(1)))

    @tf.function  # as training takes batches
    def epoch() -> tf.Tensor:
        num_docs = tf.constant(0)
        for _ in tf.range(batches.steps_per_epoch):
            num_docs += tf.reduce_sum(next(iterator)["sizes"])
        return num_docs

    epoch()
    wall, cpu, num_docs = time.perf_counter(), time.process_time(), 0
    for _ in range(batches.epochs - 1):
        num_docs += int(epoch())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return num_docs / wall, 1e6 * cpu / num_docs


def _training(batches: PackedBatches, vali: RankingData, config: Any, strategy: Any) -> tuple[float, float]:
    rows: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            lambda: build_scorer(config.student, NUM_FEATURES, seed=0),
            batches,
            vali,
            distillation_loss(config.loss),
            config.train,
            strategy,
            seed=0,
            folder=Path(folder),
            on_epoch=lambda row: rows.append((row["docs_per_second"], time.process_time())),
        )
    return rows[-1][0], 1e6 * (rows[-1][1] - rows[-2][1]) / batches.data.num_docs


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="bench.py input", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lists", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="options of the student, the loss and the training")
    options = parser.parse_args(arguments)
    config = compose(["train.epochs=2", *options.overrides])
    strategy = make_strategy(config.train.strategy, tpu=config.train.tpu)
    with tempfile.TemporaryDirectory() as folder:
        data = _make_data(Path(folder), options.lists)
        vali = data.take(np.arange(2))
        teacher = np.random.default_rng(1).normal(size=data.num_docs).astype(np.float32)
        batches = PackedBatches(data, teacher, config.train.lists_per_batch, seed=0, epochs=4)
        alone, trained = [], []
        for _ in range(options.rounds):
            alone.append(_input_alone(batches))
            trained.append(_training(batches, vali, config, strategy))
    print("| | documents/s | CPU s per million documents |")
    print("| :-- | --: | --: |")
    (alone_rate, alone_cpu), (train_rate, train_cpu) = (
        (max(rate for rate, _ in rows), min(cpu for _, cpu in rows)) for rows in (alone, trained)
    )
    print(f"| input alone | {alone_rate:,.0f} | {alone_cpu:.2f} |")
    print(f"| training, its input among it | {train_rate:,.0f} | {train_cpu:.2f} |")
    print(
        f"input / training: {alone_rate / train_rate:.1f} x in wall (goal {GOAL}), CPU {train_cpu / alone_cpu:.1f} x"
    )


if __name__ == "__main__":
    main(sys.argv[1:])

"""Variance of the gradient of the coupled RankDistil loss, by estimator and by how near the student is to its teacher.

Teacher scores are normal with standard deviation 2 nats; a student is share * teacher + (1 - share) * others like them.
The figure is the variance over repeated draws, summed over all scores of a list, mean over the lists.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pipeline  # noqa: F401, I001  (before tensorflow: legacy Keras)

import numpy as np
import tensorflow as tf

from pipeline.losses import coupled_rankdistil

TEACHER_SD = 2.0  # nats
ESTIMATORS = (
    ("rao_blackwell", 1),
    ("rao_blackwell", 8),
    ("plackett", 1),
    ("plackett", 8),
    ("tfr", 8),
)
SHARES = (0.0, 0.5, 0.9)  # of the teacher in the student


def gradient_variance(
    estimator: str, sample_size: int, teacher: np.ndarray, student: np.ndarray, *, topk: int, draws: int
) -> float:
    """Scores float32 [lists, list_size]; draw i has the seed (0, i)."""

    def gradient(step: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            scores = tf.constant(student)
            tape.watch(scores)
            loss = coupled_rankdistil(
                teacher,
                scores,
                topk=topk,
                sample_size=sample_size,
                estimator=estimator,
                seed=tf.stack([0, step]),
                reduce=None,
            )
        return tape.gradient(loss, scores)

    if estimator != "tfr":  # whose op seed is that of the graph: the same noise each time
        gradient = tf.function(gradient)
    gradients = np.stack([gradient(tf.constant(step)).numpy() for step in range(draws)])
    return float(gradients.var(axis=0, ddof=1).sum(axis=1).mean())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lists", type=int, default=32)
    parser.add_argument("--list-size", type=int, default=100)
    parser.add_argument("--topk", type=int, default=30, help="of the main job: %(default)s")
    parser.add_argument("--draws", type=int, default=64)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    shape = (options.lists, options.list_size)
    teacher, other = (rng.normal(0, TEACHER_SD, shape).astype(np.float32) for _ in range(2))
    print("| estimator | S |", *(f"student {share:.0%} teacher |" for share in SHARES))
    print("| :-- | --: |", *("--: |" for _ in SHARES))
    for estimator, sample_size in ESTIMATORS:
        values = [
            gradient_variance(
                estimator,
                sample_size,
                teacher,
                share * teacher + (1 - share) * other,
                topk=options.topk,
                draws=options.draws,
            )
            for share in np.float32(SHARES)
        ]
        print(f"| {estimator} | {sample_size} |", *(f"{value:.4f} |" for value in values), flush=True)


if __name__ == "__main__":
    main()

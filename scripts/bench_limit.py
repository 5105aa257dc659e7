"""The bound of training speed: the matrix products of the reference scorer alone, at TensorFlow's own rate.

Forward, weight gradient and input gradient (not of the first layer) of 136-128-64-32-1 on 16,384 documents, each
product by itself, best of several rounds: documents per CPU second on one thread, per wall second on more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os

import bench_workload as workload

NUM_DOCS = 16384
ROUNDS, REPEATS = 8, 20


def products() -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of each product of a step."""
    dims = (workload.NUM_FEATURES, *workload.HIDDEN, 1)
    layers = list(itertools.pairwise(dims))
    forward = [(NUM_DOCS, inputs, outputs) for inputs, outputs in layers]
    weight_gradients = [(inputs, NUM_DOCS, outputs) for inputs, outputs in layers]
    input_gradients = [(NUM_DOCS, outputs, inputs) for inputs, outputs in layers[1:]]
    return forward + weight_gradients + input_gradients


FLOPS_PER_DOC = sum(2 * rows * inner * columns for rows, inner, columns in products()) / NUM_DOCS


def measure(threads: int, precision: str = "float32") -> dict[str, float]:
    """Documents per CPU second and per wall second, and the rate of the products."""
    import tensorflow as tf

    seconds = {"cpu": 0.0, "wall": 0.0}
    for rows, inner, columns in products():
        a = tf.cast(tf.random.uniform([rows, inner]), precision)
        b = tf.cast(tf.random.uniform([inner, columns]), precision)
        best = {"cpu": float("inf"), "wall": float("inf")}
        for _ in range(ROUNDS):
            with workload.Meter() as meter:
                for _ in range(REPEATS):
                    c = tf.matmul(a, b)
                c[0, 0].numpy()  # waits for a GPU
            best = {"cpu": min(best["cpu"], meter.cpu), "wall": min(best["wall"], meter.wall)}
        seconds = {kind: seconds[kind] + best[kind] / REPEATS for kind in seconds}
    return {
        "docs_per_cpu_s": NUM_DOCS / seconds["cpu"],
        "docs_per_s": NUM_DOCS / seconds["wall"],
        "gflops": FLOPS_PER_DOC * NUM_DOCS / seconds["wall"] / 1e9,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    options = parser.parse_args(arguments)
    workload.limit_threads(options.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(json.dumps(measure(options.threads, options.precision)), flush=True)


if __name__ == "__main__":
    main()

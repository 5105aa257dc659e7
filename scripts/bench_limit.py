"""The bound of training speed: the matrix products of the reference scorer alone, at TensorFlow's own rate.

Forward, weight gradient and input gradient (not of the first layer) of 136-128-64-32-1 on 16,384 documents (16 times as
many on a GPU, whose kernels would else be too short to time), each product by itself and as the layers compute it,
transposed operands included, best of several rounds: documents per CPU second on one thread, per wall second on more.
The device's peak is the rate of one large square product.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Callable
from typing import Any

import bench_workload as workload

NUM_DOCS = 16384
ROUNDS, REPEATS = 8, 20
LAYERS = list(itertools.pairwise((workload.NUM_FEATURES, *workload.HIDDEN, 1)))  # (inputs, units)
# A product of d documents has 2 d inputs units operations: forward, by the weights, and (not first) by the inputs.
FLOPS_PER_DOC = sum(2 * inputs * units * (2 if i == 0 else 3) for i, (inputs, units) in enumerate(LAYERS))


def measure(precision: str = "float32") -> dict[str, float]:
    """Documents per CPU second and per wall second, the rate of the products, and the device's peak."""
    import tensorflow as tf

    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    num_docs, square = (16 * NUM_DOCS, 8192) if on_gpu else (NUM_DOCS, 2048)

    def random(*shape: int) -> Any:
        return tf.cast(tf.random.uniform(shape), precision)

    def best(product: Callable[[], Any], repeats: int) -> tuple[float, float]:
        """CPU and wall seconds."""
        seconds = []
        for _ in range(ROUNDS):
            with workload.Meter() as meter:
                for _ in range(repeats):
                    c = product()
                c[0, 0].numpy()  # waits for a GPU
            seconds.append((meter.cpu / repeats, meter.wall / repeats))
        cpu, wall = zip(*seconds, strict=True)
        return min(cpu), min(wall)

    total_cpu = total_wall = 0.0
    for number, (inputs, units) in enumerate(LAYERS):
        x, weights, y = random(num_docs, inputs), random(inputs, units), random(num_docs, units)
        products = [
            lambda x=x, weights=weights: tf.matmul(x, weights),
            lambda x=x, y=y: tf.matmul(x, y, transpose_a=True),
            lambda y=y, weights=weights: tf.matmul(y, weights, transpose_b=True),
        ]
        for product in products[: 2 if number == 0 else 3]:
            cpu, wall = best(product, REPEATS)
            total_cpu, total_wall = total_cpu + cpu, total_wall + wall
    a = random(square, square)
    _, peak_wall = best(lambda: tf.matmul(a, a), 2)
    return {
        "docs_per_cpu_s": num_docs / total_cpu,
        "docs_per_s": num_docs / total_wall,
        "gflops": FLOPS_PER_DOC * num_docs / total_wall / 1e9,
        "peak_gflops": 2 * square**3 / peak_wall / 1e9,
        "flops_per_doc": FLOPS_PER_DOC,
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
    print(json.dumps(measure(options.precision)), flush=True)


if __name__ == "__main__":
    main()

"""The coupled RankDistil loss against tensorflow-ranking's, forward and backward, side by side in one process.

CPU time: of one call on one thread, the smallest of several rounds that alternate between the two. tfr's loss runs
under tf.function, as its users run it, and this project's under tf.function(jit_compile=True), as the training step
runs it. Extra memory: the most bytes that one call holds at a time, its arguments aside, by TensorFlow's record of
allocations (tfr) and by XLA's buffer assignment (this project). Gradient variance: summed over all scores, over
repeated draws.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pipeline  # noqa: F401, I001  (before tensorflow: legacy Keras)

import numpy as np
import tensorflow as tf

from pipeline.losses import coupled_rankdistil
from pipeline.losses.tfr_compat import load_tfr

TFR_SAMPLE_SIZE = 8
TEACHER_SD = 2.0  # nats


@dataclasses.dataclass(frozen=True)
class Case:
    num_lists: int
    list_size: int
    topk: int | None
    sample_size: int
    speed_goal: float  # times faster than tfr


CASES = (
    Case(128, 200, 10, 8, speed_goal=12),
    Case(32, 1251, 10, 8, speed_goal=40),
    Case(128, 200, 10, 1, speed_goal=50),
    Case(128, 200, None, 8, speed_goal=15),
)
MEMORY_GOAL = 0.1  # of tfr's extra memory

Step = Callable[[], tuple[Any, Any]]


def step_of(case: Case, who: str) -> Step:
    """A call of one loss: its value and its gradient by the student's scores."""
    rng = np.random.default_rng(0)
    shape = (case.num_lists, case.list_size)
    teacher = tf.constant(rng.normal(size=shape) * TEACHER_SD, tf.float32)
    teacher -= tf.reduce_min(teacher)  # tfr takes negative scores for padding
    student = tf.constant(rng.normal(size=shape), tf.float32)
    steps = itertools.cycle([tf.constant(i) for i in range(4096)])
    if who == "tfr":
        tfr_loss = load_tfr().keras.losses.CoupledRankDistilLoss(topk=case.topk, sample_size=TFR_SAMPLE_SIZE)

    def loss(student: Any, step: Any) -> Any:
        if who == "tfr":
            return tfr_loss(teacher, student)
        return coupled_rankdistil(
            teacher, student, topk=case.topk, sample_size=case.sample_size, seed=tf.stack([0, step])
        )

    @tf.function(jit_compile=who == "ours", autograph=False)
    def value_and_gradient(student: Any, step: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(student, step)
        return value, tape.gradient(value, student)

    def call() -> tuple[Any, Any]:
        return value_and_gradient(student, next(steps))

    return call


def cpu_seconds(calls: dict[str, Step], rounds: int, seconds_per_round: float) -> dict[str, float]:
    """Of one call of each, the smallest mean of the rounds, which take turns."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.process_time()
        call()
        repeats[name] = max(3, round(seconds_per_round / max(time.process_time() - start, 1e-5)))
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(repeats[name]):
                call()
            best[name] = min(best[name], (time.process_time() - start) / repeats[name])
    return best


def gradient_variance(call: Step, draws: int) -> float:
    """Sum over all scores of the variance of the gradient."""
    gradients = np.stack([call()[1].numpy().astype(np.float64) for _ in range(draws)])
    return float(gradients.var(axis=0, ddof=1).sum())


def extra_memory_bytes(case: Case, who: str) -> int:
    """Most bytes that one call holds at a time, its arguments aside; in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", who, json.dumps(dataclasses.asdict(case))]
    with tempfile.TemporaryDirectory() as dump:
        environment = os.environ | {"XLA_FLAGS": f"--xla_dump_to={dump}"}
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        if who == "tfr":
            return int(output)
        (report,) = Path(dump).glob("*value_and_gradient*buffer-assignment.txt")
        allocations = re.findall(r"^allocation \d+: size (\d+), (.*)$", report.read_text(), re.MULTILINE)
        return sum(int(size) for size, kind in allocations if not kind.startswith("parameter"))


def print_extra_memory(case: Case, who: str) -> None:
    """For tfr the peak of TensorFlow's own record of allocations; for ours only the call that XLA reports on."""
    if who == "ours":
        step_of(case, who)()
        return
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        outputs = step_of(case, who)()
        session.run(outputs)
        options, metadata = tf.compat.v1.RunOptions(), tf.compat.v1.RunMetadata()
        options.trace_level = options.FULL_TRACE
        session.run(outputs, options=options, run_metadata=metadata)
    records = [
        (record.alloc_micros, record.alloc_bytes)  # negative where it is freed
        for device in metadata.step_stats.dev_stats
        for node in device.node_stats
        for memory in node.memory
        for record in memory.allocation_records
    ]
    print(max(itertools.accumulate(size for _, size in sorted(records))))


def measure(case: Case, rounds: int, draws: int) -> dict[str, Any]:
    calls = {who: step_of(case, who) for who in ("tfr", "ours")}
    seconds = cpu_seconds(calls, rounds, seconds_per_round=0.2)
    memory = {who: extra_memory_bytes(case, who) for who in calls}
    variance = {who: gradient_variance(call, draws) for who, call in calls.items()}
    return {
        "case": dataclasses.asdict(case),
        "cpu_ms": {who: 1e3 * value for who, value in seconds.items()},
        "times_faster": seconds["tfr"] / seconds["ours"],
        "extra_memory_mb": {who: value / 1e6 for who, value in memory.items()},
        "memory_share": memory["ours"] / memory["tfr"],
        "gradient_variance": variance,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--rounds", type=int, default=7, help="of timing, 0.2 s for each loss")
    parser.add_argument("--draws", type=int, default=64, help="gradients whose variance is taken")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if options.memory_of:
        print_extra_memory(Case(**json.loads(options.memory_of[1])), options.memory_of[0])
        return
    print(__doc__)
    print("| lists x documents, k, S | tfr S=8 ms | ours ms | faster (goal) | tfr MB | ours MB | share (goal) "
          "| gradient variance, tfr S=8 | ours |")  # fmt: skip
    print("| --- " * 9 + "|")
    results = []
    for case in CASES:
        result = measure(case, options.rounds, options.draws)
        results.append(result)
        ms, mb, variance = result["cpu_ms"], result["extra_memory_mb"], result["gradient_variance"]
        print(
            f"| {case.num_lists} x {case.list_size}, {case.topk}, {case.sample_size} "
            f"| {ms['tfr']:.2f} | {ms['ours']:.2f} | {result['times_faster']:.1f} (>= {case.speed_goal:g}) "
            f"| {mb['tfr']:.1f} | {mb['ours']:.2f} | {result['memory_share']:.3f} (<= {MEMORY_GOAL}) "
            f"| {variance['tfr']:.4f} | {variance['ours']:.4f} |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

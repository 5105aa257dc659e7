"""Benchmarks: `bench.py SUBCOMMAND [OPTIONS]`; `bench.py SUBCOMMAND --help` says what is measured."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

# name -> (module beside this file with main(arguments), one line)
SUBCOMMANDS = {
    "input": ("bench_input", "the input pipeline alone against the training step that it feeds"),
    "memory": ("bench_memory", "a run on data three times as large as its memory: the same numbers?"),
    "ingest": (
        "bench_ingest",
        "LETOR text to arrays: our reader beside four others; time and memory by rows",
    ),
    "loss": (
        "bench_loss",
        "the coupled RankDistil loss against tensorflow-ranking's: CPU time, memory, variance",
    ),
    "variance": ("bench_variance", "the variance of the coupled loss's gradient by estimator"),
    "limit": (
        "bench_limit",
        "the matrix products of the reference scorer alone: the bound of training speed",
    ),
    "growth": ("bench_growth", "training speed by list length, topk and number of lists"),
    "train": ("bench_train", "training speed beside tensorflow-ranking, allRank and Rax"),
    "serve": (
        "bench_serve",
        "scoring raw features: SavedModel, TFLite, ONNX beside LightGBM and lleaves",
    ),
}


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in SUBCOMMANDS:
        print(__doc__, *(f"  {name:8} {line}" for name, (_, line) in SUBCOMMANDS.items()), sep="\n")
        sys.exit(0 if arguments in (["-h"], ["--help"]) else 2)
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    importlib.import_module(SUBCOMMANDS[arguments[0]][0]).main(arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])

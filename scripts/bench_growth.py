"""How training's cost per document grows with list length, topk and the number of lists: one thread, CPU time.

Steps of about 15,000 documents, whatever the length of the lists.
"""

from __future__ import annotations

import argparse
import sys

import bench_train

DOCS_PER_STEP = 15360
# list size, topk (0: all), lists
CASES = (
    (20, 10, 8000),
    (120, 10, 1000),
    (400, 10, 400),
    (1251, 10, 128),
    (120, 1, 1000),
    (120, 40, 1000),
    (120, 0, 1000),
    (120, 10, 250),
    (120, 10, 4000),
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench.py growth", description=__doc__)
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one process")
    options = parser.parse_args(arguments)
    print(__doc__)
    print("| documents a list | topk | lists | CPU ns a document |")
    print("| --: | --: | --: | --: |")
    for list_size, topk, lists in CASES:
        command = [
            sys.executable,
            bench_train.HERE / "bench_train_ours.py",
            f"--list-size={list_size}",
            f"--topk={topk}",
            f"--lists={lists}",
            f"--lists-per-step={round(DOCS_PER_STEP / list_size)}",
        ]
        row = bench_train.measured(command, options.timeout)
        cost = row if isinstance(row, str) else f"{1e9 / row['docs_per_cpu_s']:,.0f}"
        print(f"| {list_size:,} | {topk or 'all'} | {lists:,} | {cost} |", flush=True)


if __name__ == "__main__":
    main()

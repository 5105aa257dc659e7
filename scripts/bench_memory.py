"""A whole run on data three times as large as its memory: the same numbers as without a limit?

Makes sparse LETOR files whose arrays, dense, are --times as large as --limit-mb, and runs the pipeline on them
twice, each in a process and cache of its own: as it is, and in a memory cgroup (v1 or v2) with that limit, which
counts the page cache too. Compares all metrics, and the checksums of all arrays and models; prints the most memory
that each held. Needs Linux and the right to make a cgroup.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
NUM_FEATURES, WRITTEN, LIST_SIZE = 700, 12, 100
SHARES = {"train": 0.6, "vali": 0.2, "test": 0.2}


def write_files(folder: Path, num_rows: int) -> dict[str, Path]:
    """Labels follow a few of the features, so that there is something to learn."""
    rng = np.random.default_rng(0)
    paths = {}
    query = 0
    for split, share in SHARES.items():
        paths[split] = folder / f"{split}-{num_rows}.txt"
        num_lists = round(num_rows * share / LIST_SIZE)
        if paths[split].exists():
            continue
        with paths[split].open("w") as file:
            for _ in range(num_lists):
                query += 1
                columns = np.sort(rng.integers(1, 55, (LIST_SIZE, WRITTEN)).cumsum(1), axis=1)
                values = rng.integers(1, 1000, (LIST_SIZE, WRITTEN))
                gain = np.log(values[:, 0]) + np.log(values[:, 1]) + rng.normal(0, 1, LIST_SIZE)
                labels = np.digitize(gain, np.quantile(gain, [0.5, 0.8, 0.95]))
                for row in range(LIST_SIZE):
                    entries = " ".join(f"{c}:{v}" for c, v in zip(columns[row], values[row], strict=True))
                    file.write(f"{labels[row]} qid:{query} {entries}\n")
    return paths


class Cgroup:
    """A memory cgroup with a limit."""

    def __init__(self, limit_bytes: int) -> None:
        v2 = Path("/sys/fs/cgroup/cgroup.controllers")
        top = Path("/sys/fs/cgroup") if v2.exists() else Path("/sys/fs/cgroup/memory")
        self.folder = top / f"rankdistil-bench-{os.getpid()}"
        try:
            self.folder.mkdir()
            name = "memory.max" if v2.exists() else "memory.limit_in_bytes"
            (self.folder / name).write_text(str(limit_bytes))
        except OSError as error:
            raise SystemExit(f"cannot make a memory cgroup in {top}: {error}") from None
        self.peak = self.folder / ("memory.peak" if v2.exists() else "memory.max_usage_in_bytes")

    def enter(self) -> None:
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))


def _run(overrides: list[str], folder: Path, group: Cgroup | None) -> dict[str, object]:
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pipeline", *overrides]
    command += [f"run_dir={folder / 'run'}", f"cache_dir={folder / 'cache'}"]
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, preexec_fn=group.enter if group else None, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    result = json.loads((folder / "run" / "result.json").read_text())
    facts = {
        "seconds": round(time.perf_counter() - began, 1),
        "stages": result["run"]["seconds"],
        "most_resident_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
        "metrics": {name: model["metrics"] for name, model in result["models"].items()},
        "digests": {
            f"{manifest.parent.parent.name}/{name}": facts["sha256"]
            for manifest in sorted((folder / "cache").glob("*/*/manifest.json"))
            for name, facts in json.loads(manifest.read_text())["files"].items()
            if name != "history.json"  # holds times
        },
    }
    if group:
        facts["most_in_cgroup_mb"] = int(group.peak.read_text()) >> 20
    return facts


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="bench.py memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit-mb", type=int, default=800)
    parser.add_argument("--times", type=float, default=3.0, help="arrays of raw features / limit")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rankdistil-bench")
    parser.add_argument("overrides", nargs="*", help="more options of the runs")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    num_rows = round(options.times * options.limit_mb * 2**20 / (4 * NUM_FEATURES))
    paths = write_files(options.folder, num_rows)
    overrides = [
        "data=letor",
        *(f"data.{split}={path}" for split, path in paths.items()),
    ]
    overrides += [f"data.num_features={NUM_FEATURES}", "teacher.num_trees=5", "train.epochs=1"]
    overrides += ["train.baseline=false", *options.overrides]
    # The limited one first, so that it cannot find pages that the other one has read.
    group = Cgroup(options.limit_mb << 20)
    facts = {"limited": _run(overrides, options.folder / "limited", group)}
    group.folder.rmdir()
    facts["free"] = _run(overrides, options.folder / "free", None)
    numbers = {}
    for name, of_run in facts.items():
        numbers[name] = of_run.pop("metrics"), of_run.pop("digests")
        print(f"{name}: {json.dumps(of_run)}")
        for model, splits in numbers[name][0].items():
            print(f"  {model}: test NDCG@10 {splits['test']['ndcg@10']['skip']!r}")
    same = numbers["limited"] == numbers["free"]
    arrays = num_rows * 4 * NUM_FEATURES / 2**20
    print(
        f"{arrays:.0f} MB of raw features, limit {options.limit_mb} MB: all metrics, and "
        f"{len(numbers['free'][1])} files of arrays and models {'equal' if same else 'DIFFER'}"
    )
    for name in ("limited", "free"):
        shutil.rmtree(options.folder / name)
    if not same:
        raise SystemExit(1)

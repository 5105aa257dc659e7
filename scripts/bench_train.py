"""Training speed on the reference workload beside tensorflow-ranking, allRank and Rax.

2,000 lists, 136 features, MLP 136-128-64-32-1, coupled loss with topk=10 (bench_workload.py). Everybody runs in a
process of its own, one after another, in rounds; shown is the median of the rounds, in documents, padding aside: per
CPU second on one thread, and per wall second on two. The bound is what the matrix products alone allow
(bench_limit.py), measured in the same rounds. The peers see the first 200 documents of a list; we cut none.

On a machine with a GPU ours and the bound run there, shares and ratios are of wall seconds, and the share of the
device's peak (a large square product in the same run) is printed. Of the peers allRank's torch runs there, too; the
packages of the others are for CPUs. Not run by us.

The peers' environments are made from the package registry in --cache, once; allRank is in none: --allrank names a
checkout. A peer that cannot be had is null, with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_workload as workload

HERE = Path(__file__).resolve().parent
# environment -> what pip installs there
PACKAGES = {
    "tfr": (
        "tensorflow==2.15.1",
        "tensorflow-ranking==0.5.5",
        "tensorflow-metadata<1.16",
        "setuptools<81",
        "numpy<2",
    ),
    "rax": ("rax==0.4.0", "jax", "optax"),
    "allrank": (
        "torch==2.13.0",
        "scikit-learn",
        "numpy",
        "pandas",
        "attrs",
        "flatten_dict",
        "gcsfs",
        "tensorboardX",
        "setuptools<81",
    ),
}
# peer -> environment, mode, epochs a process
PEERS = {
    "tfr_pipeline": ("tfr", "vector", 3),
    "tfr_scalar": ("tfr", "scalar", 3),
    "keras_tfr": ("tfr", "keras", 3),
    "allrank_fit": ("allrank", "fit", 3),
    "allrank_loop": ("allrank", "loop", 3),
    "rax_softmax": ("rax", "softmax", 3),
    "rax_listmle": ("rax", "listmle", 3),
}
OURS = {
    "ours": [],
    "ours, S=1": ["--sample-size=1"],
}
PARTS = {
    "null loss": ["--part=null_loss"],
    "not deterministic": ["--not-deterministic"],
    "jit=off": ["--jit=off"],
    "jit=step": ["--jit=step"],
}


def environment(name: str, cache: Path) -> Path | str:
    """The Python of a peer's environment, made if it is not there; or why there is none."""
    folder = cache / name
    python, done = folder / "bin" / "python", folder / "complete"
    if done.is_file():
        return python
    if name == "tfr" and sys.version_info >= (3, 12):
        return (
            "TensorFlow 2.15, the newest that tensorflow-ranking 0.5.5 allows, is for Python 3.11 and older"
        )
    print(f"making {folder} ...", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", *PACKAGES[name]]
    result = subprocess.run(install, capture_output=True, text=True, check=False)
    if result.returncode:
        return f"pip: {_last_line(result.stderr)}"
    done.touch()
    return python


def measured(command: list[Any], timeout: float) -> dict[str, Any] | str:
    """The line of JSON that a process prints last, or why there is none."""
    threads = {key: value for key, value in os.environ.items() if key not in workload.THREAD_VARIABLES}
    try:
        result = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=threads | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
    except subprocess.TimeoutExpired:
        return f"not done after {timeout:.0f} s"
    if result.returncode:
        return _last_line(result.stderr)
    row: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return row


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1][:200]


def commands(threads: int, allrank: Path | None, cache: Path, names: list[str]) -> dict[str, list[Any] | str]:
    """name -> command, or why there is none."""
    found: dict[str, list[Any] | str] = {
        "bound": [sys.executable, HERE / "bench_limit.py", f"--threads={threads}"]
    }
    for name, extra in (OURS | (PARTS if threads == 1 else {})).items():
        found[name] = [sys.executable, HERE / "bench_train_ours.py", f"--threads={threads}", *extra]
    for name in names:
        kind, mode, epochs = PEERS[name]
        if kind == "allrank" and allrank is None:
            found[name] = "allRank is in no package registry; --allrank names a checkout"
            continue
        python = environment(kind, cache)
        script = HERE / f"bench_train_{kind}.py"
        found[name] = python if isinstance(python, str) else [python, script, mode, threads, epochs]
        extra = {"allrank": allrank, "tfr": cache}.get(kind)  # the checkout; where its records are written
        if extra and isinstance(found[name], list):
            found[name] = [*found[name], extra]
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="bench.py train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--allrank", type=Path, help="a checkout of allRank")
    parser.add_argument(
        "--cache", type=Path, default=workload.CACHE, help="for the peers' environments and records"
    )
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one process")
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    rates: dict[tuple[str, int], list[dict[str, Any]]] = {}
    reasons: dict[str, str] = {}
    for round_number in range(options.rounds):
        for threads in options.threads:
            for name, command in commands(threads, options.allrank, options.cache, options.peers).items():
                if round_number and (name in PARTS or name in reasons):
                    continue  # parts are measured once, what fails is not tried again
                row = command if isinstance(command, str) else measured(command, options.timeout)
                if isinstance(row, str):
                    reasons[name] = row
                else:
                    rates.setdefault((name, threads), []).append(row)
                print(f"round {round_number + 1}, {threads} threads, {name}: {row}", file=sys.stderr)

    def median(name: str, threads: int, key: str) -> float | None:
        rows = rates.get((name, threads))
        return statistics.median(row[key] for row in rows) if rows else None

    rows: list[dict[str, Any]] = []
    for name in ("bound", *OURS, *PARTS, *options.peers):
        row = {"name": name, "docs_per_cpu_s_one_thread": median(name, 1, "docs_per_cpu_s")}
        for threads in options.threads:
            row[f"docs_per_s_{threads}_threads"] = median(name, threads, "docs_per_s")
        if name in OURS:
            row["first_step_s"] = median(name, options.threads[0], "first_step_s")
            row["device"] = rates[name, options.threads[0]][0]["device"] if row["first_step_s"] else None
        if name in reasons:
            row["reason"] = reasons[name]
        rows.append(row)
    device = rows[1]["device"]
    on_gpu = device not in (None, "CPU")
    key = f"docs_per_s_{options.threads[-1]}_threads" if on_gpu else "docs_per_cpu_s_one_thread"
    by_name = {row["name"]: row[key] for row in rows}

    def ratio(a: str, b: str) -> float | None:
        return by_name[a] / by_name[b] if by_name.get(a) and by_name.get(b) else None

    print(__doc__)
    keys = ["docs_per_cpu_s_one_thread", *(f"docs_per_s_{threads}_threads" for threads in options.threads)]
    print("| | " + " | ".join(key.replace("_", " ") for key in keys) + " | ours / it | of the bound |")
    print("| :-- " + "| --: " * (len(keys) + 2) + "|")
    for row in rows:
        figures = [f"{row[key]:,.0f}" if row[key] else "-" for key in keys]
        times, share = ratio("ours", row["name"]), ratio(row["name"], "bound")
        tail = [f"{times:.2f}" if times else "-", f"{share:.2f}" if share else "-"]
        print(f"| {row['name']} | {' | '.join(figures + tail)} | {row.get('reason', '')}")
    peak, flops = (median("bound", options.threads[-1], key) for key in ("peak_gflops", "flops_per_doc"))
    share_of_peak = by_name["ours"] * flops / peak / 1e9 if on_gpu and peak and flops else None
    if share_of_peak:
        print(f"GPU: {device}, {by_name['ours']:,.0f} documents per second, {share_of_peak:.3f} of its peak")
    else:
        print("GPU: not run")
    if options.json:
        result = {
            "share_of_bound": ratio("ours", "bound"),
            "share_of_bound_one_sample": ratio("ours, S=1", "bound"),
            "ratio": {name: ratio("ours", name) for name in options.peers},
            "gpu": {"device": device, "share_of_peak": share_of_peak} if on_gpu else "not run",
            "rows": rows,
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

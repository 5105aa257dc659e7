"""LETOR text to a matrix: this project's reader beside scikit-learn, LightGBM, polars and pyarrow, on the same files.

Two files are made: dense, like MSLR (136 features, all written), and sparse, like Yahoo (700 features, 223 of them
in a row). Each reader runs in a process of its own, several times in turn: the least wall time and CPU time of the
reading (imports aside, compiled code loaded), and the most memory beyond what the process had before, against the
bytes of the arrays that come out. pyarrow and polars have no such format: for them the text is split the fastest way
found. They, like scikit-learn, check next to nothing. LightGBM bins what it reads and gets a file without qid, which
it does not know.

What this environment lacks is installed into --peers, a folder of its own, from the package registry.
--growth 0.1,0.4,1,4 shows our reader alone on dense files of so many million rows, in memory and to the disk.
"""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DENSE, SPARSE = "dense", "sparse"
NUM_FEATURES = {DENSE: 136, SPARSE: 700}
WRITTEN = 223  # features in a sparse row
LIST_SIZE = 120
GOAL_SPEED, GOAL_MEMORY = 30, 1.3
_POOL = 2000  # different rows; what a row costs does not depend on whether it came before


# ------------------------------------------------------------------------------------------------ the files


def _row_bodies(kind: str) -> list[bytes]:
    """The features of different rows as text: counts, zeros and numbers of up to seven digits, as MSLR has them."""
    rng = np.random.default_rng(0)
    num_features = NUM_FEATURES[kind]
    counts = rng.lognormal(1, 1.5, (_POOL, num_features)).astype(np.int64)
    reals = rng.lognormal(0, 2, (_POOL, num_features))
    is_count = np.arange(num_features) % 2 == 0
    bodies = []
    for row in range(_POOL):
        columns = range(num_features)
        if kind == SPARSE:
            columns = sorted(rng.choice(num_features, WRITTEN, replace=False).tolist())
        values = (
            str(counts[row, i]) if is_count[i] and kind == DENSE else f"{reals[row, i]:.6g}" for i in columns
        )
        bodies.append(" ".join(f"{i + 1}:{v}" for i, v in zip(columns, values, strict=True)).encode() + b"\n")
    return bodies


def write_file(path: Path, kind: str, num_rows: int, *, qid: bool = True) -> Path:
    """Writes the file unless it is there."""
    if path.exists():
        return path
    bodies = _row_bodies(kind)
    choices = np.random.default_rng(1).integers(_POOL, size=num_rows)
    part = path.with_suffix(".part")
    with part.open("wb", buffering=1 << 22) as file:
        for row, choice in enumerate(choices.tolist()):
            file.write(b"%d qid:%d " % (row % 5, row // LIST_SIZE + 1) if qid else b"%d " % (row % 5))
            file.write(bodies[choice])
    return part.rename(path)


# ---------------------------------------------------------------------------------------------- the readers
# Each: path, kind -> the matrix [rows, features], dense or scipy's; None where the reader keeps it to itself.


def _ours(path: Path, kind: str) -> Any:
    from pipeline.data import read_letor

    return read_letor(path, num_features=NUM_FEATURES[kind]).features


def _ours_to_disk(path: Path, kind: str) -> Any:
    from pipeline.data import read_letor

    folder = Path(tempfile.mkdtemp(dir=path.parent))
    atexit.register(shutil.rmtree, folder)  # not while the clock runs
    return read_letor(path, num_features=NUM_FEATURES[kind], out_dir=folder).features


def _sklearn(path: Path, kind: str) -> Any:
    from sklearn.datasets import load_svmlight_file

    return load_svmlight_file(str(path), n_features=NUM_FEATURES[kind], query_id=True, dtype=np.float32)[0]


def _lightgbm(path: Path, kind: str) -> Any:
    import lightgbm

    lightgbm.Dataset(
        str(path.with_suffix(".noqid")), params={"verbosity": -1, "num_threads": os.cpu_count()}
    ).construct()


def _polars(path: Path, kind: str) -> Any:
    import io

    import polars

    if kind == DENSE:
        text = path.read_bytes().replace(b":", b" ")
        frame = polars.read_csv(io.BytesIO(text), separator=" ", has_header=False, infer_schema_length=100)
        return frame.select(frame.columns[4::2]).cast(polars.Float32).to_numpy()
    lines = polars.read_csv(path, separator="\x01", has_header=False, new_columns=["line"], quote_char=None)
    entries = (
        lines.with_row_index("row")
        .select("row", polars.col("line").str.split(" ").list.slice(2))
        .explode("line")
        .select("row", polars.col("line").str.split_exact(":", 1).struct.rename_fields(["index", "value"]))
        .unnest("line")
        .select("row", polars.col("index").cast(polars.Int32), polars.col("value").cast(polars.Float32))
    )
    matrix = np.zeros((len(lines), NUM_FEATURES[kind]), np.float32)
    matrix[entries["row"].to_numpy(), entries["index"].to_numpy() - 1] = entries["value"].to_numpy()
    return matrix


def _pyarrow(path: Path, kind: str) -> Any:
    import pyarrow
    from pyarrow import compute, csv

    if kind == DENSE:
        text = pyarrow.py_buffer(path.read_bytes().replace(b":", b" "))
        options = csv.ReadOptions(autogenerate_column_names=True)
        table = csv.read_csv(
            pyarrow.BufferReader(text), options, parse_options=csv.ParseOptions(delimiter=" ")
        )
        return np.column_stack([column.cast("float32").to_numpy() for column in table.columns[4::2]])
    options = csv.ReadOptions(column_names=["line"])
    table = csv.read_csv(path, options, csv.ParseOptions(delimiter="\x01", quote_char=False))
    matrix = np.zeros((table.num_rows, NUM_FEATURES[kind]), np.float32)
    first = 0
    for chunk in table["line"].chunks:
        fields = compute.list_slice(compute.split_pattern(chunk, " "), 2)
        pairs = compute.list_flatten(compute.split_pattern(compute.list_flatten(fields), ":"))
        rows = compute.list_parent_indices(fields).to_numpy()
        indices = pairs.take(pyarrow.array(np.arange(0, len(pairs), 2))).cast("int32").to_numpy()
        values = pairs.take(pyarrow.array(np.arange(1, len(pairs), 2))).cast("float32").to_numpy()
        matrix[first + rows, indices - 1] = values
        first += len(chunk)
    return matrix


READERS: dict[str, tuple[str | None, Callable[[Path, str], Any]]] = {  # name -> (package, reader)
    "ours": (None, _ours),
    "ours, to the disk": (None, _ours_to_disk),
    "sklearn": ("scikit-learn", _sklearn),
    "lightgbm": ("lightgbm", _lightgbm),
    "polars": ("polars", _polars),
    "pyarrow": ("pyarrow", _pyarrow),
}
_MODULES = {"scikit-learn": "sklearn"}


# ---------------------------------------------------------------------------------------------- measurement


class _Peak(threading.Thread):
    """The most anonymous memory of this process, sampled: pages of mapped files are the system's to take back."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            self.bytes = max(self.bytes, anonymous_bytes())
            self._over.wait(0.005)

    def stop(self) -> int:
        self._over.set()
        self.join()
        return max(self.bytes, anonymous_bytes())


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise SystemExit("needs Linux: no RssAnon in /proc/self/status")


def _child(name: str, path: Path, kind: str, warm: Path) -> dict[str, Any]:
    read = READERS[name][1]
    read(warm, kind)  # imports, compiled code
    before = anonymous_bytes()
    peak = _Peak()
    peak.start()
    wall, cpu = time.perf_counter(), time.process_time()
    matrix = read(path, kind)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = peak.stop() - before
    measured = {"wall_s": wall, "cpu_s": cpu, "peak_bytes": memory, "checksum": None, "array_bytes": None}
    if matrix is not None:
        blocks = range(0, matrix.shape[0], 1 << 14)
        sums = sum(np.asarray(matrix[i : i + (1 << 14)].sum(0, dtype=np.float64)).ravel() for i in blocks)
        measured["checksum"] = float((sums * np.arange(1, len(sums) + 1)).sum())
        parts = (matrix.data, matrix.indices, matrix.indptr) if hasattr(matrix, "indptr") else (matrix,)
        measured["array_bytes"] = sum(part.nbytes for part in parts)
    return measured


def _measure(name: str, path: Path, kind: str, warm: Path, peers: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", name, str(path), kind, str(warm)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(peers)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} on {path}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _install(names: list[str], peers: Path) -> None:
    sys.path.append(str(peers))
    for name in names:
        package = READERS[name][0]
        if package and importlib.util.find_spec(_MODULES.get(package, package)) is None:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(peers)]
            packages = [package] if package != "polars" else ["polars", "polars-runtime-32"]
            subprocess.run([*command, *packages], check=True)


def _compare(kind: str, arguments: argparse.Namespace, names: list[str]) -> Iterator[dict[str, Any]]:
    path = write_file(arguments.folder / f"{kind}-{arguments.rows}.txt", kind, arguments.rows)
    warm = write_file(arguments.folder / f"{kind}-warm.txt", kind, 500)
    if "lightgbm" in names:
        write_file(path.with_suffix(".noqid"), kind, arguments.rows, qid=False)
        write_file(warm.with_suffix(".noqid"), kind, 500, qid=False)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            rounds[name].append(_measure(name, path, kind, warm, arguments.peers))
    checksums = [r["checksum"] for results in rounds.values() for r in results if r["checksum"] is not None]
    if not np.allclose(checksums, checksums[0], rtol=1e-4):
        raise SystemExit(f"the readers do not agree: {checksums}")
    for name, results in rounds.items():
        best = {key: min(r[key] for r in results) for key in ("wall_s", "cpu_s", "peak_bytes")}
        yield {
            "file": kind,
            "reader": name,
            "mb": path.stat().st_size / 1e6,
            "rows": arguments.rows,
            **best,
            "array_bytes": results[0]["array_bytes"],
        }


def _print(rows: list[dict[str, Any]]) -> None:
    print(
        "| file | reader | wall, s | MB/s | CPU, s | rows per CPU-s | peak / arrays | times sklearn, wall | CPU |"
    )
    print("| :-- | :-- | --: | --: | --: | --: | --: | --: | --: |")
    for row in rows:
        slow = next((r for r in rows if r["file"] == row["file"] and r["reader"] == "sklearn"), None)
        memory = f"{row['peak_bytes'] / row['array_bytes']:.2f}" if row["array_bytes"] else "-"
        times = [f"{slow[key] / row[key]:.1f}" if slow else "-" for key in ("wall_s", "cpu_s")]
        print(
            f"| {row['file']} | {row['reader']} | {row['wall_s']:.2f} | {row['mb'] / row['wall_s']:.0f} | "
            f"{row['cpu_s']:.2f} | {row['rows'] / row['cpu_s']:,.0f} | {memory} | {times[0]} | {times[1]} |"
        )


def _grow(arguments: argparse.Namespace) -> None:
    warm = write_file(arguments.folder / "dense-warm.txt", DENSE, 500)
    print(
        "| million rows | reader | MB of text | wall, s | µs per row, wall | CPU | peak, MB | peak / arrays |"
    )
    print("| --: | :-- | --: | --: | --: | --: | --: | --: |")
    for millions in arguments.growth:
        num_rows = round(1e6 * millions)
        path = write_file(arguments.folder / f"grow-{num_rows}.txt", DENSE, num_rows)
        for name in ("ours", "ours, to the disk"):
            result = _measure(name, path, DENSE, warm, arguments.peers)
            print(
                f"| {millions:g} | {name} | {path.stat().st_size / 1e6:.0f} | {result['wall_s']:.2f} | "
                f"{1e6 * result['wall_s'] / num_rows:.2f} | {1e6 * result['cpu_s'] / num_rows:.2f} | "
                f"{result['peak_bytes'] / 1e6:.0f} | {result['peak_bytes'] / result['array_bytes']:.3f} |",
                flush=True,
            )
        if not arguments.keep:
            path.unlink()


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--child"]:
        name, path, kind, warm = arguments[1:]
        print(json.dumps(_child(name, Path(path), kind, Path(warm))))
        return
    parser = argparse.ArgumentParser(
        prog="bench.py ingest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = Path(tempfile.gettempdir()) / "rankdistil-bench"
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", nargs="+", default=[DENSE, SPARSE], choices=(DENSE, SPARSE))
    parser.add_argument("--readers", nargs="+", default=list(READERS), choices=list(READERS))
    parser.add_argument("--growth", type=lambda text: [float(part) for part in text.split(",")])
    parser.add_argument("--folder", type=Path, default=folder, help="for the files that are made")
    parser.add_argument("--peers", type=Path, default=folder / "peers", help="for packages that are not here")
    parser.add_argument("--keep", action="store_true", help="leave the large files of --growth")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.growth:
        _grow(options)
        return
    _install(options.readers, options.peers)
    rows = [row for kind in options.files for row in _compare(kind, options, options.readers)]
    _print(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        if row["reader"] == "ours":
            slow = next((r for r in rows if r["file"] == row["file"] and r["reader"] == "sklearn"), None)
            if slow:
                ratio = slow["wall_s"] / row["wall_s"]
                print(f"{row['file']}: {ratio:.1f} x sklearn in wall (goal {GOAL_SPEED}), ", end="")
            print(f"peak {row['peak_bytes'] / row['array_bytes']:.2f} x the arrays (goal {GOAL_MEMORY})")


if __name__ == "__main__":
    main(sys.argv[1:])

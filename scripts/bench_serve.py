"""Scoring of raw features: the exported student beside its kind of teacher, microseconds a document.

The student is a 136-128-64-32-1 network with signed log1p and standardisation inside, as SavedModel, TFLite (float32
and int8) and ONNX; the teacher LightGBM's predict of 500 trees with 64 leaves, and the same trees compiled by lleaves,
in its own environment. A call scores one list of 120 documents, or 20,000 documents. Each number is the smallest of
several rounds that alternate between the models: CPU time on one thread, elapsed time on two. Needs the extra onnx.

With --run: the formats that a finished run exported and its own teacher, on its test split.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
NUM_FEATURES, NUM_TREES, NUM_LEAVES = 136, 500, 64
SIZES = (120, 20_000)
THREADS = (1, 2)
GOALS = {
    "lightgbm": 45.0,
    "lleaves": 12.0,
}  # times faster than that: the fastest format, a list of 120, one thread
# The newest lleaves calls what later versions of llvmlite no longer have.
LLEAVES = ("lleaves==1.3.0", "llvmlite<0.45")
FORMATS = ("saved_model", "tflite", "tflite_int8", "onnx")

Score = Callable[[np.ndarray], Any]


def make_features(num_docs: int) -> np.ndarray:
    """float32 [docs, 136] of all sizes, a tenth negative."""
    rng = np.random.default_rng(0)
    features = rng.lognormal(0, 2, (num_docs, NUM_FEATURES))
    features *= rng.choice([-1, 1], features.shape, p=[0.1, 0.9])
    return features.astype(np.float32)


def make_teacher(path: Path) -> None:
    """Trees on a noisy function of the features: what they rank does not matter, that they are full does."""
    import lightgbm as lgb

    features = make_features(SIZES[1])
    rng = np.random.default_rng(1)
    signal = np.sign(features) * np.log1p(np.abs(features)) @ rng.normal(size=NUM_FEATURES)
    labels = np.digitize(signal / signal.std() + rng.normal(size=len(signal)) / 2, [0, 0.8, 1.5, 2.2])
    groups = [SIZES[0]] * (SIZES[1] // SIZES[0]) + [SIZES[1] % SIZES[0]]
    parameters = {
        "objective": "lambdarank",
        "num_leaves": NUM_LEAVES,
        "learning_rate": 0.05,
        "feature_fraction": 0.3,
        "verbosity": -1,
    }
    booster = lgb.train(parameters, lgb.Dataset(features, labels, group=groups), NUM_TREES)
    booster.save_model(path)


def make_student(folder: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from pipeline.config import ExportConfig, MLPStudent, TransformConfig
    from pipeline.data import RankingData
    from pipeline.data.transform import fit_transform
    from pipeline.export.formats import export
    from pipeline.export.raw_scorer import RawScorer
    from pipeline.models.scorer import build_scorer

    features = make_features(1200)
    offsets = np.arange(0, 1201, SIZES[0])
    lists = RankingData(features, np.zeros(1200, np.float32), offsets, np.arange(10).astype(str))
    transform = fit_transform(TransformConfig(log1p=True), features)
    scorer = build_scorer(MLPStudent(hidden=[128, 64, 32]), NUM_FEATURES, seed=0)
    export(RawScorer(transform, scorer), lists, ExportConfig(formats=list(FORMATS)), folder)


def measure(
    scorers: dict[str, Score],
    threads: int,
    rounds: int,
    sizes: Iterable[int],
    make: Callable[[int], np.ndarray] = make_features,
) -> dict[str, Any]:
    """{what: {documents a call: microseconds a document}}; `make` gives features of so many documents."""
    clock = time.process_time if threads == 1 else time.perf_counter
    found: dict[str, Any] = {what: {} for what in scorers}
    for size in sizes:
        features = make(size)
        repeats = {}
        for what, score in scorers.items():
            score(features)
            began = time.perf_counter()
            score(features)
            repeats[what] = max(1, round(0.1 / max(time.perf_counter() - began, 1e-5)))
        best = dict.fromkeys(scorers, float("inf"))
        for _ in range(rounds):
            for what, score in scorers.items():
                began = clock()
                for _ in range(repeats[what]):
                    score(features)
                best[what] = min(best[what], (clock() - began) / repeats[what])
        for what, seconds in best.items():
            found[what][str(size)] = round(1e6 * seconds / size, 4)
    return found


def measure_ours(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """The student's formats and LightGBM, in a process that has `threads` threads."""
    sys.path.insert(0, str(ROOT))
    import lightgbm as lgb

    from pipeline.export.load import load_exported

    facts = json.loads((folder / "export.json").read_text())["formats"]
    scorers: dict[str, Score] = {
        name: load_exported(folder / facts[name]["path"], threads=threads).call for name in FORMATS
    }
    booster = lgb.Booster(model_file=folder / "teacher.txt")
    scorers["lightgbm"] = lambda features: booster.predict(features, num_threads=threads)
    return measure(scorers, threads, rounds, SIZES)


def measure_run(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """The same of a finished run, and its teacher as "teacher"."""
    sys.path.insert(0, str(ROOT))
    from omegaconf import OmegaConf

    from pipeline.config import from_composed
    from pipeline.data.stage import load_data
    from pipeline.export.load import load_exported
    from pipeline.run import find_artifacts, make_context
    from pipeline.teacher.stage import make_teacher

    facts = json.loads((folder / "export.json").read_text())["formats"]
    scorers: dict[str, Score] = {
        name: load_exported(folder / fact["path"], threads=threads).call for name, fact in facts.items()
    }
    config = from_composed(OmegaConf.load(folder / "config.yaml"))
    ctx = make_context(config)  # after TensorFlow has its threads
    artifacts = find_artifacts(config, ctx)
    data = load_data(config.data, artifacts.data)
    teacher = make_teacher(config.teacher, config.train, data, artifacts.teacher, ctx)
    assert teacher.model is not None, "the teacher's scores come from files"
    scorers["teacher"] = teacher.model
    rows = data.splits["test"].features
    return measure(scorers, threads, rounds, SIZES, lambda size: rows[np.arange(size) % len(rows)])


def measure_lleaves(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    import lleaves

    model = lleaves.Model(model_file=str(folder / "teacher.txt"))
    model.compile(cache=str(folder / "lleaves.bin"))
    doubles = {size: make_features(size).astype(np.float64) for size in SIZES}  # what it takes as it is
    return measure(
        {"lleaves": lambda features: model.predict(doubles[len(features)], n_jobs=threads)},
        threads,
        rounds,
        SIZES,
    )


def lleaves_python(folder: Path) -> tuple[Path | None, str | None]:
    """(Python of an environment with lleaves, None), or (None, why there is none)."""
    environment = folder / "lleaves"
    python = environment / "bin" / "python"
    if not (environment / "installed").exists():
        venv.create(environment, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "--quiet", *LLEAVES]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return None, f"pip install {' '.join(LLEAVES)}: {done.stderr.strip().splitlines()[-1]}"
        (environment / "installed").touch()
    return python, None


def in_process(python: Path, what: str, folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, __file__, "--measure", what, str(threads), "--folder", folder, "--rounds", str(rounds)]
    done = subprocess.run(
        list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def run(folder: Path, rounds: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "teacher.txt").exists():
        make_teacher(folder / "teacher.part")
        os.rename(folder / "teacher.part", folder / "teacher.txt")
    make_student(folder)
    python, reason = lleaves_python(folder)
    us_per_doc: dict[str, Any] = {}
    for threads in THREADS:
        found = in_process(Path(sys.executable), "ours", folder, threads, rounds)
        if python is not None:
            try:
                found |= in_process(python, "lleaves", folder, threads, rounds)
            except subprocess.CalledProcessError as error:
                python, reason = None, f"exit code {error.returncode}"
        us_per_doc[str(threads)] = {"lleaves": None} | found
    one = {
        what: sizes[str(SIZES[0])] if sizes else None for what, sizes in us_per_doc[str(THREADS[0])].items()
    }
    return {
        "us_per_doc": us_per_doc,
        "lleaves_missing": reason,
        "times_faster": {
            name: {peer: None if one[peer] is None else round(one[peer] / one[name], 1) for peer in GOALS}
            for name in FORMATS
        },
        "goals": GOALS,
    }


def print_table(result: dict[str, Any]) -> None:
    print("microseconds a document".ljust(24) + "".join(f"{f'{n} thread(s)':>24}" for n in THREADS))
    print("".ljust(24) + "".join(f"{f'{size} docs':>12}" for _ in THREADS for size in SIZES))
    for what in (*FORMATS, *GOALS):
        cells = [
            "-" if (found := result["us_per_doc"][str(n)][what]) is None else f"{found[str(size)]:.3f}"
            for n in THREADS
            for size in SIZES
        ]
        print(what.ljust(24) + "".join(f"{cell:>12}" for cell in cells))
    print(
        f"a list of {SIZES[0]}, one thread, times faster than "
        + " and ".join(f"{peer} (goal {goal})" for peer, goal in GOALS.items())
        + ":"
    )
    for name, times in result["times_faster"].items():
        print(name.ljust(24) + "".join(f"{'-' if x is None else x:>12}" for x in times.values()))
    if result["lleaves_missing"]:
        print(f"lleaves was not measured: {result['lleaves_missing']}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--rounds", type=int, default=9, help="of timing, 0.1 s for each model")
    parser.add_argument(
        "--folder",
        type=Path,
        default=ROOT / ".cache" / "bench" / "serve",
        help="for the teacher, the student and the environment of lleaves, kept (%(default)s)",
    )
    parser.add_argument("--run", type=Path, metavar="DIR", help="of a finished run, made with stage=all")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        what, threads = options.measure
        measured = {"ours": measure_ours, "lleaves": measure_lleaves, "run": measure_run}[what]
        print(json.dumps(measured(options.folder, int(threads), options.rounds)))
        return
    if options.run:
        result = in_process(Path(sys.executable), "run", options.run.absolute(), 1, options.rounds)
        print(
            "| one thread, CPU time | "
            + " | ".join(f"{n} documents, µs | of the teacher's" for n in SIZES)
            + " |"
        )
        print("| :-- |" + " --: | --: |" * len(SIZES))
        for what, found in result.items():
            cells = [(found[str(n)], found[str(n)] / result["teacher"][str(n)]) for n in SIZES]
            print(f"| {what} | " + " | ".join(f"{us:.2f} | {share:.3f}" for us, share in cells) + " |")
    else:
        result = run(options.folder, options.rounds)
        print_table(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

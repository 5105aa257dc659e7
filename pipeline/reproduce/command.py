"""The rankdistil-reproduce command: the jobs one after another, then the table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import rich

from pipeline import cli
from pipeline.cli import compose
from pipeline.config import ConfigError, PublishedData
from pipeline.data.sources import locate
from pipeline.environment import set_environment
from pipeline.reproduce.claim import Claim, ClaimError, Job, load, make_jobs, names
from pipeline.reproduce.study import study_page
from pipeline.reproduce.table import make_lines, result_page, results_md, terminal_table
from pipeline.store import atomic, write_json

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 75  # exit codes; the last two as of rankdistil


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rankdistil-reproduce",
        usage="%(prog)s NAME ... [--data DIR] [--out DIR] [--tiny] [-- HYDRA OVERRIDES]",
        description="Repeats a comparison of conf/reproduce and holds the results against the expected values. "
        "The same command goes on where it was stopped. Several names: one after another.",
        epilog="exit codes: 0 done; 1 a job failed, or a value is not within twice its tolerance; 2 a mistake in the "
        "command; 75 interrupted",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="see --list")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the data set's files; the embedded data needs none"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/reproduce"), metavar="DIR", help="%(default)s unless given"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="seconds a job: shows that it runs, proves nothing"
    )
    parser.add_argument("--list", action="store_true", help="the comparisons, and whether they were run")
    parser.add_argument("--results", action="store_true", help="RESULTS.md from the recorded values")
    return parser


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command; ends the process with its exit code."""
    set_environment()
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    parser = _parser()
    options = parser.parse_args(given[:split])
    code = DONE
    try:
        if options.list:
            _print_list()
        elif options.results:
            print(results_md([load(name) for name in names()]), end="")
        elif not options.names:
            parser.error("NAME is missing; --list shows the names")
        else:
            code = _reproduce(options, further=given[split + 1 :], command=given)
    except (ClaimError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = MISTAKE
    except PermissionError as error:
        print(f"error: {error}; mend: give this user the right, or another --out", file=sys.stderr)
        code = MISTAKE
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        code = INTERRUPTED
    raise SystemExit(code)


def _reproduce(options: argparse.Namespace, *, further: list[str], command: list[str]) -> int:
    claims = [load(name) for name in options.names]
    for claim in claims:
        if options.data is None and claim.data.brought:
            raise ClaimError(f"--data DIR is missing. {claim.data.how_to_get}")
    data, out = (options.data or Path()).absolute(), options.out.absolute()
    planned = [make_jobs(claim, data=data, out=out, tiny=options.tiny, further=further) for claim in claims]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    codes = []
    for claim, jobs in zip(claims, planned, strict=True):
        if options.tiny:  # shows that it runs; nothing is expected of the numbers
            claim = dataclasses.replace(claim, expected=[])
        about = {
            "command": shlex.join(["rankdistil-reproduce", *command]),
            "tiny": options.tiny,
            "overrides": further,
        }
        codes.append(reproduce(claim, jobs, folder=out / claim.name, about=about))
    return max(codes)


def _print_list() -> None:
    rows = [("name", "comparison", "state")]
    rows += [(claim.name, claim.title, claim.state) for claim in map(load, names())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:  # a line each, whatever the terminal's width
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _finished(job: Job) -> Mapping[str, Any] | None:
    """The job's result if it is whole.

    Raises:
      ClaimError: the data are not there; its folder holds a run with other options.
    """
    try:
        config = compose(job.overrides)
    except ConfigError as error:
        raise ClaimError(str(error)) from None
    if isinstance(config.data, PublishedData):
        try:
            locate(config.data)
        except ValueError as error:
            raise ClaimError(str(error)) from None
    wanted = json.loads(json.dumps(config.plain()))
    try:
        result = json.loads((job.folder / "result.json").read_text())
    except (FileNotFoundError, ValueError):  # ValueError: not whole
        return None
    there = result["config"]
    differing = sorted(
        key for key in {*wanted, *there} - {"run_dir", "cache_dir"} if wanted.get(key) != there.get(key)
    )
    if differing:
        raise ClaimError(
            f"{job.folder} holds a run with other options ({', '.join(differing)}); mend: another --out, or remove it"
        )
    return result


def job_main(overrides: Sequence[str], log: Path) -> None:
    """The job of a process that was forked from one that has imported TensorFlow: `rankdistil OVERRIDES`."""
    os.setsid()  # Ctrl-C goes to the command only
    with log.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = ["rankdistil", *overrides]
    cli.main()


def _run(job: Job) -> int | None:
    """Runs a job to its end in a process of its own; its exit code. Its output goes to FOLDER.log."""
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    job.log.write_text(shlex.join([sys.executable, "-m", "pipeline", *job.overrides]) + "\n")
    # Importing takes seconds: the server of the forks does it once. TensorFlow does not run there, so it can fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.run", "pipeline.report"])
    process = context.Process(target=job_main, args=(job.overrides, job.log))
    process.start()
    try:
        process.join()
    except KeyboardInterrupt:
        process.terminate()  # it keeps the step that it is at
        process.join()
        raise
    return process.exitcode


def reproduce(claim: Claim, jobs: Sequence[Job], *, folder: Path, about: dict[str, Any]) -> int:
    """Runs the jobs that are not done yet, then prints and writes the tables; the exit code.

    Args:
      claim: the comparison.
      jobs: of `make_jobs`.
      folder: gets reproduction.json and table.md.
      about: how it was started, for reproduction.json.

    Raises:
      ClaimError, ConfigError: what the user can mend, before the first job starts.
    """
    results: dict[str, list[Mapping[str, Any] | None]] = {run: [] for run in claim.runs}
    failed: list[Job] = []
    for number, (job, result) in enumerate(list(zip(jobs, map(_finished, jobs), strict=True)), 1):
        label = f"[{number}/{len(jobs)}] {job.run} {job.axis}"
        if result is not None:
            print(f"{label} was done before", file=sys.stderr)
        else:
            print(f"{label} ...", file=sys.stderr, flush=True)
            began = time.perf_counter()
            code = _run(job)
            if code == INTERRUPTED:
                raise KeyboardInterrupt
            result = _finished(job)
            if result is None:
                failed.append(job)
            how = f"FAILED (exit code {code}), see {job.log}" if result is None else "done"
            print(f"{label} {how}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
        results[job.run].append(result)

    lines = make_lines(claim, results)
    made = [result["run"] for of_run in results.values() for result in of_run if result is not None]
    about |= {
        "failed": [str(job.log) for job in failed],
        "seconds": round(sum(sum(run["seconds"].values()) for run in made), 1),
        **{key: sorted({str(run[key]) for run in made}) for key in ("commit", "device", "started")},
        "versions": made[-1]["versions"] if made else None,
        "lines": [line.plain() for line in lines],
    }
    write_json(folder / "reproduction.json", {"name": claim.name, "title": claim.title, **about})
    heading = f"`{about['command']}`; {', '.join(about['device'])}; commit {', '.join(about['commit'])}."
    study = study_page(claim, jobs, results) if claim.reference else ""
    with atomic(folder / "table.md") as temporary:
        temporary.write_text(result_page(claim, lines, heading=heading, study=study))
    rich.print(terminal_table(lines))
    if study:
        print(study)
    print(f"tables: {folder / 'table.md'}, {folder / 'reproduction.json'}")
    for job in failed:
        print(f"failed: {job.run} {job.axis}, see {job.log}", file=sys.stderr)
    return FAILED if failed or any(line.verdict == "FAIL" for line in lines) else DONE

"""The rankdistil-reproduce command: the jobs one after another, then the tables."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import rich
from rich.text import Text

from pipeline.config import PublishedData, compose
from pipeline.config.overrides import quoted
from pipeline.data.sources import locate
from pipeline.environment import set_environment
from pipeline.errors import DONE, FAILED, INTERRUPTED, USER_ERROR, UserError
from pipeline.jobs import run_job
from pipeline.report.collect import commits
from pipeline.report.page import Block, Code, Heading, Paragraph, to_markdown
from pipeline.reproduce.claim import Claim, Job, load, make_jobs, names
from pipeline.reproduce.results import make_lines, result_blocks, results_md
from pipeline.reproduce.study import study_blocks
from pipeline.run_folder import check_folder, complete_result
from pipeline.status import PAUSED
from pipeline.store import atomic, write_json
from pipeline.tables import Table, to_terminal


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rankdistil-reproduce",
        usage="%(prog)s NAME ... [--data DIR] [--out DIR] [--tiny] [-- HYDRA OVERRIDES]",
        description="Repeats a comparison of conf/reproduce and compares the results with the expected values. "
        "The same command continues where it was stopped. Several names run one after another.",
        epilog="exit codes: 0 done; 1 a job failed, or a value is not within twice its tolerance; 2 an error in the "
        "command; 75 interrupted, the same command continues",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="see --list")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the data set's files; the embedded data needs none"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/reproduce"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="jobs of seconds, whose numbers mean nothing",
    )
    parser.add_argument("--list", action="store_true", help="show the comparisons, and whether they were run")
    parser.add_argument("--results", action="store_true", help="print RESULTS.md from the recorded values")
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
            for claim in map(load, names()):
                print(f"{claim.name:<20} {claim.title}; {claim.state}")
        elif options.results:
            print(results_md([load(name) for name in names()]), end="")
        elif not options.names:
            parser.error("NAME is missing; --list shows the names")
        else:
            code = _reproduce(options, further=given[split + 1 :], command=given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = USER_ERROR
    except PermissionError as error:
        print(f"error: {error}. Fix: allow this user to write there, or give another --out", file=sys.stderr)
        code = USER_ERROR
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        code = INTERRUPTED
    raise SystemExit(code)


def _reproduce(options: argparse.Namespace, *, further: list[str], command: list[str]) -> int:
    claims = [load(name) for name in options.names]
    for claim in claims:
        if options.data is None and claim.data.brought:
            raise UserError("--data DIR is missing", fix=claim.data.how_to_get)
    data, out = (options.data or Path()).absolute(), options.out.absolute()
    planned = [make_jobs(claim, data=data, out=out, tiny=options.tiny, further=further) for claim in claims]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    codes = []
    for claim, jobs in zip(claims, planned, strict=True):
        if options.tiny:  # its numbers mean nothing
            claim = dataclasses.replace(claim, expected=[])
        about = {
            "command": shlex.join(["rankdistil-reproduce", *command]),
            "tiny": options.tiny,
            "overrides": further,
        }
        codes.append(reproduce(claim, jobs, folder=out / claim.name, about=about))
    return max(codes)


def finished(job: Job) -> Mapping[str, Any] | None:
    """The job's result if it is complete.

    Raises:
      UserError: an option is wrong, the data are missing, or the job's folder holds a run with other options.
    """
    config = compose([*job.overrides, quoted("run_dir", job.folder)])
    if isinstance(config.data, PublishedData):
        try:
            locate(config.data)
        except ValueError as error:
            raise UserError(str(error)) from None
    result = complete_result(job.folder, config)
    if result is None:
        check_folder(config)
    return result


def reproduce(claim: Claim, jobs: Sequence[Job], *, folder: Path, about: dict[str, Any]) -> int:
    """Runs the jobs that are not done yet, then prints and writes the tables; the exit code.

    Args:
      claim: the comparison.
      jobs: of `make_jobs`.
      folder: gets reproduction.json and table.md.
      about: how it was started, for reproduction.json.

    Raises:
      UserError: before the first job starts; see `finished`.
    """
    results: dict[str, list[Mapping[str, Any] | None]] = {run: [] for run in claim.runs}
    failed: list[Job] = []
    for index, (job, result) in enumerate(list(zip(jobs, map(finished, jobs), strict=True)), 1):
        label = f"[{index}/{len(jobs)}] {job.run} {job.axis}"
        if result is not None:
            print(f"{label} was done before", file=sys.stderr)
        else:
            print(f"{label} ...", file=sys.stderr, flush=True)
            began = time.perf_counter()
            status = run_job(job.overrides, job.folder)
            if status.state == PAUSED:
                raise KeyboardInterrupt
            result = finished(job)
            if result is None:
                failed.append(job)
            how = "done" if result is not None else f"FAILED ({status.error or status.state}), see {job.log}"
            print(f"{label} {how}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
        results[job.run].append(result)

    lines = make_lines(claim, results)
    made = [result for of_run in results.values() for result in of_run if result is not None]
    runs = [result["run"] for result in made]
    about |= {
        "failed": [str(job.log) for job in failed],
        "seconds": round(sum(sum(run["seconds"].values()) for run in runs), 1),
        "commit": sorted({commit for result in made for commit in commits(result)}),
        **{key: sorted({str(run[key]) for run in runs}) for key in ("device", "started")},
        "versions": runs[-1]["versions"] if runs else None,
        "lines": [line.plain() for line in lines],
    }
    write_json(folder / "reproduction.json", {"name": claim.name, "title": claim.title, **about})
    blocks = result_blocks(claim, lines)
    if claim.reference:
        blocks += study_blocks(claim, jobs, results)
    origin = Paragraph(f"{', '.join(about['device'])}; commit {', '.join(about['commit'])}.")
    with atomic(folder / "table.md") as temporary:
        temporary.write_text(to_markdown(claim.title, [Code([about["command"]]), origin, *blocks]))
    _print(blocks)
    print(f"tables: {folder / 'table.md'}, {folder / 'reproduction.json'}")
    for job in failed:
        print(f"failed: {job.run} {job.axis}, see {job.log}", file=sys.stderr)
    return FAILED if failed or any(line.verdict == "FAIL" for line in lines) else DONE


def _print(blocks: Sequence[Block]) -> None:
    for block in blocks:
        if isinstance(block, Table):
            rich.print(to_terminal(block, rich.get_console().width))
        elif isinstance(block, Heading | Paragraph):
            rich.print(Text(block.text, "bold" if isinstance(block, Heading) else ""))
        print()

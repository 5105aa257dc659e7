"""`rankdistil-rank`: scores a LETOR file of any size with an exported student, into a TREC run."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
import yaml

from pipeline.data import LetorError
from pipeline.data.letor import DUPLICATES, UNSORTED
from pipeline.data.letor.lists import read_lists
from pipeline.data.progress import reading
from pipeline.data.sources import PUBLISHED
from pipeline.environment import set_environment
from pipeline.errors import DONE, USER_ERROR, UserError
from pipeline.export.load import ExportedModel, load_exported
from pipeline.store import atomic

# The option for each argument of read_letor that a user can set.
_OPTIONS = {
    "duplicates": "--duplicates",
    "unsorted": "--unsorted",
    "missing_value": "--missing-value",
    "group_sizes": "--groups",
}


def rank_file(
    model: ExportedModel,
    path: Path,
    run: Path,
    *,
    qrels: Path | None = None,
    tag: str = "student",
    duplicates: str = "error",
    unsorted: str = "error",
    missing_value: float | None = None,
    groups: Path | None = None,
) -> tuple[int, int]:
    """Writes `query Q0 document rank score tag` for each row of a LETOR file, best first, and perhaps its labels.

    The document is the number of the row within its query, from 0. Programs that read runs order by float32 score and
    differ in what they do with equal ones, so that equal scores are written a unit in the last place apart, in the
    order of the rows. Files appear when they are whole.

    Args:
      model: called with one list at a time.
      path: LETOR text, plain or compressed.
      run: the file to write.
      qrels: also writes the labels here, `query 0 document label`.
      tag: the run's name, in its last column.
      duplicates, unsorted, missing_value: as for `read_letor`.
      groups: its `group_sizes`.

    Returns:
      (queries, documents).

    Raises:
      LetorError: what is wrong in the file.
      ValueError: a score that is not finite, a label that is no whole number, with `qrels`.
    """
    num_queries = num_docs = 0
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(stack.enter_context(atomic(run)).open("w", encoding="utf-8"))
        judged: IO[str] | None = None
        if qrels is not None:
            judged = stack.enter_context(stack.enter_context(atomic(qrels)).open("w", encoding="utf-8"))
        progress = stack.enter_context(reading(path.name))
        for lists in read_lists(
            path,
            num_features=model.num_features,
            duplicates=duplicates,
            unsorted=unsorted,
            missing_value=missing_value,
            group_sizes=groups,
            judged=qrels is not None,
            progress=progress,
        ):
            bounds = lists.offsets.tolist()
            for query, start, stop in zip(lists.query_ids.tolist(), bounds[:-1], bounds[1:], strict=True):
                scores = model.call(lists.features[start:stop])
                if not np.isfinite(scores).all():
                    row = int(np.flatnonzero(~np.isfinite(scores))[0])
                    raise ValueError(
                        f"{path}: document {row} of query {query!r} gets the score {scores[row]}"
                    )
                out.write(_run_lines(query, scores, tag))
                if judged is not None:
                    judged.write(_qrels_lines(path, query, lists.labels[start:stop]))
            num_queries += lists.num_queries
            num_docs += lists.num_docs
    return num_queries, num_docs


def _run_lines(query: str, scores: np.ndarray, tag: str) -> str:
    order = np.argsort(-scores, kind="stable")
    written = strictly_falling(scores[order]).astype(str)
    return "".join(
        f"{query} Q0 {row} {rank} {score} {tag}\n"
        for rank, (row, score) in enumerate(zip(order.tolist(), written.tolist(), strict=True), 1)
    )


def strictly_falling(scores: np.ndarray) -> np.ndarray:
    """Scores that fall, made to fall strictly: each is at most the float32 below the one before.

    >>> strictly_falling(np.array([1, 1, 0.5], np.float32)).tolist()
    [1.0, 0.9999999403953552, 0.5]
    """
    bits = scores.astype(np.float32).view(np.int32).astype(np.int64)
    place = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # among all float32, in their order
    number = np.arange(len(scores))
    place = np.minimum.accumulate(place + number) - number
    bits = np.where(place < 0, -place | 0x80000000, place)
    return bits.astype(np.uint32).view(np.float32)


def _qrels_lines(path: Path, query: str, labels: np.ndarray) -> str:
    if (labels != np.round(labels)).any():
        row = int(np.flatnonzero(labels != np.round(labels))[0])
        raise UserError(
            f"{path}: document {row} of query {query!r} has the label {labels[row]}",
            fix="leave --qrels out: qrels hold whole numbers",
        )
    return "".join(f"{query} 0 {row} {label:.0f}\n" for row, label in enumerate(labels.tolist()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rankdistil-rank",
        description="Scores a LETOR file of any size with an exported student and writes a TREC run. A document is the "
        "number of its row within its query, from 0.",
        epilog="exit codes: 0 done; 2 a mistake in the command or in the file, and nothing is written",
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a run's folder, a SavedModel, a .tflite or an .onnx file"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="LETOR text, plain or .gz, .bz2, .xz")
    parser.add_argument("-o", "--out", type=Path, metavar="RUN", required=True, help="the run to write")
    parser.add_argument("--qrels", type=Path, metavar="FILE", help="also write the labels, as qrels")
    parser.add_argument("--tag", default="student", help="the run's name, in its last column (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the model (the runtime's choice)")
    parser.add_argument("--duplicates", choices=DUPLICATES, default="error", help="as data.duplicates")
    parser.add_argument("--unsorted", choices=UNSORTED, default="error", help="as data.unsorted")
    parser.add_argument(
        "--missing-value",
        type=float,
        metavar="X",
        help="as data.missing_value (that of the run)",
    )
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help="rows of each query, of a FILE without qid (.query, .group)",
    )
    return parser


def _missing_value(model: Path) -> float | None:
    """What stands for "missing" in the data of the run that the model is, or lies in; None if there is none."""
    files = {folder / "export.json": folder / "config.yaml" for folder in (model, model.parent)}
    path = next((config for made, config in files.items() if made.is_file() and config.is_file()), None)
    if path is None:
        return None
    data = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]
    published = PUBLISHED.get(data["name"])
    return data.get("missing_value") if published is None else published.missing_value


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command; ends the process with its exit code."""
    set_environment()
    parser = _parser()
    options = parser.parse_args(arguments)
    if len(options.tag.split()) != 1:
        parser.error(f"--tag {options.tag!r}: one word")
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads {options.threads}: at least 1")
    for path in (options.out, options.qrels):
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(f"{path}: its folder is not there")
        if path is not None and path.is_dir():
            parser.error(f"{path} is a folder. Fix: name a file")
        if path is not None and path.absolute() in (options.file.absolute(), options.model.absolute()):
            parser.error(f"{path} would be written over")
    if options.qrels is not None and options.qrels.absolute() == options.out.absolute():
        parser.error(f"{options.out} would be written over")
    began = time.perf_counter()
    try:
        model = load_exported(options.model, threads=options.threads)
        num_queries, num_docs = rank_file(
            model,
            options.file,
            options.out,
            qrels=options.qrels,
            tag=options.tag,
            duplicates=options.duplicates,
            unsorted=options.unsorted,
            missing_value=_missing_value(options.model)
            if options.missing_value is None
            else options.missing_value,
            groups=options.groups,
        )
    except LetorError as error:
        takes = f"; {options.model} takes {model.num_features} features"
        print(f"error: {error.named(_OPTIONS)}{takes * (error.argument == 'num_features')}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
    print(f"{options.out}: {num_queries} queries, {num_docs} documents, {time.perf_counter() - began:.1f} s")
    raise SystemExit(DONE)


if __name__ == "__main__":
    main()

"""A block of LETOR lines to rows in compressed form."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipeline.config.checks import within_float64
from pipeline.data.letor import parser
from pipeline.data.letor.checks import Options, Problem, explain, nearest_float32, qid_problem


class Block(NamedTuple):
    """The rows of some complete lines: row r has the entries `row_ends[r - 1]:row_ends[r]`."""

    labels: np.ndarray  # float32 [rows]
    row_lines: np.ndarray  # int32 [rows], from 0
    row_ends: np.ndarray  # int64 [rows]
    indices: np.ndarray  # int32 [entries], from 0
    values: np.ndarray  # float32 [entries]
    missing: np.ndarray  # int32: the features, from 0, of the values that stood for missing and are 0 now
    queries: list[tuple[int, str]]  # (first row, query id) wherever the id changes
    num_lines: int
    num_features: int  # the largest index
    widest_line: int  # the line of that index, from 0
    has_end: bool  # the last line has its newline
    problem: Problem | None  # the first one; the rows after it are not parsed


def scan_block(text: bytearray, size: int, options: Options) -> Block:
    """Parses the first `size` bytes, complete lines with text.PADDING after them."""
    has_end = text.endswith(b"\n", 0, size)
    size += not has_end  # the first byte of the padding ends the last line
    max_rows = size // (8 if options.has_qid else 2) + 1  # of "1 qid:1\n" or "1\n"
    max_entries = size // 4 + 1  # of " 1:1"
    labels, row_lines = np.empty(max_rows, np.float32), np.empty(max_rows, np.int32)
    row_ends, indices = np.empty(max_rows, np.int64), np.empty(max_entries, np.int32)
    values, groups = np.empty(max_entries, np.float32), np.empty((max_rows, 3), np.int32)
    odd = np.empty((max_rows + max_entries, 3), np.int32)
    ascending, unique = options.unsorted == "error", options.duplicates == "error"
    seen = np.zeros(options.limit + 1 if unique and not ascending else 0, np.int32)
    missing = within_float64(math.nan if options.missing_value is None else options.missing_value)
    num_rows, num_groups, num_odd, num_lines, num_features, widest_line, stop = parser.scan(
        np.frombuffer(text, np.uint8), size, options.has_qid, ascending, unique,
        0.0 if options.judged else -math.inf, options.limit, missing, seen,
        labels, row_lines, row_ends, indices, values, groups, odd,
    )  # fmt: skip

    wrong = [] if stop < 0 else [stop]  # bytes in lines with an error
    for target, start, end in odd[:num_odd].tolist():
        value = nearest_float32(text[start:end].decode())
        if not np.isfinite(value):
            wrong.append(start)
            break
        if target >= 0:
            values[target] = value
        else:
            labels[-1 - target] = value
    queries = []
    for row, start, end in groups[:num_groups].tolist():
        if row == num_rows:  # the line with the error
            break
        if qid_problem(text[start:end]):
            wrong.append(start)
            break
        queries.append((row, text[start:end].decode()))
    problem = None
    if wrong:
        start = text.rfind(b"\n", 0, min(wrong)) + 1
        problem = explain(text[start : text.index(b"\n", start)], text.count(b"\n", 0, start), options)

    num_entries = int(row_ends[num_rows - 1]) if num_rows else 0
    indices, values = indices[:num_entries], values[:num_entries]
    replaced = indices[:0]
    if options.missing_value is not None:
        is_missing = np.isnan(values)
        replaced = indices[is_missing]
        values[is_missing] = 0
    return Block(
        labels[:num_rows], row_lines[:num_rows], row_ends[:num_rows], indices, values, replaced,
        queries, num_lines, num_features, widest_line, has_end, problem,
    )  # fmt: skip

"""Evaluation: per-query table, agreement with the teacher, paired tests, latency, the table of a run."""

from pipeline.evaluation.agreement import agreement
from pipeline.evaluation.compare import Comparison, compare
from pipeline.evaluation.gate import judge
from pipeline.evaluation.latency import latency
from pipeline.evaluation.per_query import PerQuery, read_per_query, write_per_query
from pipeline.evaluation.table import result_tables, terminal_table

__all__ = [
    "Comparison",
    "PerQuery",
    "agreement",
    "compare",
    "judge",
    "latency",
    "read_per_query",
    "result_tables",
    "terminal_table",
    "write_per_query",
]

"""Repeats the comparisons in conf/reproduce and holds the results against their expected values."""

from pipeline.reproduce.command import main

__all__ = ["main"]

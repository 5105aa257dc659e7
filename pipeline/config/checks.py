"""The checks of options, and how their errors read."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable

from pipeline.errors import UserError


class ConfigError(UserError):
    """An option that does not exist, cannot have this value, or has no effect."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """'did you mean ...? available: ...' for an error message."""
    names = sorted(allowed)
    # `coupled` is nearer to coupled_rankdistil than to pld.
    close = [name for name in names if word and word in name] or difflib.get_close_matches(word, names, n=3)
    return (f"did you mean {' or '.join(close)}? " if close else "") + f"available: {', '.join(names)}"


def check(ok: bool, key: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{key}={value} is not possible: {allowed}")


def within_float64(value: float) -> float:
    """What overflows float64, as Istella's 1.79769313486232e+308 does, counts as its largest number; NaN stays."""
    largest = sys.float_info.max
    return value if math.isnan(value) else float(min(max(value, -largest), largest))


def one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}={value} is unknown: {nearest(value, allowed)}")

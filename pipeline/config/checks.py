"""Checks of option values, and the errors that they raise."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import UserError


class ConfigError(UserError):
    """An option that does not exist, cannot have this value, or has no effect."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """'did you mean ...? available: ...' for an error message."""
    names = sorted(allowed)
    # By substring first: difflib finds `coupled` more similar to pld than to coupled_rankdistil.
    close = [name for name in names if word and word in name] or difflib.get_close_matches(word, names, n=3)
    return (f"did you mean {' or '.join(close)}? " if close else "") + f"available: {', '.join(names)}"


def check(ok: bool, key: str, value: object, allowed: str) -> None:
    """Raises a ConfigError unless `ok`; `allowed` says which values are possible, or what else to change."""
    if not ok:
        raise ConfigError(f"{key}={value} is not possible", fix=allowed)


def one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}={value} is unknown: {nearest(value, allowed)}")


def at_least(minimum: float, group: str, options: Any, *names: str) -> None:
    """Checks these fields of `options`; null passes."""
    for name in names:
        value = getattr(options, name)
        check(value is None or value >= minimum, f"{group}.{name}", value, f"at least {minimum}")


def above_zero(group: str, options: Any, *names: str) -> None:
    """Checks these fields of `options`; null passes."""
    for name in names:
        value = getattr(options, name)
        check(value is None or value > 0, f"{group}.{name}", value, "a number > 0")


def resolved(config: DictConfig, key: str) -> Any:
    """The plain value of a key; None where there is none.

    Raises:
      ConfigError: an interpolation, such as ${key}, cannot be resolved.
    """
    try:
        node = OmegaConf.select(config, key)
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        where = str(error.full_key or key)
        raise ConfigError(str(error).splitlines()[0], where=where, fix="give a value there") from None


def within_float64(value: float) -> float:
    """Limits a number to what float64 holds, such as Istella's 1.79769313486232e+308; NaN stays NaN."""
    largest = sys.float_info.max
    return value if math.isnan(value) else float(min(max(value, -largest), largest))

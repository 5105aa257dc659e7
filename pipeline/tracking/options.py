"""The options of a run as one flat table, the same keys whatever was chosen."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from pipeline.config import CHOICES, Config, flat
from pipeline.losses.registry import DISTILLATION, options_of

Option = bool | int | float | str

ABSENT = "-"
_NO_HYPER_PARAMETER = ("run_dir", "cache_dir", "stage", "tracking")


def hyper_parameters(config: Config) -> dict[str, Option]:
    """`loss.topk` -> 10 and so on, for a table with a row a run.

    TensorBoard's parallel coordinates leave out a run that lacks a key which another has. So an option that
    only another loss, student or teacher has (`loss.topk` with loss=mse) is there too, with the value "-". Lists
    become text, null becomes "none".
    """
    values = dict.fromkeys(_keys_of_all_choices(), ABSENT) | flat(config.plain())
    return {
        key: value if isinstance(value, bool | int | float | str) else "none" if value is None else str(value)
        for key, value in sorted(values.items())
        if key.split(".")[0] not in _NO_HYPER_PARAMETER
    }


def _keys_of_all_choices() -> Iterator[str]:
    for group in ("student", "teacher"):
        for cls in CHOICES[group].values():
            yield from _keys(cls, f"{group}.")
    for loss in DISTILLATION.values():
        yield from (f"loss.{name}" for name in options_of(loss))


def _keys(cls: Any, prefix: str) -> Iterator[str]:
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from _keys(hint, f"{prefix}{name}.")
        else:
            yield prefix + name

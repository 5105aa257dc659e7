"""The options of a run as one flat table, which has the same columns with the same types for every choice."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterator
from typing import Any

from pipeline.config import CHOICES, Config, EvaluateConfig, ExportConfig, LossConfig, TrainConfig, flat
from pipeline.losses.registry import DISTILLATION, options_of

Option = bool | int | float | str

NO_NUMBER, NO_TEXT = -1.0, "-"  # of options that are null, or that this choice does not have
_NOT_SHOWN = ("run_dir", "cache_dir", "stage", "tracking")
_NEGATIVE = ("data.missing_value",)  # may be null or any number, so its column has text


def own_options(config: Config) -> dict[str, Any]:
    """The run's options by their full keys, such as `loss.topk`."""
    return {k: v for k, v in sorted(flat(config.plain()).items()) if k.split(".")[0] not in _NOT_SHOWN}


def hyper_parameters(config: Config) -> dict[str, Option]:
    """The options of all choices, for a table with one row a run.

    TensorBoard's parallel coordinates leave out a run that lacks a column, and a column with numbers and text can
    neither be sorted nor filtered. So an option that can be null, or that only another choice has (`loss.topk` with
    loss=mse), is there too: a number is -1 then, a text is "-". Lists become text.
    """
    own, table = own_options(config), {}
    for key, is_number in _columns().items():
        value = own.pop(key, None)
        if is_number:
            table[key] = NO_NUMBER if value is None else value
        else:
            table[key] = NO_TEXT if value is None else str(value)
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in own.items()}
    return dict(sorted((table | plain).items()))


@functools.cache
def _columns() -> dict[str, bool]:
    """The options that can be null, or that some choices do not have -> whether they are numbers."""
    choices = {group: [dict(_types(cls)) for cls in classes.values()] for group, classes in CHOICES.items()}
    for group, cls in (("train", TrainConfig), ("evaluate", EvaluateConfig), ("export", ExportConfig)):
        choices[group] = [dict(_types(cls))]
    common = {
        field.name: str(field.type) for field in dataclasses.fields(LossConfig) if field.name != "options"
    }
    choices["loss"] = [common | _loss_types(loss) for loss in DISTILLATION.values()]
    columns = {}
    for group, options in choices.items():
        for name in dict.fromkeys(name for option in options for name in option):
            types = {word.strip() for option in options for word in option.get(name, "None").split("|")}
            if "None" in types:
                columns[f"{group}.{name}"] = (
                    types <= {"None", "int", "float"} and f"{group}.{name}" not in _NEGATIVE
                )
    return columns


def _types(cls: Any) -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.default_factory):
            yield from ((f"{field.name}.{name}", hint) for name, hint in _types(field.default_factory))
        else:
            yield field.name, str(field.type)


def _loss_types(loss: Any) -> dict[str, str]:
    parameters = inspect.signature(loss).parameters
    return {name: str(parameters[name].annotation) for name in options_of(loss)}

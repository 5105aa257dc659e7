"""The defaults of the options, which stand in conf/ and nowhere else."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import yaml

_Class = TypeVar("_Class", bound=type)


@functools.cache
def _file(path: str) -> dict[str, Any]:
    text = importlib.resources.files("pipeline.conf").joinpath(f"{path}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text) or {}


def shipped(path: str) -> dict[str, Any]:
    """The options of conf/<path>.yaml, together with the files of conf/parts that its defaults list names.

    >>> shipped("student/mlp")["hidden"], shipped("teacher/mlp")["scores"]["scale"]
    ([64, 32], 1.0)
    """
    options: dict[str, Any] = {}
    for entry in _file(path).get("defaults", []):
        if str(entry).startswith("/parts/"):
            part, _, package = entry.removeprefix("/").partition("@")
            options |= shipped(part) if package == "_here_" else {package: shipped(part)}
    return options | {key: value for key, value in _file(path).items() if key != "defaults"}


def defaults_of(path: str, key: str | None = None) -> Callable[[_Class], _Class]:
    """Gives a class, before `dataclasses.dataclass`, the defaults of conf/<path>.yaml (below `key`).

    Fields of base classes get theirs, too. An option that is a mapping has a dataclass of its own as its default.
    """

    def set_defaults(cls: _Class) -> _Class:
        options = shipped(path) if key is None else shipped(path)[key]
        fields: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            fields |= vars(base).get("__annotations__", {})
        fields = {name: hint for name, hint in fields.items() if not str(hint).startswith("ClassVar")}
        if set(fields) != set(options):
            raise TypeError(f"{cls.__name__} and conf/{path}.yaml differ in {set(fields) ^ set(options)}")
        cls.__annotations__ = fields
        for name, value in options.items():
            setattr(cls, name, _field(value, fields[name], cls))
        return cls

    return set_defaults


def _field(value: Any, hint: str, cls: type) -> Any:
    if isinstance(value, dict):
        return dataclasses.field(default_factory=getattr(sys.modules[cls.__module__], hint))
    if isinstance(value, list):
        return dataclasses.field(default_factory=lambda: list(value))
    return value

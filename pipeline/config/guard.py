"""What a config cannot do, whoever wrote its files: run code, read or change the environment, write into any file.

The options of this package are names in registries. What is left are the parts of Hydra that import what a config
names: callbacks, launchers, sweepers, logging. They are held to what stands here, wherever Hydra composes a config.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pipeline.config.checks import nearest

_FORBIDDEN_RESOLVERS = ("oc.env", "oc.decode", "oc.deprecated")
_TARGETS = (
    "hydra_plugins.",
    "hydra._internal.core_plugins.",
    "optuna.samplers.",
)  # of launchers and sweepers
_HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_ENVIRONMENT = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "CUDA_VISIBLE_DEVICES")
_LOG = "${hydra:runtime.output_dir}/log"  # logging into another file would append lines to it, as to a shell's start-up
# Of launchers: these are commands. The command line may give them, which is the user; a file may not.
_COMMANDS = ("setup", "srun_args", "additional_parameters", "python", "custom_search_space")


class ForbiddenError(HydraException):
    """A config asks for what no config may do."""


def _refuse(key: str, value: object, allowed: Sequence[str]) -> None:
    raise ForbiddenError(
        f"{key}={value} is not allowed: a config cannot run code, change the environment or choose files to write; "
        + (nearest(str(value), allowed) if allowed else "mend: remove it")
    )


def _items(node: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """-> (full key, key, value) of all mappings below."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield f"{where}.{key}", str(key), value
        yield from _items(value, f"{where}.{key}")


def _check(composed: DictConfig, command_line: Sequence[str]) -> None:
    raw = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(raw, dict)
    hydra = raw.get("hydra") or {}

    def by_user(full: str) -> bool:
        return any(given.lstrip("+").startswith(full) for given in command_line)

    if hydra.get("callbacks"):
        _refuse("hydra.callbacks", hydra["callbacks"], ())
    if hydra.get("output_subdir") and not by_user("hydra.output_subdir"):
        _refuse("hydra.output_subdir", hydra["output_subdir"], ())
    for part in ("launcher", "sweeper"):
        for full, key, value in _items(hydra.get(part), f"hydra.{part}"):
            if key == "_target_" and not str(value).startswith(_TARGETS):
                _refuse(full, value, [f"{prefix}*" for prefix in _TARGETS])
            is_command = value and (key in _COMMANDS or key.endswith("_commands"))
            if is_command and not by_user(full):
                _refuse(full, value, ())
    for part in ("hydra_logging", "job_logging"):
        for full, key, value in _items(hydra.get(part), f"hydra.{part}"):
            if key == "()" or (key == "class" and value not in _HANDLERS):
                _refuse(full, value, _HANDLERS)
            if key == "filename" and value != _LOG and not by_user(full):
                _refuse(full, value, (_LOG,))
            imported = isinstance(value, str) and (key == "stream" or "://" in value)
            if imported and value not in _STREAMS:
                _refuse(full, value, _STREAMS)
    for name in (hydra.get("job") or {}).get("env_set") or {}:
        if name not in _ENVIRONMENT:
            _refuse("hydra.job.env_set", name, _ENVIRONMENT)


def guard() -> None:
    """From now on, every config that Hydra composes in this process is checked before Hydra acts on it."""
    load = ConfigLoaderImpl.load_configuration

    def load_checked(
        self: ConfigLoaderImpl, config_name: Any, overrides: Any, *args: Any, **named: Any
    ) -> DictConfig:
        composed = load(self, config_name, overrides, *args, **named)
        _check(composed, overrides)
        return composed

    ConfigLoaderImpl.load_configuration = load_checked  # type: ignore[method-assign]  # replaced on purpose
    for name in _FORBIDDEN_RESOLVERS:
        OmegaConf.clear_resolver(name)

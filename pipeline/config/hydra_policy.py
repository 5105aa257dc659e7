"""What a file of options cannot do, whoever wrote it: run code, set the environment, choose files to write.

The options of this package are names in registries, and Hydra's own target policy refuses dangerous targets. Of
Hydra's options the command uses few. `check_hydra` looks at the resolved values of the others, and refuses those that
would import, start or write something.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.config.checks import ConfigError, check, nearest, resolved
from pipeline.config.overrides import key_of

_FORBIDDEN_RESOLVERS = ("oc.env", "oc.decode", "oc.deprecated")
_TARGETS = (
    "hydra_plugins.",
    "hydra._internal.core_plugins.",
    "optuna.samplers.",
)  # of launchers and sweepers
_ENVIRONMENT = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "CUDA_VISIBLE_DEVICES")
_LOGGING = {"version": 1, "root": None, "disable_existing_loggers": False}  # hydra/job_logging=none
# Options of launchers and sweepers that are commands. The command line may set them, a file may not.
_COMMANDS = ("setup", "srun_args", "additional_parameters", "python", "custom_search_space")
# Overrides on the command line that keep Hydra from acting on what a job's files say.
NEUTRAL = ("hydra.job_logging.root=null", "hydra.hydra_logging.root=null", "hydra.output_subdir=null")


def forbid_resolvers() -> None:
    """From now on no option of this process can read the environment."""
    for name in _FORBIDDEN_RESOLVERS:
        OmegaConf.clear_resolver(name)


def _refuse(key: str, value: object, fix: str = "remove it") -> None:
    reason = "a config cannot run code, set the environment or choose files to write"
    raise ConfigError(f"{key}={value} is not allowed: {reason}", fix=fix)


def _items(node: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """(full key, key, value) of every mapping below."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield f"{where}.{key}", str(key), value
        yield from _items(value, f"{where}.{key}")


def check_hydra(hydra: DictConfig, command_line: Sequence[str] = ()) -> None:
    """Checks the node `hydra` of a composed config.

    Args:
      hydra: the node.
      command_line: overrides that the user typed.

    Raises:
      ConfigError: a value is not allowed, or cannot be resolved.
    """

    for key in ("callbacks", "output_subdir"):
        if value := resolved(hydra, key):
            _refuse(f"hydra.{key}", value)
    for key in ("job_logging", "hydra_logging"):
        if (value := resolved(hydra, key)) != _LOGGING:
            _refuse(f"hydra.{key}", value, "remove it; the log of a run is RUN_DIR/log")
    for key in ("run.dir", "sweep.dir"):
        if (value := resolved(hydra, key)) != resolved(hydra, "..run_dir"):
            raise ConfigError(
                "has no effect", where=f"hydra.{key}={value}", fix="run_dir=FOLDER, or remove it"
            )
    sweep = OmegaConf.to_container(hydra.sweep)
    assert isinstance(sweep, dict)
    subdir = sweep["subdir"]
    check(str(subdir).startswith("${job_folder:"), "hydra.sweep.subdir", subdir, "remove it")
    check(not resolved(hydra, "job.chdir"), "hydra.job.chdir", True, "remove it")
    for part in ("launcher", "sweeper"):
        options = resolved(hydra, part)
        check(isinstance(options, dict), f"hydra.{part}", options, f"remove it, or hydra/{part}=basic")
        for full, key, value in _items({part: options}, "hydra"):
            if key == "_target_" and not str(value).startswith(_TARGETS):
                _refuse(full, value, nearest(str(value), [f"{prefix}*" for prefix in _TARGETS]))
            typed = any(key_of(override).startswith(full) for override in command_line)
            if value and (key in _COMMANDS or key.endswith("_commands")) and not typed:
                _refuse(full, value, f"give {full} on the command line")
    for name in resolved(hydra, "job.env_set") or {}:
        if name not in _ENVIRONMENT:
            _refuse("hydra.job.env_set", name, nearest(name, _ENVIRONMENT))
    if value := resolved(hydra, "job.env_copy"):
        _refuse("hydra.job.env_copy", value)

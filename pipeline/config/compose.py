"""Config, and how a composed Hydra config becomes one.

Each Hydra group has one dataclass a choice (`CHOICES`). `from_composed` merges the composed Hydra config into them,
because Hydra itself accepts `+group.unknown=1`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import omegaconf
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.checks import ConfigError, check, nearest, one_of, resolved
from pipeline.config.data import (
    IstellaData,
    IstellaSData,
    IstellaXData,
    LetorData,
    MSLRWeb10KData,
    MSLRWeb30KData,
    PublishedData,
    SyntheticData,
    TFDSData,
    YahooData,
)
from pipeline.config.export import ExportConfig
from pipeline.config.overrides import RECIPES, choices_of, explain, searchpath
from pipeline.config.student import AttentionStudent, DCNStudent, LinearStudent, MLPStudent
from pipeline.config.teacher import (
    AttentionTeacher,
    EnsembleTeacher,
    LambdaMARTTeacher,
    MLPTeacher,
    RunFileTeacher,
    SavedModelTeacher,
    ScoresConfig,
    StudentTeacher,
)
from pipeline.config.tracking import TrackingConfig
from pipeline.config.training import EvaluateConfig, LossConfig, TrainConfig

STAGES = ("data", "teacher", "student", "evaluate", "export")

# Of every loss; the others are arguments of its function.
_PLAIN = ("stage", "seed", "run_dir", "cache_dir")  # options without a group
COMMON_LOSS_OPTIONS = ("name", "label_loss", "label_weight", "label_schedule", "label_weight_end")

DataConfig = SyntheticData | LetorData | PublishedData | TFDSData


def has_unlabelled(data: DataConfig) -> bool:
    """Whether the options give lists without labels."""
    return bool(getattr(data, "unlabelled", None) or getattr(data, "unlabelled_queries", 0))


TeacherConfig = (
    LambdaMARTTeacher
    | AttentionTeacher
    | MLPTeacher
    | EnsembleTeacher
    | SavedModelTeacher
    | RunFileTeacher
    | StudentTeacher
)
StudentConfig = LinearStudent | MLPStudent | DCNStudent | AttentionStudent

CHOICES: dict[str, dict[str, type]] = {
    "data": {
        "synthetic": SyntheticData,
        "letor": LetorData,
        "mslr_web10k": MSLRWeb10KData,
        "mslr_web30k": MSLRWeb30KData,
        "istella": IstellaData,
        "istella_s": IstellaSData,
        "istella_x": IstellaXData,
        "yahoo": YahooData,
        "tfds": TFDSData,
    },
    "teacher": {
        "lambdamart": LambdaMARTTeacher,
        "attention": AttentionTeacher,
        "mlp": MLPTeacher,
        "ensemble": EnsembleTeacher,
        "saved_model": SavedModelTeacher,
        "run_file": RunFileTeacher,
        "student": StudentTeacher,
    },
    "student": {
        "linear": LinearStudent,
        "mlp": MLPStudent,
        "dcn": DCNStudent,
        "attention": AttentionStudent,
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    stage: str  # the last stage to run; all: every stage
    seed: int
    run_dir: Path
    cache_dir: Path
    data: DataConfig
    teacher: TeacherConfig
    student: StudentConfig
    loss: LossConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    tracking: TrackingConfig
    export: ExportConfig

    def __post_init__(self) -> None:
        one_of("stage", self.stage, ("all", *STAGES))
        for name in ("run_dir", "cache_dir"):
            path = str(getattr(self, name))
            check(path.isprintable(), name, repr(path), "a path without line breaks and control characters")
        fix = "a path without [ and \\, which TensorFlow takes for a pattern and then finds no model there"
        check(not {"[", "\\"} & set(str(self.run_dir)), "run_dir", self.run_dir, fix)
        ok = self.train.baseline or not self.evaluate.gate.not_below_baseline
        check(
            ok,
            "evaluate.gate.not_below_baseline",
            True,
            "train.baseline=true, to have a baseline to compare with",
        )
        if isinstance(self.teacher, RunFileTeacher):
            scores, has_lists = self.teacher.unlabelled, has_unlabelled(self.data)
            fix = "null, or give the lists that these scores belong to (data.unlabelled)"
            check(has_lists or scores is None, "teacher.unlabelled", scores, fix)
            fix = "a file with the scores of the lists of data.unlabelled"
            check(not has_lists or scores is not None, "teacher.unlabelled", "null", fix)

    def stages(self) -> tuple[str, ...]:
        """The stages to run, in order."""
        return STAGES if self.stage == "all" else STAGES[: STAGES.index(self.stage) + 1]

    def plain(self) -> dict[str, Any]:
        """The resolved options as they are written in YAML and in result.json."""
        plain = dataclasses.asdict(self)
        loss = plain["loss"]
        plain["loss"] = {key: loss[key] for key in COMMON_LOSS_OPTIONS} | loss["options"]
        return plain | {"run_dir": str(self.run_dir), "cache_dir": str(self.cache_dir)}


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by their full keys.

    >>> flat({"seed": 0, "loss": {"topk": 10}})
    {'seed': 0, 'loss.topk': 10}
    """
    found: dict[str, Any] = {}
    for key, value in options.items():
        found |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
        )
    return found


def _build(cls: type, values: dict[str, Any], where: str) -> Any:
    """An instance of the dataclass `cls` from plain values; OmegaConf checks types and keys."""
    base = OmegaConf.structured(cls)
    for node in (base, *(base[name] for name in base if not OmegaConf.is_missing(base, name))):
        if OmegaConf.is_config(node):
            OmegaConf.set_readonly(node, False)  # OmegaConf makes nodes of frozen dataclasses read-only
    try:
        return OmegaConf.to_object(OmegaConf.merge(base, values))
    except omegaconf.errors.MissingMandatoryValue as error:
        key = f"{where}.{error.full_key}"
        raise ConfigError(f"{key} is not set", fix=f"{key}=...") from None
    except omegaconf.errors.ConfigKeyError as error:
        path = str(error.full_key).split(".")
        for name in path[:-1]:
            cls = typing.get_type_hints(cls)[name]
        allowed = [field.name for field in dataclasses.fields(cls)]
        raise ConfigError(f"{where}.{error.full_key} is unknown: {nearest(path[-1], allowed)}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0], where=f"{where}.{error.full_key}") from None


def _member(number: int, value: Any) -> TeacherConfig:
    """A member of an ensemble: the name of a teacher, the folder of a finished run, or options."""
    where, choices = f"teacher.members[{number}]", CHOICES["teacher"]
    if isinstance(value, str) and value not in choices and Path(value).is_dir():
        value = {"name": "student", "run": value}
    options = value if isinstance(value, dict) else {"name": value}
    name = str(options.get("name"))
    one_of(where, name, [choice for choice in choices if choice != "ensemble"])
    member: TeacherConfig = _build(choices[name], options, where)
    same = member.scores == _build(ScoresConfig, {}, where)
    check(same, f"{where}.scores", "...", "teacher.scores; the members' own scores option has no effect")
    synthetic = getattr(member, "synthetic_lists", 0)
    check(synthetic == 0, f"{where}.synthetic_lists", synthetic, "0: a member of an ensemble draws no lists")
    return member


def _loss(values: dict[str, Any]) -> LossConfig:
    common = {key: values.get(key) for key in COMMON_LOSS_OPTIONS}
    for key in ("label_weight", "label_weight_end"):
        if key == "label_weight" or common[key] is not None:
            try:
                common[key] = float(common[key])  # type: ignore[arg-type]  # None is an error, too
            except (TypeError, ValueError):
                raise ConfigError(f"loss.{key}={common[key]} is not a number") from None
    options = {key: value for key, value in values.items() if key not in COMMON_LOSS_OPTIONS}
    return LossConfig(**common, options=options)  # type: ignore[arg-type]


def from_composed(composed: omegaconf.DictConfig) -> Config:
    """The checked Config of a composed Hydra config; the node `hydra` is ignored.

    Raises:
      ConfigError: a key is unknown (also one added with `+`), has the wrong type or cannot have its value.
    """
    values: dict[str, Any] = {}
    fields = [field.name for field in dataclasses.fields(Config)]
    for key in map(str, composed):
        if key != "hydra":
            one_of("option", key, fields)
            values[key] = resolved(composed, key)
    for key in fields:
        if key not in values or (key not in _PLAIN and not isinstance(values[key], dict)):
            raise ConfigError(
                f"{key} is not a group of options", fix=f"remove what replaces or deletes {key}"
            )
    groups: dict[str, Any] = {}
    for group, choices in CHOICES.items():
        name = str(values[group].get("name"))
        one_of(group, name, choices)
        groups[group] = _build(choices[name], values[group], group)
    if isinstance(groups["teacher"], EnsembleTeacher):
        members = [_member(number, value) for number, value in enumerate(groups["teacher"].members)]
        groups["teacher"] = dataclasses.replace(groups["teacher"], members=members)
    for key in ("run_dir", "cache_dir"):
        check(isinstance(values[key], str) and values[key] != "", key, values[key], "a path")
    seed = values["seed"]
    check(type(seed) is int and 0 <= seed < 2**31, "seed", seed, "a whole number, 0 <= seed < 2^31")
    return Config(
        stage=str(values["stage"]),
        seed=seed,
        run_dir=Path(values["run_dir"]).absolute(),
        cache_dir=Path(values["cache_dir"]).expanduser().absolute(),
        loss=_loss(values["loss"]),
        train=_build(TrainConfig, values["train"], "train"),
        evaluate=_build(EvaluateConfig, values["evaluate"], "evaluate"),
        tracking=_build(TrackingConfig, values["tracking"], "tracking"),
        export=_build(ExportConfig, values["export"], "export"),
        **groups,
    )


def compose_hydra(
    overrides: Sequence[str], config_name: str = "config", config_dir: str | None = None
) -> omegaconf.DictConfig:
    """What Hydra composes from these overrides, with the node `hydra`. Nothing of that node takes effect.

    Raises:
      ConfigError: Hydra cannot compose it.
    """
    given = list(overrides)
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError("no such folder", where=f"--config-dir {config_dir}")
        given.append(searchpath(config_dir))
    try:
        with hydra.initialize_config_module("pipeline.conf", version_base="1.3"):
            composed = hydra.compose(config_name, overrides=given, return_hydra_config=True)
            HydraConfig.instance().set_config(composed)  # for values with ${hydra:...}
    except HydraException as error:
        raise ConfigError(explain(error, overrides)) from error
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        fix = "correct this option, or the file that sets it"
        raise ConfigError(" ".join(str(error).split()), fix=fix) from error
    chosen = composed.hydra.runtime.choices
    for field in dataclasses.fields(Config):
        if field.name not in (*_PLAIN, *chosen):
            fix = f"{field.name}=CHOICE, or remove what deletes {field.name}"
            raise ConfigError(f"{field.name} is not one choice", fix=fix)
    for group in RECIPES:  # optional, so Hydra ignores one that does not exist
        if any(override.startswith(f"{group}=") for override in overrides):
            one_of(group, str(chosen[group]), ("None", *choices_of(group)))
    return composed


def compose(overrides: Sequence[str]) -> Config:
    """The checked Config that the command has with these overrides.

    Raises:
      ConfigError: Hydra cannot compose them, or an option is wrong.
    """
    return from_composed(compose_hydra(overrides))

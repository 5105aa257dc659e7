"""The whole Config, and how a composed Hydra config becomes one.

Each Hydra group has one dataclass a choice (`CHOICES`). `from_composed` merges the composed Hydra config into
them again, because Hydra itself lets `+group.unknown=1` through.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import omegaconf
from omegaconf import OmegaConf

from pipeline.config.checks import ConfigError, check, nearest, one_of
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
        mend = (
            "a path without [ and \\, which TensorFlow takes for a pattern, so that it finds no model there"
        )
        check(not {"[", "\\"} & set(str(self.run_dir)), "run_dir", self.run_dir, mend)
        check(
            self.train.baseline or not self.evaluate.gate.not_below_baseline,
            "evaluate.gate.not_below_baseline",
            True,
            "there is no baseline to compare with; mend: train.baseline=true",
        )
        if isinstance(self.teacher, RunFileTeacher):
            scores, has_lists = self.teacher.unlabelled, has_unlabelled(self.data)
            mend = "names the scores of data.unlabelled's lists, but there are none; mend: null, or give the lists"
            check(has_lists or scores is None, "teacher.unlabelled", scores, mend)
            mend = "the lists of data.unlabelled need scores, too; mend: teacher.unlabelled=FILE"
            check(not has_lists or scores is not None, "teacher.unlabelled", "null", mend)

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
    """An instance of the dataclass `cls` from plain values; types and keys are checked by OmegaConf."""
    base = OmegaConf.structured(cls)
    for node in (base, *(node for name in base if OmegaConf.is_config(node := base._get_node(name)))):
        OmegaConf.set_readonly(node, False)  # set by OmegaConf for frozen dataclasses
    try:
        return OmegaConf.to_object(OmegaConf.merge(base, values))
    except omegaconf.errors.MissingMandatoryValue as error:
        key = f"{where}.{error.full_key}"
        raise ConfigError(f"{key} is not set; mend: give {key}=...") from None
    except omegaconf.errors.ConfigKeyError as error:
        path = str(error.full_key).split(".")
        for name in path[:-1]:
            cls = typing.get_type_hints(cls)[name]
        allowed = [field.name for field in dataclasses.fields(cls)]
        raise ConfigError(f"{where}.{error.full_key} is unknown: {nearest(path[-1], allowed)}") from None
    except omegaconf.errors.ValidationError as error:
        raise ConfigError(f"{where}.{error.full_key}: {str(error).splitlines()[0]}") from None


def _member(number: int, value: Any) -> TeacherConfig:
    """A member of an ensemble: the name of a teacher, a finished run's folder, or options."""
    where, choices = f"teacher.members[{number}]", CHOICES["teacher"]
    if isinstance(value, str) and value not in choices and Path(value).is_dir():
        value = {"name": "student", "run": value}
    options = value if isinstance(value, dict) else {"name": value}
    name = str(options.get("name"))
    one_of(where, name, [choice for choice in choices if choice != "ensemble"])
    member: TeacherConfig = _build(choices[name], options, where)
    check(member.scores == ScoresConfig(), f"{where}.scores", "...", "it has no effect; give teacher.scores")
    synthetic = getattr(member, "synthetic_lists", 0)
    check(synthetic == 0, f"{where}.synthetic_lists", synthetic, "only a tree teacher by itself draws lists")
    return member


def _seed(value: Any) -> int:
    ok = type(value) is int and 0 <= value < 2**31
    check(ok, "seed", value, "a whole number, 0 <= seed < 2^31")
    return int(value)


def from_composed(composed: omegaconf.DictConfig) -> Config:
    """The checked Config of a composed Hydra config.

    Raises:
      ConfigError: a key is unknown (also one added with `+`), has the wrong type or cannot have its value.
    """
    raw = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(raw, dict)
    values: dict[str, Any] = {str(key): value for key, value in raw.items()}
    fields = [field.name for field in dataclasses.fields(Config)]
    for key in values:
        one_of("option", key, fields)
    groups: dict[str, Any] = {}
    for group, choices in CHOICES.items():
        name = values[group].get("name")
        one_of(f"{group}", str(name), choices)
        groups[group] = _build(choices[name], values[group], group)
    if isinstance(groups["teacher"], EnsembleTeacher):
        members = [_member(number, value) for number, value in enumerate(groups["teacher"].members)]
        groups["teacher"] = dataclasses.replace(groups["teacher"], members=members)
    loss = dict(values["loss"])
    common = {key: loss.pop(key, None) for key in COMMON_LOSS_OPTIONS}
    for key in ("label_weight", "label_weight_end"):
        if key == "label_weight" or common[key] is not None:
            try:
                common[key] = float(common[key])
            except (TypeError, ValueError):
                raise ConfigError(f"loss.{key}={common[key]} is not a number") from None
    return Config(
        stage=str(values["stage"]),
        seed=_seed(values["seed"]),
        run_dir=Path(values["run_dir"]).absolute(),
        cache_dir=Path(values["cache_dir"]).expanduser().absolute(),
        loss=LossConfig(**common, options=loss),
        train=_build(TrainConfig, values["train"], "train"),
        evaluate=_build(EvaluateConfig, values["evaluate"], "evaluate"),
        tracking=_build(TrackingConfig, values["tracking"], "tracking"),
        export=_build(ExportConfig, values["export"], "export"),
        **groups,
    )

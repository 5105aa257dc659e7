"""Every option of the pipeline: frozen dataclasses, with units and checks.

Each Hydra group has one dataclass a choice (`CHOICES`). `from_composed` merges the composed Hydra config into
them again, because Hydra itself lets `+group.unknown=1` through.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import omegaconf
from omegaconf import OmegaConf

STAGES = ("data", "teacher", "student", "evaluate", "export")


class ConfigError(ValueError):
    """An option that does not exist, cannot have this value, or has no effect."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """'did you mean ...? available: ...' for an error message."""
    names = sorted(allowed)
    close = difflib.get_close_matches(word, names, n=3)
    return (f"did you mean {' or '.join(close)}? " if close else "") + f"available: {', '.join(names)}"


def _check(ok: bool, key: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{key}={value} is not possible: {allowed}")


def _one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}={value} is unknown: {nearest(value, allowed)}")


# ---------------------------------------------------------------------------------------------------- data


@dataclasses.dataclass(frozen=True)
class TransformConfig:
    """What the scorers see; fitted on the training split, stored with the model."""

    log1p: bool = True  # x -> sign(x) log(1 + |x|)
    standardise: bool = True  # zero mean, unit standard deviation of each feature
    clip: float | None = None  # to [-clip, clip], last; null: no clipping

    def __post_init__(self) -> None:
        _check(self.clip is None or self.clip > 0, "data.transform.clip", self.clip, "a number > 0, or null")


@dataclasses.dataclass(frozen=True)
class SyntheticData:
    """The embedded data (pipeline/data/synthetic.py)."""

    name: str = "synthetic"
    seed: int = 0  # of the data alone; `seed` is the run's
    train_queries: int = 600
    vali_queries: int = 200
    test_queries: int = 500
    label_noise: float = 1.5  # standard deviation, in units of the utility's
    transform: TransformConfig = dataclasses.field(default_factory=TransformConfig)

    def __post_init__(self) -> None:
        for split in ("train", "vali", "test"):
            value = getattr(self, f"{split}_queries")
            _check(value >= 1, f"data.{split}_queries", value, "at least 1")
        _check(self.label_noise >= 0, "data.label_noise", self.label_noise, "at least 0")


@dataclasses.dataclass(frozen=True)
class LetorData:
    """LETOR / SVMrank text files, plain or compressed (.gz, .bz2, .xz)."""

    name: str = "letor"
    train: str = omegaconf.MISSING
    vali: str = omegaconf.MISSING
    test: str = omegaconf.MISSING
    num_features: int | None = None  # null: the largest index in the training file
    duplicates: str = "error"  # a feature id twice in a line: error, first, last, sum
    unsorted: str = "error"  # feature ids that do not rise within a line: error, accept
    regroup: bool = False  # gather the rows of a query that is not contiguous
    missing_value: float | None = None  # a number that stands for "missing" (Istella: DBL_MAX) and becomes 0
    transform: TransformConfig = dataclasses.field(default_factory=TransformConfig)

    def __post_init__(self) -> None:
        for split in ("train", "vali", "test"):
            path = getattr(self, split)
            _check(Path(path).is_file(), f"data.{split}", path, "no such file")
        _one_of("data.duplicates", self.duplicates, ("error", "first", "last", "sum"))
        _one_of("data.unsorted", self.unsorted, ("error", "accept"))


@dataclasses.dataclass(frozen=True)
class PublishedData:
    """A published data set, from its publisher's files (pipeline/data/sources.py)."""

    name: str = omegaconf.MISSING
    dir: str = omegaconf.MISSING  # the folder of the archive, or of what was unpacked; or the archive itself
    transform: TransformConfig = dataclasses.field(default_factory=TransformConfig)


@dataclasses.dataclass(frozen=True)
class MSLRWeb10KData(PublishedData):
    name: str = "mslr_web10k"
    fold: int = 1

    def __post_init__(self) -> None:
        _check(1 <= self.fold <= 5, "data.fold", self.fold, "1 to 5")


@dataclasses.dataclass(frozen=True)
class MSLRWeb30KData(MSLRWeb10KData):
    name: str = "mslr_web30k"


@dataclasses.dataclass(frozen=True)
class IstellaData(PublishedData):
    name: str = "istella"
    vali_share: float = 0.2  # of the training queries: this set has no validation split of its own

    def __post_init__(self) -> None:
        _check(0 < self.vali_share < 1, "data.vali_share", self.vali_share, "0 < x < 1")


@dataclasses.dataclass(frozen=True)
class IstellaSData(PublishedData):
    name: str = "istella_s"


@dataclasses.dataclass(frozen=True)
class IstellaXData(PublishedData):
    name: str = "istella_x"


@dataclasses.dataclass(frozen=True)
class YahooData(PublishedData):
    name: str = "yahoo"
    set: int = 1

    def __post_init__(self) -> None:
        _check(self.set in (1, 2), "data.set", self.set, "1 or 2")


@dataclasses.dataclass(frozen=True)
class TFDSData:
    """A ranking data set of TensorFlow Datasets, downloaded and prepared if it is not yet."""

    name: str = "tfds"
    builder: str = (
        omegaconf.MISSING
    )  # such as mslr_web/10k_fold1, istella/main, yahoo_ltrc/set1, letor/<yours>
    data_dir: str | None = None  # where TFDS keeps its data; null: its default, ~/tensorflow_datasets
    vali_share: float = 0.2  # of the training queries, where the builder has no split `vali`
    missing_value: float | None = None  # a number that stands for "missing" (Istella: DBL_MAX) and becomes 0
    transform: TransformConfig = dataclasses.field(default_factory=TransformConfig)

    def __post_init__(self) -> None:
        _check(0 < self.vali_share < 1, "data.vali_share", self.vali_share, "0 < x < 1")


# ------------------------------------------------------------------------------------------------- teacher


@dataclasses.dataclass(frozen=True)
class ScoresConfig:
    """The step between the teacher's raw scores and the loss: cap(scale * transform(t) + offset)."""

    transform: str = "identity"  # identity, shift_min, zscore, rank; each within its list
    scale: float = 1.0  # 1 / teacher temperature
    offset: float = 0.0
    entropy: float | None = None  # nats: the scale that gives the training lists this mean softmax entropy
    cap: float | None = None  # nats: a list's scores lie at most this far below its best one

    def __post_init__(self) -> None:
        _one_of("teacher.scores.transform", self.transform, ("identity", "shift_min", "zscore", "rank"))
        _check(self.scale > 0, "teacher.scores.scale", self.scale, "a number > 0")
        _check(
            self.entropy is None or self.scale == 1.0,
            "teacher.scores.scale",
            self.scale,
            "teacher.scores.entropy sets the scale; give one of the two",
        )
        _check(
            self.entropy is None or self.entropy > 0,
            "teacher.scores.entropy",
            self.entropy,
            "nats > 0, or null",
        )
        _check(self.cap is None or self.cap > 0, "teacher.scores.cap", self.cap, "nats > 0, or null")


@dataclasses.dataclass(frozen=True)
class LambdaMARTTeacher:
    """Gradient-boosted trees with LightGBM's lambdarank objective."""

    name: str = "lambdamart"
    seed: int = 0  # of the teacher alone; `seed` is the run's
    num_trees: int = 500  # at most; early stopping on the validation split usually needs fewer
    learning_rate: float = 0.05
    num_leaves: int = 31
    min_docs_in_leaf: int = 20
    min_sum_hessian: float = 1e-3
    feature_fraction: float = 1.0  # of the features, drawn for each tree
    bagging_fraction: float = 1.0  # of the documents, drawn for each tree
    truncation_level: int = 30  # LambdaMART looks at pairs with a document above this rank
    early_stopping: int = 50  # trees without a better validation NDCG@10
    members: int = 1  # models that differ in their seed; their scores are averaged
    scores: ScoresConfig = dataclasses.field(default_factory=ScoresConfig)

    def __post_init__(self) -> None:
        for key in ("num_trees", "min_docs_in_leaf", "truncation_level", "early_stopping", "members"):
            _check(getattr(self, key) >= 1, f"teacher.{key}", getattr(self, key), "at least 1")
        _check(self.num_leaves >= 2, "teacher.num_leaves", self.num_leaves, "at least 2")
        _check(self.learning_rate > 0, "teacher.learning_rate", self.learning_rate, "a number > 0")
        _check(self.min_sum_hessian >= 0, "teacher.min_sum_hessian", self.min_sum_hessian, "a number >= 0")
        for key in ("feature_fraction", "bagging_fraction"):
            _check(0 < getattr(self, key) <= 1, f"teacher.{key}", getattr(self, key), "0 < x <= 1")
        _check(
            self.members == 1 or self.feature_fraction < 1 or self.bagging_fraction < 1,
            "teacher.members",
            self.members,
            "members differ in what they sample; set teacher.feature_fraction or teacher.bagging_fraction below 1",
        )


@dataclasses.dataclass(frozen=True)
class RunFileTeacher:
    """Scores made elsewhere: a TREC run, or a .npy [docs] in the order of the rows, for each split."""

    name: str = "run_file"
    train: str = omegaconf.MISSING
    vali: str = omegaconf.MISSING
    test: str = omegaconf.MISSING
    scores: ScoresConfig = dataclasses.field(default_factory=ScoresConfig)

    def __post_init__(self) -> None:
        for split in ("train", "vali", "test"):
            path = getattr(self, split)
            _check(Path(path).is_file(), f"teacher.{split}", path, "no such file")


# ------------------------------------------------------------------------------------------------- student


@dataclasses.dataclass(frozen=True)
class LinearStudent:
    name: str = "linear"


@dataclasses.dataclass(frozen=True)
class MLPStudent:
    name: str = "mlp"
    hidden: list[int] = dataclasses.field(default_factory=lambda: [64, 32])  # widths of the hidden layers
    activation: str = "relu"
    dropout: float = 0.0  # after each hidden layer

    def __post_init__(self) -> None:
        _check(
            bool(self.hidden) and min(self.hidden) >= 1,
            "student.hidden",
            self.hidden,
            "widths >= 1, at least one",
        )
        _one_of("student.activation", self.activation, ("relu", "relu6", "tanh", "gelu", "swish"))
        _check(0 <= self.dropout < 1, "student.dropout", self.dropout, "0 <= x < 1")


# -------------------------------------------------------------------------------------------- loss, train


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The student's loss: (1 - label_weight) * distillation loss + label_weight * label loss."""

    name: str
    label_loss: str  # of the mixture, and of the baseline
    label_weight: float
    options: dict[str, Any]  # of the distillation loss; pipeline.losses.registry checks them

    def __post_init__(self) -> None:
        _check(0 <= self.label_weight <= 1, "loss.label_weight", self.label_weight, "0 <= x <= 1")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the student, and the same student on labels alone, are trained."""

    strategy: str = "auto"  # of tf.distribute: auto, one_device, mirrored, multi_worker, tpu
    tpu: str | None = None  # name of the TPU; local: that of this TPU VM; null: the variable TPU_NAME
    epochs: int = 30  # at most
    lists_per_batch: int = 16  # over all replicas together
    learning_rate: float = 4e-3
    schedule: str = "cosine"  # of the learning rate: constant, cosine (to 0 at the last epoch)
    weight_decay: float = 4.0  # decoupled (AdamW): each step takes learning rate * this off the weights
    patience: int = 0  # epochs without a better validation NDCG@10 before the end; 0: run all epochs
    jit: str = "auto"  # XLA: off, loss
    baseline: bool = True  # also train the student on labels alone, same budget
    deterministic: bool = True  # the same numbers from the same command

    def __post_init__(self) -> None:
        _one_of("train.strategy", self.strategy, ("auto", "one_device", "mirrored", "multi_worker", "tpu"))
        for key in ("epochs", "lists_per_batch"):
            _check(getattr(self, key) >= 1, f"train.{key}", getattr(self, key), "at least 1")
        _check(self.learning_rate > 0, "train.learning_rate", self.learning_rate, "a number > 0")
        _one_of("train.schedule", self.schedule, ("constant", "cosine"))
        _check(self.weight_decay >= 0, "train.weight_decay", self.weight_decay, "a number >= 0")
        _check(self.patience >= 0, "train.patience", self.patience, "at least 0")
        _one_of("train.jit", self.jit, ("auto", "off", "loss"))


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    no_relevant: str = "skip"  # how the tables count a query without a relevant document: skip, zero, one
    ties: str = "index"  # order of equal scores: index (as in the data), pessimistic

    def __post_init__(self) -> None:
        _one_of("evaluate.no_relevant", self.no_relevant, ("skip", "zero", "one"))
        _one_of("evaluate.ties", self.ties, ("index", "pessimistic"))


DataConfig = SyntheticData | LetorData | PublishedData | TFDSData
TeacherConfig = LambdaMARTTeacher | RunFileTeacher
StudentConfig = LinearStudent | MLPStudent

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
    "teacher": {"lambdamart": LambdaMARTTeacher, "run_file": RunFileTeacher},
    "student": {"linear": LinearStudent, "mlp": MLPStudent},
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

    def __post_init__(self) -> None:
        _one_of("stage", self.stage, ("all", *STAGES))
        _check(0 <= self.seed < 2**31, "seed", self.seed, "0 <= seed < 2^31")

    def stages(self) -> tuple[str, ...]:
        """The stages to run, in order."""
        return STAGES if self.stage == "all" else STAGES[: STAGES.index(self.stage) + 1]

    def plain(self) -> dict[str, Any]:
        """The resolved options as they are written in YAML and in result.json."""
        plain = dataclasses.asdict(self)
        loss = plain["loss"]
        plain["loss"] = {key: loss[key] for key in ("name", "label_loss", "label_weight")} | loss["options"]
        return plain | {"run_dir": str(self.run_dir), "cache_dir": str(self.cache_dir)}


def _build(cls: type, values: dict[str, Any], where: str) -> Any:
    """An instance of the dataclass `cls` from plain values; types and keys are checked by OmegaConf."""
    base = OmegaConf.structured(cls)
    for node in (base, *(base[name] for name in base if OmegaConf.is_config(base._get_node(name)))):
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
        _one_of("option", key, fields)
    groups: dict[str, Any] = {}
    for group, choices in CHOICES.items():
        name = values[group].get("name")
        _one_of(f"{group}", str(name), choices)
        groups[group] = _build(choices[name], values[group], group)
    loss = dict(values["loss"])
    common = {key: loss.pop(key, None) for key in ("name", "label_loss", "label_weight")}
    try:
        common["label_weight"] = float(common["label_weight"])
    except (TypeError, ValueError):
        raise ConfigError(f"loss.label_weight={common['label_weight']} is not a number") from None
    return Config(
        stage=str(values["stage"]),
        seed=int(values["seed"]),
        run_dir=Path(values["run_dir"]).absolute(),
        cache_dir=Path(values["cache_dir"]).expanduser().absolute(),
        loss=LossConfig(**common, options=loss),
        train=_build(TrainConfig, values["train"], "train"),
        evaluate=_build(EvaluateConfig, values["evaluate"], "evaluate"),
        **groups,
    )

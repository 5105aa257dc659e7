"""Types and limits of the options of the data sets and of the transform."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

from pipeline.config.checks import ConfigError, above_zero, at_least, check, one_of, within_float64
from pipeline.config.defaults import defaults_of


@dataclasses.dataclass(frozen=True)
@defaults_of("parts/transform")
class TransformConfig:
    """What the scorers see; fitted on the training split, stored with the model."""

    log1p: bool
    log_offset: float | None
    log_except: list[int]
    quantiles: int | None
    standardise: bool
    clip: float | None

    def __post_init__(self) -> None:
        where, offset, quantiles = "data.transform", self.log_offset, self.quantiles
        above_zero(where, self, "log_offset", "clip")
        check(offset is None or not self.log1p, f"{where}.log1p", self.log1p, "false with log_offset")
        ok = not self.log_except or self.log1p or offset is not None
        check(ok, f"{where}.log_except", self.log_except, "[] without log1p and log_offset")
        ok = all(index >= 1 for index in self.log_except)
        check(ok, f"{where}.log_except", self.log_except, "indices from 1 on")
        ok = quantiles is None or 2 <= quantiles <= 4096
        check(ok, f"{where}.quantiles", quantiles, "2 to 4096, or null")


def _check_missing_value(options: Any) -> None:
    missing = options.missing_value
    if missing is not None:
        check(not math.isnan(missing), "data.missing_value", missing, "a number, or null")
        object.__setattr__(options, "missing_value", within_float64(missing))


@dataclasses.dataclass(frozen=True)
@defaults_of("data/synthetic")
class SyntheticData:
    name: str
    seed: int
    train_queries: int
    vali_queries: int
    test_queries: int
    label_noise: float
    unlabelled_queries: int
    transform: TransformConfig

    def __post_init__(self) -> None:
        at_least(1, "data", self, "train_queries", "vali_queries", "test_queries")
        at_least(0, "data", self, "label_noise", "unlabelled_queries")


@dataclasses.dataclass(frozen=True)
@defaults_of("data/letor")
class LetorData:
    name: str
    train: str
    vali: str
    test: str
    unlabelled: str | None
    num_features: int | None
    duplicates: str
    unsorted: str
    regroup: bool
    missing_value: float | None
    group_suffix: str | None
    transform: TransformConfig

    def __post_init__(self) -> None:
        for split in ("train", "vali", "test", "unlabelled"):
            path = getattr(self, split)
            if path is None:
                continue
            if not Path(path).is_file():
                found = "not a plain file" if Path(path).exists() else "no such file"
                raise ConfigError(f"{found}, seen from {Path.cwd()}", where=f"data.{split}={path}")
            groups = self.groups_of(path)
            if groups is not None and not groups.is_file():
                raise ConfigError(f"no file {groups}", where=f"data.group_suffix={self.group_suffix}")
        ok = self.num_features is None or 1 <= self.num_features <= 10**6
        check(ok, "data.num_features", self.num_features, "1 to 1000000, or null")
        _check_missing_value(self)
        one_of("data.duplicates", self.duplicates, ("error", "first", "last", "sum"))
        one_of("data.unsorted", self.unsorted, ("error", "accept"))
        ok = not self.regroup or self.group_suffix is None
        check(ok, "data.regroup", True, "false with data.group_suffix")

    def groups_of(self, path: str) -> Path | None:
        """The file with the number of rows of each query in the file `path`; None where rows have a qid."""
        if self.group_suffix is None:
            return None
        return Path(re.sub(r"\.(gz|bz2|xz)$", "", path) + self.group_suffix)


@dataclasses.dataclass(frozen=True)
class PublishedData:
    """A published data set, read from its publisher's files (pipeline/data/sources.py)."""

    name: str
    dir: str
    transform: TransformConfig


@dataclasses.dataclass(frozen=True)
@defaults_of("data/mslr_web10k")
class MSLRWeb10KData(PublishedData):
    fold: int

    def __post_init__(self) -> None:
        check(1 <= self.fold <= 5, "data.fold", self.fold, "1 to 5")


@dataclasses.dataclass(frozen=True)
@defaults_of("data/mslr_web30k")
class MSLRWeb30KData(MSLRWeb10KData):
    pass


@dataclasses.dataclass(frozen=True)
@defaults_of("data/istella")
class IstellaData(PublishedData):
    vali_share: float

    def __post_init__(self) -> None:
        check(0 < self.vali_share < 1, "data.vali_share", self.vali_share, "0 < x < 1")


@dataclasses.dataclass(frozen=True)
@defaults_of("data/istella_s")
class IstellaSData(PublishedData):
    pass


@dataclasses.dataclass(frozen=True)
@defaults_of("data/istella_x")
class IstellaXData(PublishedData):
    pass


@dataclasses.dataclass(frozen=True)
@defaults_of("data/yahoo")
class YahooData(PublishedData):
    set: int

    def __post_init__(self) -> None:
        check(self.set in (1, 2), "data.set", self.set, "1 or 2")


@dataclasses.dataclass(frozen=True)
@defaults_of("data/tfds")
class TFDSData:
    name: str
    builder: str
    data_dir: str | None
    vali_share: float
    missing_value: float | None
    transform: TransformConfig

    def __post_init__(self) -> None:
        check(0 < self.vali_share < 1, "data.vali_share", self.vali_share, "0 < x < 1")
        _check_missing_value(self)

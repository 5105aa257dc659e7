"""Options of the data sets and of the transform."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import omegaconf

from pipeline.config.checks import check, one_of, within_float64


@dataclasses.dataclass(frozen=True)
class TransformConfig:
    """What the scorers see; fitted on the training split, stored with the model."""

    log1p: bool = True  # x -> sign(x) log(1 + |x|), as DASALC does (Qin et al. 2021)
    # Instead of log1p: x -> log(x + log_offset) of features without a negative training value, log(-x + log_offset) of
    # those without a positive one; others stay. With 0.01 and standardise this is allRank's (Pobrotyn et al. 2020).
    log_offset: float | None = None
    log_except: list[int] = dataclasses.field(
        default_factory=list
    )  # features, from 1, that stay without a log
    quantiles: int | None = (
        None  # then x -> its place, 0 to 1, among so many quantiles of its feature; null: no
    )
    standardise: bool = True  # then zero mean, unit standard deviation of each feature
    clip: float | None = None  # to [-clip, clip], last; null: no clipping

    def __post_init__(self) -> None:
        offset, quantiles = self.log_offset, self.quantiles
        check(offset is None or offset > 0, "data.transform.log_offset", offset, "a number > 0, or null")
        check(offset is None or not self.log1p, "data.transform.log1p", self.log1p, "false with log_offset")
        check(
            not self.log_except or self.log1p or offset is not None,
            "data.transform.log_except",
            self.log_except,
            "[] without log1p and log_offset",
        )
        check(
            all(index >= 1 for index in self.log_except),
            "data.transform.log_except",
            self.log_except,
            "from 1 on",
        )
        check(
            quantiles is None or 2 <= quantiles <= 4096,
            "data.transform.quantiles",
            quantiles,
            "2 to 4096, or null",
        )
        check(self.clip is None or self.clip > 0, "data.transform.clip", self.clip, "a number > 0, or null")


@dataclasses.dataclass(frozen=True)
class SyntheticData:
    """The embedded data (pipeline/data/synthetic.py)."""

    name: str = "synthetic"
    seed: int = 0  # of the data alone; `seed` is the run's
    train_queries: int = 600
    vali_queries: int = 200
    test_queries: int = 500
    label_noise: float = 1.5  # standard deviation, in units of the utility's
    unlabelled_queries: int = 0  # further lists without labels, for the student alone
    transform: TransformConfig = dataclasses.field(default_factory=TransformConfig)

    def __post_init__(self) -> None:
        for split in ("train", "vali", "test"):
            value = getattr(self, f"{split}_queries")
            check(value >= 1, f"data.{split}_queries", value, "at least 1")
        check(self.label_noise >= 0, "data.label_noise", self.label_noise, "at least 0")
        check(self.unlabelled_queries >= 0, "data.unlabelled_queries", self.unlabelled_queries, "at least 0")


@dataclasses.dataclass(frozen=True)
class LetorData:
    """LETOR / SVMrank text files, plain or compressed (.gz, .bz2, .xz)."""

    name: str = "letor"
    train: str = omegaconf.MISSING
    vali: str = omegaconf.MISSING
    test: str = omegaconf.MISSING
    unlabelled: str | None = None  # lists for the student alone; their first column is ignored; null: none
    num_features: int | None = None  # null: the largest index in the training file
    duplicates: str = "error"  # a feature id twice in a line: error, first, last, sum
    unsorted: str = "error"  # feature ids that do not rise within a line: error, accept
    regroup: bool = False  # gather the rows of a query that is not contiguous
    missing_value: float | None = None  # a number that stands for "missing" (Istella: DBL_MAX) and becomes 0
    # For files without qid: `train.txt`, plain or train.txt.gz, has the numbers of rows of its queries, one a line, in
    # train.txt<group_suffix>. LightGBM: .query, XGBoost: .group; the query ids are 1, 2, ... null: there is a qid
    group_suffix: str | None = None
    transform: TransformConfig = dataclasses.field(default_factory=TransformConfig)

    def __post_init__(self) -> None:
        for split in ("train", "vali", "test", "unlabelled"):
            path = getattr(self, split)
            if path is None:
                continue
            found = "not a plain file" if Path(path).exists() else "no such file"
            check(Path(path).is_file(), f"data.{split}", path, f"{found}, seen from {Path.cwd()}")
            groups = self.groups_of(path)
            check(
                groups is None or groups.is_file(),
                "data.group_suffix",
                self.group_suffix,
                f"no file {groups}",
            )
        features, missing = self.num_features, self.missing_value
        check(
            features is None or 1 <= features <= 10**6, "data.num_features", features, "1 to 1000000, or null"
        )
        check(missing is None or not math.isnan(missing), "data.missing_value", missing, "a number, or null")
        if missing is not None:
            object.__setattr__(self, "missing_value", within_float64(missing))
        one_of("data.duplicates", self.duplicates, ("error", "first", "last", "sum"))
        one_of("data.unsorted", self.unsorted, ("error", "accept"))
        check(
            not self.regroup or self.group_suffix is None,
            "data.regroup",
            True,
            "false with data.group_suffix",
        )

    def groups_of(self, path: str) -> Path | None:
        """The file with the numbers of rows of the queries in the file `path`; None where rows have a qid."""
        if self.group_suffix is None:
            return None
        return Path(re.sub(r"\.(gz|bz2|xz)$", "", path) + self.group_suffix)


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
        check(1 <= self.fold <= 5, "data.fold", self.fold, "1 to 5")


@dataclasses.dataclass(frozen=True)
class MSLRWeb30KData(MSLRWeb10KData):
    name: str = "mslr_web30k"


@dataclasses.dataclass(frozen=True)
class IstellaData(PublishedData):
    name: str = "istella"
    vali_share: float = 0.2  # of the training queries: this set has no validation split of its own

    def __post_init__(self) -> None:
        check(0 < self.vali_share < 1, "data.vali_share", self.vali_share, "0 < x < 1")


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
        check(self.set in (1, 2), "data.set", self.set, "1 or 2")


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
        check(0 < self.vali_share < 1, "data.vali_share", self.vali_share, "0 < x < 1")
        missing = self.missing_value
        check(missing is None or not math.isnan(missing), "data.missing_value", missing, "a number, or null")
        if missing is not None:
            object.__setattr__(self, "missing_value", within_float64(missing))

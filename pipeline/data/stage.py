"""The data stage: the splits, the features as the scorers see them, the lists without labels.

Artifacts: `data`, the splits as arrays; `features`, the transform and the transformed splits; `unlabelled`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import DataConfig, LetorData, has_unlabelled
from pipeline.data import RankingData
from pipeline.data.check import describe, describe_unlabelled, summary
from pipeline.data.splits import SPLITS, input_files, missing_value_of, read_splits, text_files
from pipeline.data.transform import Transform, fit_transform
from pipeline.data.unlabelled import read_unlabelled
from pipeline.provenance import code_digest, versions
from pipeline.store import Artifact, Store, fingerprint, write_json

# Options that do not change the splits. The key holds the digests of the files in place of their paths.
_NOT_OF_SPLITS = ("transform", "dir", "data_dir", "group_suffix", "unlabelled", "unlabelled_queries")

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataArtifacts:
    """Where the artifacts of the stage are, or will be."""

    data: Artifact
    features: Artifact
    unlabelled: Artifact | None  # None where no option asks for lists without labels

    def all(self) -> list[Artifact]:
        found = [self.data, self.features]
        return found if self.unlabelled is None else [*found, self.unlabelled]


def data_artifacts(config: DataConfig, store: Store) -> DataArtifacts:
    """Finds the artifacts by their keys. Reads only the digests of the input files."""
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in _NOT_OF_SPLITS}
    files = {name: store.digest(path) for name, path in input_files(config).items()}
    code = {"code": code_digest("data.splits", "data.check"), **versions("numpy")}
    data = store.artifact("data", {**options, **files, **code})
    features = store.artifact(
        "features",
        {
            "data": data.name,
            "transform": dataclasses.asdict(config.transform),
            "missing_value": missing_value_of(config),
            "code": code_digest("data.transform"),
            **versions("numpy"),
        },
    )
    if not has_unlabelled(config):
        return DataArtifacts(data, features, None)
    key = {"data": data.name, "queries": getattr(config, "unlabelled_queries", None)}
    files = {name: store.digest(path) for name, path in _unlabelled_files(config).items()}
    code = {"code": code_digest("data.unlabelled", "data.check"), **versions("numpy")}
    return DataArtifacts(data, features, store.artifact("unlabelled", {**key, **files, **code}))


def _unlabelled_files(config: DataConfig) -> dict[str, Path]:
    return text_files(config, "unlabelled") if isinstance(config, LetorData) else {}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The data of a run; all arrays are memory-mapped.

    Args:
      name: of the data set.
      fingerprint: digest of the splits' files.
      splits: train, vali and test with raw features.
      transformed: train and vali with transformed features.
      transform: fitted on the training split.
      unlabelled: lists without labels, with raw features; None where no option asks for them.
      described: data.json, what was found in the data.
      artifacts: where all this is kept.
    """

    name: str
    fingerprint: str
    splits: dict[str, RankingData]
    transformed: dict[str, RankingData]
    transform: Transform
    unlabelled: RankingData | None
    described: dict[str, Any]
    artifacts: DataArtifacts

    def facts(self) -> dict[str, Any]:
        """`data` of result.json."""
        facts: dict[str, Any] = {"name": self.name, "fingerprint": self.fingerprint}
        facts["splits"] = {
            split: {
                "queries": lists.num_queries,
                "docs": lists.num_docs,
                "blank_queries": lists.num_blank_queries,
            }
            for split, lists in self.splits.items()
        }
        if self.unlabelled is not None:
            lists = self.unlabelled
            facts["unlabelled"] = {"queries": lists.num_queries, "docs": lists.num_docs}
        return facts


def load_data(config: DataConfig, artifacts: DataArtifacts) -> Dataset:
    """Reads, checks and transforms the data, or takes them from the store.

    Raises:
      UserError: what is wrong in a file, with file and line.
    """
    has_own_ids = getattr(config, "group_suffix", None) is None
    folder = _splits(config, artifacts.data, has_own_ids)
    splits = {split: RankingData.load(folder / split) for split in SPLITS}
    features = _features(config, artifacts.features, splits)
    unlabelled = None
    if artifacts.unlabelled is not None:
        unlabelled = _unlabelled(config, artifacts.unlabelled, splits, has_own_ids)
    transformed = {
        split: dataclasses.replace(
            splits[split], features=np.load(features / f"{split}.npy", mmap_mode="r", allow_pickle=False)
        )
        for split in ("train", "vali")
    }
    return Dataset(
        name=config.name,
        fingerprint=fingerprint(json.loads((folder / "manifest.json").read_text())["files"]),
        splits=splits,
        transformed=transformed,
        transform=Transform.load(features),
        unlabelled=unlabelled,
        described=json.loads((folder / "data.json").read_text()),
        artifacts=artifacts,
    )


def _splits(config: DataConfig, artifact: Artifact, has_own_ids: bool) -> Path:
    def make(folder: Path) -> None:
        with _emptied_on_error(folder):
            splits = read_splits(config, folder)
            write_json(folder / "data.json", describe(splits, own_ids=has_own_ids))
            for name, path in input_files(config).items():
                artifact.store.check_unchanged(path, artifact.key[name])

    folder = artifact.get(make)
    described = json.loads((folder / "data.json").read_text())
    for line in summary(described):
        log.info("%s", line)
    log.info("all that was found in the data: %s", folder / "data.json")
    for warning in described["warnings"]:
        log.warning("%s", warning)
    return folder


def _features(config: DataConfig, artifact: Artifact, splits: dict[str, RankingData]) -> Path:
    def make(folder: Path) -> None:
        missing = missing_value_of(config)
        transform = fit_transform(config.transform, splits["train"].features, missing_value=missing)
        transform.save(folder)
        for split in ("train", "vali"):
            transform.write(splits[split].features, folder / f"{split}.npy")

    return artifact.get(make)


def _unlabelled(
    config: DataConfig,
    artifact: Artifact,
    splits: dict[str, RankingData],
    has_own_ids: bool,
) -> RankingData:
    def make(folder: Path) -> None:
        with _emptied_on_error(folder):
            lists = read_unlabelled(config, folder, num_features=splits["train"].num_features)
            write_json(folder / "data.json", describe_unlabelled(lists, splits, own_ids=has_own_ids))
            for name, path in _unlabelled_files(config).items():
                artifact.store.check_unchanged(path, artifact.key[name])

    folder = artifact.get(make)
    described = json.loads((folder / "data.json").read_text())
    log.info("unlabelled: %d queries, %d documents", described["queries"], described["docs"])
    for warning in described["warnings"]:
        log.warning("%s", warning)
    return RankingData.load(folder)


@contextlib.contextmanager
def _emptied_on_error(folder: Path) -> Iterator[None]:
    """Removes what was read of a wrong input: the corrected file has another key and cannot use it."""
    try:
        yield
    except ValueError:
        shutil.rmtree(folder)
        raise

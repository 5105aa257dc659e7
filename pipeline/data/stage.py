"""The data stage: the splits, the features as the scorers see them, the lists without labels.

Artifacts: `data`, the splits as arrays; `features`, the transform and the transformed splits; `unlabelled`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
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
from pipeline.data.transform import fit_transform
from pipeline.data.unlabelled import read_unlabelled
from pipeline.provenance import code_digest, versions
from pipeline.store import Store, fingerprint, write_json

# Options that do not change the splits; the files' digests stand in the key instead of where they lie.
_NOT_OF_SPLITS = ("transform", "dir", "data_dir", "group_suffix", "unlabelled", "unlabelled_queries")

log = logging.getLogger(__name__)


@contextlib.contextmanager
def _emptied_on_mistake(folder: Path) -> Iterator[None]:
    """What was read of an input with a mistake is of no use to the mended one, which has another key."""
    try:
        yield
    except ValueError:
        shutil.rmtree(folder)
        raise


class DataStage:
    """One data set. Everything is made, or taken from the store, when it is first asked for.

    Args:
      config: of the data set and its transform.
      store: of the artifacts.
    """

    def __init__(self, config: DataConfig, store: Store) -> None:
        self.config, self.store = config, store

    @functools.cached_property
    def key(self) -> dict[str, Any]:
        """Of the artifact `data`."""
        key = {k: v for k, v in dataclasses.asdict(self.config).items() if k not in _NOT_OF_SPLITS}
        files = {name: self.store.digest(path) for name, path in input_files(self.config).items()}
        return key | files | {"code": code_digest("data.splits", "data.check"), **versions("numpy")}

    @property
    def _own_ids(self) -> bool:
        return getattr(self.config, "group_suffix", None) is None

    @property
    def name(self) -> str:
        return self.store.path("data", self.key).name

    @functools.cached_property
    def folder(self) -> Path:
        def make(folder: Path) -> None:
            with _emptied_on_mistake(folder):
                splits = read_splits(self.config, folder)
                write_json(folder / "data.json", describe(splits, own_ids=self._own_ids))
                for name, path in input_files(self.config).items():
                    self.store.check_unchanged(path, self.key[name])

        folder = self.store.get("data", self.key, make)
        described = json.loads((folder / "data.json").read_text())
        for line in summary(described):
            log.info("%s", line)
        log.info("all that was seen: %s", folder / "data.json")
        for warning in described["warnings"]:
            log.warning("%s", warning)
        return folder

    @functools.cached_property
    def splits(self) -> dict[str, RankingData]:
        return {split: RankingData.load(self.folder / split) for split in SPLITS}

    @property
    def features_key(self) -> dict[str, Any]:
        transform = dataclasses.asdict(self.config.transform)
        return {
            "data": self.name,
            "transform": transform,
            "missing_value": missing_value_of(self.config),
            "code": code_digest("data.transform"),
            **versions("numpy"),
        }

    @property
    def features_name(self) -> str:
        return self.store.path("features", self.features_key).name

    @functools.cached_property
    def unlabelled_key(self) -> dict[str, Any] | None:
        if not has_unlabelled(self.config):
            return None
        queries = getattr(self.config, "unlabelled_queries", None)
        digests = {name: self.store.digest(path) for name, path in self._unlabelled_files().items()}
        code = code_digest("data.unlabelled", "data.check")
        return {"data": self.name, "queries": queries, **digests, "code": code, **versions("numpy")}

    def _unlabelled_files(self) -> dict[str, Path]:
        return text_files(self.config, "unlabelled") if isinstance(self.config, LetorData) else {}

    @functools.cached_property
    def unlabelled_folder(self) -> Path | None:
        """Lists without labels; None where no option asks for them."""
        config, key = self.config, self.unlabelled_key
        if key is None:
            return None

        def make(folder: Path) -> None:
            with _emptied_on_mistake(folder):
                lists = read_unlabelled(config, folder, num_features=self.splits["train"].num_features)
                write_json(
                    folder / "data.json", describe_unlabelled(lists, self.splits, own_ids=self._own_ids)
                )
                for name, path in self._unlabelled_files().items():
                    self.store.check_unchanged(path, key[name])

        folder = self.store.get("unlabelled", key, make)
        described = json.loads((folder / "data.json").read_text())
        log.info("unlabelled: %d queries, %d documents", described["queries"], described["docs"])
        for warning in described["warnings"]:
            log.warning("%s", warning)
        return folder

    def facts(self) -> dict[str, Any]:
        """`data` of result.json."""
        facts: dict[str, Any] = {
            "name": self.config.name,
            "fingerprint": fingerprint(json.loads((self.folder / "manifest.json").read_text())["files"]),
            "splits": {
                split: {
                    "queries": lists.num_queries,
                    "docs": lists.num_docs,
                    "blank_queries": lists.num_blank_queries,
                }
                for split, lists in self.splits.items()
            },
        }
        if self.unlabelled_folder is not None:
            described = json.loads((self.unlabelled_folder / "data.json").read_text())
            facts["unlabelled"] = {key: described[key] for key in ("queries", "docs")}
        return facts

    def artifacts(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(what it is, kind, key) of all that the stage makes, in order."""
        found = [("data", "data", self.key), ("features", "features", self.features_key)]
        if self.unlabelled_key is not None:
            found.append(("unlabelled", "unlabelled", self.unlabelled_key))
        return found

    @functools.cached_property
    def features_folder(self) -> Path:
        config = self.config.transform

        def make(folder: Path) -> None:
            missing = missing_value_of(self.config)
            transform = fit_transform(config, self.splits["train"].features, missing_value=missing)
            transform.save(folder)
            for split in ("train", "vali"):
                transform.write(self.splits[split].features, folder / f"{split}.npy")

        return self.store.get("features", self.features_key, make)

    def transformed(self, split: str) -> RankingData:
        """A split as the scorers see it, memory-mapped."""
        features = np.load(self.features_folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
        return dataclasses.replace(self.splits[split], features=features)

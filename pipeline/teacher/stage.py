"""The teacher stage: makes the teacher's model where it has one, and the raw scores of each split, once.

Artifacts: `teacher`, the model; `scores`, raw scores float64 [docs] of each split, aligned with the data.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from pipeline.config import (
    AttentionTeacher,
    ConfigError,
    EnsembleTeacher,
    LambdaMARTTeacher,
    MLPTeacher,
    RunFileTeacher,
    SavedModelTeacher,
    StudentTeacher,
    TeacherConfig,
    TrainConfig,
)
from pipeline.data import RankingData
from pipeline.data.splits import SPLITS
from pipeline.data.stage import DataStage
from pipeline.data.transform import Transform
from pipeline.provenance import code_digest, versions
from pipeline.teacher.lambdamart import LambdaMART, fit_lambdamart
from pipeline.teacher.neural import NeuralTeacher, fit_network
from pipeline.teacher.run_file import read_scores
from pipeline.teacher.saved_model import SavedModel
from pipeline.teacher.scores import zscore
from pipeline.training.distribute import is_chief, make_together
from pipeline.training.step import label_loss

log = logging.getLogger(__name__)

_DOCS = 1 << 16  # documents scored at a time, in whole lists; so often the bar moves
_NOT_OF_MODEL = ("scores", "unlabelled", "synthetic_lists")  # options that change no raw score of the splits


class Teacher(Protocol):
    """A model on raw features: features float32 [docs, F], offsets int64 [lists + 1] -> scores [docs]."""

    num_parameters: int | None

    def __call__(self, features: np.ndarray, offsets: np.ndarray | None = None, /) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Progress:
    """Told what the stage does."""

    epoch: Callable[[str, dict[str, Any], int], None]  # model, row of the history, number of epochs
    counted: Callable[[str, int, int, str], None]  # what is done, how many so far, of how many, of which unit


class TeacherStage:
    """One teacher, or one member of an ensemble.

    Args:
      config: of the teacher.
      train: options of training that teacher and student share.
      data: the splits.
      strategy: of tf.distribute; trains the networks.
      progress: is told.
      label: how the teacher is called there.

    Raises:
      ConfigError: an option that shows to be wrong before anything is made.
    """

    def __init__(
        self,
        config: TeacherConfig,
        train: TrainConfig,
        data: DataStage,
        strategy: tf.distribute.Strategy,
        progress: Progress,
        label: str = "teacher",
    ) -> None:
        self.config, self.train, self.data, self.strategy = config, train, data, strategy
        self.progress, self.label, self.store = progress, label, data.store
        self.members = []
        if isinstance(config, EnsembleTeacher):
            for number, member in enumerate(config.members):
                name = f"{label} {number} ({member.name})"
                self.members.append(TeacherStage(member, train, data, strategy, progress, name))
        if isinstance(config, MLPTeacher | AttentionTeacher):
            label_loss(config.label_loss, option="teacher.label_loss")

    # ----------------------------------------------------------------------------------------------- keys

    @functools.cached_property
    def model_key(self) -> dict[str, Any] | None:
        """Of the artifact `teacher`; None where the stage trains nothing itself."""
        options = {k: v for k, v in dataclasses.asdict(self.config).items() if k not in _NOT_OF_MODEL}
        if isinstance(self.config, LambdaMARTTeacher):
            code = code_digest("teacher.lambdamart")
            return {"data": self.data.name, "teacher": options, "code": code, **versions("lightgbm", "numpy")}
        if isinstance(self.config, MLPTeacher | AttentionTeacher):
            strategy = self.strategy
            device = strategy.extended.worker_devices[0].split(":")[-2]
            return {
                "features": self.data.features_name,
                "teacher": options,
                "train": {key: getattr(self.train, key) for key in ("jit", "precision", "deterministic")},
                "device": [device, strategy.num_replicas_in_sync],
                "code": code_digest("teacher.neural"),
                **versions("tensorflow", "tf-keras", "numpy"),
            }
        return None

    @functools.cached_property
    def scores_key(self) -> dict[str, Any]:
        """Of the artifact `scores`: the model's, or digests of the files that the scores come from."""
        if self.model_key is not None:
            return self.model_key
        code = code_digest("teacher.run_file", "teacher.saved_model", "teacher.scores")
        key: dict[str, Any] = {"data": self.data.name, "teacher": {"name": self.config.name}, "code": code}
        if isinstance(self.config, EnsembleTeacher):
            key["members"] = [member.scores_key for member in self.members]
        elif isinstance(self.config, RunFileTeacher):
            files = {split: Path(getattr(self.config, split)) for split in SPLITS}
            key["teacher"] |= {split: self.store.digest(path) for split, path in files.items()}
        else:
            path, signature = self._model_path()
            files = {"": path} if path.is_file() else {str(p.relative_to(path)): p for p in path.rglob("*")}
            digests = {name: self.store.digest(p) for name, p in files.items() if p.is_file()}
            key["teacher"] |= {"signature": signature, "files": digests}
        return key

    def artifacts(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(what it is, kind, key) of all that the stage makes, in order."""
        found = [entry for member in self.members for entry in member.artifacts()]
        if self.model_key is not None:
            found.append((self.label, "teacher", self.model_key))
        return [*found, (self.label.replace("teacher", "scores", 1), "scores", self.scores_key)]

    # ---------------------------------------------------------------------------------------------- models

    def _model_path(self) -> tuple[Path, str | None]:
        if isinstance(self.config, StudentTeacher):
            return Path(self.config.run) / "student", None
        assert isinstance(self.config, SavedModelTeacher)
        return Path(self.config.path), self.config.signature

    @functools.cached_property
    def model(self) -> Teacher | None:
        """None where (some of) the scores come from files."""
        config, data = self.config, self.data
        if isinstance(config, RunFileTeacher):
            return None
        if isinstance(config, EnsembleTeacher):
            models = [member.model for member in self.members]
            return Ensemble([m for m in models if m is not None]) if None not in models else None
        if isinstance(config, LambdaMARTTeacher):
            assert self.model_key is not None
            trees = config.members * config.num_trees

            def make(folder: Path) -> None:
                def grown(done: int) -> None:
                    self.progress.counted(f"training {self.label}", done, trees, "trees at most")

                fit_lambdamart(config, data.splits["train"], data.splits["vali"], folder, grown)

            return LambdaMART(self.store.get("teacher", self.model_key, make))
        if isinstance(config, MLPTeacher | AttentionTeacher):
            assert self.model_key is not None
            trained = self.store.get("teacher", self.model_key, self._train)
            return NeuralTeacher(config, trained, Transform.load(data.features_folder))
        path, signature = self._model_path()
        num_parameters = None
        if isinstance(config, StudentTeacher):
            result = json.loads((Path(config.run) / "result.json").read_text())
            num_parameters = int(result["models"]["student"]["parameters"])
        else:
            log.warning(
                "%s is a program that runs with your rights: load no model that you do not trust", path
            )
        return SavedModel(path, signature, data.splits["train"].num_features, num_parameters=num_parameters)

    def _train(self, folder: Path) -> None:
        config, data = self.config, self.data
        assert isinstance(config, MLPTeacher | AttentionTeacher)
        fit_network(
            config,
            data.transformed("train"),
            data.transformed("vali"),
            self.train,
            self.strategy,
            folder,
            chief=is_chief(self.strategy),
            on_epoch=lambda row: self.progress.epoch(self.label, row, config.epochs),
        )

    # ---------------------------------------------------------------------------------------------- scores

    @functools.cached_property
    def scores_folder(self) -> Path:
        """Raw scores of each split."""
        for member in self.members:
            _ = member.scores_folder
        is_network = isinstance(self.config, MLPTeacher | AttentionTeacher)
        if is_network and isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
            assert self.model_key is not None
            get = functools.partial(self.store.get, "teacher", self.model_key)
            make_together(self.strategy, get, self._train, self.store.work_path("teacher", self.model_key))
            path = self.store.path("teacher", self.model_key)
            if path not in path.parent.glob("*"):  # which asks a network file system anew
                raise ConfigError(
                    "the teacher that the chief has written is not in this worker's cache; mend: give all workers the "
                    "same cache_dir"
                )

        def make(folder: Path) -> None:
            for split, data in self.data.splits.items():
                np.save(folder / f"{split}.npy", self._scores_of_split(split, data), allow_pickle=False)

        return self.store.get("scores", self.scores_key, make)

    def _scores_of_split(self, split: str, data: RankingData) -> np.ndarray:
        if self.members:
            return _mean_zscore([member.scores(split) for member in self.members], data.offsets)
        if isinstance(self.config, RunFileTeacher):
            path = Path(getattr(self.config, split))
            scores = read_scores(path, data)
            self.store.check_unchanged(path, self.scores_key["teacher"][split])
            return scores
        return self.score(data, split)

    def scores(self, split: str) -> np.ndarray:
        """float64 [docs], aligned with the data."""
        scores: np.ndarray = np.load(self.scores_folder / f"{split}.npy", allow_pickle=False)
        return scores

    def score(self, lists: RankingData, what: str = "unlabelled") -> np.ndarray:
        """Raw scores float64 [docs] of any lists: by the models, or from the teacher's file for lists without labels.

        Raises:
          ValueError: a score that is not finite; a teacher that has neither a model nor such a file.
        """
        if self.members:
            return _mean_zscore([member.score(lists, what) for member in self.members], lists.offsets)
        model = self.model
        if model is None:
            path = getattr(self.config, "unlabelled", None)
            if path is None:
                raise ValueError(
                    f"{self.label} has no scores for the {what} lists; mend: give unlabelled=FILE"
                )
            return read_scores(Path(path), lists)
        scores = np.empty(lists.num_docs)
        starts = np.searchsorted(lists.offsets, np.arange(0, lists.num_docs, _DOCS), side="right") - 1
        bounds = [*np.unique(starts).tolist(), lists.num_queries]
        for first, last in itertools.pairwise(bounds):
            a, b = lists.offsets[first], lists.offsets[last]
            scores[a:b] = model(lists.features[a:b], lists.offsets[first : last + 1] - a)
            self.progress.counted(f"{self.label} scores {what}", int(b), lists.num_docs, "documents")
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise ValueError(f"{self.label}: the score of document {row} of {what} is {scores[row]}")
        return scores


class Ensemble:
    """The mean of the members' scores, standardised within each list."""

    def __init__(self, members: list[Teacher]) -> None:
        self.members = members
        parameters = [member.num_parameters for member in members]
        self.num_parameters = None if None in parameters else sum(p for p in parameters if p is not None)

    def __call__(self, features: np.ndarray, offsets: np.ndarray | None = None, /) -> np.ndarray:
        assert offsets is not None, "standardises within lists"
        return _mean_zscore([np.asarray(m(features, offsets), np.float64) for m in self.members], offsets)


def _mean_zscore(scores: list[np.ndarray], offsets: np.ndarray) -> np.ndarray:
    mean: np.ndarray = np.mean([zscore(values, offsets) for values in scores], axis=0)
    return mean

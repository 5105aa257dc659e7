"""The teacher stage: makes or loads the teacher's model where it has one, and scores each split once.

Artifacts: `teacher`, the model; `scores`, raw scores float64 [docs] of each split, aligned with the data.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

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
from pipeline.context import Context
from pipeline.data import RankingData
from pipeline.data.splits import SPLITS
from pipeline.data.stage import DataArtifacts, Dataset
from pipeline.provenance import code_digest, versions
from pipeline.store import Artifact
from pipeline.teacher.lambdamart import LambdaMART, fit_lambdamart
from pipeline.teacher.model import Ensemble, Model, mean_zscore, score_lists
from pipeline.teacher.neural import NeuralTeacher, fit_network
from pipeline.teacher.run_file import read_scores
from pipeline.teacher.saved_model import SavedModel
from pipeline.teacher.scores import check_teacher_ranks
from pipeline.training.distribute import make_together

log = logging.getLogger(__name__)

_NOT_OF_MODEL = ("scores", "unlabelled", "synthetic_lists")  # options that do not change the model
_TRAINED_WITH = ("jit", "precision", "deterministic")  # options of the student's training that networks share


@dataclasses.dataclass(frozen=True)
class TeacherArtifacts:
    """Where the artifacts of a teacher, or of a member of an ensemble, are or will be."""

    label: str  # its name in messages
    model: Artifact | None  # None where the stage trains nothing
    scores: Artifact
    members: tuple[TeacherArtifacts, ...] = ()

    def all(self) -> list[Artifact]:
        found = [artifact for member in self.members for artifact in member.all()]
        return [*found, *([] if self.model is None else [self.model]), self.scores]


def teacher_artifacts(
    config: TeacherConfig, train: TrainConfig, data: DataArtifacts, ctx: Context, label: str = "teacher"
) -> TeacherArtifacts:
    """Finds the artifacts by their keys. Reads only the digests of the files that scores or models come from."""
    members: tuple[TeacherArtifacts, ...] = ()
    if isinstance(config, EnsembleTeacher):
        members = tuple(
            teacher_artifacts(member, train, data, ctx, f"{label} {number} ({member.name})")
            for number, member in enumerate(config.members)
        )
    key = _model_key(config, train, data, ctx)
    model = None if key is None else ctx.store.artifact("teacher", key, label)
    scores = ctx.store.artifact(
        "scores", key or _scores_key(config, members, data, ctx), label.replace("teacher", "scores", 1)
    )
    return TeacherArtifacts(label, model, scores, members)


def _model_key(
    config: TeacherConfig, train: TrainConfig, data: DataArtifacts, ctx: Context
) -> dict[str, Any] | None:
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in _NOT_OF_MODEL}
    if isinstance(config, LambdaMARTTeacher):
        code = {"code": code_digest("teacher.lambdamart", "teacher.model"), **versions("lightgbm", "numpy")}
        return {"data": data.data.name, "teacher": options, **code}
    if isinstance(config, MLPTeacher | AttentionTeacher):
        code = {"code": code_digest("teacher.neural", "teacher.model")}
        return {
            "features": data.features.name,
            "teacher": options,
            "train": {key: getattr(train, key) for key in _TRAINED_WITH},
            "device": ctx.device_key,
            **code,
            **versions("tensorflow", "tf-keras", "numpy"),
        }
    return None


def _scores_key(
    config: TeacherConfig, members: tuple[TeacherArtifacts, ...], data: DataArtifacts, ctx: Context
) -> dict[str, Any]:
    """The key of scores that come from files or from other teachers."""
    teacher: dict[str, Any] = {"name": config.name}
    digest = ctx.store.digest
    if isinstance(config, RunFileTeacher):
        teacher |= {split: digest(Path(getattr(config, split))) for split in SPLITS}
    elif isinstance(config, StudentTeacher | SavedModelTeacher):
        path, signature = _model_path(config)
        files = {"": path} if path.is_file() else {str(p.relative_to(path)): p for p in path.rglob("*")}
        digests = {name: digest(p) for name, p in files.items() if p.is_file()}
        teacher |= {"signature": signature, "files": digests}
    code = code_digest("teacher.run_file", "teacher.saved_model", "teacher.model")
    key = {"data": data.data.name, "teacher": teacher, "code": code, **versions("tensorflow", "numpy")}
    return key | ({"members": [member.scores.name for member in members]} if members else {})


def _model_path(config: StudentTeacher | SavedModelTeacher) -> tuple[Path, str | None]:
    if isinstance(config, StudentTeacher):
        return Path(config.run) / "student", None
    return Path(config.path), config.signature


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A teacher that has scored the splits.

    Args:
      label: its name in messages.
      config: its options.
      model: None where (some of) the scores come from files.
      scores: split -> raw scores float64 [docs], aligned with the data.
      artifact: where the scores are kept.
      members: of an ensemble.
      ctx: receives the progress.
    """

    label: str
    config: TeacherConfig
    model: Model | None
    scores: dict[str, np.ndarray]
    artifact: Artifact
    members: tuple[Teacher, ...]
    ctx: Context

    def score(self, lists: RankingData, what: str = "unlabelled") -> np.ndarray:
        """Raw scores float64 [docs] of any lists: by the model, or from the file `unlabelled` of the options.

        Raises:
          UserError: a score is not finite, or the teacher has neither a model nor such a file.
        """
        if self.members:
            return mean_zscore([member.score(lists, what) for member in self.members], lists.offsets)
        if self.model is None:
            path = getattr(self.config, "unlabelled", None)
            if path is None:
                raise ConfigError(
                    f"{self.label} has no scores for the {what} lists", fix="give unlabelled=FILE"
                )
            return read_scores(Path(path), lists)
        return _score(self.model, lists, self.label, what, self.ctx)


def _score(model: Model, lists: RankingData, label: str, what: str, ctx: Context) -> np.ndarray:
    def scored(num_docs: int) -> None:
        ctx.progress.counted(f"{label} scores {what}", num_docs, lists.num_docs, "documents")

    return score_lists(model, lists, f"{label}, {what}", scored)


def make_teacher(
    config: TeacherConfig, train: TrainConfig, data: Dataset, artifacts: TeacherArtifacts, ctx: Context
) -> Teacher:
    """Trains or loads the teacher and scores the splits, or takes both from the store.

    Raises:
      UserError: what is wrong with a file, a model, the labels or the scores.
    """
    members: tuple[Teacher, ...] = ()
    if isinstance(config, EnsembleTeacher):
        members = tuple(
            make_teacher(member, train, data, found, ctx)
            for member, found in zip(config.members, artifacts.members, strict=True)
        )
    model = _make_model(config, train, data, members, artifacts, ctx)

    def make(folder: Path) -> None:
        for split, lists in data.splits.items():
            if members:
                scores = mean_zscore([member.scores[split] for member in members], lists.offsets)
            elif isinstance(config, RunFileTeacher):
                path = Path(getattr(config, split))
                scores = read_scores(path, lists)
                ctx.store.check_unchanged(path, artifacts.scores.key["teacher"][split])
            else:
                assert model is not None
                scores = _score(model, lists, artifacts.label, split, ctx)
            np.save(folder / f"{split}.npy", scores, allow_pickle=False)

    folder = artifacts.scores.get(make)
    scores = {split: np.load(folder / f"{split}.npy", allow_pickle=False) for split in SPLITS}
    return Teacher(artifacts.label, config, model, scores, artifacts.scores, members, ctx)


def _make_model(
    config: TeacherConfig,
    train: TrainConfig,
    data: Dataset,
    members: tuple[Teacher, ...],
    artifacts: TeacherArtifacts,
    ctx: Context,
) -> Model | None:
    """None where (some of) the scores come from files."""
    if isinstance(config, RunFileTeacher):
        return None
    if isinstance(config, EnsembleTeacher):
        models = [member.model for member in members if member.model is not None]
        return Ensemble(models) if len(models) == len(members) else None
    if isinstance(config, LambdaMARTTeacher):
        assert artifacts.model is not None
        num_trees = config.members * config.num_trees

        def make_trees(folder: Path) -> None:
            def grown(done: int) -> None:
                ctx.progress.counted(f"training {artifacts.label}", done, num_trees, "trees at most")

            fit_lambdamart(config, data.splits["train"], data.splits["vali"], folder, grown)

        return LambdaMART(artifacts.model.get(make_trees))
    if isinstance(config, MLPTeacher | AttentionTeacher):
        assert artifacts.model is not None

        def make_network(folder: Path) -> None:
            fit_network(
                config,
                data.transformed["train"],
                data.transformed["vali"],
                train,
                ctx.strategy,
                folder,
                chief=ctx.chief,
                on_epoch=lambda row: ctx.progress.epoch(artifacts.label, row, config.epochs),
            )

        folder = make_together(ctx.strategy, artifacts.model, make_network)
        if folder not in folder.parent.glob("*"):  # listing the parent makes a network file system look again
            raise ConfigError(
                "the teacher that the chief has written is not in this worker's cache",
                where=f"cache_dir={ctx.store.root}",
                fix="give all workers the same cache_dir, on a file system that they share",
            )
        return NeuralTeacher(config, folder, data.transform)
    path, signature = _model_path(config)
    num_parameters = None
    if isinstance(config, StudentTeacher):
        result = json.loads((Path(config.run) / "result.json").read_text())
        num_parameters = int(result["models"]["student"]["parameters"])
    else:
        log.warning("%s is a program that runs with your rights. Load no model that you do not trust.", path)
    return SavedModel(path, signature, data.splits["train"].num_features, num_parameters=num_parameters)


def check_teacher(teacher: Teacher, data: Dataset) -> None:
    """Raises UserError where the teacher gives all documents of every training query the same score."""
    check_teacher_ranks(teacher.scores["train"], data.splits["train"].offsets, "train")

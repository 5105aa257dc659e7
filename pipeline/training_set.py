"""What the student learns from: the training split and lists without labels, with the teacher's scores.

Artifact: `lists`, the transformed lists and raw teacher scores, where there are more lists than the training split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.config import TeacherConfig
from pipeline.context import Context
from pipeline.data import RankingData
from pipeline.data.stage import DataArtifacts, Dataset
from pipeline.data.transform import Transform
from pipeline.data.writer import create_npy
from pipeline.provenance import code_digest
from pipeline.store import Artifact
from pipeline.teacher.augment import synthetic_lists
from pipeline.teacher.lambdamart import LambdaMART
from pipeline.teacher.scores import transform_scores
from pipeline.teacher.stage import Teacher, TeacherArtifacts

_ROWS = 1 << 15  # documents at a time


def lists_artifact(
    config: TeacherConfig, data: DataArtifacts, teacher: TeacherArtifacts, ctx: Context
) -> Artifact | None:
    """None where the student learns from the training split only."""
    num_synthetic = getattr(config, "synthetic_lists", 0)
    if data.unlabelled is None and not num_synthetic:
        return None
    path = getattr(config, "unlabelled", None)
    key = {
        "features": data.features.name,
        "scores": teacher.scores.name,
        "unlabelled": None if data.unlabelled is None else data.unlabelled.name,
        "unlabelled_scores": None if path is None else ctx.store.digest(Path(path)),
        "synthetic_lists": num_synthetic,
        "code": code_digest("training_set"),
    }
    return ctx.store.artifact("lists", key)


def make_lists(artifact: Artifact, data: Dataset, teacher: Teacher) -> Path:
    """The folder of the artifact `lists`; see `join_lists`."""

    def make(folder: Path) -> None:
        train = data.splits["train"]
        parts = [(train, teacher.scores["train"])]
        if data.unlabelled is not None:
            parts.append((data.unlabelled, teacher.score(data.unlabelled)))
        if artifact.key["synthetic_lists"]:
            assert isinstance(teacher.model, LambdaMART)
            lists = synthetic_lists(teacher.model.members, train, per_list=artifact.key["synthetic_lists"])
            parts.append((lists, teacher.score(lists)))
        join_lists(parts, data.transform, folder)

    return artifact.get(make)


def training_set(data: Dataset, teacher: Teacher, lists: Path | None) -> tuple[RankingData, np.ndarray]:
    """The transformed lists that the student learns from and the teacher's logits, float32 [docs].

    Args:
      data: of the run.
      teacher: has scored it.
      lists: the artifact `lists`, or None for the training split only.
    """
    train, scores = data.transformed["train"], teacher.scores["train"]
    num_judged = train.num_queries
    if lists is not None:
        train, scores = RankingData.load(lists), np.load(lists / "teacher.npy", allow_pickle=False)
    return train, transform_scores(teacher.config.scores, scores, train.offsets, num_fitted=num_judged)


def join_lists(parts: Sequence[tuple[RankingData, np.ndarray]], transform: Transform, folder: Path) -> None:
    """Writes the lists of all parts, one after another, with transformed features, in bounded memory.

    Args:
      parts: raw lists and their raw teacher scores [docs].
      transform: fitted on the training split.
      folder: exists; `RankingData.load` maps it, and `teacher.npy` holds the scores, float64.
    """
    num_docs = sum(lists.num_docs for lists, _ in parts)
    with create_npy(folder / "features.npy", (num_docs, transform.num_features)) as file:
        for lists, _ in parts:
            for start in range(0, lists.num_docs, _ROWS):
                transform(lists.features[start : start + _ROWS]).tofile(file)
    sizes = np.concatenate([lists.list_sizes for lists, _ in parts])
    for name, array in (
        ("labels", np.concatenate([lists.labels for lists, _ in parts])),
        ("offsets", np.concatenate([[0], np.cumsum(sizes)])),
        ("query_ids", np.concatenate([lists.query_ids for lists, _ in parts])),
        ("teacher", np.concatenate([scores for _, scores in parts]).astype(np.float64)),
    ):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)

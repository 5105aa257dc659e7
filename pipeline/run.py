"""The stages in order; each takes up what is already made."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pipeline import student as student_losses
from pipeline.artifacts import Store, atomic, fingerprint, write_json
from pipeline.config import Config
from pipeline.data import RankingData
from pipeline.data.check import describe, describe_unlabelled, summary
from pipeline.data.packing import PackedBatches
from pipeline.data.splits import SPLITS, input_files, read_splits
from pipeline.data.transform import Transform, fit_transform
from pipeline.data.unlabelled import read_unlabelled
from pipeline.evaluation import agreement, compare, judge, latency, write_per_query
from pipeline.evaluation.result import metrics_of_splits, provenance, size_facts
from pipeline.export.formats import check_formats, export
from pipeline.export.raw_scorer import RawScorer
from pipeline.metrics import NoRelevant, Ties, summarise
from pipeline.models.networks import Scorer
from pipeline.models.scorer import Score, build_scorer, num_parameters
from pipeline.teacher.augment import synthetic_lists
from pipeline.teacher.lambdamart import LambdaMART
from pipeline.teacher.scores import transform_scores
from pipeline.teacher.stage import Progress, TeacherStage
from pipeline.tracking import Trackers, events_folder, open_trackers, track_epoch, track_result
from pipeline.training.fit import MONITOR, Interrupted, choose_jit, fit, load_history, load_weights
from pipeline.training.step import ListLoss
from pipeline.training.strategy import is_chief, make_strategy

__all__ = ["Interrupted", "Run"]

_UNLABELLED = ("unlabelled", "unlabelled_queries")  # options of data that do not change the splits

log = logging.getLogger(__name__)


class Run:
    """One run: its config, its folder, and the artifacts of its stages, each made when it is first asked for.

    Args:
      config: checked options.
      command: how it was started, for result.json.
      progress: called with (model, row of the history, number of epochs) after each epoch.
      scored: called with (what, documents so far, number of documents) while the teacher scores.
    """

    def __init__(
        self,
        config: Config,
        *,
        command: str = "",
        progress: Callable[[str, dict[str, Any], int], None] = lambda model, row, epochs: None,
        scored: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        self.config, self.command, self.progress, self.scored = config, command, progress, scored
        # First: several workers must make it before TensorFlow runs anything.
        self.strategy = make_strategy(config.train.strategy, tpu=config.train.tpu)
        self.store = Store(config.cache_dir)
        self.started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self.tracking = Trackers()  # those of the options while the run is called
        self._tracked: set[str] = set()  # models whose curves are there
        # What is wrong with these options shows before anything is made.
        choose_jit(config.train.jit, self.strategy)
        check_formats(config.export)
        self.losses = ["student", "baseline"] if config.train.baseline else ["student"]
        for model in self.losses:
            self._loss(model, num_steps=1)
        _ = self.teacher

    def _loss(self, model: str, num_steps: int) -> ListLoss:
        if model == "student":
            return student_losses.distillation_loss(self.config.loss, num_steps=num_steps)
        return student_losses.label_loss(self.config.loss)

    # ------------------------------------------------------------------------------------------------ data

    @functools.cached_property
    def _data_key(self) -> dict[str, Any]:
        key = _without(self.config.data, "transform", "dir", "data_dir", *_UNLABELLED)
        return key | {name: self.store.digest(path) for name, path in input_files(self.config.data).items()}

    @property
    def data_name(self) -> str:
        return self.store.path("data", self._data_key).name

    @functools.cached_property
    def data_folder(self) -> Path:
        def make(folder: Path) -> None:
            write_json(folder / "data.json", describe(read_splits(self.config.data, folder)))
            for name, path in input_files(self.config.data).items():
                self.store.check_unchanged(path, self._data_key[name])

        folder = self.store.get("data", self._data_key, make)
        described = json.loads((folder / "data.json").read_text())
        for line in summary(described):
            log.info("%s", line)
        for warning in described["warnings"]:
            log.warning("%s", warning)
        return folder

    @functools.cached_property
    def data(self) -> dict[str, RankingData]:
        return {split: RankingData.load(self.data_folder / split) for split in SPLITS}

    @property
    def _features_key(self) -> dict[str, Any]:
        return {"data": self.data_name, "transform": dataclasses.asdict(self.config.data.transform)}

    @property
    def features_name(self) -> str:
        return self.store.path("features", self._features_key).name

    @functools.cached_property
    def _unlabelled_key(self) -> dict[str, Any] | None:
        config = self.config.data
        if not self.config.has_unlabelled:
            return None
        return {
            "data": self.data_name,
            "queries": getattr(config, "unlabelled_queries", None),
            "file": self._digest(getattr(config, "unlabelled", None)),
        }

    @functools.cached_property
    def unlabelled_folder(self) -> Path | None:
        """Lists without labels; None where no option asks for them."""
        config, key = self.config.data, self._unlabelled_key
        if key is None:
            return None

        def make(folder: Path) -> None:
            lists = read_unlabelled(config, folder, num_features=self.data["train"].num_features)
            write_json(folder / "data.json", describe_unlabelled(lists, self.data))

        folder = self.store.get("unlabelled", key, make)
        described = json.loads((folder / "data.json").read_text())
        log.info("unlabelled: %d queries, %d documents", described["queries"], described["docs"])
        for warning in described["warnings"]:
            log.warning("%s", warning)
        return folder

    @functools.cached_property
    def features_folder(self) -> Path:
        config = self.config.data.transform

        def make(folder: Path) -> None:
            transform = fit_transform(config, self.data["train"].features)
            transform.save(folder)
            for split in ("train", "vali"):
                transform.write(self.data[split].features, folder / f"{split}.npy")

        return self.store.get("features", self._features_key, make)

    def transformed(self, split: str) -> RankingData:
        """A split as the scorers see it, memory-mapped."""
        features = np.load(self.features_folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
        return dataclasses.replace(self.data[split], features=features)

    # --------------------------------------------------------------------------------------------- teacher

    @functools.cached_property
    def teacher(self) -> TeacherStage:
        progress = Progress(epoch=self.progress, scored=self.scored)
        return TeacherStage(self.config.teacher, self.config.train, self, progress)

    @functools.cached_property
    def _lists_key(self) -> dict[str, Any] | None:
        num_synthetic = getattr(self.config.teacher, "synthetic_lists", 0)
        if self._unlabelled_key is None and not num_synthetic:
            return None
        return {
            "features": self.features_name,
            "scores": self.store.path("scores", self.teacher.scores_key).name,
            "unlabelled": self._unlabelled_key,
            "unlabelled_scores": self._digest(getattr(self.config.teacher, "unlabelled", None)),
            "synthetic_lists": num_synthetic,
        }

    @functools.cached_property
    def lists_folder(self) -> Path | None:
        """The training split and the lists without labels after it, transformed, and raw teacher scores of all, as
        `join_lists` writes them; None where the student learns from the training split alone."""
        key, unlabelled = self._lists_key, self.unlabelled_folder
        if key is None:
            return None

        def make(folder: Path) -> None:
            parts = [(self.data["train"], self.teacher.scores("train"))]
            if unlabelled is not None:
                lists = RankingData.load(unlabelled)
                parts.append((lists, self.teacher.score(lists)))
            if key["synthetic_lists"]:
                model = self.teacher.model
                assert isinstance(model, LambdaMART)
                lists = synthetic_lists(model.members, self.data["train"], per_list=key["synthetic_lists"])
                parts.append((lists, self.teacher.score(lists)))
            student_losses.join_lists(parts, Transform.load(self.features_folder), folder)

        return self.store.get("lists", key, make)

    def _digest(self, path: str | None) -> str | None:
        return None if path is None else self.store.digest(Path(path))

    def training_lists(self) -> tuple[RankingData, np.ndarray]:
        """What the student learns from, and the transformed teacher scores, float32 [docs]."""
        folder, train = self.lists_folder, self.transformed("train")
        scores = self.teacher.scores("train")
        num_judged = train.num_queries
        if folder is not None:
            train, scores = RankingData.load(folder), np.load(folder / "teacher.npy", allow_pickle=False)
        config = self.config.teacher.scores
        return train, transform_scores(config, scores, train.offsets, num_fitted=num_judged)

    # --------------------------------------------------------------------------------------------- student

    @property
    def chief(self) -> bool:
        """Whether this process writes; of several workers one does."""
        return is_chief(self.strategy)

    def build_scorer(self) -> Scorer:
        return build_scorer(self.config.student, self.data["train"].num_features, seed=self.config.seed)

    def _student_key(self, model: str) -> dict[str, Any]:
        config = self.config
        loss: dict[str, Any] = config.plain()["loss"]
        if model == "baseline":  # whatever the student's loss: a sweep over it trains the baseline once
            loss = {"label_loss": loss["label_loss"]}
        return {
            "features": self.features_name,
            "scores": self.store.path("scores", self.teacher.scores_key).name if model == "student" else None,
            "lists": self._lists_key if model == "student" else None,
            "transform_scores": dataclasses.asdict(config.teacher.scores) if model == "student" else None,
            "student": dataclasses.asdict(config.student),
            "loss": loss,
            "train": _without(config.train, "baseline", "strategy", "tpu"),
            "seed": config.seed,
            "device": [
                self.strategy.extended.worker_devices[0].split(":")[-2],
                self.strategy.num_replicas_in_sync,
            ],
            "tensorflow": tf.__version__,
        }

    def trained(self, model: str) -> Path:
        """The folder with the weights and the history of `student` or `baseline`."""
        config, key = self.config, self._student_key(model)

        def make(folder: Path) -> None:
            if model == "student":
                train, teacher = self.training_lists()
            else:
                train = self.transformed("train")
                teacher = np.zeros(train.num_docs, np.float32)
            batches = PackedBatches(train, teacher, config.train.lists_per_batch, config.seed)
            num_steps = config.train.epochs * batches.steps_per_epoch
            self._tracked.add(model)

            def on_epoch(row: dict[str, Any]) -> None:
                track_epoch(self.tracking, model, row)
                self.progress(model, row, config.train.epochs)

            fit(
                self.build_scorer,
                batches,
                self.transformed("vali"),
                self._loss(model, num_steps),
                config.train,
                self.strategy,
                seed=config.seed,
                folder=folder,
                chief=self.chief,
                on_epoch=on_epoch,
                profile_to=events_folder(config.run_dir) / model if self.chief else None,
            )

        if not self.chief:  # trains along, but keeps nothing; the chief holds the lock
            folder = self.store.path("student", key)
            if not folder.exists():
                make(self.store.work_path("student", key))
            return folder
        folder = self.store.get("student", key, make)
        if model not in self._tracked:  # made by another run: its curves belong here too
            self._tracked.add(model)
            for row in load_history(folder)["epochs"]:
                track_epoch(self.tracking, model, row)
        return folder

    def raw_scorer(self, model: str) -> RawScorer:
        """`student` or `baseline` on raw features."""
        scorer = self.build_scorer()
        load_weights(scorer, self.trained(model))
        return RawScorer(Transform.load(self.features_folder), scorer)

    # -------------------------------------------------------------------------------------------- evaluate

    def evaluate(self) -> dict[str, Any]:
        """result.json as a dict; also writes per_query.csv and tells the trackers."""
        scores: dict[str, dict[str, np.ndarray]] = {
            "teacher": {split: self.teacher.scores(split) for split in ("vali", "test")}
        }
        models: dict[str, dict[str, Any]] = {
            "teacher": {
                "parameters": None if self.teacher.model is None else self.teacher.model.num_parameters,
                **_latency(self.teacher.model, self.data["test"].features),
            }
        }
        for model in self.losses:
            scorer = self.raw_scorer(model)
            score = scorer.score
            scores[model] = {
                split: score(self.data[split].features, self.data[split].offsets)
                for split in ("vali", "test")
            }
            models[model] = {
                "parameters": num_parameters(scorer.scorer),
                "best_epoch": load_history(self.trained(model))["best_epoch"],
                "epochs": [
                    {"seconds": row.get("seconds"), "vali": row["vali"][MONITOR]}
                    for row in load_history(self.trained(model))["epochs"]
                ],
                **_latency(score, self.data["test"].features),
            }
        per_query: dict[str, dict[str, np.ndarray]] = {}
        for model, of_split in scores.items():
            metrics = metrics_of_splits(of_split, self.data, ties=cast(Ties, self.config.evaluate.ties))
            models[model]["metrics"] = {split: summarise(values) for split, values in metrics.items()}
            per_query[model] = metrics["test"]
        pairs = [("student", "baseline"), ("student", "teacher"), ("baseline", "teacher")]
        comparisons = [
            compare(per_query[a][MONITOR], per_query[b][MONITOR], a=a, b=b, metric=MONITOR)
            for a, b in pairs
            if a in per_query and b in per_query
        ]
        with atomic(self.config.run_dir / "per_query.csv") as temporary:
            write_per_query(temporary, self.data["test"], per_query)
        epochs = {model: len(load_history(self.trained(model))["epochs"]) for model in self.losses}
        convention = cast(NoRelevant, self.config.evaluate.no_relevant)
        track_result(self.tracking, models, per_query, epochs, convention)
        result: dict[str, Any] = {
            "run": {
                "seed": self.config.seed,
                "command": self.command,
                **provenance(),
                "started": self.started,
                "seconds": self.seconds,
            },
            "config": self.config.plain(),
            "data": {
                "name": self.config.data.name,
                **self._unlabelled_facts(),
                "fingerprint": fingerprint(
                    json.loads((self.data_folder / "manifest.json").read_text())["files"]
                ),
                "splits": {split: size_facts(data) for split, data in self.data.items()},
            },
            "models": models,
            "agreement": {
                "test": agreement(
                    scores["teacher"]["test"], scores["student"]["test"], self.data["test"].offsets
                )
            },
            "comparisons": comparisons,
        }
        evaluation = self.config.evaluate
        gate = judge(result, evaluation.gate, no_relevant=cast(NoRelevant, evaluation.no_relevant))
        return result | {"gate": gate}

    def _unlabelled_facts(self) -> dict[str, Any]:
        """{"unlabelled": {"queries", "docs"}} where there are such lists."""
        if self.unlabelled_folder is None:
            return {}
        described = json.loads((self.unlabelled_folder / "data.json").read_text())
        return {"unlabelled": {key: described[key] for key in ("queries", "docs")}}

    # ------------------------------------------------------------------------------------------------- run

    def plan(self) -> dict[str, list[tuple[str, str]]]:
        """What the run will do: for each stage its artifacts, each `made before`, `goes on` or `to be made`.

        Makes nothing; of large input files it reads the digest that artifacts are kept by. The stages after training
        have no artifacts: they always run.
        """
        artifacts: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
            "data": [("data", "data", self._data_key), ("features", "features", self._features_key)],
            "teacher": self.teacher.artifacts(),
            "student": [(model, "student", self._student_key(model)) for model in self.losses],
        }
        if self._unlabelled_key is not None:
            artifacts["data"].append(("unlabelled", "unlabelled", self._unlabelled_key))
        if self._lists_key is not None:
            artifacts["teacher"].append(("lists", "lists", self._lists_key))

        def state(kind: str, key: dict[str, Any]) -> str:
            if self.store.path(kind, key).exists():
                return "made before"
            return "goes on" if self.store.work_path(kind, key).exists() else "to be made"

        return {
            stage: [(name, state(kind, key)) for name, kind, key in artifacts.get(stage, [])]
            for stage in self.config.stages()
        }

    def __call__(self) -> dict[str, Any] | None:
        """Runs the stages up to `stage`; the result, if the evaluation is among them."""
        if self.config.train.deterministic:
            tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(self.config.seed)
        if not self.chief:
            return self._run_stages()
        with open_trackers(self.config) as self.tracking:
            return self._run_stages()

    def _run_stages(self) -> dict[str, Any] | None:
        result = None
        for stage in self.config.stages():
            with self._timed(stage):
                if stage == "data":
                    _ = self.features_folder, self.unlabelled_folder
                elif stage == "teacher":
                    _ = self.teacher.scores_folder, self.lists_folder
                elif stage == "student":
                    for model in self.losses:
                        self.trained(model)
                elif not self.chief:
                    break
                elif stage == "evaluate":
                    result = self.evaluate()
                elif stage == "export":
                    facts = export(
                        self.raw_scorer("student"), self.data["test"], self.config.export, self.config.run_dir
                    )
                    if result is not None:
                        result["export"] = facts
        if result is not None:
            write_json(self.config.run_dir / "result.json", result)
        return result

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        log.info("stage %s", stage)
        began = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - began, 3)


def _without(config: Any, *names: str) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(config).items() if key not in names}


def _latency(score: Score | None, features: np.ndarray) -> dict[str, float | None]:
    return {"us_per_doc": None, "us_per_doc_list120": None} if score is None else {**latency(score, features)}

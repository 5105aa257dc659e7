"""The stages in order; each takes up what is already made."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pipeline.config import Config
from pipeline.data import RankingData
from pipeline.data.packing import PackedBatches
from pipeline.data.stage import DataStage
from pipeline.data.transform import Transform
from pipeline.evaluation import judge, write_per_query
from pipeline.evaluation.result import provenance
from pipeline.evaluation.stage import Scored, evaluate, summaries
from pipeline.export.formats import check_formats, export
from pipeline.export.raw_scorer import RawScorer
from pipeline.metrics import NoRelevant, Ties
from pipeline.models.networks import Scorer
from pipeline.models.scorer import build_scorer, num_parameters
from pipeline.provenance import code_digest, versions
from pipeline.status import Recorder
from pipeline.store import Store, atomic, write_json
from pipeline.student import distillation_loss, join_lists
from pipeline.teacher.augment import synthetic_lists
from pipeline.teacher.lambdamart import LambdaMART
from pipeline.teacher.scores import transform_scores
from pipeline.teacher.stage import Progress, TeacherStage
from pipeline.tracking import Trackers, events_folder, open_trackers, track_epoch, track_result
from pipeline.training.distribute import is_chief, make_strategy, make_together
from pipeline.training.loop import MONITOR, choose_jit, fit, load_history, load_weights
from pipeline.training.signals import Interrupted
from pipeline.training.step import ListLoss, label_loss

__all__ = ["Interrupted", "Run"]

_NOT_OF_TRAINING = (
    "baseline",
    "strategy",
    "tpu",
    "worker_timeout_s",
)  # options that do not change what is trained

log = logging.getLogger(__name__)


class Run:
    """One run: its config, its folder, and the artifacts of its stages, each made when it is first asked for.

    Args:
      config: checked options.
      command: how it was started, for result.json.
      progress: called with (model, row of the history, number of epochs) after each epoch.
      counted: called with (what, how many so far, of how many, unit) while a teacher of trees grows, or one scores.
    """

    def __init__(
        self,
        config: Config,
        *,
        command: str = "",
        progress: Callable[[str, dict[str, Any], int], None] = lambda model, row, epochs: None,
        counted: Callable[[str, int, int, str], None] = lambda what, done, total, unit: None,
    ) -> None:
        self.config, self.command, self.progress, self.counted = config, command, progress, counted
        # First: several workers must have a strategy before TensorFlow runs anything.
        train = config.train
        self.strategy = make_strategy(train.strategy, tpu=train.tpu, worker_timeout_s=train.worker_timeout_s)
        self.store = Store(config.cache_dir)
        self.data = DataStage(config.data, self.store)
        self.started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self.recorder: Recorder | None = None  # of status.json
        self.tracking = Trackers()  # those of the options while the run is called
        self._tracked: set[str] = set()  # models whose curves are there
        self._joined: set[str] = set()  # models that all workers have trained, or found
        # What is wrong with these options shows before anything is made.
        choose_jit(config.train.jit, self.strategy)
        check_formats(config.export)
        self.losses = ["student", "baseline"] if config.train.baseline else ["student"]
        for model in self.losses:
            self._loss(model, num_steps=1)
        _ = self.teacher

    def _loss(self, model: str, num_steps: int) -> ListLoss:
        if model == "student":
            return distillation_loss(self.config.loss, num_steps=num_steps)
        return label_loss(self.config.loss.label_loss, option="loss.label_loss")

    # --------------------------------------------------------------------------------------------- teacher

    @functools.cached_property
    def teacher(self) -> TeacherStage:
        progress = Progress(epoch=self.progress, counted=self.counted)
        return TeacherStage(self.config.teacher, self.config.train, self.data, self.strategy, progress)

    @functools.cached_property
    def _lists_key(self) -> dict[str, Any] | None:
        num_synthetic = getattr(self.config.teacher, "synthetic_lists", 0)
        if self.data.unlabelled_key is None and not num_synthetic:
            return None
        path = getattr(self.config.teacher, "unlabelled", None)
        return {
            "features": self.data.features_name,
            "scores": self.store.path("scores", self.teacher.scores_key).name,
            "unlabelled": self.data.unlabelled_key,
            "unlabelled_scores": None if path is None else self.store.digest(Path(path)),
            "synthetic_lists": num_synthetic,
            "code": code_digest("student", "teacher.augment"),
        }

    @functools.cached_property
    def lists_folder(self) -> Path | None:
        """The training split and the lists without labels after it, transformed, and raw teacher scores of all, as
        `join_lists` writes them; None where the student learns from the training split alone."""
        key, unlabelled = self._lists_key, self.data.unlabelled_folder
        if key is None:
            return None

        def make(folder: Path) -> None:
            parts = [(self.data.splits["train"], self.teacher.scores("train"))]
            if unlabelled is not None:
                lists = RankingData.load(unlabelled)
                parts.append((lists, self.teacher.score(lists)))
            if key["synthetic_lists"]:
                model = self.teacher.model
                assert isinstance(model, LambdaMART)
                lists = synthetic_lists(
                    model.members, self.data.splits["train"], per_list=key["synthetic_lists"]
                )
                parts.append((lists, self.teacher.score(lists)))
            join_lists(parts, Transform.load(self.data.features_folder), folder)

        return self.store.get("lists", key, make)

    def training_lists(self) -> tuple[RankingData, np.ndarray]:
        """What the student learns from, and the transformed teacher scores, float32 [docs]."""
        folder, train = self.lists_folder, self.data.transformed("train")
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
        return build_scorer(
            self.config.student, self.data.splits["train"].num_features, seed=self.config.seed
        )

    def _student_key(self, model: str) -> dict[str, Any]:
        config = self.config
        loss: dict[str, Any] = config.plain()["loss"]
        if model == "baseline":  # whatever the student's loss: a sweep over it trains the baseline once
            loss = {"label_loss": loss["label_loss"]}
        return {
            "features": self.data.features_name,
            "scores": self.store.path("scores", self.teacher.scores_key).name if model == "student" else None,
            "lists": self._lists_key if model == "student" else None,
            "transform_scores": dataclasses.asdict(config.teacher.scores) if model == "student" else None,
            "student": dataclasses.asdict(config.student),
            "loss": loss,
            "train": {k: v for k, v in dataclasses.asdict(config.train).items() if k not in _NOT_OF_TRAINING},
            "seed": config.seed,
            "device": [
                self.strategy.extended.worker_devices[0].split(":")[-2],
                self.strategy.num_replicas_in_sync,
            ],
            "code": code_digest("training.loop", "student", "models.scorer"),
            **versions("tensorflow", "tf-keras", "numpy"),
        }

    def trained(self, model: str) -> Path:
        """The folder with the weights and the history of `student` or `baseline`."""
        config, key = self.config, self._student_key(model)

        def make(folder: Path) -> None:
            if model == "student":
                train, teacher = self.training_lists()
            else:
                train = self.data.transformed("train")
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
                self.data.transformed("vali"),
                self._loss(model, num_steps),
                config.train,
                self.strategy,
                seed=config.seed,
                folder=folder,
                chief=self.chief,
                on_epoch=on_epoch,
                profile_to=events_folder(config.run_dir) / model if self.chief else None,
            )

        get = functools.partial(self.store.get, "student", key)
        if model not in self._joined:  # all come here at the same time, and the chief once more later
            self._joined.add(model)
            make_together(self.strategy, get, make, self.store.work_path("student", key))
        if not self.chief:
            return self.store.path("student", key)
        folder = get(make)
        if model not in self._tracked:  # made by another run: its curves belong here too
            self._tracked.add(model)
            for row in load_history(folder)["epochs"]:
                track_epoch(self.tracking, model, row)
        return folder

    def raw_scorer(self, model: str) -> RawScorer:
        """`student` or `baseline` on raw features."""
        scorer = self.build_scorer()
        load_weights(scorer, self.trained(model))
        return RawScorer(Transform.load(self.data.features_folder), scorer)

    # -------------------------------------------------------------------------------------------- evaluate

    def _scored(self, students: Sequence[str]) -> dict[str, Scored]:
        """The teacher and these students on raw features."""
        splits, teacher = self.data.splits, self.teacher.model
        models = {
            "teacher": Scored(
                scores={split: self.teacher.scores(split) for split in ("vali", "test")},
                facts={"parameters": None if teacher is None else teacher.num_parameters},
                score=teacher,
            )
        }
        for model in students:
            scorer, history = self.raw_scorer(model), load_history(self.trained(model))
            models[model] = Scored(
                scores={s: scorer.score(splits[s].features, splits[s].offsets) for s in ("vali", "test")},
                facts={
                    "parameters": num_parameters(scorer.scorer),
                    "best_epoch": history["best_epoch"],
                    "vali_by_epoch": [row["vali"][MONITOR] for row in history["epochs"]],
                },
                score=scorer.score,
            )
        return models

    def made(self) -> dict[str, Any]:
        """`data` and `models` of result.json without costs, of the models that the stages up to `stage` make."""
        students = self.losses if "student" in self.config.stages() else []
        ties, splits = cast(Ties, self.config.evaluate.ties), self.data.splits
        models = {
            name: {**model.facts, "metrics": summaries(model, splits, ties=ties)}
            for name, model in self._scored(students).items()
        }
        return {"data": self.data.facts(), "models": models}

    def evaluate(self) -> dict[str, Any]:
        """result.json as a dict; also writes per_query.csv and tells the trackers."""
        config, splits = self.config, self.data.splits
        convention = cast(NoRelevant, config.evaluate.no_relevant)
        models = self._scored(self.losses)
        epoch_seconds = {
            model: [row.get("seconds") for row in load_history(self.trained(model))["epochs"]]
            for model in self.losses
        }
        found, per_query = evaluate(models, splits, ties=cast(Ties, config.evaluate.ties))
        with atomic(config.run_dir / "per_query.csv") as temporary:
            write_per_query(temporary, splits["test"], per_query)
        epochs = {model: len(seconds) for model, seconds in epoch_seconds.items()}
        track_result(self.tracking, found["models"], per_query, epochs, convention)
        run = {"seed": config.seed, "command": self.command, **provenance()}
        run |= {"started": self.started, "seconds": self.seconds, "epoch_seconds": epoch_seconds}
        result = {"run": run, "config": config.plain(), "data": self.data.facts(), **found}
        return result | {"gate": judge(result, config.evaluate.gate, no_relevant=convention)}

    # ------------------------------------------------------------------------------------------------- run

    def plan(self) -> dict[str, list[tuple[str, str]]]:
        """What the run will do: for each stage its artifacts, each `made before`, `goes on` or `to be made`.

        Makes nothing; of large input files it reads the digest that artifacts are kept by. The stages after training
        have no artifacts: they always run.
        """
        artifacts: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
            "data": self.data.artifacts(),
            "teacher": self.teacher.artifacts(),
            "student": [(model, "student", self._student_key(model)) for model in self.losses],
        }
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
                    _ = self.data.folder, self.data.features_folder, self.data.unlabelled_folder
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
                        self.raw_scorer("student"),
                        self.data.splits["test"],
                        self.config.export,
                        self.config.run_dir,
                    )
                    if result is not None:
                        result["export"] = facts
        if result is not None:
            write_json(self.config.run_dir / "result.json", result)
        return result

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        log.info("stage %s", stage)
        if self.recorder is not None:
            self.recorder.stage(stage)
        began = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - began, 3)

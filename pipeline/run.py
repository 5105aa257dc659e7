"""One run: its stages in order. Each takes from the store what is already made."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import logging
import time
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pipeline.config import Config
from pipeline.context import NO_PROGRESS, Context, Progress
from pipeline.data.stage import DataArtifacts, Dataset, data_artifacts, load_data
from pipeline.evaluation import judge, write_per_query
from pipeline.evaluation.result import provenance
from pipeline.evaluation.stage import Scored, evaluate, summaries
from pipeline.export.formats import check_formats, export
from pipeline.export.raw_scorer import RawScorer
from pipeline.metrics import NoRelevant, Ties
from pipeline.models.scorer import num_parameters
from pipeline.status import Recorder
from pipeline.store import Artifact, Store, atomic, write_json
from pipeline.student import BASELINE, STUDENT, TrainedModel, loss_of, model_artifact, train_model
from pipeline.teacher.stage import Teacher, TeacherArtifacts, check_teacher, make_teacher, teacher_artifacts
from pipeline.tracking import Trackers, open_trackers, track_result
from pipeline.training.distribute import make_strategy
from pipeline.training.loop import MONITOR, choose_jit
from pipeline.training.signals import Interrupted
from pipeline.training.step import label_loss
from pipeline.training_set import lists_artifact, make_lists, training_set

__all__ = ["Interrupted", "Outcome", "RunArtifacts", "find_artifacts", "make_context", "plan", "run"]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run made; None or empty where its `stage` ends earlier."""

    data: Dataset
    teacher: Teacher | None = None
    models: dict[str, TrainedModel] = dataclasses.field(default_factory=dict)  # student, baseline
    result: dict[str, Any] | None = None  # result.json

    def raw_scorer(self, model: str) -> RawScorer:
        """`student` or `baseline` on raw features."""
        return RawScorer(self.data.transform, self.models[model].load())


def run(
    config: Config, ctx: Context | None = None, *, command: str = "", recorder: Recorder | None = None
) -> Outcome:
    """Runs the stages up to `config.stage` and writes what they make below `config.run_dir`.

    Args:
      config: checked options.
      ctx: as `make_context` makes it.
      command: how the run was started, for result.json.
      recorder: writes status.json.

    Raises:
      UserError: an option, a file or a package that does not fit. Wrong options show before anything is made.
      Interrupted: a signal stopped the training; the same run goes on from there.
    """
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    ctx = make_context(config) if ctx is None else ctx
    artifacts = find_artifacts(config, ctx)
    if recorder is not None:
        found = [artifact for stage in artifacts.by_stage().values() for artifact in stage]
        recorder.artifacts({artifact.label: artifact.path for artifact in found})
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    stages, seconds = config.stages(), dict[str, float]()
    timed = functools.partial(_timed, seconds=seconds, recorder=recorder)
    with open_trackers(config) if ctx.chief else contextlib.nullcontext(Trackers()) as trackers:
        ctx = dataclasses.replace(ctx, trackers=trackers)
        with timed("data"):
            data = load_data(config.data, artifacts.data)
        if "teacher" not in stages:
            return Outcome(data)
        with timed("teacher"):
            teacher = make_teacher(config.teacher, config.train, data, artifacts.teacher, ctx)
            check_teacher(teacher, data)
            lists = None if artifacts.lists is None else make_lists(artifacts.lists, data, teacher)
        if "student" not in stages:
            return Outcome(data, teacher)
        with timed("student"):
            sets = {STUDENT: lambda: training_set(data, teacher, lists), BASELINE: lambda: _labels_only(data)}
            models = {
                name: train_model(config, artifact, data.transformed["vali"], sets[name], ctx)
                for name, artifact in artifacts.models.items()
            }
        outcome = Outcome(data, teacher, models)
        if "evaluate" not in stages or not ctx.chief:
            return outcome
        facts = {
            "seed": config.seed,
            "command": command,
            **provenance(),
            "started": started,
            "seconds": seconds,
        }
        with timed("evaluate"):
            result = _evaluate(config, outcome, facts, trackers)
        if "export" in stages:
            with timed("export"):
                student, test = outcome.raw_scorer(STUDENT), data.splits["test"]
                result["export"] = export(student, test, config.export, config.run_dir)
        write_json(config.run_dir / "result.json", result)
    return dataclasses.replace(outcome, result=result)


def make_context(config: Config, progress: Progress = NO_PROGRESS) -> Context:
    """The store and the strategy of a run. Several workers must make it before TensorFlow runs anything.

    Raises:
      UserError: what does not fit the strategy or the installed packages.
    """
    train = config.train
    strategy = make_strategy(train.strategy, tpu=train.tpu, worker_timeout_s=train.worker_timeout_s)
    choose_jit(train.jit, strategy)
    check_formats(config.export)
    for model in _trained(config):
        loss_of(config.loss, model)
    if hasattr(config.teacher, "label_loss"):
        label_loss(config.teacher.label_loss, option="teacher.label_loss")
    return Context(Store(config.cache_dir), strategy, progress)


# ------------------------------------------------------------------------------------------------------ artifacts


@dataclasses.dataclass(frozen=True)
class RunArtifacts:
    """Where everything that a run makes is, or will be."""

    data: DataArtifacts
    teacher: TeacherArtifacts
    lists: Artifact | None
    models: dict[str, Artifact]

    def by_stage(self) -> dict[str, list[Artifact]]:
        teacher = self.teacher.all()
        return {
            "data": self.data.all(),
            "teacher": teacher if self.lists is None else [*teacher, self.lists],
            "student": list(self.models.values()),
        }


def _trained(config: Config) -> tuple[str, ...]:
    return (STUDENT, BASELINE) if config.train.baseline else (STUDENT,)


def find_artifacts(config: Config, ctx: Context) -> RunArtifacts:
    """Finds the artifacts by their keys and makes none. Of large input files it reads the digests."""
    data = data_artifacts(config.data, ctx.store)
    teacher = teacher_artifacts(config.teacher, config.train, data, ctx)
    lists = lists_artifact(config.teacher, data, teacher, ctx)
    models = {
        name: model_artifact(config, name, data, teacher.scores, lists, ctx) for name in _trained(config)
    }
    return RunArtifacts(data, teacher, lists, models)


def plan(config: Config, ctx: Context) -> dict[str, list[tuple[str, str]]]:
    """stage -> (artifact, state) of what the run will do; see `Artifact.state`. Later stages always run."""
    found = find_artifacts(config, ctx).by_stage()
    return {
        stage: [(artifact.label, artifact.state()) for artifact in found.get(stage, [])]
        for stage in config.stages()
    }


# ----------------------------------------------------------------------------------------------------- evaluation


def _labels_only(data: Dataset) -> tuple[Any, np.ndarray]:
    train = data.transformed["train"]
    return train, np.zeros(train.num_docs, np.float32)


def _scored(outcome: Outcome) -> dict[str, Scored]:
    """The scores of the teacher and of what was trained, on raw features."""
    splits, teacher = outcome.data.splits, outcome.teacher
    assert teacher is not None
    parameters = None if teacher.model is None else teacher.model.num_parameters
    facts = {"parameters": parameters, "made_by": teacher.artifact.made_by()}
    scores = {split: teacher.scores[split] for split in ("vali", "test")}
    scored = {"teacher": Scored(scores, facts, teacher.model)}
    for name, model in outcome.models.items():
        scorer, history = outcome.raw_scorer(name), model.history()
        scored[name] = Scored(
            scores={s: scorer.score(splits[s].features, splits[s].offsets) for s in ("vali", "test")},
            facts={
                "parameters": num_parameters(scorer.scorer),
                "made_by": model.artifact.made_by(),
                "best_epoch": history["best_epoch"],
                "vali_by_epoch": [row["vali"][MONITOR] for row in history["epochs"]],
            },
            score=scorer.score,
        )
    return scored


def summary(config: Config, outcome: Outcome) -> dict[str, Any]:
    """`data` and `models` of result.json without costs, for a run that ends before the evaluation."""
    ties = cast(Ties, config.evaluate.ties)
    models = {
        name: {**model.facts, "metrics": summaries(model, outcome.data.splits, ties=ties)}
        for name, model in _scored(outcome).items()
    }
    return {"data": outcome.data.facts(), "models": models}


def _evaluate(config: Config, outcome: Outcome, facts: dict[str, Any], trackers: Trackers) -> dict[str, Any]:
    """The content of result.json; writes per_query.csv."""
    splits, convention = outcome.data.splits, cast(NoRelevant, config.evaluate.no_relevant)
    found, per_query = evaluate(_scored(outcome), splits, ties=cast(Ties, config.evaluate.ties))
    with atomic(config.run_dir / "per_query.csv") as temporary:
        write_per_query(temporary, splits["test"], per_query)
    epoch_seconds = {
        name: [row.get("seconds") for row in model.history()["epochs"]]
        for name, model in outcome.models.items()
    }
    epochs = {name: len(of_epoch) for name, of_epoch in epoch_seconds.items()}
    track_result(trackers, found["models"], per_query, epochs, convention)
    run = facts | {"epoch_seconds": epoch_seconds}
    result = {"run": run, "config": config.plain(), "data": outcome.data.facts(), **found}
    return result | {"gate": judge(result, config.evaluate.gate, no_relevant=convention)}


@contextlib.contextmanager
def _timed(stage: str, seconds: dict[str, float], recorder: Recorder | None) -> Iterator[None]:
    log.info("stage %s", stage)
    if recorder is not None:
        recorder.stage(stage)
    began = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - began, 3)

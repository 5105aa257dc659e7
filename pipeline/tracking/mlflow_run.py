"""MLflow: each run of the pipeline is one MLflow run. Its package is the extra `mlflow`, imported on demand."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import ConfigError
from pipeline.config.tracking import TrackingConfig
from pipeline.store import write_json

log = logging.getLogger(__name__)

FILE = "mlflow.json"
_EXPERIMENT = "rankdistil"
_PARAMS_A_CALL = 100  # MLflow's limit


class MLflowTracker:
    """Options as parameters, `student/eval/vali ndcg_10 skip` and so on as metrics with steps.

    `run_dir/mlflow.json` keeps the run's id, so that the same command replaces the run instead of adding another one.
    The values of each query are in per_query.csv.
    """

    def __init__(self, config: TrackingConfig, run_dir: Path, options: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before its import
        try:
            from mlflow.entities import Metric, Param
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"mlflow needs a package that is not installed ({error.name})",
                where="tracking.writers",
                fix="pip install 'rankdistil-pipeline[mlflow]'",
            ) from None
        self._metric = Metric
        try:
            self._client = MlflowClient(tracking_uri=config.mlflow_uri)
            name = config.mlflow_experiment or _EXPERIMENT
            with contextlib.suppress(MlflowException):  # it exists already
                self._client.create_experiment(name)
            experiment = self._client.get_experiment_by_name(name)
            assert experiment is not None
        except (MlflowException, ModuleNotFoundError) as error:
            raise ConfigError(
                str(error),
                where=f"tracking.mlflow_uri={config.mlflow_uri}",
                fix="the address of a server (http://...), or sqlite:///FILE.db after pip install sqlalchemy alembic",
            ) from error
        path = run_dir / FILE
        if path.is_file():
            with contextlib.suppress(MlflowException):  # it is in another store, or was deleted by hand
                self._client.delete_run(json.loads(path.read_text())["run_id"])
        run = self._client.create_run(
            experiment.experiment_id, run_name=run_dir.name, tags={"run_dir": str(run_dir)}
        )
        self._id = run.info.run_id
        write_json(path, {"run_id": self._id, "experiment": name})
        own = [Param(key, "null" if value is None else str(value)) for key, value in options.items()]
        for start in range(0, len(own), _PARAMS_A_CALL):
            self._client.log_batch(self._id, params=own[start : start + _PARAMS_A_CALL])
        log.info("MLflow: experiment %s, run %s", name, self._id)

    def _log(self, values: Mapping[str, float], prefix: str, step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._metric(_name(prefix + tag), float(value), now, step) for tag, value in values.items()
        ]
        self._client.log_batch(self._id, metrics=metrics)

    def scalars(self, model: str, step: int, values: Mapping[str, float]) -> None:
        self._log(values, f"{model}/", step)

    def histogram(self, model: str, step: int, tag: str, values: np.ndarray) -> None:
        pass

    def summary(self, values: Mapping[str, float]) -> None:
        self._log(values, "", 0)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def _name(tag: str) -> str:
    """A name that MLflow accepts.

    >>> _name("student/eval/vali ndcg@10 (skip)")
    'student/eval/vali ndcg_10 skip'
    """
    return re.sub(r"[^\w.\- :/]", "", tag.replace("@", "_"))

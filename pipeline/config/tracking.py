"""Types and limits of the options of the trackers, which receive a run's numbers beside result.json."""

from __future__ import annotations

import dataclasses

from pipeline.config.checks import check, one_of
from pipeline.config.defaults import defaults_of

WRITERS = ("tensorboard", "csv", "mlflow")


@dataclasses.dataclass(frozen=True)
@defaults_of("tracking/default")
class TrackingConfig:
    writers: list[str]
    mlflow_uri: str | None
    mlflow_experiment: str | None

    def __post_init__(self) -> None:
        for name in self.writers:
            one_of("tracking.writers", name, WRITERS)
        for key in ("mlflow_uri", "mlflow_experiment"):
            ok = getattr(self, key) is None or "mlflow" in self.writers
            fix = f"tracking.writers=[{','.join([*self.writers, 'mlflow'])}]; without it the option has no effect"
            check(ok, f"tracking.{key}", getattr(self, key), fix)

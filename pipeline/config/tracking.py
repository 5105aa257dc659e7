"""Where the numbers of a run are also written, beside result.json."""

from __future__ import annotations

import dataclasses

from pipeline.config.checks import ConfigError, one_of

WRITERS = ("tensorboard", "csv", "mlflow")


@dataclasses.dataclass(frozen=True)
class TrackingConfig:
    writers: list[str] = dataclasses.field(default_factory=lambda: ["tensorboard"])  # any of WRITERS, or none
    mlflow_uri: str | None = None  # http://..., sqlite:///...; null: the variable MLFLOW_TRACKING_URI
    mlflow_experiment: str | None = None  # null: rankdistil

    def __post_init__(self) -> None:
        for name in self.writers:
            one_of("tracking.writers", name, WRITERS)
        for key in ("mlflow_uri", "mlflow_experiment"):
            if getattr(self, key) is not None and "mlflow" not in self.writers:
                raise ConfigError(
                    f"tracking.{key} has no effect; mend: tracking.writers=[{','.join([*self.writers, 'mlflow'])}]"
                )

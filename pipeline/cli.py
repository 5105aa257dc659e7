"""The command line: composes the Hydra config, checks it, runs the stages, shows the table."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from typing import Any, cast

import hydra
import rich
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.artifacts import atomic
from pipeline.config import Config, ConfigError, from_composed

log = logging.getLogger("pipeline")

MISTAKE, INTERRUPTED = 2, 75  # exit codes: what the user can mend; the same command goes on (EX_TEMPFAIL)


def compose(overrides: Sequence[str]) -> Config:
    """The checked Config that the command would have with these overrides.

    Raises:
      ConfigError: Hydra cannot compose them, or an option is wrong.
    """
    try:
        with hydra.initialize_config_module("pipeline.conf", version_base="1.3"):
            return from_composed(hydra.compose("config", overrides=list(overrides)))
    except HydraException as error:
        raise ConfigError(f"{shlex.join(overrides)}: {error}") from None


def _claim(config: Config) -> None:
    """Makes the run's folder and writes config.yaml; refuses a folder that holds another run."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    path = config.run_dir / "config.yaml"
    plain = config.plain()
    if path.exists():
        before = yaml.safe_load(path.read_text())
        if not isinstance(before, dict) or {**before, "stage": plain["stage"]} != plain:
            raise ConfigError(
                f"run_dir={config.run_dir} holds another run; mend: another run_dir, or remove it"
            )
    with atomic(path) as temporary:
        temporary.write_text(yaml.safe_dump(plain, sort_keys=False))


def _run(config: Config) -> None:
    _claim(config)
    # TensorFlow takes seconds to import; --help and mistakes need not wait.
    from pipeline.run import Interrupted, Run

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, validation NDCG@10 {task.fields[ndcg]:.4f}"),
        TimeRemainingColumn(),
        disable=not sys.stderr.isatty(),
        console=rich.console.Console(stderr=True),
    ) as bars:
        tasks: dict[str, Any] = {}

        def progress(model: str, row: dict[str, Any], epochs: int) -> None:
            if model not in tasks:
                tasks[model] = bars.add_task(f"training {model}", total=epochs, ndcg=0.0)
            bars.update(tasks[model], completed=row["epoch"], ndcg=row["vali"]["ndcg@10"])

        command = shlex.join(["rankdistil", *sys.argv[1:]])
        try:
            result = Run(config, command=command, progress=progress)()
        except Interrupted as stopped:
            log.warning("%s", stopped)
            raise SystemExit(INTERRUPTED) from None
    if result is not None:
        from pipeline.evaluation import terminal_table
        from pipeline.metrics import NoRelevant, Ties
        from pipeline.report import write_report

        shown = config.evaluate
        rich.print(
            terminal_table(
                result, no_relevant=cast(NoRelevant, shown.no_relevant), ties=cast(Ties, shown.ties)
            )
        )
        write_report(
            config.run_dir, config.run_dir / "report", no_relevant=cast(NoRelevant, shown.no_relevant)
        )
        print(f"report: {config.run_dir / 'report' / 'report.html'}")
    print(f"{config.run_dir}: " + ", ".join(sorted(path.name for path in config.run_dir.iterdir())))


@hydra.main(config_path="pkg://pipeline.conf", config_name="config", version_base="1.3")
def _hydra_main(composed: DictConfig) -> None:
    OmegaConf.set_struct(composed, False)
    composed.run_dir = HydraConfig.get().runtime.output_dir  # in a sweep, the job's own folder
    try:
        _run(from_composed(composed))
    except Exception as error:
        mistake = isinstance(error, (ValueError, FloatingPointError))  # what a user can mend: no traceback
        log.error("%s", error, exc_info=not mistake)
        if mistake and HydraConfig.get().mode == RunMode.RUN:
            raise SystemExit(MISTAKE) from error
        raise  # of a sweep, which goes on to its next job


def main() -> None:
    """The `rankdistil` command."""
    _hydra_main()

"""status.json of a run: how far it is and how it ended. Sweeps, reports and reproductions read it, never the log."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import DONE, FAILED, INTERRUPTED, STOPPED, USER_ERROR, UserError

FILE = "status.json"
RUNNING, ENDED, FAILURE, PAUSED = "running", "done", "failed", "interrupted"


@dataclasses.dataclass(frozen=True)
class Status:
    """One state of a run."""

    state: str  # running, done, failed, interrupted (the same command continues it)
    stage: str | None = None  # the stage that runs, or that ran last
    error_type: str | None = None  # name of the exception's class, of a failed run
    error: str | None = None  # its message
    exit_code: int | None = None  # None while it runs
    artifacts: dict[str, str] = dataclasses.field(
        default_factory=dict
    )  # such as {"student": "<folder in the cache>"}
    process: str = ""  # "PID on HOST" that wrote this
    updated: str = ""  # UTC, ISO 8601


def write_status(folder: Path, status: Status) -> None:
    """Replaces status.json of a run's folder; a reader sees the old or the new one, never half of it."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    complete = dataclasses.replace(status, process=f"{os.getpid()} on {socket.gethostname()}", updated=now)
    temporary = folder / f".{FILE}.{os.getpid()}.part"
    temporary.write_text(json.dumps(dataclasses.asdict(complete), indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / FILE)


def read_status(folder: Path) -> Status | None:
    """The status of the run in this folder; None where there is none, or it is damaged."""
    try:
        raw: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Status(**raw)
    except (OSError, ValueError, TypeError):
        return None


class Recorder:
    """Writes the status of a run as it goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.status = folder, Status(RUNNING)

    def update(self, **changes: Any) -> None:
        """Changes fields of the status and writes it."""
        self.status = dataclasses.replace(self.status, **changes)
        write_status(self.folder, self.status)

    def stage(self, name: str) -> None:
        self.update(stage=name)

    def artifacts(self, folders: Mapping[str, Path]) -> None:
        """Names the folders in the store that the run makes or uses."""
        self.update(artifacts={name: str(folder) for name, folder in folders.items()})


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[Recorder]:
    """Records a run: `running` inside the block, then `done`, or how it ended; exceptions pass.

    A SystemExit with code 75 or a KeyboardInterrupt is an interruption, any other exception a failure.
    """
    recorder = Recorder(folder)
    recorder.update()
    try:
        yield recorder
    except KeyboardInterrupt:
        recorder.update(state=PAUSED, exit_code=STOPPED)
        raise
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else (DONE if stop.code is None else FAILED)
        recorder.update(
            state=PAUSED if code == INTERRUPTED else ENDED if code == DONE else FAILURE, exit_code=code
        )
        raise
    except BaseException as error:
        code = USER_ERROR if isinstance(error, UserError) else FAILED
        recorder.update(state=FAILURE, exit_code=code, error_type=type(error).__name__, error=str(error))
        raise
    recorder.update(state=ENDED, exit_code=DONE)

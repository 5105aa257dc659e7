"""Starts a job in a process of its own, for sweeps and reproductions."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.overrides import quoted
from pipeline.errors import INTERRUPTED, STOPPED
from pipeline.status import FAILURE, PAUSED, RUNNING, Status, read_status, write_status

_PARENT = "RANKDISTIL_PARENT"  # environment of a job: the id of the process that waits for it


def run_job(overrides: Sequence[str], folder: Path, *, cwd: Path | None = None) -> Status:
    """Runs `rankdistil OVERRIDES run_dir=FOLDER` to its end in a process of its own; its output goes to FOLDER/log.

    SIGTERM or Ctrl-C in this process end the job, which saves its state first.

    Args:
      overrides: options of the job.
      folder: its run_dir.
      cwd: where it runs; None: here.

    Returns:
      How the job ended. For a process that could not write its status, the status names the exit code or the signal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_status(folder, Status(RUNNING))
    command = [sys.executable, "-m", "pipeline", *overrides, quoted("run_dir", folder)]
    environment = os.environ | {_PARENT: str(os.getpid())}
    environment.pop("HYDRA_FULL_ERROR", None)  # which the command that runs a sweep sets for itself
    with (folder / "log").open("ab") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            code = process.wait()
        except BaseException:  # SIGTERM, Ctrl-C
            process.terminate()
            process.wait()
            raise
    found = read_status(folder)
    if found is None or found.state == RUNNING:
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        state = PAUSED if code in (INTERRUPTED, STOPPED) else FAILURE
        stage = None if found is None else found.stage
        found = Status(state, stage=stage, error=how, exit_code=code)
        write_status(folder, found)
    return dataclasses.replace(found, exit_code=code)


def end_with_parent() -> bool:
    """Whether `run_job` started this process; then it gets SIGTERM when the process that waits for it is killed."""
    parent = os.environ.pop(_PARENT, None)
    if parent is None:
        return False
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != int(parent):
            raise SystemExit(f"process {parent}, which started this job, is gone")
    return True

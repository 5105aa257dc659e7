"""Locks of folders that several processes share, on this machine or on others.

Locks are files that their holder refreshes. They need no flock: a network file system's exclusive creation is enough.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import filelock

from pipeline.errors import UserError

log = logging.getLogger(__name__)

# Seconds without a sign of life after which a lock of another host is stale; NFS clients may see a sign 60 s late.
_LEASE = 180.0
_SECOND_LOOK = 0.5  # seconds


def remove_parts(folder: Path) -> None:
    """What killed processes left of `atomic`; nobody else may be writing there."""
    for path in folder.rglob(".*.part"):
        if path.is_file():
            path.unlink()


def lease(path: Path) -> filelock.SoftFileLease:
    """A lock file that its holder refreshes. filelock takes over that of a dead process on this host at once."""
    return filelock.SoftFileLease(path, lease_duration=_LEASE, heartbeat_interval=_LEASE / 6)


def acquire(lock: filelock.SoftFileLease, timeout: float = math.inf) -> None:
    """Waits for a lock, and removes a lock file that nobody has refreshed for a lease.

    filelock waits for ever where the holder died before it wrote its name, and on file systems that cannot exchange two
    names, such as NFS.

    Raises:
      filelock.Timeout: it is still held after `timeout` seconds.
    """
    path, seen, since = Path(lock.lock_file), None, time.monotonic()
    deadline = time.monotonic() + timeout
    while True:
        try:
            lock.acquire(timeout=min(_LEASE / 6, max(0.0, deadline - time.monotonic())))
            return
        except filelock.Timeout:
            if time.monotonic() >= deadline:
                raise
        state = _lock_state(path)
        if state != seen:
            seen, since = state, time.monotonic()
        elif state is not None and time.monotonic() - since >= _LEASE:
            _remove_silent(path, state)


def _lock_state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a lock file is refreshed or replaced; None where there is no file."""
    try:
        stat = path.lstat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _remove_silent(path: Path, state: tuple[int, int, int]) -> None:
    """Removes a lock file in this state. If another process was first, its new lock file is put back."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}.dead")
    with contextlib.suppress(OSError):
        os.rename(path, aside)
        try:
            if _lock_state(aside) != state:
                os.link(aside, path)
        finally:
            aside.unlink()


def is_ours(lock: filelock.SoftFileLease) -> bool:
    """Whether this process still holds the lock. Looks twice: a contender's file may stand there for an instant."""
    if not lock.is_lock_held_by_us:
        time.sleep(_SECOND_LOOK)
    return lock.is_lock_held_by_us


def holder(lock: filelock.SoftFileLease) -> str:
    return "another process" if lock.owner is None else f"process {lock.owner.pid} on {lock.owner.hostname}"


def _runs_here(lock: filelock.SoftFileLease) -> bool:
    """Whether the holder is certainly alive: nothing is certain about another host or container."""
    owner = lock.owner
    if owner is None or owner.hostname.partition("?")[0] != socket.gethostname() or owner.pid == os.getpid():
        return False
    try:
        os.kill(owner.pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return True


class FolderInUseError(UserError):
    """The folder of a run belongs to another run."""


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder while the block runs. Waits where the holder may be dead.

    Raises:
      FolderInUseError: another process uses it.
    """
    lock = lease(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        in_use = FolderInUseError(
            f"in use by {holder(lock)}",
            where=str(folder),
            fix=f"wait for it, or give another run_dir; if that process is gone, remove {lock.lock_file}",
        )
        if _runs_here(lock):
            raise in_use from None
        log.info("%s: waiting up to %.0f s for a sign of %s", folder, _LEASE * 1.2, holder(lock))
        try:
            acquire(lock, timeout=_LEASE * 1.2)
        except filelock.Timeout:
            raise in_use from None
    try:
        remove_parts(folder)
        yield
    finally:
        lock.release()

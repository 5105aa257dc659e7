"""What stages made, kept by content: atomic writes, locks, manifests with checksums.

An artifact is a folder `<cache>/<kind>/<hash of its key>` that exists only when it is whole. It is made
in `<hash>.work`, which a killed process leaves behind and the next one goes on from, and renamed when its manifest
is written. Locks are files with a lease, which need no flock: a network file system's exclusive creation is enough.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from pipeline.errors import UserError
from pipeline.locks import acquire, holder, is_ours, lease, remove_parts
from pipeline.provenance import commit

log = logging.getLogger(__name__)

FORMAT = 3  # raise when artifacts of an older program must be made again
_MANIFEST = "manifest.json"
_SMALL = 1 << 20  # bytes; a smaller file is hashed in about a millisecond, so its digest is not remembered
_SETTLED = 2.0  # seconds; the coarsest time stamps of file systems, within which a change may not show


def fingerprint(value: Any) -> str:
    """Hex digest of a JSON-like value; equal for equal values, whatever the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _identity(path: Path) -> dict[str, int]:
    """What changes when a file is written to or replaced; ctime cannot be set back."""
    stat = path.stat()
    return {
        "bytes": stat.st_size,
        "inode": stat.st_ino,
        "modified": stat.st_mtime_ns,
        "changed": stat.st_ctime_ns,
    }


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; takes its name when the block ends well, else is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON (no NaN) atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    """numpy says "n requested and m written", without a number of the error or a name."""
    try:
        yield
    except OSError as error:
        if error.errno is None and "written" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One artifact of a store, which may still have to be made.

    Args:
      store: where it is kept.
      kind: such as "data" or "teacher"; names a folder of the store.
      key: everything that determines the content, JSON-like.
      label: its name in messages.
    """

    store: Store
    kind: str
    key: Mapping[str, Any]
    label: str

    @property
    def path(self) -> Path:
        """The folder of the finished artifact."""
        return self.store.path(self.kind, self.key)

    @property
    def work(self) -> Path:
        """The folder where it is made."""
        return self.store.work_path(self.kind, self.key)

    @property
    def name(self) -> str:
        """A digest of the key, for the keys of artifacts that depend on this one."""
        return self.path.name

    def state(self) -> str:
        """What a run will do: `made before` (take it), `goes on` (continue a killed run), or `to be made`."""
        if self.path.exists():
            return "made before"
        return "goes on" if self.work.exists() else "to be made"

    def get(self, make: Callable[[Path], None]) -> Path:
        """See `Store.get`."""
        return self.store.get(self.kind, self.key, make)

    def made_by(self) -> dict[str, Any]:
        """Which code made the finished artifact: {"commit": ..., "dirty": ...}."""
        manifest: dict[str, Any] = json.loads((self.path / _MANIFEST).read_text())
        return dict(manifest["made_by"])


class Store:
    """The artifacts below one folder, shared by any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def artifact(self, kind: str, key: Mapping[str, Any], label: str | None = None) -> Artifact:
        """The artifact of this kind and key; its label in messages is the kind if none is given."""
        return Artifact(self, kind, key, label or kind)

    def path(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Where the artifact of this kind and key is, or would be."""
        return self.root / kind / fingerprint({"format": FORMAT, "key": key})[:32]

    def work_path(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Where that artifact is made."""
        return self.path(kind, key).with_suffix(".work")

    def digest(self, path: Path) -> str:
        """sha256 of a file. That of a large one is remembered until its size, its times or its inode change."""
        before = _identity(path)
        if before["bytes"] < _SMALL:
            return file_digest(path)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            memo = json.loads(self._memo(path).read_text())
            if memo["file"] == before:
                return str(memo["sha256"])
        settled = time.time() - before["changed"] / 1e9 > _SETTLED
        digest = file_digest(path)
        if settled and _identity(path) == before:
            self._remember(path, digest)
        return digest

    def check_unchanged(self, path: Path, digest: str) -> None:
        """For a `make`, after it has read an input whose digest is in the key.

        Raises:
          UserError: the file is another one now.
        """
        if self.digest(path) != digest:
            raise UserError(
                "changed while it was read", where=str(path), fix="run again when nobody writes to it"
            )

    def _memo(self, path: Path) -> Path:
        return self.root / "digests" / f"{fingerprint(str(path.resolve()))[:32]}.json"

    def _remember(self, path: Path, digest: str) -> None:
        memo = self._memo(path)
        with contextlib.suppress(OSError):  # it saves time only; the disk may be full, or the cache read-only
            memo.parent.mkdir(exist_ok=True, parents=True)
            write_json(memo, {"path": str(path), "file": _identity(path), "sha256": digest})

    def get(self, kind: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of a whole artifact; made now if it is not there, or damaged.

        Args:
          kind: such as "data", "teacher"; a folder name.
          key: everything that determines the content, JSON-like.
          make: writes the content into the folder it is given. The folder may hold what a killed `make` of the
            same key left. One process makes; others wait and use it.

        Returns:
          The folder, verified against its checksums.
        """
        folder = self.path(kind, key)
        if folder.exists() and self._damage(folder, key) is None:  # needs no lock, nor the right to write
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = lease(folder.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("waiting for %s, which makes %s", holder(lock), folder)
            acquire(lock)
        try:
            if folder.exists():
                damage = self._damage(folder, key)
                if damage is None:
                    return folder
                log.warning("%s: %s; removed, made again", folder, damage)
                if folder.is_dir():
                    shutil.rmtree(folder)
                else:
                    folder.unlink()
            work = self.work_path(kind, key)
            work.mkdir(exist_ok=True)
            remove_parts(work)
            with _full_disk_named(work):
                make(work)
            # A process that stood still for longer than the lease was taken for dead, and another one makes this now.
            if is_ours(lock):
                self._finish(work, folder, key)
                return folder
        finally:
            lock.release()
        log.warning("%s: another process took over; waiting for it", folder)
        return self.get(kind, key, make)

    def _finish(self, work: Path, folder: Path, key: Mapping[str, Any]) -> None:
        files = sorted(path for path in work.rglob("*") if path.is_file())
        recorded: dict[str, dict[str, Any]] = {
            str(path.relative_to(work)): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in files
            if path.name != _MANIFEST
        }
        manifest = {"format": FORMAT, "key": key, "made_by": commit(), "files": recorded}
        write_json(work / _MANIFEST, manifest | {"digest": fingerprint(manifest)})
        os.rename(work, folder)
        for name, facts in recorded.items():
            # Nobody else writes here: no need to wait until the file's times are settled.
            if facts["bytes"] >= _SMALL:
                self._remember(folder / name, facts["sha256"])

    def _damage(self, folder: Path, key: Mapping[str, Any]) -> str | None:
        """What is wrong with a finished artifact, in words; None if nothing is."""
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
            digest, files = manifest.pop("digest"), manifest["files"]
            if manifest["format"] != FORMAT:
                return f"{_MANIFEST} is of format {manifest['format']}, this program writes {FORMAT}"
            if manifest["key"] != json.loads(json.dumps(key)):
                return f"{_MANIFEST} names another key"
            if fingerprint(manifest) != digest:
                return f"{_MANIFEST} is not what was written"
            for name, recorded in files.items():
                path = folder / name
                if not path.is_file():
                    return f"{name} is missing"
                if path.stat().st_size != recorded["bytes"] or (
                    self.digest(path) != recorded["sha256"]
                    and file_digest(path) != recorded["sha256"]  # it may be the memo that is damaged
                ):
                    return f"{name} is not what was written"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{_MANIFEST} cannot be read ({type(error).__name__}: {error})"
        return None

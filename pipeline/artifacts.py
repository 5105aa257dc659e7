"""What stages made, kept by content: atomic writes, locks, manifests with checksums.

An artifact is a folder `<cache>/<kind>/<hash of its key>` that exists only when it is whole. It is made
in `<hash>.work`, which a killed process leaves behind and the next one goes on from, and renamed when its manifest
is written.
"""

from __future__ import annotations

import contextlib
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

log = logging.getLogger(__name__)

FORMAT = 1  # raise when artifacts of an older program must be made again
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


class Store:
    """The artifacts below one folder, shared by any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

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

    def _memo(self, path: Path) -> Path:
        return self.root / "digests" / f"{fingerprint(str(path.resolve()))[:32]}.json"

    def _remember(self, path: Path, digest: str) -> None:
        memo = self._memo(path)
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
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.SoftFileLock(str(folder.with_suffix(".lock")))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("waiting for another process that makes %s %s", kind, folder.name)
            lock.acquire()
        try:
            if folder.exists():
                damage = self._damage(folder, key)
                if damage is None:
                    return folder
                log.warning("%s: %s; removed, made again", folder, damage)
                shutil.rmtree(folder)
            work = self.work_path(kind, key)
            work.mkdir(exist_ok=True)
            make(work)
            files = sorted(path for path in work.rglob("*") if path.is_file())
            recorded: dict[str, dict[str, Any]] = {
                str(path.relative_to(work)): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
                for path in files
                if path.name != _MANIFEST
            }
            write_json(work / _MANIFEST, {"format": FORMAT, "key": key, "files": recorded})
            os.rename(work, folder)
            for name, facts in recorded.items():
                # Nobody else writes here: no need to wait until the file's times are settled.
                if facts["bytes"] >= _SMALL:
                    self._remember(folder / name, facts["sha256"])
        finally:
            lock.release()
        return folder

    def _damage(self, folder: Path, key: Mapping[str, Any]) -> str | None:
        """What is wrong with a finished artifact, in words; None if nothing is."""
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
            files = manifest["files"]
            if manifest["format"] != FORMAT:
                return f"{_MANIFEST} is of format {manifest['format']}, this program writes {FORMAT}"
            if manifest["key"] != json.loads(json.dumps(key)):
                return f"{_MANIFEST} names another key"
            for name, recorded in files.items():
                path = folder / name
                if not path.is_file():
                    return f"{name} is missing"
                if path.stat().st_size != recorded["bytes"] or self.digest(path) != recorded["sha256"]:
                    return f"{name} is not what was written"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{_MANIFEST} cannot be read ({type(error).__name__}: {error})"
        return None

"""Which code makes an artifact: digests of source files, versions of libraries, the commit."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import subprocess
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
# Modules that compute nothing: the values of options are part of an artifact's key anyway.
_NO_COMPUTATION = (
    "config",
    "errors",
    "status",
    "store",
    "locks",
    "provenance",
    "environment",
    "jobs",
    "run_folder",
    "context",
    "tracking",
)


@functools.cache
def code_digest(*modules: str) -> str:
    """Digest of the source of these modules and of all modules of this package that they import.

    Comments, docstrings and formatting do not count.

    Args:
      modules: dotted names below `pipeline`, such as "training.loop".
    """
    seen: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if path is None or name in seen or name.split(".")[0] in _NO_COMPUTATION:
            continue
        seen[name], imported = _source(path)
        waiting += imported
    lines = "\n".join(f"{name} {digest}" for name, digest in sorted(seen.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def _file_of(name: str) -> Path | None:
    path = PACKAGE.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@functools.cache
def _source(path: Path) -> tuple[str, tuple[str, ...]]:
    """Digest of a file's syntax tree, and the modules of this package that it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            module = node.module.partition(".")[2]
            imported += [module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(filter(None, imported))


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of these packages."""
    return {name: importlib.metadata.version(name) for name in packages}


@functools.cache
def commit() -> dict[str, Any]:
    """{"commit", "dirty"} of the checkout that this package runs from.

    An installed package has the commit that its image names in RANKDISTIL_COMMIT, or None. "dirty" means that files
    differ from the commit.
    """
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return {"commit": os.environ.get("RANKDISTIL_COMMIT"), "dirty": False}
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    name, _, dirty = done.stdout.strip().partition("-")
    return {"commit": name or None, "dirty": bool(dirty)}

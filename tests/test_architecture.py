"""The rules of docs/contributing.md: the order of imports, public interfaces only, short files."""

import ast

import pytest

from tests.conftest import ROOT

ORDER = [
    "errors", "status", "threads", "environment", "config", "noise", "provenance", "locks", "store", "data",
    "losses", "metrics", "tracking", "models", "training", "context", "teacher", "training_set", "student",
    "tables", "evaluation", "report", "export", "rank", "run", "run_folder", "jobs", "sweep", "sweep_watch",
    "progress_bars", "cli", "reproduce",
]  # fmt: skip
HYDRA = {"cli", "config", "sweep", "sweep_watch"}
EXCEPTIONS = {"losses/tfr_compat.py", "data/tfds_manual_file.py"}  # the head of each says why
FILES = {path.relative_to(ROOT / "pipeline").as_posix(): path for path in (ROOT / "pipeline").rglob("*.py")}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def imports(tree):
    """(module, names) of each import of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, [alias.asname or alias.name.split(".")[0]]


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_what_stands_above_it(name):
    own = name.removesuffix(".py").split("/")[0]
    for module, _ in imports(TREES[name]):
        root, *rest = module.split(".")
        if root == "pipeline" and rest and own in ORDER:
            assert ORDER.index(rest[0]) <= ORDER.index(own), f"{name} imports {module}"
        if root in ("hydra", "omegaconf"):
            assert own in HYDRA, f"{name} imports {module}"


def test_every_module_has_a_place_in_the_order():
    owns = {name.removesuffix(".py").split("/")[0] for name in FILES}
    assert owns - {"__init__", "__main__", "conf"} == set(ORDER)


def _is_private(name):
    return name.startswith("_") and not name.startswith("__")


# Names with an underscore that this package itself defines, on its own objects.
OURS = set()
for node in (node for tree in TREES.values() for node in ast.walk(tree)):
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
            OURS.add(name)
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
            OURS.add(name)


@pytest.mark.parametrize("name", sorted(FILES.keys() - EXCEPTIONS))
def test_a_file_uses_public_interfaces_only(name):
    """No private module, name or attribute of another library, and nothing of another library is replaced."""
    foreign = set()
    for module, names in imports(TREES[name]):
        if module.split(".")[0] == "pipeline":
            continue
        foreign |= set(names)
        path = module.split(".")
        assert module == "__future__" or not any(_is_private(part) for part in [*path, *names]), (
            f"{name} imports {module}"
        )
        assert not module.startswith("tensorflow.python"), f"{name} imports {module}"
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            assert node.attr in OURS, f"{name}:{node.lineno} uses {node.attr}"
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            root = target
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(target, ast.Attribute) and isinstance(root, ast.Name):
                assert root.id not in foreign, f"{name}:{node.lineno} replaces a part of {root.id}"


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_short_enough_to_read(name):
    assert len(FILES[name].read_text().splitlines()) <= (250 if name == "run.py" else 350)


def test_file_names_say_something():
    assert not {path.stem for path in FILES.values()} & {
        "util",
        "utils",
        "helper",
        "helpers",
        "misc",
        "common",
    }

"""The key of an artifact holds a digest of the code that makes it."""

import importlib.util
import shutil
import sys

import pytest

from tests.conftest import ROOT


@pytest.fixture
def copy(tmp_path):
    """-> (folder of a copy of the package, what code_digest gives there now)."""
    package = tmp_path / "pipeline"
    shutil.copytree(ROOT / "pipeline", package, ignore=shutil.ignore_patterns("__pycache__"))

    def digest(*modules):
        spec = importlib.util.spec_from_file_location("provenance_of_copy", package / "provenance.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.code_digest(*modules)

    yield package, digest
    sys.modules.pop("provenance_of_copy", None)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


STUDENT = ("training.loop", "student", "models.scorer")


@pytest.mark.parametrize(
    "name",
    [
        "losses/rankdistil.py",
        "losses/plackett_luce.py",
        "models/layers.py",
        "data/packing.py",
        "metrics/ndcg.py",
    ],
)
def test_a_change_of_any_module_that_trains_a_student_changes_its_digest(copy, name):
    package, digest = copy
    before = digest(*STUDENT)
    with (package / name).open("a") as file:
        file.write("\nSEVEN = -7\n")
    assert digest(*STUDENT) != before


def test_changes_that_compute_nothing_keep_it(copy):
    package, digest = copy
    before = digest(*STUDENT)
    for name in ("report/page.py", "export/formats.py", "sweep.py"):  # of other stages
        with (package / name).open("a") as file:
            file.write("\nSEVEN = -7\n")
    path = package / "losses" / "rankdistil.py"
    path.write_text("# A comment.\n" + path.read_text() + "\n\n# Another one.\n")
    edit(package / "metrics" / "ndcg.py", '"""Normalised discounted', '"""The normalised discounted')
    assert digest(*STUDENT) == before


def test_the_digest_of_a_tree_teacher_does_not_depend_on_the_losses(copy):
    package, digest = copy
    before = digest("teacher.lambdamart")
    with (package / "losses" / "rankdistil.py").open("a") as file:
        file.write("\nSEVEN = -7\n")
    assert digest("teacher.lambdamart") == before

"""README, docs/ and the notebooks tell the truth: what they show runs (on tiny data), what they name is there."""

import re
import shlex
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from pipeline.cli import compose
from tests.conftest import ROOT, TINY

PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
TEXT = "\n".join(PAGES.values())
NOTEBOOKS = sorted((ROOT / "docs" / "examples").glob("*.ipynb"))
MODULES = {
    "scripts/run.sh": "pipeline.cli",
    "rankdistil": "pipeline.cli",
    "rankdistil-rank": "pipeline.rank",
    "rankdistil-report": "pipeline.report",
}
# What has tests of its own, or needs what is not here.
ELSEWHERE = ("scripts/test.sh", "docker", "scripts/reproduce.sh", " sweep=")
FILES = {"data.json", "export.json", "student.onnx", "student.tflite", "train.txt", "train.txt.query"}


def blocks(page, *languages):
    """(language, text) of the code blocks of a page, in their order."""
    found = re.findall(r"```(\w+)\n(.*?)```", PAGES[page], re.DOTALL)
    return [(language, text) for language, text in found if language in languages]


def commands(text):
    lines = text.replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip()]


@pytest.fixture
def folder(tmp_path):
    """A user's folder: LETOR files, and scores of a teacher."""
    for number, name in enumerate(("train", "vali", "test", "more")):
        rows = [(query, row) for query in range(12) for row in range(5 + query % 3)]
        lines = (
            f"{(query + row) % 3} qid:{100 * number + query} 1:{row} 2:{(7 * row + query) % 5} 3:{query}\n"
            for query, row in rows
        )
        (tmp_path / f"{name}.txt").write_text("".join(lines))
        run = (f"{100 * number + query} Q0 {row} 1 {-row}.5 mine\n" for query, row in rows)
        (tmp_path / f"{name}.run").write_text("".join(run))
    return tmp_path


def tiny(words):
    """Overrides that make a run small, less those that the words give or that their data do not have."""
    given = {word.split("=")[0] for word in words}
    other_data = {"data"} if "data=letor" in words else set()
    other_teacher = {"teacher"} if any(word.startswith("teacher=") for word in words) else set()
    options = (*TINY, *(() if other_teacher else ("teacher.min_docs_in_leaf=2",)))
    return [
        option
        for option in options
        if option.split("=")[0] not in given and option.split(".")[0] not in other_data | other_teacher
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash", "python")])
def test_the_blocks_of_a_page_run(page, folder):
    """In their order: some use what others made. Of a sweep, the first job."""
    for language, text in blocks(page, "bash", "python"):
        if language == "python":
            subprocess.run([sys.executable, "-c", text], cwd=folder, check=True)
            continue
        for command in commands(text):
            if any(word in command for word in ELSEWHERE):
                continue
            program, *words = shlex.split(command)
            module = MODULES[program.removeprefix(".venv/bin/")]
            if module == "pipeline.cli":
                words = [
                    *(word if word.endswith("]") else word.split(",")[0] for word in words),
                    *tiny(words),
                ]
            started = [sys.executable, "-c", f"from {module} import main; raise SystemExit(main())", *words]
            done = subprocess.run(started, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (command, done.stderr[-3000:])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    options = (tmp_path / "options" / "index.html").read_text()
    assert "loss.topk" in options
    assert "train.weight_decay" in options


def test_pages_stay_short():
    readme = PAGES["README.md"]
    assert len(readme.splitlines()) <= 200
    assert len(readme.split()) <= 1800
    for page, text in PAGES.items():
        assert len(text.splitlines()) <= 250, page


def test_the_options_that_pages_name_are_there():
    """Every `group.option` in backticks is an option of some choice of that group."""
    groups = ("data", "teacher", "student", "loss", "train", "evaluate", "export", "tracking")
    named = set(re.findall(rf"`((?:{'|'.join(groups)})\.[a-z_.]+)", TEXT)) - FILES
    text = {
        group: "\n".join(
            p.read_text() for part in (group, "parts") for p in (ROOT / "conf" / part).glob("**/*.yaml")
        )
        for group in groups
    }
    assert len(named) > 20
    for name in named:
        group, *keys = name.rstrip(".").split(".")
        for key in filter(None, keys):
            assert re.search(rf"\b{key}\b", text[group]), name


def test_the_files_that_pages_name_are_there():
    for page, text in PAGES.items():
        base = ROOT if page == "README.md" else ROOT / "docs"
        for path in re.findall(r"\]\((?!https?:)([^)#:]+)\)", text):
            target = base / path
            notebook = target.with_suffix(".ipynb")  # the site has a page for each
            assert target.exists() or (target.parent.name == "examples" and notebook.exists()), (page, path)


def test_every_choice_is_named():
    for group in ("data", "teacher", "student", "loss"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert re.search(rf"\b{path.stem}\b", TEXT), f"{group}={path.stem}"
    assert compose([]).stage == "all"

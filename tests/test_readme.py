"""The README tells the truth: its commands run (on tiny data), and the options and files that it names are there."""

import re
import shlex
import subprocess
import sys

import pytest

from pipeline.cli import compose
from tests.conftest import ROOT, TINY

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split(" #")[0].strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]
MODULES = {
    "scripts/run.sh": "pipeline.cli",
    "rankdistil": "pipeline.cli",
    "rankdistil-rank": "pipeline.rank",
    "rankdistil-report": "pipeline.report",
    "scripts/reproduce.sh": "pipeline.reproduce",
}
FILES = {"data.json", "export.json", "student.onnx", "student.tflite", "train.txt.query"}
# What has tests of its own, or needs what is not here.
ELSEWHERE = (
    "scripts/test.sh",
    "docker",
    "$run",
    "tensorboard",
    "scripts/bench.py",
    "scripts/reproduce.sh",
    " sweep=",
)


def test_every_command_is_known():
    names = {shlex.split(command)[0].removeprefix(".venv/bin/") for command in COMMANDS}
    assert {name for name in names if name not in MODULES} <= {
        "scripts/test.sh",
        "docker",
        "mkdir",
        "$run",  # docker run
        "tensorboard",
        "python",
    }
    for name in names:
        if name.startswith("scripts/"):
            assert (ROOT / name).is_file()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: LETOR files, scores of a teacher, and the runs that the commands before have made."""
    folder = tmp_path_factory.mktemp("user")
    for number, name in enumerate(("train", "vali", "test", "more")):
        rows = [(query, row) for query in range(12) for row in range(5 + query % 3)]
        text = "".join(
            f"{(query + row) % 3} qid:{100 * number + query} 1:{row} 2:{(7 * row + query) % 5} 3:{query}\n"
            for query, row in rows
        )
        (folder / f"{name}.txt").write_text(text)
        run = (f"{100 * number + query} Q0 {row} 1 {-row}.5 mine\n" for query, row in rows)
        (folder / f"{name}.run").write_text("".join(run))
    return folder


@pytest.mark.slow
def test_the_commands_run(folder):
    """In their order: some look at what others made."""
    commands = [command for command in COMMANDS if not any(word in command for word in ELSEWHERE)]
    assert len(commands) >= 6
    for command in commands:
        program, *words = shlex.split(command)
        module = MODULES[program.removeprefix(".venv/bin/")]
        if module == "pipeline.cli":  # of a sweep, the first job
            words = [*(word if word.endswith("]") else word.split(",")[0] for word in words), *tiny(words)]
        started = [sys.executable, "-c", f"from {module} import main; raise SystemExit(main())", *words]
        done = subprocess.run(started, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr[-3000:])


def tiny(words):
    """Overrides that make a run small, less those that the words give themselves or that their data does not have."""
    given = {word.split("=")[0] for word in words}
    groups = {word.split(".")[0] for word in given if "." in word} if "data=letor" in words else set()
    return [
        option
        for option in (*TINY, "teacher.min_docs_in_leaf=2")
        if option.split("=")[0] not in given and option.split(".")[0] not in groups
    ]


def test_the_options_that_it_names_are_there():
    """Every `group.option` in backticks is an option of some choice of that group."""
    named = (
        set(re.findall(r"`((?:data|teacher|student|loss|train|evaluate|export|tracking)\.[a-z_.]+)", README))
        - FILES
    )
    text = {
        group: "\n".join(path.read_text() for path in (ROOT / "conf" / group).glob("*.yaml"))
        for group in ("data", "teacher", "student", "loss", "train", "evaluate", "export", "tracking")
    }
    assert len(named) > 20
    for name in named:
        group, *keys = name.rstrip(".").split(".")
        for key in keys:
            assert re.search(rf"\b{key}\b", text[group]), name


def test_the_files_that_it_names_are_there():
    for path in re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"\b(tests/[\w/]+(?:\.py)?)", README):
        assert (ROOT / path).exists(), path


def test_the_python_example_is_the_api():
    (example,) = [block for language, block in BLOCKS if language == "python"]
    names = {
        "teacher": [[1.0, -2.0, 0.5]],
        "student": [[0.0, 1.0, 2.0]],
        "mask": None,
        "run_seed": 0,
        "step": 3,
    }
    exec(compile(example, "README.md", "exec"), names)
    loss = names["coupled_rankdistil"]
    assert float(loss([[1.0, 0.0]], [[1.0, 0.0]], topk=1)) > 0


def test_every_choice_is_named():
    for group in ("data", "teacher", "student", "loss"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"`{path.stem}`" in README, f"{group}={path.stem}"
    assert compose([]).stage == "all"

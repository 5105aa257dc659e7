"""The command: errors in this process, runs in a process of their own, as people run them."""

import contextlib
import importlib.util
import json
import os
import pty
import re
import signal
import subprocess
import sys
import zipfile

import pytest
import yaml

from pipeline import progress_bars
from pipeline.cli import main
from pipeline.config import STAGES
from pipeline.run import run as run_stages
from pipeline.status import read_status
from tests.conftest import ROOT, TINY, tiny_config
from tests.trust.command import metrics


def rankdistil(*overrides, cwd, python_path=None):
    environment = os.environ | ({"PYTHONPATH": str(python_path)} if python_path else {})
    command = [sys.executable, "-m", "pipeline", *overrides]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Calls the command in this process and in an empty folder: -> (exit code, stdout, stderr)."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["rankdistil", *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_a_wheel_runs_from_any_folder(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    conf = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    installed = tmp_path / "installed" / "pipeline" / "conf"
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == conf
    # Compared, not only run: an editable install beside it would lend what the wheel lacks.
    modules = {path.relative_to(ROOT / "pipeline") for path in (ROOT / "pipeline").rglob("*.py")}
    assert modules <= {path.relative_to(installed.parent) for path in installed.parent.rglob("*.py")}
    (tmp_path / "work").mkdir()
    done = rankdistil(*TINY, "run_dir=out", cwd=tmp_path / "work", python_path=tmp_path / "installed")
    assert done.returncode == 0, done.stderr
    assert "NDCG@10" in done.stdout
    out = tmp_path / "work" / "out"
    assert {path.name for path in out.iterdir()} == {
        "config.yaml", "events", "export.json", "log", "per_query.csv", "report", "result.json", "status.json",
        "student",
    }  # fmt: skip
    result = json.loads((out / "result.json").read_text())
    assert result["run"]["commit"] is None  # not from a checkout: it is the wheel's code that ran
    assert metrics(result) == metrics(run_stages(tiny_config(tmp_path / "checkout")).result)
    assert (tmp_path / "work" / ".cache" / "rankdistil" / "teacher").is_dir()


def test_a_wrong_option_ends_with_one_line_and_code_2(command, tmp_path):
    assert command("train.epochs=0") == (2, "", "train.epochs=0 is not possible. Fix: at least 1\n")
    for seed in ("1.5", "a", "-1", "true"):
        code, _, shown = command(f"seed={seed}")
        assert code == 2
        assert f"seed={seed.title() if seed == 'true' else seed} is not possible" in shown
    assert not any(tmp_path.iterdir())


ODD = [
    ["hydra/job_logging=disabled", "train.epochs=0"],
    ["hydra/hydra_logging=disabled", "train.epochs=0"],
    ["hydra/job_logging=disabled"],
    ["hydra/hydra_logging=none", "hydra/job_logging=stdout"],
    ["hydra/job_logging=typo"],
    ["hydra.job_logging=null"],
    ["~hydra.job_logging"],
    ["hydra.run.dir=elsewhere"],
    ["hydra.run.dir=null"],
    ["hydra.sweep.dir=elsewhere"],
    ["hydra.job_logging=${train}"],
    ["hydra.mode=${stage}"],
    ["hydra.launcher=null"],
    ["hydra.job.env_set.LD_PRELOAD=x"],
    ["hydra.job.chdir=true"],
    ["hydra.verbose={}", "train.epochs=0"],
    ["hydra.output_subdir=x"],
    ["hydra.searchpath=[3]"],
    ["hydra/launcher=typo"],
    ["hydra=3"],
    ["loss=3"],
    ["~loss"],
    ["~train"],
    ["train=null"],
    ["++train=5"],
    ["+typo/group=3"],
    ["+loss@train=mse"],
    ["data@x=letor"],
    ["student.hidden=5"],
    ["student.hidden=[[1]]"],
    ["stage=null"],
    ["run_dir=/proc/folder", "stage=data"],
    ["student=[mlp,dcn]"],
    ["seed=1,2"],
    ["run_dir=null"],
    ["run_dir="],
    ["cache_dir=3"],
    ["loss.topk=${nothing}"],
    ["loss.topk=${loss.topk}"],
    ["train.epochs=${oc.env:HOME}"],
    ["=3"],
    ["a b"],
    ["'"],
    ["--typo"],
    ["--config-dir=typo"],
    ["--cfg", "typo"],
    ["--cfg", "job", "-m", "seed=1,2"],
    ["--cfg", "job", "loss.topkk=1"],
    ["--cfg", "job", "hydra/job_logging=disabled"],
    ["-m", "hydra/job_logging=disabled", "seed=0,1"],
    ["-m", "hydra/sweeper=typo", "seed=0,1"],
    ["-m", "loss=mse,typo"],
    ["-m", "seed=interval(0,1)"],
    ["-m", "run_dir=a,b", "seed=0"],
    ["-m", "="],
    ["-m", "hydra.sweep.dir=elsewhere", "seed=0,1"],
    ["-m", "hydra.sweep.subdir=a/b", "seed=0,1"],
    ["-m", "hydra.sweeper=null", "seed=0,1"],
    ["-m", "hydra.sweeper.params={a.b: 3}", "seed=0,1"],
    ["-m", "run_dir=/proc/folder", "seed=0,1"],
    ["data_recipe=typo"],
]


@pytest.mark.parametrize("words", ODD, ids=" ".join)
def test_odd_words_end_with_a_line_and_no_traceback(words, command, tmp_path):
    code, _, shown = command(*words)
    assert code == 2, shown
    assert "Traceback" not in shown
    assert 1 <= len(shown.strip().splitlines()) <= 2
    if "train.epochs=0" in words:
        assert "train.epochs=0" in shown
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_of_another_run_is_refused(tmp_path):
    done = rankdistil(*TINY, "stage=data", "run_dir=out", cwd=tmp_path)
    assert done.returncode == 0
    assert "documents of label 0" in done.stdout  # the data report
    done = rankdistil(*TINY, "stage=data", "run_dir=out", "seed=1", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        f"run_dir={tmp_path / 'out'} holds another run (seed=0 there, 1 now). Fix: another run_dir"
        in done.stderr
    )
    assert "holds another run" not in (tmp_path / "out" / "log").read_text()  # which is the other run's


def test_the_folder_of_a_run_that_failed_without_output_can_be_used_again(tmp_path):
    for split in ("train", "vali", "test"):
        (tmp_path / f"{split}.txt").write_text("1 1:0.5\n0 1:0.1\n")
        (tmp_path / f"{split}.txt.query").write_text("2\n")
    files = [f"data.{split}={split}.txt" for split in ("train", "vali", "test")]
    command = ["data=letor", *files, "stage=data", "run_dir=out"]
    done = rankdistil(*command, cwd=tmp_path)
    assert (done.returncode, "no qid" in done.stderr) == (2, True)
    assert "train.txt:1" in done.stderr
    assert "Traceback" not in done.stderr
    status = read_status(tmp_path / "out")
    assert (status.state, status.stage, status.exit_code) == ("failed", "data", 2)
    assert status.error in done.stderr
    assert status.error in (tmp_path / "out" / "log").read_text()
    assert rankdistil(*command, "data.group_suffix=.query", cwd=tmp_path).returncode == 0
    assert read_status(tmp_path / "out").state == "done"
    assert "holds another run" in rankdistil(*command, cwd=tmp_path).stderr  # which was completed


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["loss=coupled"], "loss=coupled is unknown: did you mean coupled_rankdistil? available: "),
        (["teacher.lerning_rate=1"], "teacher.lerning_rate is unknown: did you mean teacher.learning_rate?"),
        (["losss.topk=1"], "losss.topk is unknown: did you mean loss.topk"),
        (["loss.topq=1"], "loss.topq is unknown: did you mean loss.topk"),
        (["teacher=lambdmart"], "teacher=lambdmart is unknown: did you mean lambdamart? available: "),
        (["data.trian=x"], "data.trian is unknown: did you mean data.train (of data=letor)"),
        (["data=letor", "data.trian=x"], "data.trian is unknown: did you mean data.train?"),
        (["data.train=x"], "data.train is an option of data=letor only"),
        (["launcher=ray"], "pip install 'rankdistil-pipeline[ray]'"),
        (["loss.topk"], "loss.topk"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(overrides, expected, command):
    if "launcher=ray" in overrides and importlib.util.find_spec("ray"):
        pytest.skip("ray is installed")
    code, _, shown = command(*overrides)
    assert code == 2
    assert expected in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) <= 2


@pytest.mark.parametrize("words", [["seed=0", "-m", "loss.topkk=1,2"], ["-m", "loss.topkk=3", "seed=0,1"]])
def test_so_is_one_in_a_sweep_before_any_job_starts(words, command, tmp_path):
    code, _, shown = command(*words)  # -m may stand anywhere
    assert (code, shown.strip()) == (2, "loss.topkk is unknown: did you mean loss.topk?")
    assert not any(tmp_path.iterdir())


def test_an_option_without_effect_names_the_right_one(command):
    code, _, shown = command("hydra.run.dir=elsewhere")
    assert (code, shown) == (2, "hydra.run.dir=elsewhere: has no effect. Fix: run_dir=FOLDER, or remove it\n")


def test_help_names_stages_every_choice_and_examples(command):
    code, shown, _ = command("--help")
    assert code == 0
    for group in ("data", "teacher", "student", "loss", "sweep", "launcher", "experiment"):
        listed = re.search(rf"^  {group}: (.*)$", shown, re.MULTILINE)[1].split(", ")
        assert set(listed) == {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
    assert all(f"  {stage} " in shown for stage in STAGES)
    assert len(re.findall(r"^  rankdistil (.*)$", shown, re.MULTILINE)) >= 5


def test_info_shows_how_the_options_were_composed(tmp_path):
    done = rankdistil("--info", "defaults", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "| loss/coupled_rankdistil " in done.stdout


def test_cfg_shows_the_options_of_the_job(command):
    code, shown, _ = command("--cfg", "job", "loss.topk=7")
    assert code == 0
    assert yaml.safe_load(shown)["loss"]["topk"] == 7
    assert yaml.safe_load(shown)["train"]["weight_decay"] == 4.0
    assert yaml.safe_load(command("--cfg", "job", "data=letor")[1])["train"]["weight_decay"] == 0.01


def test_completion_knows_groups_choices_and_options(tmp_path):
    for line, expected in (
        ("loss=coup", "loss=coupled_rankdistil"),
        ("teacher=lamb", "teacher=lambdamart"),
        ("loss.tem", "loss.temperature="),
        ("sweep=topk_", "sweep=topk_temperature_sample_size"),
    ):
        command = f"rankdistil {line}"
        environment = os.environ | {"COMP_LINE": command, "COMP_POINT": str(len(command))}
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "-sc", "query=bash"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert expected in done.stdout.split()


def test_on_a_terminal_it_shows_bars_and_in_a_pipe_none(tmp_path):
    command = [sys.executable, "-m", "pipeline", *TINY, "train.baseline=false", "stage=student"]
    seen, terminal = pty.openpty()
    with subprocess.Popen(
        [*command, "run_dir=shown"], cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            while block := os.read(seen, 4096):
                shown += block
    os.close(seen)
    assert process.returncode == 0
    assert b"training student" in shown
    assert b"to do: data (to be made), teacher (to be made), student (to be made)" in shown
    quiet = rankdistil(*command[3:], "run_dir=quiet", cwd=tmp_path)
    assert quiet.returncode == 0
    assert "training student" not in quiet.stdout + quiet.stderr
    assert "to do: data (made before), teacher (made before), student (made before)" in quiet.stderr
    logged = [line for line in quiet.stderr.splitlines() if " INFO " in line]
    stages = [line.rpartition(" ")[2] for line in logged if " INFO stage " in line]
    assert stages == ["data", "teacher", "student"]
    assert logged == (tmp_path / "quiet" / "log").read_text().splitlines()
    assert [line.split()[0] for line in quiet.stdout.splitlines() if "0." in line] == [
        "teacher",
        "student",
    ] * 2


def test_without_a_terminal_a_line_in_30_seconds_says_how_far_it_is(monkeypatch, caplog, capsys):
    now = 0.0
    monkeypatch.setattr(progress_bars.time, "monotonic", lambda: now)
    caplog.set_level("INFO")
    progress = progress_bars.ProgressBars()
    for trees in range(1, 8):
        now += 10
        progress.counted("training teacher", trees, 500, "trees at most")
    now += 30
    progress.epoch("student", {"epoch": 3, "vali": {"ndcg@10": 0.25}}, 20)
    assert caplog.messages == [
        "training teacher: 3 of 500 trees at most",
        "training teacher: 6 of 500 trees at most",
        "training student: 3 of 20 epochs, validation NDCG@10 0.2500",
    ]


def test_the_gate_has_an_exit_code_of_its_own(tmp_path):
    tiny = [*TINY, "train.baseline=false"]
    refused = rankdistil(*tiny, "run_dir=refused", "evaluate.gate.min_share_of_teacher=2", cwd=tmp_path)
    assert refused.returncode == 3
    assert "Gate: FAIL" in refused.stdout
    result = json.loads((tmp_path / "refused" / "result.json").read_text())
    assert result["gate"]["passed"] is False
    assert (read_status(tmp_path / "refused").state, read_status(tmp_path / "refused").exit_code) == (
        "done",
        3,
    )
    passed = rankdistil(*tiny, "run_dir=passed", "evaluate.gate.max_us_per_doc=1e9", cwd=tmp_path)
    assert passed.returncode == 0
    assert "Gate: PASS" in passed.stdout

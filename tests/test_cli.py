"""The command, run as people run it: in its own process."""

import contextlib
import importlib.util
import json
import os
import pty
import re
import subprocess
import sys
import zipfile

import pytest
import yaml

from pipeline import cli
from pipeline.cli import main
from pipeline.config import STAGES
from pipeline.run import Run
from tests.conftest import ROOT, TINY, tiny_config
from tests.trust.command import metrics


def rankdistil(*overrides, cwd, python_path=None):
    environment = os.environ | ({"PYTHONPATH": str(python_path)} if python_path else {})
    command = [sys.executable, "-m", "pipeline", *overrides]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


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
        "config.yaml", "events", "export.json", "log", "per_query.csv", "report", "result.json", "student",
    }  # fmt: skip
    result = json.loads((out / "result.json").read_text())
    assert result["run"]["commit"] is None  # not from a checkout: it is the wheel's code that ran
    assert metrics(result) == metrics(Run(tiny_config(tmp_path / "checkout"))())
    assert (tmp_path / "work" / ".cache" / "rankdistil" / "teacher").is_dir()


def test_mistakes_end_with_one_line_and_code_2(tmp_path):
    done = rankdistil("train.epochs=0", cwd=tmp_path)
    assert done.returncode == 2
    assert "train.epochs=0 is not possible: at least 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.glob("outputs/*"))
    for seed in ("1.5", "a", "-1", "true"):
        done = rankdistil(f"seed={seed}", cwd=tmp_path)
        assert done.returncode == 2
        assert (
            f"seed={seed.title() if seed == 'true' else seed} is not possible: a whole number" in done.stderr
        )


def test_a_folder_of_another_run_is_refused(tmp_path):
    done = rankdistil(*TINY, "stage=data", "run_dir=out", cwd=tmp_path)
    assert done.returncode == 0
    assert "documents of label 0" in done.stdout  # the data report
    done = rankdistil(*TINY, "stage=data", "run_dir=out", "seed=1", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        f"run_dir={tmp_path / 'out'} holds another run (seed=0 there, 1 now); mend: another run_dir"
        in done.stderr
    )
    assert "holds another run" not in (tmp_path / "out" / "log").read_text()  # which is the other run's


def test_the_folder_of_a_run_that_a_mistake_ended_can_be_used_again(tmp_path):
    for split in ("train", "vali", "test"):
        (tmp_path / f"{split}.txt").write_text("1 1:0.5\n0 1:0.1\n")
        (tmp_path / f"{split}.txt.query").write_text("2\n")
    files = [f"data.{split}={split}.txt" for split in ("train", "vali", "test")]
    command = ["data=letor", *files, "stage=data", "run_dir=out"]
    done = rankdistil(*command, cwd=tmp_path)
    assert (done.returncode, "no qid" in done.stderr) == (2, True)
    assert rankdistil(*command, "data.group_suffix=.query", cwd=tmp_path).returncode == 0
    assert "holds another run" in rankdistil(*command, cwd=tmp_path).stderr  # that one has come to its end


def test_a_broken_data_file_is_named_with_its_line(tmp_path):
    (tmp_path / "good.txt").write_text("1 qid:1 1:0.5\n0 qid:1 1:0.1\n")
    (tmp_path / "bad.txt").write_text("1 qid:1 1:0.5\n0 qid:1 1:x\n")
    overrides = ["data=letor", "data.train=bad.txt", "data.vali=good.txt", "data.test=good.txt"]
    done = rankdistil(*overrides, cwd=tmp_path)
    assert done.returncode == 2
    assert "bad.txt:2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "told"),
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
def test_a_typo_is_answered_with_the_nearest(overrides, told, tmp_path, monkeypatch, capsys):
    if "launcher=ray" in overrides and importlib.util.find_spec("ray"):
        pytest.skip("ray is installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rankdistil", *overrides])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) <= 2


def test_so_is_one_in_a_sweep_before_any_job_starts(tmp_path):
    done = rankdistil("seed=0", "-m", "loss.topkk=1,2", cwd=tmp_path)  # -m may stand anywhere
    assert done.returncode == 2
    assert done.stderr.strip() == "loss.topkk is unknown: did you mean loss.topk?"
    assert not list(tmp_path.glob("sweeps/*"))


def test_a_command_is_composed_once(tmp_path):
    code = """
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from pipeline.cli import main
compose = ConfigLoaderImpl._load_configuration_impl
ConfigLoaderImpl._load_configuration_impl = lambda *args, **named: print("composed") or compose(*args, **named)
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "train.epochs=0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.splitlines() == ["composed"]


def test_help_names_stages_every_choice_and_examples(tmp_path):
    done = rankdistil("--help", cwd=tmp_path)
    assert done.returncode == 0
    shown = done.stdout
    for group in ("data", "teacher", "student", "loss", "sweep", "launcher", "experiment"):
        listed = re.search(rf"^  {group}: (.*)$", shown, re.MULTILINE)[1].split(", ")
        assert set(listed) == {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
    assert all(f"  {stage} " in shown for stage in STAGES)
    examples = re.findall(r"^  rankdistil (.*)$", shown, re.MULTILINE)
    assert len(examples) >= 5


def test_cfg_and_info_answer(tmp_path):
    shown = rankdistil("--cfg", "job", "loss.topk=7", cwd=tmp_path)
    assert shown.returncode == 0
    assert yaml.safe_load(shown.stdout)["loss"]["topk"] == 7
    shown = rankdistil("--info", "defaults", cwd=tmp_path)
    assert shown.returncode == 0
    assert "coupled_rankdistil" in shown.stdout


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
    told = [line.split(" INFO ")[1].split(":")[0] for line in quiet.stderr.splitlines()]
    stages = ["stage data", "train", "vali", "test", "136 features; always 0 in train", "all that was seen"]
    assert told[1:] == [*stages, "stage teacher", "stage student", "all that was asked is done"]
    assert [line.split()[0] for line in quiet.stdout.splitlines() if "0." in line] == [
        "teacher",
        "student",
    ] * 2


def test_without_a_terminal_a_line_tells_now_and_then_how_far_it_is(monkeypatch, caplog, capsys):
    now = 0.0
    monkeypatch.setattr(cli.time, "monotonic", lambda: now)
    caplog.set_level("INFO")
    progress = cli._Progress()
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


def test_what_is_hidden_from_keras_can_be_imported_afterwards():
    script = """if True:
        import gc, sys
        from pipeline.cli import _quick_imports
        with _quick_imports():
            import pipeline.run
        assert not {"pandas", "PIL", "scipy"} & set(sys.modules)
        assert gc.isenabled() and gc.get_freeze_count() > 100_000
        import pandas, PIL.Image, scipy.ndimage
        with _quick_imports():
            import pandas as again
        assert again is pandas"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_gate_has_an_exit_code_of_its_own(tmp_path):
    tiny = [*TINY, "train.baseline=false"]
    refused = rankdistil(*tiny, "run_dir=refused", "evaluate.gate.min_share_of_teacher=2", cwd=tmp_path)
    assert refused.returncode == 3
    assert "Gate: FAIL" in refused.stdout
    result = json.loads((tmp_path / "refused" / "result.json").read_text())
    assert result["gate"]["passed"] is False
    passed = rankdistil(*tiny, "run_dir=passed", "evaluate.gate.max_us_per_doc=1e9", cwd=tmp_path)
    assert passed.returncode == 0
    assert "Gate: PASS" in passed.stdout

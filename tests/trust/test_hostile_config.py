"""A config value or an experiment file runs no code, and neither reads nor changes the environment."""

import os
import re

import pytest
import yaml
from omegaconf import OmegaConf

from pipeline.cli import compose
from pipeline.student import distillation_loss
from tests.trust.command import run

MARK = "the-mark"
CODE = {"_target_": "os.mkdir", "path": MARK, "_args_": [MARK]}
GROUPS = ("data", "teacher", "student", "loss", "train", "evaluate", "export", "tracking")


DEFAULTS = {
    "sampler of a sweeper": ["override /hydra/sweeper: optuna", "override /hydra/sweeper/sampler: tpe"],
    "search space of a sweeper": ["override /hydra/sweeper: optuna"],
    "command of a launcher": ["override /hydra/launcher: submitit_slurm"],
}


def experiment(folder, content):
    (folder / "experiment").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}")
    return run(folder, f"--config-dir={folder}", "experiment=evil", "stage=data", log="log")


LOGGING = {"version": 1, "root": {"handlers": ["h"]}}
HYDRA = {
    "callback": {"callbacks": {"evil": CODE}},
    "callback of a module": {"callbacks": {"evil": {"_target_": "antigravity.geohash"}}},
    "launcher": {"launcher": {"_target_": "subprocess.Popen"}},
    "sweeper": {"sweeper": {"_target_": "os.system"}},
    "sampler of a sweeper": {"sweeper": {"sampler": {"_target_": "os.system"}}},
    "search space of a sweeper": {"sweeper": {"custom_search_space": "antigravity.geohash"}},
    "factory of a logger": {"job_logging": LOGGING | {"handlers": {"h": {"()": "os.mkdir", "path": MARK}}}},
    "class of a logger": {"job_logging": LOGGING | {"handlers": {"h": {"class": "subprocess.Popen", "args": MARK}}}},
    "formatter of a logger": {"hydra_logging": {"formatters": {"simple": {"()": "os.mkdir", "path": MARK}}}},
    "stream of a logger": {"job_logging": {"handlers": {"console": {"stream": "ext://os.environ"}}}},
    "file of a logger": {"job_logging": {"handlers": {"file": {"filename": "/home/user/.bashrc"}}}},
    "one more file of a logger": {
        "hydra_logging": LOGGING | {"handlers": {"h": {"class": "logging.FileHandler", "filename": MARK}}}
    },
    "folder of Hydra's own files": {"output_subdir": f"../../{MARK}"},
    "command of a launcher": {"launcher": {"setup": [f"mkdir {MARK}"]}},
    "environment": {"job": {"env_set": {"LD_PRELOAD": "/tmp/x.so"}}},
    "path of programs": {"job": {"env_set": {"PATH": "/tmp"}}},
}  # fmt: skip


def defaults_of(what):
    """Of a file that picks another launcher or sweeper first."""
    pairs = [entry.split(": ") for entry in DEFAULTS.get(what, [])]
    return {"defaults": [{key: value} for key, value in pairs]} if pairs else {}


@pytest.mark.parametrize("what", HYDRA)
def test_an_experiment_file_cannot_make_hydra_run_code(tmp_path, fault, what):
    with fault("hostile experiment file: Hydra's own options", what):
        code, text = experiment(tmp_path, defaults_of(what) | {"hydra": HYDRA[what]})
        assert code == 2, text
        assert "is not allowed: a config cannot run code" in text
        assert "hydra." in text
        assert not (tmp_path / MARK).exists()
        assert not (tmp_path / "run" / "config.yaml").exists()


def composed_and_first_look(overrides):
    """What a run does first with its options; those of a loss are known to the loss alone."""
    distillation_loss(compose(overrides).loss, num_steps=1)


@pytest.mark.parametrize("group", GROUPS)
def test_a_target_in_our_options_is_an_unknown_option(tmp_path, fault, group, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with fault("hostile value: _target_ in an option"):
        with pytest.raises(ValueError, match="_target_"):
            composed_and_first_look([f"+{group}._target_=os.mkdir", f"+{group}.path={MARK}"])
        assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    "value",
    ["${oc.env:SECRET}", "${oc.env:SECRET,x}", "${oc.decode:${oc.env:SECRET}}", "${oc.${x}:SECRET}",
     "${eval:'1'}", "${python:os}"],
)  # fmt: skip
def test_no_value_reads_the_environment(tmp_path, fault, value, monkeypatch):
    monkeypatch.setenv("SECRET", "the-secret")
    with fault("hostile value: resolver"):
        for config in ({"train": {"precision": value}}, {"hydra": {"run": {"dir": value}}}):
            (tmp_path / "log").unlink(missing_ok=True)
            code, text = experiment(tmp_path, config)
            assert code == 2, text
            assert "Traceback" not in text
            assert "nterpolation" in text  # that it cannot be resolved, or is none
            assert "the-secret" not in text
        assert not any("the-secret" in path.name for path in tmp_path.rglob("*"))


def test_no_other_resolver_is_there():
    """A new one needs a thought: what a config may call, anybody's experiment file may."""
    compose([])
    known = {
        "now",
        "hydra",
        "job_folder",
        "groups_and_choices",  # of --help
        "python_version",
        "oc.create",
        "oc.select",
        "oc.dict.keys",
        "oc.dict.values",
    }
    assert {name for name in known if OmegaConf.has_resolver(name)} >= {"now", "hydra", "job_folder"}
    from omegaconf.basecontainer import BaseContainer

    assert set(BaseContainer._resolvers) <= known


@pytest.mark.parametrize(
    "text", ["x: !!python/object/apply:os.mkdir [the-mark]\n", "x: !!python/name:os.system\n"]
)
def test_yaml_makes_no_objects(tmp_path, fault, text):
    with fault("hostile experiment file: YAML tags"):
        code, output = experiment(tmp_path, text)
        assert code == 2, output
        assert "Traceback" not in output
        assert re.search(r"could not determine a constructor .*evil\.yaml\", line 2", output)
        assert not (tmp_path / MARK).exists()


def test_what_is_listed_still_works(tmp_path):
    config = {"hydra": {"job": {"env_set": {"OMP_NUM_THREADS": "1"}}}, "seed": 3}
    code, text = experiment(tmp_path, config)
    assert code == 0, text
    assert "seed: 3" in (tmp_path / "run" / "config.yaml").read_text()
    assert os.environ.get("OMP_NUM_THREADS") != "3"

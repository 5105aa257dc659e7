import doctest
import sys

import pytest

from pipeline.config import CHOICES, ConfigError, MLPStudent, TrainConfig, compose, defaults
from pipeline.config.defaults import defaults_of
from pipeline.losses.registry import DISTILLATION, make_loss, options_of
from tests.conftest import ROOT


def composed(*overrides):
    return compose(["run_dir=/somewhere", *overrides])


def test_examples():
    assert doctest.testmod(sys.modules["pipeline.config.compose"]) == (0, 1)
    assert doctest.testmod(defaults) == (0, 1)


def test_defaults_are_those_of_conf():
    assert TrainConfig() == composed("train.weight_decay=0.01").train
    assert MLPStudent(hidden=[3]) == composed("student.hidden=[3]").student
    assert composed("data=tfds", "data.builder=x").data.transform == composed().data.transform
    first, second = MLPStudent(), MLPStudent()
    assert first.hidden is not second.hidden  # lists are copied


def test_a_field_and_its_file_must_fit():
    class Other:
        epochs: int

    with pytest.raises(TypeError, match=r"conf/train/default\.yaml"):
        defaults_of("train/default")(Other)


RECIPES = [
    ([], 4.0, None),
    (["data=letor"], 0.01, None),
    (["teacher=mlp"], 4.0, 4.0),
    (["teacher=attention"], 4.0, 4.0),
    (["data=letor", "teacher=mlp"], 0.01, 0.01),
    (["train.weight_decay=2", "teacher=mlp", "teacher.weight_decay=3"], 2.0, 3.0),
    (["experiment=unlabelled"], 0.05, None),
    (["experiment=mq2008"], 0.0, None),
    (["~data_recipe"], 0.01, None),
]


@pytest.mark.parametrize(("overrides", "student", "teacher"), RECIPES)
def test_the_embedded_data_has_a_recipe_of_its_own(overrides, student, teacher, tmp_path):
    (tmp_path / "lists").write_text("0 qid:1 1:0\n")
    files = [f"data.{split}={tmp_path / 'lists'}" for split in ("train", "vali", "test")]
    config = composed(*overrides, *(files if {"data=letor", "experiment=mq2008"} & set(overrides) else []))
    assert config.train.weight_decay == student
    assert getattr(config.teacher, "weight_decay", None) == teacher


def test_every_option_of_a_file_has_a_comment():
    for path in (ROOT / "conf" / "parts").glob("*.yaml"):
        lines = path.read_text().splitlines()
        options = [number for number, line in enumerate(lines) if line[:1].isalpha()]
        plain = [lines[n] for n in options if "#" not in lines[n] and not lines[n - 1].startswith("#")]
        assert plain in ([], ["offset: 0.0"], ["learning_rate: 2.0e-3"]), path


def test_every_choice_has_a_file_and_a_class():
    for group, choices in CHOICES.items():
        assert {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} == set(choices)


def test_every_distillation_loss_has_a_file_with_its_options():
    assert {path.stem for path in (ROOT / "conf" / "loss").glob("*.yaml")} == set(DISTILLATION)
    for name, loss in DISTILLATION.items():
        config = composed(f"loss={name}").loss
        assert set(config.options) == set(options_of(loss))
        assert callable(make_loss(name, **config.options))


def test_values_arrive():
    config = composed(
        "loss.topk=5", "data.transform.clip=3", "teacher.scores.scale=2", "student.hidden=[4,2]"
    )
    assert config.loss.options["topk"] == 5
    assert config.data.transform.clip == 3.0
    assert config.teacher.scores.scale == 2.0
    assert config.student.hidden == [4, 2]
    assert config.plain()["loss"]["topk"] == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+data.typo=1", "data.typo is unknown"),
        ("+data.transform.cip=1", r"data.transform.cip is unknown: did you mean clip\?"),
        ("+typo=1", "option=typo is unknown"),
        ("train.epochs=0", "train.epochs=0 is not possible"),
        ("train.epochs=many", "train.epochs: Value 'many'"),
        ("~loss", "loss"),
        ("loss=3", "must be a string"),
        ("run_dir=null", "run_dir=None"),
        ("train.strategy=mirored", r"did you mean mirrored\?"),
        ("data=letor", "data.train is not set"),
        ("teacher=run_file", "teacher.train is not set"),
        ("teacher.scores.transform=zcore", r"did you mean zscore\?"),
        ("teacher.scores.cap=-1", "teacher.scores.cap=-1"),
        ("loss.label_weight=2", "loss.label_weight=2"),
        ("loss.label_weight=x", "loss.label_weight=x is not a number"),
        ("student.hidden=[]", "student.hidden"),
        ("seed=-1", "seed=-1"),
        ("teacher.members=3", "members differ in what they sample"),
        ("teacher=ensemble", "teacher.members is not set"),
        ("student.input_noise=-1", "student.input_noise=-1"),
        ("stage=teech", r"did you mean teacher\?"),
        ("evaluate.no_relevant=half", "available: one, skip, zero"),
        ("train.profile=[3,2]", r"train.profile=\[3, 2\] is not possible"),
        ("tracking.writers=[tensorbord]", r"did you mean tensorboard\?"),
        ("tracking.mlflow_uri=http://x", r"tracking.writers=\[tensorboard,mlflow\]"),
    ],
)
def test_a_wrong_option_is_an_error_that_says_what_is_possible(override, message):
    with pytest.raises(ConfigError, match=message):
        composed(override)


def test_scale_and_entropy_exclude_each_other():
    with pytest.raises(ConfigError, match="sets the scale"):
        composed("teacher.scores.entropy=2", "teacher.scores.scale=3")


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"data\.train=/no/such/file"):
        composed("data=letor", "data.train=/no/such/file", "data.vali=/x", "data.test=/y")


def test_hydra_rejects_an_unknown_key_without_plus():
    with pytest.raises(ConfigError, match=r"data\.typo is unknown"):
        composed("data.typo=1")


def test_stage_names_the_last_one():
    assert composed("stage=teacher").stages() == ("data", "teacher")
    assert composed().stages() == ("data", "teacher", "student", "evaluate", "export")


def test_members_of_an_ensemble_are_teachers(tmp_path):
    def members(*values):
        return composed("teacher=ensemble", f"teacher.members=[{','.join(values)}]")

    config = members("lambdamart", "{name: mlp, hidden: [4], seed: 3}")
    assert [member.name for member in config.teacher.members] == ["lambdamart", "mlp"]
    assert config.teacher.members[1].hidden == [4]
    assert config.plain()["teacher"]["members"][1]["seed"] == 3
    for wrong, message in (
        (["lambdamart"], "at least two"),
        (["lambdamart", "mpl"], r"teacher\.members\[1\]=mpl is unknown: did you mean mlp"),
        (["mlp", "ensemble"], r"members\[1\]=ensemble is unknown"),
        (["mlp", "{name: mlp, hiden: [3]}"], r"members\[1\].hiden is unknown: did you mean hidden"),
        (["mlp", "{name: mlp, scores: {scale: 2}}"], "teacher.scores"),
        (["mlp", "{name: lambdamart, synthetic_lists: 1}"], "synthetic_lists=1"),
        (["mlp", str(tmp_path)], "the folder of a finished run"),
    ):
        with pytest.raises(ConfigError, match=message):
            members(*wrong)


def test_a_network_as_teacher_names_its_own_options():
    with pytest.raises(ConfigError, match=r"teacher\.hidden=\[\]"):
        composed("teacher=mlp", "teacher.hidden=[]")
    with pytest.raises(ConfigError, match=r"teacher\.epochs=0"):
        composed("teacher=attention", "teacher.epochs=0")
    with pytest.raises(ConfigError, match=r"teacher\.path=/no/model"):
        composed("teacher=saved_model", "teacher.path=/no/model")


def test_every_experiment_composes(tmp_path):
    (tmp_path / "lists").write_text("0 qid:1 1:0\n")
    letor = [f"data.{split}={tmp_path / 'lists'}" for split in ("train", "vali", "test")]
    needs = {"mq2008": letor, "dasalc_web30k": [f"data.dir={tmp_path}"]}
    for path in (ROOT / "conf" / "experiment").glob("*.yaml"):
        config = composed(f"experiment={path.stem}", *needs.get(path.stem, []))
        if path.stem == "dasalc_web30k":
            assert (config.teacher.name, config.teacher.input_noise) == ("attention", 1.5)


def test_istellas_number_for_missing_is_the_largest_one(tmp_path):
    (tmp_path / "a.txt").write_text("1 qid:1 1:1\n")
    files = [f"data.{split}={tmp_path / 'a.txt'}" for split in ("train", "vali", "test")]
    for data in (["data=letor", *files], ["data=tfds", "data.builder=istella/main"]):
        config = composed(*data, "data.missing_value=1.79769313486232e+308")
        assert config.data.missing_value == sys.float_info.max
        assert composed(*data, "data.missing_value=-999").data.missing_value == -999

"""The stages together, on tiny data."""

import csv
import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pipeline.student as student_module
from pipeline.run import make_context, plan, run, summary
from pipeline.teacher import stage as teacher_stage
from tests.closeness import assert_close
from tests.conftest import find, load_splits, load_teacher, tiny_config

MODELS = ("teacher", "baseline", "student")


def untimed(result):
    """A result without what depends on the clock or the folder."""
    result = json.loads(json.dumps(result))
    del result["run"]
    for key in ("run_dir", "cache_dir"):
        del result["config"][key]
    for model in result["models"].values():
        for key in ("us_per_doc", "us_per_doc_list120"):
            del model[key]
    return result


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return functools.partial(tiny_config, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def first(tiny):
    config = tiny()
    return config, run(config, command="rankdistil x=1").result


def test_result_json_has_the_designed_form(first):
    config, result = first
    assert json.loads((config.run_dir / "result.json").read_text()) == json.loads(json.dumps(result))
    facts = result["run"]
    assert facts["command"] == "rankdistil x=1"
    assert facts["seed"] == 0
    assert set(facts["versions"]) >= {"python", "tensorflow", "tensorflow-ranking", "lightgbm"}
    assert set(facts["seconds"]) == {"data", "teacher", "student", "evaluate", "export"}
    assert {"commit", "device", "started"} <= set(facts)
    assert result["config"]["loss"]["topk"] == config.loss.options["topk"]
    assert result["data"]["splits"]["test"] == {
        "queries": 12,
        "docs": result["data"]["splits"]["test"]["docs"],
        "blank_queries": result["data"]["splits"]["test"]["blank_queries"],
    }
    assert set(result["models"]) == set(MODELS)
    for model in result["models"].values():
        assert model["parameters"] > 0
        assert model["us_per_doc"] > 0
        assert set(model["made_by"]) == {"commit", "dirty"}
        for split in ("vali", "test"):
            metrics = model["metrics"][split]
            for cutoff in (1, 5, 10):
                values = metrics[f"ndcg@{cutoff}"]
                assert set(values) == {"zero", "skip", "one"}
                assert 0 <= values["zero"] <= values["skip"] <= 1
            assert all(0 <= metrics[name] <= 1 for name in ("mrr@10", "map", "err@10"))
    assert set(result["agreement"]["test"]) == {"kendall_tau", "overlap@10", "ndcg@10_vs_teacher"}
    pairs = [(c["a"], c["b"]) for c in result["comparisons"]]
    assert pairs == [("student", "baseline"), ("student", "teacher"), ("baseline", "teacher")]
    assert {"metric", "difference", "ci95", "p", "win", "tie", "loss"} <= set(result["comparisons"][0])


def test_per_query_values_have_the_mean_of_the_result(first):
    config, result = first
    with (config.run_dir / "per_query.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for model in MODELS:
        values = [float(row[f"{model}/ndcg@10"]) for row in rows if row[f"{model}/ndcg@10"]]
        assert np.mean(values) == pytest.approx(
            result["models"][model]["metrics"]["test"]["ndcg@10"]["skip"], abs=1e-9
        )


def test_events_put_the_models_on_the_same_charts(first):
    config, _ = first
    tags = {}
    for model in MODELS:
        events = EventAccumulator(str(config.run_dir / "events" / model), {"tensors": 0})
        events.Reload()
        tags[model] = set(events.Tags()["tensors"])
    charts = {f"eval/{split} ndcg@{k} (skip)" for split in ("vali", "test") for k in (1, 5, 10)}
    for model in MODELS:
        assert charts <= tags[model]
    steps = {"train/loss", "train/learning_rate", "train/steps_per_second", "train/docs_per_second"}
    assert steps <= tags["student"] & tags["baseline"]


def test_the_exported_student_scores_raw_features(first):
    config, result = first
    features = load_splits(config).splits["test"].features
    assert result["export"]["saved_model"]["path"] == "student"
    student = run(config).raw_scorer("student")
    rank = tf.saved_model.load(str(config.run_dir / "student")).signatures["rank"]
    assert_close(rank(features=tf.constant(features))["scores"], student.score(features))


def test_the_same_seed_gives_the_same_numbers_with_and_without_a_cache(first, tiny):
    _, result = first
    assert untimed(run(tiny(run="warm")).result) == untimed(result)
    assert untimed(run(tiny(run="cold", cache="another")).result) == untimed(result)
    assert untimed(run(tiny("seed=1", run="seed")).result) != untimed(result)


def test_another_temperature_trains_neither_teacher_nor_baseline_again(first, tiny, monkeypatch):
    _, result = first
    trained = []
    fit = student_module.fit

    def counted(*args, **kwargs):
        trained.append(kwargs["folder"])
        return fit(*args, **kwargs)

    def never(*args, **kwargs):
        raise AssertionError("the teacher was trained again")

    monkeypatch.setattr(student_module, "fit", counted)
    monkeypatch.setattr(teacher_stage, "fit_lambdamart", never)
    other = run(tiny("loss.temperature=3", run="temperature")).result
    assert len(trained) == 1
    assert other["models"]["student"]["metrics"] != result["models"]["student"]["metrics"]
    for model in ("teacher", "baseline"):
        assert other["models"][model]["metrics"] == result["models"][model]["metrics"]


def test_the_plan_says_what_is_made_before_and_makes_nothing(first, tiny):
    stages = {
        "data": ["data", "features"],
        "teacher": ["teacher", "scores"],
        "student": ["student", "baseline"],
    }
    everything = {**stages, "evaluate": [], "export": []}
    fresh = tiny(run="planned", cache="fresh")
    assert plan(fresh, make_context(fresh)) == {
        stage: [(name, "to be made") for name in names] for stage, names in everything.items()
    }
    assert not fresh.cache_dir.exists()
    again = tiny(run="planned")
    made = plan(again, make_context(again))
    assert made == {stage: [(name, "made before") for name in names] for stage, names in everything.items()}
    cooler = tiny("loss.temperature=0.7", "stage=student", run="planned")
    artifacts, ctx = find(cooler)
    assert plan(cooler, ctx) == {
        **{stage: made[stage] for stage in ("data", "teacher")},
        "student": [("student", "to be made"), ("baseline", "made before")],
    }
    work = artifacts.models["student"].work
    work.mkdir()
    assert plan(cooler, ctx)["student"][0] == ("student", "goes on")
    work.rmdir()


def test_a_cached_student_brings_its_curves_into_the_new_run(first, tiny):
    config = tiny(run="curves")
    run(config)
    events = EventAccumulator(str(config.run_dir / "events" / "student"), {"tensors": 0})
    events.Reload()
    assert [event.step for event in events.Tensors("train/loss")] == [1, 2, 3]


def test_a_stage_ends_there(tiny):
    config = tiny("stage=teacher", run="stage")
    assert run(config).result is None
    assert not (config.run_dir / "result.json").exists()
    assert not (config.run_dir / "student").exists()


def test_without_a_baseline(tiny):
    result = run(tiny("train.baseline=false", "student=linear", run="alone")).result
    assert set(result["models"]) == {"teacher", "student"}
    assert result["models"]["student"]["parameters"] == 137
    assert [(c["a"], c["b"]) for c in result["comparisons"]] == [("student", "teacher")]


def test_the_baseline_learns_from_a_loss_of_tfr(first, tiny):
    of_ours = first[1]["models"]
    of_tfr = run(tiny("loss.label_loss=tfr_gumbel_approx_ndcg", run="of_tfr")).result["models"]
    assert of_tfr["student"]["metrics"] == of_ours["student"]["metrics"]  # loss.label_weight is 0
    assert of_tfr["baseline"]["metrics"] != of_ours["baseline"]["metrics"]


def test_an_option_that_the_loss_does_not_have_stops_before_anything_is_made(tiny):
    with pytest.raises(ValueError, match="sample_sizes"):
        run(tiny("+loss.sample_sizes=3", run="wrong"))
    with pytest.raises(ValueError, match=r"loss\.label_loss=sofmax"):
        run(tiny("loss.label_loss=sofmax", run="wrong"))


def test_scores_made_elsewhere_teach_as_the_teacher_itself_does(first, tiny, tmp_path):
    config, result = first
    overrides = ["teacher=run_file"]
    teacher = load_teacher(config)
    for split in ("train", "vali", "test"):
        np.save(tmp_path / f"{split}.npy", teacher.scores[split])
        overrides.append(f"teacher.{split}={tmp_path / split}.npy")
    other = run(tiny(*overrides, run="run_file")).result
    for model in MODELS:
        assert other["models"][model]["metrics"] == result["models"][model]["metrics"]
    assert other["models"]["teacher"]["parameters"] is None


def test_what_is_known_before_the_evaluation(first, tiny):
    _, result = first
    for stage, models in (("teacher", MODELS[:1]), ("student", MODELS)):
        ended = tiny(f"stage={stage}", run=stage)
        made = summary(ended, run(ended))
        assert made["data"] == result["data"]
        assert set(made["models"]) == set(models)
        for model in models:
            known = made["models"][model]
            assert known == {key: result["models"][model][key] for key in known}
            assert {"parameters", "metrics"} <= known.keys()


def test_letor_files_end_to_end(tiny, tmp_path, first):
    """The embedded data, written as text, gives the numbers of the arrays."""
    config, result = first
    data = load_splits(config).splits
    overrides = [
        "data=letor",
        f"train.weight_decay={config.train.weight_decay}",
    ]  # data=synthetic has its own
    for split, lists in data.items():
        path = tmp_path / f"{split}.txt"
        with path.open("w") as file:
            for row, query in enumerate(lists.query_ids[lists.list_of_doc]):
                values = " ".join(
                    f"{i}:{v!r}" for i, v in enumerate(lists.features[row].tolist(), 1) if v or i == 136
                )
                file.write(f"{lists.labels[row]:.0f} qid:{query} {values} # doc {row}\n")
        overrides.append(f"data.{split}={path}")
    other = run(tiny(*overrides, run="letor")).result
    for model in MODELS:
        assert other["models"][model]["metrics"] == result["models"][model]["metrics"]


def test_a_damaged_student_is_made_again_to_the_same_numbers(first, tiny, caplog):
    config, result = first
    folder = find(config)[0].models["student"].path
    (folder / "weights.npz").write_bytes(b"damaged")
    assert untimed(run(tiny(run="mended")).result) == untimed(result)
    assert "weights.npz is not what was written" in caplog.text


def test_a_listwise_student_is_evaluated_and_exported_by_lists(tiny):
    overrides = (
        "student.hidden=[8]",
        "student.head_size=4",
        "student.batch_norm=true",
        "student.dropout=0.1",
    )
    config = tiny("student=attention", *overrides, "train.baseline=false", "train.epochs=1", run="listwise")
    outcome = run(config)
    assert outcome.result["models"]["student"]["us_per_doc"] > 0
    test = outcome.data.splits["test"]
    scores = outcome.raw_scorer("student").score(test.features, test.offsets)
    loaded = tf.saved_model.load(str(config.run_dir / "student")).signatures
    first, second = test.offsets[1], test.offsets[2]
    one_list = loaded["rank"](features=tf.constant(test.features[:first]))["scores"]
    assert_close(one_list, scores[:first])
    lists = np.full((2, max(first, second - first) + 1, test.num_features), 7.0, np.float32)
    mask = np.ones(lists.shape[:2], bool)
    mask[:, 1] = False  # padding may be anywhere
    mask[0, first + 1 :] = mask[1, second - first + 1 :] = False
    lists[mask] = test.features[:second]
    got = loaded["rank_lists"](features=tf.constant(lists), mask=tf.constant(mask))["scores"].numpy()
    assert_close(got[mask], scores[:second])
    assert (got[~mask] == -np.inf).all()


def test_what_takes_long_to_import_is_imported_where_it_is_used():
    """A run whose artifacts were made before need not wait for it."""
    heavy = ["lightgbm", "matplotlib", "numba", "statsmodels", "tensorflow_datasets"]
    code = f"import sys, pipeline.cli, pipeline.run; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"

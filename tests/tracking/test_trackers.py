"""The trackers on runs with known numbers, and on a whole tiny run."""

import csv
import doctest
import sys

import pytest
import tensorflow as tf
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from pipeline.config import ConfigError
from pipeline.run import run
from pipeline.tracking import hyper_parameters, mlflow_run, open_trackers
from tests.conftest import tiny_config

MODELS = ("teacher", "baseline", "student")


def events_of(folder):
    events = EventAccumulator(str(folder), {"tensors": 0, "histograms": 0})
    events.Reload()
    return events


def value(event):
    return float(tf.make_ndarray(event.tensor_proto))


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    root = tmp_path_factory.mktemp("tracked")
    uri = f"sqlite:///{root}/mlflow.db"
    config = tiny_config(root, "tracking.writers=[tensorboard,csv,mlflow]", f"tracking.mlflow_uri={uri}")
    return config, run(config).result, MlflowClient(uri)


def test_example():
    assert doctest.testmod(mlflow_run) == (0, 1)


def test_the_models_share_the_charts_and_have_histograms(tracked):
    config, result, _ = tracked
    for model in MODELS:
        events = events_of(config.run_dir / "events" / model)
        expected = result["models"][model]["metrics"]["test"]["ndcg@10"]["skip"]
        assert value(events.Tensors("eval/test ndcg@10 (skip)")[-1]) == pytest.approx(expected, abs=1e-6)
        histogram = events.Tensors("eval/test ndcg@10 of each query (skip)")[-1].tensor_proto
        counts = tf.make_ndarray(histogram)[:, 2]  # of (left edge, right edge, count)
        facts = result["data"]["splits"]["test"]
        assert counts.sum() == facts["queries"] - facts["blank_queries"]


def test_a_trial_has_options_and_metrics_in_a_folder_of_its_own(tracked):
    config, result, _ = tracked
    events = events_of(config.run_dir / "events" / "trial")
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    given = metadata.parse_session_start_info_plugin_data(content).hparams
    assert given["loss.topk"].number_value == config.loss.options["topk"]
    assert given["loss.name"].string_value == "coupled_rankdistil"
    assert given["train.baseline"].bool_value is True
    for model in MODELS:
        expected = result["models"][model]["metrics"]["test"]["ndcg@10"]["skip"]
        tag = "vs/NDCG@10 skip" if model == "student" else f"vs/{model} skip"
        assert value(events.Tensors(tag)[0]) == pytest.approx(expected, abs=1e-6)
    assert set(events.Tags()["tensors"]) == {
        *("vs/NDCG@10 skip", "vs/vali skip", "vs/baseline skip", "vs/teacher skip"),
        *("_hparams_/session_start_info", "config"),
    }


def test_every_choice_has_the_same_keys_and_flat_values(tmp_path):
    tables = [
        hyper_parameters(tiny_config(tmp_path, *overrides))
        for overrides in (
            [],
            ["loss=mse"],
            ["student=linear"],
            ["train.baseline=false", "student.hidden=[3,2]"],
            ["loss.topk=null"],
            ["teacher=mlp", "loss=listnet", "data.transform.clip=3"],
            ["data=tfds", "data.builder=x", "data.missing_value=3"],
        )
    ]
    assert len({tuple(table) for table in tables}) == 1
    for table in tables:
        assert all(isinstance(v, bool | int | float | str) for v in table.values())
    for key in tables[0]:  # numbers and text in one column: TensorBoard cannot sort it
        values = [table[key] for table in tables]
        kinds = {bool if isinstance(v, bool) else str if isinstance(v, str) else float for v in values}
        assert len(kinds) == 1, (key, values)
    default, mse, linear, hidden, every, listnet, _ = tables
    assert [table["loss.topk"] for table in (default, mse, every, listnet)] == [30, -1, -1, -1]
    assert [table["data.transform.clip"] for table in (default, listnet)] == [-1, 3]
    assert mse["loss.name"] == "mse"
    assert linear["student.hidden"] == "-"
    assert hidden["student.hidden"] == "[3, 2]"
    assert hidden["train.baseline"] is False
    assert not any(key.startswith(("run_dir", "cache_dir", "tracking")) for key in default)


def test_csv_has_a_row_a_number(tracked):
    config, result, _ = tracked
    with (config.run_dir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["model"], row["step"], row["metric"]): float(row["value"]) for row in rows}
    assert len(found) == len(rows)
    student = result["models"]["student"]["metrics"]["test"]["ndcg@10"]["skip"]
    assert found["student", "3", "eval/test ndcg@10 (skip)"] == student
    assert found["", "", "vs/NDCG@10 skip"] == student
    assert {step for model, step, metric in found if (model, metric) == ("baseline", "train/loss")} == {
        *"123"
    }


def test_mlflow_has_a_run_with_parameters_curves_and_results(tracked):
    config, result, client = tracked
    (experiment,) = client.search_experiments(filter_string="name = 'rankdistil'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["loss.topk"] == str(config.loss.options["topk"])
    assert "teacher.hidden" not in run.data.params  # of another teacher
    student = result["models"]["student"]["metrics"]["test"]["ndcg@10"]["skip"]
    assert run.data.metrics["vs/NDCG_10 skip"] == student
    curve = client.get_metric_history(run.info.run_id, "student/eval/vali ndcg_10 skip")
    assert [point.step for point in curve] == [1, 2, 3]


def test_the_same_command_again_replaces_what_is_there(tracked):
    config, _, client = tracked
    before = (config.run_dir / "metrics.csv").read_text()
    with open_trackers(config) as trackers:
        trackers.scalars("student", 1, {"train/loss": 0.5})
    (experiment,) = client.search_experiments(filter_string="name = 'rankdistil'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == {"student/train/loss": 0.5}
    assert (config.run_dir / "metrics.csv").read_text().splitlines()[1:] == ["student,1,train/loss,0.5"]
    assert [path.name for path in (config.run_dir / "events").iterdir()] == ["student"]
    assert "vs/NDCG@10 skip" in before


def test_a_run_that_fails_is_marked_as_failed(tracked, tmp_path):
    tracking, client = tracked[0].tracking, tracked[2]
    config = tiny_config(
        tmp_path,
        "tracking.writers=[mlflow]",
        f"tracking.mlflow_uri={tracking.mlflow_uri}",
        "tracking.mlflow_experiment=other",
    )
    with pytest.raises(ZeroDivisionError), open_trackers(config):
        _ = 1 / 0
    (run,) = client.search_runs([client.get_experiment_by_name("other").experiment_id])
    assert run.info.status == "FAILED"


def test_without_writers_nothing_is_written(tmp_path):
    config = tiny_config(tmp_path, "tracking.writers=[]")
    with open_trackers(config) as trackers:
        trackers.scalars("student", 1, {"train/loss": 0.5})
    assert [path.name for path in config.run_dir.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("missing", ["mlflow", "sqlalchemy"])
def test_a_package_that_is_not_installed_is_named_with_the_extra(tmp_path, monkeypatch, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    config = tiny_config(
        tmp_path, "tracking.writers=[mlflow]", f"tracking.mlflow_uri=sqlite:///{tmp_path}/mlflow.db"
    )
    mend = {"mlflow": r"rankdistil-pipeline\[mlflow\]", "sqlalchemy": "pip install sqlalchemy alembic"}
    with pytest.raises(ConfigError, match=mend[missing]), open_trackers(config):
        pass
    assert not (config.run_dir / "mlflow.json").exists()


def test_a_store_that_mlflow_refuses_is_named_with_the_fix(tmp_path):
    config = tiny_config(
        tmp_path, "tracking.writers=[csv,mlflow]", f"tracking.mlflow_uri=file://{tmp_path}/mlruns"
    )
    with (
        pytest.raises(ConfigError, match=r"tracking\.mlflow_uri=file://.*maintenance.*Fix: .*sqlite:///"),
        open_trackers(config),
    ):
        pass
    assert [path.name for path in config.run_dir.iterdir()] == ["config.yaml"]


def test_a_folder_as_a_store_where_mlflow_is_told_to_take_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)  # mlflow-skinny alone is enough
    uri = f"file://{tmp_path}/mlruns"
    config = tiny_config(tmp_path, "tracking.writers=[mlflow]", f"tracking.mlflow_uri={uri}")
    with open_trackers(config) as trackers:
        trackers.scalars("student", 3, {"eval/vali ndcg@10 (skip)": 0.25})
        trackers.summary({"vs/NDCG@10 skip": 0.5})
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("rankdistil").experiment_id])
    assert run.data.metrics == {"student/eval/vali ndcg_10 skip": 0.25, "vs/NDCG_10 skip": 0.5}
    assert run.info.status == "FINISHED"

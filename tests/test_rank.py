"""Runs written by rankdistil-rank: other programs read them and come to our numbers."""

import doctest
import math
import re
import subprocess
import sys

import ir_measures
import numpy as np
import pytest
import pytrec_eval

from pipeline import rank
from pipeline.config import ExportConfig, LinearStudent, TransformConfig
from pipeline.data import read_letor
from pipeline.data.transform import fit_transform
from pipeline.export.formats import export
from pipeline.export.load import ExportedModel
from pipeline.export.raw_scorer import RawScorer
from pipeline.metrics.ndcg import ranked_ndcg
from pipeline.metrics.ranked import rank_lists
from pipeline.models.scorer import build_scorer
from pipeline.teacher.run_file import read_scores
from tests.closeness import assert_close

NUM_FEATURES = 5


def write_letor(path, *, num_queries=40, seed=0):
    """Lists with equal rows, which get equal scores; some are blank."""
    rng = np.random.default_rng(seed)
    with path.open("w") as out:
        for query in range(num_queries):
            for _ in range(rng.integers(1, 30)):
                values = " ".join(f"{i}:{v}" for i, v in enumerate(rng.integers(0, 2, NUM_FEATURES), 1))
                label = 0 if query % 7 == 0 else rng.integers(0, 4)
                out.write(f"{label} qid:{100 + query} {values}\n")
    return path


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """(folder, LETOR file, its data, scores of Keras) with a run in folder/run and labels in folder/qrels."""
    folder = tmp_path_factory.mktemp("rank")
    file = write_letor(folder / "test.txt")
    data = read_letor(file)
    transform = fit_transform(TransformConfig(), data.features)
    scorer = build_scorer(LinearStudent(), NUM_FEATURES, seed=3)
    formats = ["saved_model", "tflite", "onnx"]
    export(RawScorer(transform, scorer), data, ExportConfig(formats=formats), folder)
    run_main(folder, file, "-o", folder / "run", "--qrels", folder / "qrels")
    return folder, file, data, scorer(transform(data.features)).numpy()


def run_main(*arguments):
    with pytest.raises(SystemExit) as stopped:
        rank.main([str(argument) for argument in arguments])
    assert stopped.value.code == 0


def our_ndcg(scores, data, cutoff=10):
    values = ranked_ndcg(rank_lists(scores, data.labels, data.offsets), cutoff=cutoff)
    return dict(zip(data.query_ids.tolist(), np.nan_to_num(values).tolist(), strict=True))


def test_a_file_without_qid(ranked, tmp_path):
    folder, file, data, _ = ranked
    (tmp_path / "test.txt").write_text(re.sub(r" qid:\d+", "", file.read_text()))
    (tmp_path / "test.txt.group").write_text("\n".join(map(str, data.list_sizes)))
    run_main(folder, tmp_path / "test.txt", "-o", tmp_path / "run", "--groups", tmp_path / "test.txt.group")
    numbered = [line.split() for line in (tmp_path / "run").read_text().splitlines()]
    expected = [line.split() for line in (folder / "run").read_text().splitlines()]
    assert [[str(int(query) + 99), *rest] for query, *rest in numbered] == expected


@pytest.mark.parametrize("cutoff", [1, 5, 10])
def test_pytrec_eval_and_ir_measures_come_to_our_ndcg(ranked, cutoff):
    """They take the label as the gain, so the gains 2^label - 1 are named to them; a blank query counts 0."""
    folder, _, data, _ = ranked
    run = list(ir_measures.read_trec_run(str(folder / "run")))
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels")))
    expected = our_ndcg(read_scores(folder / "run", data), data, cutoff)
    gains = {label: 2**label - 1 for label in range(4)}
    measure = ir_measures.nDCG(gains=gains) @ cutoff
    found = {metric.query_id: metric.value for metric in ir_measures.iter_calc([measure], qrels, run)}
    assert found == pytest.approx(expected, abs=1e-9)

    by_query = {}
    for qrel in qrels:
        by_query.setdefault(qrel.query_id, {})[qrel.doc_id] = gains[qrel.relevance]
    evaluator = pytrec_eval.RelevanceEvaluator(by_query, {f"ndcg_cut.{cutoff}"})
    scored = {}
    for line in run:
        scored.setdefault(line.query_id, {})[line.doc_id] = line.score
    found = {query: values[f"ndcg_cut_{cutoff}"] for query, values in evaluator.evaluate(scored).items()}
    assert found == pytest.approx(expected, abs=1e-9)


def test_the_run_holds_every_row_best_first_and_its_score(ranked):
    folder, _, data, keras_scores = ranked
    lines = [line.split(" ") for line in (folder / "run").read_text().splitlines()]
    assert len(lines) == data.num_docs
    position = 0
    for query, start, stop in zip(data.query_ids, data.offsets[:-1], data.offsets[1:], strict=True):
        mine = lines[position : position + stop - start]
        position += stop - start
        assert {line[0] for line in mine} == {query}
        assert [int(line[3]) for line in mine] == list(range(1, stop - start + 1))
        scores = np.array([line[4] for line in mine], np.float32)
        assert (np.diff(scores) < 0).all()
        order = [int(line[2]) for line in mine]
        assert sorted(order) == list(range(stop - start))
        assert_close(scores, keras_scores[start:stop][order], rtol=1e-5, atol=1e-5)
    assert {(line[1], line[5]) for line in lines} == {("Q0", "student")}


def test_equal_scores_keep_the_order_of_the_rows(ranked):
    _, _, data, keras_scores = ranked
    assert any(
        len(np.unique(keras_scores[start:stop])) < stop - start
        for start, stop in zip(data.offsets[:-1], data.offsets[1:], strict=True)
    )
    falling = rank.strictly_falling(np.array([2, 1, 1, 1, 0, -0.0, -1, -1], np.float32))
    assert falling[[0, 1, 4, 6]].tolist() == [2, 1, 0, -1]
    below = [np.nextafter(np.float32(x), np.float32(-np.inf)) for x in (1, 0, -1)]
    assert falling[[2, 5, 7]].tolist() == below
    assert doctest.testmod(rank).failed == 0


def test_every_format_gives_the_same_order(ranked, tmp_path):
    folder, file, data, _ = ranked
    for number, model in enumerate(("student.tflite", "student.onnx")):
        run_main(folder / model, file, "-o", tmp_path / str(number), "--tag", "x", "--threads", 1)
        assert_close(read_scores(tmp_path / str(number), data), read_scores(folder / "run", data), atol=1e-5)


def test_missing_values_are_those_of_the_run(ranked, tmp_path):
    folder, file, *_ = ranked
    lines = file.read_text().splitlines()
    (tmp_path / "zero").write_text("\n".join(f"{line[: line.index(' 1:')]} 1:0 2:1" for line in lines))
    (tmp_path / "marked").write_text("\n".join(f"{line[: line.index(' 1:')]} 1:-999 2:1" for line in lines))
    run = tmp_path / "run"
    run.mkdir()
    (run / "student").symlink_to(folder / "student")
    (run / "export.json").write_text("{}")
    (run / "config.yaml").write_text("data: {name: letor, missing_value: -999.0}")
    run_main(run, tmp_path / "zero", "-o", tmp_path / "expected")
    for model in (run, run / "student"):
        run_main(model, tmp_path / "marked", "-o", tmp_path / "found")
        assert (tmp_path / "found").read_bytes() == (tmp_path / "expected").read_bytes()
    run_main(run, tmp_path / "marked", "-o", tmp_path / "found", "--missing-value", -5)
    assert (tmp_path / "found").read_bytes() != (tmp_path / "expected").read_bytes()
    (run / "config.yaml").write_text("data: {name: istella}")
    largest = (tmp_path / "marked").read_text().replace("-999", "1.79769313486232e+308")
    (tmp_path / "marked").write_text(largest)
    run_main(run, tmp_path / "marked", "-o", tmp_path / "found")
    assert (tmp_path / "found").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "FILE", "-o", "RUN"], "nothing is not there"),
        (["MODEL", "WIDE", "-o", "RUN"], r"WIDE:1: .*above 5\. Fix: .*MODEL takes 5 features"),
        (["MODEL", "AGAIN", "-o", "RUN"], r"AGAIN:3: .*Fix: bring its rows together\n"),
        (["MODEL", "TWICE", "-o", "RUN"], "Fix: .*set --duplicates to first, last or sum"),
        (["MODEL", "SHARES", "-o", "RUN", "--qrels", "QRELS"], "label 0.5. Fix: leave --qrels out"),
        (["MODEL", "FILE", "-o", "RUN", "--tag", "two words"], "one word"),
        (["MODEL", "BARE", "-o", "RUN"], "BARE:1: no qid:.*set --groups\n"),
        (["MODEL", "BELOW", "-o", "RUN", "--qrels", "QRELS"], "the label '-1' is negative"),
        (["MODEL", "FILE", "-o", "MODEL/variables"], "is a folder. Fix: name a file"),
        (["MODEL", "FILE", "-o", "FILE"], "would be written over"),
        (["MODEL", "FILE", "-o", "nowhere/RUN"], "its folder is not there"),
        (["MODEL", "FILE", "-o", "RUN", "--threads", "0"], "at least 1"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(ranked, tmp_path, monkeypatch, capsys, arguments, message):
    folder, file, *_ = ranked
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MODEL").symlink_to(folder / "student")
    (tmp_path / "FILE").write_bytes(file.read_bytes())
    (tmp_path / "AGAIN").write_text("1 qid:1 1:1\n1 qid:2 1:1\n1 qid:1 1:1\n")
    (tmp_path / "TWICE").write_text("1 qid:1 1:1 1:2\n")
    (tmp_path / "WIDE").write_text("1 qid:1 6:1\n")
    (tmp_path / "BARE").write_text("1 1:1\n")
    (tmp_path / "BELOW").write_text("-1 qid:1 1:1\n")
    (tmp_path / "SHARES").write_text("1 qid:1 1:1\n0.5 qid:2 1:1\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as stopped:
        rank.main(arguments)
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_but_the_result_is_printed(ranked, tmp_path):
    folder, file, data, _ = ranked
    for model in ("student", "student.tflite"):
        command = [sys.executable, "-m", "pipeline.rank", folder / model, file, "-o", tmp_path / "run"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert f"{data.num_queries} queries" in done.stdout
        # Lines that TensorFlow's logging writes before it reads TF_CPP_MIN_LOG_LEVEL are not ours to stop.
        lines = [
            line
            for line in done.stderr.splitlines()
            if not re.match(r"I0000 |WARNING: All log|INFO: Created", line)
        ]
        assert lines == []


def test_a_score_that_is_no_number_stops_it(tmp_path):
    file = write_letor(tmp_path / "a.txt", num_queries=2)
    model = ExportedModel(NUM_FEATURES, lambda features: np.full(len(features), math.nan, np.float32))
    with pytest.raises(ValueError, match="document 0 of query '100' gets the score nan"):
        rank.rank_file(model, file, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_onnx_model_needs_no_tensorflow(ranked, tmp_path):
    folder, file, data, _ = ranked
    script = "import sys; from pipeline import rank\ntry: rank.main()\nfinally: assert 'tensorflow' not in sys.modules"
    command = [sys.executable, "-c", script, folder / "student.onnx", file, "-o", tmp_path / "run"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"{data.num_queries} queries, {data.num_docs} documents" in done.stdout

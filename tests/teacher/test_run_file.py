import numpy as np
import pytest

from pipeline.data import RankingData
from pipeline.teacher.run_file import read_scores

DATA = RankingData(
    np.zeros((5, 1), np.float32), np.zeros(5, np.float32), np.array([0, 2, 5]), np.array(["q1", "q2"])
)
SCORES = [0.5, -1.25, 3.0, 2.0, 1e-3]


def lines(base):
    documents = [("q1", 0), ("q1", 1), ("q2", 0), ("q2", 1), ("q2", 2)]
    return [f"{q} Q0 {d + base} 1 {s} tag" for (q, d), s in zip(documents, SCORES, strict=True)]


@pytest.mark.parametrize("base", [0, 1])
def test_a_trec_run_in_any_order(tmp_path, base):
    path = tmp_path / "run.txt"
    path.write_text("\n".join([*reversed(lines(base)), "", ""]))
    assert read_scores(path, DATA).tolist() == SCORES


def test_npy(tmp_path):
    np.save(tmp_path / "s.npy", np.array(SCORES))
    assert read_scores(tmp_path / "s.npy", DATA).tolist() == SCORES
    np.save(tmp_path / "s.npy", np.array(SCORES[:4]))
    with pytest.raises(ValueError, match=r"s.npy: holds float64 \[4\], the data has 5 documents"):
        read_scores(tmp_path / "s.npy", DATA)
    np.save(tmp_path / "s.npy", np.array([0, 1, np.inf, 0, 0]))
    with pytest.raises(ValueError, match="row 2"):
        read_scores(tmp_path / "s.npy", DATA)
    np.save(tmp_path / "s.npy", np.array([{}] * 5), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_scores(tmp_path / "s.npy", DATA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x[:-1],
            "1 documents have no score; the first is document 2 of query 'q2'. Fix: a line for ",
        ),
        (lambda x: [*x, x[0]], ":6: a second score for document 0 of query 'q1'"),
        (lambda x: [*x, "q3 Q0 0 1 1.0 t"], ":6: query 'q3' is not in the data"),
        (lambda x: [*x, "q1 Q0 2 1 1.0 t"], ":6: document 2 of query 'q1', which has 2 documents"),
        (lambda x: [*x, "q1 Q0 doc 1 1.0 t"], ":6: document 'doc'"),
        (lambda x: [*x, "q1 Q0 0 1 nan t"], ":6: score 'nan' is not a finite number"),
        (lambda x: [*x, "q1 Q0 0 1.0"], ":6: 4 fields"),
        (lambda x: [x[2].replace("Q0 0", "Q0 7")], "smallest document number"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    path = tmp_path / "run.txt"
    path.write_text("\n".join(change(lines(0))))
    with pytest.raises(ValueError, match=message):
        read_scores(path, DATA)


def test_rd_suite_names_documents_as_its_qrels_do(tmp_path):
    """Six columns by white space, documents by name, in the order of rank; qrels in the order of the data."""
    data = RankingData(DATA.features, np.array([0, 1, 2, 0, 0], np.float32), DATA.offsets, DATA.query_ids)
    folder = tmp_path / "test"
    folder.mkdir()
    qrels = ["q1 0 d7 0", "q1 0 d3 1", "q2 0 d7 2", "q2 0 d9 0", "q2 0 x 0"]
    run = ["q1\tQ0\td3\t1\t-1.25\trd", "q1\tQ0\td7\t2\t0.5\trd", "q2 Q0 d7 1 3.0 rd", "q2 Q0 x 3 0.001 rd"]
    (folder / "trec_qrel.txt").write_text("\n".join(qrels))
    path = folder / "trec_run.txt"
    path.write_text("\n".join([*run, "q2 Q0 d9 2 2.0 rd"]))
    assert read_scores(path, data).tolist() == SCORES
    path.write_text("\n".join([*run, "q2 Q0 d8 2 2.0 rd"]))
    with pytest.raises(
        ValueError, match=r"trec_run.txt:5: document 'd8' of query 'q2' is not in .*trec_qrel.txt"
    ):
        read_scores(path, data)
    with pytest.raises(
        ValueError, match=r"trec_qrel.txt: the labels of query 'q1' are not those of the data"
    ):
        read_scores(path, DATA)
    (folder / "trec_qrel.txt").write_text("q1 0 d7")
    with pytest.raises(ValueError, match=r"trec_qrel.txt:1: 'q1 0 d7'. Fix"):
        read_scores(path, data)

import dataclasses
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from pipeline.data import RankingData, read_letor
from pipeline.data import check as check_module
from pipeline.data.check import data_table, describe, summary
from pipeline.run import run
from tests.conftest import tiny_config


def lists(sizes, labels, *, first=0, features=None):
    labels = np.array(labels, np.float32)
    if features is None:
        features = np.arange(3 * len(labels), dtype=np.float32).reshape(-1, 3)
    offsets = np.cumsum([0, *sizes]).astype(np.int64)
    ids = np.array([f"q{first + number}" for number in range(len(sizes))])
    return RankingData(np.array(features, np.float32), labels, offsets, ids)


@pytest.fixture
def data():
    return {
        "train": lists([1, 2, 5], [1, 0, 0, 0, 1, 2, 2, 0]),
        "vali": lists([2], [0, 4], first=10),
        "test": lists([3], [1, 0, 0], first=20),
    }


def test_counts(data):
    described = describe(data)
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert described["num_features"] == 3
    assert described["splits"]["train"] == {
        "queries": 3,
        "docs": 8,
        "blank_queries": 1,
        "one_doc_lists": 1,
        "list_size": {"min": 1, "median": 2.0, "mean": 2.67, "max": 5},
        "label_range": [0.0, 2.0],
        "labels": {"0": 4, "1": 2, "2": 2},
    }
    assert described["splits"]["vali"]["labels"] == {"0": 1, "4": 1}
    assert described["overlaps"] == described["warnings"] == []
    assert all(kind["count"] == 0 for kind in described["features"].values())


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_features_that_carry_nothing_in_train_and_those_that_are_huge_anywhere(data, rows, monkeypatch):
    monkeypatch.setattr(check_module, "_ROWS", rows)
    for part in data.values():
        part.features[:, 0] = 0
    data["train"].features[:, 1] = -2.5
    data["test"].features[1, 2] = -np.finfo(np.float32).max
    described = describe(data)
    assert described["features"] == {
        "constant": {"count": 1, "first": [2]},
        "empty": {"count": 1, "first": [1]},
        "huge": {"count": 1, "first": [3]},
    }
    assert re.search(
        r"features that reach beyond 1e\+30: 1 \(nos\. 3\).*data\.missing_value", described["warnings"][0]
    )


def test_many_features_are_counted_and_some_named():
    wide = {
        split: lists([2], [0, 1], first=first, features=np.eye(2, 51, 50))
        for split, first in (("train", 0), ("vali", 1), ("test", 2))
    }
    described = describe(wide)
    assert described["features"]["empty"] == {"count": 50, "first": list(range(1, 21))}
    assert described["warnings"][-1].startswith("50 of 51 features are always 0 in train: a feature index")
    half = {split: dataclasses.replace(part, features=part.features[:, 49:]) for split, part in wide.items()}
    assert not any("always 0" in warning for warning in describe(half)["warnings"])


def test_query_ids_that_two_splits_share(data):
    data["test"] = dataclasses.replace(data["test"], query_ids=np.array(["q1"]))
    described = describe(data)
    assert described["overlaps"] == [{"splits": ["train", "test"], "count": 1, "first": ["q1"]}]
    assert "train and test share 1 query ids, such as q1" in described["warnings"][0]


def test_lists_that_two_splits_share(data):
    features = np.arange(12, dtype=np.float32).reshape(4, 3)
    data["train"] = lists([1, 2, 1], [0, 1, 2, 0], features=features)
    data["vali"] = lists([2, 1, 1], [2, 1, 0, 1], first=10, features=features[[1, 2, 0, 3]])
    described = describe(data)
    assert described["overlaps"] == []
    # Whatever the labels are; a list of one document is no evidence.
    twins = {"splits": ["train", "vali"], "count": 1, "first": [["q1", "q10"]]}
    assert described["identical_lists"] == [twins]
    assert (
        "train and vali share 1 lists with the same features throughout, such as query q1 of train and q10 of"
        in (described["warnings"][0])
    )
    data["vali"].features[1, 2] += 1
    assert describe(data)["identical_lists"] == []


@pytest.mark.parametrize("split", ["train", "vali", "test"])
@pytest.mark.parametrize(("sign", "order"), [(-1, "best first"), (1, "best last")])
def test_rows_in_the_order_of_their_labels(data, split, sign, order):
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 12, 200)
    labels = [rng.integers(0, 3, size) for size in sizes]

    def found(lists_of_labels):
        part = lists([len(some) for some in lists_of_labels], np.concatenate(lists_of_labels), first=1000)
        part.features[:] += 1000  # no list of another split
        described = describe({**data, split: part})
        assert len(described["warnings"]) == len(described["label_order"])
        return described["label_order"]

    in_order = [sign * np.sort(sign * some) for some in labels]
    assert found(labels) == {}
    assert found(in_order) == {split: order}
    different = [i for i, some in enumerate(labels) if len(set(some)) > 1 and len(some) > 4]
    for swaps, expected in ((3, {split: order}), (40, {})):
        almost = list(in_order)
        for i in different[:swaps]:
            almost[i] = almost[i][::-1]
        assert found(almost) == expected
    # Lists with one label do not count; two lists of two documents are in order by chance.
    blank = [np.zeros(5, int)] * 300
    assert found([*blank, *in_order]) == {split: order}
    pair = sign * np.sort(sign * np.array([0, 1]))
    assert found([*blank, pair, pair]) == {}
    assert found([pair] * 19) == {}
    assert found([pair] * 20) == {split: order}


def test_missing_values(data):
    assert describe(data)["missing"] is None
    for split, counts in (("train", [0, 4, 0]), ("test", [0, 1, 1000])):
        data[split] = dataclasses.replace(data[split], num_missing=np.array(counts))
    described = describe(data)
    assert described["missing"] == {"values": 1005, "features": {"count": 2, "first": [2, 3]}}
    assert summary(described)[-1].endswith("; missing values, now 0: 1,005, in features: 2 (nos. 2, 3)")
    assert described["warnings"] == []
    for split in ("train", "test"):
        data[split] = dataclasses.replace(data[split], num_missing=np.zeros(3, int))
    assert "no value stands for missing: check the sign" in describe(data)["warnings"][0]
    del described["missing"]  # of an earlier version's cache
    assert "missing" not in summary(described)[-1]


def test_labels_of_many_values_are_a_range(data):
    data["train"] = lists([30], np.arange(30) / 4)
    described = describe(data)
    assert described["splits"]["train"]["labels"] is None
    assert described["splits"]["train"]["label_range"] == [0, 7.25]
    assert shown(described)["labels"] == ["0 to 7.25", "0 to 4", "0 to 1"]
    data["vali"].labels[1] = 100
    assert "vali has labels up to 100" in describe(data)["warnings"][-1]
    data["train"] = lists([4], np.array([0.3333333, 0.333333, 123.4567, 123.4568], np.float32))
    counts = {"0.333333": 1, "0.3333333": 1, "123.4567": 1, "123.4568": 1}
    assert describe(data)["splits"]["train"]["labels"] == counts


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("train", {"labels": np.full(8, 2, np.float32)}, "every training label is 2"),
        ("vali", {"labels": np.zeros(2, np.float32)}, "vali has no document with a label > 0"),
        ("vali", {"labels": np.ones(2, np.float32)}, "vali has no query with documents of different labels"),
        (
            "test",
            {"offsets": np.arange(4), "query_ids": np.array(["a", "b", "c"])},
            "test has no query with documents of different labels",
        ),
        ("test", {"labels": np.array([2, -1, 0], np.float32)}, "test has the label -1"),
        ("test", {"labels": np.array([1000, 1, 0], np.float32)}, "test has the label 1000, .* is no number"),
        ("train", {"features": np.full((8, 3), 7, np.float32)}, "every feature is the same throughout train"),
        ("test", {"features": np.ones((3, 4), np.float32)}, "test has 4 features, train has 3"),
        (
            "vali",
            {"features": np.array([[1, 2, 3], [1, np.nan, 3]], np.float32)},
            "feature 2 of vali .* not finite",
        ),
        (
            "vali",
            {"features": np.array([[1, 2, np.inf], [1, 2, 3]], np.float32)},
            "feature 3 of vali .* not finite",
        ),
    ],
)
def test_what_cannot_be_meant(data, split, change, message):
    data[split] = dataclasses.replace(data[split], **change)
    with pytest.raises(ValueError, match=rf"{message}.*Fix: "):
        describe(data)


def shown(described):
    """{first cell: other cells} of the table as the terminal shows it."""
    console = Console(file=io.StringIO(), width=200)
    console.print(data_table(described))
    rows = [re.split(r"\s*│\s*", line.strip("│ \n")) for line in console.file.getvalue().splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) == 4}


def test_the_table_and_the_lines(data):
    described = describe(data)
    table = shown(described)
    assert table["documents"] == ["8", "2", "3"]
    assert table["queries without a relevant document"] == ["1", "0", "0"]
    assert table["list size, max"] == ["5", "2", "3"]
    assert table["documents of label 4"] == ["0", "1", "0"]
    assert summary(described)[0] == (
        "train: 3 queries, 8 documents, lists of 1 to 5 (mean 2.67), 1 queries without a relevant document"
    )
    assert summary(described)[-1].startswith(f"{data['train'].num_features} features; always 0 in train: ")


def test_the_data_stage_keeps_the_report_and_says_it_again(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in "ab":
        caplog.clear()
        data = run(tiny_config(tmp_path, "stage=data", run=name)).data
        assert json.loads((data.artifacts.data.path / "data.json").read_text()) == describe(data.splits)
        assert "train: 24 queries" in caplog.text
        assert data.described["warnings"] == []


def test_the_run_warns_and_stops(tmp_path, caplog):
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("0 qid:1 1:1\n1 qid:1 1:2\n")
    bad.write_text("0 qid:2 1:1\n0 qid:2 1:2\n")
    files = [f"data.{split}={good}" for split in ("train", "vali", "test")]
    run(tiny_config(tmp_path, "data=letor", *files, "stage=data"))
    assert "train and vali share 1 query ids, such as 1" in caplog.text
    with pytest.raises(ValueError, match="every training label is 0"):
        run(tiny_config(tmp_path, "data=letor", f"data.train={bad}", *files[1:], "stage=data", run="b"))


def test_the_real_sample(real_data):
    folder = real_data / "mq2008" / "Fold1"
    data = {split: read_letor(folder / f"{split}.txt.xz") for split in ("train", "vali", "test")}
    described = describe(data)
    assert [part["queries"] for part in described["splits"].values()] == [471, 157, 156]
    assert sum(part["docs"] for part in described["splits"].values()) == 15_211
    assert sum(part["blank_queries"] for part in described["splits"].values()) == 220
    assert [sum(p["labels"][grade] for p in described["splits"].values()) for grade in "012"] == [
        12_279,
        2_001,
        931,
    ]
    assert described["warnings"] == []

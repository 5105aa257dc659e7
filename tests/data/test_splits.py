"""Files without qid and their group sizes, as options of data=letor."""

import dataclasses
import gzip

import pytest

from pipeline.config import ConfigError, LetorData
from pipeline.data import LetorError
from pipeline.data.stage import data_artifacts, load_data
from pipeline.store import Store

# Rows of the queries of a split; all splits are alike but for their values.
SIZES = {"train": [2, 3], "vali": [4, 1], "test": [5], "unlabelled": [1, 4]}


@pytest.fixture
def config(tmp_path):
    paths = {split: tmp_path / f"{split}.txt" for split in SIZES}
    paths["test"] = tmp_path / "test.txt.gz"
    for number, (split, path) in enumerate(paths.items()):
        text = "".join(f"{row % 2} 1:{10 * number + row}\n" for row in range(5)).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        (tmp_path / f"{split}.txt.group").write_text("\n".join(map(str, SIZES[split])))
    return LetorData(**{split: str(path) for split, path in paths.items()}, group_suffix=".group")


def found(config, tmp_path):
    return data_artifacts(config, Store(tmp_path / "cache"))


def test_group_sizes_lie_beside_the_files(config, tmp_path, caplog):
    data = load_data(config, found(config, tmp_path))
    for split in ("train", "vali", "test"):
        assert data.splits[split].list_sizes.tolist() == SIZES[split]
        assert data.splits[split].query_ids.tolist() == [str(i + 1) for i in range(len(SIZES[split]))]
    assert data.unlabelled.list_sizes.tolist() == SIZES["unlabelled"]
    assert data.facts()["unlabelled"] == {"queries": 2, "docs": 5}
    assert (
        not caplog.records or "share" not in caplog.text
    )  # the numbers are ours: queries 1 are not the same


@pytest.mark.parametrize("split", SIZES)
def test_other_sizes_are_other_data(config, tmp_path, split):
    before = found(config, tmp_path)
    (tmp_path / f"{split}.txt.group").write_text("3\n2")
    after = found(config, tmp_path)
    assert (after.data.path == before.data.path) == (split == "unlabelled")
    assert after.unlabelled.path != before.unlabelled.path


def test_what_does_not_fit(config, tmp_path):
    (tmp_path / "vali.txt.group").write_text("4\n2\n")
    with pytest.raises(LetorError, match=r"vali\.txt: 5 rows, but .* sum to 6"):
        load_data(config, found(config, tmp_path))
    assert not list(tmp_path.glob("cache/data/*"))  # the arrays of train had been written
    bare = dataclasses.replace(config, group_suffix=None)
    with pytest.raises(LetorError, match=r"train\.txt:1: no qid.*data\.group_suffix"):
        load_data(bare, found(bare, tmp_path))
    with pytest.raises(ConfigError, match=r"data\.group_suffix=\.query: no file .*train\.txt\.query"):
        dataclasses.replace(config, group_suffix=".query")
    with pytest.raises(ConfigError, match=r"data\.regroup"):
        dataclasses.replace(config, regroup=True)

"""TFDS's own builders on small archives of the publishers' layouts, and the builder of LETOR files."""

import hashlib
import json
import pickle
import sys
import types

import numpy as np
import pytest
import tensorflow_datasets
from tensorflow_datasets.core.download import downloader

from pipeline.config import TFDSData
from pipeline.data import LetorError, read_letor
from pipeline.data.letor_tfds import Letor, LetorConfig, write_tfds
from pipeline.data.sources import is_held_out
from pipeline.data.tfds import prepare, read_tfds
from pipeline.run import run
from tests.conftest import tiny_config
from tests.data.test_sources import LAYOUTS, SPLITS, features, lines, pack, texts

BUILDERS = {
    "mslr_web/10k_fold1": "mslr_web10k",
    "mslr_web/30k_fold1": "mslr_web30k",
    "istella/main": "istella",
    "istella/s": "istella_s",
    "istella/x": "istella_x",
    "yahoo_ltrc/set1": "yahoo",
}


@pytest.fixture(autouse=True)
def refused(monkeypatch):
    """The answer that the address in TFDS gives today; nothing here asks a network."""

    def refuse(url, **_):
        raise tensorflow_datasets.download.DownloadError(f"Failed to get url {url}. HTTP code: 400.")

    monkeypatch.setattr(downloader, "_open_url", refuse)


def read(config, folder):
    folder.mkdir(exist_ok=True)
    return read_tfds(config, folder)


def by_id(data):
    """{query id: (features, labels)} of the lists."""
    ends = zip(data.query_ids.tolist(), data.offsets[:-1], data.offsets[1:], strict=True)
    return {query: (data.features[a:b].tolist(), data.labels[a:b].tolist()) for query, a, b in ends}


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_official_builder_on_a_file_in_the_manual_folder(builder, tmp_path, caplog):
    archive, num_features, *_ = LAYOUTS[BUILDERS[builder]]
    manual = tmp_path / "tfds" / "downloads" / "manual"
    manual.mkdir(parents=True)
    path = pack(manual, archive, texts(BUILDERS[builder]))
    config = TFDSData(builder=builder, data_dir=str(tmp_path / "tfds"))
    caplog.set_level("INFO")
    data = read(config, tmp_path / "out")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sha256 in caplog.text
    source = json.loads(next((tmp_path / "tfds").rglob("source.json")).read_text())
    assert source == {"file": archive, "bytes": path.stat().st_size, "sha256": sha256}
    path.unlink()
    assert prepare(config).is_prepared()  # asks for nothing again

    held_out = [q for q in range(30) if is_held_out(str(q), 0.2)] if builder == "istella/main" else []
    queries = {
        "train": [q for q in range(30) if q not in held_out],
        "vali": held_out or list(range(100, 105)),
        "test": list(range(200, 205)),
    }
    columns = 699 if builder == "yahoo_ltrc/set1" else num_features  # what TFDS keeps
    for split in SPLITS:
        expected = {
            str(q): (features([q], num_features)[:, :columns].tolist(), [0, 1, 2]) for q in queries[split]
        }
        assert by_id(data[split]) == expected


def test_a_refused_download_says_where_to_get_the_file_and_where_to_put_it(tmp_path):
    with pytest.raises(
        ValueError, match=r"HTTP code: 400.*#11136.*get MSLR-WEB30K\.zip from https://www\.micro"
    ) as error:
        prepare(TFDSData(builder="mslr_web/30k_fold2", data_dir=str(tmp_path)))
    assert f"put it into {tmp_path / 'downloads' / 'manual'}" in str(error.value)
    assert "data=mslr_web30k data.dir=" in str(error.value)


@pytest.mark.parametrize("others", [False, True])
def test_yahoo_is_never_downloaded(others, tmp_path):
    if others:
        (tmp_path / "downloads" / "manual").mkdir(parents=True)
        (tmp_path / "downloads" / "manual" / "another.zip").write_text("")
    with pytest.raises(ValueError, match=r"get ltrc_yahoo\.tar\.bz2 from .*data=yahoo "):
        prepare(TFDSData(builder="yahoo_ltrc/set2", data_dir=str(tmp_path)))


def test_yahoo_is_read_from_either_of_its_archives(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    pack(manual, "ltrc_yahoo.tgz", texts("yahoo"))
    data = read(TFDSData(builder="yahoo_ltrc/set1", data_dir=str(tmp_path)), tmp_path / "out")
    assert sorted(data["test"].query_ids.tolist()) == [str(query) for query in range(200, 205)]
    assert data["test"].num_missing is None


def test_an_archive_of_another_layout_or_a_damaged_one(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    pack(manual, "MSLR-WEB10K.zip", {"top/Fold1/train.txt": "0 qid:1 1:1\n"})
    fix = r"Fix: give .*zip as its publisher has it, with no folder around .* data=mslr_web10k data\.dir="
    with pytest.raises(ValueError, match=f"could not prepare mslr_web/10k_fold1.*{fix}"):
        prepare(TFDSData(builder="mslr_web/10k_fold1", data_dir=str(tmp_path)))
    (manual / "istella-X.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="could not prepare istella/x"):
        prepare(TFDSData(builder="istella/x", data_dir=str(tmp_path)))


def test_a_builder_that_is_not_there_or_holds_no_lists(tmp_path):
    for name in ("mslr_web/10k_fold9", "mslrweb", "letor/mine"):
        with pytest.raises(ValueError, match=f"data.builder={name} is not there"):
            prepare(TFDSData(builder=name, data_dir=str(tmp_path)))
    with pytest.raises(ValueError, match="mnist has no float_features, query_id: not a ranking data set"):
        prepare(TFDSData(builder="mnist", data_dir=str(tmp_path)))


def test_a_number_that_stands_for_missing(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    text = lines(3, 3, 220).replace(" 7:10.0 ", " 7:1.79769313486232e+308 ")
    pack(manual, "istella-X.tar.gz", dict.fromkeys(["train.txt", "vali.txt", "test.txt"], text))
    config = TFDSData(builder="istella/x", data_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"query '3' of .* Fix: .*data\.missing_value=1\.797693134862315"
    ) as error:
        read(TFDSData(builder="istella/x", data_dir=str(tmp_path)), tmp_path / "out")
    for missing in (
        float(str(error.value).rpartition("=")[2]),
        1.7976931348e308,
        float("1.79769313486232e308"),
    ):
        config = TFDSData(builder="istella/x", data_dir=str(tmp_path), missing_value=missing)
        data = read(config, tmp_path / "out")
        assert by_id(data["vali"])["3"][0][0][5:8] == [9, 0, 11]
        for lists in data.values():
            assert lists.num_missing[6] == lists.num_missing.sum() == 1


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Files of each split, and the TFDS data set made of them."""
    folder = tmp_path_factory.mktemp("letor")
    files = {}
    for split, first in zip(SPLITS, (0, 100, 200), strict=True):
        files[split] = []
        for part in range(2):
            path = folder / f"{split}{part}.txt"
            path.write_text(lines(first + 10 * part, 10, 5))
            files[split].append(path)
    shards = tensorflow_datasets.download.DownloadConfig(num_shards=3)
    write_tfds(files, name="mine", num_features=5, data_dir=folder / "tfds", download_config=shards)
    return files, folder / "tfds"


def test_letor_files_as_a_tfds_data_set(written, tmp_path):
    files, data_dir = written
    data = read(TFDSData(builder="letor/mine", data_dir=str(data_dir)), tmp_path / "out")
    for split, paths in files.items():
        expected = by_id(read_letor(paths[0])) | by_id(read_letor(paths[1]))
        assert by_id(data[split]) == expected
    assert len(list(data_dir.glob("letor/mine/1.0.0/letor-train.tfrecord-*"))) == 3
    metadata = json.loads((data_dir / "letor/mine/1.0.0/metadata.json").read_text())
    assert metadata["files"]["vali"] == [
        [path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in files["vali"]
    ]
    example = next(iter(tensorflow_datasets.as_numpy(prepare_mine(data_dir).as_dataset("test"))))
    assert example["doc_id"].shape == (3,)
    assert example["doc_id"][0] % 3 == 1  # the row in its file, from 1


def prepare_mine(data_dir):
    return prepare(TFDSData(builder="letor/mine", data_dir=str(data_dir)))


def test_the_order_of_the_shards_is_the_same_every_time(written, tmp_path):
    config = TFDSData(builder="letor/mine", data_dir=str(written[1]))
    first, second = (read(config, tmp_path / name) for name in "ab")
    assert all(first[split].fingerprint == second[split].fingerprint for split in SPLITS)


def test_a_data_set_is_made_once_and_not_mixed_up(written, tmp_path):
    files, data_dir = written
    shards = list(data_dir.glob("letor/mine/1.0.0/*"))
    times = [path.stat().st_mtime_ns for path in shards]
    write_tfds(files, name="mine", num_features=5, data_dir=data_dir)
    assert [path.stat().st_mtime_ns for path in shards] == times
    (tmp_path / "train0.txt").write_text(lines(50, 1, 5))
    with pytest.raises(ValueError, match="was made of other files"):
        write_tfds(
            {**files, "train": [tmp_path / "train0.txt"]}, name="mine", num_features=5, data_dir=data_dir
        )
    for options in ({"num_features": 6}, {"num_features": 5, "duplicates": "last"}):
        with pytest.raises(ValueError, match="or with other options"):
            write_tfds(files, name="mine", data_dir=data_dir, **options)


def test_group_sizes_are_refused(written, tmp_path):
    with pytest.raises(ValueError, match=r"no group_sizes\. Fix: write the query ids into the files"):
        write_tfds(
            written[0], name="groups", num_features=5, data_dir=tmp_path, group_sizes=tmp_path / "x.query"
        )
    assert list(tmp_path.iterdir()) == []


def test_files_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / folder / "train.txt" for folder in "ab"]
    for query, path in enumerate(paths):
        path.parent.mkdir()
        path.write_text(lines(query, 1, 5))
    write_tfds({"train": paths}, name="two", num_features=5, data_dir=tmp_path / "tfds")
    paths[0].write_text(lines(7, 1, 5))
    with pytest.raises(ValueError, match="was made of other files"):
        write_tfds({"train": paths}, name="two", num_features=5, data_dir=tmp_path / "tfds")


def test_another_archive_is_not_taken_for_the_one_before(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    config = TFDSData(builder="mslr_web/10k_fold1", data_dir=str(tmp_path))
    pack(manual, "MSLR-WEB10K.zip", texts("mslr_web10k") | {"Fold1/train.txt": "oops\n"})
    with pytest.raises(ValueError, match=r"parse line 1 .*Fix: data=mslr_web10k data\.dir="):
        prepare(config)
    pack(manual, "MSLR-WEB10K.zip", texts("mslr_web10k"))
    assert by_id(read(config, tmp_path / "out")["train"])["3"] == (features([3], 136).tolist(), [0, 1, 2])
    pack(manual, "MSLR-WEB10K.zip", texts("mslr_web10k") | {"Fold1/train.txt": lines(50, 2, 136)})
    with pytest.raises(ValueError, match=r"is not the file that .* was prepared from"):
        prepare(config)


def test_an_archive_of_the_same_size_is_told_by_its_digest(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    config = TFDSData(builder="istella/x", data_dir=str(tmp_path))
    archive = pack(
        manual, "istella-X.tar.gz", dict.fromkeys(["train.txt", "vali.txt", "test.txt"], lines(0, 3, 220))
    )
    prepare(config)
    archive.touch()
    prepare(config)
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-9] + b"x" + whole[-8:])
    with pytest.raises(ValueError, match=r"is not the file that .* was prepared from"):
        prepare(config)
    archive.write_bytes(whole)
    prepare(config)


def test_a_missing_value_that_float32_rounds(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text(lines(0, 3, 5).replace(" 2:2.0 ", " 2:-99.9 "))
    write_tfds(dict.fromkeys(SPLITS, path), name="r", num_features=5, data_dir=tmp_path)
    data = read(TFDSData(builder="letor/r", data_dir=str(tmp_path), missing_value=-99.9), tmp_path / "out")
    assert by_id(data["vali"])["0"][0][0] == [1, 0, 3, 4, 5]
    assert data["vali"].num_missing.tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("missing", [float(np.finfo(np.float64).max), -1e300, 1e39, 5.0])
def test_missing_values_of_float32_features(written, tmp_path, missing):
    """Letor's own are float32; a number that these do not hold is none of them."""
    _, data_dir = written
    data = read(
        TFDSData(builder="letor/mine", data_dir=str(data_dir), missing_value=missing), tmp_path / "out"
    )
    expected = features([3], 5)
    expected[expected == missing] = 0
    assert by_id(data["train"])["3"][0] == expected.tolist()
    assert (sum(part.num_missing.sum() for part in data.values()) > 0) == (missing == 5)


def test_a_missing_value_of_write_tfds_is_the_run_s_too(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text(lines(0, 3, 5).replace(" 2:2.0 ", " 2:1.79769313486232e+308 "))
    files = dict.fromkeys(SPLITS, path)  # one file needs no list
    write_tfds(
        files, name="m", num_features=5, data_dir=tmp_path, missing_value=float("1.79769313486232e+308")
    )
    config = TFDSData(builder="letor/m", data_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"data\.missing_value=None. Fix: data\.missing_value=1\.79769313486231"
    ):
        read(config, tmp_path / "out")
    config = TFDSData(builder="letor/m", data_dir=str(tmp_path), missing_value=float("1.79769313486232e+308"))
    data = read(config, tmp_path / "out")
    assert by_id(data["vali"])["0"][0][0] == [1, 0, 3, 4, 5]
    assert data["vali"].num_missing is None  # they were counted by nobody
    with pytest.raises(ValueError, match=r"splits \['training'\]. Fix: name them train, vali and test"):
        write_tfds({"training": path}, name="n", num_features=5, data_dir=tmp_path)


def test_array_record_is_read_too_and_a_validation_split_is_held_out(written, tmp_path):
    files, _ = written
    some = {split: files[split] for split in ("train", "test")}
    write_tfds(some, name="mine", num_features=5, data_dir=tmp_path, file_format="array_record")
    data = read(TFDSData(builder="letor/mine", data_dir=str(tmp_path), vali_share=0.4), tmp_path / "out")
    held_out = {str(q) for q in range(20) if is_held_out(str(q), 0.4)}
    assert set(data["vali"].query_ids.tolist()) == held_out
    assert set(data["train"].query_ids.tolist()) == {str(q) for q in range(20)} - held_out
    assert by_id(data["test"])["213"] == (features([213], 5).tolist(), [0, 1, 2])


class Create(list):
    """beam.Create and beam.FlatMap as far as `letor` uses them."""

    def __or__(self, transform):
        return [result for item in self for result in transform(item)]


class FlatMap:
    def __init__(self, function):
        self.function = pickle.loads(pickle.dumps(function))  # goes to another machine

    def __call__(self, item):
        return self.function(item)


def test_the_transforms_that_beam_gets_make_the_same_lists(written, monkeypatch):
    files, data_dir = written
    beam = types.SimpleNamespace(Create=Create, FlatMap=FlatMap)
    monkeypatch.setitem(sys.modules, "apache_beam", beam)
    paths = {split: [str(path) for path in of_split] for split, of_split in files.items()}
    for split in SPLITS:
        made = []
        for with_beam in (False, True):
            config = LetorConfig(name="mine", files=paths, num_features=5, beam=with_beam)
            builder = Letor(config=config, data_dir=data_dir)
            made.append(list(builder._split_generators(None)[split]))
        plain, distributed = made
        assert len(plain) == 20
        for (key, example), (other_key, other) in zip(plain, distributed, strict=True):
            assert key == other_key
            assert example.keys() == other.keys()
            for name, value in example.items():
                np.testing.assert_array_equal(value, other[name])


def test_beam_that_is_not_there(written, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ValueError, match="Fix: pip install apache-beam"):
        write_tfds(written[0], name="mine", num_features=5, data_dir=tmp_path, beam=True)


def test_beam_makes_the_same_lists(written, tmp_path):
    pytest.importorskip("apache_beam", reason="needs pip install apache-beam")
    files, data_dir = written
    runner = tensorflow_datasets.download.DownloadConfig(beam_runner="DirectRunner", num_shards=2)
    write_tfds(files, name="mine", num_features=5, data_dir=tmp_path, beam=True, download_config=runner)
    made = read(TFDSData(builder="letor/mine", data_dir=str(tmp_path)), tmp_path / "out")
    plain = read(TFDSData(builder="letor/mine", data_dir=str(data_dir)), tmp_path / "plain")
    assert all(by_id(made[split]) == by_id(plain[split]) for split in SPLITS)


def test_what_is_wrong_in_a_file_is_said_as_ever(tmp_path):
    (tmp_path / "a.txt").write_text("0 qid:1 1:1\n1 qid:1 1:x\n")
    files = {split: [tmp_path / "a.txt"] for split in SPLITS}
    with pytest.raises(LetorError, match=r"a\.txt:2: the value in '1:x' is not a finite number"):
        write_tfds(files, name="mine", num_features=1, data_dir=tmp_path)
    (tmp_path / "a.txt").write_text("0 qid:1 1:1\n")
    with pytest.raises(ValueError, match="query '1' comes twice in one split"):
        write_tfds({"train": [tmp_path / "a.txt"] * 2}, name="mine", num_features=1, data_dir=tmp_path)


def test_a_run_on_a_tfds_data_set(written, tmp_path):
    overrides = ("data=tfds", "data.builder=letor/mine", f"data.data_dir={written[1]}", "stage=data")
    data = run(tiny_config(tmp_path, *overrides)).data
    assert data.splits["train"].num_queries == 20
    assert data.transformed["train"].features.shape == (60, 5)
    assert data.described["splits"]["vali"]["docs"] == 60

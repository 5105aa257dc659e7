"""Published data sets, from small archives of the publishers' layouts."""

import dataclasses
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pytest

from pipeline.config import IstellaData, IstellaSData, IstellaXData, MSLRWeb10KData, MSLRWeb30KData, YahooData
from pipeline.data import LetorError, RankingData
from pipeline.data import sources as sources_module
from pipeline.data.check import describe
from pipeline.data.sources import (
    extracted,
    hold_out,
    is_held_out,
    locate,
    published_of,
    read_published,
)
from pipeline.run import run
from tests.conftest import find, tiny_config

SPLITS = ("train", "vali", "test")
CHOICES = {
    "mslr_web10k": MSLRWeb10KData,
    "mslr_web30k": MSLRWeb30KData,
    "istella": IstellaData,
    "istella_s": IstellaSData,
    "istella_x": IstellaXData,
    "yahoo": YahooData,
}
# What the archives of the publishers hold, typed from the builders of tensorflow-datasets 4.9.10.
LAYOUTS = {
    "mslr_web10k": ("MSLR-WEB10K.zip", 136, "Fold1/train.txt", "Fold1/vali.txt", "Fold1/test.txt"),
    "mslr_web30k": ("MSLR-WEB30K.zip", 136, "Fold1/train.txt", "Fold1/vali.txt", "Fold1/test.txt"),
    "istella": ("istella-letor.tar.gz", 220, "full/train.txt", None, "full/test.txt"),
    "istella_s": ("istella-s-letor.tar.gz", 220, "sample/train.txt", "sample/vali.txt", "sample/test.txt"),
    "istella_x": ("istella-X.tar.gz", 220, "train.txt", "vali.txt", "test.txt"),
    "yahoo": ("ltrc_yahoo.tar.bz2", 700, "set1.train.txt", "set1.valid.txt", "set1.test.txt"),
}


def lines(first, num_queries, num_features):
    """Queries `first`, ... of three documents: document d of query q has label d, its feature f is q + d / 4 + f."""
    return "".join(
        f"{doc} qid:{query} "
        + " ".join(f"{f}:{query + doc / 4 + f}" for f in range(1, num_features + 1))
        + "\n"
        for query in range(first, first + num_queries)
        for doc in range(3)
    )


def features(query_ids, num_features):
    query, doc, feature = np.meshgrid(
        np.array(query_ids, float), np.arange(3), np.arange(1, num_features + 1), indexing="ij"
    )
    return (query + doc / 4 + feature).reshape(-1, num_features).astype(np.float32)


def texts(name):
    """{path in the archive: text}; queries 0-29, 100-104, 200-204."""
    _, num_features, train, vali, test = LAYOUTS[name]
    made = {train: lines(0, 30, num_features), test: lines(200, 5, num_features)}
    return made | ({vali: lines(100, 5, num_features)} if vali else {})


def pack(folder, name, members):
    path = folder / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for member, text in members.items():
                file.writestr(member, text)
    else:
        with tarfile.open(path, "w:" + name.rpartition(".")[2].replace("tgz", "gz")) as file:
            for member, text in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(text.encode())
                file.addfile(info, io.BytesIO(text.encode()))
    return path


def read(config, folder):
    folder.mkdir(exist_ok=True)
    return read_published(config, locate(config), folder)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(
    "how", ["archive", "below a folder of the archive", "unpacked", "unpacked into a folder"]
)
def test_the_publishers_layout(name, how, tmp_path, caplog):
    archive, num_features, *_ = LAYOUTS[name]
    source = tmp_path / "source"
    source.mkdir()
    top = {
        "below a folder of the archive": "some top/",
        "unpacked into a folder": archive.split(".")[0] + "/",
    }
    members = {top.get(how, "") + path: text for path, text in texts(name).items()}
    if how.startswith("unpacked"):
        for path, text in members.items():
            (source / path).parent.mkdir(exist_ok=True, parents=True)
            (source / path).write_text(text)
    else:
        pack(source, archive, {"README.txt": "read me", "old_" + LAYOUTS[name][2]: "no data"} | members)
    data = read(CHOICES[name](dir=str(source)), tmp_path / "out")

    held_out = [q for q in range(30) if is_held_out(str(q), 0.2)] if name == "istella" else []
    queries = {
        "train": [q for q in range(30) if q not in held_out],
        "vali": held_out or list(range(100, 105)),
        "test": list(range(200, 205)),
    }
    assert list(data) == list(SPLITS)
    for split in SPLITS:
        assert data[split].query_ids.tolist() == [str(q) for q in queries[split]]
        np.testing.assert_array_equal(data[split].features, features(queries[split], num_features))
        assert data[split].labels.tolist() == [0, 1, 2] * len(queries[split])
        np.testing.assert_array_equal(
            RankingData.load(tmp_path / "out" / split).features, data[split].features
        )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(SPLITS)  # no copy is left
    assert f"{name} has 120 documents here" in caplog.text or (name == "istella" and "105 doc" in caplog.text)


def test_folds_and_sets_choose_their_files(tmp_path):
    for fold in (1, 4):
        for split, first in zip(SPLITS, (0, 100, 200), strict=True):
            path = tmp_path / f"Fold{fold}/{split}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(lines(first + 1000 * fold, 2, 136))
    data = read(MSLRWeb10KData(dir=str(tmp_path), fold=4), tmp_path / "out")
    assert data["vali"].query_ids.tolist() == ["4100", "4101"]
    assert published_of(YahooData(dir="", set=2)).num_docs == 172_870
    located = locate(MSLRWeb30KData(dir=str(tmp_path), fold=4))
    assert located.inputs == {f"Fold4/{split}.txt": tmp_path / f"Fold4/{split}.txt" for split in SPLITS}


def test_data_dir_may_name_the_archive(tmp_path):
    path = pack(tmp_path, "renamed.zip", texts("mslr_web10k"))
    config = MSLRWeb10KData(dir=str(path))
    assert locate(config).inputs == {"renamed.zip": path}
    assert read(config, tmp_path / "out")["test"].num_docs == 15


def test_the_largest_float64_stands_for_missing_in_istella(tmp_path):
    text = lines(0, 30, 220).replace(" 7:7.0 ", " 7:1.79769313486232e+308 ")
    assert "e+308" in text
    pack(tmp_path, "istella-X.tar.gz", dict.fromkeys(["train.txt", "vali.txt", "test.txt"], text))
    data = read(IstellaXData(dir=str(tmp_path)), tmp_path / "out")
    assert data["train"].features[0, 6] == 0
    assert data["train"].features[0, 7] == 8
    assert data["train"].num_missing[6] == data["train"].num_missing.sum() == 1

    pack(tmp_path, "istella-letor.tar.gz", {"full/train.txt": text, "full/test.txt": text})
    (tmp_path / "main").mkdir()
    data = read(IstellaData(dir=str(tmp_path)), tmp_path / "main")
    assert describe(data)["missing"] == {"values": 2, "features": {"count": 1, "first": [7]}}


@pytest.mark.parametrize("given", ["MSLR-WEB30K.zip", "MSLR-WEB30K", "istella-s-letor.tar.gz"])
def test_the_archive_of_another_set_is_refused_by_its_name(given, tmp_path):
    for config in (MSLRWeb10KData(dir=str(tmp_path / given)), YahooData(dir=str(tmp_path / given))):
        other = "istella_s" if "istella" in given else "mslr_web30k"
        with pytest.raises(ValueError, match=f"is {other} by its name, not {config.name}. Fix: data={other}"):
            locate(config)
    (tmp_path / "istella-letor").mkdir()  # a folder may have any name, if the right archive lies there
    pack(tmp_path / "istella-letor", "istella-s-letor.tar.gz", texts("istella_s"))
    assert locate(IstellaSData(dir=str(tmp_path / "istella-letor"))).archive is not None
    pack(tmp_path, "ltrc_yahoo.tgz", texts("yahoo"))
    assert locate(YahooData(dir=str(tmp_path / "ltrc_yahoo.tgz"), set=2)).files["train"] == "set2.train.txt"


def test_the_documents_of_another_set_are_refused_by_their_number(tmp_path, monkeypatch):
    pack(tmp_path, "my.tar.gz", {f"sample/{split}.txt": lines(0, 3, 220) for split in SPLITS})
    config = IstellaXData(dir=str(tmp_path / "my.tar.gz"))
    assert read(config, tmp_path / "out")["vali"].num_docs == 9
    small = dataclasses.replace(sources_module.PUBLISHED["istella_s"], num_docs=27)
    monkeypatch.setitem(sources_module.PUBLISHED, "istella_s", small)
    with pytest.raises(
        ValueError, match=r"has the 27 documents of istella_s, not those of istella_x\. Fix: data=istella_s"
    ):
        read(config, tmp_path / "out")
    read(IstellaSData(dir=str(tmp_path / "my.tar.gz")), tmp_path / "out")


def test_nothing_there_says_where_to_get_it_and_where_to_put_it(tmp_path):
    (tmp_path / "Fold2").mkdir()
    (tmp_path / "Fold2" / "train.txt").write_text("0 qid:1 1:1\n")
    with pytest.raises(
        ValueError, match=r"no MSLR-WEB10K\.zip there, and no Fold2/vali\.txt, Fold2/test\.txt"
    ) as error:
        locate(MSLRWeb10KData(dir=str(tmp_path), fold=2))
    assert "microsoft.com" in str(error.value)
    assert "put it into data.dir" in str(error.value)


def test_an_archive_that_lacks_a_file_or_has_it_twice(tmp_path):
    members = texts("mslr_web10k")
    del members["Fold1/vali.txt"]
    pack(tmp_path, "MSLR-WEB10K.zip", members)
    with pytest.raises(ValueError, match=r"has no Fold1/vali\.txt. Fix: get the whole archive"):
        read(MSLRWeb10KData(dir=str(tmp_path)), tmp_path / "out")
    of_a_mac = {"__MACOSX/Fold1/test.txt": "no LETOR text"}
    pack(tmp_path, "MSLR-WEB10K.zip", texts("mslr_web10k") | of_a_mac)
    assert set(read(MSLRWeb10KData(dir=str(tmp_path)), tmp_path / "out")) == {"train", "vali", "test"}
    pack(tmp_path, "MSLR-WEB10K.zip", texts("mslr_web10k") | {"old/Fold1/test.txt": lines(0, 1, 136)})
    with pytest.raises(ValueError, match=r"holds Fold1/test\.txt twice"):
        read(MSLRWeb10KData(dir=str(tmp_path)), tmp_path / "out")


@pytest.mark.parametrize("name", ["mslr_web10k", "istella_s", "yahoo"])
def test_a_damaged_archive(name, tmp_path):
    path = pack(tmp_path, LAYOUTS[name][0], texts(name))
    whole = path.read_bytes()
    middle = len(whole) // 2
    zeros = whole[:middle] + bytes(64) + whole[middle + 64 :]  # may first show as text that is none
    for content, what in ((whole[:middle], "is damaged or cut off"), (b"text", "is damaged"), (zeros, "")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{what}.*. Fix: get it again from http"):
            read(CHOICES[name](dir=str(tmp_path)), tmp_path / "out")
        assert not (tmp_path / "out" / "member.txt").exists()


def test_a_check_sum_that_is_wrong_at_the_end_of_a_tar_gz(tmp_path):
    path = pack(tmp_path, "istella-X.tar.gz", texts("istella_x"))
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    with pytest.raises(ValueError, match="damaged or cut off"):
        read(IstellaXData(dir=str(tmp_path)), tmp_path / "out")


def test_an_error_in_a_file_of_an_archive_names_the_file_and_the_line(tmp_path):
    members = texts("mslr_web10k")
    members["Fold1/vali.txt"] += "1 qid:105 137:1\n"
    pack(tmp_path, "MSLR-WEB10K.zip", members)
    with pytest.raises(LetorError, match=r"MSLR-WEB10K\.zip/Fold1/vali\.txt:16: .*137"):
        read(MSLRWeb10KData(dir=str(tmp_path)), tmp_path / "out")


def test_links_and_paths_in_an_archive_lead_nowhere(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("0 qid:1 1:1\n")
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("train.txt")
            link.type, link.linkname = kind, str(secret)
            file.addfile(link)
        outside = tarfile.TarInfo("../../test.txt")
        outside.size = 5
        file.addfile(outside, io.BytesIO(b"hello"))
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    got = []

    def collect():
        for name, copy in extracted(path, {"train.txt", "test.txt"}, folder, "page"):
            got.append((name, copy.parent, copy.read_bytes()))

    with pytest.raises(ValueError, match=r"has no train\.txt"):
        collect()
    assert got == [("test.txt", folder, b"hello")]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "odd.tar", "secret.txt"]


def test_a_file_that_does_not_fit_the_disk_is_not_copied(tmp_path, monkeypatch):
    path = pack(tmp_path, "MSLR-WEB10K.zip", {"train.txt": "x" * 1000})
    usage = type("Usage", (), {"free": 999})
    monkeypatch.setattr(sources_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"train\.txt of .* needs 1000 bytes, .* has 999"):
        list(extracted(path, {"train.txt"}, tmp_path, "page"))
    assert not (tmp_path / "member.txt").exists()


def test_a_share_of_the_training_queries_is_held_out_by_their_ids(tmp_path):
    queries = np.arange(2000)
    data = RankingData(
        queries[:, None].astype(np.float32),
        np.ones(2000, np.float32),
        np.arange(2001),
        queries.astype(str),
    )
    parts = hold_out(data, 0.2, tmp_path)
    vali = parts["vali"].features[:, 0].tolist()
    assert 350 < len(vali) < 450  # 400 of standard deviation 18
    assert sorted(vali + parts["train"].features[:, 0].tolist()) == queries.tolist()
    assert vali == [q for q in queries.tolist() if is_held_out(str(q), 0.2)]
    assert set(vali) < {q for q in queries.tolist() if is_held_out(str(q), 0.3)}


def test_a_run_on_an_archive_and_on_its_unpacked_files(tmp_path):
    archive = pack(tmp_path, "istella-letor.tar.gz", texts("istella"))
    overrides = ("data=istella", f"data.dir={tmp_path}", "stage=data")
    packed = run(tiny_config(tmp_path, *overrides)).data
    assert packed.splits["test"].num_features == 220
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    unpacked = run(tiny_config(tmp_path, *overrides, run="unpacked")).data
    assert unpacked.artifacts.data.path != packed.artifacts.data.path
    for split in SPLITS:
        assert unpacked.splits[split].fingerprint == packed.splits[split].fingerprint
    (tmp_path / "moved").mkdir()
    (tmp_path / "full").rename(tmp_path / "moved" / "full")
    moved, _ = find(tiny_config(tmp_path, "data=istella", f"data.dir={tmp_path / 'moved'}", run="moved"))
    assert moved.data.data.path == unpacked.artifacts.data.path


def test_part_of_the_real_sample_in_a_zip_gives_the_same_as_the_text(real_data, tmp_path):
    text = (real_data / "mslr-sample" / "msn1.fold1.test.5k.txt.xz").read_bytes()
    rows = lzma.decompress(text).splitlines(keepends=True)[:300]
    with zipfile.ZipFile(tmp_path / "MSLR-WEB30K.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for split in SPLITS:
            file.writestr(f"Fold5/{split}.txt", b"".join(rows))
    data = read(MSLRWeb30KData(dir=str(tmp_path), fold=5), tmp_path / "out")["vali"]
    expected = np.array(
        [[float(pair.split(b":")[1]) for pair in row.split()[2:]] for row in rows], np.float32
    )
    np.testing.assert_array_equal(data.features, expected)
    assert data.labels.tolist() == [float(row.split()[0]) for row in rows]

"""Names that want to be markup, paths, formulas or control sequences: in query ids, folders and archives."""

import io
import resource
import tarfile
import zipfile

import numpy as np
import pytest

from pipeline.cli import compose
from pipeline.config import ConfigError
from pipeline.data import RankingData, read_letor
from pipeline.data.letor import LetorError
from pipeline.data.sources import extracted
from pipeline.evaluation.per_query import read_per_query, write_per_query
from tests.trust.command import FAST, run

IDS = [
    "<script>alert(1)</script>",
    '"><img/src=x/onerror=alert(1)>',
    "../../../outside",
    "/etc/outside",
    "=cmd|'/C_calc'!A0",
    "@SUM(1)",
    "+1+1",
    "'quoted",
    "-5",
    "\u202egnp",
    "a\x7fb",
]
CONTROL_IDS = ["\x1b[31mred", "a\x00b"]


def test_query_ids_reach_no_markup_no_path_and_no_terminal_as_they_are(tmp_path, fault):
    lines = [
        f"{label} qid:{name} 1:{row + label} 2:{label}" for name in IDS for row, label in enumerate((2, 0, 1))
    ]
    overrides = ["data=letor"]
    for split in ("train", "vali", "test"):
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        overrides.append(f"data.{split}={split}.txt")
    tiny = (*FAST, "teacher.min_docs_in_leaf=1", "train.epochs=2")
    with fault("hostile query ids"):
        code, text = run(tmp_path, *overrides, tiny=tiny)
        assert code == 0, text
        page = (tmp_path / "run" / "report" / "report.html").read_text()
        assert "<script" not in page
        assert "<img/src" not in page
        assert not any(character in page for character in "\u202e\x7f")
        assert not list(tmp_path.parent.glob("outside*"))
        table = (tmp_path / "run" / "per_query.csv").read_text()
        assert not any(line.startswith(("=", "@", "+")) for line in table.splitlines())


@pytest.mark.parametrize("name", CONTROL_IDS)
def test_control_characters_in_query_ids_are_refused_and_not_shown(tmp_path, fault, name):
    (tmp_path / "a.txt").write_text(f"1 qid:1 1:1\n0 qid:{name} 1:1\n")
    with (
        fault("control characters in query ids"),
        pytest.raises(LetorError, match=r"a\.txt:2: not text") as error,
    ):
        read_letor(tmp_path / "a.txt")
    assert str(error.value).isprintable()


def test_query_ids_come_back_from_the_table_as_they_were(tmp_path, fault):
    with fault("hostile query ids in per_query.csv"):
        ids = np.array(IDS)
        ones = np.ones(len(ids), np.float32)
        data = RankingData(ones[:, None], ones, np.arange(len(ids) + 1), ids)
        write_per_query(tmp_path / "a.csv", data, {"student": {"ndcg@10": ones}})
        assert read_per_query(tmp_path / "a.csv").query_ids.tolist() == ids.tolist()


@pytest.mark.parametrize("option", ["run_dir", "cache_dir"])
def test_folders_with_control_characters_are_refused(fault, option):
    with fault("hostile folder name"), pytest.raises(ConfigError, match=rf"{option}=.*control characters"):
        compose([f"{option}='a\x1b[2Jb'"])


def test_a_folder_whose_name_is_a_pattern_is_refused(fault):
    with fault("hostile folder name"), pytest.raises(ConfigError, match=r"run_dir=.* TensorFlow takes"):
        compose(["run_dir='hidden=[32]'"])


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)


def test_a_member_that_is_larger_than_it_says_ends_where_it_says(tmp_path, fault):
    """20 MB behind a table that says 1,000 bytes."""
    with fault("archive: zip bomb"):
        zipped(tmp_path / "bomb.zip", [("a.txt", b"0" * 20_000_000)])
        raw = (tmp_path / "bomb.zip").read_bytes()
        lie = raw.replace((20_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
        assert lie != raw
        (tmp_path / "bomb.zip").write_bytes(lie)
        (tmp_path / "out").mkdir()
        copies = extracted(tmp_path / "bomb.zip", {"a.txt"}, tmp_path / "out", "the page")
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY)
        )  # a byte more is another error
        try:
            with pytest.raises(ValueError, match="is damaged or cut off"):
                list(copies)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "x/../../outside.txt"])
def test_no_archive_writes_outside(tmp_path, fault, name):
    (tmp_path / "out").mkdir()
    with fault("archive: path that leads outside"):
        zipped(tmp_path / "a.zip", [(name, b"evil"), ("a.txt", b"good")])
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            for member, content in ((name, b"evil"), ("a.txt", b"good")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        for path in (tmp_path / "a.zip", tmp_path / "a.tar.gz"):
            copies = [copy.read_bytes() for _, copy in extracted(path, {"a.txt"}, tmp_path / "out", "")]
            assert copies == [b"good"]
        assert sorted(path.name for path in tmp_path.rglob("*.txt")) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_of_an_archive_are_not_files(tmp_path, fault, kind):
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_text("secret")
    with fault("archive: link or device"):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            info = tarfile.TarInfo("a.txt")
            info.type, info.linkname = kind, str(tmp_path / "secret")
            archive.addfile(info)
        with pytest.raises(ValueError, match=r"a\.tar has no a\.txt"):
            list(extracted(tmp_path / "a.tar", {"a.txt"}, tmp_path / "out", "the page"))

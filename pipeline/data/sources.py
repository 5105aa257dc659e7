"""Published data sets: where their files lie in the publisher's archive, and reading them from there."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging
import lzma
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO

from pipeline.config import PublishedData, YahooData
from pipeline.data.letor import LetorError
from pipeline.data.progress import reading
from pipeline.data.ranking import RankingData
from pipeline.data.writer import RankingWriter
from pipeline.errors import UserError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Published:
    """A data set as its publisher hands it out.

    Attributes:
      page: where to get it.
      archives: file names of its archive; the first is today's.
      files: the path of each split below the archive's top, or below one folder there. `{option}` is
        an option of the data group.
      num_features: columns.
      num_docs: rows of all splits together.
      missing_value: see read_letor.
    """

    page: str
    archives: tuple[str, ...]
    files: dict[str, str]
    num_features: int
    num_docs: int
    missing_value: float | None = None


_MSLR_PAGE = "https://www.microsoft.com/en-us/research/project/mslr/"
_MSLR_FILES = {split: f"Fold{{fold}}/{split}.txt" for split in ("train", "vali", "test")}
_ISTELLA_PAGE = "http://quickrank.isti.cnr.it/istella-dataset/"
_YAHOO_PAGE = "https://research.yahoo.com/datasets (C14B; ltrc_yahoo.* lies inside the file you get there)"
_YAHOO_ARCHIVES = ("ltrc_yahoo.tar.bz2", "ltrc_yahoo.tgz")
_YAHOO_FILES = {"train": "set{set}.train.txt", "vali": "set{set}.valid.txt", "test": "set{set}.test.txt"}

# Layouts as in the builders of tensorflow-datasets 4.9.10 (ranking/), which read the same archives; the numbers of
# documents of Istella-S, Istella-X and Yahoo's set 2 too. Those of MSLR-WEB30K, Istella and Yahoo's set 1 are the sums
# over the splits in Qin et al., "Are Neural Rankers still Outperformed by Gradient Boosted Decision Trees?", ICLR 2021,
# table 1; that of MSLR-WEB10K is the set "Microsoft" of Gorishniy et al., "Revisiting Deep Learning
# Models for Tabular Data", NeurIPS 2021.
PUBLISHED = {
    "mslr_web10k": Published(_MSLR_PAGE, ("MSLR-WEB10K.zip",), _MSLR_FILES, 136, 1_200_192),
    "mslr_web30k": Published(_MSLR_PAGE, ("MSLR-WEB30K.zip",), _MSLR_FILES, 136, 3_771_125),
    "istella": Published(
        _ISTELLA_PAGE,
        ("istella-letor.tar.gz",),
        {"train": "full/train.txt", "test": "full/test.txt"},
        220,
        10_454_629,
        sys.float_info.max,
    ),
    "istella_s": Published(
        _ISTELLA_PAGE,
        ("istella-s-letor.tar.gz",),
        {split: f"sample/{split}.txt" for split in ("train", "vali", "test")},
        220,
        3_408_630,
        sys.float_info.max,
    ),
    "istella_x": Published(
        _ISTELLA_PAGE,
        ("istella-X.tar.gz",),
        {split: f"{split}.txt" for split in ("train", "vali", "test")},
        220,
        26_791_447,
        sys.float_info.max,
    ),
    # The two sets share one numbering of features, 1 to 700.
    "yahoo/set1": Published(_YAHOO_PAGE, _YAHOO_ARCHIVES, _YAHOO_FILES, 700, 709_877),
    "yahoo/set2": Published(_YAHOO_PAGE, _YAHOO_ARCHIVES, _YAHOO_FILES, 700, 172_870),
}


def published_of(config: PublishedData) -> Published:
    """The row of the table above for these options."""
    return PUBLISHED[f"yahoo/set{config.set}" if isinstance(config, YahooData) else config.name]


@dataclasses.dataclass(frozen=True)
class Located:
    """Where the files of a published data set are: text files, or members of an archive."""

    archive: Path | None
    files: dict[str, str]  # of each split, below `root` or in the archive
    root: Path

    @property
    def inputs(self) -> dict[str, Path]:
        """The files on the disk, by a name that does not depend on where they lie."""
        if self.archive is not None:
            return {self.archive.name: self.archive}
        return {name: self.root / name for name in self.files.values()}


def _stem(archive: str) -> str:
    return archive.partition(".")[0]


def locate(config: PublishedData) -> Located:
    """Finds the unpacked files, or else the archive.

    Raises:
      ValueError: neither is there; says what was looked for, where to get it and where to put it.
    """
    published = published_of(config)
    files = {split: name.format(**dataclasses.asdict(config)) for split, name in published.files.items()}
    given = Path(config.dir).expanduser()
    named = [name for name, row in PUBLISHED.items() if _stem(given.name) in map(_stem, row.archives)]
    has_own = any((given / archive).is_file() for archive in published.archives)
    if named and not has_own and PUBLISHED[named[0]].archives != published.archives:
        other = named[0].partition("/")[0]
        what = f"data.dir={config.dir} is {other} by its name, not {config.name}"
        raise UserError(
            what,
            fix=f"data={other}, or another data.dir",
        )
    if given.is_file():
        return Located(given, files, given.parent)
    roots = [given, *dict.fromkeys(given / _stem(archive) for archive in published.archives)]
    for root in roots:
        if all((root / name).is_file() for name in files.values()):
            return Located(None, files, root)
    for name in published.archives:
        if (given / name).is_file():
            return Located(given / name, files, given)
    missing = [name for name in files.values() if not (given / name).is_file()]
    raise UserError(
        f"data.dir={config.dir} does not hold {config.name}: no "
        f"{' or '.join(published.archives)} there, and no {', '.join(missing)} there or in "
        f"{', '.join(root.name for root in roots[1:])}",
        fix=f"get the archive from {published.page} and put it into data.dir, as it is or unpacked",
    )


def read_published(config: PublishedData, located: Located, folder: Path) -> dict[str, RankingData]:
    """Reads every split into `folder`/<split>, in bounded memory -> the splits, mapped from there.

    An archive is not unpacked: one file at a time is copied out, next to the arrays, read and removed.

    Raises:
      ValueError: the archive is damaged, or lacks a file, or the disk is full.
      LetorError: what is wrong in a file.
    """
    from pipeline.data import read_letor  # takes half a second to import: only where text is read

    published = published_of(config)
    share = getattr(config, "vali_share", None)
    data: dict[str, RankingData] = {}
    with contextlib.closing(_text_files(located, folder, published.page)) as texts:
        for split, path in texts:
            name = located.files[split]
            log.info("reading %s, %.1f GB of text", name, path.stat().st_size / 1e9)
            target = folder / ("whole" if share and split == "train" else split)
            target.mkdir(exist_ok=True)
            try:
                # Yahoo's feature ids are said not to rise everywhere; the order carries nothing.
                with reading(name) as progress:
                    data[split] = read_letor(
                        path,
                        num_features=published.num_features,
                        unsorted="accept",
                        missing_value=published.missing_value,
                        out_dir=target,
                        progress=progress,
                    )
            except LetorError as error:  # names a copy that will be gone
                where = path if located.archive is None else located.archive / name
                fix = f"get it again from {published.page}; if the content is intended, use data=letor: {error.fix}"
                raise LetorError(error.what, where, error.line, fix=fix) from error
    if share:
        whole = data.pop("train")
        data |= hold_out(whole, share, folder)
        data["train"] = dataclasses.replace(data["train"], num_missing=whole.num_missing)  # and those of vali
        shutil.rmtree(folder / "whole")
    num_docs = sum(split.num_docs for split in data.values())
    other = next(
        (name.partition("/")[0] for name, row in PUBLISHED.items() if row.num_docs == num_docs), None
    )
    if other not in (None, config.name):
        raise UserError(
            f"data.dir={config.dir} has the {num_docs} documents of {other}, not those of {config.name}",
            fix=f"data={other}",
        )
    if num_docs != published.num_docs:
        log.warning(
            "%s has %d documents here, %d as published: a part of it, or an altered one",
            config.name,
            num_docs,
            published.num_docs,
        )
    return {split: data[split] for split in ("train", "vali", "test")}


# ------------------------------------------------------------------------------------ a validation split


def is_held_out(query_id: str, share: float) -> bool:
    """Whether a training query belongs to the validation split: by its id alone, so alike from every source.

    >>> [query for query in range(20) if is_held_out(str(query), 0.2)]
    [8, 9]
    """
    return int.from_bytes(hashlib.sha256(query_id.encode()).digest()[:8], "big") < share * 2**64


def hold_out(data: RankingData, share: float, folder: Path) -> dict[str, RankingData]:
    """Writes `data` into `folder`/train and `folder`/vali, about `share` of the queries into the latter."""
    writers = {}
    for split in ("train", "vali"):
        (folder / split).mkdir(exist_ok=True)
        writers[split] = RankingWriter(folder / split)
    for query, query_id in enumerate(data.query_ids.tolist()):
        rows = slice(data.offsets[query], data.offsets[query + 1])
        split = "vali" if is_held_out(query_id, share) else "train"
        writers[split].append(query_id, data.features[rows], data.labels[rows])
    return {split: writer.finish() for split, writer in writers.items()}


# ---------------------------------------------------------------------------------------------- archives


def _text_files(located: Located, folder: Path, page: str) -> Generator[tuple[str, Path], None, None]:
    """-> (split, its text file), which may be gone after the next step."""
    if located.archive is None:
        for split, name in located.files.items():
            yield split, located.root / name
        return
    split_of = {name: split for split, name in located.files.items()}
    for name, path in extracted(located.archive, set(split_of), folder, page):
        yield split_of[name], path


def extracted(
    archive: Path, names: set[str], folder: Path, page: str
) -> Generator[tuple[str, Path], None, None]:
    """Copies files out of a .zip or .tar.*, one at a time, in the archive's order -> (name, the copy).

    A name may lie below a folder in the archive. The archive decides neither the name nor the place of
    a copy, links are not followed, and no copy is larger than the archive's own table says, which must fit the disk.

    Args:
      archive: the file.
      names: paths in the archive, all needed.
      folder: for the copies; each is removed when the next one is asked for.
      page: where to get the archive again.

    Raises:
      ValueError: the archive is damaged, lacks a name or has it twice, or the disk is full.
    """
    copy = folder / "member.txt"
    found: set[str] = set()
    try:
        with contextlib.closing(_members(archive)) as members:
            for path, num_bytes, opened in members:
                name = next((name for name in names if f"/{path}".endswith(f"/{name}")), None)
                if path.startswith("__MACOSX/"):  # what a Mac adds to a .zip
                    continue
                if name is None:
                    continue
                if name in found:
                    raise UserError(
                        f"{archive} holds {name} twice",
                        fix="unpack the one that is meant",
                    )
                found.add(name)
                free = shutil.disk_usage(folder).free
                if num_bytes > free:
                    raise UserError(
                        f"{name} of {archive} needs {num_bytes} bytes, {folder} has {free}",
                        fix="free some, or set cache_dir",
                    )
                with (
                    opened() as source,
                    copy.open("wb") as target,
                    reading(f"{name} of {archive.name}") as progress,
                ):
                    while some := source.read(1 << 20):
                        target.write(some)
                        if progress is not None:
                            progress(target.tell(), num_bytes)
                yield name, copy
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        what = str(error).partition("\n")[0]
        raise UserError(
            f"{archive} is damaged or cut off ({what})",
            fix=f"get it again from {page}",
        ) from error
    except RuntimeError as error:  # encrypted, or an unusual compression
        raise UserError(
            f"{archive} cannot be read ({error})",
            fix="unpack it by hand",
        ) from error
    finally:
        copy.unlink(missing_ok=True)
    if found != names:
        raise UserError(
            f"{archive} has no {', '.join(sorted(names - found))}",
            fix=f"get the whole archive from {page}",
        )


def _members(archive: Path) -> Generator[tuple[str, int, Callable[[], IO[bytes]]], None, None]:
    """-> (path, size in bytes, how to open it) of the regular files."""
    if archive.suffix.lower() == ".zip" or zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, functools.partial(zipped.open, info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile():
                yield member.name, member.size, functools.partial(_opened, tar, member)
        assert tar.fileobj is not None
        while tar.fileobj.read(1 << 20):  # to the check sum at the end of a .gz
            pass


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(member)
    assert source is not None  # it is a regular file
    return source

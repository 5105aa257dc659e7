"""Ranking data sets of TensorFlow Datasets to RankingData."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.extractor import ExtractError
from tensorflow_datasets.core.shuffle import DuplicatedKeysError
from tensorflow_datasets.ranking.libsvm_ranking_parser import ParserError

from pipeline.config import TFDSData
from pipeline.config.checks import within_float64
from pipeline.data.ranking import RankingData
from pipeline.data.sources import PUBLISHED, Published, is_held_out
from pipeline.data.tfds_manual_file import use_file
from pipeline.data.writer import RankingWriter
from pipeline.errors import UserError
from pipeline.store import file_digest, write_json

log = logging.getLogger(__name__)

_FEATURES = ("float_features", "label", "query_id")
_SOURCES = {  # of the builders that TFDS ships
    "mslr_web/10k": "mslr_web10k",
    "mslr_web/30k": "mslr_web30k",
    "istella/main": "istella",
    "istella/s": "istella_s",
    "istella/x": "istella_x",
    "yahoo_ltrc/set1": "yahoo/set1",
    "yahoo_ltrc/set2": "yahoo/set2",
}


# ------------------------------------------------------------------------------------------------ prepare


def prepare(config: TFDSData) -> tfds.core.DatasetBuilder:
    """The builder, with its data set prepared; downloads what is missing.

    TFDS ships no checksums of the ranking sets. A publisher's archive in `<data_dir>/downloads/manual` is used instead
    of a download; its sha256 is logged and kept in source.json of the prepared data set.

    Raises:
      ValueError: there is no such builder, it is not a ranking data set, or the download failed: then says where to
        get the file and where to put it.
    """
    try:
        builder = tfds.builder(config.builder, data_dir=config.data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        known = "mslr_web/10k_fold1, istella/main, yahoo_ltrc/set1, or letor/<name> made with write_tfds"
        raise UserError(
            f"data.builder={config.builder} is not there ({str(error).splitlines()[0]}); such are {known}",
            fix="check the name and data.data_dir",
        ) from error
    lacking = [name for name in _FEATURES if name not in builder.info.features]
    if lacking:
        raise ValueError(f"data.builder={config.builder} has no {', '.join(lacking)}: not a ranking data set")
    published = _published_of(builder)
    manual = Path(builder.data_dir_root) / "downloads" / "manual"
    archives = [] if published is None else [manual / name for name in published.archives]
    archive = next((path for path in archives if path.is_file()), None)
    if builder.is_prepared():
        _check_source(builder, manual)
        return builder
    source: dict[str, Any] = {}
    # Without this TFDS first asks a bucket in the cloud whether it holds the prepared data set.
    download = tfds.download.DownloadConfig(try_download_gcs=False)
    if archive is not None:
        source = {"file": archive.name, "bytes": archive.stat().st_size, "sha256": file_digest(archive)}
        log.info("using %s, sha256 %s; TFDS has none to compare with", archive, source["sha256"])
        use_file(builder, archive)
        # TFDS takes what it once extracted of a file of that name: a place for each content.
        download.extract_dir = manual.parent / "extracted" / source["sha256"]
    try:
        builder.download_and_prepare(download_config=download)
    except (ParserError, DuplicatedKeysError) as error:
        fix = "correct the file"
        if published is not None:
            fix = f"data={_option_of(published)} data.dir=<the folder of the archive> names file and line"
        what = " ".join(str(error).split())[:200]
        raise UserError(
            f"TFDS could not read a line of {config.builder} ({what})",
            fix=fix,
        ) from error
    except (tfds.download.DownloadError, ExtractError, tf.errors.OpError, OSError, AssertionError) as error:
        fix = "give it what its documentation names"
        if published is not None and archive is not None:
            fix = (
                f"give {archive} as its publisher has it, with no folder around its files, or leave TFDS out with "
                f"data={_option_of(published)} data.dir={manual}"
            )
        elif published is not None:
            fix = (
                f"get {published.archives[0]} from {published.page} and put it into {manual}, or leave TFDS out "
                f"with data={_option_of(published)} data.dir=<the folder with it>"
            )
            if builder.name == "mslr_web":
                fix = f"the address in TFDS is out of date (tensorflow/datasets #11136): {fix}"
        raise UserError(
            f"TFDS could not prepare {config.builder} ({error})",
            fix=fix,
        ) from error
    if source:
        write_json(Path(builder.data_dir) / "source.json", source)
    return builder


def _check_source(builder: tfds.core.DatasetBuilder, manual: Path) -> None:
    """Raises ValueError if the data set was prepared from another archive."""
    path = Path(builder.data_dir) / "source.json"
    source = json.loads(path.read_text()) if path.is_file() else {}
    archive = manual / source.get("file", "")
    if archive.is_file():
        found = archive.stat()
        is_newer = found.st_ctime > path.stat().st_mtime  # else its digest need not be taken again
        if found.st_size != source["bytes"] or (is_newer and file_digest(archive) != source["sha256"]):
            raise UserError(
                f"{archive} is not the file that {builder.data_dir} was prepared from",
                fix="remove that folder, to prepare it again",
            )
        if is_newer:
            with contextlib.suppress(OSError):
                path.touch()


def _option_of(published: Published) -> str:
    return next(name for name, row in PUBLISHED.items() if row is published).partition("/")[0]


def _published_of(builder: tfds.core.DatasetBuilder) -> Published | None:
    name = f"{builder.name}/{builder.builder_config.name if builder.builder_config else ''}"
    source = _SOURCES.get(name.partition("_fold")[0] if builder.name == "mslr_web" else name)
    return None if source is None else PUBLISHED[source]


def record_files(builder: tfds.core.DatasetBuilder) -> dict[str, Path]:
    """The files of a prepared data set, by name."""
    return {Path(path).name: Path(path) for split in builder.info.splits.values() for path in split.filepaths}


# --------------------------------------------------------------------------------------------------- read


def read_tfds(config: TFDSData, folder: Path) -> dict[str, RankingData]:
    """Streams every split into `folder`/<split>, in bounded memory and the order of the shards -> the splits, mapped.

    Without a split `vali`, it is taken from the training queries as `data=istella` does.

    Raises:
      ValueError: see `prepare`; a value that float32 does not hold; a split is missing.
    """
    builder = prepare(config)
    _check_missing_value(builder, config)
    names = set(builder.info.splits)
    if not {"train", "test"} <= names:
        raise ValueError(
            f"{config.builder} has the splits {sorted(names)}; train and test are needed, vali is used"
        )
    writers, num_missing = {}, {}
    for split in ("train", "vali", "test"):
        (folder / split).mkdir(exist_ok=True)
        writers[split] = RankingWriter(folder / split)
        num_missing[split] = np.zeros(builder.info.features["float_features"].shape[-1], np.int64)
    for split in sorted(names & set(writers)):
        log.info(
            "reading split %s of %s, %s queries",
            split,
            config.builder,
            builder.info.splits[split].num_examples,
        )
        for example in _examples(builder, split):
            query_id = example["query_id"].decode()
            features, is_missing = _float32(
                example["float_features"], config.missing_value, f"query {query_id!r} of {split}"
            )
            held_out = split == "train" and "vali" not in names and is_held_out(query_id, config.vali_share)
            target = "vali" if held_out else split
            writers[target].append(query_id, features, example["label"])
            num_missing[target] += is_missing.sum(0)
    data = {split: writer.finish() for split, writer in writers.items()}
    if config.missing_value is None or _written_with(builder) is not None:
        return data
    return {split: dataclasses.replace(data[split], num_missing=num_missing[split]) for split in data}


def _written_with(builder: tfds.core.DatasetBuilder) -> float | None:
    """The missing value that `write_tfds` made 0 already."""
    options = dict(builder.info.metadata or {}).get("options", {}) if builder.name == "letor" else {}
    return float(options["missing_value"]) if options.get("missing_value", "None") != "None" else None


def _check_missing_value(builder: tfds.core.DatasetBuilder, config: TFDSData) -> None:
    """Raises ValueError where the exported model would not treat it as the data were treated."""
    written = _written_with(builder)
    if written is not None and config.missing_value != within_float64(written):
        raise UserError(
            f"data.builder={config.builder} was written with missing_value={written}, "
            f"data.missing_value={config.missing_value}",
            fix=f"data.missing_value={within_float64(written)!r}, so that the exported "
            "model takes that number for 0, too",
        )


def _examples(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[dict[str, Any]]:
    if builder.info.file_format in tfds.core.FileFormat.with_random_access():
        yield from builder.as_data_source(split)
        return
    # One shard after the other: the same order every time.
    options = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    yield from tfds.as_numpy(builder.as_dataset(split, shuffle_files=False, read_config=options))


def _float32(values: np.ndarray, missing_value: float | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """-> (the values, with 0 for those that are missing; which these are), both as `values`."""
    # What overflows float64, as Istella's 1.79769313486232e+308, counts as its largest.
    largest = np.finfo(np.float64).max
    with np.errstate(over="ignore"):  # -99.9 as float32 has it
        rounded = np.nan if missing_value is None else float(values.dtype.type(missing_value))
    values = np.clip(values.astype(np.float64), -largest, largest)
    is_missing = np.zeros(values.shape, bool)
    with np.errstate(over="ignore"):
        if missing_value is not None:
            is_missing = np.abs(values - missing_value) <= 1e-9 * abs(missing_value)
            is_missing |= values == rounded
            values[is_missing] = 0
        features = values.astype(np.float32)
    if not np.isfinite(features).all():
        worst = values[~np.isfinite(features)][0]
        raise UserError(
            f"{where} has the value {worst}, which float32 does not hold",
            fix="replace it" if np.isnan(worst) else f"if it stands for missing, data.missing_value={worst}",
        )
    return features, is_missing

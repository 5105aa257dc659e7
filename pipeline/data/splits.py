"""The three splits of whatever data set the config names."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import DataConfig, LetorData, PublishedData, SyntheticData, TFDSData
from pipeline.data.letor import LetorError
from pipeline.data.progress import reading
from pipeline.data.ranking import RankingData
from pipeline.data.sources import locate, published_of, read_published
from pipeline.data.synthetic import make_synthetic

SPLITS = ("train", "vali", "test")
# The option for each argument of read_letor that a user can set.
OPTIONS = {
    name: f"data.{name}" for name in ("num_features", "duplicates", "unsorted", "regroup", "missing_value")
} | {
    "group_sizes": "data.group_suffix (such as .query) if files beside it hold the number of rows of each query"
}


def missing_value_of(config: DataConfig) -> float | None:
    """The raw value that stands for "missing" in these data and is read as 0; None if there is none."""
    if isinstance(config, PublishedData):
        return published_of(config).missing_value
    return getattr(config, "missing_value", None)


def input_files(config: DataConfig) -> dict[str, Path]:
    """The files that the data are made of, by a name that does not depend on where they lie."""
    if isinstance(config, PublishedData):
        return locate(config).inputs
    if isinstance(config, TFDSData):
        from pipeline.data import tfds  # takes seconds to import

        return tfds.record_files(tfds.prepare(config))
    if isinstance(config, LetorData):
        return dict(pair for split in SPLITS for pair in text_files(config, split).items())
    return {}


def text_files(config: LetorData, split: str) -> dict[str, Path]:
    """The file of a split, or of `unlabelled`, and that of its group sizes."""
    path = getattr(config, split)
    groups = config.groups_of(path)
    return {split: Path(path)} | ({} if groups is None else {f"{split} groups": groups})


def read_text(
    config: LetorData, path: str, folder: Path, *, num_features: int | None, judged: bool = True
) -> RankingData:
    """Reads one of the files into `folder`."""
    from pipeline.data import read_letor  # takes half a second to import: only where text is read

    with reading(Path(path).name) as progress:
        try:
            return read_letor(
                path,
                num_features=num_features,
                duplicates=config.duplicates,
                unsorted=config.unsorted,
                regroup=config.regroup,
                missing_value=config.missing_value,
                group_sizes=config.groups_of(path),
                judged=judged,
                out_dir=folder,
                progress=progress,
            )
        except LetorError as error:
            raise error.named(OPTIONS) from error


def read_splits(config: DataConfig, folder: Path) -> dict[str, RankingData]:
    """Writes the splits below `folder` and maps them; everything but the embedded data in bounded memory."""
    if isinstance(config, PublishedData):
        return read_published(config, locate(config), folder)
    if isinstance(config, TFDSData):
        from pipeline.data import tfds

        return tfds.read_tfds(config, folder)
    for split in SPLITS:
        (folder / split).mkdir(exist_ok=True)
    if isinstance(config, SyntheticData):
        data = make_synthetic(
            seed=config.seed,
            train_queries=config.train_queries,
            vali_queries=config.vali_queries,
            test_queries=config.test_queries,
            label_noise=config.label_noise,
        )
        for split, lists in data.items():
            lists.save(folder / split)
        return data
    data, num_features = {}, config.num_features
    for split in SPLITS:
        data[split] = read_text(config, getattr(config, split), folder / split, num_features=num_features)
        num_features = data["train"].num_features
    return data

"""LETOR files to a data set of TensorFlow Datasets."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from pipeline.data.letor.reader import read_letor
from pipeline.errors import UserError
from pipeline.store import file_digest


@dataclasses.dataclass
class LetorConfig(tfds.core.BuilderConfig):
    """What a `letor` data set is made of; `name` is its name in TFDS.

    Attributes:
      files: paths of each split; with Beam each file is parsed on one worker, so a cluster wants several.
      num_features: columns.
      options: of read_letor.
      beam: whether the examples are made with Apache Beam (DownloadConfig.beam_runner, beam_options).
    """

    files: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    num_features: int = 0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    beam: bool = False


class Letor(tfds.core.GeneratorBasedBuilder):
    """LETOR / SVMrank text as a TFDS data set, one example a query; see `write_tfds`."""

    name = "letor"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: Mapping[str, str] = {"1.0.0": "The features of TFDS's own ranking sets, in float32."}

    def _info(self) -> tfds.core.DatasetInfo:
        """The sha256 of every file is kept in metadata.json of the data set."""
        config = self.builder_config
        zlib = tfds.features.Encoding.ZLIB
        features = {
            "float_features": tfds.features.Tensor(
                shape=(None, config.num_features), dtype=np.float32, encoding=zlib
            ),
            "label": tfds.features.Tensor(shape=(None,), dtype=np.float32, encoding=zlib),
            "query_id": tfds.features.Text(),
            "doc_id": tfds.features.Tensor(shape=(None,), dtype=np.int64, encoding=zlib),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Ranking lists read from LETOR / SVMrank text.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(_made_of(config)),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split: self._generate_examples(paths) for split, paths in self.builder_config.files.items()}

    def _generate_examples(self, paths: Sequence[str]) -> Any:
        config = self.builder_config
        read = functools.partial(_letor_examples, num_features=config.num_features, options=config.options)
        if config.beam:
            try:
                import apache_beam as beam
            except ImportError as error:
                fix = "pip install apache-beam, in an environment of its own"
                raise UserError(
                    f"beam=True: {error}",
                    fix=fix,
                ) from error
            return beam.Create(list(paths)) | beam.FlatMap(read)
        return _each_once(example for path in paths for example in read(path))


def _each_once(examples: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    seen = set()
    for query_id, example in examples:
        if query_id in seen:
            raise UserError(
                f"query {query_id!r} comes twice in one split",
                fix="bring its rows into one file",
            )
        seen.add(query_id)
        yield query_id, example


def _letor_examples(
    path: str, *, num_features: int, options: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The queries of a file; the document ids are the numbers of its rows, from 1."""
    with tempfile.TemporaryDirectory() as folder:
        data = read_letor(path, num_features=num_features, out_dir=Path(folder), **options)
        for query, query_id in enumerate(data.query_ids.tolist()):
            start, stop = data.offsets[query : query + 2].tolist()
            yield (
                query_id,
                {
                    "float_features": np.array(data.features[start:stop]),
                    "label": np.array(data.labels[start:stop]),
                    "query_id": query_id,
                    "doc_id": np.arange(start + 1, stop + 1),
                },
            )


def _made_of(config: LetorConfig) -> dict[str, Any]:
    """Name and sha256 of the files of each split, in their order; the options."""
    return {
        "files": {
            split: [[Path(path).name, file_digest(Path(path))] for path in paths]
            for split, paths in config.files.items()
        },
        "num_features": config.num_features,
        "options": {
            name: repr(value.item() if isinstance(value, np.generic) else value)
            for name, value in sorted(config.options.items())
        },
    }


def write_tfds(
    files: Mapping[str, Path | str | Sequence[Path | str]],
    *,
    name: str,
    num_features: int,
    data_dir: Path | str | None = None,
    beam: bool = False,
    download_config: tfds.download.DownloadConfig | None = None,
    file_format: str | None = None,
    **options: Any,
) -> tfds.core.DatasetBuilder:
    """Makes the TFDS data set `letor/<name>` of LETOR files, for data=tfds or any other reader of TFDS.

    The sha256 of every file is recorded with the data set. A data set that is there already is used if it was
    made of the same files with the same options.

    Args:
      files: of the splits train, vali, test; a split may be several files, but a query lies in one. They have a qid.
      name: of the data set.
      num_features: columns.
      data_dir: where TFDS keeps its data; None: its default.
      beam: see LetorConfig.
      download_config: of TFDS, such as num_shards, beam_runner.
      file_format: of TFDS, such as "array_record"; None: tfrecord.
      **options: of read_letor. The `missing_value` is recorded with the data set, and data=tfds asks for the same.

    Raises:
      LetorError: what is wrong in a file.
      ValueError: another data set of that name is there; another split is named.
    """
    if not set(files) <= {"train", "vali", "test"}:
        raise UserError(
            f"files has the splits {sorted(files)}",
            fix="name them train, vali and test",
        )
    if "group_sizes" in options:
        raise UserError(
            "write_tfds takes no group_sizes",
            fix="write the query ids into the files, as qid:",
        )
    paths = {
        split: [str(path) for path in ([of_split] if isinstance(of_split, (str, Path)) else of_split)]
        for split, of_split in files.items()
    }
    config = LetorConfig(name=name, files=paths, num_features=num_features, options=options, beam=beam)
    builder = Letor(config=config, data_dir=data_dir)
    if builder.is_prepared():
        there = tfds.builder(f"letor/{name}", data_dir=data_dir)
        if dict(there.info.metadata) != _made_of(config):
            raise UserError(
                f"{builder.data_dir} was made of other files, or with other options",
                fix="give another name, or remove that folder",
            )
        return there
    builder.download_and_prepare(download_config=download_config, file_format=file_format)
    return builder

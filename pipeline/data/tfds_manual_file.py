"""Lets a TFDS builder read an archive that lies on this machine.

This file uses a private method of TensorFlow Datasets, `DatasetBuilder._make_download_manager`. TFDS's public options
cannot name a local file for a builder that downloads, and the address in its MSLR builder is out of date
(tensorflow/datasets #11136). It was tried with tensorflow-datasets 4.9.10. If the method changes, `data=tfds` with an
archive in downloads/manual fails with AttributeError, and so does tests/data/test_tfds.py. Nothing else uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds


def use_file(builder: tfds.core.DatasetBuilder, archive: Path) -> None:
    """Makes the builder take this archive in place of its only download."""
    make = builder._make_download_manager

    def make_with_file(**options: Any) -> tfds.download.DownloadManager:
        manager = make(**options)
        extract = manager.extract
        # Yahoo's builder asks for the archive under one name only; it has two.
        manager.extract = manager.download_and_extract = lambda _: extract(archive)
        return manager

    builder._make_download_manager = make_with_file

"""Lists without labels, which the teacher scores and the student alone learns from.

A file of them is LETOR text like that of the splits; the label that its lines begin with, any number, is
ignored. In memory their labels are -1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.config import DataConfig, LetorData, SyntheticData
from pipeline.data.ranking import RankingData
from pipeline.data.splits import read_text
from pipeline.data.synthetic import make_unlabelled


def read_unlabelled(config: DataConfig, folder: Path, *, num_features: int) -> RankingData:
    """Writes the lists that `config` names into `folder` and maps them.

    Args:
      config: with data.unlabelled or data.unlabelled_queries.
      folder: exists.
      num_features: of the training split; a larger index in the file is an error.

    Raises:
      LetorError: the first thing that is wrong in the file.
    """
    if isinstance(config, SyntheticData):
        make_unlabelled(seed=config.seed, num_queries=config.unlabelled_queries).save(folder)
        return RankingData.load(folder)
    assert isinstance(config, LetorData)
    assert config.unlabelled is not None
    lists = read_text(config, config.unlabelled, folder, num_features=num_features, judged=False)
    np.save(folder / "labels.npy", np.full(lists.num_docs, -1, np.float32), allow_pickle=False)
    return RankingData.load(folder)

"""Synthetic lists on which a tree ensemble shows what it has learnt: features from the midpoints of its splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import RankingData

if TYPE_CHECKING:
    import lightgbm  # takes half a second to import


def synthetic_lists(
    members: Sequence[lightgbm.Booster], train: RankingData, *, per_list: int = 1, seed: int = 0
) -> RankingData:
    """For each training list lists of the same size whose documents the ensemble tells apart, without labels (-1).

    A feature that trees ask about takes the midpoints between its neighbouring split thresholds, the smallest and
    largest training value among these, with equal probability and independently of the others (Cohen et al., SIGIR
    2018; Nardini et al., 2022; there single documents, here whole lists). Of a feature that no tree asks about the
    training values are drawn: the ensemble's scores do not depend on it, and a student must learn that.

    Args:
      members: the ensemble.
      train: raw features.
      per_list: synthetic lists for each training list.
      seed: of the draws.
    """
    sizes = np.tile(train.list_sizes, per_list)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    thresholds = split_thresholds(members, train.num_features)
    low, high = train.features.min(axis=0), train.features.max(axis=0)
    features = np.empty((offsets[-1], train.num_features), np.float32)
    for feature, splits in enumerate(thresholds):
        rng = np.random.Generator(np.random.PCG64([seed, feature]))
        if len(splits):
            values = midpoints(splits, float(low[feature]), float(high[feature]))
            features[:, feature] = values[rng.integers(len(values), size=len(features))]
        else:
            features[:, feature] = train.features[rng.integers(train.num_docs, size=len(features)), feature]
    query_ids = np.array([f"synthetic-{query}" for query in range(len(sizes))])
    return RankingData(features, np.full(len(features), -1, np.float32), offsets, query_ids)


def midpoints(thresholds: np.ndarray, low: float, high: float) -> np.ndarray:
    """Between neighbours among the thresholds, `low` and `high`: float32 [at most thresholds + 1].

    >>> midpoints(np.array([1.0, 3.0]), 0.0, 10.0).tolist()
    [0.5, 2.0, 6.5]
    """
    ends = np.unique([low, *thresholds, high])
    return ((ends[:-1] + ends[1:]) / 2).astype(np.float32) if len(ends) > 1 else ends.astype(np.float32)


def split_thresholds(members: Sequence[lightgbm.Booster], num_features: int) -> list[np.ndarray]:
    """The different thresholds of each feature over all trees, rising, float64; empty where no tree asks."""
    found: list[set[float]] = [set() for _ in range(num_features)]
    for member in members:
        for tree in member.dump_model()["tree_info"]:
            for node in _splits(tree["tree_structure"]):
                found[node["split_feature"]].add(node["threshold"])
    return [np.array(sorted(values)) for values in found]


def _splits(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if "split_feature" in node:
            yield node
            nodes += [node["left_child"], node["right_child"]]

"""What the data stage saw: counts of every split, what looks odd, and errors for what cannot be meant."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.table import Table

from pipeline.data.ranking import RankingData
from pipeline.errors import UserError

_ROWS = 1 << 16  # documents at a time
_SHOWN = 20  # examples of a longer list
_HUGE = 1e30
_MAX_GRADE = 30.0
_NEARLY_ALL = 0.95  # of the lists that have different labels
_CHANCE = 1e-6  # the rows stand in the order of their labels more often than by this chance
_LIMIT = 1000.0  # the gain of so large a label, summed, is beyond float64


def describe(data: dict[str, RankingData], *, own_ids: bool = True) -> dict[str, Any]:
    """The report of a data set with the splits train, vali, test, JSON-like; one pass over the features, by blocks.

    Args:
      data: the splits.
      own_ids: the query ids are the data's; else they were numbered by the reader, and equal ones mean nothing.

    Returns:
      `num_features`; `splits`: of each split `queries`, `docs`, `blank_queries` (without a label > 0),
      `one_doc_lists`, `list_size` (min, median, mean, max), `labels` (documents of each label; None where there are
      more than 20 labels) and `label_range`; `features`: indices from 1, as in LETOR text, of those that are `constant`
      (not 0) or `empty` (all 0) in the training split, or `huge` (beyond 1e30) in any, each as {count, first};
      `overlaps`: {splits, count, first} query ids that two splits share; `identical_lists`: {splits, count, first}
      pairs of query ids whose lists, of two documents or more, have the same features in two splits; `missing`: of
      all splits, the `values` that data.missing_value made 0 and the `features` with some, {count, first}, or None
      without that option; `label_order`: split -> "best first" or "best last" where the rows of nearly all lists
      stand in that order of their labels; `warnings`: sentences.

    Raises:
      ValueError: numbers of features differ; a label is negative; a feature is not finite; all training labels are
        equal or too large; no ranking of a split is better than another.
    """
    num_features = data["train"].num_features
    for split, lists in data.items():
        if lists.num_features != num_features:
            raise UserError(
                f"{split} has {lists.num_features} features, train has {num_features}",
                fix="give files of one data set",
            )
    if len(np.unique(data["train"].labels)) == 1:
        raise UserError(
            f"every training label is {data['train'].labels[0]:g}: there is nothing to learn",
            fix="check that the label is the first number of each line",
        )
    splits = {split: _describe_split(split, lists) for split, lists in data.items()}
    ranges = {split: _feature_ranges(split, lists.features) for split, lists in data.items()}
    low, high = ranges["train"]
    if (low == high).all():
        raise UserError(
            "every feature is the same throughout train: there is nothing to learn from",
            fix="check the features, and that data.missing_value is not the usual value",
        )
    huge = np.any([(low < -_HUGE) | (high > _HUGE) for low, high in ranges.values()], axis=0)
    described: dict[str, Any] = {
        "num_features": num_features,
        "splits": splits,
        "features": {
            "constant": _some(np.flatnonzero((low == high) & (low != 0)) + 1),
            "empty": _some(np.flatnonzero((low == 0) & (high == 0)) + 1),
            "huge": _some(np.flatnonzero(huge) + 1),
        },
        "overlaps": _overlaps(data, itertools.combinations(data, 2)) if own_ids else [],
        "identical_lists": [],
        "missing": _missing(data),
        "label_order": {split: order for split, lists in data.items() if (order := _label_order(lists))},
    }
    contents = {split: _list_digests(lists) for split, lists in data.items()}
    for a, b in itertools.combinations(data, 2):
        twins = [[contents[a][key], contents[b][key]] for key in contents[a].keys() & contents[b].keys()]
        if twins:
            described["identical_lists"].append({"splits": [a, b], **_some(sorted(twins))})
    described["warnings"] = list(_warnings(described))
    return described


def describe_unlabelled(
    lists: RankingData, data: dict[str, RankingData], *, own_ids: bool = True
) -> dict[str, Any]:
    """The report of lists without labels beside the splits `data`: `queries`, `docs`, `one_doc_lists`, `list_size`,
    `overlaps` (with vali and test), `missing` and `warnings` as of `describe`, `own_ids` as there.

    Raises:
      ValueError: a feature is not finite.
    """
    _feature_ranges("unlabelled", lists.features)
    pairs = [(split, "unlabelled") for split in ("vali", "test")] if own_ids else []
    overlaps = _overlaps({**data, "unlabelled": lists}, pairs)
    described = {**_describe_lists(lists), "overlaps": overlaps, "missing": _missing({"unlabelled": lists})}
    return {**described, "warnings": list(map(_overlap_warning, overlaps))}


def _overlaps(data: dict[str, RankingData], pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """{splits, count, first} query ids of each pair that shares some."""
    found = []
    for a, b in pairs:
        shared = sorted(set(data[a].query_ids.tolist()) & set(data[b].query_ids.tolist()))
        if shared:
            found.append({"splits": [a, b], **_some(shared)})
    return found


def _overlap_warning(overlap: dict[str, Any]) -> str:
    a, b = overlap["splits"]
    return (
        f"{a} and {b} share {overlap['count']} query ids, such as {', '.join(overlap['first'][:3])}: results on "
        f"{a if b == 'unlabelled' else b} flatter the model, unless each split has its own query numbers"
    )


def _describe_lists(lists: RankingData) -> dict[str, Any]:
    sizes = lists.list_sizes
    return {
        "queries": lists.num_queries,
        "docs": lists.num_docs,
        "one_doc_lists": int((sizes == 1).sum()),
        "list_size": {
            "min": int(sizes.min()),
            "median": float(np.median(sizes)),
            "mean": round(float(sizes.mean()), 2),
            "max": int(sizes.max()),
        },
    }


def _describe_split(split: str, lists: RankingData) -> dict[str, Any]:
    labels, counts = np.unique(lists.labels, return_counts=True)
    if labels[0] < 0:
        raise UserError(
            f"{split} has the label {labels[0]:g}",
            fix="shift the labels so that 0 is not relevant",
        )
    if labels[-1] >= _LIMIT:
        raise UserError(
            f"{split} has the label {labels[-1]:g}, whose gain 2^label - 1 is no number",
            fix="give grades, such as 0 to 4",
        )
    if labels[-1] <= 0:
        raise UserError(
            f"{split} has no document with a label > 0, so no ranking of it is better than another",
            fix="give judged data, or another division into splits",
        )
    worst, best = (f.reduceat(lists.labels, lists.offsets[:-1]) for f in (np.minimum, np.maximum))
    if (worst == best).all():
        raise UserError(
            f"{split} has no query with documents of different labels, so no ranking of it is "
            "better than another",
            fix="check that the number behind qid: is the query's, not the document's, and the labels",
        )
    return {
        **_describe_lists(lists),
        "blank_queries": lists.num_blank_queries,
        "label_range": [float(labels[0]), float(labels[-1])],
        "labels": {_shortest(label): int(count) for label, count in zip(labels, counts, strict=True)}
        if len(labels) <= _SHOWN
        else None,
    }


def _label_order(lists: RankingData) -> str | None:
    """ "best first" or "best last" where the rows of nearly all lists stand in that order of their labels, else None.

    Lists with one label do not count. Short lists are often in order by chance: of the rows of a list of n documents,
    c_1, c_2, ... of each label, the share c_1! c_2! ... / n! of all orders is one order of the labels.
    """
    starts, sizes = lists.offsets[:-1], lists.list_sizes
    steps = np.diff(lists.labels, prepend=0)
    steps[starts] = 0
    rises, falls = (np.logical_or.reduceat(wrong, starts) for wrong in (steps > 0, steps < 0))
    begins = steps != 0  # a run of equal labels of one list
    begins[starts] = True
    runs = np.flatnonzero(begins)
    list_of_run = np.searchsorted(lists.offsets, runs, side="right") - 1
    log_factorial = np.cumsum(np.log(np.maximum(np.arange(sizes.max() + 1), 1)))
    for order, wrong in (("best first", rises), ("best last", falls)):
        ordered = (rises | falls) & ~wrong
        if ordered.sum() >= _NEARLY_ALL * (rises | falls).sum():
            log_chance = log_factorial[np.diff(runs, append=lists.num_docs)][ordered[list_of_run]].sum()
            log_chance -= log_factorial[sizes][ordered].sum()
            if log_chance <= np.log(_CHANCE):
                return order
    return None


def _shortest(label: np.float32) -> str:
    """
    >>> _shortest(np.float32("-0")), _shortest(np.float32(4)), _shortest(np.float32("0.3333333"))
    ('0', '4', '0.3333333')
    """
    return np.format_float_positional(label + 0, trim="-")


def _feature_ranges(split: str, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-> float32 [F] smallest, largest."""
    low = np.full(features.shape[1], np.inf, np.float32)
    high = -low
    for start in range(0, len(features), _ROWS):
        block = features[start : start + _ROWS]
        low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
    wrong = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
    if len(wrong):
        raise UserError(
            f"feature {wrong[0] + 1} of {split} has values that are not finite",
            fix="replace them, or name the number that stands for missing values with data.missing_value",
        )
    return low, high


def _missing(data: dict[str, RankingData]) -> dict[str, Any] | None:
    counts = [lists.num_missing for lists in data.values() if lists.num_missing is not None]
    if not counts:
        return None
    each = np.sum(counts, axis=0)
    return {"values": int(each.sum()), "features": _some(np.flatnonzero(each) + 1)}


def _list_digests(lists: RankingData) -> dict[bytes, str]:
    """Digest of the features of each list of two documents or more -> its query id."""
    digests = {}
    for query, query_id in enumerate(lists.query_ids.tolist()):
        start, stop = lists.offsets[query : query + 2].tolist()
        if stop - start > 1:
            rows = np.ascontiguousarray(lists.features[start:stop])
            digests[hashlib.blake2b(rows.data, digest_size=16).digest()] = query_id
    return digests


def _some(items: Iterable[Any]) -> dict[str, Any]:
    every = np.asarray(items).tolist()
    return {"count": len(every), "first": every[:_SHOWN]}


def _warnings(described: dict[str, Any]) -> Iterable[str]:
    yield from map(_overlap_warning, described["overlaps"])
    for twins in described["identical_lists"]:
        (a, b), (first, second) = twins["splits"], twins["first"][0]
        yield (
            f"{a} and {b} share {twins['count']} lists with the same features throughout, such as query {first} of {a} "
            f"and {second} of {b}: results on {b} flatter the model"
        )
    for split, order in described["label_order"].items():
        yield (
            f"the rows of nearly all lists of {split} stand in the order of their labels, {order}: what breaks "
            "ties by the order of the rows then knows the labels. Shuffle the rows of each query, and check that no "
            "feature holds the number of the row"
        )
    huge = described["features"]["huge"]
    if huge["count"]:
        yield (
            f"features that reach beyond {_HUGE:g}: {_named(huge)}; a number that stands for a missing value? "
            "data.missing_value makes it 0"
        )
    if described["missing"] and not described["missing"]["values"]:
        yield "no value stands for missing: check the sign and the digits of data.missing_value, if some do"
    if described["features"]["empty"]["count"] > described["num_features"] / 2:
        yield (
            f"{described['features']['empty']['count']} of {described['num_features']} features are always 0 in train: "
            "a feature index that is not meant? data=letor data.num_features=N makes larger ones an error with its line"
        )
    for split, counts in described["splits"].items():
        if counts["label_range"][1] > _MAX_GRADE:
            yield (
                f"{split} has labels up to {counts['label_range'][1]:g}; the gain 2^label - 1 of NDCG then leaves all "
                "other labels without weight"
            )


def summary(described: dict[str, Any]) -> list[str]:
    """The report in a few lines, for the log."""
    lines = [
        f"{split}: {counts['queries']} queries, {counts['docs']} documents, lists of {counts['list_size']['min']} to "
        f"{counts['list_size']['max']} (mean {counts['list_size']['mean']:g}), "
        f"{counts['blank_queries']} queries without a relevant document"
        for split, counts in described["splits"].items()
    ]
    return [*lines, _features_line(described)]


def _features_line(described: dict[str, Any]) -> str:
    features = described["features"]
    missing = described.get("missing")  # not there in a cache of an earlier version
    line = (
        f"{described['num_features']} features; always 0 in train: {_named(features['empty'])}; "
        f"constant there: {_named(features['constant'])}"
    )
    if missing is None:
        return line
    return f"{line}; missing values, now 0: {missing['values']:,}, in features: {_named(missing['features'])}"


def _named(some: dict[str, Any]) -> str:
    """
    >>> _named({"count": 0, "first": []}), _named({"count": 7, "first": [2, 3, 5, 7, 8, 9, 11]})
    ('none', '7 (nos. 2, 3, 5, 7, 8, ...)')
    """
    if not some["count"]:
        return "none"
    dots = ", ..." if some["count"] > 5 else ""
    return f"{some['count']} (nos. {', '.join(map(str, some['first'][:5]))}{dots})"


def data_table(described: dict[str, Any]) -> Table:
    """The report for the terminal, one column a split."""
    splits = described["splits"]
    table = Table("", title=_features_line(described))
    for split in splits:
        table.add_column(split, justify="right")
    for title, key in (
        ("queries", "queries"),
        ("documents", "docs"),
        ("queries without a relevant document", "blank_queries"),
        ("lists of one document", "one_doc_lists"),
    ):
        table.add_row(title, *(f"{counts[key]:,}" for counts in splits.values()))
    for key in ("min", "median", "mean", "max"):
        table.add_row(f"list size, {key}", *(f"{counts['list_size'][key]:,g}" for counts in splits.values()))
    if all(counts["labels"] for counts in splits.values()):
        grades = sorted({grade for counts in splits.values() for grade in counts["labels"]}, key=float)
        for grade in grades:
            cells = (f"{counts['labels'].get(grade, 0):,}" for counts in splits.values())
            table.add_row(f"documents of label {grade}", *cells)
    else:
        table.add_row("labels", *("{:g} to {:g}".format(*c["label_range"]) for c in splits.values()))
    return table

"""The embedded data: seeded LETOR-like lists on which a tree teacher is worth distilling."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.data.ranking import RankingData

_NUM_FEATURES = 136
# Columns by the marginal that they imitate.
_COUNTS = slice(0, 45)  # term counts: sparse, some columns nearly always 0
_RATIOS = slice(45, 75)  # covered terms, normalised frequencies: in [0, 1]
_SCORES = slice(75, 112)  # BM25, language models: signed reals
_HEAVY = slice(112, 133)  # lengths, links, clicks: heavy-tailed counts
_NUM_VARYING = 133  # the last three columns are 0 everywhere
_QUERY_COLUMNS = range(4, _NUM_VARYING, 9)  # idf, query length: the same for every document of a list

_DOC_LATENTS = 20
_QUERY_LATENTS = 8
_PARENTS = 3  # latents that feed a column: columns are correlated, as in real data
_INFORMATIVE = 20  # columns that a rule may ask about, drawn by seed from the varying ones
_RULES = 30
_RULE_SIZES = (2, 3)  # thresholds in one rule
_LABEL_SHARES = (0.52, 0.32, 0.128, 0.022, 0.01)  # of labels 0-4, as in MSLR-WEB30K
_BLANK_SHARE = 0.03
_REFERENCE_QUERIES = 300
_UNLABELLED_BLOCK = 200  # lists with a stream of their own


@dataclasses.dataclass(frozen=True)
class _Columns:
    """How the features arise from latents."""

    parents: np.ndarray  # int [F, 3]
    weights: np.ndarray  # float [F, 3]
    shifts: np.ndarray  # float [F]: how often a count is above 0


@dataclasses.dataclass(frozen=True)
class _Rules:
    """What makes a document relevant: weights of the conjunctions of thresholds that hold."""

    columns: np.ndarray  # int [rules, 3]
    signs: np.ndarray  # int [rules, 3]: 1 above the threshold, -1 at or below, 0 not asked
    thresholds: np.ndarray  # float [rules, 3]
    weights: np.ndarray  # float [rules]


def make_synthetic(
    *,
    seed: int = 0,
    train_queries: int = 600,
    vali_queries: int = 200,
    test_queries: int = 500,
    label_noise: float = 1.5,
) -> dict[str, RankingData]:
    """LETOR-like {"train", "vali", "test"} with 136 features and labels 0-4 (52/32/12.8/2.2/1 %).

        label = cut(utility(features) + label_noise * sd(utility) * normal)
        utility = sum of the weights of 30 rules such as (x12 > 3 and x40 <= 0.7 and x81 > -2.5)

    Three properties make the teacher worth having, and all three are those of search data:
      - noisy labels: the noise outweighs the utility, so a student that fits labels fits noise, while
        boosting averages it out and hands on a graded score for every document;
      - threshold-like interactions, of document with document and with query columns: natural for trees,
        slow for a small network and out of reach of a linear model. Only 20 columns matter;
      - few judged lists: too few for the network to find the rules in the labels by itself.
    Lists have a log-normal size (mean 80, 10 to 300); about 3 % of them have no relevant document.

    Args:
      seed: chooses columns, rules and documents. Each split has its own stream: its size changes no other
        split, and train and vali tell nothing of the draws of test.
      train_queries, vali_queries, test_queries: number of lists, at least 1.
      label_noise: in standard deviations of the utility, at least 0.

    Returns:
      The splits by name; the same arguments give the same bits.

    Raises:
      ValueError: an argument is out of range.

    >>> data = make_synthetic(train_queries=2, vali_queries=1, test_queries=1)
    >>> data["train"].num_queries, data["train"].num_features
    (2, 136)
    """
    num_queries = {"train": train_queries, "vali": vali_queries, "test": test_queries}
    for name, value in {"seed": seed, "label_noise": label_noise}.items():
        if not value >= 0:
            raise ValueError(f"{name}={value} must be at least 0")
    for split, value in num_queries.items():
        if value < 1:
            raise ValueError(f"{split}_queries={value} must be at least 1")

    # 1. The world that all splits share. Thresholds, scale and label cuts come from lists of no split.
    columns = _draw_columns(_stream(seed, 0))
    rng = _stream(seed, 1)
    reference, _ = _draw_features(rng, columns, _REFERENCE_QUERIES)
    rules = _draw_rules(rng, reference)
    utility = _utility(reference, rules)
    noise_sd = label_noise * utility.std()
    noisy = utility + noise_sd * rng.standard_normal(len(utility))
    cuts = np.quantile(noisy, np.cumsum(_LABEL_SHARES)[:-1])

    # 2. The splits.
    splits = {}
    for number, split in enumerate(num_queries, start=2):
        rng = _stream(seed, number)
        features, offsets = _draw_features(rng, columns, num_queries[split])
        noisy = _utility(features, rules) + noise_sd * rng.standard_normal(len(features))
        labels = np.searchsorted(cuts, noisy).astype(np.float32)
        blank = rng.random(num_queries[split]) < _BLANK_SHARE
        labels[np.repeat(blank, np.diff(offsets))] = 0
        query_ids = np.array([f"{split}-{query}" for query in range(num_queries[split])])
        splits[split] = RankingData(features, labels, offsets, query_ids)
    return splits


def make_unlabelled(*, seed: int = 0, num_queries: int) -> RankingData:
    """Further lists of the embedded data, without labels (-1): the splits stay what they are.

    Args:
      seed: of the data, as in `make_synthetic`.
      num_queries: lists, at least 1; they are the first of any larger number.

    Raises:
      ValueError: num_queries is less than 1.
    """
    if num_queries < 1:
        raise ValueError(f"num_queries={num_queries} must be at least 1")
    columns = _draw_columns(_stream(seed, 0))
    parts = [
        _draw_features(_stream(seed, 5, block), columns, _UNLABELLED_BLOCK)
        for block in range(-(-num_queries // _UNLABELLED_BLOCK))
    ]
    sizes = np.concatenate([np.diff(offsets) for _, offsets in parts])[:num_queries]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    features = np.concatenate([features for features, _ in parts])[: offsets[-1]]
    query_ids = np.array([f"unlabelled-{query}" for query in range(num_queries)])
    return RankingData(features, np.full(len(features), -1, np.float32), offsets, query_ids)


def _stream(seed: int, *number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *number])))


def _draw_columns(rng: np.random.Generator) -> _Columns:
    parents = rng.integers(0, _DOC_LATENTS + _QUERY_LATENTS, (_NUM_FEATURES, _PARENTS))
    query_parents = _DOC_LATENTS + rng.integers(0, _QUERY_LATENTS, (_NUM_FEATURES, _PARENTS))
    parents[_QUERY_COLUMNS] = query_parents[_QUERY_COLUMNS]
    weights = rng.standard_normal(parents.shape) / np.sqrt(_PARENTS)
    return _Columns(parents, weights, shifts=rng.uniform(-1, 1, _NUM_FEATURES))


def _draw_rules(rng: np.random.Generator, reference: np.ndarray) -> _Rules:
    """Rules whose thresholds are quantiles 0.2 to 0.8 of the columns of `reference` [docs, F]."""
    informative = rng.permutation(_NUM_VARYING)[:_INFORMATIVE]
    columns = rng.choice(informative, (_RULES, max(_RULE_SIZES)))
    asked = np.arange(max(_RULE_SIZES)) < rng.choice(_RULE_SIZES, _RULES)[:, None]
    signs = rng.choice([-1, 1], columns.shape) * asked
    levels = rng.uniform(0.2, 0.8, columns.shape)
    thresholds = np.vectorize(lambda column, level: np.quantile(reference[:, column], level))(columns, levels)
    return _Rules(columns, signs, thresholds, weights=rng.standard_normal(_RULES))


def _draw_features(
    rng: np.random.Generator, columns: _Columns, num_queries: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [docs, F] and offsets int64 [queries + 1]."""
    sizes = np.clip(np.round(rng.lognormal(4.2, 0.6, num_queries)), 10, 300).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    list_of_doc = np.repeat(np.arange(num_queries), sizes)
    doc_latents = rng.standard_normal((_DOC_LATENTS, len(list_of_doc)))
    query_latents = rng.standard_normal((_QUERY_LATENTS, num_queries))
    latents = np.concatenate([doc_latents, query_latents[:, list_of_doc]])

    hidden = np.empty((_NUM_FEATURES, len(list_of_doc)))
    for column in range(_NUM_FEATURES):
        own = rng.standard_normal(num_queries)[list_of_doc] if column in _QUERY_COLUMNS else None
        hidden[column] = 0.5 * (rng.standard_normal(len(list_of_doc)) if own is None else own)
        # A sum of products, not a matrix product: its bits depend on the BLAS and its threads.
        for parent, weight in zip(columns.parents[column], columns.weights[column], strict=True):
            hidden[column] += weight * latents[parent]

    features = np.zeros(hidden.shape, np.float32)
    features[_COUNTS] = np.floor(np.maximum(0, 3 * (hidden + columns.shifts[:, None])[_COUNTS]))
    features[_RATIOS] = np.round(1 / (1 + np.exp(-2 * hidden[_RATIOS])), 6)
    features[_SCORES] = np.round(12 * hidden[_SCORES] - 3, 6)
    features[_HEAVY] = np.floor(np.exp(np.clip(2 * hidden[_HEAVY] + 3, 0, 12)))
    return np.ascontiguousarray(features.T), offsets


def _utility(features: np.ndarray, rules: _Rules) -> np.ndarray:
    """float64 [docs]."""
    utility = np.zeros(len(features))
    for columns, signs, thresholds, weight in zip(
        rules.columns, rules.signs, rules.thresholds, rules.weights, strict=True
    ):
        above = features[:, columns] > thresholds
        utility += weight * ((signs == 0) | (above == (signs > 0))).all(axis=1)
    return utility

import dataclasses

import lightgbm
import numpy as np
import pytest

from pipeline.config import LambdaMARTTeacher
from pipeline.data import RankingData
from pipeline.data.synthetic import make_synthetic
from pipeline.errors import UserError
from pipeline.evaluation import compare
from pipeline.metrics import mean_ndcg, ranking_metrics
from pipeline.teacher.lambdamart import LambdaMART, fit_lambdamart
from pipeline.teacher.scores import check_teacher_ranks
from tests.closeness import assert_close

CONFIG = LambdaMARTTeacher(num_trees=60, num_leaves=7, early_stopping=10)


@pytest.fixture(scope="module")
def data():
    return make_synthetic(train_queries=40, vali_queries=20, test_queries=20)


def test_early_stopping_cuts_the_model_at_its_best_tree(tmp_path, data):
    fit_lambdamart(CONFIG, data["train"], data["vali"], tmp_path)
    teacher = LambdaMART(tmp_path)

    def vali_ndcg(trees):
        scores = teacher.members[0].predict(data["vali"].features, num_iteration=trees)
        return mean_ndcg(scores, data["vali"].labels, data["vali"].offsets)["ndcg@10"]

    values = [vali_ndcg(trees) for trees in range(1, teacher.num_trees + 1)]
    assert 1 < teacher.num_trees <= 60
    assert max(values) == pytest.approx(values[-1], abs=1e-12)
    leaves = sum(tree["num_leaves"] for tree in teacher.members[0].dump_model()["tree_info"])
    assert teacher.num_parameters == 2 * leaves - teacher.num_trees
    random = np.random.default_rng(0).normal(size=data["test"].num_docs)
    per_query = [
        ranking_metrics(scores, data["test"].labels, data["test"].offsets)["ndcg@10"]
        for scores in (teacher(data["test"].features), random)
    ]
    assert compare(*per_query)["difference"] > 0.05


def test_the_model_does_not_depend_on_threads(tmp_path, data, monkeypatch):
    texts = []
    for threads in (1, 2):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        folder = tmp_path / str(threads)
        folder.mkdir()
        fit_lambdamart(CONFIG, data["train"], data["vali"], folder)
        texts.append((folder / "member-0.txt").read_text().split("parameters:")[0])
    assert texts[0] == texts[1]


def test_members_are_averaged_and_tell_how_far_they_are(tmp_path, data):
    config = dataclasses.replace(CONFIG, members=3, bagging_fraction=0.8)
    told = []
    fit_lambdamart(config, data["train"], data["vali"], tmp_path, told.append)
    assert told[:2] == [1, 2]
    assert told == sorted(told)
    assert 121 in told  # the first tree of the third member, after twice 60
    assert told[-1] <= 180
    features = data["test"].features
    members = [lightgbm.Booster(model_file=path).predict(features) for path in sorted(tmp_path.glob("*.txt"))]
    assert len(members) == 3
    assert (members[0] != members[1]).any()
    assert_close(LambdaMART(tmp_path)(features), np.mean(members, 0), atol=1e-12)


def test_labels_that_lambdarank_cannot_take_are_refused(tmp_path, data):
    train = dataclasses.replace(data["train"], labels=data["train"].labels + np.float32(0.5))
    with pytest.raises(UserError, match=r"train split: document 1 of query \S+ has the label \d\.5 .*Fix: "):
        fit_lambdamart(CONFIG, train, data["vali"], tmp_path)
    vali = dataclasses.replace(data["vali"], labels=data["vali"].labels + 31)
    with pytest.raises(UserError, match="vali split: document 1"):
        fit_lambdamart(CONFIG, data["train"], vali, tmp_path)


def test_a_query_of_more_than_10000_documents(tmp_path, data):
    """LightGBM's limit holds for training lists only."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(10_061, 3)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.float32)
    large = RankingData(features, labels, np.array([0, 60, 10_061]), np.array(["small", "huge"]))
    small = RankingData(features[:60], labels[:60], np.array([0, 60]), np.array(["small"]))
    config = dataclasses.replace(CONFIG, num_trees=3, min_docs_in_leaf=5)
    with pytest.raises(UserError, match=r"train split: query huge has 10,001 documents.*10,000.*Fix: "):
        fit_lambdamart(config, large, small, tmp_path)
    fit_lambdamart(config, small, large, tmp_path)
    assert LambdaMART(tmp_path).num_trees >= 1


def test_early_stopping_is_not_misled_by_rows_sorted_by_label(tmp_path, data):
    """The first trees tie many documents, so that rows sorted by label would give them a high NDCG."""

    def by_label(lists, sign):
        order = np.lexsort((sign * lists.labels, lists.list_of_doc))
        return dataclasses.replace(lists, features=lists.features[order], labels=lists.labels[order])

    texts = []
    for sign in (-1, 1):
        folder = tmp_path / f"sign{sign}"
        folder.mkdir()
        fit_lambdamart(CONFIG, data["train"], by_label(data["vali"], sign), folder)
        texts.append((folder / "member-0.txt").read_text())
    assert texts[0] == texts[1]


def test_a_model_of_one_leaf_is_an_error(tmp_path, data):
    config = dataclasses.replace(CONFIG, min_docs_in_leaf=1_000_000)
    fit_lambdamart(config, data["train"], data["vali"], tmp_path)
    scores = LambdaMART(tmp_path)(data["train"].features)
    with pytest.raises(UserError, match=r"train split: the teacher ranks nothing.*Fix: .*min_docs_in_leaf"):
        check_teacher_ranks(scores, data["train"].offsets, "train")

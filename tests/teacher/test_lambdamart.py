import dataclasses

import lightgbm
import numpy as np
import pytest

from pipeline.config import LambdaMARTTeacher
from pipeline.data.synthetic import make_synthetic
from pipeline.evaluation import compare
from pipeline.metrics import ranking_metrics
from pipeline.teacher.lambdamart import LambdaMART, fit_lambdamart

CONFIG = LambdaMARTTeacher(num_trees=60, num_leaves=7, early_stopping=10)


@pytest.fixture(scope="module")
def data():
    return make_synthetic(train_queries=40, vali_queries=20, test_queries=20)


def test_early_stopping_cuts_the_model_at_its_best_tree(tmp_path, data):
    fit_lambdamart(CONFIG, data["train"], data["vali"], tmp_path)
    teacher = LambdaMART(tmp_path)

    def vali_ndcg(trees):
        scores = teacher.members[0].predict(data["vali"].features, num_iteration=trees)
        return np.nanmean(ranking_metrics(scores, data["vali"].labels, data["vali"].offsets)["ndcg@10"])

    values = [vali_ndcg(trees) for trees in range(1, teacher.num_trees + 1)]
    assert 1 < teacher.num_trees <= 60
    assert max(values) == pytest.approx(values[-1], abs=1e-6)
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
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
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
    np.testing.assert_allclose(LambdaMART(tmp_path)(features), np.mean(members, 0))


def test_labels_that_lambdarank_cannot_take_are_refused(tmp_path, data):
    train = dataclasses.replace(data["train"], labels=data["train"].labels + np.float32(0.5))
    with pytest.raises(
        ValueError, match=r"whole relevance labels .* document 1 of query \S+ of train has \d\.5 "
    ):
        fit_lambdamart(CONFIG, train, data["vali"], tmp_path)

import numpy as np
import pytest

from pipeline.config import ConfigError, GateConfig
from pipeline.evaluation import compare, judge, result_tables
from tests.test_config import composed


def result(*, student=0.49, teacher=0.5, cost=4.0, wins=(0.1, -0.1, 0.0)):
    """A student, its teacher, and the student's per-query lead over the baseline."""
    ndcg = {"student": student, "teacher": teacher, "baseline": 0.4}
    models = {
        name: {
            "us_per_doc": cost,
            "metrics": {"test": {"ndcg@10": {"skip": value, "zero": value and value / 2}}},
        }
        for name, value in ndcg.items()
    }
    models["teacher"]["metrics"]["test"]["ndcg@10"]["zero"] = teacher
    return {"models": models, "comparisons": [compare(np.array(wins) + 0.5, np.full(len(wins), 0.5))]}


def test_nothing_asked_is_no_gate():
    assert judge(result(), GateConfig()) is None


@pytest.mark.parametrize(
    ("asked", "facts", "passed"),
    [
        ({"min_share_of_teacher": 0.98}, {"student": 0.49, "teacher": 0.5}, True),  # a share of just .98
        ({"min_share_of_teacher": 0.98}, {"student": 0.48, "teacher": 0.5}, False),
        ({"min_share_of_teacher": 0.98}, {"student": None, "teacher": None}, False),  # cannot be told
        ({"max_us_per_doc": 5}, {"cost": 5.0}, True),
        ({"max_us_per_doc": 5}, {"cost": 5.1}, False),
        ({"not_below_baseline": True}, {"wins": (0.1, -0.3, 0.1)}, True),  # below, but not significantly
        ({"not_below_baseline": True}, {"wins": (-0.1, -0.11, -0.12)}, False),
        ({"not_below_baseline": True}, {"wins": (0.3,)}, False),  # one query tells nothing
        ({"not_below_baseline": True, "max_us_per_doc": 1}, {"cost": 2.0}, False),  # one of two is not enough
    ],
)
def test_verdicts(asked, facts, passed):
    gate = judge(result(**facts), GateConfig(**asked))
    assert gate["passed"] is passed
    assert len(gate["checks"]) == len(asked)
    assert gate["passed"] == all(check["passed"] for check in gate["checks"])


def test_the_share_is_of_the_convention_asked_for():
    (check,) = judge(result(), GateConfig(min_share_of_teacher=0.9), no_relevant="zero")["checks"]
    assert check["value"] == pytest.approx(0.49 / 2 / 0.5, abs=1e-9)


def test_the_table_says_pass_or_fail():
    facts = result(cost=7.0)
    for model in facts["models"].values():
        model["metrics"]["test"]["ndcg@10"]["one"] = None
    facts["gate"] = judge(facts, GateConfig(min_share_of_teacher=0.9, max_us_per_doc=5))
    gate = result_tables(facts)[-1]
    assert gate.title == "Gate: FAIL"
    assert gate.rows == [
        ["share of the teacher's NDCG@10", "0.98", ">= 0.9", "PASS"],
        ["us a document", "7", "<= 5", "FAIL"],
    ]


def test_options():
    assert composed("evaluate.gate.max_us_per_doc=5").evaluate.gate == GateConfig(max_us_per_doc=5.0)
    with pytest.raises(ConfigError, match=r"evaluate.gate.max_us_per_doc=0.* is not possible"):
        composed("evaluate.gate.max_us_per_doc=0")
    with pytest.raises(ConfigError, match=r"train\.baseline=true"):
        composed("evaluate.gate.not_below_baseline=true", "train.baseline=false")
    with pytest.raises(ConfigError, match="did you mean not_below_baseline"):
        composed("+evaluate.gate.not_below_base=true")

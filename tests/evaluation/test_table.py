"""The table of a run."""

import io

import pytest
from rich.console import Console

from pipeline.evaluation import result_tables, terminal_table
from pipeline.tables import to_markdown


def model(at_1, at_10, **facts):
    values = {"ndcg@1": at_1, "ndcg@10": at_10}
    test = {m: {"zero": v - 0.1, "skip": v, "one": v + 0.1} for m, v in values.items()}
    return {**facts, "metrics": {"test": {**test, "map": 0.5}}}


RESULT = {
    "run": {"clock": "CPU"},
    "data": {"splits": {"test": {"queries": 1200, "docs": 9000, "blank_queries": 36}}},
    "models": {
        "student": model(0.45, 0.555, parameters=10913, us_per_doc=0.1234, us_per_doc_list120=1.5),
        "[bold]": model(0.1, 0.2, parameters=None, us_per_doc=None),
        "teacher": model(0.5, 0.61234, parameters=123456, us_per_doc=12.34, us_per_doc_list120=20.0),
        "baseline": model(0.4, 0.5, parameters=10913, us_per_doc=0.1234, us_per_doc_list120=1.5),
    },
    "comparisons": [
        {
            "a": "student",
            "b": "baseline",
            "metric": "ndcg@10",
            "difference": 0.0551,
            "ci95": [0.0104, 0.1],
            "p": 0.0123,
            "win": 70,
            "tie": 20,
            "loss": 40,
        },
        {
            "a": "student",
            "b": "teacher",
            "metric": "ndcg@10",
            "difference": -0.1,
            "ci95": [-0.2, -0.05],
            "p": 1e-9,
            "win": 1,
            "tie": 2,
            "loss": 3,
        },
        {
            "a": "a|b",
            "b": "c",
            "metric": "map",
            "difference": None,
            "ci95": None,
            "p": None,
            "win": 0,
            "tie": 0,
            "loss": 0,
        },
    ],
}

MARKDOWN = r"""test: NDCG convention 'skip' (queries without a relevant document are left out); full lists, ties: index; 1,200 queries, 36 of them without one

| model | NDCG@1 | NDCG@10 | parameters | CPU us/doc | same, list of 120 |
| :-- | --: | --: | --: | --: | --: |
| teacher | 0.5000 | 0.6123 | 123,456 | 12.3 | 20 |
| baseline | 0.4000 | 0.5000 | 10,913 | 0.123 | 1.5 |
| student | 0.4500 | 0.5550 | 10,913 | 0.123 | 1.5 |
| \[bold\] | 0.1000 | 0.2000 | - | - | - |

Paired t-test over the queries with a relevant document

| comparison | metric | diff | 95 % CI | p | win/tie/loss |
| :-- | :-- | --: | --: | --: | --: |
| student - baseline | NDCG@10 | +0.0551 | +0.0104 to +0.1000 | 0.0123 | 70/20/40 |
| student - teacher | NDCG@10 | -0.1000 | -0.2000 to -0.0500 | &lt;0.0001 | 1/2/3 |
| a\|b - c | MAP | - | - | - | 0/0/0 |
"""  # noqa: E501


def markdown_table(result, **options):
    return "".join(f"{to_markdown(table)}\n\n" for table in result_tables(result, **options)).removesuffix(
        "\n"
    )


def test_markdown():
    assert markdown_table(RESULT) == MARKDOWN


def test_the_terminal_shows_the_same_cells():
    file = io.StringIO()
    Console(file=file, width=80).print(terminal_table(RESULT))
    shown = " ".join(file.getvalue().split())
    for table in result_tables(RESULT):
        for cell in [table.title, *table.header, *(cell for row in table.rows for cell in row)]:
            assert cell in shown


@pytest.mark.parametrize(("no_relevant", "value"), [("zero", "0.5123"), ("one", "0.7123")])
def test_the_convention_is_named_and_its_values_are_shown(no_relevant, value):
    text = markdown_table(RESULT, no_relevant=no_relevant, ties="pessimistic")
    assert f"convention '{no_relevant}'" in text
    assert "ties: pessimistic" in text
    assert f"| {value} |" in text
    with pytest.raises(ValueError, match="no_relevant='half'"):
        markdown_table(RESULT, no_relevant="half")


def test_what_a_run_did_not_make_is_left_out():
    teacher = {"parameters": 3, "metrics": {"vali": {"ndcg@5": {"skip": None}}}}
    assert markdown_table({"models": {"teacher": teacher}}, split="vali") == (
        "vali: NDCG convention 'skip' (queries without a relevant document are left out); "
        "full lists, ties: index\n\n"
        "| model | NDCG@5 | parameters |\n| :-- | --: | --: |\n| teacher | - | 3 |\n"
    )

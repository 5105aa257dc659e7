"""make_loss: losses by name, options checked before the first step."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import pipeline.losses
from pipeline.losses import coupled_rankdistil, make_loss, registry

TEACHER, STUDENT = np.array([[2.0, 0.0, 1.0]]), np.array([[0.0, 1.0, 3.0]])
LOSSES = registry.DISTILLATION | registry.LABEL


def test_make_loss_sets_the_options() -> None:
    loss = make_loss("coupled_rankdistil", topk=2, estimator="exact", temperature=2.0)
    expected = coupled_rankdistil(TEACHER, STUDENT, topk=2, estimator="exact", temperature=2.0)
    np.testing.assert_array_equal(loss(TEACHER, STUDENT), expected)
    assert loss(TEACHER, STUDENT, seed=(1, 2), list_ids=[3], reduce=None).shape == (1,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("coupled_rankdistill", {}, "did you mean coupled_rankdistil.* available: .*softmax"),
        ("nothing", {}, "'nothing' is unknown: .*available: "),
        ("coupled_rankdistil", {"top_k": 3}, "top_k=3: did you mean topk.* available: .*sample_size"),
        ("coupled_rankdistil", {"seed": (1, 2)}, r"takes no option seed=\(1, 2\)"),
        (
            "coupled_rankdistil",
            {"topk": "ten"},
            r"topk='ten': .* Fix: an integer >= 1, or None \(null in a config\) for all",
        ),
        ("coupled_rankdistil", {"topk": True}, "topk=True"),
        ("coupled_rankdistil", {"temperature": -1.0}, "temperature=-1.0"),
        ("coupled_rankdistil", {"temperature": "hot"}, "temperature='hot'"),
        (
            "coupled_rankdistil",
            {"estimator": "gumbel"},
            "estimator='gumbel': .* Fix: one of rao_blackwell, plackett, exact, tfr",
        ),
        ("binary_rankdistil", {"negatives": "soft"}, "negatives='soft'.* one of uniform, hard"),
        ("pairwise_rankdistil", {"topk": None}, "topk=None: .* Fix: an integer >= 1$"),
        ("ranking_distillation", {"decay": 0.0}, "decay=0.0"),
        ("listnet", {"divergence": "js"}, "divergence='js'.* one of cross_entropy, kl"),
        ("mse", {"temperature": 2.0}, "mse takes no option temperature=2.0: available: none"),
        ("lambda_loss", {"lambdarank": 2.0}, "lambdarank=2.0 is not possible: 0 <= a <= 1"),
        ("softmax", {"gain": "linear"}, "gain='linear'.* one of label, exponential"),
    ],
)
def test_what_make_loss_refuses(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_loss(name, **options)


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option) for name, loss in LOSSES.items() for option in registry.options_of(loss)],
)
@pytest.mark.parametrize("value", ["no such choice", -1, 0.5, None, True, [1], 1e39, 1e-46, 2**70, 10**400])
def test_what_make_loss_accepts_works_on_lists(name: str, option: str, value: object) -> None:
    """make_loss tries the options without lists: no loss may refuse one later."""
    try:
        loss = make_loss(name, **{option: value})
    except ValueError:
        with pytest.raises((TypeError, ValueError)):
            LOSSES[name](TEACHER, STUDENT, **{option: value})
    else:
        assert value != "no such choice"
        assert np.isfinite(loss(TEACHER, STUDENT))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_the_same_form(name: str) -> None:
    parameters = list(inspect.signature((registry.DISTILLATION | registry.LABEL)[name]).parameters.values())
    assert [p.name for p in parameters[1:3]] == ["student", "mask"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[3:])
    assert [p.name for p in parameters[-3:]] == ["seed", "list_ids", "reduce"]
    assert parameters[2].default is None


@pytest.mark.parametrize("module", [name for _, name, _ in pkgutil.iter_modules(pipeline.losses.__path__)])
def test_examples_in_docstrings(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"pipeline.losses.{module}")).failed == 0

"""Losses by name, with their options checked before the first step."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from pipeline.errors import UserError
from pipeline.losses import distillation, labels, negatives, rankdistil, tfr_labels
from pipeline.losses.lists import NotLists

# fn(target, student, mask=None, *, <own options>, seed=(0, 0), list_ids=None, reduce="mean") -> scalar or [lists].
# It checks its options before its arguments.
Loss = Callable[..., Any]

# target: the teacher's scores
DISTILLATION: dict[str, Loss] = {
    "coupled_rankdistil": rankdistil.coupled_rankdistil,
    "binary_rankdistil": negatives.binary_rankdistil,
    "pairwise_rankdistil": negatives.pairwise_rankdistil,
    "ranking_distillation": distillation.ranking_distillation,
    "relaxed_ranking_distillation": negatives.relaxed_ranking_distillation,
    "pld": distillation.pld,
    "listnet": distillation.listnet,
    "mse": distillation.mse,
    "margin_mse": distillation.margin_mse,
}
# target: relevance labels >= 0
LABEL: dict[str, Loss] = {
    "softmax": labels.softmax,
    "list_mle": labels.list_mle,
    "pairwise_logistic": labels.pairwise_logistic,
    "lambda_loss": labels.lambda_loss,
    "approx_ndcg": labels.approx_ndcg,
    **{f"tfr_{key}": functools.partial(tfr_labels.tfr_loss, key) for key in tfr_labels.KEYS},
}

_checked: set[tuple[Loss, str]] = set()  # losses and their options, as they are written
_CALL_ARGUMENTS = ("seed", "list_ids", "reduce")  # given at each call, not options


def options_of(loss: Loss) -> dict[str, Any]:
    """The options that a loss takes, with their defaults."""
    parameters = inspect.signature(loss).parameters.values()
    return {
        p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _CALL_ARGUMENTS
    }


def make_loss(name: str, **options: Any) -> Loss:
    """The loss `name` with its options set.

    >>> loss = make_loss("coupled_rankdistil", topk=2, estimator="exact")
    >>> round(float(loss([[2.0, 1.0, 0.0]], [[2.0, 1.0, 0.0]])), 4)
    1.3615

    Raises:
      ValueError: no such loss; an option that it does not take, or a value that the option cannot have.
    """
    losses = DISTILLATION | LABEL
    if name not in losses:
        raise ValueError(f"loss {name!r} is unknown: {_nearest(name, losses)}")
    loss = losses[name]
    allowed = options_of(loss)
    for key, value in options.items():
        if key not in allowed:
            raise ValueError(f"{name} takes no option {key}={value!r}: {_nearest(key, allowed)}")
    made = functools.partial(loss, **options)
    given = ", ".join(f"{key}={value!r}" for key, value in options.items())
    if (loss, given) not in _checked:
        try:
            made(0.0, 0.0)  # a loss checks its options when it is called, and then its arguments: call it now
        except NotLists:
            pass
        except UserError:
            raise
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} does not work with {given}: {error}") from error
        _checked.add((loss, given))
    return made


def _nearest(word: str, allowed: Iterable[str]) -> str:
    names = sorted(allowed)
    close = difflib.get_close_matches(word, names, n=3)
    return (
        f"did you mean {' or '.join(close)}? " if close else ""
    ) + f"available: {', '.join(names) or 'none'}"

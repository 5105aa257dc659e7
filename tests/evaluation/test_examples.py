"""The examples of the docstrings."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["agreement", "compare"])
def test_the_examples_of_the_docstrings(module):
    failed, attempted = doctest.testmod(importlib.import_module(f"pipeline.evaluation.{module}"))
    assert attempted > 0
    assert failed == 0

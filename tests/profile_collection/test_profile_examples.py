"""The examples in the docstrings are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module", ["prompt", "commands.arguments", "engine", "outcome", "preflight", "typed"]
)
def test_examples(module):
    result = doctest.testmod(importlib.import_module(f"mistral_txm.profile_collection.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

"""The examples in the docstrings of what draws pages and judges volumes are right."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["figures", "live_files", "monitor", "truth"])
def test_examples(module):
    result = doctest.testmod(importlib.import_module(f"mistral_txm.services.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

"""The examples in the docstrings are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["address", "configuration", "strict_toml"])
def test_examples(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"mistral_txm.devices.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

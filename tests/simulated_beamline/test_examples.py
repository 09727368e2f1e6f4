"""The examples in the docstrings are right."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    ["cooler", "file_names", "file_plugin", "readout", "materials", "optics", "sample", "source"],
)
def test_examples(module):
    result = doctest.testmod(importlib.import_module(f"mistral_txm.simulated_beamline.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

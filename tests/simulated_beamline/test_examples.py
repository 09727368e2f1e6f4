"""The examples in the docstrings are right."""

import doctest
import importlib

import pytest

MODULES = ["clock", "faults", "light", "region", "settings", "state"]


@pytest.mark.parametrize("module", [*MODULES, "area_detector", "materials", "sample", "source"])
def test_examples(module):
    result = doctest.testmod(importlib.import_module(f"mistral_txm.simulated_beamline.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

"""The examples in the docstrings are right."""

import doctest
import importlib
from pathlib import Path

import pytest

from mistral_txm import simulated_beamline

MODULES = sorted(
    path.stem
    for path in Path(simulated_beamline.__file__).parent.glob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    result = doctest.testmod(importlib.import_module(f"mistral_txm.simulated_beamline.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_there_are_examples():
    assert {"clock", "faults", "optics", "source", "state"} <= set(MODULES)

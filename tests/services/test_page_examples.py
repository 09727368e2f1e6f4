"""The examples in the docstrings of what draws pages, judges volumes, and tells what there is, are right."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "catalog_frames",
        "catalog_search",
        "drawing",
        "live_failures",
        "live_files",
        "monitor_curves",
        "monitor_door",
        "monitor_words",
        "notifier",
        "runs",
        "standing",
        "truth",
        "truth_comparison",
    ],
)
def test_examples(module):
    result = doctest.testmod(importlib.import_module(f"mistral_txm.services.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

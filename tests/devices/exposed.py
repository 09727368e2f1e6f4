"""Exposures of a camera, and what comes of them."""

from typing import Any

import pytest


def values(ccd: Any) -> dict[str, Any]:
    return {name: reading["value"] for name, reading in ccd.read().items()}


def values_after(ccd: Any) -> dict[str, Any]:
    """Expose, and take what came of it, as a plan does."""
    ccd.trigger().wait(120)
    list(ccd.collect_asset_docs())
    return values(ccd)


def refusal(ccd: Any, kind: type[Exception]) -> str:
    """Expose, and return the one line that says why there is no frame."""
    with pytest.raises(kind) as caught:
        ccd.trigger().wait(120)
    assert list(ccd.collect_asset_docs()) == []
    line = str(caught.value)
    assert line.startswith("ccd: ")
    assert "\n" not in line
    return line

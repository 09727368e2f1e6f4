"""The file in which the live reconstruction leaves its advice on a series, and how it is read."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ADVICE = "advice.json"
"""Name of the file, which is replaced as a whole, in the folder of each series."""
OLDEST_S = 120.0
"""Advice that is older says nothing: whoever gave it is gone, or far behind."""
MOST_BYTES = 1_000_000
"""A larger file is not what it should be, and is not read."""


class Advised(NamedTuple):
    """What is advised, when, and of what: the newest exposure that the flags know of, both s since 1970.

    A line for each flag, whether the wanted resolution is reached (0 or 1), and which it is, nm.
    """

    flags: str = ""
    reached: int = 0
    resolution_nm: float = math.nan
    updated_at: float = math.nan
    judged_until: float = math.nan


def read_advice(path: Path) -> Advised:
    """Return what is advised; nothing from a file that is missing, old or damaged."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return Advised()
        advice = json.loads(path.read_bytes())
        updated_at = float(advice["updated_at"])
        if not abs(time.time() - updated_at) <= OLDEST_S:
            return Advised()
        resolution_nm, judged_until = advice["resolution_nm"], advice["judged_until"]
        return Advised(
            "\n".join(_line(flag) for flag in advice["flags"]),
            int(advice["reached"] is True),
            math.nan if resolution_nm is None else float(resolution_nm),
            updated_at,
            math.nan if judged_until is None else float(judged_until),
        )
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        OverflowError,
    ):
        return Advised()


def _line(flag: Mapping[str, Any]) -> str:
    """Return the text of a flag as one line."""
    return " ".join(str(flag["text"]).split())

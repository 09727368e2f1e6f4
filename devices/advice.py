"""What the live reconstruction advises while a series is measured, read from the disk: it may be there or not."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ophyd import Component, Device, Signal
from ophyd.status import DeviceStatus

ADVICE = "advice.json"
"""The file that the live reconstruction replaces in the folder of each series."""
OLDEST_S = 120.0
"""Advice that is older says nothing: whoever gave it is gone, or far behind."""
MOST_BYTES = 1_000_000
"""A larger file is not what it should be, and is not read."""


class Advice(Device):  # type: ignore[misc]  # ophyd is untyped
    """Set to the uid of a series, it reads what is advised for it; without good, new advice it says nothing.

    It never fails and never waits: a file that is missing, old or damaged is no advice. `flags` is one line for each
    flag, each with its view, `reached` 1 where the wanted resolution is there.

    Parameters
    ----------
    live_directory
        Folder of the live reconstruction, in which each series has its own.
    """

    flags = Component(Signal, value="", kind="omitted")
    reached = Component(Signal, value=0, kind="omitted")
    resolution_nm = Component(Signal, value=math.nan, kind="omitted")

    def __init__(self, *, name: str, live_directory: Path) -> None:
        super().__init__(name=name)
        self._directory = live_directory

    def set(self, series: str, **_: Any) -> DeviceStatus:
        """Read what is advised for a series now."""
        lines, reached, resolution_nm = _read(self._directory / series / ADVICE)
        self.flags.put(lines)
        self.reached.put(reached)
        self.resolution_nm.put(resolution_nm)
        status = DeviceStatus(self)
        status.set_finished()
        return status


def _read(path: Path) -> tuple[str, int, float]:
    """Return the flags' lines, whether the resolution is reached, and which it is."""
    nothing = "", 0, math.nan
    try:
        if path.stat().st_size > MOST_BYTES:
            return nothing
        advice = json.loads(path.read_bytes())
        if not abs(time.time() - float(advice["updated_at"])) <= OLDEST_S:
            return nothing
        lines = "\n".join(_line(flag) for flag in advice["flags"])
        resolution_nm = advice["resolution_nm"]
        return (
            lines,
            int(advice["reached"] is True),
            math.nan if resolution_nm is None else float(resolution_nm),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return nothing


def _line(flag: Mapping[str, Any]) -> str:
    """Return the text of a flag as one line."""
    return " ".join(str(flag["text"]).split())

"""What the live reconstruction advises while a series is measured, read from the disk: it may be there or not."""

import math
from pathlib import Path
from typing import Any

from ophyd import Component, Device, Signal
from ophyd.status import DeviceStatus

from mistral_txm.devices.advice_file import ADVICE, read_advice


class Advice(Device):  # type: ignore[misc]  # ophyd is untyped
    """Set to the uid of a series, it reads what is advised for it; without good, new advice it says nothing.

    It never fails and never waits: a file that is missing, old or damaged is no advice. `flags` is one line for each
    flag, each with its view, `reached` 1 where the wanted resolution is there, `updated_at` when it was advised and
    `judged_until` when the newest exposure was taken that the flags know of, in seconds since 1970.

    Parameters
    ----------
    live_directory
        Folder of the live reconstruction, in which each series has its own.
    """

    flags = Component(Signal, value="", kind="omitted")
    reached = Component(Signal, value=0, kind="omitted")
    resolution_nm = Component(Signal, value=math.nan, kind="omitted")
    updated_at = Component(Signal, value=math.nan, kind="omitted")
    judged_until = Component(Signal, value=math.nan, kind="omitted")

    def __init__(self, *, name: str, live_directory: Path) -> None:
        super().__init__(name=name)
        self._directory = live_directory

    def set(self, series: str, **_: Any) -> DeviceStatus:
        """Read what is advised for a series now."""
        advised = read_advice(self._directory / series / ADVICE)
        for field, value in advised._asdict().items():
            getattr(self, field).put(value)
        status = DeviceStatus(self)
        status.set_finished()
        return status

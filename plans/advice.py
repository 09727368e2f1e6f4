"""What a plan does with the advice of the live reconstruction: flags are told or pause it, enough is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from mistral_txm.plans.exposing import ask_for_help, note
from mistral_txm.plans.measurement import Measurement

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument


class Heeding:
    """Reads the advice on one series between its angles, and tells every flag once.

    What is flagged already when it looks first was told by an earlier run. A resolution that is reached already then
    is that of the azimuth before, or whoever resumes the series wants more: it counts once it was not reached.
    """

    def __init__(self, instrument: Instrument, measurement: Measurement, series: str) -> None:
        self._instrument = instrument
        self._measurement = measurement
        self._series = series
        self._told: set[str] | None = None
        self._was_open = False

    def look(self) -> MsgGenerator[str]:
        """Read the advice; note new flags, or pause for them; return why the azimuth is over, if it is.

        Without advice nothing happens, and it takes no time.
        """
        advice = self._instrument.advice
        yield from bps.checkpoint()
        yield from bps.mv(advice, self._series)
        lines = (yield from bps.rd(advice.flags, default_value="")).splitlines()
        fresh = [] if self._told is None else [line for line in lines if line not in self._told]
        self._told = {*lines, *(self._told or ())}
        pauses = self._measurement.quality == "pause"
        for number, line in enumerate(fresh, start=1):
            if pauses and number == len(fresh):
                yield from ask_for_help(self._instrument, line)
            else:
                yield from note(self._instrument, "flag", line)
        stop = self._measurement.stop
        if stop is None or stop.resolution_nm is None:
            return ""
        reached = yield from bps.rd(advice.reached, default_value=0)
        self._was_open = self._was_open or not reached
        if not (reached and self._was_open):
            return ""
        resolution_nm = yield from bps.rd(advice.resolution_nm, default_value=float("nan"))
        return f"its resolution is {resolution_nm:.0f} nm, wanted were {stop.resolution_nm:g} nm"

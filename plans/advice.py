"""What a plan does with the advice of the live reconstruction: flags are told or pause it, enough is enough."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from mistral_txm.plans.exposing import ask_for_help, note
from mistral_txm.plans.measurement import Measurement

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument


PATIENCE = 0.25
"""How long advice on the last exposures is waited for, as a part of the time from the begin of their tilt."""
POLL_S = 0.1
"""Time between two looks whether it has come, s."""


class Heeding:
    """Reads the advice on one series between its angles and after the last, and tells every flag once.

    A resolution that is reached already when it looks first is that of the azimuth before, or whoever resumes the
    series wants more: it counts once it was not reached.

    Parameters
    ----------
    told
        By series, the flags that need not be told, shared by all azimuths of a measurement.
    begun
        Whether exposures of the series were taken before this measurement. The flags of the first advice are known
        then: an earlier session told them. That advice may come late, a new live reconstruction reads all views first.
    """

    def __init__(
        self,
        instrument: Instrument,
        measurement: Measurement,
        series: str,
        told: dict[str, set[str]],
        *,
        begun: bool,
    ) -> None:
        self._instrument = instrument
        self._measurement = measurement
        self._series = series
        self._told = told
        self._was_open = not begun and series not in told
        if not begun:
            told.setdefault(series, set())
        self._began_s = self._took_s = 0.0
        self._exposed_at = math.nan

    def look(self) -> MsgGenerator[str]:
        """Read the advice before a tilt; note new flags, or pause for them; return why the azimuth is over, if it is.

        Without advice nothing happens, and it takes no time.
        """
        self._began_s = time.monotonic()
        advice = self._instrument.advice
        if not (yield from self._read()):
            return ""
        yield from self._tell(pauses=self._measurement.quality == "pause")
        stop = self._measurement.stop
        if stop is None or stop.resolution_nm is None:
            return ""
        reached = yield from bps.rd(advice.reached, default_value=0)
        self._was_open = self._was_open or not reached
        if not (reached and self._was_open):
            return ""
        resolution_nm = yield from bps.rd(advice.resolution_nm, default_value=float("nan"))
        return f"its resolution is {resolution_nm:.0f} nm, wanted were {stop.resolution_nm:g} nm"

    def exposing(self, exposures: MsgGenerator[None]) -> MsgGenerator[None]:
        """Take exposures of the sample, the last of which `look_back` waits for."""
        begin = time.time()
        yield from exposures
        self._exposed_at = begin
        self._took_s = time.monotonic() - self._began_s

    def look_back(self, *, more: bool) -> MsgGenerator[None]:
        """Tell of the last exposures too; advice that is there, but does not know them, is waited for a little.

        Where no tilt comes after them, which `more` says, nothing pauses.
        """
        until_s = time.monotonic() + PATIENCE * self._took_s
        while (yield from self._read()):
            judged_until = yield from bps.rd(
                self._instrument.advice.judged_until, default_value=math.nan
            )
            if judged_until >= self._exposed_at or time.monotonic() >= until_s:
                yield from self._tell(pauses=more and self._measurement.quality == "pause")
                return
            yield from bps.sleep(POLL_S)

    def _read(self) -> MsgGenerator[bool]:
        """Read the advice; return whether there is any."""
        advice = self._instrument.advice
        yield from bps.checkpoint()
        yield from bps.mv(advice, self._series)
        updated_at = yield from bps.rd(advice.updated_at, default_value=math.nan)
        return not math.isnan(updated_at)

    def _tell(self, *, pauses: bool) -> MsgGenerator[None]:
        advice = self._instrument.advice
        lines = (yield from bps.rd(advice.flags, default_value="")).splitlines()
        told = self._told.setdefault(self._series, set(lines))
        fresh = [line for line in lines if line not in told]
        told.update(fresh)
        for number, line in enumerate(fresh, start=1):
            if pauses and number == len(fresh):
                yield from ask_for_help(self._instrument, line)
            else:
                yield from note(self._instrument, "flag", line)

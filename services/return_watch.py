"""Compares the returns to zero tilt of a series with its own views, as both come."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mistral_txm.services.angle_signals import AngleSignals, needed_for_volume
from mistral_txm.services.live_failures import Failures
from mistral_txm.services.live_flags import Flag
from mistral_txm.services.live_returns import entry
from mistral_txm.services.live_views import SeenView
from mistral_txm.services.processing import Processor
from mistral_txm.services.series_exposures import Angle, SeriesExposures

RETRY_S = 5.0
"""Time after which a comparison that failed is tried again, s."""

Place = tuple[float, float]


@dataclass(frozen=True)
class _Compared:
    """What came of a comparison: an entry of the status, or nothing."""

    own: Angle
    back: Angle
    entry: dict[str, Any] | None
    at_s: float


class ReturnWatch:
    """Looks at each return to zero tilt once, and again where it, or the view of the series, is another one.

    Parameters
    ----------
    exposures
        Those of the series.
    processor
        That makes the signals of its angles.
    pixel_nm
        Pixel on the sample.
    """

    def __init__(self, exposures: SeriesExposures, processor: Processor, pixel_nm: float) -> None:
        self._exposures = exposures
        self._processor = processor
        self._pixel_nm = pixel_nm
        self._failures = Failures()
        self._known: dict[Place, _Compared] = {}

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What is published of the returns, as JSON, the first taken first."""
        told = [one.entry for one in self._known.values() if one.entry is not None]
        return sorted(told, key=lambda one: float(one["time"]))

    def flags(self) -> list[Flag]:
        """Return a flag for each azimuth at whose end the sample was not what it had been."""
        return [
            Flag("sample", one.own.phi_deg, one.own.theta_deg, str(one.entry["text"]))
            for one in self._known.values()
            if one.entry is not None and one.entry["changed"]
        ]

    def look(self, seen: Mapping[Place, SeenView]) -> None:
        """Compare the finished returns with the views that are there; of others nothing is told any more."""
        finished = self._exposures.returns()
        self._known = {
            place: one for place, one in self._known.items() if place in finished and place in seen
        }
        for place, back in finished.items():
            own = seen.get(place)
            known = self._known.get(place)
            if own is None or (known is not None and _is_same(known, own.angle, back)):
                continue
            if own.time > _end(back):  # taken again since: it says nothing of what was before
                continue
            told = None
            try:
                used, made = self._exposures.read(back, self._signals)
                told = entry(own.signals, made, place[1], _end(used), self._pixel_nm)
            except Exception as problem:  # whatever it is, no volume fails because of it
                self._failures.tell(place, problem, f"return to theta {place[1]:g} deg: ")
            else:
                self._failures.over(place)
            self._known[place] = _Compared(own.angle, back, told, time.monotonic())

    def _signals(self, back: Angle) -> AngleSignals:
        return needed_for_volume(self._processor.signals(back), self._pixel_nm)


def _end(back: Angle) -> float:
    """When the last exposure of a return ended, s since 1970-01-01 UTC."""
    return max(one.time for of_it in back.exposures.values() for one in of_it)


def _is_same(known: _Compared, own: Angle, back: Angle) -> bool:
    failed = known.entry is None and time.monotonic() - known.at_s >= RETRY_S
    return (known.own, known.back) == (own, back) and not failed

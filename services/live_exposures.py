"""What the live reconstruction tells of single exposures, while their angle is still being taken."""

from collections import deque
from contextlib import suppress
from typing import Any

from mistral_txm.services.exposures import Exposure
from mistral_txm.services.processing import Processor
from mistral_txm.services.series_exposures import Angle

KEPT = 60
"""So many exposures are told of, the newest."""
COMPARED = 4
"""Of a backlog, so many are compared with the one before: the volume waits meanwhile."""

_SAID_LATER = suppress(Exception)
"""Whatever cannot be used is told when its angle is finished, if it is so then."""


class ExposureWatch:
    """Looks at each exposure of the sample as it comes, and averages a helicity while the other is exposed.

    Parameters
    ----------
    processor
        That will make the signals of the angle.
    """

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._told: deque[tuple[Exposure, dict[str, Any]]] = deque(maxlen=KEPT)
        self._of_angle: frozenset[Exposure] = frozenset()
        self._prepared: tuple[Exposure, ...] = ()

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What is published of the exposures, as JSON, the first taken first."""
        return [entry for _, entry in self._told]

    def look(self, angle: Angle) -> None:
        """Look at the exposures of an angle that have come since."""
        every = [one for repeats in angle.exposures.values() for one in repeats]
        known = self._of_angle.union(one for one, _ in self._told)
        fresh = sorted((one for one in every if one not in known), key=lambda one: one.time)
        for number, exposure in enumerate(fresh):
            compared = number >= len(fresh) - COMPARED
            self._told.append((exposure, self._entry(angle, exposure, compared=compared)))
        self._of_angle = frozenset(every)  # there may be more of them than are told of

    def prepare(self, angle: Angle) -> None:
        """Average the helicity that is not being exposed any more, if there is one."""
        newest = max(
            (repeats[-1] for repeats in angle.exposures.values()), key=lambda one: one.time
        )
        for helicity, repeats in angle.exposures.items():
            if helicity != newest.key.helicity and repeats != self._prepared:
                self._prepared = repeats
                with _SAID_LATER:
                    self._processor.prepare(angle, helicity)

    def _entry(self, angle: Angle, exposure: Exposure, *, compared: bool) -> dict[str, Any]:
        key = exposure.key
        repeats = angle.exposures[key.helicity]
        place = repeats.index(exposure)
        told: dict[str, Any] = dict.fromkeys(("mean_counts", "saturated_pixels", "drift_vu_pixels"))
        with _SAID_LATER:
            frame_vu = exposure.read()
            told["mean_counts"] = round(float(frame_vu.mean()) - _dark_counts(angle, exposure), 1)
            told["saturated_pixels"] = round(exposure.saturated_fraction * frame_vu.size)
            if compared and place:
                drift_vu = self._processor.drift_vu(angle, repeats[place - 1], exposure)
                if drift_vu is not None:
                    told["drift_vu_pixels"] = [round(part, 3) for part in drift_vu]
        return {
            "phi_deg": key.phi_deg,
            "theta_deg": key.theta_deg,
            "helicity": key.helicity,
            "repeat": key.repeat + 1,
            "time": exposure.time,
            **told,
        }


def _dark_counts(angle: Angle, exposure: Exposure) -> float:
    """Return the mean counts of the darks whose exposure time comes nearest; 0 where they are not known."""
    levels: dict[float, list[float]] = {}
    for one in angle.darks:
        if one.mean_counts is not None:
            levels.setdefault(one.exposure_s, []).append(one.mean_counts)
    if not levels:
        return 0.0
    nearest_s = min(levels, key=lambda time_s: abs(time_s - exposure.exposure_s))
    return sum(levels[nearest_s]) / len(levels[nearest_s])

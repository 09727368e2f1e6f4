"""From the exposures of an angle to its signals: the same for the live reconstruction and for `mistral-txm process`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.flat_field import FlatField, field_at, flat_field, walk
from mistral_txm.reconstruction.frames import (
    Dark,
    Rate,
    dark_at,
    dark_level,
    measure_noise,
    stack_of,
)
from mistral_txm.reconstruction.repeats import BadRepeat, Findings, average
from mistral_txm.reconstruction.signal import absorbance, helicity_signals
from mistral_txm.services.angle_signals import AngleSignals, ProcessingError, with_marks
from mistral_txm.services.exposures import Exposure
from mistral_txm.services.series_exposures import Angle

NO_LIGHT_STD = 0.5
"""Standard deviation of the signal from which on a pixel says nothing: its light is as weak as its noise."""
HELICITIES_KEPT = 2
"""Averages of a helicity that are kept: those of the angle that is being exposed."""
GROUPS_KEPT = 8
"""Groups of flats of which the average is kept: those of both helicities before and after an angle, twice."""


_Frames = tuple[tuple[Exposure, ...], tuple[Exposure, ...], tuple[Exposure, ...]]
"""Exposures of one helicity, their flats and darks."""


@dataclass(frozen=True)
class _Flats:
    """A group of flats: the open beam, and the gain."""

    field: FlatField
    gain: float


class Processor:
    """Makes signals of angles; keeps what the angles of a run share (darks, flats) once computed.

    Parameters
    ----------
    saturation_counts
        Counts at and above which a pixel is saturated.
    pixel_nm
        Pixel on the sample, nm.
    """

    def __init__(self, saturation_counts: float, pixel_nm: float) -> None:
        self._saturation_counts = saturation_counts
        self._pixel_nm = pixel_nm
        self._darks: dict[tuple[Exposure, ...], Dark] = {}
        self._flats: dict[tuple[Exposure, ...], _Flats] = {}
        self._walks: dict[tuple[float, float], NDArray[np.float64] | None] = {}
        self._averages: dict[_Frames, tuple[Rate, Rate, Findings]] = {}

    def signals(self, angle: Angle) -> AngleSignals:
        """Correct, average, take the logarithm and pair the helicities of one angle, and see what marks it.

        Raises
        ------
        ProcessingError
            If a helicity, its flats, or darks are missing, the jaws stood elsewhere, or the frames do not fit together
            or show no light.
        FrameError
            If a frame cannot be read or is damaged.
        """
        where = _where(angle)
        try:
            made = self._signals(angle, where)
        except ProcessingError:
            raise
        except ValueError as error:
            raise ProcessingError(f"{where}: {error}") from error
        if not np.median(made.signals.std_vu) < NO_LIGHT_STD:
            raise ProcessingError(
                f"{where}: half of the pixels have no light in one helicity or both; was the shutter open? "
                "expose it again"
            )
        return with_marks(made, self._pixel_nm)

    def prepare(self, angle: Angle, helicity: int) -> None:
        """Average what there is of one helicity; `signals` finds it done if no more of it comes.

        Raises
        ------
        ProcessingError, FrameError
            As `signals` does.
        """
        self._rates(angle, helicity, _where(angle))

    def drift_vu(
        self, angle: Angle, before: Exposure, exposure: Exposure
    ) -> tuple[float, float] | None:
        """Return by how many pixels (v, u) the sample moved between two exposures of a helicity; None if one is bad.

        Raises
        ------
        ProcessingError, FrameError
            As `signals` does.
        """
        pair = replace(angle, exposures={exposure.key.helicity: (before, exposure)})
        _, _, found = self._average(pair, exposure.key.helicity, _where(angle))
        if found.bad or len(found.shift_vu) != 2:
            return None
        v, u = found.shift_vu[1] - found.shift_vu[0]
        return float(v), float(u)

    def _signals(self, angle: Angle, where: str) -> AngleSignals:
        if missing := [f"{h:+d}" for h in (1, -1) if not angle.exposures.get(h)]:
            raise ProcessingError(
                f"{where}: no exposure of helicity {missing[0]}; take it with `resume`"
            )
        rates: dict[int, tuple[Rate, Rate]] = {}
        findings: dict[int, Findings] = {}
        for h in (1, -1):
            sample, flat, findings[h] = self._rates(angle, h, where)
            rates[h] = sample, flat
        signals = helicity_signals(absorbance(*rates[1]), absorbance(*rates[-1]))
        of_flats = sum(float(np.median(flat.var_vu)) for _, flat in rates.values()) / 4
        variance = float(np.median(signals.std_vu)) ** 2
        return AngleSignals(
            angle.stated_phi_deg,
            float(np.mean([one.theta_deg for h in (1, -1) for one in angle.exposures[h]])),
            signals,
            findings=findings,
            references_left_out=angle.references_left_out,
            shared_part=min(of_flats / variance, 1.0),
        )

    def _rates(self, angle: Angle, helicity: int, where: str) -> tuple[Rate, Rate, Findings]:
        """Return what `_average` does, and keep it."""
        flats = angle.flats.get(helicity, ())
        frames = (angle.exposures[helicity], flats, angle.darks)
        made = self._averages.pop(frames, None) or self._average(angle, helicity, where)
        self._averages[frames] = made
        while len(self._averages) > HELICITIES_KEPT:
            del self._averages[next(iter(self._averages))]
        return made

    def _average(self, angle: Angle, helicity: int, where: str) -> tuple[Rate, Rate, Findings]:
        """Return the transmittance of a helicity, 1 with the relative error of its open beam, and what was left out."""
        flats = angle.flats.get(helicity)
        if not flats:
            raise ProcessingError(
                f"{where}: the run has no flats of helicity {helicity:+d}; nothing is normalised without them"
            )
        exposures = angle.exposures[helicity]
        for one in (*flats, *exposures):
            if one.polarization != helicity:
                raise ProcessingError(
                    f"{where}: {one.stream} {one.seq_num} of helicity {helicity:+d} was taken with the jaws at "
                    f"helicity {one.polarization:+d} (0: at neither); its sign is unknown, expose it again"
                )
        flat, gain = self._flat(flats, angle.darks, exposures)
        stack = stack_of(
            _counts(exposures),
            self._of_each(exposures, angle.darks),
            _doses(exposures),
            reference_vu=flat.rate.rate_vu,
            reference_error_f=flat.error_power_f,
            saturation_counts=self._saturation_counts,
        )
        transmittance, found = average(stack, gain)
        bad = tuple(BadRepeat(exposures[t].key.repeat, reason) for t, reason in found.bad)
        return transmittance, flat.relative, replace(found, bad=bad)

    def _flat(
        self,
        flats: tuple[Exposure, ...],
        darks: tuple[Exposure, ...],
        exposures: Sequence[Exposure],
    ) -> tuple[FlatField, float]:
        """Return the open beam at the time of the exposures, and the gain."""
        time_s = float(np.mean([one.time for one in exposures]))
        earlier = tuple(one for one in flats if one.time < time_s)
        later = tuple(one for one in flats if one.time >= time_s)
        groups = [self._group(group, darks) for group in (earlier, later) if group]
        if len(groups) == 1:
            return groups[0].field, groups[0].gain
        before, after = groups
        key = (before.field.time_s, after.field.time_s)
        if key not in self._walks:
            self._walks[key] = walk(before.field, after.field)
        field = field_at(time_s, before.field, after.field, self._walks[key])
        return field, (before.gain + after.gain) / 2

    def _group(self, flats: tuple[Exposure, ...], darks: tuple[Exposure, ...]) -> _Flats:
        """Average the flats that were taken one after the other."""
        kept = self._flats.pop(flats, None)
        if kept is None:
            dark, doses, counts = self._of_each(flats, darks), _doses(flats), _counts(flats)
            alike = [t for t in range(len(flats)) if dark[t] is dark[0]]
            gain = measure_noise(counts[alike], dark[0], [doses[t] for t in alike])
            stack = stack_of(counts, dark, doses, saturation_counts=self._saturation_counts)
            rate, _ = average(stack, gain, align=False)
            time_s = float(np.mean([one.time for one in flats]))
            kept = _Flats(flat_field(rate, time_s), gain)
        self._flats[flats] = kept
        while len(self._flats) > GROUPS_KEPT:
            del self._flats[next(iter(self._flats))]
        return kept

    def _of_each(self, exposures: Sequence[Exposure], darks: tuple[Exposure, ...]) -> list[Dark]:
        """Return the dark level for each exposure."""
        by_time: dict[float, tuple[Exposure, ...]] = {}
        for one in darks:
            by_time[one.exposure_s] = (*by_time.get(one.exposure_s, ()), one)
        if not by_time:
            raise ProcessingError("the run has no dark frames; take some with the plan `darks`")
        for group in by_time.values():
            if group not in self._darks:
                self._darks[group] = dark_level(_counts(group))
        levels = {time_s: self._darks[group] for time_s, group in by_time.items()}
        found = {
            time_s: dark_at(levels, time_s) for time_s in {one.exposure_s for one in exposures}
        }
        return [found[one.exposure_s] for one in exposures]


def _where(angle: Angle) -> str:
    return f"phi {angle.phi_deg:g} deg, theta {angle.theta_deg:g} deg"


def _counts(exposures: Sequence[Exposure]) -> NDArray[Any]:
    return np.stack([one.read() for one in exposures])


def _doses(exposures: Sequence[Exposure]) -> list[float]:
    return [one.ring_current_ma * one.exposure_s for one in exposures]

"""Decisions from the counts that were seen: how long to expose, when it is enough, what is wrong."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mistral_txm.devices.configuration import CcdSettings
from mistral_txm.devices.spent import Spent
from mistral_txm.plans.measurement import ExposureControl
from mistral_txm.plans.steps import Step

SATURATED_FRACTION = 0.001
"""More saturated pixels than this are told; hot pixels and cosmic rays are fewer."""
LEAST_PHOTONS = 1.0
"""A flat with fewer for each pixel is dark."""
LEAST_TRANSMISSION = 0.01
"""A view with less than this part of its flats is dark."""


class Frame(NamedTuple):
    """What is known of a frame before it is accepted."""

    mean_counts: float
    bright_counts: float
    saturated_fraction: float
    ring_current_ma: float
    crc32: int
    helicity: int
    """As the jaws stand; 0 where they stand at neither."""


@dataclass(frozen=True)
class Looked:
    """What the runs of a measurement have seen of the sample so far: what the next one begins with."""

    bright_per_ma_s: Mapping[tuple[float, int], Mapping[float, float]] = field(default_factory=dict)
    """Counts of the brightest pixels for each mA in the ring and s: by photon energy and helicity, by tilt."""
    photons: Mapping[tuple[float, float, float, int], Mapping[int, float]] = field(
        default_factory=dict
    )
    """Photons for each pixel: by photon energy, azimuth, tilt and helicity, by repeat, of what counts."""


class Seen:
    """The counts that one run has seen so far; every number asked of it follows from them, and from those before.

    `before` is what earlier runs of the same measurement have seen of the sample.
    """

    def __init__(self, ccd: CcdSettings, before: Looked | None = None) -> None:
        before = Looked() if before is None else before
        self._ccd = ccd
        self._darks: dict[float, list[float]] = defaultdict(list)
        self._flat_per_s: dict[tuple[float, int], float] = {}
        self._bright_per_ma_s: dict[tuple[float, int], dict[float, float]] = defaultdict(dict)
        for place, by_tilt in before.bright_per_ma_s.items():
            self._bright_per_ma_s[place] = dict(by_tilt)
        self._photons: dict[tuple[float, float, float, int], dict[int, float]] = defaultdict(dict)
        for view, by_repeat in before.photons.items():
            self._photons[view] = dict(by_repeat)
        self._dose_ma_s: dict[float, float] = defaultdict(float)
        self._kept: Step | None = None
        self._last: tuple[Step, int] | None = None

    @property
    def looked(self) -> Looked:
        """What is known of the sample now."""
        return Looked(
            {place: dict(by_tilt) for place, by_tilt in self._bright_per_ma_s.items()},
            {view: dict(by_repeat) for view, by_repeat in self._photons.items()},
        )

    def dark_counts(self, exposure_s: float) -> float:
        """Return the mean of the dark frames of an exposure time, of the nearest where there are none."""
        if not self._darks:
            return 0.0
        nearest_s = min(self._darks, key=lambda each: abs(each - exposure_s))
        return sum(self._darks[nearest_s]) / len(self._darks[nearest_s])

    def exposure_s(
        self, step: Step, control: ExposureControl | None, ring_current_ma: float
    ) -> float:
        """Return how long to expose: the longest choice whose brightest pixels stay below the fill.

        The brightness is that of the last view of the same helicity and energy at the nearest tilt, for each
        mA in the ring: from one tilt to the next it changes little. Before the first, the plan's exposure holds.
        """
        if not step.shows_sample or control is None:
            return step.exposure_s
        by_tilt = self._bright_per_ma_s.get((step.energy_ev, step.helicity))
        if not by_tilt:
            return step.exposure_s
        nearest_deg = min(by_tilt, key=lambda each: abs(each - step.theta_deg))
        bright_per_s = by_tilt[nearest_deg] * ring_current_ma
        fits = [
            exposure_s
            for exposure_s in control.exposures_s
            if self.dark_counts(exposure_s) + bright_per_s * exposure_s
            <= control.fill * self._ccd.saturation_counts
        ]
        return max(fits, default=control.exposures_s[0])

    def trouble(self, step: Step, exposure_s: float, frame: Frame) -> str:
        """Say in one line what speaks against a frame: it is dark, old, or of no helicity; empty where nothing does."""
        if self._last is not None and step != self._last[0] and frame.crc32 == self._last[1]:
            return "ccd: the frame equals the last one of the file before, bit by bit"
        if step.stream == "dark" or not self._darks or step == self._kept:
            return ""
        if frame.helicity != step.helicity:
            return f"polarization: the jaws stand at helicity {frame.helicity}, expected {step.helicity}"
        dark = self.dark_counts(exposure_s)
        if step.stream == "flat":
            least = LEAST_PHOTONS / self._ccd.photons(1.0, step.energy_ev)
        else:
            flat_per_s = self._flat_per_s.get((step.energy_ev, step.helicity), 0.0)
            least = LEAST_TRANSMISSION * flat_per_s * exposure_s
        if frame.mean_counts - dark >= least:
            return ""
        return (
            f"ccd: {frame.mean_counts:.0f} counts on average, dark frames have {dark:.0f}: no light came, or "
            "the dark frames had some; check shutter, beam and sample"
        )

    def add(self, step: Step, repeat: int, exposure_s: float, frame: Frame) -> Spent:
        """Count an exposure that was accepted; return what it brought and cost.

        Of a repeat that is taken again, the last one counts.
        """
        if self.trouble(step, exposure_s, frame):
            self._kept = (
                step  # a person has looked: the other exposures of the step are no different
            )
        self._last = step, frame.crc32
        place = (step.energy_ev, step.helicity)
        if step.stream == "dark":
            self._darks[exposure_s].append(frame.mean_counts)
            return Spent(0.0, 0.0, self._dose_ma_s[step.energy_ev])
        dark = self.dark_counts(exposure_s)
        net = max(frame.mean_counts - dark, 0.0)
        photons = self._ccd.photons(net, step.energy_ev)
        if step.stream == "flat":
            self._flat_per_s[place] = net / exposure_s
            return Spent(photons, math.sqrt(photons), self._dose_ma_s[step.energy_ev])
        if frame.ring_current_ma > 0:
            bright_per_s = max(frame.bright_counts - dark, 0.0) / exposure_s
            self._bright_per_ma_s[place][step.theta_deg] = bright_per_s / frame.ring_current_ma
        self._dose_ma_s[step.energy_ev] += frame.ring_current_ma * exposure_s
        if step.stream == "zero":  # it does not add to the view that it looks at again
            return Spent(photons, math.sqrt(photons), self._dose_ma_s[step.energy_ev])
        self._photons[_view(step)][repeat] = photons
        return Spent(photons, self._signal_to_noise(step), self._dose_ma_s[step.energy_ev])

    def is_enough(self, step: Step, taken: int, control: ExposureControl | None) -> bool:
        """Tell whether the angle and helicity of a step has the wanted signal to noise after so many repeats."""
        if control is None or control.signal_to_noise is None or taken < control.least_repeats:
            return False
        return self._signal_to_noise(step) >= control.signal_to_noise

    def _signal_to_noise(self, step: Step) -> float:
        """Return that of a pixel of the average of all repeats, each of which counts by its exposure."""
        return math.sqrt(sum(self._photons[_view(step)].values()))


def _view(step: Step) -> tuple[float, float, float, int]:
    return step.energy_ev, step.phi_deg, step.theta_deg, step.helicity

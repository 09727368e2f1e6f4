"""What a measurement takes: time, frames, bytes, dose, told before anything moves."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

from mistral_txm.devices.configuration import Configuration
from mistral_txm.devices.key import Key
from mistral_txm.plans.measurement import Measurement, paper
from mistral_txm.plans.steps import NOTHING, Step, steps

FILE_BYTES = 8_800
"""What an HDF5 file of frames takes beside the frames, bytes: measured at the simulated detector."""
FRAME_BYTES = 1_750
"""What it takes for each frame beside its pixels, bytes: as above."""


@dataclass(frozen=True)
class Estimate:
    """What a measurement takes: time by what it is spent for, frames of all kinds, bytes on disk, dose.

    ``duration_s = exposure_s + readout_s + slit_s + moves_s + azimuth_s``. Where the slit and other axes move
    together, `slit_s` is the time of the slit, and `moves_s` what the others take longer.
    `sample_exposure_s` is how long the sample is in the light, and `relative_dose` the same in units of
    the measurement of the paper. Where the counts that are seen may end the repeats, all this is the most.
    """

    exposure_s: float = 0.0
    readout_s: float = 0.0
    slit_s: float = 0.0
    moves_s: float = 0.0
    azimuth_s: float = 0.0
    sample_exposure_s: float = 0.0
    frames: int = 0
    bytes: int = 0
    helicity_changes: int = 0

    @property
    def duration_s(self) -> float:
        """How long it takes, the operator's hand included."""
        return self.exposure_s + self.readout_s + self.slit_s + self.moves_s + self.azimuth_s

    @property
    def relative_dose(self) -> float:
        """How long the sample is in the light, in units of the measurement of the paper."""
        return self.sample_exposure_s / _paper_s()


@dataclass(frozen=True)
class _Standing:
    """Where the beamline stands."""

    theta_deg: float
    place_um: tuple[float, float, float]
    helicity: int
    zone_plate_um: float
    energy_ev: float


def estimate(
    measurement: Measurement,
    configuration: Configuration,
    frame_shape_vu: tuple[int, int],
    skip: Mapping[float, Collection[Key]] = NOTHING,
) -> Estimate:
    """Estimate what a measurement takes on a beamline.

    Goes through the steps as the plan does. Axes that move together take the time of the slowest,
    each ``distance / speed + ramps``, by `[durations]` of the configuration; tilt and monochromator
    arrive from below. At the end of each run everything is put back to where it stood: assumed are
    theta 0, helicity +1 and the sample in the beam, in focus at the usual photon energy.

    Parameters
    ----------
    frame_shape_vu
        Rows and columns of a frame.
    skip
        By photon energy, the keys that are done already.
    """
    pixels = math.prod(frame_shape_vu)
    azimuths = [
        taken
        for phi_deg in measurement.azimuths_deg
        if (taken := steps(measurement, phi_deg, skip))
    ]
    spent = _sum(
        _leg(measurement, configuration, pixels, leg)
        for taken in azimuths
        for leg in _legs(measurement, taken)
    )
    by_hand_s = max(len(azimuths) - 1, 0) * configuration.durations.azimuth_change_s
    return replace(spent, azimuth_s=by_hand_s)


def _legs(measurement: Measurement, taken: Sequence[Step]) -> list[list[Step]]:
    """Return the steps between which nothing is put back."""
    if measurement.edges == "interleaved":
        return [list(taken)]
    return [list(leg) for _, leg in groupby(taken, key=lambda step: step.energy_ev)]


def _leg(
    measurement: Measurement, configuration: Configuration, pixels: int, taken: Sequence[Step]
) -> Estimate:
    usual, ccd = configuration.durations, configuration.ccd
    first = _at_rest(configuration)
    now = replace(first, energy_ev=measurement.energies_ev[0])
    parts = [_moved(configuration, first, now, energy_is_set=True)]
    for step in taken:
        if step.energy_ev != now.energy_ev:
            tuned = replace(now, energy_ev=step.energy_ev)
            parts.append(_moved(configuration, now, tuned, energy_is_set=True))
            now = tuned
        if step.stream != "dark":
            target = _target(measurement, configuration, now, step)
            # An axis that has arrived from below is not moved again.
            turns = target.theta_deg != now.theta_deg
            parts.append(_moved(configuration, now, target, theta_is_set=turns))
            now = target
        frames = len(step.repeats)
        exposure_s = frames * step.exposure_s
        parts.append(
            Estimate(
                exposure_s=exposure_s,
                readout_s=frames * (ccd.readout_time_s + usual.frame_overhead_s),
                sample_exposure_s=exposure_s if step.shows_sample else 0.0,
                frames=frames,
                bytes=FILE_BYTES + frames * (2 * pixels + FRAME_BYTES),
            )
        )
    parts.append(_moved(configuration, now, first, energy_is_set=True, theta_is_set=True))
    return _sum(parts)


def _at_rest(configuration: Configuration) -> _Standing:
    place, polarization = configuration.sample_position, configuration.polarization
    energy_ev = polarization.focus_energy_eV
    return _Standing(
        theta_deg=0.0,
        place_um=(place.in_x_um, place.in_y_um, place.in_z_um),
        helicity=1,
        zone_plate_um=polarization.focus_um(1, energy_ev),
        energy_ev=energy_ev,
    )


def _target(
    measurement: Measurement, configuration: Configuration, now: _Standing, step: Step
) -> _Standing:
    """Return where a step that is no dark frame has the beamline stand."""
    places, inside = configuration.sample_position, measurement.sample.place
    if step.stream == "flat":
        place_um = (places.out_x_um, now.place_um[1], places.out_z_um)
    elif inside is not None:
        place_um = (inside.x_um, inside.y_um, inside.z_um)
    else:
        place_um = (places.in_x_um, places.in_y_um, places.in_z_um)
    if (focus := measurement.focus) is None:
        shift_um = configuration.polarization.chromatic_um_per_eV * (
            step.energy_ev - measurement.energies_ev[0]
        )
        focus_um = configuration.polarization.of(step.helicity).zone_plate_z_um + shift_um
    else:
        focus_um = focus.positive_um if step.helicity > 0 else focus.negative_um
    return _Standing(step.theta_deg, place_um, step.helicity, focus_um, now.energy_ev)


def _moved(
    configuration: Configuration,
    before: _Standing,
    after: _Standing,
    *,
    theta_is_set: bool = False,
    energy_is_set: bool = False,
) -> Estimate:
    """Return the time of a move of all axes together; an axis with an approach moves whenever it is set."""
    usual, axes = configuration.durations, configuration.axes

    def run_s(distance: float, speed: float, ramp_s: float = usual.ramp_s) -> float:
        return abs(distance) / speed + ramp_s if distance else 0.0

    def approached_s(
        start: float, end: float, approach: float, speed: float, ramp_s: float = usual.ramp_s
    ) -> float:
        if not approach or end - start >= approach:
            return run_s(end - start, speed, ramp_s)
        return run_s(end - approach - start, speed, ramp_s) + run_s(approach, speed, ramp_s)

    others_s = [
        run_s(end - start, usual.sample_um_per_s)
        for start, end in zip(before.place_um, after.place_um, strict=True)
    ]
    if theta_is_set:
        theta = axes.theta.approach
        others_s.append(
            approached_s(before.theta_deg, after.theta_deg, theta, usual.tilt_deg_per_s)
        )
    if energy_is_set:
        energy = axes.energy.approach
        speed, ramp_s = usual.energy_eV_per_s, usual.energy_ramp_s
        others_s.append(approached_s(before.energy_ev, after.energy_ev, energy, speed, ramp_s))
    changes = after.helicity != before.helicity
    if after.zone_plate_um != before.zone_plate_um:
        focus_s = run_s(after.zone_plate_um - before.zone_plate_um, usual.zone_plate_um_per_s)
        others_s.append(focus_s + configuration.polarization.settle_time_s)
    slit_s = usual.helicity_change_s if changes else 0.0
    return Estimate(
        slit_s=slit_s, moves_s=max(max(others_s) - slit_s, 0.0), helicity_changes=int(changes)
    )


def _sum(parts: Iterable[Estimate]) -> Estimate:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in vars(part).items():
            total[name] = total.get(name, 0) + value
    return Estimate(**total)  # type: ignore[arg-type]  # counts stay counts


@cache
def _paper_s() -> float:
    return sum(
        2 * len(paper().azimuths_deg) * len(each.angles_deg) * each.repeats * each.exposure_s
        for each in paper().tilts
    )

"""What a measurement takes: time, frames, bytes, dose, told before anything moves."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mistral_txm.devices.configuration import Configuration
from mistral_txm.devices.key import Key
from mistral_txm.plans.measurement import Measurement
from mistral_txm.plans.steps import NOTHING, steps


@dataclass(frozen=True)
class Estimate:
    """What a measurement takes: time with waits and readout, frames of all kinds, bytes on disk."""

    duration_s: float
    exposure_s: float
    frames: int
    bytes: int
    helicity_changes: int


def estimate(
    measurement: Measurement,
    configuration: Configuration,
    frame_shape_vu: tuple[int, int],
    skip: Mapping[float, Collection[Key]] = NOTHING,
) -> Estimate:
    """Estimate what a measurement takes on a beamline.

    ``duration = sum(exposure + readout) + moves of tilt, slit and, by hand, azimuth``.
    """
    usual, readout_s = configuration.durations, configuration.ccd.readout_time_s
    exposure_s, duration_s, frames, changes = 0.0, 0.0, 0, 0
    azimuths = 0
    for phi_deg in measurement.azimuths_deg:
        taken = steps(measurement, phi_deg, skip)
        azimuths += bool(taken)
        helicity, theta_deg = 0, math.nan
        for step in taken:
            frames += len(step.repeats)
            exposure_s += len(step.repeats) * step.exposure_s
            if step.stream != "dark":
                changes += step.helicity != helicity
                duration_s += usual.tilt_step_s * (step.theta_deg != theta_deg)
                helicity, theta_deg = step.helicity, step.theta_deg
    duration_s += exposure_s + frames * readout_s + changes * usual.helicity_change_s
    duration_s += max(azimuths - 1, 0) * usual.azimuth_change_s
    size = frames * 2 * math.prod(frame_shape_vu)
    return Estimate(duration_s, exposure_s, frames, size, changes)

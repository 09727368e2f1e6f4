"""What a measurement takes, against hours that were computed by hand and the simulation's own clock."""

import pytest

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.plans.estimate import estimate
from mistral_txm.plans.measurement import Measurement, load_measurement
from mistral_txm.plans.steps import steps


def test_the_estimate_of_the_2018_script_agrees_with_its_hours() -> None:
    """13.3 h of exposures and 1.7 h of slit waits per azimuth were computed for its own angles."""
    script = load_measurement("script_2018")
    measurement = script.model_copy(update={"azimuths_deg": (0.0,)})
    estimated = estimate(measurement, load_configuration(), (1024, 1024))
    calibration_s = 2 * 2 * 50 * 3 + 10 * (3 + 8 + 12 + 20)
    assert (estimated.exposure_s - calibration_s) / 3600 == pytest.approx(13.3, rel=0.02)
    flats = 3
    assert (estimated.helicity_changes - flats) * 72 / 3600 == pytest.approx(1.7, abs=0.05)
    assert estimated.bytes == estimated.frames * 2 * 1024 * 1024


def test_an_estimate_counts_what_the_steps_take(tiny: Measurement) -> None:
    estimated = estimate(tiny, load_configuration(), (4, 5))
    taken = [step for phi in tiny.azimuths_deg for step in steps(tiny, phi)]
    assert estimated.frames == sum(len(step.repeats) for step in taken)
    assert estimated.bytes == estimated.frames * 40
    assert estimated.duration_s > estimated.exposure_s
    nothing = estimate(tiny, load_configuration(), (4, 5), {707.4: tiny.planned_keys()})
    assert (nothing.frames, nothing.duration_s) == (0, 0.0)

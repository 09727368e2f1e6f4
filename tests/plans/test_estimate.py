"""What a measurement takes, against hours that were computed by hand and the simulation's own clock."""

import json
import subprocess
import sys
from pathlib import Path

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
    assert estimated.slit_s == estimated.helicity_changes * 73
    assert estimated.bytes == pytest.approx(estimated.frames * 2 * 1024 * 1024, rel=0.002)


def test_an_estimate_counts_what_the_steps_take(tiny: Measurement) -> None:
    estimated = estimate(tiny, load_configuration(), (4, 5))
    taken = [step for phi in tiny.azimuths_deg for step in steps(tiny, phi)]
    assert estimated.frames == sum(len(step.repeats) for step in taken)
    assert estimated.duration_s > estimated.exposure_s
    nothing = estimate(tiny, load_configuration(), (4, 5), {707.4: tiny.planned_keys()})
    assert (nothing.frames, nothing.duration_s) == (0, 0.0)


def test_the_parts_of_a_hand_computed_measurement() -> None:
    """One tilt at 10 deg: flats at 0 deg and helicity -, then +, then views + and -, then everything is put back."""
    one = Measurement.from_dict(
        {
            "sample": {"name": "film"},
            "tilts": [{"first_deg": 10.0, "last_deg": 10.0, "exposure_s": 8.0, "repeats": 3}],
            "azimuths_deg": [0.0],
            "energies_ev": [707.4],
            "flats": {"exposure_s": 3.0, "repeats": 4},
            "darks": {"repeats": 2},
        }
    )
    found = estimate(one, load_configuration(), (256, 256))
    assert (found.frames, found.exposure_s) == (2 * 2 + 2 * 4 + 2 * 3, 2 * 11 + 8 * 3 + 6 * 8)
    assert found.readout_s == found.frames * 0.5
    # to the -, to the + for the flats; + stays for the first view; to the -, and back to the +
    assert (found.helicity_changes, found.slit_s) == (4, 4 * 73)
    # From 0 to 10 deg with the sample moved in: 10 s and a ramp. The energy is set anew: 2 eV down and up at
    # 5 eV/s, each with a ramp of 0.5 s. All else is shorter than the slit, with which it moves.
    assert found.moves_s == pytest.approx(10.2 + 2 * (0.4 + 0.5))
    assert found.sample_exposure_s == 48.0
    assert found.azimuth_s == 0.0
    assert found.duration_s == pytest.approx(94 + 9 + 292 + 12.0)


def test_energies_by_turns_cost_the_way_of_monochromator_and_zone_plate() -> None:
    """Two energies 70 eV apart at one tilt of 0 deg: 707.4, 777.4 in one helicity, back in the other.

    Up: 14 s and a ramp of 0.5 s. Down: 2 eV too far, 14.4 + 0.5 s, and up again, 0.4 + 0.5 s. The zone plate follows by
    3.03 um/eV * 70 eV = 212.1 um at 50 um/s, with a ramp of 0.2 s, when the next exposures are prepared.
    """
    one = Measurement.from_dict(
        {
            "sample": {"name": "film"},
            "tilts": [{"first_deg": 0.0, "last_deg": 0.0, "exposure_s": 8.0, "repeats": 1}],
            "azimuths_deg": [0.0],
            "energies_ev": [707.4, 777.4],
            "edges": "interleaved",
            "flats": {"exposure_s": 3.0, "repeats": 1},
            "darks": {"repeats": 1},
        }
    )
    found = estimate(one, load_configuration(), (256, 256))
    up_s, down_s, focus_s, sample_in_s = 14.5, 15.8, 212.1 / 50 + 0.2, 1.2
    # Dark frames, flats, views: each up and down. Of flats and views both ways need a focus.
    energies_s = 3 * (up_s + down_s) + 4 * focus_s
    set_anew_s = 2 * (0.4 + 0.5)
    assert found.moves_s == pytest.approx(set_anew_s + energies_s + sample_in_s)
    assert found.slit_s == 4 * 73


def test_the_dose_is_told_in_units_of_the_paper() -> None:
    """Twice 2 x (25 tilts of 15 x 8 s, 40 of 20 x 12 s, 22 of 20 x 20 s); and 3 x 8 s at the return to zero tilt."""
    paper_s = 2 * 2 * (25 * 15 * 8 + 40 * 20 * 12 + 22 * 20 * 20)
    for name, repeats in (("paper", None), ("medium", 3)):
        found = estimate(load_measurement(name), load_configuration(), (256, 256))
        dose_s = paper_s if repeats is None else 2 * 2 * 3 * (25 * 8 + 40 * 12 + 22 * 20)
        dose_s += 2 * 2 * 3 * 8
        assert found.sample_exposure_s == pytest.approx(dose_s)
        assert found.relative_dose == pytest.approx(dose_s / paper_s)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_estimate_agrees_with_the_clock_of_the_simulation(tmp_path: Path) -> None:
    """Tilt regions and azimuths; two edges interleaved; flats between, and a return to zero: each within 5 %."""
    script = Path(__file__).with_name("clock_of_measurements.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "real"],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 3
    for name, (taken_s, estimated_s) in found.items():
        assert estimated_s == pytest.approx(taken_s, rel=0.05), name

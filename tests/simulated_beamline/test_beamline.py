"""From the state to the frame: signs, independence of order, normalization, focus."""

from dataclasses import replace

import numpy as np
import pytest

from mistral_txm.simulated_beamline import source, textures
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.state import State

SHAPE = (64, 64)
POSITIVE = State(
    theta_deg=0.0,
    azimuth_deg=0.0,
    sample_x_um=0.0,
    sample_y_um=0.0,
    sample_z_um=0.0,
    zone_plate_z_um=0.0,
    jaw_down_mm=1.5,
    jaw_up_mm=2.5,
    energy_ev=707.4,
    shutter_open=True,
    exposure_s=8.0,
)
NEGATIVE = replace(POSITIVE, jaw_down_mm=-2.5, jaw_up_mm=-1.5, zone_plate_z_um=1.5)


@pytest.fixture(scope="module")
def uniform():
    return Beamline(Sample(textures.load("uniform"), 1), SHAPE, seed=1)


@pytest.fixture(scope="module")
def stripes():
    return Beamline(Sample(textures.load("stripes"), 1), SHAPE, seed=1)


def absorbance(beamline, state):
    """From frames alone: dark, flat of the same helicity, ring current, mean of ten exposures."""

    def mean(each):
        frames = [
            beamline.frame(each, index) / beamline.ring_current_ma(each, index)
            for index in range(10)
        ]
        return np.mean(frames, axis=0)

    dark = np.mean(
        [beamline.frame(replace(state, shutter_open=False), index) for index in range(10)], axis=0
    )
    dark /= source.CURRENT_MA
    return -np.log((mean(state) - dark) / (mean(replace(state, sample_x_um=200.0)) - dark))


def test_magnetization_along_the_beam_absorbs_helicity_plus_more(uniform):
    """m = +z at theta = 0: A(+) > A(-), and S = (A(+) - A(-)) / 2 = delta * degree * 80 nm."""
    plus, minus = absorbance(uniform, POSITIVE), absorbance(uniform, NEGATIVE)
    degree = source.accepted(707.4, 1.5, 2.5)[1]
    signal = np.median(plus - minus) / 2
    assert signal == pytest.approx(0.0022 * degree * 80, rel=0.02)


def test_absorption_is_that_of_the_layers(uniform):
    plus, minus = absorbance(uniform, POSITIVE), absorbance(uniform, NEGATIVE)
    mu_permalloy, mu_nitride = 0.0050, 0.0013
    expected = 80 * mu_permalloy + 50 * mu_nitride
    assert np.median(plus + minus) / 2 == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("azimuth_deg", [0.0, 102.0])
def test_transmission_is_that_of_the_experiment(stripes, azimuth_deg):
    state = replace(POSITIVE, azimuth_deg=azimuth_deg)
    transmission = np.exp(-absorbance(stripes, state))
    assert 0.2 < np.percentile(transmission, 5) < np.percentile(transmission, 95) < 0.6


def test_flat_holds_some_400_photons_and_does_not_saturate(stripes):
    flat = stripes.frame(replace(POSITIVE, sample_x_um=200.0), 0)
    photons = (flat.mean() - 300) * 1.6 / (707.4 / 3.65)
    assert 350 < photons < 500
    assert np.mean(flat == 65535) < 1e-3


def test_same_key_same_frame_in_whatever_order(stripes):
    other = Beamline(Sample(textures.load("stripes"), 1), SHAPE, seed=1)
    keys = [(POSITIVE, 0), (NEGATIVE, 0), (POSITIVE, 1), (replace(POSITIVE, theta_deg=10.0), 0)]
    frames = [stripes.frame(*key) for key in keys]
    for key, frame in reversed(list(zip(keys, frames, strict=True))):
        np.testing.assert_array_equal(other.frame(*key), frame)
        assert other.ring_current_ma(*key) == stripes.ring_current_ma(*key)


def test_other_index_state_or_seed_other_noise(stripes):
    frame = stripes.frame(POSITIVE, 0)
    assert not np.array_equal(frame, stripes.frame(POSITIVE, 1))
    assert not np.array_equal(frame, stripes.frame(replace(POSITIVE, theta_deg=0.5), 0))
    other = Beamline(stripes.sample, SHAPE, seed=2)
    assert not np.array_equal(frame, other.frame(POSITIVE, 0))


def test_no_light_without_shutter_or_slit(stripes):
    for dark in (replace(POSITIVE, shutter_open=False), replace(POSITIVE, jaw_up_mm=1.0)):
        assert np.median(stripes.frame(dark, 0)) < 310


def test_current_falls_from_exposure_to_exposure(stripes):
    currents = [stripes.ring_current_ma(POSITIVE, index) for index in range(200)]
    steps = np.diff(currents)
    expected = -source.CURRENT_MA * 8.0 / source.LIFETIME_S
    assert np.median(steps) == pytest.approx(expected, rel=0.03)
    assert (steps > 0).sum() == 1  # 1600 s of exposures see one injection or two


def test_counts_follow_the_current(stripes):
    photons = [stripes.expected_photons(POSITIVE, index) for index in (0, 100)]
    currents = [stripes.ring_current_ma(POSITIVE, index) for index in (0, 100)]
    ratio = photons[0] / photons[1]
    np.testing.assert_allclose(ratio, currents[0] / currents[1], rtol=1e-5)


def test_focus_is_where_the_helicity_has_it(stripes):
    """The stripes have the most contrast at the focus, which differs by 1.5 um."""
    for state, best in ((POSITIVE, 0.0), (NEGATIVE, 1.5)):
        contrast = []
        for offset in (-3.0, 0.0, 3.0):
            moved = replace(state, zone_plate_z_um=best + offset)
            photons = stripes.expected_photons(moved, 0)
            flat = stripes.expected_photons(replace(moved, sample_x_um=200.0), 0)
            contrast.append(np.std(np.log(photons / flat)))
        assert contrast[1] > contrast[0]
        assert contrast[1] > contrast[2]
        assert contrast[0] == pytest.approx(contrast[2], rel=0.05)


def test_dichroism_vanishes_off_the_line(uniform):
    def signal(energy_ev):
        pair = []
        for state in (POSITIVE, NEGATIVE):
            tuned = replace(state, energy_ev=energy_ev, zone_plate_z_um=0.0)
            photons = uniform.expected_photons(tuned, 0)
            flat = uniform.expected_photons(replace(tuned, sample_x_um=200.0), 0)
            current = uniform.ring_current_ma(tuned, 0)
            flat_current = uniform.ring_current_ma(replace(tuned, sample_x_um=200.0), 0)
            pair.append(-np.median(np.log(photons / flat * flat_current / current)))
        return (pair[0] - pair[1]) / 2

    assert signal(707.4) > 0.1
    assert abs(signal(690.0)) < 0.01
    assert signal(720.5) < -0.02

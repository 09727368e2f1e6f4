"""From the state to the frame: signs, independence of order, normalization, focus."""

from dataclasses import replace

import numpy as np
import pytest

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.simulated_beamline import source, textures
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.settings import load_settings
from tests.simulated_beamline.states import POSITIVE

SHAPE = (64, 64)
IDEAL = load_settings("ideal")
NEGATIVE = replace(POSITIVE, jaw_down_mm=-2.5, jaw_up_mm=-1.5, zone_plate_z_um=1.5)


def beamline(texture, seed=1, settings=IDEAL):
    return Beamline(Sample(textures.load(texture), 1, settings.fiducials), settings, SHAPE, seed)


@pytest.fixture(scope="module")
def uniform():
    return beamline("uniform")


@pytest.fixture(scope="module")
def stripes():
    return beamline("stripes")


def absorbance(of, state):
    """From frames alone: dark, flat of the same helicity, ring current, mean of ten exposures."""

    def mean(each):
        frames = [of.frame(each, index) / of.ring_current_ma(each, index) for index in range(10)]
        return np.mean(frames, axis=0)

    dark = np.mean(
        [of.frame(replace(state, shutter_open=False), index) for index in range(10)], axis=0
    )
    dark /= IDEAL.ring.current_ma
    return -np.log((mean(state) - dark) / (mean(replace(state, sample_x_um=200.0)) - dark))


def test_magnetization_along_the_beam_absorbs_helicity_plus_more(uniform):
    """m = +z at theta = 0: A(+) > A(-), and S = (A(+) - A(-)) / 2 = delta * degree * 80 nm."""
    plus, minus = absorbance(uniform, POSITIVE), absorbance(uniform, NEGATIVE)
    magnet = source.BendingMagnet(IDEAL.ring, IDEAL.beam)
    degree = magnet.accepted(707.4, 1.5, 2.5)[1]
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
    saturation = load_configuration().ccd.saturation_counts
    assert np.mean(flat >= saturation) < 0.02
    assert (
        np.mean(
            stripes.frame(replace(POSITIVE, sample_x_um=200.0, exposure_s=80.0), 0) >= saturation
        )
        == 1
    )


def test_same_key_same_frame_in_whatever_order(stripes):
    other = beamline("stripes")
    keys = [(POSITIVE, 0), (NEGATIVE, 0), (POSITIVE, 1), (replace(POSITIVE, theta_deg=10.0), 0)]
    frames = [stripes.frame(*key) for key in keys]
    for key, frame in reversed(list(zip(keys, frames, strict=True))):
        np.testing.assert_array_equal(other.frame(*key), frame)
        assert other.ring_current_ma(*key) == stripes.ring_current_ma(*key)


def test_other_index_state_or_seed_other_noise(stripes):
    frame = stripes.frame(POSITIVE, 0)
    assert not np.array_equal(frame, stripes.frame(POSITIVE, 1))
    assert not np.array_equal(frame, stripes.frame(replace(POSITIVE, theta_deg=0.5), 0))
    assert not np.array_equal(frame, beamline("stripes", seed=2).frame(POSITIVE, 0))


def test_no_light_without_shutter_or_slit(stripes):
    for dark in (replace(POSITIVE, shutter_open=False), replace(POSITIVE, jaw_up_mm=1.0)):
        assert np.median(stripes.frame(dark, 0)) < 310


def test_current_falls_from_exposure_to_exposure(stripes):
    currents = [stripes.ring_current_ma(POSITIVE, index) for index in range(151)]
    steps = np.diff(currents)
    expected = -IDEAL.ring.current_ma * 8.0 / (3600 * IDEAL.ring.lifetime_h)
    assert np.median(steps) == pytest.approx(expected, rel=0.03)
    # 1200 s see one injection, which falls between two exposures or into one.
    risen = np.flatnonzero(steps > 0)
    assert len(risen) in (1, 2)
    assert np.ptp(risen) <= 1


@pytest.mark.parametrize("exposure_s", [3.0, 8.0, 20.0])
def test_no_injection_falls_into_an_exposure_by_itself(stripes, exposure_s):
    for tilt in range(40):
        state = replace(POSITIVE, theta_deg=float(tilt), exposure_s=exposure_s)
        began_s = np.array([stripes.began_s(state, index) for index in range(60)])
        assert all(stripes.to_injection_s(began) >= exposure_s for began in began_s)
        waits_s = np.diff(began_s) - exposure_s
        assert all(waits_s >= -1e-9)
        assert sum(waits_s > 1e-9) <= 1 + 60 * exposure_s / IDEAL.ring.top_up_period_s


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


def test_a_frame_scatters_about_what_it_would_be_without_noise(stripes):
    """The mean of many frames is the noise-free frame: within 5 standard errors, pixel by pixel."""
    frames = np.array([stripes.frame(POSITIVE, index) for index in range(60)], float)
    expected = np.mean([stripes.expected_counts(POSITIVE, index) for index in range(60)], axis=0)
    error = frames.std(axis=0, ddof=1) / np.sqrt(60)
    deviation = (frames.mean(axis=0) - expected) / error
    assert np.abs(np.median(deviation)) < 0.1
    assert np.mean(np.abs(deviation) > 5) < 1e-3


def test_half_of_the_light_makes_half_of_the_photons(stripes):
    half = stripes.expected_photons(replace(POSITIVE, lit_fraction=0.5), 0)
    whole = stripes.expected_photons(POSITIVE, 0)
    np.testing.assert_allclose(half / whole, 0.5, rtol=1e-5)
    assert stripes.expected_photons(replace(POSITIVE, lit_fraction=0.0), 0) is None


def test_an_injection_in_the_middle_is_half_of_the_old_and_half_of_the_full_current(stripes):
    ring = IDEAL.ring
    low = ring.current_ma * np.exp(-ring.top_up_period_s / (3600 * ring.lifetime_h))
    hit = replace(POSITIVE, injection=True)
    assert stripes.ring_current_ma(hit, 0) == pytest.approx((low + ring.current_ma) / 2, rel=1e-4)
    assert stripes.to_injection_s(stripes.began_s(hit, 0)) == pytest.approx(4.0)


@pytest.mark.parametrize(
    "change",
    [
        {"region": Region(0, 0, 32, 32)},
        {"lit_fraction": 0.5},
        {"temperature_c": -49.0},
        {"zinger_burst": True},
        {"shutter_open": False},
    ],
)
def test_what_befalls_an_exposure_does_not_change_its_moment(stripes, change):
    assert stripes.began_s(replace(POSITIVE, **change), 3) == stripes.began_s(POSITIVE, 3)


def test_swapped_helicity_reverses_the_signal(uniform):
    plain = uniform.expected_photons(POSITIVE, 0)
    swapped = uniform.expected_photons(replace(POSITIVE, helicity_swapped=True), 0)
    minus = uniform.expected_photons(NEGATIVE, 0)
    assert np.median(plain) < 0.8 * np.median(swapped)
    assert np.median(minus) == pytest.approx(np.median(swapped), rel=0.03)


def test_time_that_runs_lets_the_image_drift_and_the_current_fall():
    real = load_settings("real")
    running = beamline("stripes", settings=real)
    late = replace(POSITIVE, time_s=3 * 3600.0)
    pose, _shift = running.pose(POSITIVE, 0)
    later, _shift = running.pose(late, 0)
    assert pose.theta_deg == later.theta_deg
    assert (pose.shift_u_nm, pose.shift_v_nm) != (later.shift_u_nm, later.shift_v_nm)
    afterwards = replace(POSITIVE, time_s=600.0)
    expected = np.exp(-600 / (3600 * real.ring.lifetime_h))
    ratio = running.ring_current_ma(afterwards, 0) / running.ring_current_ma(POSITIVE, 0)
    assert ratio == pytest.approx(expected, rel=1e-6)


def test_the_helicities_are_as_far_apart_as_the_settings_say():
    image = IDEAL.image.model_copy(
        update={"helicity_shift_u_pixels": 0.6, "helicity_shift_v_pixels": -1.3}
    )
    shifted = beamline("stripes", settings=IDEAL.model_copy(update={"image": image}))
    plus, _shift = shifted.pose(POSITIVE, 0)
    minus, _shift = shifted.pose(NEGATIVE, 0)
    assert (plus.shift_u_nm - minus.shift_u_nm) / 10.5 == pytest.approx(0.6)
    assert (plus.shift_v_nm - minus.shift_v_nm) / 10.5 == pytest.approx(-1.3)


def test_a_film_that_moves_in_its_own_plane_stays_in_focus(stripes):
    """Along the film by 2 um at 45 deg, what is in the middle is as far as before."""
    tilted = replace(POSITIVE, theta_deg=45.0)
    for moved, expected_um in (
        (tilted, 0.0),
        (replace(tilted, sample_x_um=2.0), 0.0),
        (replace(tilted, sample_z_um=1.0), 2**0.5),  # 1 um along the normal
        (replace(tilted, zone_plate_z_um=0.5), -0.5),
    ):
        pose, _shift = stripes.pose(moved, 0)
        assert stripes.defocus_um(moved, pose) == pytest.approx(expected_um, abs=1e-9)

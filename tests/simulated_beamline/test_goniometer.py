"""The goniometer's imperfections: signs by hand, sizes by statistics."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mistral_txm.simulated_beamline.goniometer import Goniometer
from mistral_txm.simulated_beamline.sample import PIXEL_NM
from mistral_txm.simulated_beamline.settings import load_settings
from tests.simulated_beamline.states import POSITIVE


def with_goniometer(**changes):
    """Return ideal settings apart from some of the goniometer's."""
    ideal = load_settings("ideal")
    return ideal.model_copy(update={"goniometer": ideal.goniometer.model_copy(update=changes)})


@pytest.mark.parametrize("azimuth_deg", [0.0, 102.0])
def test_a_perfect_goniometer_puts_the_sample_where_the_motors_say(azimuth_deg):
    state = replace(
        POSITIVE, theta_deg=30.0, azimuth_deg=azimuth_deg, sample_x_um=2.0, sample_z_um=1.0
    )
    pose = Goniometer(load_settings("ideal"), 1).pose(state)
    # The stages ride on the tilt: u = x cos - z sin, depth = x sin + z cos, whatever the azimuth.
    assert pose.shift_u_nm == pytest.approx(2000 * math.cos(math.pi / 6) - 500)
    assert pose.shift_v_nm == pytest.approx(0, abs=1e-9)
    assert pose.depth_nm == pytest.approx(1000 + 1000 * math.cos(math.pi / 6))
    assert pose.azimuth_deg == azimuth_deg


def test_the_sample_is_out_beside_the_beam_at_any_tilt():
    goniometer = Goniometer(load_settings("real"), 1)
    for theta_deg in (-55.0, 0.0, 55.0):
        assert goniometer.pose(replace(POSITIVE, theta_deg=theta_deg)) is not None
        away = replace(POSITIVE, theta_deg=theta_deg, sample_x_um=200.0)
        assert goniometer.pose(away) is None


def test_an_offset_of_the_axis_makes_the_sample_swing():
    goniometer = Goniometer(with_goniometer(axis_offset_x_um=0.3, axis_offset_z_um=-0.4), 1)
    u_nm = [
        goniometer.pose(replace(POSITIVE, theta_deg=theta_deg)).shift_u_nm
        for theta_deg in (-90.0 + 1e-9, 0.0, 53.13010235415598)
    ]
    assert u_nm == pytest.approx([-400, 300, 300 * 0.6 + 400 * 0.8], abs=1e-3)


def test_what_lies_in_the_beam_depends_on_where_it_meets_the_film():
    """At 50 deg, 2 mm behind the axis, the beam meets the film 2.4 mm from its middle."""
    goniometer = Goniometer(load_settings("ideal"), 1)
    tilted = replace(POSITIVE, theta_deg=50.0, sample_z_um=80.0)
    assert goniometer.pose(tilted) is not None
    assert goniometer.pose(replace(tilted, sample_z_um=90.0)) is None
    assert goniometer.pose(replace(tilted, sample_z_um=90.0, sample_x_um=100.0)) is not None


def test_run_out_has_the_size_that_is_set_and_comes_back_at_every_visit():
    settings = with_goniometer(run_out_nm=40.0)
    angles_deg = np.arange(-55, 56)
    runs = np.array(
        [[Goniometer(settings, seed).run_out_nm(a) for a in angles_deg] for seed in range(30)]
    )
    assert runs.std() == pytest.approx(40, rel=0.1)
    goniometer = Goniometer(settings, 3)
    there = goniometer.pose(replace(POSITIVE, theta_deg=12.0))
    assert there == goniometer.pose(replace(POSITIVE, theta_deg=12.0, jaw_up_mm=-1.5))
    np.testing.assert_array_equal(there.shift_u_nm, runs[3][67][0])


def test_the_sphere_of_confusion_is_drawn_for_every_position():
    goniometer = Goniometer(with_goniometer(sphere_of_confusion_nm=10.0), 1)
    poses = [goniometer.pose(replace(POSITIVE, theta_deg=0.1 * n)) for n in range(400)]
    for of_axis in ("shift_u_nm", "shift_v_nm", "depth_nm"):
        values = [getattr(pose, of_axis) for pose in poses]
        assert np.std(values) == pytest.approx(10, rel=0.1)
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.15


def test_where_time_runs_every_motion_ends_elsewhere_in_the_sphere_of_confusion():
    goniometer = Goniometer(with_goniometer(sphere_of_confusion_nm=10.0), 1)
    poses = [goniometer.pose(replace(POSITIVE, visit=visit)) for visit in range(400)]
    assert np.std([pose.shift_u_nm for pose in poses]) == pytest.approx(10, rel=0.1)
    assert goniometer.pose(replace(POSITIVE, visit=7)) == poses[7]


def test_a_fault_of_the_azimuth_adds_what_it_says_to_the_hands_own_error():
    goniometer = Goniometer(with_goniometer(azimuth_error_deg=0.7), 1)
    turned = replace(POSITIVE, azimuth_deg=102.0)
    wrong = replace(turned, azimuth_error_deg=5.0)
    difference = goniometer.pose(wrong).azimuth_deg - goniometer.pose(turned).azimuth_deg
    assert difference == pytest.approx(5.0)


def test_a_turned_sample_is_not_put_where_it_was():
    settings = with_goniometer(mounting_nm=100.0)
    offsets = np.array([Goniometer(settings, seed).mounting_nm(102.0) for seed in range(200)])
    assert offsets.std() == pytest.approx(100, rel=0.15)
    goniometer = Goniometer(settings, 1)
    assert not goniometer.mounting_nm(0.0).any()
    x_nm, y_nm = goniometer.mounting_nm(102.0)
    pose = goniometer.pose(replace(POSITIVE, azimuth_deg=102.0))
    assert (pose.shift_u_nm, pose.shift_v_nm) == (pytest.approx(x_nm), pytest.approx(y_nm))


def test_the_hand_errs_except_where_the_frame_is_defined():
    settings = with_goniometer(azimuth_error_deg=0.7)
    errors = [Goniometer(settings, seed).azimuth_deg(102.0) - 102 for seed in range(200)]
    assert np.std(errors) == pytest.approx(0.7, rel=0.15)
    goniometer = Goniometer(settings, 1)
    assert goniometer.azimuth_deg(0.0) == 0
    assert goniometer.azimuth_deg(102.0) == goniometer.azimuth_deg(102.0)


def test_drift_begins_at_zero_and_has_the_velocity_that_is_set():
    settings = with_goniometer(drift_nm_per_h=60.0)
    velocities = []
    for seed in range(40):
        goniometer = Goniometer(settings, seed)
        start = goniometer.drift(0.0)
        assert (start.u_pixels, start.v_pixels) == (0, 0)
        for hour in range(20):
            a, b = goniometer.drift(3600.0 * hour), goniometer.drift(3600.0 * hour + 36)
            velocities.append((b.u_pixels - a.u_pixels) * PIXEL_NM * 100)
    assert np.std(velocities) == pytest.approx(60, rel=0.1)


def test_jitter_differs_from_exposure_to_exposure_and_is_repeatable():
    ideal = load_settings("ideal")
    image = ideal.image.model_copy(update={"jitter_pixels": 0.15})
    goniometer = Goniometer(ideal.model_copy(update={"image": image}), 1)
    shifts = [goniometer.jitter(POSITIVE, index) for index in range(500)]
    assert np.std([shift.u_pixels for shift in shifts]) == pytest.approx(0.15, rel=0.1)
    assert shifts[7] == goniometer.jitter(POSITIVE, 7)

"""Zone plate, shift and illumination against closed forms."""

import math

import numpy as np
import pytest
from scipy import fft
from scipy.integrate import quad

from mistral_txm.simulated_beamline import optics
from mistral_txm.simulated_beamline.settings import load_settings

REAL = load_settings("real")
ENERGY_EV = 707.4
WAVELENGTH_UM = 1.239842 / ENERGY_EV
ZONE_UM = 0.025
PIXEL_NM = 10.5
PAD = optics.PADDING


@pytest.fixture(scope="module")
def zone_plate():
    return optics.ZonePlate(REAL.zone_plate)


def transfer(zone_plate, s, defocus_um):
    """At a fraction s of the highest frequency."""
    frequency = np.atleast_1d(np.array(s, np.float32)) / 25.0
    return zone_plate.transfer(frequency, defocus_um, ENERGY_EV)


def grating(period_pixels, shape_vu, axis):
    """A cosine of contrast 0.5 about 1, and its phase in every pixel."""
    phase = 2 * np.pi * np.indices(shape_vu)[axis] / period_pixels
    return (1 + 0.5 * np.cos(phase)).astype(np.float32)


def contrast(image, period_pixels, axis):
    """Twice the Fourier coefficient over a whole number of periods, along an axis."""
    phase = 2 * np.pi * (np.arange(image.shape[axis]) + PAD) / period_pixels
    return 2 * np.moveaxis(image, axis, -1) @ np.exp(-1j * phase) / len(phase)


def test_in_focus_the_transfer_function_is_that_of_a_circular_aperture(zone_plate):
    """The textbook's values: 0.391 at half the cut-off, 0 beyond the cut-off at 1 / 25 nm."""
    np.testing.assert_allclose(
        transfer(zone_plate, [0.0, 0.5, 1.0, 1.5], 0.0), [1, 0.3910, 0, 0], atol=1e-4
    )


@pytest.mark.parametrize("waves", [0.1, 0.25, 0.5, 1.0, 3.0])
def test_out_of_focus_it_is_near_the_integral_over_the_pupil(zone_plate, waves):
    """H. H. Hopkins, Proc. R. Soc. A 231, 91 (1955): waves of defocus at the edge of the pupil."""

    def exact(s):
        value, _error = quad(
            lambda x: math.sqrt(max(1 - (x + s) ** 2, 0)) * math.cos(8 * math.pi * waves * s * x),
            0,
            1 - s,
            limit=200,
        )
        return 4 / math.pi * value

    aperture = WAVELENGTH_UM / (2 * ZONE_UM)
    defocus_um = 2 * waves * WAVELENGTH_UM / aperture**2
    s = np.linspace(0.02, 0.98, 25)
    np.testing.assert_allclose(
        transfer(zone_plate, s, defocus_um), [exact(each) for each in s], atol=0.02
    )


def test_a_depth_of_focus_away_the_peak_of_a_point_is_four_fifths(zone_plate):
    """lambda / (2 NA^2) = 2 zone^2 / lambda, where the peak is sinc(1/4)^2 = 0.81 (Rayleigh)."""
    depth_um = zone_plate.depth_of_focus_um(ENERGY_EV)
    assert depth_um == pytest.approx(2 * ZONE_UM**2 / WAVELENGTH_UM)
    s = np.linspace(0, 1, 2001)
    peaks = [np.trapezoid(transfer(zone_plate, s, z) * s, s) for z in (0.0, depth_um)]
    assert peaks[1] / peaks[0] == pytest.approx(0.8106, abs=0.02)


def test_focal_length_follows_the_energy(zone_plate):
    """f = 4 N zone^2 / wavelength with 1500 zones."""
    lengths_um = [4 * 1500 * ZONE_UM**2 * energy_ev / 1.239842 for energy_ev in (707.4, 778.1)]
    moved_um = zone_plate.best_focus_um(0.2, 778.1) - zone_plate.best_focus_um(0.2, 707.4)
    assert moved_um == pytest.approx(lengths_um[1] - lengths_um[0], rel=1e-3)


def test_focus_is_where_the_settings_have_it_for_either_helicity(zone_plate):
    focus_um = [zone_plate.best_focus_um(angle_mrad, ENERGY_EV) for angle_mrad in (0.2, 0.0, -0.2)]
    assert focus_um == pytest.approx([0.0, 0.75, 1.5])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("defocus_um", [0.0, 1.0, -1.0])
def test_a_grating_keeps_the_contrast_that_the_transfer_function_says(zone_plate, axis, defocus_um):
    period = 8
    object_vu = grating(period, (96, 96), axis)
    image_vu = zone_plate.image(object_vu, PIXEL_NM, defocus_um, 0.0, ENERGY_EV)
    expected = 0.5 * transfer(zone_plate, 25 / (period * PIXEL_NM), defocus_um)[0]
    assert image_vu.shape == (64, 64)
    np.testing.assert_allclose(contrast(image_vu, period, axis), expected, atol=2e-4)


@pytest.mark.parametrize("defocus_um", [0.0, 1.3, 60.0, 5000.0])
def test_an_even_light_stays_even(zone_plate, defocus_um):
    flat_vu = np.full((96, 128), 0.7, np.float32)
    image_vu = zone_plate.image(flat_vu, PIXEL_NM, defocus_um, 55.0, ENERGY_EV)
    np.testing.assert_allclose(image_vu, 0.7, rtol=1e-5)


def test_far_out_of_focus_nothing_is_left_of_a_pattern(zone_plate):
    object_vu = grating(16, (96, 96), 0)
    image_vu = zone_plate.image(object_vu, PIXEL_NM, 300.0, 0.0, ENERGY_EV)
    np.testing.assert_allclose(image_vu, 1.0, atol=0.01)


@pytest.mark.parametrize("theta_deg", [55.0, -20.0])
def test_each_column_of_a_tilted_film_has_its_own_defocus(zone_plate, theta_deg):
    """The lines of this grating cross all columns: its contrast in each is one number."""
    period, defocus_um = 8, 0.9
    image_vu = zone_plate.image(
        grating(period, (96, 32 + 400), 0), PIXEL_NM, defocus_um, theta_deg, ENERGY_EV
    )
    u_um = (np.arange(400) - 199.5) * PIXEL_NM / 1000
    expected = [
        0.5 * transfer(zone_plate, 25 / (period * PIXEL_NM), z)[0]
        for z in defocus_um + u_um * math.tan(math.radians(theta_deg))
    ]
    np.testing.assert_allclose(contrast(image_vu, period, 0), expected, atol=0.003)


def test_a_film_tilted_by_a_positive_angle_lies_deeper_at_positive_u(zone_plate):
    """k' = (sin, 0, cos): x' > 0 lies behind. With the middle too deep, the focus is at u < 0."""
    image_vu = zone_plate.image(grating(6, (96, 32 + 400), 0), PIXEL_NM, 1.0, 45.0, ENERGY_EV)
    sharpest_um = (np.argmax(contrast(image_vu, 6, 0).real) - 199.5) * PIXEL_NM / 1000
    assert sharpest_um == pytest.approx(-1.0, abs=0.1)


def test_a_tilted_film_of_any_pattern_is_imaged_column_by_column(zone_plate):
    object_vu = np.random.default_rng(3).random((96, 32 + 200), dtype=np.float32)
    image_vu = zone_plate.image(object_vu, PIXEL_NM, 0.2, 60.0, ENERGY_EV)
    for column in (0, 40, 101, 199):
        depth_um = 0.2 + (column - 99.5) * PIXEL_NM / 1000 * math.tan(math.radians(60.0))
        even_vu = zone_plate.image(object_vu, PIXEL_NM, depth_um, 0.0, ENERGY_EV)
        difference_v = image_vu[:, column] - even_vu[:, column]
        assert np.std(difference_v) < 0.01 * np.std(even_vu)


def test_without_tilted_focus_the_tilt_is_of_no_matter():
    ideal = optics.ZonePlate(load_settings("ideal").zone_plate)
    object_vu = np.random.default_rng(3).random((96, 96), dtype=np.float32)
    images = [ideal.image(object_vu, PIXEL_NM, 0.2, tilt, ENERGY_EV) for tilt in (0.0, 55.0)]
    np.testing.assert_array_equal(*images)


def pattern(v, u):
    """Waves of all directions, up to 0.37 cycles per pixel: the zone plate passes 0.42."""
    waves = [(0.02, 0.05), (0.21, -0.11), (-0.1, 0.3), (0.37, 0.02), (0.0, 0.37), (0.25, 0.25)]
    return sum(np.cos(2 * np.pi * (a * v + b * u) + a) for a, b in waves)


@pytest.mark.parametrize(
    ("du", "dv"), [(0.5, 0.5), (-0.37, 2.81), (3.0, -0.25), (-4.0, 1.0), (0.999, 0.001)]
)
def test_shift_moves_the_content_and_keeps_its_detail(du, dv):
    v, u = np.indices((80, 90)).astype(float)
    moved_vu = optics.shifted(pattern(v, u).astype(np.float32), du, dv, margin=12)
    expected_vu = pattern(v - dv, u - du)[12:-12, 12:-12]
    assert np.abs(moved_vu - expected_vu).max() < 0.002 * np.ptp(expected_vu)


def test_shift_keeps_the_mean_of_a_uniform_image():
    image_vu = np.full((40, 40), 0.3, np.float32)
    np.testing.assert_allclose(optics.shifted(image_vu, 0.3, -0.6, 10), 0.3, rtol=1e-6)


def test_shift_refuses_a_margin_that_is_too_narrow():
    with pytest.raises(ValueError, match="margin of 9: expected"):
        optics.shifted(np.ones((40, 40), np.float32), 0.0, -1.5, 9)


def test_illumination_has_the_structure_of_its_settings():
    image_vu = optics.Illumination(REAL.illumination, (512, 512), 1).image(0.0, 0.0)
    assert image_vu.mean() == pytest.approx(1.0, abs=1e-6)
    assert image_vu.std() == pytest.approx(math.hypot(0.06, 0.015), rel=0.05)
    other_vu = optics.Illumination(REAL.illumination, (512, 512), 2).image(0.0, 0.0)
    assert abs(np.corrcoef(image_vu.ravel(), other_vu.ravel())[0, 1]) < 0.5


def test_helicities_differ_by_a_slope_of_the_illumination():
    illumination = optics.Illumination(REAL.illumination, (128, 128), 1)
    ratio_vu = illumination.image(0.2, 0.0) / illumination.image(-0.2, 0.0)
    assert ratio_vu[-1].mean() - ratio_vu[0].mean() == pytest.approx(0.04, rel=0.02)
    assert ratio_vu.mean() == pytest.approx(1.0, abs=0.01)


def test_illumination_walks_at_its_rate_in_a_direction_of_its_own():
    """The phase of a slow wave tells how far; the structure has no seams, so it tells exactly."""
    settings = REAL.illumination.model_copy(update={"drift_pixels_per_h": 2.0})
    directions = []
    for seed in (1, 2, 3):
        illumination = optics.Illumination(settings, (128, 128), seed)
        begin, later = (fft.fft2(illumination.image(0.0, time_s)) for time_s in (0.0, 3.3 * 3600))
        distances = []
        for wave in ((0, 1), (1, 0)):
            distances.append(-np.angle(later[wave] / begin[wave]) * 128 / (2 * np.pi))
        assert math.hypot(*distances) == pytest.approx(6.6, abs=0.02)
        directions.append(math.atan2(*distances))
        v, u = np.meshgrid(fft.fftfreq(128), fft.fftfreq(128), indexing="ij")
        moved = begin * np.exp(-2j * np.pi * (u * distances[0] + v * distances[1]))
        np.testing.assert_allclose(fft.ifft2(moved).real, fft.ifft2(later).real, atol=2e-4)
    assert np.ptp(directions) > 0.1


def test_illumination_comes_back_when_time_does():
    illumination = optics.Illumination(REAL.illumination, (64, 64), 1)
    images = [illumination.image(0.2, hours * 3600.0) for hours in (0.0, 5.5, 100.0, 5.5)]
    np.testing.assert_array_equal(images[1], images[3])
    assert np.abs(images[1] - images[0]).max() > 0.01


def test_illumination_without_drift_stays():
    illumination = optics.Illumination(load_settings("ideal").illumination, (64, 64), 1)
    np.testing.assert_array_equal(illumination.image(0.2, 0.0), illumination.image(0.2, 1e6))

"""Views of a film that is written down as it is: S = mz + tan(theta) mx, looked up at u = x cos(theta)."""

import doctest

import numpy as np
import pytest
import scipy.ndimage

from mistral_txm.reconstruction import view_comparison, view_quality
from mistral_txm.reconstruction.signal import Signals
from mistral_txm.reconstruction.view_comparison import coarse_view, compared, predicted

SIZE, STD = 160, 0.02


def blobs(seed, width):
    rng = np.random.default_rng(seed)
    image = scipy.ndimage.gaussian_filter(rng.normal(size=(SIZE, 2 * SIZE)), width)
    return image / image.std()


MZ, MX, MARKS = 0.15 * blobs(1, 6), 0.1 * blobs(2, 6), 0.05 * blobs(3, 2)


def view(theta_deg, *, moved_vu=(0, 0), gains=(1.0, 1.0), blurred=0.0, noise=STD, seed=0):
    """Signals of a view; each helicity shows its gain times the contrast."""
    theta = np.deg2rad(theta_deg)
    signal, marks = MZ + np.tan(theta) * MX, MARKS / np.cos(theta)
    if blurred:
        signal, marks = (scipy.ndimage.gaussian_filter(one, blurred) for one in (signal, marks))
    v, u = np.mgrid[:SIZE, :SIZE].astype(float)
    at = [
        v - moved_vu[0],
        (u - moved_vu[1] - (SIZE - 1) / 2) / np.cos(theta) + (2 * SIZE - 1) / 2,
    ]
    signal, marks = (
        scipy.ndimage.map_coordinates(one, at, order=1, mode="nearest") for one in (signal, marks)
    )
    rng = np.random.default_rng([seed, round(100 * (theta_deg + 90))])
    plus, minus = (
        1 / np.cos(theta)
        + marks
        + sign * gain * signal
        + noise * np.sqrt(2) * rng.normal(size=v.shape)
        for sign, gain in zip((1, -1), gains, strict=True)
    )
    images = ((plus + minus) / 2, (plus - minus) / 2, np.full(v.shape, noise))
    return Signals(*(np.asarray(image, np.float32) for image in images))


def against_neighbours(signals, theta_deg=12.0):
    others = [coarse_view(view(each), each) for each in (-3.0, 2.0, 7.0)]
    expected = predicted(theta_deg, others)
    return compared(coarse_view(signals, theta_deg), expected)


@pytest.mark.parametrize("module", [view_comparison, view_quality])
def test_the_examples_work(module):
    assert doctest.testmod(module).failed == 0


def test_a_view_like_its_neighbours_has_all_of_their_contrast():
    found = against_neighbours(view(12.0))
    assert found.gain_plus == pytest.approx(1, abs=0.05)
    assert found.gain_minus == pytest.approx(1, abs=0.05)
    assert found.gain_absorption == pytest.approx(1, abs=0.1)
    assert found.correlation > 0.95
    assert found.jump_pixels < 2


def test_swapped_helicities_turn_both_gains():
    found = against_neighbours(view(12.0, gains=(-1.0, -1.0)))
    assert (found.gain_plus, found.gain_minus) == pytest.approx((-1, -1), abs=0.05)
    assert not found.is_of_one_helicity


def test_two_images_of_one_helicity_are_seen():
    assert against_neighbours(view(12.0, gains=(1.0, -1.0))).is_of_one_helicity


def test_a_weak_helicity_is_named():
    found = against_neighbours(view(12.0, gains=(1.0, 0.7)))
    assert (found.gain_plus, found.gain_minus) == pytest.approx((1.0, 0.7), abs=0.06)


@pytest.mark.parametrize("moved_vu", [(7, -5), (30, 20), (-12, 41)])
def test_a_sample_that_moved_is_found_where_it_is(moved_vu):
    found = against_neighbours(view(12.0, moved_vu=moved_vu))
    expected = np.array(moved_vu) / (1, np.cos(np.deg2rad(12.0)))
    np.testing.assert_allclose(found.shift_yx * 2, expected, atol=1.5)
    assert found.jump_pixels == pytest.approx(np.hypot(*expected), abs=2)
    assert found.gain == pytest.approx(1, abs=0.1)


def test_where_the_signal_goes_through_zero_nothing_is_said():
    signs = [coarse_view(view(each), each) for each in (-9.0, -6.0, -3.0)]
    for one in signs:
        one.dichroic_yx[:] = one.tangent  # a film without m_z
    assert predicted(0.5, signs) is None
    assert predicted(-40.0, signs) is None  # nothing is near


def test_the_noise_is_taken_off_what_a_view_shows():
    clean, noisy = (
        view_quality.view_quality(view(5.0, noise=1e-4), 5.0),
        view_quality.view_quality(view(5.0, noise=0.05), 5.0),
    )
    assert noisy.noise == pytest.approx(0.05)
    assert noisy.contrast * noisy.noise == pytest.approx(clean.contrast * clean.noise, rel=0.03)
    assert noisy.sharpness == pytest.approx(clean.sharpness, rel=0.1)
    assert clean.absorbance == pytest.approx(1.0, abs=0.01)


def test_a_blurred_view_is_less_sharp():
    sharp, blurred = (
        view_quality.view_quality(view(5.0, blurred=b), 5.0).sharpness for b in (0.0, 5.0)
    )
    assert blurred < 0.6 * sharp

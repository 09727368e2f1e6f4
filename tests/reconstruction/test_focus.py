"""Sharpness against a closed form and Monte Carlo; focus against images blurred by another library."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mistral_txm.reconstruction.focus import best_focus, sharpness
from mistral_txm.reconstruction.geometry import InputError


def wave(contrast=0.3, periods=5, size=40):
    return 1 + contrast * np.cos(2 * np.pi * periods * np.arange(size) / size) * np.ones((size, 1))


def test_sharpness_of_a_wave():
    """cos(a + 2 w) - cos(a) = -2 sin(w) sin(a + w), of mean square 2 sin(w)^2 over whole periods."""
    period_pixels = 8.0
    image = 1 + 0.3 * np.cos(2 * np.pi * np.arange(42) / period_pixels) * np.ones((42, 1))
    expected = 2 * 0.3**2 * np.sin(2 * np.pi / period_pixels) ** 2
    assert sharpness(np.stack([image, image])) * np.mean(image) ** 2 == pytest.approx(expected)
    assert sharpness(np.stack([image.T] * 3)) * np.mean(image) ** 2 == pytest.approx(expected)


def test_sharpness_does_not_depend_on_flux_or_noise():
    random = np.random.default_rng(1)
    clean = sharpness(np.stack([wave(), wave()]))
    for photons in (3.0, 30.0, 3000.0):
        found = [sharpness(random.poisson(photons * wave(), (3, 40, 40))) for _ in range(200)]
        assert np.mean(found) == pytest.approx(clean, abs=4 * np.std(found) / np.sqrt(200))
    assert clean > 0.01


def test_a_zinger_and_pixels_that_say_nothing_do_not_count():
    images = np.stack([wave()] * 3)
    clean = sharpness(images)
    images[:, 7, 9] = np.nan
    assert sharpness(images) == pytest.approx(clean, rel=0.01)
    images[1, 20, 20] = 50.0
    averaged = np.stack([images.mean(axis=0)] * 2)
    assert sharpness(averaged) > 5 * clean
    assert sharpness(images) == pytest.approx(clean, rel=0.2)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.ones((1, 8, 8)), "at least 2 repeats"),
        (np.ones((8, 8)), "expected images"),
        (np.zeros((2, 8, 8)), "is the shutter open"),
        (np.full((2, 8, 8), np.nan), "no two pixels"),
        (np.where(np.indices((2, 8, 8))[1] // 2 % 2, 1.0, np.nan), "no two pixels"),
    ],
)
def test_images_that_tell_no_sharpness_are_refused(images, expected):
    with pytest.raises(InputError, match=expected):
        sharpness(images)


@pytest.mark.parametrize("best_um", [-0.7, 0.0, 1.5])
def test_the_best_focus_of_blurred_discs(best_um):
    random = np.random.default_rng(2)
    v, u = np.indices((96, 96))
    scene = np.ones((96, 96))
    for centre in random.uniform(10, 86, (8, 2)):
        scene[np.hypot(v - centre[0], u - centre[1]) < 5] = 0.4
    z_um = np.arange(-4.0, 5.1, 1.0)
    curve = [
        sharpness(random.poisson(400 * gaussian_filter(scene, 0.8 + abs(z - best_um)), (3, 96, 96)))
        for z in z_um
    ]
    focus = best_focus(z_um, curve)
    assert focus.best_um == pytest.approx(best_um, abs=0.15)
    assert focus.std_um < 0.2
    assert focus.curve(focus.best_um) == pytest.approx(focus.background + focus.height)


def test_the_standard_deviation_is_that_of_simulated_curves():
    random = np.random.default_rng(3)
    z_um = np.linspace(-5, 5, 21)
    truth = 0.2 + np.exp(-((z_um - 0.4) ** 2) / (2 * 1.5**2))
    fits = [best_focus(z_um, truth + random.normal(0, 0.05, z_um.shape)) for _ in range(150)]
    found = np.array([fit.best_um for fit in fits])
    assert found.mean() == pytest.approx(0.4, abs=4 * found.std() / np.sqrt(150))
    assert found.std() == pytest.approx(np.mean([fit.std_um for fit in fits]), rel=0.2)


def test_positions_may_come_in_any_order():
    z_um = np.linspace(-3, 3, 13)
    values = 1 + np.exp(-((z_um - 0.3) ** 2))
    one, other = best_focus(z_um, values), best_focus(z_um[::-1], values[::-1])
    assert one.best_um == pytest.approx(other.best_um) == pytest.approx(0.3)


REFUSED = [
    (np.arange(5.0), np.arange(5.0), "sharpest at 4 um, the end of the range 0 to 4 um"),
    (np.arange(5.0), -np.arange(5.0), "sharpest at 0 um, the end of the range"),
    (np.arange(4.0), np.array([0.0, 1, 1, 0]), "at least 5 different positions"),
    (np.arange(5.0), np.array([0.0, 1, 1, 0]), "and one value each"),
]


@pytest.mark.parametrize(("z_um", "values", "expected"), REFUSED)
def test_what_is_no_focus_is_refused(z_um, values, expected):
    with pytest.raises(InputError, match=expected):
        best_focus(z_um, values)


def test_scatter_alone_is_no_focus():
    random = np.random.default_rng(5)
    z_um = np.linspace(-3, 3, 13)
    refused = 0
    for _ in range(40):
        try:
            best_focus(z_um, 1 + random.normal(0, 0.1, z_um.shape))
        except InputError:
            refused += 1
    assert refused > 20

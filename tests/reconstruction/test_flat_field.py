"""The open beam between flats: its noise, its walk, and the variance that is stated."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mistral_txm.reconstruction.flat_field import field_at, flat_field, walk
from mistral_txm.reconstruction.frames import Rate

SHAPE = (128, 128)
PHOTONS = 1500.0


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def light(rng):
    """Light with 6 % of structure of 20 pixels and 1.5 % of 4 pixels; a function of where it has walked to."""
    wide = (256, 256)

    def structure(scale, rms):
        noise = gaussian_filter(rng.standard_normal(wide), scale, mode="wrap")
        return rms * noise / noise.std()

    spectrum = np.fft.rfft2(np.exp(structure(20, 0.06) + structure(4, 0.015)))
    f_v, f_u = np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None, :]

    def at(shift_v=0.0, shift_u=0.0):
        turned = spectrum * np.exp(-2j * np.pi * (f_v * shift_v + f_u * shift_u))
        return np.fft.irfft2(turned, wide)[64:192, 64:192]

    return at


def measured(rng, light_vu, photons=PHOTONS):
    counts = rng.poisson(photons * light_vu).astype(float)
    return Rate(counts, np.maximum(counts, 1.0))


def test_the_filter_takes_the_noise_and_states_what_is_left(rng, light):
    true = PHOTONS * light()
    square, stated = [], []
    for _ in range(12):
        field = flat_field(measured(rng, light()), 0.0)
        square.append(np.mean((field.rate.rate_vu / true - 1) ** 2))
        stated.append(np.mean(field.rate.var_vu / true**2))
    assert np.mean(stated) == pytest.approx(np.mean(square), rel=0.2)
    assert np.sqrt(np.mean(square)) < 0.3 / np.sqrt(PHOTONS)


def test_structure_of_the_detector_is_kept_once_flats_show_it(rng, light):
    """Pixels that differ by 2 %: with noise of 0.5 % nearly all of it is left, never more than the noise is added."""
    pixels = 1 + 0.02 * rng.standard_normal(SHAPE)
    field = flat_field(measured(rng, light() * pixels, 40000.0), 0.0)
    error = field.rate.rate_vu / (40000 * light() * pixels) - 1
    assert error.std() < 1.05 / np.sqrt(40000)
    assert np.mean(field.rate.var_vu / field.rate.rate_vu**2) == pytest.approx(
        error.var(), rel=0.15
    )


def test_a_grain_of_dust_is_not_smoothed_away(rng, light):
    dust = np.ones(SHAPE)
    dust[60:63, 40:43] = 0.7
    rate = measured(rng, light() * dust)
    field = flat_field(rate, 0.0)
    inside = np.s_[60:63, 40:43]
    np.testing.assert_array_equal(field.rate.rate_vu[inside], rate.rate_vu[inside])
    np.testing.assert_array_equal(field.rate.var_vu[inside], rate.var_vu[inside])


def test_unknown_pixels_stay_unknown_and_spoil_nothing(rng, light):
    rate = measured(rng, light())
    rate.rate_vu[30, 30], rate.var_vu[30, 30] = np.nan, np.inf
    field = flat_field(rate, 0.0)
    assert np.isnan(field.rate.rate_vu).sum() == 1
    assert np.isinf(field.relative.var_vu).sum() == 1
    rest = np.delete((field.rate.rate_vu / light() / PHOTONS).ravel(), 30 * 128 + 30)
    assert np.abs(rest - 1).max() < 6 * 0.3 / np.sqrt(PHOTONS)


def test_the_light_is_followed_where_it_walked(rng, light):
    before = flat_field(measured(rng, light()), 0.0)
    after = flat_field(measured(rng, light(9.0, -6.0)), 3600.0)
    walked = walk(before, after)
    assert walked == pytest.approx([9.0, -6.0], abs=0.3)
    error = {}
    for name, way in (("linear", None), ("followed", walked)):
        field = field_at(1440.0, before, after, way)
        rest = (field.rate.rate_vu / PHOTONS / light(3.6, -2.4) - 1)[12:-12, 12:-12]
        error[name] = rest.std()
        stated = np.sqrt(np.mean(field.relative.var_vu))
    assert error["followed"] < 0.4 * error["linear"]
    assert error["followed"] < 1.5 * stated


def test_light_that_stays_is_not_followed(rng, light):
    fields = [flat_field(measured(rng, light()), 0.0) for _ in range(2)]
    assert walk(*fields) is None


def test_structure_that_changes_without_a_walk_is_interpolated(rng, light):
    one, other = (
        flat_field(measured(rng, image), t) for image, t in ((light(), 0.0), (light() ** 2, 10.0))
    )
    assert walk(one, other) is None
    field = field_at(2.5, one, other, None)
    expected = 0.75 * light() + 0.25 * light() ** 2
    assert (field.rate.rate_vu / PHOTONS / expected).std() < 0.3 / np.sqrt(PHOTONS)


def test_before_and_after_all_flats_the_nearest_ones_count(rng, light):
    one, other = (flat_field(measured(rng, light()), t) for t in (0.0, 10.0))
    for time_s, nearest in ((-5.0, one), (99.0, other)):
        field = field_at(time_s, one, other, None)
        np.testing.assert_array_equal(field.rate.rate_vu, nearest.rate.rate_vu)
        np.testing.assert_array_equal(field.rate.var_vu, nearest.rate.var_vu)

"""Frames to dichroic signal: closed forms, and a Monte Carlo for every standard deviation."""

import numpy as np
import pytest

from mistral_txm.reconstruction.frames import dark_level, mean_rate, measure_noise
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.signal import absorbance, helicity_signals

GAIN = 60.0
READ_COUNTS = 12.0
OFFSET = 300.0


def expose(rng, photons_vu, frames):
    """Take frames of a camera with known gain, read noise and offset."""
    shape = (frames, *np.shape(photons_vu))
    return (
        OFFSET
        + GAIN * rng.poisson(np.broadcast_to(photons_vu, shape))
        + rng.normal(0, READ_COUNTS, shape)
    )


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def dark(rng):
    return dark_level(expose(rng, np.zeros((64, 64)), 20))


def test_dark_level_and_its_variance(dark):
    assert dark.level_vu.mean() == pytest.approx(OFFSET, abs=0.3)
    assert dark.variance == pytest.approx(READ_COUNTS**2, rel=0.02)
    assert not dark.hot_vu.any()


def test_a_hot_pixel_is_known_by_its_dark_level(rng):
    frames = expose(rng, np.zeros((16, 16)), 5)
    frames[:, 3, 4] += 2000
    assert np.argwhere(dark_level(frames).hot_vu).tolist() == [[3, 4]]


def test_gain_from_photon_transfer_whatever_the_current_does(rng, dark):
    dose = np.linspace(700, 800, 30)
    flats = np.stack([expose(rng, np.full((64, 64), d / 2), 1)[0] for d in dose])
    assert measure_noise(flats, dark, dose) == pytest.approx(GAIN, rel=0.02)


def test_the_variance_of_a_rate_is_the_scatter_of_many(rng, dark):
    photons = np.full((64, 64), 150.0)
    rates = [mean_rate(expose(rng, photons, 3), dark, [8.0] * 3, GAIN) for _ in range(60)]
    scatter = np.var([rate.rate_vu for rate in rates], axis=0, ddof=1).mean()
    # The dark level is the same in all of them: its part of the variance does not scatter.
    stated = np.mean([rate.var_vu for rate in rates]) - dark.variance / dark.frames / 8.0**2
    assert stated == pytest.approx(scatter, rel=0.03)
    assert np.mean([rate.rate_vu for rate in rates]) == pytest.approx(150 * GAIN / 8, rel=2e-3)


def test_standard_deviation_of_the_dichroic_signal_by_monte_carlo(rng, dark):
    """Absorbances 1.2 and 0.9 through flats of 400 photons: S = 0.15, absorption 1.05."""
    shape = (64, 64)
    signals = []
    for _ in range(40):
        helicities = []
        for absorbance_vu in (1.2, 0.9):
            flat = mean_rate(expose(rng, np.full(shape, 400.0), 10), dark, [3.0] * 10, GAIN)
            sample = expose(rng, np.full(shape, 400 / 3 * 8 * np.exp(-absorbance_vu)), 3)
            helicities.append(absorbance(mean_rate(sample, dark, [8.0] * 3, GAIN), flat))
        signals.append(helicity_signals(*helicities))
    dichroic = np.array([one.dichroic_vu for one in signals])
    assert dichroic.mean() == pytest.approx(0.15, abs=1e-3)
    assert np.mean([one.absorption_vu for one in signals]) == pytest.approx(1.05, abs=2e-3)
    assert np.mean([one.std_vu for one in signals]) == pytest.approx(
        dichroic.std(axis=0, ddof=1).mean(), rel=0.03
    )


def test_swapped_helicities_change_the_sign_and_nothing_else():
    one, other = (np.array([[0.9]]), np.array([[0.01]])), (np.array([[0.5]]), np.array([[0.02]]))
    straight, swapped = helicity_signals(one, other), helicity_signals(other, one)
    assert straight.dichroic_vu == -swapped.dichroic_vu
    assert straight.absorption_vu == swapped.absorption_vu
    assert straight.std_vu == swapped.std_vu


def test_a_zinger_is_left_out_of_the_repeat_that_it_hit(rng, dark):
    frames = expose(rng, np.full((64, 64), 200.0), 5)
    clean = mean_rate(frames, dark, [1.0] * 5, GAIN)
    frames[2, 10, 10] += 30000
    hit = mean_rate(frames, dark, [1.0] * 5, GAIN)
    assert hit.rate_vu[10, 10] == pytest.approx(200 * GAIN, rel=0.2)
    assert hit.var_vu[10, 10] > clean.var_vu[10, 10]
    hit.rate_vu[10, 10] = clean.rate_vu[10, 10]
    np.testing.assert_array_equal(hit.rate_vu, clean.rate_vu)


def test_what_says_nothing_is_nan_and_infinite_not_clamped(rng, dark):
    frames = np.full((3, 64, 64), 5000.0)
    frames[:, 0, 0] = 65535
    frames[:, 1, 1] = OFFSET - 50
    sample = mean_rate(frames, dark, [1.0] * 3, GAIN, saturation_counts=65535)
    flat = mean_rate(np.full((3, 64, 64), 9000.0), dark, [1.0] * 3, GAIN)
    value_vu, variance_vu = absorbance(sample, flat)
    assert np.isnan(value_vu[0, 0])
    assert np.isinf(variance_vu[0, 0])
    assert np.isnan(value_vu[1, 1])
    assert np.isfinite(value_vu).sum() == value_vu.size - 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda dark: dark_level(np.zeros((1, 4, 4))), "at least 2"),
        (lambda dark: mean_rate(np.zeros((4, 4)), dark, [1.0], 1.0), "expected frames"),
        (lambda dark: mean_rate(np.zeros((2, 64, 64)), dark, [1.0], 1.0), "expected 2 positive"),
        (lambda dark: mean_rate(np.zeros((1, 64, 64)), dark, [0.0], 1.0), "expected 1 positive"),
        (
            lambda dark: measure_noise(np.full((3, 64, 64), OFFSET - 9), dark, [1.0] * 3),
            "shutter",
        ),
    ],
)
def test_bad_input_is_one_line(dark, call, message):
    with pytest.raises(InputError, match=message) as refusal:
        call(dark)
    assert "\n" not in str(refusal.value)

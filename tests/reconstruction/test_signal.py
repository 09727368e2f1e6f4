"""Frames to dichroic signal: closed forms, and a Monte Carlo for every standard deviation."""

import numpy as np
import pytest

from mistral_txm.reconstruction.frames import (
    Dark,
    dark_at,
    dark_level,
    mean_rate,
    measure_noise,
    stack_of,
)
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


def rng_frames(rng, photons_t, shape):
    """One frame for each mean number of photons."""
    return np.concatenate([expose(rng, np.full(shape, photons), 1) for photons in photons_t])


def dark_of(level_vu):
    """A dark level without noise."""
    return Dark(level_vu, 1e-9, 1e9, np.zeros(level_vu.shape, bool))


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


def test_a_zinger_in_a_dark_frame_makes_no_pixel_hot(rng):
    frames = expose(rng, np.zeros((32, 32)), 5)
    frames[3, 8, 9] += 9000
    dark = dark_level(frames)
    assert not dark.hot_vu.any()
    assert dark.level_vu[8, 9] == pytest.approx(OFFSET, abs=5 * READ_COUNTS / 2)
    assert dark.variance == pytest.approx(READ_COUNTS**2, rel=0.1)


@pytest.mark.parametrize("exposure_s", [3.0, 6.0, 12.0, 20.0])
def test_the_dark_level_between_two_times_and_its_variance(exposure_s):
    """Offset 300 and 2 counts/s, measured at 3 and 12 s: the level and the scatter of many."""
    rng = np.random.default_rng(8)
    levels, stated = [], []
    for _ in range(30):
        darks = {t: dark_level(expose(rng, np.zeros((24, 24)), 5) + 2 * t) for t in (3.0, 12.0)}
        found = dark_at(darks, exposure_s)
        levels.append(found.level_vu)
        stated.append(found.variance / found.frames)
    assert np.mean(levels) == pytest.approx(OFFSET + 2 * exposure_s, abs=0.5)
    scatter = np.var(levels, axis=0, ddof=1).mean()
    assert np.mean(stated) == pytest.approx(scatter, rel=0.06)


def test_repeats_of_different_times_have_darks_of_their_own(rng):
    """Counts of 2 and 8 s over dark levels that differ by 600 counts; the rate is that of the light."""
    darks = {t: dark_of(np.full((48, 48), OFFSET + 100 * t)) for t in (2.0, 8.0)}
    counts = [expose(rng, np.full((48, 48), 20 * t), 2) + 100 * t for t in (2.0, 8.0)]
    stack = stack_of(
        np.concatenate(counts), [darks[t] for t in (2.0, 2.0, 8.0, 8.0)], [2.0, 2.0, 8.0, 8.0]
    )
    rate = stack.sums(GAIN).rate
    assert rate.rate_vu.mean() == pytest.approx(20 * GAIN, rel=2e-3)
    # Photon noise of all 20 s together: long exposures count more than short ones.
    assert rate.rate_vu.var() == pytest.approx(20 * GAIN**2 / 20, rel=0.1)


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


@pytest.mark.parametrize(("photons", "repeats"), [(2000, 3), (500, 1), (500, 2), (30, 1)])
def test_standard_deviation_of_both_signals_by_monte_carlo(dark, photons, repeats):
    """All of the chain, flats and a decaying current included; `photons` in all, of the darker helicity."""
    rng = np.random.default_rng(photons + repeats)
    shape, flux, flat_s = (64, 64), 300.0 / 250, 1.0
    current = 250 * np.exp(-np.arange(5 + repeats) / 60)
    exposure_s = photons * np.exp(1.2) / flux / current[5:].sum()
    flat_dose, dose = flat_s * current[:5], exposure_s * current[5:]
    signals = []
    for _ in range(30):
        helicities = []
        for absorbance_vu in (1.2, 0.9):
            flat = mean_rate(rng_frames(rng, flux * flat_dose, shape), dark, flat_dose, GAIN)
            counts = rng_frames(rng, flux * np.exp(-absorbance_vu) * dose, shape)
            helicities.append(absorbance(mean_rate(counts, dark, dose, GAIN), flat))
        signals.append(helicity_signals(*helicities))
    for name, true in (("dichroic_vu", 0.15), ("absorption_vu", 1.05)):
        found = np.array([getattr(one, name) for one in signals], np.float64)
        scatter = np.sqrt(np.nanvar(found, axis=0, ddof=1).mean())
        stated = np.sqrt(np.mean([np.square(one.std_vu, dtype=float) for one in signals]))
        # The next order of the logarithm: 30 photons scatter by 3 % more.
        assert stated == pytest.approx(scatter, rel=0.05 if photons < 100 else 0.02), name
        assert np.nanmean(found) == pytest.approx(
            true, abs=4 * scatter / np.sqrt(found.size) + 4e-4
        )


def test_the_logarithm_has_no_bias_left_at_30_photons(dark):
    """Uncorrected, 30 photons through the film and 10 000 beside it show 1.7 % of an absorption length too much."""
    rng = np.random.default_rng(3)
    counts = rng.poisson(30.0, (1, 400, 400)) * GAIN + 0.0
    known = dark_of(np.zeros((400, 400)))
    flat = mean_rate(np.full((2, 400, 400), 10000 * GAIN), known, [1.0, 1.0], GAIN)
    a_vu, _ = absorbance(mean_rate(counts, known, [1.0], GAIN), flat)
    sample = mean_rate(counts, known, [1.0], GAIN).rate_vu
    plain = -np.log(np.where(sample > 0, sample, np.nan) / flat.rate_vu)
    true = np.log(10000 / 30)
    assert np.nanmean(plain) - true == pytest.approx(1 / 60, rel=0.1)
    assert abs(np.nanmean(a_vu) - true) < 1e-3


def test_the_flats_part_of_the_variance_is_common_to_views(rng, dark):
    """The covariance of two views with the same flats is (var F(+) / F(+)^2 + var F(-) / F(-)^2) / 4."""
    shape, product, expected = (64, 64), [], []
    for _ in range(40):
        flats = [
            mean_rate(rng_frames(rng, [200.0] * 3, shape), dark, [1.0] * 3, GAIN) for _ in "+-"
        ]
        views = []
        for _ in range(2):
            samples = [mean_rate(rng_frames(rng, [400.0], shape), dark, [4.0], GAIN) for _ in "+-"]
            pair = [absorbance(sample, flat) for sample, flat in zip(samples, flats, strict=True)]
            views.append(helicity_signals(*pair).dichroic_vu.astype(float))
        product.append(np.mean((views[0] - views[0].mean()) * (views[1] - views[1].mean())))
        expected.append(sum(np.mean(one.var_vu / one.rate_vu**2) for one in flats) / 4)
    assert np.mean(product) == pytest.approx(np.mean(expected), rel=0.06)


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

"""Photon statistics and limits of the CCD."""

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from mistral_txm.simulated_beamline import detector
from mistral_txm.simulated_beamline.detector import Ccd
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.settings import load_settings

SHAPE = (256, 256)
CAMERA = load_settings("ideal").camera
GAIN = CAMERA.gain_electrons_per_count
ELECTRONS_PER_PHOTON = 707.4 / 3.65
LEVELS = (2.0, 5.0, 12.0, 30.0, 80.0, 150.0, 250.0, 350.0)


def changed(**values):
    return CAMERA.model_copy(update=values)


@pytest.fixture(scope="module")
def ccd():
    return Ccd(CAMERA, SHAPE, seed=1)


def whole(bin_x=1, bin_y=1):
    return Region(0, 0, SHAPE[1], SHAPE[0], bin_x, bin_y)


def read(ccd, photons, exposure_s=1.0, seed=0, region=None, **options):
    image = None if photons is None else np.full(SHAPE, photons, np.float32)
    random = np.random.default_rng(seed)
    return ccd.read(image, 707.4, exposure_s, random, region=region or whole(), **options)


def cold(ccd, counts):
    """The counts of the pixels that are not hot."""
    return counts.astype(float)[~ccd.hot_vu]


def variance_misfit(means, variances, pixels, slope, intercept):
    """Chi-square of variances against a line: of N pixels, Var(s^2) = sigma^4 (2 / N + k / N).

    k is the excess of the fourth moment of the photons, 1 / their number.
    """
    expected = intercept + slope * means
    photons = expected * GAIN / ELECTRONS_PER_PHOTON / slope
    relative = np.sqrt((2 + 1 / photons) / pixels)
    return float(np.sum(((variances / expected - 1) / relative) ** 2))


@pytest.mark.parametrize(("bin_x", "bin_y"), [(1, 1), (2, 1)])
def test_variance_against_mean_is_a_line_of_the_right_slope(bin_x, bin_y):
    """In counts above those of a dark: Var = (electrons per photon / gain) mean + noise^2.

    The noise is that of the amplifier, of the dark electrons, and of rounding, 1 / 12. Binning on
    the chip adds photons and dark electrons, but the noise of the amplifier only once.
    """
    ccd = Ccd(changed(hot_pixels_per_megapixel=0), SHAPE, seed=1)
    bins = bin_x * bin_y
    dark_counts = CAMERA.offset_counts + bins * CAMERA.dark_electrons_per_s / GAIN
    frames = [
        read(ccd, level / bins, seed=seed, region=whole(bin_x, bin_y)).astype(float)
        for seed, level in enumerate(LEVELS)
    ]
    means = np.array([frame.mean() for frame in frames]) - dark_counts
    variances = np.array([frame.var(ddof=1) for frame in frames])
    noise = CAMERA.read_noise_electrons**2 + bins * CAMERA.dark_electrons_per_s
    intercept = noise / GAIN**2 + 1 / 12
    slope = ELECTRONS_PER_PHOTON / GAIN
    pixels = frames[0].size
    limit = stats.chi2.ppf(0.9999, len(LEVELS))
    assert variance_misfit(means, variances, pixels, slope, intercept) < limit
    for wrong in (0.98, 1.02):
        assert variance_misfit(means, variances, pixels, wrong * slope, intercept) > limit


def test_noise_of_a_dark_is_that_of_the_amplifier():
    """The intercept of the line: (8^2 + 5) / 1.6^2 + 1 / 12, 0 photons."""
    ccd = Ccd(changed(hot_pixels_per_megapixel=0), SHAPE, seed=1)
    dark = read(ccd, None, exposure_s=10.0).astype(float)
    expected = (64 + 5.0) / GAIN**2 + 1 / 12
    spread = math.sqrt(2 / dark.size)
    assert dark.var() / expected - 1 == pytest.approx(0, abs=4 * spread)
    assert dark.mean() == pytest.approx(300 + 5.0 / GAIN, abs=4 * math.sqrt(expected / dark.size))


def test_mean_is_that_of_the_photons(ccd):
    mean = cold(ccd, read(ccd, 100.0)).mean()
    expected = (100 * ELECTRONS_PER_PHOTON + 0.5) / GAIN + 300
    spread = ELECTRONS_PER_PHOTON / GAIN * math.sqrt(100 / math.prod(SHAPE))
    assert mean == pytest.approx(expected, abs=4 * spread)


@pytest.mark.parametrize("mean", [0.0, 0.3, 4.0, 9.99, 10.0, 13.0, 55.5, 400.0, 3000.0])
def test_photons_are_poisson_distributed(mean):
    """Chi-square of the histogram against the probabilities, in bins of 20 photons or more."""
    numbers = detector.poisson(np.full((400, 500), mean, np.float32), np.random.default_rng(5))
    assert np.all(numbers == np.floor(numbers))
    if mean == 0:
        assert not numbers.any()
        return
    counted = np.bincount(numbers.astype(int).ravel(), minlength=int(mean + 20 * mean**0.5 + 20))
    expected = stats.poisson.pmf(np.arange(len(counted)), float(np.float32(mean))) * numbers.size
    usual = expected > 20
    counted = np.append(counted[usual], counted[~usual].sum())
    expected = np.append(expected[usual], numbers.size - expected[usual].sum())
    misfit = np.sum((counted - expected) ** 2 / expected)
    assert misfit < stats.chi2.ppf(0.9999, len(counted) - 1)


def test_each_pixel_has_its_own_mean():
    means = np.linspace(0, 60, 300 * 200, dtype=np.float32).reshape(300, 200)
    numbers = detector.poisson(means, np.random.default_rng(5))
    pull = (numbers - means).mean() / math.sqrt(means.mean() / means.size)
    assert abs(pull) < 4
    assert np.corrcoef(numbers.ravel(), means.ravel())[0, 1] > 0.95


def test_light_that_the_interpolation_made_negative_is_none():
    numbers = detector.poisson(np.full((10, 10), -0.1, np.float32), np.random.default_rng(5))
    assert not numbers.any()


def test_about_500_photons_fill_a_pixel(ccd):
    full = CAMERA.full_well_electrons / GAIN
    assert cold(ccd, read(ccd, 400.0)).max() < full
    assert np.median(read(ccd, 700.0)) == pytest.approx(full + 300, abs=2)
    assert cold(ccd, read(ccd, 700.0)).std() < 6
    assert read(ccd, 1e9).max() <= 65535


def test_sixteen_bits_are_full_at_65535():
    ccd = Ccd(changed(full_well_electrons=1e6), SHAPE, seed=1)
    assert np.all(read(ccd, 2000.0) == 65535)


def test_counts_are_not_below_zero():
    ccd = Ccd(changed(offset_counts=0.0), SHAPE, seed=1)
    dark = cold(ccd, read(ccd, None))
    assert np.mean(dark == 0) == pytest.approx(0.5, abs=0.1)
    assert dark.max() < 50


def test_region_and_bins_are_those_of_the_chip(ccd):
    """A bright column and a brighter row in the middle of the region, told apart by the bins."""
    image = np.full(SHAPE, 10.0, np.float32)
    image[101, :] = 200.0
    image[:, 60] = 100.0
    region = Region(min_x=50, min_y=90, size_x=41, size_y=30, bin_x=4, bin_y=3)
    counts = ccd.read(image, 707.4, 0.1, np.random.default_rng(0), region=region)
    assert counts.shape == (10, 10)
    expected = image[90:120, 50:90].reshape(10, 3, 10, 4).sum(axis=(1, 3))
    counted = (counts - 300.0) * GAIN / ELECTRONS_PER_PHOTON
    filled = CAMERA.full_well_electrons / ELECTRONS_PER_PHOTON
    bright = expected > filled
    np.testing.assert_allclose(counted[~bright], expected[~bright], rtol=0.35)
    assert np.argmax(counted.sum(axis=1)) == 3
    assert np.argmax(counted.sum(axis=0)) == 2


def test_wells_are_full_before_they_are_binned():
    """One pixel of four is overfull: the bin holds one full well, not the light of four."""
    ccd = Ccd(changed(full_well_electrons=20000.0), SHAPE, seed=1)
    image = np.zeros(SHAPE, np.float32)
    image[::2, ::2] = 5000.0
    counts = ccd.read(image, 707.4, 0.1, np.random.default_rng(0), region=whole(2, 2))
    assert np.median(counts) == pytest.approx(20000 / GAIN + 300, abs=2)


def test_dark_current_doubles_with_every_seven_degrees():
    camera = changed(dark_electrons_per_s=100.0, hot_pixels_per_megapixel=0)
    ccd = Ccd(camera, SHAPE, seed=1)
    levels = [
        read(ccd, None, temperature_c=temperature_c).mean() - 300
        for temperature_c in (-50.0, -43.0, -22.0)
    ]
    assert read(ccd, None).mean() - 300 == levels[0]
    np.testing.assert_allclose(levels, np.array([100, 200, 1600]) / GAIN, rtol=0.01)


def test_a_warm_chip_is_full_of_dark_electrons(ccd):
    """Hot pixels of 10^6 electrons per second at 20 C: full, and no noisier than any other."""
    warm = read(ccd, None, exposure_s=8.0, temperature_c=20.0).astype(float)
    hottest = ccd.dark_electrons_per_s_vu > 300
    full = CAMERA.full_well_electrons / GAIN + 300
    assert hottest.any()
    np.testing.assert_allclose(warm[hottest], full, atol=30)


def test_offset_drifts_for_all_pixels(ccd):
    difference = read(ccd, None, offset_counts=25.0).astype(float) - read(ccd, None)
    assert np.all(difference == 25)


def test_hot_pixels_stand_out_of_a_dark(ccd):
    counts = read(ccd, None, exposure_s=8.0).astype(float)
    assert 1 < ccd.hot_vu.sum() < 100
    assert counts[ccd.hot_vu].min() > counts[~ccd.hot_vu].max()


def struck(ccd, exposure_s, **options):
    """Pixels with charge that neither light nor dark current brought, and that charge."""
    counts = read(ccd, None, exposure_s=exposure_s, **options).astype(float)
    excess = (counts - 300) * GAIN - ccd.dark_electrons_per_s_vu * exposure_s
    return excess > 60, excess


def test_zingers_come_at_their_rate_with_their_charge():
    """Poisson distributed: 20 per megapixel and second, of 30000 electrons in the mean."""
    camera = changed(
        zingers_per_megapixel_s=20.0,
        zinger_electrons=30000.0,
        full_well_electrons=1e6,
        gain_electrons_per_count=16.0,
        hot_pixels_per_megapixel=0,
        read_noise_electrons=1.0,
    )
    ccd = Ccd(camera, SHAPE, seed=1)
    frames = [read(ccd, None, exposure_s=16.0, seed=seed).astype(float) for seed in range(40)]
    charges = (np.array(frames) - 300) * 16.0 - 0.5 * 16.0
    hit = charges > 60
    numbers = [ndimage.label(each, np.ones((3, 3)))[1] for each in hit]
    expected = 40 * 20 * 16 / 16
    assert np.sum(numbers) == pytest.approx(expected, abs=4 * math.sqrt(expected))
    spread = 30000 * math.sqrt(2 * expected)
    assert charges[hit].sum() == pytest.approx(30000 * expected, abs=4 * spread)


def test_zingers_are_points_and_short_tracks(ccd):
    hit, _excess = struck(ccd, 1.0, zinger_burst=True)
    labels, number = ndimage.label(hit, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    assert number > 40
    assert 0.3 < np.mean(sizes == 1) < 0.7
    assert 4 < sizes.max() < 30


def test_a_burst_is_a_shower_on_one_frame(ccd):
    """A thousand per megapixel, where the ideal conditions have none."""
    quiet, _excess = struck(ccd, 1.0)
    hit, _excess = struck(ccd, 1.0, zinger_burst=True)
    assert quiet.sum() == 0
    assert ndimage.label(hit, np.ones((3, 3)))[1] == pytest.approx(62, abs=6)


def test_same_random_state_same_frame(ccd):
    frames = [read(ccd, 20.0, seed=seed, zinger_burst=True) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])

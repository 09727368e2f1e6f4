"""Photon statistics and limits of the CCD."""

import numpy as np
import pytest

from mistral_txm.simulated_beamline import detector
from mistral_txm.simulated_beamline.detector import Ccd

SHAPE = (256, 256)
ELECTRONS_PER_PHOTON = 707.4 / 3.65


@pytest.fixture(scope="module")
def ccd():
    return Ccd(SHAPE, seed=1)


def read(ccd, photons, exposure_s=1.0, seed=0):
    image = None if photons is None else np.full(SHAPE, photons, np.float32)
    counts = ccd.read(image, 707.4, exposure_s, np.random.default_rng(seed))
    return counts.astype(float)[~ccd.hot_vu]


def test_variance_against_mean_is_a_line_of_the_right_slope(ccd):
    """Var = (electrons per photon / gain) (mean - dark) + read noise^2, in counts."""
    levels = [5.0, 20.0, 60.0, 120.0, 200.0, 300.0]
    pairs = [
        (read(ccd, level, seed=i), read(ccd, level, seed=99 + i)) for i, level in enumerate(levels)
    ]
    means = [(a.mean() + b.mean()) / 2 for a, b in pairs]
    variances = [np.var(a - b) / 2 for a, b in pairs]
    slope, intercept = np.polyfit(means, variances, 1, w=1 / np.array(variances))
    expected = ELECTRONS_PER_PHOTON / detector.GAIN_ELECTRONS_PER_COUNT
    assert slope == pytest.approx(expected, rel=0.01)
    assert -intercept / slope == pytest.approx(detector.OFFSET_COUNTS, abs=15)


def test_mean_is_that_of_the_photons(ccd):
    expected = (
        100 * ELECTRONS_PER_PHOTON + detector.DARK_ELECTRONS_PER_S
    ) / detector.GAIN_ELECTRONS_PER_COUNT + detector.OFFSET_COUNTS
    assert read(ccd, 100.0).mean() == pytest.approx(expected, rel=2e-3)


def test_dark_has_the_offset_the_read_noise_and_the_dark_current(ccd):
    dark = read(ccd, None, exposure_s=10.0)
    gain = detector.GAIN_ELECTRONS_PER_COUNT
    assert dark.mean() == pytest.approx(detector.OFFSET_COUNTS + 5.0 / gain, abs=0.2)
    expected_variance = (detector.READ_NOISE_ELECTRONS**2 + 5.0) / gain**2 + 1 / 12
    assert dark.var() == pytest.approx(expected_variance, rel=0.03)


def test_about_500_photons_fill_a_pixel(ccd):
    full = detector.FULL_WELL_ELECTRONS / detector.GAIN_ELECTRONS_PER_COUNT
    assert read(ccd, 400.0).max() < full
    assert np.median(read(ccd, 700.0)) == pytest.approx(full + detector.OFFSET_COUNTS, rel=1e-3)
    assert read(ccd, 5000.0).max() <= detector.MAXIMUM_COUNTS


def test_hot_pixels_stand_out_of_a_dark(ccd):
    counts = ccd.read(None, 707.4, 8.0, np.random.default_rng(0)).astype(float)
    assert 1 < ccd.hot_vu.sum() < 100
    assert counts[ccd.hot_vu].min() > counts[~ccd.hot_vu].max()

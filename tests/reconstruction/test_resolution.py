"""Shell correlation against its closed forms."""

from functools import partial

import numpy as np
import pytest

from mistral_txm.reconstruction import Grid, InputError, TiltSeries, reconstruct
from mistral_txm.reconstruction.resolution import (
    ROSENTHAL_HENDERSON,
    ShellCorrelation,
    half_set_resolution_nm,
    half_sets,
    shell_correlation,
)

SHAPE = (3, 24, 64, 64)
VOXEL_NM = 10.5


@pytest.mark.parametrize("direction", ["all", "lateral", "axial"])
@pytest.mark.parametrize("noise_variance", [0.25, 1.0, 4.0])
def test_white_noise_correlates_as_signal_over_signal_and_noise(direction, noise_variance):
    rng = np.random.default_rng(5)
    signal = rng.standard_normal(SHAPE)
    first, second = (signal + np.sqrt(noise_variance) * rng.standard_normal(SHAPE) for _ in "ab")
    found = shell_correlation(first, second, VOXEL_NM, direction=direction)
    expected = 1 / (1 + noise_variance)
    # of n coefficients the correlation scatters by (1 - rho^2) / sqrt(2 n) at least; see R. A. Fisher (1915)
    spread = (1 - expected**2) / np.sqrt(2 * found.coefficients)
    pull = (found.correlation - expected) / spread
    assert np.abs(pull).max() < 5
    assert np.sqrt(np.mean(pull**2)) < 1.6


@pytest.mark.parametrize(("lateral_nm", "axial_nm"), [(60.0, 60.0), (50.0, 90.0)])
def test_band_limit_is_the_resolution(lateral_nm, axial_nm):
    """Signal inside an ellipsoid of frequencies: either cone reaches from its axis to the diagonal."""
    shape = (3, 48, 48, 48)
    rng = np.random.default_rng(6)
    kz, ky, kx = np.meshgrid(*3 * [np.fft.fftfreq(48, VOXEL_NM)], indexing="ij")
    inside = (np.hypot(ky, kx) * lateral_nm) ** 2 + (kz * axial_nm) ** 2 < 1
    spectrum = np.fft.fftn(rng.standard_normal(shape), axes=(1, 2, 3)) * inside
    signal = np.fft.ifftn(spectrum, axes=(1, 2, 3)).real
    first, second = (signal + 0.3 * rng.standard_normal(shape) for _ in "ab")
    diagonal = np.sqrt(2 / (lateral_nm**2 + axial_nm**2))
    # a shell and the window's blur, each 1 / (48 x 10.5 nm) or about that
    slack = 2 / (48 * VOXEL_NM)
    for direction, limit_nm in (("lateral", lateral_nm), ("axial", axial_nm)):
        found = shell_correlation(first, second, VOXEL_NM, direction=direction)
        low, high = sorted([1 / limit_nm, diagonal])
        assert low - slack < 1 / found.resolution_nm() < high + slack
        assert 1 / found.resolution_nm(ROSENTHAL_HENDERSON) < high + slack


def test_thresholds():
    frequency = np.array([0.01, 0.02, 0.03])
    found = ShellCorrelation(frequency, np.array([1.0, 0.5, 0.0]), np.full(3, 1e12))
    # many coefficients: half a bit is SNR 0.2071 in each half, 0.2071 / 1.2071
    np.testing.assert_allclose(found.half_bit, 0.17157, atol=1e-4)
    assert found.resolution_nm(0.25) == pytest.approx(1 / 0.025)
    assert found.resolution_nm(ROSENTHAL_HENDERSON) == pytest.approx(1 / (0.03 - 0.01 * 2 / 7))
    assert found.resolution_nm(-1.0) == pytest.approx(1 / 0.03)
    assert found.resolution_nm(2.0) == np.inf


def test_halves_are_interleaved():
    theta = np.arange(5.0)
    series = TiltSeries(102.0, theta, np.zeros((5, 4, 4)) + theta[:, None, None], theta + 1)
    even, odd = half_sets([series])
    assert np.asarray(even[0].theta_deg_t).tolist() == [0, 2, 4]
    assert np.asarray(odd[0].dichroic_tvu)[:, 0, 0].tolist() == [1, 3]
    assert np.asarray(odd[0].std_tvu).tolist() == [2, 4]
    assert odd[0].phi_deg == 102.0
    assert odd[0].warp_tvu is None
    with pytest.raises(InputError, match="one view"):
        half_sets([TiltSeries(0.0, [0.0], np.zeros((1, 4, 4)))])


def test_halves_of_the_views_tell_the_resolution():
    """A film of one layer seen from above: white m_z up to 60 nm, five times the noise there, and nothing beyond."""
    n, voxel_nm = 96, 10.0
    rng = np.random.default_rng(3)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n, voxel_nm), np.fft.fftfreq(n, voxel_nm)))
    inside = k < 1 / 60
    truth = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n, n))) * inside).real
    # of the variance per frequency: 11.5 over 9 / 4, of the four views of a half
    noise = 3 * truth.std()
    signal = truth + noise * rng.standard_normal((8, n, n))
    series = [TiltSeries(0.0, np.zeros(8), signal, np.full(8, noise / 10))]
    solve = partial(reconstruct, grid=Grid((1, n, n), voxel_nm), method="cgls", iterations=20)
    found = half_set_resolution_nm(series, solve)
    assert found["lateral"] == pytest.approx(60, rel=0.15)
    assert found["axial"] == np.inf  # one layer has no frequency along its normal


def test_what_cannot_be_correlated_is_refused():
    volume = np.ones(SHAPE)
    with pytest.raises(InputError, match="expected two of"):
        shell_correlation(volume, volume[:, 1:], VOXEL_NM)
    with pytest.raises(InputError, match="choose one of"):
        shell_correlation(volume, volume, VOXEL_NM, direction="up")

import numpy as np
import pytest

from mistral_txm.reconstruction import InputError, TiltSeries
from mistral_txm.reconstruction.reprojection import neighbour_shifts, refine_shifts

PIXEL_NM = 10.5
TILTS = np.arange(-54.0, 55.0, 6.0)
N = 96


def grains(rng, count=40):
    """Soft grains in a film: centres (nm), widths (nm), absorbance through the middle."""
    half = 1.3 * N / 2 * PIXEL_NM
    centres = np.column_stack([rng.uniform(-half, half, (count, 2)), rng.uniform(-100, 100, count)])
    return centres, rng.uniform(30, 60, count), rng.uniform(0.05, 0.25, count)


def projection(theta_deg, phi_deg):
    """Rows v and u, written out."""
    t, p = np.deg2rad(theta_deg), np.deg2rad(phi_deg)
    return np.array(
        [
            [np.sin(p), np.cos(p), 0.0],
            [np.cos(p) * np.cos(t), -np.sin(p) * np.cos(t), -np.sin(t)],
        ]
    )


def measured(rng, film, phi_deg, shifts, photons=6000.0):
    """Absorbances of one series: Gaussian balls project to Gaussians."""
    at = (np.arange(N) - (N - 1) / 2) * PIXEL_NM
    images = []
    for theta, shift in zip(TILTS, shifts, strict=True):
        a = np.full((N, N), 0.9)
        for r, width, depth in zip(*film, strict=True):
            v, u = projection(theta, phi_deg) @ r + shift
            a += depth * np.outer(
                np.exp(-((at - v) ** 2) / 2 / width**2), np.exp(-((at - u) ** 2) / 2 / width**2)
            )
        images.append(-np.log(rng.poisson(photons * np.exp(-a)) / photons))
    return TiltSeries(phi_deg, TILTS, np.stack(images))


def rms_pixels(found, true, phis):
    """Root mean square error modulo a move of the whole sample, pixels."""
    matrices = np.concatenate([[projection(t, phi) for t in TILTS] for phi in phis])
    off = np.concatenate([f - t for f, t in zip(found, true, strict=True)])
    move = np.linalg.lstsq(matrices.reshape(-1, 3), off.ravel())[0]
    return np.sqrt(np.mean((off - matrices @ move) ** 2)) / PIXEL_NM


def test_neighbours_find_large_shifts_roughly():
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 100, (len(TILTS), 2))
    found = neighbour_shifts(measured(rng, grains(rng), 0.0, shifts), PIXEL_NM)
    assert rms_pixels([np.zeros_like(shifts)], [shifts], [0.0]) > 6
    assert rms_pixels([found], [shifts], [0.0]) < 1.5


@pytest.mark.slow
def test_one_series_without_fiducials():
    rng = np.random.default_rng(1)
    shifts = rng.normal(0, 40, (len(TILTS), 2))
    result = refine_shifts([measured(rng, grains(rng), 0.0, shifts)], PIXEL_NM, depth_nm=300.0)
    assert rms_pixels(result.shift_vu_nm_st, [shifts], [0.0]) < 0.3
    assert result.last_step_nm < 0.05 * PIXEL_NM
    assert np.all(result.std_vu_nm_st[0] < 0.1 * PIXEL_NM)


@pytest.mark.slow
def test_two_series_mounted_apart_are_brought_together():
    rng = np.random.default_rng(2)
    film = grains(rng)
    true = [
        rng.normal(0, 40, (len(TILTS), 2)) + (np.array([0.0, 0.0]) if not k else [120.0, -170.0])
        for k in range(2)
    ]
    series = [measured(rng, film, phi, s) for phi, s in zip((0.0, 102.0), true, strict=True)]
    result = refine_shifts(series, PIXEL_NM, depth_nm=300.0)
    assert rms_pixels(result.shift_vu_nm_st, true, (0.0, 102.0)) < 0.3


@pytest.mark.slow
def test_a_start_keeps_its_origin():
    rng = np.random.default_rng(3)
    shifts = rng.normal(0, 40, (len(TILTS), 2))
    series = measured(rng, grains(rng), 0.0, shifts)
    rough = shifts + rng.normal(0, 10, shifts.shape)
    start = TiltSeries(0.0, TILTS, series.dichroic_tvu, None, rough)
    (found,) = refine_shifts([start], PIXEL_NM, depth_nm=300.0).shift_vu_nm_st
    matrices = np.array([projection(t, 0.0) for t in TILTS])
    moved = np.linalg.lstsq(matrices.reshape(-1, 3), (found - rough).ravel())[0]
    np.testing.assert_allclose(moved, 0, atol=1e-6)
    assert rms_pixels([found], [shifts], [0.0]) < 0.3


def test_a_film_without_structure_is_said():
    rng = np.random.default_rng(4)
    empty = TiltSeries(0.0, TILTS, rng.normal(0.9, 0.01, (len(TILTS), 64, 64)))
    with pytest.raises(InputError, match="align by fiducials"):
        refine_shifts([empty], PIXEL_NM)
    with pytest.raises(InputError, match="at least one"):
        refine_shifts([], PIXEL_NM)

"""Residual maps: noise where the volume explains the views, a picture of what it lacks where it does not."""

import h5py
import numpy as np
import pytest

from mistral_txm.reconstruction import Grid, TiltSeries, reconstruct
from mistral_txm.reconstruction.residual_maps import residual_maps, write_residual_maps

THETA = np.arange(-55.0, 56.0, 5.0)
N, DEPTH, HALF_NM = 48, 8, 42.0
GRID = Grid((DEPTH, N, N), 10.5)


def film(rng, noise, ball_nm=None):
    """A uniform film along z, and a Gaussian ball of opposite magnetization that the volume is not told of."""
    series = []
    pixels = (np.arange(N) - (N - 1) / 2) * 10.5
    for phi_deg in (0.0, 102.0):
        t, p = np.deg2rad(THETA), np.deg2rad(phi_deg)
        images = np.full(
            (THETA.size, N, N), 2 * HALF_NM
        )  # cos(theta) times the path 2 h / cos(theta)
        if ball_nm is not None:
            x, y, z = ball_nm
            u = (x * np.cos(p) - y * np.sin(p)) * np.cos(t) - z * np.sin(t)
            v = np.full_like(t, x * np.sin(p) + y * np.cos(p))
            r2 = (pixels[None, :, None] - v[:, None, None]) ** 2 + (pixels - u[:, None, None]) ** 2
            images = images - np.cos(t)[:, None, None] * 40.0 * np.exp(-r2 / 2 / 15.0**2)
        images = images + noise * rng.standard_normal(images.shape)
        series.append(TiltSeries(phi_deg, THETA, images, np.full(THETA.size, noise)))
    return series


def test_only_noise_is_left_of_what_the_volume_explains():
    rng = np.random.default_rng(1)
    result = reconstruct(
        film(rng, 4.0), GRID, prior="layers", layers_nm=[(-HALF_NM, HALF_NM)], delta_per_nm=1.0
    )
    fresh = residual_maps(film(rng, 4.0), result, layers_nm=[(-HALF_NM, HALF_NM)])
    seen = np.isfinite(fresh.residual_vyx)
    assert seen.any(axis=(1, 2)).all()
    # the resampling takes up to a quarter of the noise's variance away
    assert 0.7 < np.var(fresh.residual_vyx[seen]) < 1.1
    assert abs(np.mean(fresh.residual_vyx[seen])) < 0.1
    assert 0.7 < np.nanmean(fresh.misfit_zyx) < 1.1
    assert len(fresh.theta_deg_v) == len(fresh.phi_deg_v) == 2 * THETA.size


def test_misfit_points_at_what_is_missing(tmp_path):
    rng = np.random.default_rng(2)
    layers = [(-HALF_NM, HALF_NM)]
    result = reconstruct(film(rng, 4.0), GRID, prior="layers", layers_nm=layers, delta_per_nm=1.0)
    maps = residual_maps(film(rng, 4.0, (60.0, -40.0, 15.0)), result, layers_nm=layers)
    z, y, x = np.unravel_index(np.nanargmax(maps.misfit_zyx), maps.misfit_zyx.shape)
    assert np.hypot(GRID.x_nm[x] - 60, GRID.y_nm[y] + 40) < 15
    assert abs(GRID.z_nm[z] - 15) < 25
    assert np.nanmax(maps.misfit_zyx) > 5 * np.nanmedian(maps.misfit_zyx)
    write_residual_maps(tmp_path / "maps.h5", maps)
    with h5py.File(tmp_path / "maps.h5") as file:
        np.testing.assert_array_equal(file["misfit"], maps.misfit_zyx)
        assert file["residual"].shape == (2 * THETA.size, N, N)
        assert file["residual"].attrs["axes"] == "view y x"


def test_a_scale_that_is_wrong_shows_in_every_view():
    rng = np.random.default_rng(3)
    result = reconstruct(film(rng, 1.0), GRID, method="cgls")
    doubled = [
        TiltSeries(s.phi_deg, s.theta_deg_t, 1.2 * np.asarray(s.dichroic_tvu), s.std_tvu)
        for s in film(rng, 1.0)
    ]
    maps = residual_maps(doubled, result)
    # 0.2 x 84 nm of signal in units of noise 1
    per_view = np.nanmean(maps.residual_vyx, axis=(1, 2))
    np.testing.assert_allclose(per_view, 0.2 * 2 * HALF_NM, rtol=0.15)
    assert maps.misfit_zyx.shape == GRID.shape_zyx
    assert pytest.approx(16.8**2, rel=0.3) == np.nanmedian(maps.misfit_zyx)

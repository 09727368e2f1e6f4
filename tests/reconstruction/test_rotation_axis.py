import doctest

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from mistral_txm.reconstruction import InputError, rotation_axis
from mistral_txm.reconstruction.rotation_axis import RegionPath, fit_axis, follow_region

PIXEL_NM = 20.0
TILTS = np.array(
    [
        -55.0,
        -49,
        -43,
        -37,
        -31,
        -25,
        -19,
        -13,
        -7,
        -3,
        -1,
        0,
        1,
        3,
        7,
        13,
        19,
        25,
        31,
        37,
        43,
        49,
        55,
    ]
)


def path(x_nm, z_nm, u0_nm=0.0, noise_nm=0.0, seed=0):
    angle = np.deg2rad(TILTS)
    u = u0_nm + x_nm * np.cos(angle) - z_nm * np.sin(angle)
    u = u + np.random.default_rng(seed).normal(0, noise_nm, len(u))
    return RegionPath(TILTS, u, np.full(len(u), 1.0))


def test_the_fit_returns_where_the_region_is():
    fit = fit_axis(path(-1500.0, 4000.0))
    assert (fit.x_nm, fit.z_nm) == pytest.approx((-1500.0, 4000.0), abs=0.01)
    assert not fit.axis_is_free


def test_an_axis_that_is_imaged_elsewhere_is_found_where_the_views_tell():
    fit = fit_axis(path(700.0, -300.0, u0_nm=1500.0, noise_nm=10.0))
    assert fit.axis_is_free
    assert abs(fit.u0_nm - 1500.0) < 4 * fit.std_u0_nm
    assert abs(fit.x_nm - 700.0) < 4 * fit.std_x_nm
    assert fit.std_x_nm < 30


def test_the_standard_deviations_are_the_scatter_of_many_fits():
    fits = [fit_axis(path(200.0, -1000.0, noise_nm=30.0, seed=seed)) for seed in range(300)]
    z = np.array([fit.z_nm for fit in fits])
    assert np.std(z) == pytest.approx(np.mean([fit.std_z_nm for fit in fits]), rel=0.15)
    assert abs(z.mean() + 1000.0) < 4 * np.std(z) / np.sqrt(300)
    # That of x includes where the axis is imaged, which these fits have not moved.
    x = np.array([fit.x_nm for fit in fits])
    assert np.std(x) < np.mean([fit.std_x_nm for fit in fits])
    assert [fit.rms_nm for fit in fits] == pytest.approx([30.0] * 300, rel=0.6)


def film(x_nm, z_nm, noise=0.0, size=128):
    """Views of a film with a random pattern, whose point at the origin lies at (x', z') from the axis."""
    rng = np.random.default_rng(3)
    half = 400
    pattern = gaussian_filter(rng.normal(size=(size, 2 * half)), 3)
    pattern = 0.3 + 0.1 * pattern / pattern.std()
    v, u = np.mgrid[:size, :size].astype(float)
    views = []
    for theta in np.deg2rad(TILTS):
        on_film = ((u - (size - 1) / 2) * PIXEL_NM + z_nm * np.sin(theta)) / np.cos(theta) - x_nm
        view = map_coordinates(pattern, [v, on_film / PIXEL_NM + half], order=3, mode="nearest")
        views.append(view + noise * rng.normal(size=view.shape))
    return views


@pytest.mark.slow
@pytest.mark.parametrize("z_nm", [0.0, 2500.0, -4000.0])
def test_a_region_is_followed_also_out_of_the_field_of_view(z_nm):
    reference = int(np.flatnonzero(TILTS == 13.0)[0])
    # What is in the middle at 13 deg lies at x' = z' tan(13 deg).
    x_nm = z_nm * np.tan(np.deg2rad(13.0))
    views = film(x_nm, z_nm, noise=0.03)
    views[3][40:50, 60:70] = np.nan
    fit = fit_axis(follow_region(TILTS, views, PIXEL_NM, reference))
    assert abs(fit.z_nm - z_nm) < 5
    assert abs(fit.x_nm - x_nm) < 10
    assert fit.rms_nm < 5


def test_other_content_in_the_middle_makes_no_difference():
    """What the middle shows is the region, wherever on the film that is."""
    reference = int(np.flatnonzero(TILTS == 0.0)[0])
    fit = fit_axis(follow_region(TILTS, film(1300.0, 600.0, noise=0.02), PIXEL_NM, reference))
    assert abs(fit.x_nm) < 10
    assert abs(fit.z_nm - 600.0) < 5


def test_a_view_without_anything_ends_the_path_on_its_side():
    views = film(0.0, 300.0, noise=0.02)
    views[4] = np.random.default_rng(0).normal(0.3, 0.05, views[4].shape)
    found = follow_region(TILTS, views, PIXEL_NM, 11)
    assert np.isfinite(found.u_nm_t).tolist() == [False] * 5 + [True] * 18


def test_what_cannot_be_followed_is_refused_in_one_line():
    noise = list(np.random.default_rng(0).normal(0.3, 0.05, (len(TILTS), 64, 64)))
    with pytest.raises(InputError, match=r"followed over 1 of 23 views .* smaller steps"):
        fit_axis(follow_region(TILTS, noise, PIXEL_NM, 11))
    with pytest.raises(InputError, match=r"23 views and tilts .* give one tilt for each"):
        follow_region(TILTS[1:], noise, PIXEL_NM, 0)


@pytest.mark.slow
def test_large_views_are_binned_without_a_shift():
    reference = int(np.flatnonzero(TILTS == 0.0)[0])
    views = [np.repeat(np.repeat(view, 4, axis=0), 4, axis=1) for view in film(0.0, 1000.0)]
    fit = fit_axis(follow_region(TILTS, views, PIXEL_NM / 4, reference))
    assert abs(fit.z_nm - 1000.0) < 5


def test_examples():
    assert doctest.testmod(rotation_axis).failed == 0

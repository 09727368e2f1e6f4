"""The whole numerics: signs and handedness by hand-made cases, quality against the truth, refusals."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mistral_txm.reconstruction import Grid, InputError, TiltSeries, reconstruct
from mistral_txm.reconstruction.layers import layer_coverage

CASES = Path(__file__).parents[2] / "../shared/data/cases"
THETA = np.r_[np.arange(-55.0, -20, 5), np.arange(-18.0, 20, 6), np.arange(25.0, 56, 5)]
N, DEPTH, THICKNESS_NM = 32, 10, 105.0


def uniform_series(m, phis=(0.0, 102.0), noise=0.002, seed=0):
    """A uniform film of 105 nm: the ray's path is thickness / cos(theta), along it m . k."""
    rng = np.random.default_rng(seed)
    series = []
    for phi_deg in phis:
        theta, phi = np.deg2rad(THETA), np.deg2rad(phi_deg)
        k = np.stack([np.sin(theta) * np.cos(phi), -np.sin(theta) * np.sin(phi), np.cos(theta)])
        signal = 0.002 * np.asarray(m, float) @ k * THICKNESS_NM / np.cos(theta)
        images = signal[:, None, None] + rng.normal(0, noise, (THETA.size, N, N))
        series.append(TiltSeries(phi_deg, THETA, images, np.full(THETA.size, noise)))
    return series


@pytest.mark.parametrize("method", ["direct", "cgls", "sirt", "art"])
@pytest.mark.parametrize(
    "m", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (-0.6, 0.8, 0.0), (0.48, -0.6, -0.64)]
)
def test_uniform_film_comes_back_with_its_sign(method, m):
    result = reconstruct(
        uniform_series(m), Grid((DEPTH, N, N), 10.5), method=method, delta_per_nm=0.002
    )
    inner = result.m_czyx[:, :, 8:-8, 8:-8]
    np.testing.assert_allclose(inner.mean(axis=(1, 2, 3)), m, atol=0.05)


@pytest.mark.parametrize("method", ["direct", "cgls"])
def test_swapped_helicities_flip_all_of_m(method):
    series = uniform_series((0.6, 0.0, 0.8))
    swapped = [
        TiltSeries(s.phi_deg, s.theta_deg_t, -np.asarray(s.dichroic_tvu), s.std_tvu) for s in series
    ]
    grid = Grid((DEPTH, N, N), 10.5)
    m = reconstruct(series, grid, method=method).m_czyx
    np.testing.assert_allclose(
        reconstruct(swapped, grid, method=method).m_czyx, -m, atol=1e-4 * np.abs(m).max()
    )


def test_one_azimuth_sees_only_the_components_in_its_plane():
    grid = Grid((DEPTH, N, N), 10.5)
    one = reconstruct(uniform_series((0.5, 0.7, 0.5), phis=(0.0,)), grid, delta_per_nm=0.002)
    assert not one.my.any()
    assert one.mx[:, 8:-8, 8:-8].mean() == pytest.approx(0.5, abs=0.05)
    assert one.mz[:, 8:-8, 8:-8].mean() == pytest.approx(0.5, abs=0.05)


def test_azimuth_of_102_deg_does_not_leak_m_x_into_m_y():
    """Taking the second series' in-plane component for m_y would leave |cos(102 deg)| = 21 % of m_x there."""
    result = reconstruct(
        uniform_series((1.0, 0.0, 0.0)), Grid((DEPTH, N, N), 10.5), delta_per_nm=0.002
    )
    assert abs(result.my[:, 8:-8, 8:-8].mean()) < 0.02


def test_turning_sample_and_azimuth_together_turns_the_volume(balls):
    """Sample turned by +90 deg about z, mounted at 90 deg less: the same views, so the same m in turned axes."""
    theta = THETA[::2]
    views = {phi: np.stack([balls.view(t, phi, 48) for t in theta]) for phi in (0.0, 102.0)}
    grid = Grid((16, 48, 48), 10.5)
    std = np.full(theta.size, 0.5)
    m = reconstruct([TiltSeries(p, theta, v, std) for p, v in views.items()], grid).m_czyx
    turned = reconstruct([TiltSeries(p - 90, theta, v, std) for p, v in views.items()], grid).m_czyx
    expected = np.stack(
        [-np.rot90(m[1], -1, (1, 2)), np.rot90(m[0], -1, (1, 2)), np.rot90(m[2], -1, (1, 2))]
    )
    np.testing.assert_allclose(turned, expected, atol=0.02 * np.abs(m).max())


def test_balls_come_back_where_they_are(balls):
    theta = np.arange(-55.0, 56.0, 5.0)
    grid = Grid((20, 48, 48), 10.5)
    series = [
        TiltSeries(p, theta, np.stack([balls.view(t, p, 48) for t in theta]), np.full(23, 0.2))
        for p in (0.0, 102.0)
    ]
    result = reconstruct(series, grid)
    truth = balls.field(grid)
    # the part of a ball that is the gradient of a potential is invisible from every direction
    for found, true in zip(result.m_czyx, truth, strict=True):
        assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.7
    np.testing.assert_array_less(
        result.residual_rms_per_view, 0.1 * np.std(series[0].dichroic_tvu) + 0.2
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "prior", "error", "angle_deg"),
    [
        ("direct", "none", 0.45, 16),
        ("direct", "layers", 0.25, 8.5),
        ("direct", "norm", 0.16, 5),
        ("cgls", "none", 0.48, 16),
        ("cgls", "layers", 0.36, 10),
        ("sirt", "layers", 0.36, 10),
        ("art", "none", 0.48, 16),
        ("art", "layers", 0.36, 10),
    ],
)
def test_striped_trilayer(striped_trilayer, method, prior, error, angle_deg):
    """Limits a little above what was measured."""
    case = striped_trilayer
    result = reconstruct(
        case.series,
        case.grid,
        method=method,
        prior=prior,
        layers_nm=() if prior == "none" else case.layers_nm,
        delta_per_nm=None if prior == "norm" else case.delta_per_nm,
    )
    found_error, found_angle = case.errors(result.m_czyx)
    assert found_error < error
    assert found_angle < angle_deg
    if prior == "norm":
        assert result.delta_per_nm == pytest.approx(case.delta_per_nm, rel=0.03)
        length = np.linalg.norm(result.m_czyx, axis=0)
        inside = layer_coverage(case.grid, case.layers_nm) >= 0.5
        np.testing.assert_allclose(length[inside], 1, atol=1e-4)
        assert not length[~inside].any()


@pytest.mark.slow
def test_direct_and_iterative_agree(striped_trilayer):
    case = striped_trilayer
    inner = np.s_[:, :, 8:-8, 8:-8]
    direct, iterative = (
        reconstruct(
            case.series, case.grid, method=m, prior="layers", layers_nm=case.layers_nm
        ).m_czyx[inner]
        for m in ("direct", "cgls")
    )
    for a, b in zip(direct, iterative, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.92


def test_masked_pixels_do_not_spoil_the_volume():
    clean = uniform_series((0.0, 0.0, 1.0))
    rng = np.random.default_rng(1)
    holed = []
    for series in clean:
        images = np.array(series.dichroic_tvu)
        images[rng.random(images.shape) < 0.02] = np.nan
        holed.append(TiltSeries(series.phi_deg, series.theta_deg_t, images, series.std_tvu))
    for method in ("direct", "cgls"):
        result = reconstruct(holed, Grid((DEPTH, N, N), 10.5), method=method, delta_per_nm=0.002)
        assert result.mz[:, 8:-8, 8:-8].mean() == pytest.approx(1, abs=0.05)


def test_layers_and_data_fraction():
    grid = Grid((DEPTH, N, N), 10.5)
    result = reconstruct(uniform_series((0, 0, 1)), grid, prior="layers", layers_nm=[(-30.0, 20.0)])
    outside = (grid.z_nm < -30) | (grid.z_nm > 20)
    for volume in (*result.m_czyx, result.data_fraction):
        assert not volume[outside].any()
        assert volume.dtype == np.float32
    fraction = result.data_fraction[~outside]
    assert fraction.min() >= 0
    assert fraction.max() <= 1
    # a corner is outside the second azimuth's field of view
    assert fraction[:, 0, 0].max() < 0.95 * fraction[:, N // 2, N // 2].min()
    assert result.delta_per_nm is None


def test_warm_start_of_an_iterative_method():
    grid = Grid((DEPTH, N, N), 10.5)
    series = uniform_series((0, 0, 1))
    cold, warm = [], []
    first = reconstruct(
        series,
        grid,
        method="sirt",
        delta_per_nm=0.002,
        callback=lambda number, m, chi2: cold.append(chi2),
    )
    reconstruct(
        series,
        grid,
        method="sirt",
        initial=first,
        callback=lambda number, m, chi2: warm.append(chi2),
    )
    # the margin beyond the field of view is not part of the volume and has to be found again
    assert warm[0] < 0.1 * cold[0]
    assert len(warm) <= len(cold)
    with pytest.raises(InputError, match="initial"):
        reconstruct(series, Grid((8, N, N), 10.5), method="sirt", initial=first)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "magic"}, "choose one of direct, art, sirt, cgls"),
        ({"prior": "hope"}, "choose one of none, layers, norm"),
        ({"prior": "layers"}, "none given"),
        ({"prior": "norm"}, "none given"),
        ({"layers_nm": [(0, 10)]}, "does not use them"),
        ({"prior": "layers", "layers_nm": [(10, 0)]}, "is not a layer"),
        ({"prior": "layers", "layers_nm": [(900, 990)]}, "outside the volume"),
        ({"prior": "layers", "layers_nm": [(-30, 10), (0, 30)]}, "overlap"),
        ({"delta_per_nm": 0.0}, "positive number"),
        ({"delta_per_nm": float("nan")}, "positive number"),
        ({"iterations": 3}, "does not iterate"),
        ({"method": "cgls", "iterations": 0}, "at least 1"),
    ],
)
def test_refuses_options_in_one_line(options, words):
    with pytest.raises(InputError, match=words) as caught:
        reconstruct(uniform_series((0, 0, 1)), Grid((DEPTH, N, N), 10.5), **options)
    assert "\n" not in str(caught.value)


def test_no_signal_is_no_magnetization_but_no_unit_vectors_either():
    zero = [TiltSeries(0.0, THETA, np.zeros((THETA.size, N, N)), np.full(THETA.size, 0.01))]
    grid = Grid((DEPTH, N, N), 10.5)
    assert not reconstruct(zero, grid).m_czyx.any()
    with pytest.raises(InputError, match="is it dichroic"):
        reconstruct(zero, grid, prior="norm", layers_nm=[(-40, 40)])


@pytest.mark.skipif(not CASES.exists(), reason="the public cases are not on this machine")
def test_vortex_of_the_public_cases():
    series = []
    for number, phi_deg in ((1, 0.0), (2, 102.0)):
        with h5py.File(CASES / f"vortex_series{number}.hdf5") as file:
            series.append(
                TiltSeries(phi_deg, file["Angles"][()], file["MagneticSignal2DAligned"][()])
            )
    with h5py.File(CASES / "vortex_truth.hdf5") as file:
        truth, delta = file["m"][()], file["m"].parent.attrs["delta_per_nm"]
    result = reconstruct(series, Grid((20, 80, 80), 10.5), delta_per_nm=float(delta))
    for found, true, least in zip(result.m_czyx, truth, (0.99, 0.96, 0.93), strict=True):
        assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > least
    assert np.linalg.norm(result.m_czyx - truth) < 0.22 * np.linalg.norm(truth)

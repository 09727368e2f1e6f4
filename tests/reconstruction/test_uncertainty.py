"""Standard deviations against Monte Carlo: random fields of known spectrum, many measurements, known noise."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from mistral_txm.reconstruction import Grid, InputError, TiltSeries, reconstruct
from mistral_txm.reconstruction.uncertainty import (
    bootstrap_std,
    repeats_drawn,
    views_drawn,
    with_bootstrap_std,
)

THETA = np.arange(-55.0, 56.0, 5.0)
N, VOXEL_NM = 32, 10.5
GRID = Grid((8, N, N), VOXEL_NM)
LAYERS = ((-42.0, 42.0),)
INNER = np.s_[:, :, 8:-8, 8:-8]


class Waves:
    """A random field of plane waves, isotropic, of spectrum ``1 / (kappa^2 + k^2)^2``, and its exact line integrals.

    A component is ``sum of a_j cos(k_j . r + phase_j)``, so the integral over the slab |z| < h along the beam k is
    the sum of ``a_j cos(k_j . r0 + phase_j) 2 sin(s_j h) / s_j``, with ``s_j = k_j . k / k_z`` the phase per height.
    """

    def __init__(self, rng, count=1500, kappa=0.02):
        # k^2 / (kappa^2 + k^2)^2 dk is drawn by the inverse of a tabulated distribution
        k = np.linspace(0, 0.25, 4000)
        density = k**2 / (kappa**2 + k**2) ** 2
        radius = np.interp(rng.random(count), np.cumsum(density) / density.sum(), k)
        direction = rng.standard_normal((count, 3))
        self.k = radius[:, None] * direction / np.linalg.norm(direction, axis=1)[:, None]
        self.amplitude = rng.standard_normal((3, count)) * np.sqrt(2 / count)
        self.phase = rng.uniform(0, 2 * np.pi, (3, count))

    def field(self):
        z, y, x = GRID.z_nm, GRID.y_nm, GRID.x_nm
        out = np.empty((3, len(z), N, N))
        ex, ey = np.exp(1j * np.outer(self.k[:, 0], x)), np.exp(1j * np.outer(self.k[:, 1], y))
        for c in range(3):
            for i, height in enumerate(z):
                wave = self.amplitude[c] * np.exp(1j * (self.phase[c] + self.k[:, 2] * height))
                out[c, i] = ((wave[:, None] * ey).T @ ex).real
        return out

    def view(self, theta_deg, phi_deg, half_nm=42.0):
        t, p = np.deg2rad(theta_deg), np.deg2rad(phi_deg)
        beam = np.array([np.sin(t) * np.cos(p), -np.sin(t) * np.sin(p), np.cos(t)])
        u = np.array([np.cos(t) * np.cos(p), -np.cos(t) * np.sin(p), -np.sin(t)])
        v = np.array([np.sin(p), np.cos(p), 0.0])
        per_height = self.k @ beam / beam[2]
        # the ray through (u, v) passes z = 0 at u U + v V - (their height) beam / beam_z
        u0, v0 = u - u[2] * beam / beam[2], v - v[2] * beam / beam[2]
        length = 2 * half_nm * np.sinc(per_height * half_nm / np.pi) / beam[2]
        pixels = (np.arange(N) - (N - 1) / 2) * VOXEL_NM
        eu, ev = (
            np.exp(1j * np.outer(self.k @ u0, pixels)),
            np.exp(1j * np.outer(self.k @ v0, pixels)),
        )
        wave = length * np.einsum("c,cj,cj->j", beam, self.amplitude, np.exp(1j * self.phase))
        return ((wave[:, None] * ev).T @ eu).real

    def series(self):
        return [np.stack([self.view(t, phi) for t in THETA]) for phi in (0.0, 102.0)]


def measured(clean, noise, rng):
    return [
        TiltSeries(phi, THETA, c + noise * rng.standard_normal(c.shape), np.full(THETA.size, noise))
        for phi, c in zip((0.0, 102.0), clean, strict=True)
    ]


def test_exact_view_of_a_wave():
    """Against the midpoint rule along one ray."""
    waves = Waves(np.random.default_rng(1), count=5)
    t, p = np.deg2rad(30.0), np.deg2rad(102.0)
    beam = np.array([np.sin(t) * np.cos(p), -np.sin(t) * np.sin(p), np.cos(t)])
    u = np.array([np.cos(t) * np.cos(p), -np.cos(t) * np.sin(p), -np.sin(t)])
    v = np.array([np.sin(p), np.cos(p), 0.0])
    start = (20 - 15.5) * VOXEL_NM * u + (3 - 15.5) * VOXEL_NM * v
    heights = (np.arange(2000) + 0.5) / 2000 * 84 - 42
    points = start + ((heights - start[2]) / beam[2])[:, None] * beam
    m = np.sum(
        waves.amplitude[:, :, None] * np.cos(waves.k @ points.T + waves.phase[:, :, None]), axis=1
    )
    expected = np.sum(beam @ m) * 84 / 2000 / beam[2]
    assert waves.view(30.0, 102.0)[3, 20] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("prior", "noise"), [("layers", 3.0), ("layers", 20.0)])
def test_analytic_std_covers_the_truth(prior, noise):
    """The error of fields drawn from the prior's own spectrum, over its std: 68 % within one, if it is right."""
    pulls = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        waves = Waves(rng)
        result = reconstruct(
            measured(waves.series(), noise, rng), GRID, prior=prior, layers_nm=LAYERS
        )
        error = (result.m_czyx - waves.field())[INNER]
        assert (result.std[INNER[1:]] > 0).all()
        pulls.append(error / result.std[INNER[1:]])
    pulls = np.stack(pulls)
    assert np.mean(np.abs(pulls) < 1) == pytest.approx(0.68, abs=0.1)
    assert np.mean(np.abs(pulls) < 2) == pytest.approx(0.95, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["views", "repeats"])
@pytest.mark.parametrize("method", ["direct", "cgls"])
def test_bootstrap_tells_the_scatter_of_measurements(kind, method):
    """One measurement's bootstrap against the scatter over many measurements with fresh noise."""
    rng = np.random.default_rng(7)
    clean, noise, count = Waves(rng).series(), 8.0, 5
    iterations = None if method == "direct" else 6

    solve = partial(
        reconstruct,
        grid=GRID,
        method=method,
        prior="layers",
        layers_nm=LAYERS,
        iterations=iterations,
    )
    volumes = [solve(measured(clean, noise, rng)).m_czyx for _ in range(16)]
    scatter = np.std(volumes, axis=0, ddof=1)[INNER]
    if kind == "views":
        drawn = views_drawn(measured(clean, noise, rng), 16, rng)
    else:
        parts = [measured(clean, noise * np.sqrt(count), rng) for _ in range(count)]
        drawn = repeats_drawn(parts, 16, rng)
    found = bootstrap_std(drawn, solve)[INNER]
    inside = found[:, 2:6].mean() / scatter[:, 2:6].mean()
    # views are no repeats: the direct scatter comes out a third too small, that of cgls a third too large
    low, high = (0.5, 1.6) if kind == "views" else (0.8, 1.2)
    assert low < inside < high


@pytest.mark.slow
def test_the_std_of_a_volume_is_that_of_its_components():
    """Signals of known noise in every pixel of one layer, seen from above: mz alone scatters."""
    noise, voxel_nm, n = 0.5, 10.0, 16
    theta = np.zeros(40)
    images = noise * np.random.default_rng(5).standard_normal((theta.size, n, n))
    # stated smaller than it is, so that the iterations do not stop at once; drawn are weights alone
    series = [TiltSeries(0.0, theta, images, np.full(theta.size, noise / 10))]
    solve = partial(reconstruct, grid=Grid((1, n, n), voxel_nm), method="cgls", iterations=5)
    result = solve(series)
    found = with_bootstrap_std(result, series, solve, 40)
    # the mean of 40 views over a path of 10 nm, in one component of three
    expected = noise / np.sqrt(theta.size) / voxel_nm / np.sqrt(3)
    assert np.median(found.std) == pytest.approx(expected, rel=0.15)
    assert found.m_czyx.tobytes() == result.m_czyx.tobytes()
    again = with_bootstrap_std(result, series, solve, 40)
    assert again.std.tobytes() == found.std.tobytes()
    with pytest.raises(InputError, match="1 volumes"):
        with_bootstrap_std(result, series, solve, 1)
    with pytest.raises(InputError, match="'art' weights all views alike"):
        with_bootstrap_std(replace(result, method="art"), series, solve, 2)


def test_noise_that_nobody_stated_is_taken_as_estimated():
    """The same draws with the noise that the reconstruction found, and stated by hand."""
    images = np.random.default_rng(6).standard_normal((9, 24, 24))
    unstated = [TiltSeries(0.0, np.linspace(-40, 40, 9), images)]
    solve = partial(reconstruct, grid=Grid((2, 24, 24), VOXEL_NM), method="cgls", iterations=3)
    result = solve(unstated)
    stated = [replace(unstated[0], std_tvu=result.noise_per_view)]
    found, expected = (
        with_bootstrap_std(result, series, solve, 3).std for series in (unstated, stated)
    )
    np.testing.assert_array_equal(found, expected)


def test_moments_of_what_is_drawn():
    """Weights of mean 1 and variance 1; averages whose variance is that of the mean of all repeats."""
    rng = np.random.default_rng(8)
    series = [TiltSeries(0.0, [0.0, 10.0], np.zeros((2, 4, 4)), [2.0, 4.0])]
    weight = np.array(
        [(np.array([2.0, 4.0]) / s[0].std_tvu) ** 2 for s in views_drawn(series, 4000, rng)]
    )
    np.testing.assert_allclose(weight.mean(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(weight.var(axis=0), 1, atol=0.2)
    repeats = [[TiltSeries(0.0, [0.0], rng.standard_normal((1, 40, 40)), [1.0])] for _ in range(4)]
    drawn = [np.asarray(s[0].dichroic_tvu) for s in repeats_drawn(repeats, 400, rng)]
    assert np.var(drawn, axis=0).mean() == pytest.approx(1 / 4, rel=0.1)
    assert next(iter(repeats_drawn(repeats, 1, rng)))[0].std_tvu == [0.5]


def test_what_cannot_be_drawn_is_refused():
    rng = np.random.default_rng(9)
    one = TiltSeries(0.0, [0.0], np.zeros((1, 4, 4)), [1.0])
    with pytest.raises(InputError, match="no standard deviations"):
        next(views_drawn([replace(one, std_tvu=None)], 2, rng))
    with pytest.raises(InputError, match="at least two"):
        next(repeats_drawn([[one]], 2, rng))
    with pytest.raises(InputError, match="different views"):
        next(repeats_drawn([[one], [one, one]], 2, rng))
    with pytest.raises(InputError, match="1 volumes"):
        bootstrap_std(
            iter([[replace(one, dichroic_tvu=9 * rng.standard_normal((1, 4, 4)))]]),
            partial(reconstruct, grid=Grid((2, 4, 4), VOXEL_NM), method="cgls"),
        )

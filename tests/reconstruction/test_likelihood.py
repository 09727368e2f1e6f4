"""Counts explained by a film: the likelihood against its definition, fields against line integrals in closed form."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from mistral_txm.reconstruction import (
    CountSeries,
    Grid,
    InputError,
    TiltSeries,
    reconstruct,
    reconstruct_counts,
)
from mistral_txm.reconstruction.frames import Rate
from mistral_txm.reconstruction.layers import covered_layers, support_of
from mistral_txm.reconstruction.likelihood import model_of
from mistral_txm.reconstruction.likelihood_prior import SmoothRoot
from mistral_txm.reconstruction.signal import absorbance, helicity_signals
from mistral_txm.reconstruction.smooth_prior import Prior

VOXEL_NM = 10.5
MU_PER_NM, DELTA_PER_NM = 2e-3, 3e-3
TILTS = np.array([-50.0, -25.0, 0.0, 25.0, 50.0])
DEPTH = 6
GRID = Grid((DEPTH, 24, 24), VOXEL_NM)


def rate(counted, dose):
    return Rate(counted / dose, np.maximum(counted, 1) / dose**2)


def absorbances(balls, phi_deg, pixels, tilts=TILTS):
    """Line integrals in closed form [h, view, v, u]: a film that absorbs evenly, and balls in it that are magnetic."""
    pairs = []
    for theta in tilts:
        film = MU_PER_NM * DEPTH * VOXEL_NM / np.cos(np.deg2rad(theta))
        a = film + 0.3 * MU_PER_NM * balls.shadow(theta, phi_deg, pixels)
        s = DELTA_PER_NM * balls.view(theta, phi_deg, pixels)
        pairs.append((a + s, a - s))
    return np.swapaxes(pairs, 0, 1)


def measured(
    balls, photons, *, pixels=24, seed=0, noisy=True, flat_photons=1e5, dose_std=0.0, tilts=TILTS
):
    """Counts at two azimuths in an uneven open beam; also the factors of the doses, and the open beam."""
    rng = np.random.default_rng(seed)
    flat = photons * (1 + 0.2 * np.cos(np.arange(pixels) / 5)[:, None] * np.ones(pixels))
    series, factors = [], []
    for phi_deg in (0.0, 102.0):
        mean = flat * np.exp(-absorbances(balls, phi_deg, pixels, tilts))
        factor = np.exp(rng.normal(0, dose_std, mean.shape[:2]))
        mean = mean * factor[:, :, None, None]
        dose = flat_photons / photons
        flats = tuple(rate(rng.poisson(dose * flat).astype(float), dose) for _ in range(2))
        n = rng.poisson(mean) if noisy else mean
        series.append(CountSeries(phi_deg, tilts, n, np.ones(mean.shape[:2]), flats))
        factors.append(factor)
    return series, factors, flat


def model_for(series, *, dose_std=0.05, pixels=24):
    grid = Grid((DEPTH, pixels, pixels), VOXEL_NM)
    support, _ = support_of(grid, covered_layers(grid, "none", ()))
    return model_of(series, grid, support, dose_std)[0]


@pytest.fixture
def thin_balls(balls):
    """Balls inside the film."""
    centres = balls.centres_nm * np.array([0.4, 0.4, 0.2])
    return type(balls)(centres, balls.vectors, 18.0)


def test_gradient_and_curvature_are_those_of_finite_differences(thin_balls):
    series, _, _ = measured(thin_balls, 30.0, flat_photons=60.0)
    model = model_for(series)
    rng = np.random.default_rng(1)
    y, step = 0.3 * rng.normal(size=(2, model.size))

    def cost(at):
        return model.state(model.eta(at)).value + at @ at / 2

    def gradient(at):
        return model.gradient(model.state(model.eta(at)), at)

    h = 1e-2
    slope = (cost(y + h * step) - cost(y - h * step)) / (2 * h)
    assert slope == pytest.approx(gradient(y) @ step, rel=1e-4)
    bent = (gradient(y + h * step) - gradient(y - h * step)) / (2 * h)
    found = model.hessian_times(model.state(model.eta(y)), step)
    assert np.linalg.norm(found - bent) < 2e-3 * np.linalg.norm(bent)


def test_cost_is_that_of_poisson_numbers_with_the_best_flat(thin_balls):
    series, _, _ = measured(thin_balls, 20.0, flat_photons=40.0)
    model = model_for(series)
    at = (1, slice(0, len(TILTS)), 11, 13)
    assert model.rays.seen_hvij[at].all()
    counts = model.counts
    n, k = counts.photons_hvij[at], counts.flat_counts_hsij[1, 0, 11, 13]
    dose = counts.flat_dose_hsij[1, 0, 11, 13]

    def best(eta_v):
        """Of one pixel: minus the logarithm of the probability of its counts and flat, and the flat."""

        def cost(log_flat):
            f = np.exp(log_flat)
            p = scipy.stats.poisson.logpmf(n, f * np.exp(eta_v)).sum()
            return -p - scipy.stats.poisson.logpmf(round(k), f * dose)

        found = scipy.optimize.minimize_scalar(cost, bracket=(0.0, 4.0), tol=1e-10)
        return found.fun, np.exp(found.x)

    one = np.random.default_rng(2).normal(-0.5, 0.2, model.rays.seen_hvij.shape)
    other = one.copy()
    other[at] += np.array([0.3, -0.1, 0.2, 0.0, 0.4])
    state, state_other = model.state(one), model.state(other)
    (cost, flat), (cost_other, _) = best(one[at]), best(other[at])
    assert state.flat_hsij[1, 0, 11, 13] == pytest.approx(flat, rel=1e-5)
    assert state_other.value - state.value == pytest.approx(cost_other - cost, rel=1e-6)


def test_rays_meet_the_line_integrals_in_detector_pixels(thin_balls):
    thin_balls = dataclasses.replace(thin_balls, sigma_nm=30.0)
    pixels, tilts = 48, np.array([-50.0, 20.0])
    series, _, _ = measured(thin_balls, 30.0, pixels=pixels, tilts=tilts)
    grid = Grid((16, pixels, pixels), VOXEL_NM)
    support, _ = support_of(grid, covered_layers(grid, "none", ()))
    model, domain = model_of(series, grid, support, 0.0)
    (oy, ox), (ny, nx) = domain.offset_yx, domain.shape_yx
    around = ((0, 0), (0, 0), (oy, ny - pixels - oy), (ox, nx - pixels - ox))
    mu = np.pad(thin_balls.scalar(grid)[None], around)
    m = np.pad(thin_balls.field(grid), around)
    found = model.rays.forward(mu, m)
    for v, (phi, theta) in enumerate((p, t) for p in (0.0, 102.0) for t in tilts):
        a = thin_balls.shadow(theta, phi, pixels)
        s = thin_balls.view(theta, phi, pixels)
        for h, sign in enumerate((1, -1)):
            seen = model.rays.seen_hvij[h, v]
            assert seen[pixels // 2, pixels // 2]
            difference = np.where(seen, found[h, v] - a - sign * s, 0)
            assert np.abs(difference).max() < 0.03 * np.abs(a + sign * s).max()


def test_transpose_is_one(thin_balls):
    model = model_for(measured(thin_balls, 30.0)[0])
    rng = np.random.default_rng(3)
    y = rng.normal(size=model.size)
    values = rng.normal(size=model.rays.seen_hvij.shape) * model.rays.seen_hvij
    there, back = np.sum(model.eta_step(y) * values), y @ model.transpose(values)
    assert there == pytest.approx(back, rel=1e-4)


def test_root_of_the_prior_is_one():
    prior, z_nm, n = Prior(2.0, 0.01), np.array([-21.0, 0.0, 10.5]), 20
    root = SmoothRoot.of(prior, z_nm, (n, n), VOXEL_NM)
    wave = np.cos(2 * np.pi * 3 * np.arange(n) / n)
    field = np.zeros((1, 3, n, n), np.float32)
    field[0, 1] = wave
    q = 2 * np.pi * 3 / (n * VOXEL_NM)
    found = root.apply(root.apply(field))[0, :, 4, 0]
    # P(q) over the mean of (kappa^2 + q^2)^(-3/2), written out
    f = 2 * np.pi * np.fft.fftfreq(n, VOXEL_NM)
    half = np.hypot(f[:, None], f[None, : n // 2 + 1])
    power = 2.0 * (0.01**2 + q**2) ** -1.5 / np.mean((0.01**2 + half**2) ** -1.5)
    a = np.hypot(0.01, q) * np.abs(z_nm)
    expected = power * (1 + a) * np.exp(-a)
    # a ring of frequencies has one root, that of its mean radius
    assert np.allclose(found, expected, rtol=0.06)


def by_logarithms(series, grid):
    tilts = []
    for one in series:
        signals = [
            helicity_signals(
                *(absorbance(Rate(n, n), f) for n, f in zip(pair, one.flats, strict=True))
            )
            for pair in np.swapaxes(np.asarray(one.photons_htvu, float), 0, 1)
        ]
        s = np.stack([signal.dichroic_vu for signal in signals])
        tilts.append(TiltSeries(one.phi_deg, one.theta_deg_t, s, np.full(len(s), 0.01)))
    return reconstruct(tilts, grid).m_czyx


@pytest.mark.slow
def test_many_photons_give_what_logarithms_give(thin_balls):
    series, _, _ = measured(thin_balls, 3e4, tilts=np.arange(-54.0, 55, 18))
    grid = GRID
    joint = reconstruct_counts(series, grid, dose_std=0.001)
    logs = by_logarithms(series, grid)
    inside = (..., slice(4, 20), slice(4, 20))
    assert np.corrcoef(joint.m_czyx[inside].ravel(), logs[inside].ravel())[0, 1] > 0.97
    truth = DELTA_PER_NM * thin_balls.field(grid)
    errors = [np.linalg.norm((m - truth)[inside]) for m in (joint.m_czyx, logs)]
    assert errors[0] < 1.1 * errors[1]
    # the film's mean absorption, that of the balls added
    expected = MU_PER_NM * (1 + 0.3 * thin_balls.scalar(grid)[inside].mean())
    assert joint.mu_per_nm[inside].mean() == pytest.approx(expected, rel=0.02)


def test_helicities_exchanged_turn_m_around(thin_balls):
    series, _, _ = measured(thin_balls, 300.0, noisy=False, flat_photons=1e9)
    grid = GRID
    swapped = [
        CountSeries(s.phi_deg, s.theta_deg_t, s.photons_htvu[::-1], s.dose_ht, s.flats[::-1])
        for s in series
    ]
    one, other = (reconstruct_counts(s, grid, dose_std=0.01) for s in (series, swapped))
    assert np.abs(one.m_czyx + other.m_czyx).max() < 0.02 * np.abs(one.m_czyx).max()
    truth = thin_balls.field(grid)
    assert np.sum(one.m_czyx * truth) > 0
    assert np.allclose(one.mu_per_nm, other.mu_per_nm, rtol=0.02)


@pytest.mark.parametrize("read_std", [0.0, 1.5])
def test_pixels_without_a_photon_are_data(thin_balls, read_std):
    series, _, _ = measured(thin_balls, 2.0, flat_photons=60.0)
    rng = np.random.default_rng(4)
    read = [s.photons_htvu + rng.normal(0, read_std, s.photons_htvu.shape) for s in series]
    assert np.mean(np.array(read) <= 0) > 0.1
    series = [
        dataclasses.replace(s, photons_htvu=n, read_variance=read_std**2)
        for s, n in zip(series, read, strict=True)
    ]
    result = reconstruct_counts(series, GRID, dose_std=0.02)
    assert np.isfinite(result.m_czyx).all()
    assert result.mu_per_nm.mean() == pytest.approx(MU_PER_NM * 1.05, rel=0.15)
    # what an exposure weighs: the photons' part of its variance
    weight = model_for(series).counts.weight_hv
    mean = np.concatenate([n.mean(axis=(2, 3)) for n in read], axis=1)
    assert np.allclose(weight, mean / (mean + read_std**2), rtol=0.05)


def test_each_helicity_has_its_own_shift(thin_balls):
    series, _, _ = measured(thin_balls, 30.0)
    shift = np.zeros((2, len(TILTS), 2))
    shift[1] = np.array([1, -2]) * VOXEL_NM
    moved = [dataclasses.replace(s, shift_vu_nm_t=shift) for s in series]
    y = np.random.default_rng(5).normal(size=model_for(series).size)
    there, here = (model_for(s).rays for s in (moved, series))
    fields = model_for(series).fields(y)
    found, expected = (rays.forward(fields.mu, fields.signal) for rays in (there, here))
    assert np.allclose(found[0], expected[0], atol=1e-4)
    seen = here.seen_hvij[1, :, :-1, 2:] & there.seen_hvij[1, :, 1:, :-2]
    assert np.allclose(found[1, :, 1:, :-2][seen], expected[1, :, :-1, 2:][seen], atol=1e-4)


def test_wrong_doses_and_poor_flats_are_found(thin_balls):
    series, factors, flat = measured(thin_balls, 100.0, dose_std=0.05, flat_photons=30.0, pixels=32)
    grid = Grid((DEPTH, 32, 32), VOXEL_NM)
    result = reconstruct_counts(series, grid, dose_std=0.05)
    for found, true in zip(result.factor_ht, factors, strict=True):
        # What all have in common, and what differs between the helicities as uniform magnetization would, is known
        # no better than the stated doses.
        rest = np.log(found / true).mean(axis=0)
        assert np.std(rest) < 0.01 < np.std(np.log(true).mean(axis=0))
        assert np.abs(rest.mean()) < 0.05
    # a flat takes one number of the 5 views and its own 0.3, the fields some more
    assert 0.7 < np.mean(result.deviance_ht) < 1 - 1 / 5.3 + 0.02
    for estimated, one in zip(result.flat_hvu, series, strict=True):
        known = np.isfinite(estimated)
        stated = np.stack([f.rate_vu for f in one.flats])
        errors = []
        for values in (estimated, stated):
            ratio = (values / flat)[known]
            errors.append(np.std(ratio / ratio.mean()))
        assert errors[0] < 0.75 * errors[1]


@pytest.mark.slow
def test_standard_deviations_are_the_scatter_of_the_errors(thin_balls):
    scores, errors = [], []
    for seed in range(5):
        series, factors, _ = measured(
            thin_balls, 30.0, dose_std=0.03, flat_photons=300.0, seed=seed
        )
        result = reconstruct_counts(series, GRID, dose_std=0.03, draws=6)
        assert result.std_factor_ht is not None
        assert result.std_m_zyx is not None
        assert result.std_m_zyx.shape == GRID.shape_zyx
        error = np.sqrt(np.mean((result.m_czyx - DELTA_PER_NM * thin_balls.field(GRID)) ** 2))
        errors.append(error / np.sqrt(np.mean(result.std_m_zyx**2)))
        for found, true, std in zip(result.factor_ht, factors, result.std_factor_ht, strict=True):
            scores.append((found - true) / std)
    # balls are no random field of the prior's spectrum: no more than a guide
    assert 0.4 < np.mean(errors) < 2
    # 100 factors; those of one measurement share what they have in common
    assert 0.7 < np.sqrt(np.mean(np.square(scores))) < 1.35


def spoiled(series, **changes):
    one = series[0]
    fields = {
        name: getattr(one, name)
        for name in ("phi_deg", "theta_deg_t", "photons_htvu", "dose_ht", "flats")
    }
    return [CountSeries(**(fields | changes))]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"photons_htvu": np.ones((5, 24, 24))}, "helicity"),
        ({"photons_htvu": np.zeros((2, 5, 24, 24))}, "no light"),
        ({"photons_htvu": np.full((2, 5, 24, 24), np.inf)}, "infinite"),
        ({"photons_htvu": np.full((2, 5, 24, 24), np.nan)}, "no pixel"),
        ({"dose_ht": np.zeros((2, 5))}, "doses"),
        ({"dose_ht": np.ones(5)}, "doses"),
        ({"theta_deg_t": np.full(5, 85.0)}, "at most 80"),
        ({"flats": (Rate(np.ones((3, 3)), np.ones((3, 3))),) * 2}, "flats"),
        ({"flats": (Rate(np.zeros((24, 24)), np.ones((24, 24))),) * 2}, "without light"),
        ({"flats": (Rate(np.ones((24, 24)), np.zeros((24, 24))),) * 2}, "without variance"),
        ({"read_variance": -1.0}, "read variance"),
        ({"shift_vu_nm_t": np.zeros((5, 3))}, "shifts"),
    ],
)
def test_bad_counts_are_refused_in_one_line(thin_balls, changes, words):
    series, _, _ = measured(thin_balls, 30.0)
    with pytest.raises(InputError, match=words) as caught:
        reconstruct_counts(spoiled(series, **changes), GRID, dose_std=0.02)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dose_std": -1.0}, "dose"),
        ({"dose_std": 0.02, "delta_per_nm": 0.0}, "delta"),
        ({"dose_std": 0.02, "layers_nm": [(5.0, 1.0)]}, "layer"),
    ],
)
def test_bad_options_are_refused(thin_balls, options, words):
    series, _, _ = measured(thin_balls, 30.0)
    with pytest.raises(InputError, match=words):
        reconstruct_counts(series, GRID, **options)

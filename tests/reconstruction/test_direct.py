import numpy as np
import pytest

from mistral_txm.reconstruction import Grid, TiltSeries, direct
from mistral_txm.reconstruction.direct import ViewToCome, solve_direct
from mistral_txm.reconstruction.direct_kernel import LEAST_NOISE
from mistral_txm.reconstruction.extension import extend_views
from mistral_txm.reconstruction.lateral_frequencies import Frequencies
from mistral_txm.reconstruction.layers import Support
from mistral_txm.reconstruction.smooth_prior import MODEL_ERROR, Prior, Statistics, statistics
from mistral_txm.reconstruction.views import View, resampled_film

VOXEL = 10.5
SHAPE = (16, 20)


def random_views(shape_yx, count=5, seed=0):
    rng = np.random.default_rng(seed)
    theta = np.linspace(-52, 47, count)
    return [
        View(phi, t, rng.normal(size=shape_yx).astype(np.float32), np.ones(shape_yx, bool), 0.3)
        for phi in (0.0, 102.0)
        for t in theta
    ]


def posterior_by_definition(views, q, p_q, mean_power, support, prior, domain_q):
    """Mean and explained variance of m(q, z), by the textbook formula with complex matrices."""
    theta = np.deg2rad([v.theta_deg for v in views])
    phi = np.deg2rad([v.phi_deg for v in views])
    e = np.stack([np.cos(phi), -np.sin(phi)])
    k = np.stack([np.sin(theta) * np.cos(phi), -np.sin(theta) * np.sin(phi), np.cos(theta)])
    w = k / np.cos(theta)
    along = q[0] * np.cos(phi) - q[1] * np.sin(phi)
    across = q[0] * np.sin(phi) + q[1] * np.cos(phi)
    band = np.hypot(along / np.cos(theta), across) < 2 * np.pi / 25
    phase = (
        np.exp(1j * (np.tan(theta) * (q @ e))[:, None] * support.z_nm) * VOXEL * support.coverage_z
    )
    a = np.concatenate([w[c][:, None] * phase for c in range(3)], axis=1)[band]
    r = np.hypot(*q)
    kappa = prior.kappa_per_nm
    power = prior.variance * (kappa**2 + r**2) ** -1.5 / np.mean((kappa**2 + domain_q**2) ** -1.5)
    distance = np.hypot(kappa, r) * np.abs(support.z_nm[:, None] - support.z_nm)
    along_z = power * (1 + distance) * np.exp(-distance)
    covariance = np.kron(np.eye(3), along_z)
    gram = a @ covariance @ a.conj().T
    noise = np.array([v.std_signal for v in views])[band] ** 2 / np.cos(theta[band])
    noise = noise + MODEL_ERROR**2 * mean_power + LEAST_NOISE * np.diag(gram).real
    mean = covariance @ a.conj().T @ np.linalg.solve(gram + np.diag(noise), p_q[band])
    explained = np.diag(
        covariance @ a.conj().T @ np.linalg.solve(gram + np.diag(noise), a @ covariance)
    ).real
    return mean.reshape(3, -1), explained.reshape(3, -1)


SUPPORTS = {
    "even": Support((np.arange(6) - 2.5) * VOXEL, np.array([0.4, 1, 1, 1, 1, 0.4])),
    "odd": Support((np.arange(5) - 2.0) * VOXEL, np.ones(5)),
    "two layers": Support(np.array([-4.5, -3.5, 3.5, 4.5]) * VOXEL, np.array([1.0, 0.5, 0.5, 1.0])),
    "off centre": Support((np.arange(4) + 3.0) * VOXEL, np.ones(4)),
    "no symmetry": Support(np.array([-3.0, -2.0, 4.0]) * VOXEL, np.array([0.3, 1.0, 0.7])),
    "one": Support(np.array([0.0]), np.ones(1)),
}


def solved(support):
    """Random views, and what is found from them."""
    views = random_views(SHAPE)
    return views, solve_direct(views, np.stack([v.signal_yx for v in views]), support, VOXEL)


def statistics_of(views, support):
    """Spectra of the views, their frequencies, and what `statistics` sees in them."""
    p_hat = np.fft.rfft2([v.signal_yx for v in views], norm="ortho")
    frequencies = Frequencies.of(SHAPE, VOXEL)
    seen = statistics(views, p_hat.astype(np.complex64), frequencies, support, VOXEL)
    return p_hat, frequencies, seen


@pytest.mark.parametrize("name", SUPPORTS)
def test_every_frequency_is_the_posterior_mean(name):
    support = SUPPORTS[name]
    views, solution = solved(support)
    assert solution.field is not None
    found = np.fft.rfft2(solution.field, norm="ortho")
    p_hat, frequencies, seen = statistics_of(views, support)
    largest = np.abs(found).max()
    # the two bins of real coefficients apart: column 0 and the last are halves of pairs
    for k in range(1, len(frequencies.radius), 7):
        if frequencies.index_x[k] in (0, SHAPE[1] // 2):
            continue
        # the prior is taken at the mean |q| of its bin
        radius = frequencies.bin_radius[frequencies.bins[k]]
        q = np.array([frequencies.qx[k], frequencies.qy[k]])
        at = (frequencies.index_y[k], frequencies.index_x[k])
        mean, _ = posterior_by_definition(
            views, q, p_hat[:, at[0], at[1]], seen.model_noise_b[frequencies.bins[k]] / MODEL_ERROR**2,
            support, seen.prior, frequencies.domain_radius,
        )  # fmt: skip
        tolerance = 2e-4 + 3 * abs(np.hypot(*q) - radius) / radius
        assert np.abs(found[:, :, at[0], at[1]] - mean).max() < tolerance * max(
            np.abs(mean).max(), 1e-2 * largest
        )


@pytest.mark.parametrize("name", SUPPORTS)
def test_data_fraction_is_the_explained_part_of_the_prior(name):
    support = SUPPORTS[name]
    views, solution = solved(support)
    p_hat, frequencies, seen = statistics_of(views, support)
    explained = np.zeros(len(support.z_nm))
    for k in range(len(frequencies.radius)):
        double = 1 if frequencies.index_x[k] in (0, SHAPE[1] // 2) else 2
        q = np.array([frequencies.qx[k], frequencies.qy[k]])
        _, part = posterior_by_definition(
            views, q, p_hat[:, 0, 0], seen.model_noise_b[frequencies.bins[k]] / MODEL_ERROR**2,
            support, seen.prior, frequencies.domain_radius,
        )  # fmt: skip
        explained += double * part.mean(axis=0)
    q_all = 2 * np.pi * np.hypot(np.fft.fftfreq(16, VOXEL)[:, None], np.fft.fftfreq(20, VOXEL))
    total = seen.prior.power(q_all.ravel(), frequencies.domain_radius).sum()
    # sampled at a few frequencies, hence the tolerance
    np.testing.assert_allclose(solution.data_fraction_z, explained / total, atol=0.08)


@pytest.mark.parametrize("name", SUPPORTS)
def test_residuals_are_what_the_field_leaves_of_the_views(name):
    support = SUPPORTS[name]
    views, solution = solved(support)
    p_hat = np.fft.rfft2([v.signal_yx for v in views])
    m_hat = np.fft.rfft2(solution.field)
    qy = 2 * np.pi * np.fft.fftfreq(SHAPE[0], VOXEL)[:, None]
    qx = 2 * np.pi * np.fft.rfftfreq(SHAPE[1], VOXEL)
    for i, view in enumerate(views):
        theta, phi = np.deg2rad([view.theta_deg, view.phi_deg])
        along, across = qx * np.cos(phi) - qy * np.sin(phi), qx * np.sin(phi) + qy * np.cos(phi)
        shear = np.tan(theta) * along * support.z_nm[:, None, None]
        w = np.array([np.tan(theta) * np.cos(phi), -np.tan(theta) * np.sin(phi), 1.0])
        layers = (VOXEL * support.coverage_z)[:, None, None] * np.exp(1j * shear)
        band = np.hypot(along / np.cos(theta), across) < 2 * np.pi / 25
        model = band * np.einsum("c,czyx,zyx->yx", w, m_hat, layers)
        # a coefficient that is its own mirror image keeps its real part alone
        left = np.fft.irfft2(p_hat[i] - model, s=SHAPE)
        rms = np.sqrt(np.mean(left[view.seen_yx] ** 2))
        assert solution.residual_rms_v[i] == pytest.approx(rms, rel=1e-4)


@pytest.mark.parametrize("last", [3, 7, 10])
@pytest.mark.parametrize("name", sorted(SUPPORTS.keys() - {"no symmetry"}))
def test_the_response_to_a_view_to_come_gives_the_solution_with_it(name, last, monkeypatch):
    support, views = SUPPORTS[name], random_views(SHAPE)[:last]
    planes = np.stack([v.signal_yx for v in views])
    _, _, seen = statistics_of(views, support)

    def of_all(some, *_):
        return Statistics(seen.noise_v[: len(some)], seen.model_noise_b, seen.prior)

    monkeypatch.setattr(direct, "statistics", of_all)
    *before, new = views
    ahead = ViewToCome(new.phi_deg, new.theta_deg, new.std_signal)
    without = solve_direct(before, planes[:-1], support, VOXEL, ahead=ahead)
    alone = solve_direct(before, planes[:-1], support, VOXEL)
    with_all = solve_direct(views, planes, support, VOXEL)
    # modes along z that the steepest view sees are kept for it
    scale = np.abs(with_all.field).max()
    np.testing.assert_allclose(without.field, alone.field, atol=2e-3 * scale)
    change, left = without.response.follow(planes[-1])
    np.testing.assert_allclose(without.field + change, with_all.field, atol=2e-4 * scale)
    assert np.abs(change).max() > 0.1 * scale
    rms = np.sqrt(np.mean(left**2))
    assert rms == pytest.approx(with_all.residual_rms_v[-1], rel=1e-4)


def test_without_symmetry_there_is_no_response():
    *before, new = random_views(SHAPE)
    planes = np.stack([v.signal_yx for v in before])
    ahead = ViewToCome(new.phi_deg, new.theta_deg, new.std_signal)
    assert (
        solve_direct(before, planes, SUPPORTS["no symmetry"], VOXEL, ahead=ahead).response is None
    )


def test_views_that_are_all_noise_make_next_to_no_field():
    views = [
        View(0.0, t, np.full((4, 4), 1e-3, np.float32), np.ones((4, 4), bool), 1.0)
        for t in (-20.0, 30.0)
    ]
    extended = np.stack([v.signal_yx for v in views])
    solution = solve_direct(views, extended, SUPPORTS["even"], VOXEL)
    assert np.isfinite(solution.field).all()
    assert np.abs(solution.field).max() * VOXEL < 1e-3
    assert solution.data_fraction_z.max() < 0.01


def test_prior_is_found_from_its_own_samples():
    """Views of a random field of known variance and correlation length, no edges."""
    rng = np.random.default_rng(2)
    n, nz, kappa, variance = 64, 8, 0.01, 0.5
    frequencies = Frequencies.of((n, n), VOXEL)
    z = (np.arange(nz) - 3.5) * VOXEL
    prior = Prior(variance, kappa)
    q = 2 * np.pi * np.hypot(np.fft.fftfreq(n, VOXEL)[:, None], np.fft.rfftfreq(n, VOXEL)[None, :])
    white = np.fft.rfft2(rng.normal(size=(3, nz, n, n)), norm="ortho")
    power = prior.power(q, frequencies.domain_radius)
    roots = np.array(
        [np.linalg.cholesky(prior.along_z(float(r), z) + 1e-9 * np.eye(nz)) for r in q.ravel()]
    )
    coloured = np.einsum("qij,cjq->ciq", roots, white.reshape(3, nz, -1)).reshape(
        white.shape
    ) * np.sqrt(power)
    views = [
        View(p, t, np.zeros((n, n), np.float32), np.ones((n, n), bool), 0.5)
        for p in (0.0, 102.0)
        for t in (-50, -25, 0, 25, 50)
    ]
    p_hat = []
    for view in views:
        shear = np.tan(np.deg2rad(view.theta_deg))
        phi = np.deg2rad(view.phi_deg)
        qy, qx = np.meshgrid(
            2 * np.pi * np.fft.fftfreq(n, VOXEL),
            2 * np.pi * np.fft.rfftfreq(n, VOXEL),
            indexing="ij",
        )
        phase = (
            np.exp(1j * shear * (qx * np.cos(phi) - qy * np.sin(phi)) * z[:, None, None]) * VOXEL
        )
        along = shear * (np.cos(phi) * coloured[0] - np.sin(phi) * coloured[1]) + coloured[2]
        p_hat.append((along * phase).sum(axis=0))
    noise = rng.normal(0, 0.5, (len(views), n, n))
    p = np.array(p_hat) + np.fft.rfft2(noise, norm="ortho")
    found = statistics(
        views, p.astype(np.complex64), frequencies, Support(z, np.ones(nz)), VOXEL
    ).prior
    assert found.kappa_per_nm == kappa
    assert found.variance == pytest.approx(variance, rel=0.35)


def test_unseen_rays_get_what_a_common_field_projects_to(balls):
    """A sample wider than the field of view: a larger detector tells what the smaller one did not see."""
    rng = np.random.default_rng(6)
    sample = type(balls)(
        rng.uniform(-1, 1, (40, 3)) * [400.0, 400.0, 50.0], rng.normal(size=(40, 3)), 40.0
    )
    grid = Grid((16, 48, 48), VOXEL)
    theta = np.arange(-55.0, 56.0, 10.0)

    def views_of(pixels):
        images = {p: np.stack([sample.view(t, p, pixels) for t in theta]) for p in (0.0, 102.0)}
        return resampled_film(
            [TiltSeries(p, theta, one, np.full(12, 0.01)) for p, one in images.items()], grid
        )[0]

    views, beyond = views_of(48), views_of(72)
    extended = extend_views(views, Support(grid.z_nm, np.ones(16)), VOXEL)
    signal, truth = np.stack([v.signal_yx for v in views]), np.stack([v.signal_yx for v in beyond])
    seen = np.stack([v.seen_yx for v in views])
    np.testing.assert_array_equal(extended[seen], signal[seen])
    near = (
        np.stack([v.seen_yx for v in beyond])
        & ~seen
        & np.stack([v.seen_yx for v in views]).any(axis=0)
    )
    assert np.count_nonzero(near) > 1000
    assert np.sqrt(np.mean((extended - truth)[near] ** 2)) < 0.5 * np.std(truth[near])

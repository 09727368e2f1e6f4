import numpy as np
import pytest

from mistral_txm.reconstruction import (
    Grid,
    InputError,
    TiltSeries,
    reconstruct,
    reconstruct_absorption,
)
from mistral_txm.reconstruction.geometry import film_direction

VOXEL = 10.5
N = 40
GRID = Grid((N, N, N), VOXEL)
FULL_TURN = np.arange(0.0, 360.0, 20.0)


def series_of(balls, theta_deg_t, phi_deg, *, noise=0.0, scalar=False, **mount):
    image = balls.shadow if scalar else balls.view
    views = np.stack([image(t, phi_deg, N + 24, **mount) for t in theta_deg_t])
    std = max(noise * views.std(), 1e-4 * views.std())
    views = views + np.random.default_rng(7).normal(0, noise * views.std(), views.shape)
    return TiltSeries(phi_deg, theta_deg_t, views, np.full(len(theta_deg_t), std), **mount)


@pytest.fixture
def pillar(balls):
    """Six balls within a cube of 40 voxels."""
    return type(balls)(balls.centres_nm * [0.5, 0.5, 2.0], balls.vectors, 35.0)


def relative_error(found, truth):
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


def rotational(balls, grid):
    """The part of the field that any longitudinal measurement can see: without divergence, by its Fourier transform."""
    m = balls.field(Grid(tuple(3 * n for n in grid.shape_zyx), grid.voxel_nm))
    q = np.stack(np.meshgrid(*(np.fft.fftfreq(n) for n in m.shape[1:]), indexing="ij")[::-1])
    q2 = np.maximum((q**2).sum(axis=0), 1e-12)
    spectrum = np.fft.fftn(m, axes=(1, 2, 3))
    spectrum -= q * (q * spectrum).sum(axis=0) / q2
    whole = np.fft.ifftn(spectrum, axes=(1, 2, 3)).real
    return whole[:, grid.shape_zyx[0] : -grid.shape_zyx[0], N:-N, N:-N]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cgls", "sirt", "art"])
def test_a_pillar_turned_fully_round_about_two_axes(pillar, method):
    """Donnelly et al., Nature 547, 328 (2017): the second mounting is rolled. What has no divergence comes back."""
    series = [
        series_of(pillar, FULL_TURN, 0.0),
        series_of(pillar, FULL_TURN, 90.0, roll_deg=30.0),
    ]
    found = reconstruct(series, GRID, method=method, isolated=True)
    truth = pillar.field(GRID)
    error = relative_error(found.m_czyx, truth)
    best = relative_error(rotational(pillar, GRID), truth)
    # what no ray sees stays open; nothing else does
    assert error < best + 0.1
    assert np.mean(found.residual_rms_per_view) < 0.03 * np.std(series[0].dichroic_tvu)
    strong = np.linalg.norm(truth, axis=0) > 0.3 * np.linalg.norm(truth, axis=0).max()
    assert 0.4 < found.data_fraction[strong].mean() <= 1


@pytest.mark.slow
def test_sample_and_geometry_turned_together_change_nothing(pillar):
    """Rolled upright, the volume's z axis becomes its y axis; the field has to follow."""
    plain = reconstruct(
        [series_of(pillar, FULL_TURN, 0.0), series_of(pillar, FULL_TURN, 90.0, roll_deg=30.0)],
        GRID, method="cgls", isolated=True, iterations=10,
    )  # fmt: skip
    # the same experiment on a sample that was turned by 90 deg about z beforehand
    c, s = 0.0, 1.0
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    turned = type(pillar)(pillar.centres_nm @ turn.T, pillar.vectors @ turn.T, pillar.sigma_nm)
    again = reconstruct(
        [series_of(turned, FULL_TURN, -90.0), series_of(turned, FULL_TURN, 0.0, roll_deg=30.0)],
        GRID, method="cgls", isolated=True, iterations=10,
    )  # fmt: skip
    back = np.stack([np.rot90(part, 1, axes=(1, 2)) for part in (again.my, -again.mx, again.mz)])
    assert relative_error(back, plain.m_czyx) < 0.02


@pytest.mark.slow
def test_absorption_of_an_isolated_structure_by_the_same_code(pillar):
    series = [series_of(pillar, FULL_TURN, 0.0, scalar=True)]
    found = reconstruct_absorption(series, GRID, isolated=True)
    assert relative_error(found.mu_per_nm, pillar.scalar(GRID)) < 0.1


@pytest.mark.slow
def test_absorption_of_a_film_by_the_same_code(balls):
    """The missing wedge smears along z; what the layers hold together is right."""
    theta = np.arange(-55.0, 56.0, 5.0)
    grid = Grid((24, N, N), VOXEL)
    series = [series_of(balls, theta, phi, scalar=True) for phi in (0.0, 90.0)]
    found = reconstruct_absorption(series, grid)
    truth = balls.scalar(grid)
    assert relative_error(found.mu_per_nm.sum(axis=0), truth.sum(axis=0)) < 0.05
    assert relative_error(found.mu_per_nm, truth) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("mount", [{"roll_deg": 25.0}, {"lean_deg": 40.0}])
@pytest.mark.parametrize("turn_deg", [0.0, 180.0])
def test_a_film_mounted_otherwise_is_the_same_film(balls, mount, turn_deg):
    """Rolled mountings, leaning axes and views from behind say what ordinary views along the same lines say."""
    grid = Grid((12, N, N), VOXEL)
    theta = np.arange(-30.0, 31.0, 12.0) + turn_deg
    series = [series_of(balls, theta, phi, **mount) for phi in (0.0, 60.0, 120.0, 180.0)]
    std = series[0].std_tvu[:1]
    ordinary = []
    for one in series:
        for theta_deg in theta:
            tilt_deg, phi_deg, _ = film_direction(one.mount, theta_deg)
            view = balls.view(tilt_deg, phi_deg, N + 24)
            ordinary.append(TiltSeries(phi_deg, [tilt_deg], view[None], std))
    found, expected = (reconstruct(some, grid).m_czyx for some in (series, ordinary))
    inside = (..., slice(8, -8), slice(8, -8))
    assert relative_error(found[inside], expected[inside]) < 0.05


def test_m_parallel_and_m_perp_of_one_series(balls):
    """The beam of one series lies in one plane: two components, the third is nothing."""
    grid = Grid((12, N, N), VOXEL)
    theta = np.arange(-55.0, 56.0, 10.0)
    found = reconstruct([series_of(balls, theta, 102.0)], grid)
    c, s = np.cos(np.deg2rad(102.0)), np.sin(np.deg2rad(102.0))
    across = s * found.mx + c * found.my
    assert np.abs(across).max() < 1e-4 * np.abs(found.parallel_to(102.0)).max()
    truth = balls.field(grid)
    summed = (c * truth[0] - s * truth[1]).sum(axis=0)
    assert np.corrcoef(found.parallel_to(102.0).sum(axis=0).ravel(), summed.ravel())[0, 1] > 0.9


def _one(theta_deg=(0.0, 100.0), **changes):
    images = np.ones((len(theta_deg), 16, 16))
    return [TiltSeries(0.0, list(theta_deg), images, [0.1] * len(theta_deg), **changes)]


@pytest.mark.parametrize(
    ("series", "options", "words"),
    [
        (_one((0.0, 98.0)), {"method": "cgls"}, "sees the film at 82 deg"),
        (_one((0.0, 85.0)), {}, "at 85 deg to its normal, expected at most 80; leave it out, or say"),
        (_one(), {"isolated": True}, "method 'direct': it is made for a film"),
        (_one(), {"isolated": True, "method": "cgls", "prior": "norm", "layers_nm": [(-20, 20)]}, "prior 'norm'"),
        (_one(roll_deg=100.0), {}, "a roll of 100.0 deg, expected -90 to 90"),
        (_one(lean_deg=np.nan), {}, "a lean of the tilt axis of nan deg"),
        (_one(shift_vu_nm_t=[[0.0, 9e4]] * 2), {"isolated": True, "method": "cgls"}, "no pixel falls on the volume"),
    ],
)  # fmt: skip
def test_refuses_in_one_line(series, options, words):
    with pytest.raises(InputError, match=words) as caught:
        reconstruct(series, Grid((4, 16, 16), VOXEL), **options)
    assert "\n" not in str(caught.value)

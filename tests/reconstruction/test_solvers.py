import numpy as np
import pytest
import scipy.ndimage

from mistral_txm.reconstruction.projector import ShearedProjector
from mistral_txm.reconstruction.solvers import Problem, art, cgls, sirt

THETA = np.array([-50.0, -20.0, 10.0, 40.0] * 2)
PHI = np.array([0.0] * 4 + [102.0] * 4)


def problem_of(noise=0.0, std=0.01, shape=(2, 12, 12), seed=0):
    """A small field, its views and weights; a fifth of the rays is unseen."""
    rng = np.random.default_rng(seed)
    truth = 4 * scipy.ndimage.gaussian_filter(
        rng.normal(size=(3, *shape)), (0, 0, 1.5, 1.5), mode="wrap"
    ).astype(np.float32)
    z_nm = (np.arange(shape[0]) - (shape[0] - 1) / 2) * 10.5
    projector = ShearedProjector(THETA, PHI, z_nm, 10.5)
    coverage = np.linspace(0.6, 1.0, shape[0]).astype(np.float32)
    seen = rng.random((8, *shape[1:])) > 0.2
    weight = (np.sqrt(np.cos(np.deg2rad(THETA)))[:, None, None] / std * seen).astype(np.float32)
    signal = projector.forward(truth * coverage[:, None, None])
    signal += rng.normal(0, 1, signal.shape).astype(np.float32) * np.float32(noise)
    return Problem(projector, np.where(seen, signal, 0).astype(np.float32), weight, coverage), truth


def dense(problem):
    """The weighted matrix, column by column from unit vectors."""
    size = int(np.prod(problem.field_shape))
    columns = []
    for k in range(size):
        unit = np.zeros(size, np.float32)
        unit[k] = 1
        columns.append(
            (problem.weight_vyx * problem.forward(unit.reshape(problem.field_shape))).ravel()
        )
    return np.array(columns, dtype=np.float64).T


def test_cgls_finds_the_least_squares_solution_of_least_norm():
    problem, _ = problem_of(noise=0.1, shape=(2, 6, 6))
    matrix = dense(problem)
    expected = np.linalg.lstsq(
        matrix, (problem.weight_vyx * problem.signal_vyx).ravel().astype(float), rcond=1e-6
    )[0]
    found = cgls(problem, iterations=300, stop_chi2=None).ravel()
    # directions that the rays hardly see converge last: a tenth in the field, a thousandth in what is measured
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)
    assert np.linalg.norm(matrix @ (found - expected)) < 1e-3 * np.linalg.norm(matrix @ expected)


@pytest.mark.parametrize(("solver", "iterations"), [(cgls, 60), (sirt, 400), (art, 120)])
def test_stops_where_only_noise_is_left(solver, iterations):
    problem, _ = problem_of(noise=0.5, std=0.5, shape=(2, 24, 24))
    misfits = []
    solver(
        problem, iterations=iterations, callback=lambda number, field, chi2: misfits.append(chi2)
    )
    field = solver(problem, iterations=iterations)
    assert len(misfits) < iterations
    assert misfits[0] > 2
    assert problem.chi2(problem.residual(field)) < 1.1


@pytest.mark.parametrize("solver", [cgls, sirt, art])
def test_warm_start_has_nothing_left_to_do(solver):
    problem, truth = problem_of(noise=0.5, std=0.5)
    seen = []
    solver(
        problem,
        initial=truth,
        iterations=3,
        callback=lambda number, field, chi2: seen.append((number, chi2)),
    )
    assert len(seen) <= 2
    assert all(chi2 < 1.2 for _, chi2 in seen)


@pytest.mark.parametrize("solver", [cgls, sirt, art])
def test_callback_ends_the_iterations(solver):
    problem, _ = problem_of()
    numbers = []

    def stop_at_two(number, field, chi2):
        numbers.append(number)
        return number == 2

    solver(problem, iterations=10, stop_chi2=None, callback=stop_at_two)
    assert numbers == [1, 2]


def test_misfit_of_pure_noise_is_one():
    rng = np.random.default_rng(1)
    problem, truth = problem_of(shape=(2, 64, 64))
    noise = (
        rng.normal(0, 0.01, problem.signal_vyx.shape)
        / np.sqrt(np.cos(np.deg2rad(THETA)))[:, None, None]
    )
    # independent noise of the stretched pixels' power: as many pixels as the domain has, not as the detector
    noisy = Problem(
        problem.projector,
        problem.signal_vyx + noise.astype(np.float32),
        problem.weight_vyx,
        problem.coverage_z,
    )
    n_domain = np.count_nonzero(problem.weight_vyx)
    assert noisy.chi2(noisy.residual(truth)) * noisy.measured_pixels / n_domain == pytest.approx(
        1, rel=0.03
    )

"""What each prior gives on textures of known truth, measured with the simulated beamline's own rays at a real dose.

Every sixth tilt with six times the exposures: the dose is that of the publication. `python -m benchmarks.priors` does
the same with all of them.
"""

import numpy as np
import pytest

from benchmarks.priors import LINEAR_DEG, TEXTURES, measured_line
from benchmarks.tilt_series import measure
from mistral_txm.reconstruction import InputError
from mistral_txm.reconstruction.projector import ShearedProjector
from mistral_txm.reconstruction.solvers import Problem
from mistral_txm.reconstruction.unit_norm import solve_unit_norm


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTURES)
def test_priors_at_a_real_dose(name):
    """Without a prior or with layers as good as a linear solver; norm at least twice as good."""
    case = measure(name, every=6)
    found = {prior: measured_line(case, prior) for prior in ("none", "layers", "norm")}
    assert min(found["none"].angle_deg, found["layers"].angle_deg) <= LINEAR_DEG[name]
    assert found["norm"].angle_deg <= LINEAR_DEG[name] / 2
    if name == "hopfion":
        # most of the field of view is uniform; the hopfion itself is found among several minima
        assert found["norm"].turned_deg < 0.6 * found["layers"].turned_deg
        assert found["norm"].far < 0.03


def test_exchange_is_stronger_where_there_is_more_noise():
    """The weight is chosen from the data: ten times the noise makes it larger."""
    rng = np.random.default_rng(4)
    theta = np.tile(np.arange(-55.0, 56.0, 10.0), 2)
    phi = np.repeat([0.0, 102.0], 12)
    z_nm = np.arange(-1.5, 2) * 10.0
    n = 24
    projector = ShearedProjector(theta, phi, z_nm, 10.0)
    # no helix, which the exchange would leave alone however strong it is
    angle = 1.5 * np.sin(2 * np.pi * 3 * np.arange(n) / n)
    truth = np.zeros((3, 4, n, n), np.float32)
    truth[0], truth[2] = np.sin(angle), np.cos(angle)
    clean = 0.002 * projector.forward(truth)
    found = {}
    for noise in (0.002, 0.02):
        noisy = (clean + noise * rng.standard_normal(clean.shape)).astype(np.float32)
        weight = np.full(clean.shape, 1 / noise, np.float32)
        problem = Problem(projector, noisy, weight, np.ones(4, np.float32))
        start = 0.002 * (truth + 0.3 * rng.standard_normal(truth.shape)).astype(np.float32)
        found[noise] = solve_unit_norm(problem, start)
        length = np.linalg.norm(found[noise].field, axis=0) / found[noise].delta_per_nm
        np.testing.assert_allclose(length, 1, atol=1e-5)
        cosine = np.sum(found[noise].field * truth, axis=0) / found[noise].delta_per_nm
        assert np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))) < 8
    assert found[0.02].exchange_weight > found[0.002].exchange_weight
    assert found[0.002].delta_per_nm == pytest.approx(0.002, rel=0.03)


def test_a_signal_of_nothing_is_refused():
    projector = ShearedProjector(np.zeros(2), np.zeros(2), np.zeros(1), 10.0)
    nothing = np.zeros((2, 4, 4), np.float32)
    problem = Problem(projector, nothing, nothing + 1, np.ones(1, np.float32))
    with pytest.raises(InputError, match="zero everywhere"):
        solve_unit_norm(problem, np.ones((3, 1, 4, 4), np.float32))

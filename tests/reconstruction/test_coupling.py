"""What ties views: derivatives against finite differences, and heights against views laid higher."""

import numpy as np
import pytest
import scipy.ndimage

from mistral_txm.reconstruction import Grid, InputError
from mistral_txm.reconstruction.coupling import Coupling, Window
from mistral_txm.reconstruction.layers import Support
from mistral_txm.reconstruction.views import Domain, View

N, VOXEL_NM = 64, 21.0
GRID = Grid((4, N, N), VOXEL_NM)
DOMAIN = Domain((N, N), (0, 0))
SUPPORT = Support(GRID.z_nm, np.ones(4))
TILTS = (-40.0, -20.0, 0.0, 20.0, 40.0)


def views(rng, move_nm=None, turn_rad=0.0, *, alike=False):
    """Smooth noise in the sheared frame; looked up elsewhere by an exact shift or a turn about the middle."""
    found = []
    y, x = np.mgrid[:N, :N] * VOXEL_NM
    for number, theta in enumerate(TILTS):
        if not (alike and number):
            waves = rng.normal(size=(40, 4))
        dy, dx = (0.0, 0.0) if move_nm is None else move_nm[number]
        middle = (N - 1) / 2 * VOXEL_NM
        yy = y + dy + turn_rad * (x - middle)
        xx = x + dx - turn_rad * (y - middle)
        image = sum(
            a * np.cos(2 * np.pi * (f * yy + g * xx) / 150 + 6 * b)
            for a, b, f, g in waves * [1, 1, 0.5, 0.5]
        )
        seen = np.ones((N, N), bool)
        found.append(View(0.0, theta, image.astype(np.float32), seen, 0.1))
    return found


@pytest.mark.parametrize("scalar", [True, False])
def test_derivatives_are_those_of_the_misfit(scalar):
    here = views(np.random.default_rng(0))
    coupling = Coupling.of(here, GRID, DOMAIN, SUPPORT, scalar=scalar)
    turns = np.tile([[0.0, 1.0], [-1.0, 0.0]], (1, len(TILTS), 1, 1))
    said = coupling.normals(here, turns)

    def misfit(unknown, step):
        move, turn = np.zeros((len(TILTS), 2)), 0.0
        if unknown < 2 * len(TILTS):
            move.flat[unknown] = step
        else:
            turn = step
        return coupling.normals(views(np.random.default_rng(0), move, turn), turns).misfit

    for unknown, step in ((0, 0.5), (1, 0.5), (4, 0.5), (9, 0.5), (10, 1e-3)):
        slope = (misfit(unknown, step) - misfit(unknown, -step)) / (2 * step)
        scale = np.sqrt(said.matrix[unknown, unknown] * said.misfit)
        assert said.gradient[unknown] == pytest.approx(slope, abs=0.02 * scale)
    np.testing.assert_allclose(said.matrix, said.matrix.T, rtol=1e-3, atol=1e-5 * said.matrix.max())
    assert np.linalg.eigvalsh(said.matrix).min() > -1e-5 * said.matrix.max()


def test_lifting_the_sample_is_shearing_the_views():
    """All views of a thin film at z = 0 are alike; laid as if it were lifted, they have to be lowered."""
    here = views(np.random.default_rng(1), alike=True)
    coupling = Coupling.of(here, GRID, DOMAIN, SUPPORT, scalar=True)
    height_nm = 40.0
    move = np.array([[0.0, -height_nm * np.tan(np.deg2rad(theta))] for theta in TILTS])
    lifted = views(np.random.default_rng(1), move, alike=True)
    heights_nm = np.array([-80.0, -40.0, 0.0, 40.0, 80.0])
    assert int(np.argmin(coupling.misfits(here, heights_nm))) == 2
    assert int(np.argmin(coupling.misfits(lifted, heights_nm))) == 1


def test_views_that_share_too_little_are_refused():
    seen = scipy.ndimage.shift(np.ones((N, N)), (50, 0), order=0).astype(bool)
    few = [View(0.0, t, np.zeros((N, N), np.float32), seen, 1.0) for t in TILTS]
    with pytest.raises(InputError, match="in common, at least 32"):
        Window.of(few)

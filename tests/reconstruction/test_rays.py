import numpy as np
import pytest

from mistral_txm.reconstruction import Grid
from mistral_txm.reconstruction.geometry import Mount
from mistral_txm.reconstruction.rays import RayProjector, plane_axes, plane_shape, principal_axis

VOXEL = 10.5


def projector_of(k_vc, shape_zyx, scalar=False):
    return RayProjector(k_vc, shape_zyx, VOXEL, plane_shape(k_vc, shape_zyx), scalar)


def directions(n, seed=0):
    k = np.random.default_rng(seed).normal(size=(n, 3))
    return k / np.linalg.norm(k, axis=1)[:, None]


@pytest.mark.parametrize("scalar", [False, True])
def test_adjoint_is_the_transpose(scalar):
    projector = projector_of(directions(12), (7, 10, 13), scalar)
    rng = np.random.default_rng(1)
    field = rng.normal(size=(1 if scalar else 3, 7, 10, 13)).astype(np.float32)
    views = rng.normal(size=(12, *projector.shape_ab)).astype(np.float32)
    forward, back = projector.forward(field), projector.adjoint(views)
    scale = np.linalg.norm(forward.astype(float)) * np.linalg.norm(views.astype(float))
    there = np.vdot(forward.astype(float), views.astype(float))
    assert abs(there - np.vdot(field.astype(float), back.astype(float))) < 1e-6 * scale


def test_every_ray_that_meets_the_volume_is_on_the_planes():
    """The sum over a view is the field's sum along the beam, whatever the direction: nothing is cut off."""
    k_vc = directions(20, seed=2)
    projector = projector_of(k_vc, (5, 9, 12))
    field = np.random.default_rng(3).normal(size=(3, 5, 9, 12)).astype(np.float32)
    total = projector.forward(field).sum(axis=(1, 2), dtype=float)
    expected = VOXEL * projector.weight_vc @ field.sum(axis=(1, 2, 3), dtype=float)
    np.testing.assert_allclose(total, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rays_along_an_axis_add_up_its_voxels(axis):
    k = np.zeros((1, 3))
    k[0, axis] = -1.0
    projector = projector_of(k, (4, 5, 6))
    field = np.random.default_rng(4).normal(size=(3, 4, 5, 6)).astype(np.float32)
    (view,) = projector.forward(field)
    summed = -VOXEL * field[axis].sum(axis=2 - axis)
    (fa, fb) = ((n - m) // 2 for n, m in zip(view.shape, summed.shape, strict=True))
    inside = view[fa : fa + summed.shape[0], fb : fb + summed.shape[1]]
    np.testing.assert_allclose(inside, summed, rtol=1e-4, atol=1e-4)
    assert np.abs(view).sum() == pytest.approx(np.abs(summed).sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("theta_deg", "mount"),
    [
        (0.0, Mount(0.0)),
        (75.0, Mount(0.0)),
        (130.0, Mount(102.0)),
        (240.0, Mount(30.0, roll_deg=30.0)),
        (290.0, Mount(0.0, lean_deg=45.0)),
        (10.0, Mount(90.0, roll_deg=-80.0)),
    ],
)
def test_agrees_with_closed_line_integrals_from_everywhere(balls, theta_deg, mount):
    grid = Grid((48, 64, 64), VOXEL)
    basis = mount.basis(theta_deg)
    projector = projector_of(basis[None, 2], grid.shape_zyx)
    (view,) = projector.forward(balls.field(grid))
    a, b = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in view.shape), indexing="ij")
    slow, fast = plane_axes(principal_axis(basis[2]))
    expected = np.zeros(view.shape)
    for centre, vector in zip(balls.centres_nm, balls.vectors, strict=True):
        at_u, at_v = (VOXEL * (a * axis[slow] + b * axis[fast]) for axis in basis[:2])
        off2 = (at_u - centre @ basis[0]) ** 2 + (at_v - centre @ basis[1]) ** 2
        expected += vector @ basis[2] * np.exp(-off2 / 2 / balls.sigma_nm**2)
    expected *= balls.sigma_nm * np.sqrt(2 * np.pi)
    # linear interpolation of balls of 35 nm on voxels of 10.5 nm
    assert np.abs(view - expected).max() < 0.02 * np.abs(expected).max()

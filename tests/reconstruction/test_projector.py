from dataclasses import replace

import astra
import numpy as np
import pytest

from mistral_txm.reconstruction import Grid
from mistral_txm.reconstruction.geometry import Mount
from mistral_txm.reconstruction.projector import ShearedProjector, seen_ends
from mistral_txm.reconstruction.views import padded_domain, resample

Z_NM = (np.arange(7) - 3) * 10.5


def projector_of(theta_deg, phi_deg, z_nm=Z_NM):
    theta, phi = np.broadcast_arrays(np.asarray(theta_deg, float), np.asarray(phi_deg, float))
    return ShearedProjector(theta.ravel(), phi.ravel(), z_nm, 10.5)


@pytest.mark.parametrize("shape", [(7, 24, 32), (7, 17, 21), (1, 5, 4)])
def test_adjoint_is_the_transpose(shape):
    rng = np.random.default_rng(0)
    theta, phi = np.meshgrid([-55.0, -10.3, 0.0, 41.0], [0.0, 102.0, -37.5, 180.0])
    projector = projector_of(theta, phi, Z_NM[: shape[0]])
    field = rng.normal(size=(3, *shape)).astype(np.float32)
    views = rng.normal(size=(16, *shape[1:])).astype(np.float32)
    forward, back = projector.forward(field), projector.adjoint(views)
    there = np.vdot(forward.astype(float), views)
    scale = np.linalg.norm(forward.astype(float)) * np.linalg.norm(views.astype(float))
    assert abs(there - np.vdot(field.astype(float), back)) < 1e-6 * scale


def test_rays_beyond_the_ends_count_as_zero():
    rng = np.random.default_rng(1)
    theta, phi = np.meshgrid([-55.0, 0.0, 41.0], [0.0, 102.0])
    shape = (7, 24, 32)
    # ends anywhere, so that rows wrap, and rows without any ray
    seen = rng.random((6, *shape[1:])) < 0.1
    seen[:, ::5] = False
    ends = seen_ends(seen)
    x = np.arange(shape[2])
    used = (x >= ends[..., :1]) & (x < ends[..., 1:])
    whole = projector_of(theta, phi)
    some = replace(whole, ends_vy2=ends)
    field = rng.normal(size=(3, *shape)).astype(np.float32)
    views = rng.normal(size=used.shape).astype(np.float32)
    np.testing.assert_allclose(some.forward(field), used * whole.forward(field), atol=1e-4)
    np.testing.assert_allclose(some.adjoint(views), whole.adjoint(used * views), atol=1e-4)
    last = some.of_views(slice(4, 6)).forward(field)
    np.testing.assert_array_equal(last, some.forward(field)[4:6])


@pytest.mark.parametrize(
    ("component", "phi_deg", "per_tan", "constant"),
    [(0, 0.0, 1, 0), (1, 0.0, 0, 0), (2, 0.0, 0, 1), (0, 90.0, 0, 0), (1, 90.0, -1, 0), (2, 102.0, 0, 1),
     (0, 102.0, np.cos(np.deg2rad(102)), 0), (1, 102.0, -np.sin(np.deg2rad(102)), 0)],
)  # fmt: skip
def test_uniform_magnetization_by_hand(component, phi_deg, per_tan, constant):
    """Path through the film: dz / cos(theta) per layer; along it m . k."""
    field = np.zeros((3, 7, 8, 8), np.float32)
    field[component] = 1
    theta = np.array([-45.0, 0.0, 30.0])
    p = projector_of(theta, phi_deg).forward(field)
    expected = 7 * 10.5 * (np.tan(np.deg2rad(theta)) * per_tan + constant)
    np.testing.assert_allclose(
        p, np.broadcast_to(expected[:, None, None], p.shape), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("phi_deg", [0.0, 102.0, -60.0])
def test_agrees_with_closed_line_integrals(balls, phi_deg):
    grid = Grid((31, 64, 64), 10.5)
    domain = padded_domain(grid, 55.0)
    (oy, ox), (ny, nx) = domain.offset_yx, domain.shape_yx
    field = np.zeros((3, 31, ny, nx), np.float32)
    field[:, :, oy : oy + 64, ox : ox + 64] = balls.field(grid)
    theta = np.array([-55.0, -20.0, 0.0, 35.0])
    p = ShearedProjector(theta, np.full(4, phi_deg), grid.z_nm, 10.5).forward(field)
    for i in range(4):
        view = resample(
            Mount(phi_deg),
            theta[i],
            balls.view(theta[i], phi_deg, 64).astype(np.float32),
            grid,
            domain,
            std_vu=1.0,
        )
        difference = (p[i] - view.signal_yx)[view.seen_yx]
        # linear interpolation of balls of 35 nm on voxels of 10.5 nm
        assert np.abs(difference).max() < 0.02 * np.abs(view.signal_yx).max()


def test_agrees_with_astra(balls):
    """One slice y of the azimuth 0 is a two-dimensional parallel projection of m . k."""
    grid = Grid((31, 1, 64), 10.5)
    m = balls.field(grid)[:, :, 0, :]
    for theta_deg in (-50.0, 0.0, 25.0):
        theta = np.deg2rad(theta_deg)
        ray, u = np.array([np.sin(theta), np.cos(theta)]), np.array([np.cos(theta), -np.sin(theta)])
        image_geometry = astra.create_vol_geom(31, 64)
        view_geometry = astra.create_proj_geom("parallel_vec", 64, np.array([[*ray, 0.0, 0.0, *u]]))
        astra_projector = astra.create_projector("linear", view_geometry, image_geometry)
        along = np.sin(theta) * m[0] + np.cos(theta) * m[2]
        # ASTRA's rows run downwards
        number, sinogram = astra.create_sino(along[::-1], astra_projector)
        astra.data2d.delete(number)
        astra.projector.delete(astra_projector)
        field = np.zeros((3, 31, 1, 200), np.float32)
        field[:, :, 0, 68:132] = m
        p = projector_of([theta_deg], [0.0], grid.z_nm).forward(field)[0, 0]
        positions = (np.arange(64) - 31.5) / np.cos(theta) + 99.5
        mine = np.interp(positions, np.arange(200), p)
        np.testing.assert_allclose(
            mine, sinogram[0] * 10.5, atol=0.02 * np.abs(sinogram).max() * 10.5
        )


def test_turning_sample_and_geometry_together_turns_the_view():
    """The sample turned by 90 deg and mounted 90 deg less is the same experiment, in axes turned by 90 deg."""
    rng = np.random.default_rng(4)
    m = rng.normal(size=(3, 7, 20, 20)).astype(np.float32)
    theta = np.array([-40.0, 15.0, 52.0])
    before = projector_of(theta, 102.0).forward(m)
    # x -> y, y -> -x: array axes (y, x), y upwards
    turned = np.stack(
        [-np.rot90(m[1], -1, (1, 2)), np.rot90(m[0], -1, (1, 2)), np.rot90(m[2], -1, (1, 2))]
    )
    after = projector_of(theta, 12.0).forward(np.ascontiguousarray(turned))
    np.testing.assert_allclose(
        after, np.rot90(before, -1, (1, 2)), atol=2e-4 * np.abs(before).max()
    )

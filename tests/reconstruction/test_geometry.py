import numpy as np
import pytest

from mistral_txm.reconstruction.geometry import (
    Grid,
    InputError,
    Mount,
    beam_direction,
    detector_basis,
    film_direction,
    to_stage_frame,
)

C30, S30 = np.sqrt(3) / 2, 0.5
E102 = np.array([np.cos(np.deg2rad(102.0)), -np.sin(np.deg2rad(102.0))])


@pytest.mark.parametrize(
    ("point", "theta_deg", "phi_deg", "u", "v"),
    [
        # untilted: what lies at +x is right, what lies at +y is up the image, depth does not matter
        ((1, 0, 0), 0, 0, 1, 0),
        ((0, 1, 0), 0, 0, 0, 1),
        ((0, 0, 1), 0, 0, 0, 0),
        # tilted by +30 deg: the far side of the film (+z) moves to the left
        ((1, 0, 0), 30, 0, C30, 0),
        ((0, 0, 1), 30, 0, -S30, 0),
        # turned by +90 deg about z: x goes to y', y to -x'
        ((1, 0, 0), 30, 90, 0, 1),
        ((0, 1, 0), 30, 90, -C30, 0),
        ((0, 0, 1), 30, 90, -S30, 0),
    ],
)
def test_where_a_point_falls(point, theta_deg, phi_deg, u, v):
    axis_u, axis_v = detector_basis(theta_deg, phi_deg)
    assert np.dot(axis_u, point) == pytest.approx(u, abs=1e-12)
    assert np.dot(axis_v, point) == pytest.approx(v, abs=1e-12)


@pytest.mark.parametrize(
    ("theta_deg", "phi_deg", "k"),
    [
        (0, 77, (0, 0, 1)),
        (30, 0, (S30, 0, C30)),
        (-30, 0, (-S30, 0, C30)),
        (30, 90, (0, -S30, C30)),
    ],
)
def test_beam_by_hand(theta_deg, phi_deg, k):
    np.testing.assert_allclose(beam_direction(theta_deg, phi_deg), k, atol=1e-12)


def test_detector_axes_and_beam_are_right_handed_at_any_angle():
    theta, phi = np.meshgrid(np.linspace(-70, 70, 9), np.linspace(-180, 180, 13))
    u, v = detector_basis(theta, phi)
    k = beam_direction(theta, phi)
    np.testing.assert_allclose(np.cross(u, v), k, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(u, axis=-1), 1)


def test_points_on_one_ray_of_the_sheared_frame_fall_on_one_pixel():
    u, v = detector_basis(-47.0, 102.0)
    r0 = np.array([31.0, -12.0])
    z = np.array([-100.0, 0.0, 250.0])
    shift = z[:, None] * np.tan(np.deg2rad(-47.0)) * E102
    points = np.column_stack([r0 + shift, z])
    x0_stage, y0_stage, _ = to_stage_frame([*r0, 0.0], 102.0)
    np.testing.assert_allclose(points @ u, x0_stage * np.cos(np.deg2rad(47.0)))
    np.testing.assert_allclose(points @ v, y0_stage)


def test_grid_is_centred():
    grid = Grid((2, 3, 4), 10.0)
    np.testing.assert_array_equal(grid.z_nm, [-5, 5])
    np.testing.assert_array_equal(grid.y_nm, [-10, 0, 10])
    np.testing.assert_array_equal(grid.x_nm, [-15, -5, 5, 15])


@pytest.mark.parametrize(
    ("shape", "voxel_nm", "words"),
    [((0, 4, 4), 10.5, "three positive integers"), ((4, 4), 10.5, "three"), ((4, 4, 4), 0.0, "positive length"),
     ((4, 4, 4), float("nan"), "positive length")],
)  # fmt: skip
def test_grid_refuses(shape, voxel_nm, words):
    with pytest.raises(InputError, match=words):
        Grid(shape, voxel_nm)


def test_an_ordinary_mounting_has_the_plain_basis():
    theta = np.array([-50.0, 0.0, 20.0])
    u, v = detector_basis(theta, 102.0)
    basis = Mount(102.0).basis(theta)
    np.testing.assert_allclose(basis[:, 0], u, atol=1e-12)
    np.testing.assert_allclose(basis[:, 1], v, atol=1e-12)
    np.testing.assert_allclose(basis[:, 2], beam_direction(theta, 102.0), atol=1e-12)


@pytest.mark.parametrize(
    ("mount", "theta_deg", "u", "v", "k"),
    [
        # rolled by 30 deg about x': y' rises towards +z, and the beam comes in beside the normal
        (Mount(0.0, roll_deg=30.0), 0.0, (1, 0, 0), (0, C30, -S30), (0, S30, C30)),
        # rolled by 90 deg: the film is seen from its edge, whatever its azimuth was, y along the beam
        (Mount(0.0, roll_deg=90.0), 0.0, (1, 0, 0), (0, 0, -1), (0, 1, 0)),
        (Mount(90.0, roll_deg=90.0), 0.0, (0, -1, 0), (0, 0, -1), (1, 0, 0)),
        # an axis that leans towards the camera: what lies deeper (w) falls lower
        (Mount(0.0, lean_deg=30.0), 0.0, (1, 0, 0), (0, C30, -S30), (0, S30, C30)),
        (Mount(0.0, lean_deg=30.0), 90.0, (0, 0, -1), (-S30, C30, 0), (C30, S30, 0)),
    ],
)
def test_mountings_by_hand(mount, theta_deg, u, v, k):
    np.testing.assert_allclose(mount.basis(theta_deg), [u, v, k], atol=1e-12)


def test_a_film_knows_a_view_by_its_line_alone():
    for mount in (Mount(102.0), Mount(10.0, roll_deg=25.0), Mount(-40.0, lean_deg=45.0)):
        for theta_deg in (-170.0, -50.0, 3.0, 140.0, 200.0):
            k = mount.basis(theta_deg)[2]
            tilt_deg, phi_deg, side = film_direction(mount, theta_deg)
            np.testing.assert_allclose(side * beam_direction(tilt_deg, phi_deg), k, atol=1e-12)
            assert -90 <= tilt_deg <= 90

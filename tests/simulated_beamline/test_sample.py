"""Line integrals: signs by hand-made cases, values by an independent quadrature."""

import dataclasses
import math

import numpy as np
import pytest
from numba import njit
from scipy.spatial.transform import Rotation

from mistral_txm.simulated_beamline import textures
from mistral_txm.simulated_beamline.sample import (
    PIXEL_NM,
    Pose,
    Sample,
    project_points,
)
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.truth import field_at

FIDUCIALS = load_settings("real").fiducials
FE = frozenset({"Ni80Fe20"})
CO = frozenset({"NdCo5"})
NO_SPHERES = np.empty((0, 4))


@pytest.fixture(scope="module")
def stripes():
    return Sample(textures.load("stripes"), 1, FIDUCIALS)


@pytest.fixture(scope="module")
def uniform():
    return Sample(textures.load("uniform"), 1, FIDUCIALS)


def dichroic_nm(sample, pose, shape_vu, material="Ni80Fe20"):
    return sample.view(pose, shape_vu, frozenset({material}), NO_SPHERES).dichroic_nm[material]


@pytest.mark.parametrize("theta_deg", [0.0, 30.0, -55.0])
def test_uniform_magnetization_along_the_normal(uniform, theta_deg):
    """m . k = cos(theta) over a path of 80 nm / cos(theta): 80 nm of signal at every tilt."""
    view = uniform.view(Pose(theta_deg, 20.0), (16, 16), FE, NO_SPHERES)
    np.testing.assert_allclose(view.dichroic_nm["Ni80Fe20"], 80.0, rtol=1e-5)
    path = 80.0 / math.cos(math.radians(theta_deg))
    np.testing.assert_allclose(view.path_nm["Ni80Fe20"], path, rtol=1e-5)
    assert view.path_nm["Si3N4"] == pytest.approx(path * 50 / 80)


def test_layers_that_are_not_asked_for_are_numbers(stripes):
    """A leaning film is met at cos(theta) cos(lean), whatever the inclination."""
    pose = Pose(40.0, 102.0, inclination_deg=10.0, lean_deg=20.0)
    view = stripes.view(pose, (8, 8), CO, NO_SPHERES)
    stretch = 1 / (math.cos(math.radians(40)) * math.cos(math.radians(20)))
    assert set(view.dichroic_nm) == CO
    assert view.path_nm["Ni80Fe20"] == pytest.approx(160 * stretch)
    assert view.path_nm["Si3N4"] == pytest.approx(50 * stretch)
    np.testing.assert_allclose(view.path_nm["NdCo5"], 80 * stretch, rtol=1e-5)


def test_a_disc_takes_its_own_room_whether_it_is_magnetic_or_not():
    """900 nm of radius: there is permalloy in the middle and none 1000 nm away, at any energy."""
    vortex = Sample(textures.load("vortex"), 1, FIDUCIALS)
    for magnetic in (FE, frozenset()):
        view = vortex.view(Pose(0.0, 0.0), (2, 200), magnetic, NO_SPHERES)
        path_u = view.path_nm["Ni80Fe20"][0]
        assert path_u[100] == pytest.approx(80.0)
        assert path_u[1] == 0
        assert set(view.dichroic_nm) == magnetic


@pytest.mark.parametrize(
    ("theta_deg", "azimuth_deg", "inclination_deg", "lean_deg"),
    [
        (-55.0, 0.0, 0.0, 0.0),
        (0.0, 102.0, 0.0, 0.0),
        (40.0, 102.0, 0.0, 0.0),
        (40.0, 102.0, 7.0, 0.0),
        (-55.0, 0.0, 0.0, -12.0),
        (35.0, 102.0, -9.0, 11.0),
    ],
)
@pytest.mark.parametrize(("material", "within_nm"), [("Ni80Fe20", 0.1), ("NdCo5", 0.25)])
def test_line_integrals_agree_with_rays_walked_in_the_sample(
    stripes, material, within_nm, theta_deg, azimuth_deg, inclination_deg, lean_deg
):
    """Rays walked from one surface to the other, turned by SciPy's rotations, in 0.2 nm of height.

    They are about the axes (u, v, beam): azimuth about the beam, tilt about v, in which the normal
    moves against u, lean about u, inclination about the beam. 0.1 nm of signal is an absorbance of
    2e-4, a fifteenth of the noise of 15 exposures; domain walls in NdCo5 are half as wide as those
    in permalloy.
    """
    shape_vu = (32, 40)
    pose = Pose(theta_deg, azimuth_deg, 350.0, -240.0, 0.0, inclination_deg, lean_deg)
    image_vu = dichroic_nm(stripes, pose, shape_vu, material)
    turned = (
        Rotation.from_euler("z", inclination_deg, degrees=True)
        * Rotation.from_euler("x", lean_deg, degrees=True)
        * Rotation.from_euler("y", -theta_deg, degrees=True)
        * Rotation.from_euler("z", azimuth_deg, degrees=True)
    )
    k = turned.inv().apply([0.0, 0.0, 1.0])
    parts = (np.arange(4) + 0.5) / 4 - 0.5
    layers_nm = [
        (each.low_nm, each.high_nm) for each in stripes.texture.layers if each.material == material
    ]
    for v, u in ((0, 0), (31, 39), (10, 25)):
        u_nm, v_nm = np.meshgrid(
            ((u - 19.5) + parts) * PIXEL_NM - pose.shift_u_nm,
            ((v - 15.5) + parts) * PIXEL_NM - pose.shift_v_nm,
        )
        feet = turned.inv().apply(np.stack([u_nm, v_nm, 0 * u_nm], axis=-1).reshape(-1, 3))
        total = 0.0
        for low, high in layers_nm:
            edges = np.linspace(low, high, 401)
            heights = (edges[1:] + edges[:-1]) / 2
            along = (heights - feet[:, 2:3]) / k[2]
            m = field_at(stripes.texture, feet[:, None, :] + along[..., None] * k)[..., :3]
            total += (m @ k).mean() * (high - low) / k[2]
        assert image_vu[v, u] == pytest.approx(total, abs=within_nm)


@pytest.mark.parametrize(
    ("point_nm", "theta_deg", "azimuth_deg", "expected_uv_nm"),
    [
        ((100.0, 0.0, 0.0), 0.0, 0.0, (100.0, 0.0)),
        ((100.0, 0.0, 0.0), 60.0, 0.0, (50.0, 0.0)),
        ((0.0, 100.0, 0.0), 60.0, 0.0, (0.0, 100.0)),
        ((0.0, 0.0, 100.0), 30.0, 0.0, (-50.0, 0.0)),
        ((0.0, 0.0, 100.0), -30.0, 102.0, (50.0, 0.0)),
        ((100.0, 0.0, 0.0), 0.0, 90.0, (0.0, 100.0)),
        ((0.0, 100.0, 0.0), 60.0, 90.0, (-50.0, 0.0)),
    ],
)
def test_points_project_as_the_conventions_say(point_nm, theta_deg, azimuth_deg, expected_uv_nm):
    uv = project_points(np.array([point_nm]), Pose(theta_deg, azimuth_deg))[0]
    np.testing.assert_allclose(uv, expected_uv_nm, atol=1e-9)


@pytest.mark.parametrize(
    ("point_nm", "theta_deg", "inclination_deg", "lean_deg", "expected_uv_nm"),
    [
        # The image turns from u towards v, the tilt axis with it.
        ((100.0, 0.0, 0.0), 0.0, 90.0, 0.0, (0.0, 100.0)),
        ((0.0, 100.0, 0.0), 40.0, 90.0, 0.0, (-100.0, 0.0)),
        ((0.0, 0.0, 100.0), 30.0, 90.0, 0.0, (0.0, -50.0)),
        # The tilt axis leans towards the camera: it looks shorter, and what is in front sinks.
        ((0.0, 100.0, 0.0), 40.0, 0.0, 60.0, (0.0, 50.0)),
        ((0.0, 0.0, 100.0), 0.0, 0.0, 30.0, (0.0, -50.0)),
        ((0.0, 0.0, 100.0), 0.0, 0.0, -30.0, (0.0, 50.0)),
        # At a tilt, a point on the x axis goes towards the camera, and sinks, too.
        ((100.0, 0.0, 0.0), 30.0, 0.0, 30.0, (100.0 * math.cos(math.pi / 6), -25.0)),
        ((100.0, 0.0, 0.0), -30.0, 0.0, 30.0, (100.0 * math.cos(math.pi / 6), 25.0)),
    ],
)
def test_signs_of_inclination_and_lean(
    point_nm, theta_deg, inclination_deg, lean_deg, expected_uv_nm
):
    pose = Pose(theta_deg, 0.0, inclination_deg=inclination_deg, lean_deg=lean_deg)
    np.testing.assert_allclose(
        project_points(np.array([point_nm]), pose)[0], expected_uv_nm, atol=1e-9
    )


@njit
def along_y(x, y, z):
    nothing = np.float32(0) * (x + y + z)
    return nothing, np.float32(1) + nothing, nothing, np.float32(1) + nothing


@pytest.mark.parametrize("lean_deg", [30.0, -30.0])
def test_a_leaning_axis_shows_what_is_magnetized_along_it(uniform, lean_deg):
    """m = +y in 80 nm: m . k = sin(lean) over 80 nm / cos(lean)."""
    sample = Sample(dataclasses.replace(uniform.texture, field=along_y), 1, FIDUCIALS)
    image_vu = dichroic_nm(sample, Pose(0.0, 0.0, lean_deg=lean_deg), (4, 4))
    np.testing.assert_allclose(image_vu, 80 * math.tan(math.radians(lean_deg)), rtol=1e-5)


@pytest.mark.parametrize(
    ("theta_deg", "azimuth_deg"), [(0.0, 0.0), (40.0, 0.0), (-55.0, 102.0), (20.0, 102.0)]
)
def test_a_single_fiducial_lands_where_it_should(uniform, theta_deg, azimuth_deg):
    """Its centre of mass, its volume and its largest chord, all in closed form."""
    shape_vu = (128, 128)
    sphere = np.array([[300.0, -210.0, 90.0, 45.0]])
    pose = Pose(theta_deg, azimuth_deg)
    gold_vu = uniform.view(pose, shape_vu, frozenset(), sphere).path_nm["Au"]
    theta, phi = math.radians(theta_deg), math.radians(azimuth_deg)
    stage_x = 300 * math.cos(phi) + 210 * math.sin(phi)
    stage_y = 300 * math.sin(phi) - 210 * math.cos(phi)
    expected_u = stage_x * math.cos(theta) - 90 * math.sin(theta)
    axis_nm = (np.arange(128) - 63.5) * PIXEL_NM
    mass = gold_vu.sum()
    assert (gold_vu.sum(axis=0) @ axis_nm) / mass == pytest.approx(expected_u, abs=0.3)
    assert (gold_vu.sum(axis=1) @ axis_nm) / mass == pytest.approx(stage_y, abs=0.3)
    assert mass * PIXEL_NM**2 == pytest.approx(4 / 3 * math.pi * 45.0**3, rel=0.01)
    assert gold_vu.max() == pytest.approx(2 * 45.0, rel=0.02)


def test_the_smallest_field_of_view_has_three_fiducials(stripes):
    uv = project_points(stripes.spheres()[:, :3], Pose(0.0, 0.0))
    assert (np.abs(uv).max(axis=1) < 127 * PIXEL_NM).sum() == 3


def test_spheres_touch_both_surfaces_and_differ_in_size(stripes):
    """The film with its membrane goes from -170 to 120 nm."""
    x_nm, y_nm, z_nm, radius_nm = stripes.spheres().T
    above = z_nm > 0
    np.testing.assert_allclose(z_nm[above] - radius_nm[above], 120.0)
    np.testing.assert_allclose(z_nm[~above] + radius_nm[~above], -170.0)
    assert np.mean(~above) == pytest.approx(FIDUCIALS.below_fraction, abs=0.15)
    limit_nm = FIDUCIALS.radius_nm * FIDUCIALS.radius_spread
    deviation_nm = radius_nm - FIDUCIALS.radius_nm
    assert np.abs(deviation_nm).max() <= limit_nm
    assert deviation_nm.std() == pytest.approx(limit_nm / math.sqrt(3), rel=0.3)
    assert np.all(np.diff(np.hypot(x_nm, y_nm)) >= 0)


def test_fiducials_fall_off_and_merge_nearest_first(stripes):
    whole = stripes.spheres()
    np.testing.assert_array_equal(stripes.spheres(lost=2), whole[2:])
    merged = stripes.spheres(lost=1, merged=2)
    np.testing.assert_array_equal(merged[:-2], whole[1:])
    beside = merged[-2:] - whole[1:3]
    np.testing.assert_allclose(np.hypot(beside[:, 0], beside[:, 1]), 2 * whole[1:3, 3])
    np.testing.assert_array_equal(beside[:, 2:], 0)
    np.testing.assert_array_equal(stripes.spheres(merged=1)[-1], stripes.spheres(merged=2)[-2])
    assert len(stripes.spheres(lost=10_000)) == 0


def test_a_tilt_of_90_deg_is_refused(uniform):
    with pytest.raises(ValueError, match="expected less than 90 deg"):
        uniform.view(Pose(90.0, 0.0), (8, 8), FE, NO_SPHERES)


def test_the_image_moves_with_the_stage(stripes):
    """A third of a field of view to the side: what was in the middle is at the edge."""
    still = dichroic_nm(stripes, Pose(25.0, 102.0), (32, 64))
    moved = dichroic_nm(stripes, Pose(25.0, 102.0, shift_u_nm=20 * PIXEL_NM), (32, 64))
    np.testing.assert_allclose(moved[:, 20:], still[:, :-20], atol=0.01)

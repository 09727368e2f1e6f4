"""Line integrals: signs by hand-made cases, values by an independent quadrature."""

import math

import numpy as np
import pytest

from mistral_txm.simulated_beamline import textures
from mistral_txm.simulated_beamline.sample import (
    FIDUCIAL_RADIUS_NM,
    PIXEL_NM,
    Pose,
    Sample,
    project_points,
)
from mistral_txm.simulated_beamline.truth import dichroic_layers_nm, field_at


@pytest.fixture(scope="module")
def stripes():
    return Sample(textures.load("stripes"), seed=1)


@pytest.fixture(scope="module")
def uniform():
    return Sample(textures.load("uniform"), seed=1)


@pytest.mark.parametrize("theta_deg", [0.0, 30.0, -55.0])
def test_uniform_magnetization_along_the_normal(uniform, theta_deg):
    """m . k = cos(theta) over a path of 80 nm / cos(theta): 80 nm of signal at every tilt."""
    view = uniform.view(Pose(theta_deg, 20.0), (16, 16))
    np.testing.assert_allclose(view.dichroic_nm_vu, 80.0, rtol=1e-5)
    path = 80.0 / math.cos(math.radians(theta_deg))
    np.testing.assert_allclose(view.path_nm["Ni80Fe20"], path, rtol=1e-5)
    assert view.path_nm["Si3N4"] == pytest.approx(path * 50 / 80)


@pytest.mark.parametrize("azimuth_deg", [0.0, 102.0])
@pytest.mark.parametrize("theta_deg", [-55.0, 0.0, 40.0])
def test_line_integrals_agree_with_rays_walked_in_the_sample(stripes, theta_deg, azimuth_deg):
    """Rays from the definition alone: r = Rz(-phi) (foot + s k'), walked in steps of 0.2 nm.

    0.1 nm of signal is an absorbance of 2e-4, a fifteenth of the noise of 15 exposures.
    """
    shape_vu = (32, 40)
    pose = Pose(theta_deg, azimuth_deg, shift_u_nm=350.0, shift_v_nm=-240.0)
    view = stripes.view(pose, shape_vu)
    theta, phi = math.radians(theta_deg), math.radians(azimuth_deg)
    k_stage = np.array([math.sin(theta), 0.0, math.cos(theta)])
    u_axis = np.array([math.cos(theta), 0.0, -math.sin(theta)])
    c, s = math.cos(phi), math.sin(phi)
    to_sample = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    k = to_sample @ k_stage
    parts = (np.arange(4) + 0.5) / 4 - 0.5
    for v, u in ((0, 0), (31, 39), (10, 25)):
        u_nm = ((u - 19.5) + parts[None, :]) * PIXEL_NM - pose.shift_u_nm
        v_nm = ((v - 15.5) + parts[:, None]) * PIXEL_NM - pose.shift_v_nm
        feet = u_nm[..., None] * u_axis + v_nm[..., None] * np.array([0.0, 1.0, 0.0])
        total = 0.0
        for low, high in dichroic_layers_nm(stripes.texture):
            edges = np.linspace(low, high, 401)
            heights = (edges[1:] + edges[:-1]) / 2
            along = (heights - feet[..., 2:3]) / k_stage[2]
            points = feet[..., None, :] + along[..., None] * k_stage
            m = field_at(stripes.texture, points @ to_sample.T)[..., :3]
            total += (m @ k).mean() * (high - low) / k_stage[2]
        assert view.dichroic_nm_vu[v, u] == pytest.approx(total, abs=0.1)


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
    ("theta_deg", "azimuth_deg"), [(0.0, 0.0), (40.0, 0.0), (-55.0, 102.0), (20.0, 102.0)]
)
def test_a_single_fiducial_lands_where_it_should(uniform, theta_deg, azimuth_deg):
    """Its centre of mass, its volume and its largest chord, all in closed form."""
    sample = Sample(uniform.texture, seed=1)
    sample.fiducials_nm = np.array([[300.0, -210.0, 90.0]])
    shape_vu = (128, 128)
    gold_vu = sample.view(Pose(theta_deg, azimuth_deg), shape_vu).path_nm["Au"]
    theta, phi = math.radians(theta_deg), math.radians(azimuth_deg)
    stage_x = 300 * math.cos(phi) + 210 * math.sin(phi)
    stage_y = 300 * math.sin(phi) - 210 * math.cos(phi)
    expected_u = stage_x * math.cos(theta) - 90 * math.sin(theta)
    axis_nm = (np.arange(128) - 63.5) * PIXEL_NM
    mass = gold_vu.sum()
    assert (gold_vu.sum(axis=0) @ axis_nm) / mass == pytest.approx(expected_u, abs=0.3)
    assert (gold_vu.sum(axis=1) @ axis_nm) / mass == pytest.approx(stage_y, abs=0.3)
    volume = 4 / 3 * math.pi * FIDUCIAL_RADIUS_NM**3
    assert mass * PIXEL_NM**2 == pytest.approx(volume, rel=0.01)
    assert gold_vu.max() == pytest.approx(2 * FIDUCIAL_RADIUS_NM, rel=0.02)


def test_the_smallest_field_of_view_has_three_fiducials(stripes):
    uv = project_points(stripes.fiducials_nm, Pose(0.0, 0.0))
    assert (np.abs(uv).max(axis=1) < 127 * PIXEL_NM).sum() == 3


def test_a_tilt_of_90_deg_is_refused(uniform):
    with pytest.raises(ValueError, match="expected less than 90 deg"):
        uniform.view(Pose(90.0, 0.0), (8, 8))


def test_the_image_moves_with_the_stage(stripes):
    """Half a field of view to the side: what was in the middle is at the edge."""
    still = stripes.view(Pose(25.0, 102.0), (32, 64)).dichroic_nm_vu
    moved = stripes.view(Pose(25.0, 102.0, shift_u_nm=20 * PIXEL_NM), (32, 64)).dichroic_nm_vu
    np.testing.assert_allclose(moved[:, 20:], still[:, :-20], atol=0.01)

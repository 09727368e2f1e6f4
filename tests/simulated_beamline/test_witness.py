"""Two independent ways from a field to its projections agree: witness and reconstruction."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from mistral_txm.reconstruction.projector import ShearedProjector
from mistral_txm.simulated_beamline import textures
from mistral_txm.simulated_beamline.sample import PIXEL_NM, Pose, Sample
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.truth import field_at

VOXEL_NM = 10.0
"""Divides the layers' surfaces at 40 and 120 nm, so that the voxels hold the whole thickness."""


@pytest.fixture(scope="module")
def sample():
    return Sample(textures.load("stripes"), 1, load_settings("ideal").fiducials)


@pytest.fixture(scope="module")
def field_czyx(sample):
    axis_nm = (np.arange(256) - 127.5) * VOXEL_NM
    z_nm = (np.arange(24) - 11.5) * VOXEL_NM
    points = np.stack(np.meshgrid(z_nm, axis_nm, axis_nm, indexing="ij")[::-1], axis=-1)
    field = np.moveaxis(field_at(sample.texture, points)[..., :3], -1, 0).copy()
    field[:, np.abs(z_nm) < 40] = 0
    return field


@pytest.mark.slow
@pytest.mark.parametrize("azimuth_deg", [0.0, 102.0])
@pytest.mark.parametrize("theta_deg", [-55.0, -20.0, 0.0, 35.0, 55.0])
def test_both_project_the_same_field_to_the_same_signal(sample, field_czyx, theta_deg, azimuth_deg):
    z_nm = (np.arange(24) - 11.5) * VOXEL_NM
    projector = ShearedProjector(np.array([theta_deg]), np.array([azimuth_deg]), z_nm, VOXEL_NM)
    sheared_yx = projector.forward(field_czyx)[0]
    pose, no_spheres = Pose(theta_deg, azimuth_deg), np.empty((0, 4))
    view = sample.view(pose, (400, 400), frozenset({"Ni80Fe20"}), no_spheres).dichroic_nm[
        "Ni80Fe20"
    ]

    theta, phi = np.radians(theta_deg), np.radians(azimuth_deg)
    x, y = np.meshgrid(*2 * [(np.arange(256) - 127.5) * VOXEL_NM])
    u_nm = (x * np.cos(phi) - y * np.sin(phi)) * np.cos(theta)
    v_nm = x * np.sin(phi) + y * np.cos(phi)
    at = np.stack([v_nm, u_nm]) / PIXEL_NM + 199.5
    expected_yx = map_coordinates(view, at, order=3)

    inner = np.s_[40:-40, 40:-40]  # the projector's domain is periodic
    a, b = sheared_yx[inner].ravel(), expected_yx[inner].ravel()
    assert np.corrcoef(a, b)[0, 1] > 0.999
    assert (a @ b) / (b @ b) == pytest.approx(1, abs=0.02)

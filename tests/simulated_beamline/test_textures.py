"""Textures: unit field, charges by solid angles, and no singularity but those that are named."""

import dataclasses

import h5py
import numpy as np
import pytest

from mistral_txm.simulated_beamline import textures
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.solid_angle import cube_charge, square_charge
from mistral_txm.simulated_beamline.textures import Singularity
from mistral_txm.simulated_beamline.truth import (
    charge,
    dichroic_layers_nm,
    field_at,
    write_truth,
)


def hedgehog(points):
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


def test_charge_of_a_hedgehog_is_one():
    centre = np.array([0.3, -0.2, 0.1])
    assert cube_charge(hedgehog, centre, 5.0, 11) == pytest.approx(1.0, abs=1e-12)
    assert cube_charge(lambda p: -hedgehog(p), centre, 5.0, 11) == pytest.approx(-1.0, abs=1e-12)
    assert cube_charge(hedgehog, centre + 20, 5.0, 11) == pytest.approx(0.0, abs=1e-12)


def test_charge_of_a_skyrmion_is_its_winding():
    """The Belavin-Polyakov solution w = (x + i y) / 10 nm, m_z = -1 in the middle: Q = -1."""

    def skyrmion(points):
        w = (points[..., 0] + 1j * points[..., 1]) / 10
        square = np.abs(w) ** 2
        m = [2 * w.real, 2 * w.imag, square - 1]
        return np.stack(m, axis=-1) / (square + 1)[..., None]

    sides = np.eye(3)[:2] * 300.0
    assert square_charge(skyrmion, np.zeros(3), *sides, 299) == pytest.approx(-1, abs=2e-3)


@pytest.mark.parametrize("name", textures.names())
def test_field_is_a_unit_vector(name):
    points = np.random.default_rng(1).uniform(-1, 1, (10000, 3)) * [8000, 8000, 120]
    m = field_at(textures.load(name), points)
    np.testing.assert_allclose(np.linalg.norm(m[:, :3], axis=1), 1, atol=1e-5)
    assert m[:, 3].min() >= 0
    assert m[:, 3].max() <= 1


def test_stripes_hold_a_bloch_point_and_merons():
    texture = textures.load("stripes")
    charges = {(each.kind, each.z_nm): charge(texture, each) for each in texture.singularities}
    bloch_point = next(each for each in texture.singularities if each.kind == "Bloch point")
    assert charges["Bloch point", 80.0] == pytest.approx(-1, abs=1e-6)
    low, high = dichroic_layers_nm(texture)[1]
    assert low + 30 < bloch_point.z_nm < high - 30
    assert charges["meron", 80.0] == pytest.approx(-0.44, abs=0.06)


def test_bloch_point_is_a_point():
    """The charge is the same in ever smaller cubes, and the field turns over within 1 nm."""
    texture = textures.load("stripes")
    bloch_point = texture.singularities[0]
    for radius_nm in (0.5, 3.0, 30.0):
        assert charge(
            texture, dataclasses.replace(bloch_point, radius_nm=radius_nm)
        ) == pytest.approx(-1, abs=1e-4)
    below, above = (
        field_at(texture, np.array([bloch_point.x_nm, bloch_point.y_nm, bloch_point.z_nm + dz]))
        for dz in (-1, 1)
    )
    assert np.dot(below[:3], above[:3]) < -0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", textures.names())
def test_no_other_point_singularity_in_the_magnetic_layers(name):
    """Every 20 nm cube of the field of view, in every magnetic layer."""
    texture = textures.load(name)
    expected = {
        (each.x_nm, each.y_nm, each.z_nm)
        for each in texture.singularities
        if each.kind == "Bloch point"
    }
    step_nm, half_nm = 20.0, 1400.0
    axis = np.arange(-half_nm - 3.0, half_nm, step_nm)
    found = []
    for low, high in dichroic_layers_nm(texture):
        heights = np.arange(low, high + 1e-9, step_nm)
        grid = np.stack(np.meshgrid(axis, axis, heights, indexing="ij"), axis=-1)
        m = field_at(texture, grid)[..., :3].astype(float)
        charges = sum_of_faces(m)
        for cell in np.argwhere(np.abs(charges) > 0.5):
            found.append((grid[tuple(cell)] + step_nm / 2, charges[tuple(cell)]))
    assert len(found) == len(expected)
    for position, _charge in found:
        assert any(np.abs(position - np.array(each)).max() <= step_nm for each in expected)


def sum_of_faces(m):
    """Return the solid angle through the six faces of every cell of a lattice, over 4 pi."""

    def face(a, b, c, d):
        return triangle(a, b, c) + triangle(a, c, d)

    def triangle(a, b, c):
        numerator = np.sum(a * np.cross(b, c), axis=-1)
        denominator = 1 + np.sum(a * b + b * c + c * a, axis=-1)
        return 2 * np.arctan2(numerator, denominator)

    low, high = slice(None, -1), slice(1, None)
    xy = face(m[low, low], m[high, low], m[high, high], m[low, high])
    yz = face(m[:, low, low], m[:, high, low], m[:, high, high], m[:, low, high])
    zx = face(m[low, :, low], m[low, :, high], m[high, :, high], m[high, :, low])
    total = np.diff(xy, axis=2) + np.diff(yz, axis=0) + np.diff(zx, axis=1)
    return total / (4 * np.pi)


def test_truth_file(tmp_path):
    settings = load_settings("real")
    sample = Sample(textures.load("stripes"), 3, settings.fiducials)
    write_truth(tmp_path / "truth.h5", sample, 64, 3, settings)
    assert [each.name for each in tmp_path.iterdir()] == ["truth.h5"]
    with h5py.File(tmp_path / "truth.h5") as file:
        assert dict(file.attrs)["voxel_nm"] == 10.5
        assert file.attrs["texture"] == "stripes"
        np.testing.assert_array_equal(file.attrs["layers_nm"], [[-120, -40], [40, 120]])
        m = np.stack([file[name][:] for name in ("mx", "my", "mz")])
        assert m.dtype == np.float32
        assert m.shape == (3, 24, 64, 64)
        kinds = [kind.decode() for kind in file["singularities/kind"]]
        assert kinds.count("Bloch point") == 1
        assert file["singularities/charge"][kinds.index("Bloch point")] == pytest.approx(-1)
        names = ("x_nm", "y_nm", "z_nm", "radius_nm")
        spheres = np.stack([file["fiducials"][name][:] for name in names], axis=1)
        np.testing.assert_array_equal(spheres, sample.spheres())
    norm = np.linalg.norm(m, axis=0)
    z_nm = (np.arange(24) - 11.5) * 10.5
    inside = (np.abs(z_nm) >= 40) & (np.abs(z_nm) < 120)
    np.testing.assert_allclose(norm[inside], 1, atol=1e-5)
    assert not norm[~inside].any()


def test_unknown_texture_names_those_that_exist():
    with pytest.raises(ValueError, match="expected one of stripes, uniform, vortex"):
        textures.load("strips")


def test_vortex_covers_half_of_the_sphere():
    texture = textures.load("vortex")
    wide = Singularity(0.0, 0.0, 0.0, "meron", radius_nm=850.0)
    # m_z = CORE / r at the rim: the directions cover the sphere down to that height.
    assert charge(texture, wide) == pytest.approx(0.5, abs=0.03)

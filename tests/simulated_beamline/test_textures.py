"""Textures: unit field, charges by solid angles, and no singularity but those that are named."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.optimize import brentq

from mistral_txm.reconstruction import topology
from mistral_txm.simulated_beamline import materials, textures
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.solid_angle import cube_charge, square_charge
from mistral_txm.simulated_beamline.textures import Singularity
from mistral_txm.simulated_beamline.truth import (
    charge,
    dichroic_layers_nm,
    field_at,
    magnetic_layers,
    volume_grid,
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
    texture = textures.load(name)
    points = np.random.default_rng(1).uniform(-1, 1, (10000, 3)) * [8000, 8000, 1]
    for layer in magnetic_layers(texture):
        points[:, 2] = np.random.default_rng(2).uniform(layer.low_nm, layer.high_nm, 10000)
        m = field_at(texture, points)
        np.testing.assert_allclose(np.linalg.norm(m[:, :3], axis=1), 1, atol=1e-5)
        assert m[:, 3].min() >= 0
        assert m[:, 3].max() <= 1
        assert not texture.continuous or m[:, 3].min() == 1


@pytest.mark.parametrize("name", textures.names())
@pytest.mark.parametrize("theta_deg", [0.0, 55.0])
def test_light_comes_through(name, theta_deg):
    """10 to 80 % at the Fe L3 line through the thickest place; the pillar is turned about itself."""
    texture = textures.load(name)
    stretch = 1.0 if name == "pillar" else 1 / np.cos(np.radians(theta_deg))
    absorbance = sum(
        materials.absorption_per_nm(each.material, 707.4, 2000.0) * each.thickness_nm * stretch
        for each in texture.layers
    )
    assert 0.1 < np.exp(-absorbance) < 0.8
    assert len(dichroic_layers_nm(texture)) > 0


def test_stripes_hold_a_bloch_point_and_merons():
    texture = textures.load("stripes")
    charges = {(each.kind, each.z_nm): charge(texture, each) for each in texture.singularities}
    bloch_point = next(each for each in texture.singularities if each.kind == "Bloch point")
    assert charges["Bloch point", 80.0] == pytest.approx(-1, abs=1e-6)
    low, high = dichroic_layers_nm(texture)[1]
    assert low + 30 < bloch_point.z_nm < high - 30
    assert charges["meron", 80.0] == pytest.approx(-0.44, abs=0.06)


@pytest.mark.parametrize(
    ("name", "index", "expected"),
    [("stripes", 0, -1), ("pillar", 0, 1), ("pillar", 1, 1), ("pillar", 2, -1)],
)
def test_bloch_point_is_a_point(name, index, expected):
    """The charge is the same in ever smaller cubes, and the field turns over within 2 nm."""
    texture = textures.load(name)
    bloch_point = texture.singularities[index]
    for radius_nm in (1.0, 6.0, 30.0):
        assert charge(
            texture, dataclasses.replace(bloch_point, radius_nm=radius_nm)
        ) == pytest.approx(expected, abs=1e-4)
    centre = np.array([bloch_point.x_nm, bloch_point.y_nm, bloch_point.z_nm])
    along = np.array([0.0, 0.0, 1.0]) if name == "stripes" else np.array([0.0, 1.0, 0.0])
    below, above = (field_at(texture, centre + step * along)[:3] for step in (-2, 2))
    assert np.dot(below, above) < -0.9


@pytest.mark.parametrize(
    ("name", "expected", "spacing_nm", "neighbours"),
    [("neel_skyrmions", -1, 420.0, 6), ("bloch_skyrmions", 1, 240.0, 4)],
)
def test_skyrmions_are_a_lattice_of_whole_charges(name, expected, spacing_nm, neighbours):
    """Down in the middle and up outside, turning once: -1; the other way up: +1."""
    texture = textures.load(name)
    places = np.array([[each.x_nm, each.y_nm, each.z_nm] for each in texture.singularities])
    np.testing.assert_array_equal(field_at(texture, places[:50])[:, 2], expected)
    distance = np.linalg.norm(places - places[0], axis=1)
    np.testing.assert_allclose(np.sort(distance)[1 : 1 + neighbours], spacing_nm)
    assert np.sort(distance)[1 + neighbours] > 1.4 * spacing_nm
    for each in texture.singularities[:50]:
        assert charge(texture, each) == pytest.approx(expected, abs=1e-5)
    area = (10752.0 / spacing_nm) ** 2 / (1.0 if neighbours == 4 else np.sqrt(3) / 2)
    assert len(places) == pytest.approx(area, rel=0.03)


@pytest.mark.parametrize(("name", "radial"), [("neel_skyrmions", True), ("bloch_skyrmions", False)])
def test_skyrmions_turn_outwards_or_around(name, radial):
    texture = textures.load(name)
    angle = np.linspace(0, 2 * np.pi, 7)
    outwards = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)
    m = field_at(texture, 70 * outwards)[:, :3]
    along = outwards if radial else np.cross([0.0, 0.0, 1.0], outwards)
    in_plane = np.linalg.norm(m[:, :2], axis=1)
    np.testing.assert_allclose(np.sum(m * along, axis=1), in_plane, rtol=1e-4)


def test_hopf_index_is_a_linking_number():
    """Preimages linked once, counted by hand.

    m points down on a ring, preimage of -z, whose radius solves r = 400 (1 - r^2 / 600^2)^2. Any
    other preimage crosses the disc in it as often as the disc covers the sphere: its planar charge,
    counted along the ring's own direction, that of q. That is what the integral says, too, and so
    does the reconstruction's on voxels, by solid angles.
    """
    texture = textures.load("hopfion")
    radius_nm = brentq(lambda r: 400 * (1 - r**2 / 600**2) ** 2 - r, 1, 599)

    def on_disc(parts):
        r, angle = radius_nm * parts[..., 0], 2 * np.pi * parts[..., 1]
        points = np.stack([r * np.cos(angle), r * np.sin(angle), 0 * r], axis=-1)
        return field_at(texture, points)[..., :3].astype(float)

    assert on_disc(np.array([1.0, 0.3, 0.0]))[2] == pytest.approx(-1)
    half = np.array([0.5, 0.0, 0.0]), np.array([0.0, 0.5, 0.0])
    crossings = square_charge(on_disc, np.array([0.5, 0.5, 0.0]), *half, 100)

    # Along the ring, at x = radius, runs y: q_y = m . (d_z m x d_x m).
    steps = np.array([[0, 0, 0], [0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0]], float)
    m, up, down, out, back = field_at(texture, steps + np.array([radius_nm, 0.0, 0.0]))[
        :, :3
    ].astype(float)
    along_ring = np.sign(m @ np.cross(up - down, out - back))
    assert crossings * along_ring == pytest.approx(1, abs=1e-6)

    assert charge(texture, texture.singularities[0]) == pytest.approx(1, abs=1e-3)
    axes = [(np.arange(n) - (n - 1) / 2) * 12.0 for n in (18, 104, 104)]
    points = np.stack(np.meshgrid(*axes, indexing="ij")[::-1], axis=-1)
    m_czyx = np.moveaxis(field_at(texture, points)[..., :3], -1, 0).copy()
    assert topology.hopf_index(m_czyx) == pytest.approx(1, abs=0.01)


def test_permalloy_of_the_stripes_is_as_published_before_ndco5_had_a_field():
    """The formula of the two permalloy layers, in double precision."""
    random = np.random.default_rng(5)
    x, y = random.uniform(-1300, 1300, (2, 5000))
    z = random.uniform(40, 120, 5000) * random.choice([-1, 1], 5000)
    psi = np.exp(2j * np.pi * (x / 390 + 25 / 390 * np.sin(2 * np.pi * y / 2300)))
    to_first = (x + 390) + 1j * (y - 260)
    to_second = (x - 487.5) + 1j * (y + 330)
    psi *= to_first / np.sqrt(np.abs(to_first) ** 2 + 100**2)
    psi *= to_second.conj() / np.sqrt(np.abs(to_second) ** 2 + 100**2)
    weight_1, weight_2 = (
        (120**2 / (120**2 + np.abs(each) ** 2)) ** 2 for each in (to_first, to_second)
    )
    height = (np.abs(z) - 80) / 40
    core = -(z - 80) / np.sqrt((z - 80) ** 2 + 60**2)
    stripes = 0.1 + 0.25 * (psi.real**2 - psi.imag**2)
    v = np.stack(
        [
            np.sign(z) * (0.75 + 0.25 * height) * psi.imag,
            stripes * (1 - weight_1 - weight_2) + weight_1 * core + weight_2,
            (0.75 - 0.25 * height) * psi.real,
        ],
        axis=-1,
    )
    m = field_at(textures.load("stripes"), np.stack([x, y, z], axis=-1))[:, :3]
    np.testing.assert_allclose(m, v / np.linalg.norm(v, axis=-1, keepdims=True), atol=5e-4)


def test_no_singularity_in_ndco5():
    """Cubes of 4 nm: across a period of the stripes, and about both bifurcations.

    Neighbours never differ by 90 deg, so no singularity hides in a cube; m_y > 0 in the middle.
    """
    texture = textures.load("stripes")
    heights = np.arange(-38.0, 39.0, 4.0)
    for x, y, half in ((0.0, 900.0, 220.0), (-390.0, 260.0, 120.0), (487.5, -330.0, 120.0)):
        axis = np.arange(-half, half, 4.0)
        grid = np.stack(np.meshgrid(x + axis, y + axis[:40], heights, indexing="ij"), axis=-1)
        m = field_at(texture, grid)[..., :3].astype(float)
        assert np.abs(sum_of_faces(m)).max() < 1e-6
        for axis_of_grid in range(3):
            ahead = np.roll(m, -1, axis_of_grid)
            cosine = np.delete(np.sum(m * ahead, axis=-1), -1, axis_of_grid)
            assert cosine.min() > 0
        grid[..., 2] = 0
        assert field_at(texture, grid)[..., 1].min() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", textures.names())
def test_no_other_point_singularity_in_the_magnetic_layers(name):
    """Every 20 nm cube of the field of view, in every magnetic layer; 50 nm in the pillar."""
    texture = textures.load(name)
    expected = {
        (each.x_nm, each.y_nm, each.z_nm)
        for each in texture.singularities
        if each.kind == "Bloch point"
    }
    step_nm, half_nm = (50.0, 2500.0) if name == "pillar" else (20.0, 1400.0)
    axis = np.arange(-half_nm - 3.0, half_nm, step_nm)
    found = []
    for layer in magnetic_layers(texture):
        heights = np.arange(layer.low_nm, layer.high_nm + 1e-9, step_nm)
        heights = np.clip(heights + 1.0, layer.low_nm, layer.high_nm - 0.01)
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
    write_truth(tmp_path / "truth.h5", sample, 96, 3, settings)
    assert [each.name for each in tmp_path.iterdir()] == ["truth.h5"]
    with h5py.File(tmp_path / "truth.h5") as file:
        assert dict(file.attrs)["voxel_nm"] == 10.5
        assert file.attrs["texture"] == "stripes"
        np.testing.assert_array_equal(file.attrs["layers_nm"], [[-120, -40], [40, 120]])
        m = np.stack([file[name][:] for name in ("mx", "my", "mz")])
        assert m.dtype == np.float32
        assert m.shape == (3, 24, 96, 96)
        kinds = [kind.decode() for kind in file["singularities/kind"]]
        assert kinds == ["Bloch point", "meron", "meron", "meron"]
        assert file["singularities/charge"][kinds.index("Bloch point")] == pytest.approx(-1)
        names = ("x_nm", "y_nm", "z_nm", "radius_nm")
        spheres = np.stack([file["fiducials"][name][:] for name in names], axis=1)
        np.testing.assert_array_equal(spheres, sample.spheres())
    norm = np.linalg.norm(m, axis=0)
    z_nm = (np.arange(24) - 11.5) * 10.5
    inside = (np.abs(z_nm) >= 40) & (np.abs(z_nm) < 120)
    np.testing.assert_allclose(norm[inside], 1, atol=1e-5)
    assert not norm[~inside].any()


def test_truth_holds_the_other_magnetic_layers_and_their_light(tmp_path):
    """At the Fe edge NdCo5 is dark; at the Co edge the two permalloy layers are."""
    settings = load_settings("ideal")
    sample = Sample(textures.load("stripes"), 3, settings.fiducials)
    motors = settings.motors
    at_co = settings.model_copy(
        update={
            "motors": motors.model_copy(
                update={"energy": motors.energy.model_copy(update={"initial": 778.1})}
            )
        }
    )
    for conditions, energy_ev, layers_nm, others_nm in (
        (settings, 707.4, [[-120, -40], [40, 120]], [[-40, 40]]),
        (at_co, 778.1, [[-40, 40]], [[-120, -40], [40, 120]]),
    ):
        write_truth(tmp_path / "truth.h5", sample, 16, 3, conditions)
        with h5py.File(tmp_path / "truth.h5") as file:
            assert file.attrs["energy_ev"] == energy_ev
            np.testing.assert_array_equal(file.attrs["layers_nm"], layers_nm)
            np.testing.assert_array_equal(file["other_layers"].attrs["layers_nm"], others_nm)
            norm, others_norm = (
                np.sqrt(sum(group[name][:] ** 2 for name in ("mx", "my", "mz")))
                for group in (file, file["other_layers"])
            )
            names = [name.decode() for name in file["layers/material"]]
            assert names == ["Si3N4", "Ni80Fe20", "NdCo5", "Ni80Fe20"]
            lit = [abs(value) > 1e-4 for value in file["layers/delta_per_nm"]]
            assert lit == [
                list(pair) in layers_nm
                for pair in zip(file["layers/low_nm"], file["layers/high_nm"], strict=True)
            ]
        np.testing.assert_allclose((norm + others_norm)[1:-1], 1, atol=1e-5)
        assert not np.any(norm * others_norm)


def test_truth_of_a_hopfion_names_its_index(tmp_path):
    settings = load_settings("ideal")
    sample = Sample(textures.load("hopfion"), 3, settings.fiducials)
    write_truth(tmp_path / "truth.h5", sample, 16, 3, settings)
    with h5py.File(tmp_path / "truth.h5") as file:
        assert file.attrs["hopf_index"] == pytest.approx(1, abs=1e-3)
        assert file["singularities/radius_nm"][0] == 600
        assert "other_layers" not in file


def test_truth_names_what_lies_in_the_field(tmp_path):
    """In 64 pixels, 672 nm, of a square lattice of 240 nm: three rows of three."""
    settings = load_settings("ideal")
    sample = Sample(textures.load("bloch_skyrmions"), 3, settings.fiducials)
    write_truth(tmp_path / "truth.h5", sample, 64, 3, settings)
    with h5py.File(tmp_path / "truth.h5") as file:
        np.testing.assert_allclose(file["singularities/charge"], np.ones(9), atol=1e-5)
        assert np.ptp(file["singularities/x_nm"]) == 480


@pytest.mark.parametrize("pixels", [256, 1024])
@pytest.mark.parametrize("name", ["stripes", "pillar"])
def test_a_thick_sample_has_coarser_voxels_that_hold_it(name, pixels):
    shape_zyx, voxel_nm = volume_grid(textures.load(name), pixels)
    assert np.prod(shape_zyx) <= 26_000_000
    assert shape_zyx[0] * voxel_nm >= (5000 if name == "pillar" else 240)
    assert shape_zyx[2] * voxel_nm == pytest.approx(pixels * 10.5, rel=0.01)
    assert name == "pillar" or voxel_nm == 10.5


def test_the_texture_of_the_guide_is_one(tmp_path):
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-texture.md"
    code = guide.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    module = {}
    exec(compile(code, "spiral.py", "exec"), module)
    m = field_at(module["TEXTURE"], np.array([[0.0, 0, 0], [250, 0, 0], [500, 7, 9]]))
    np.testing.assert_allclose(m[:, :2], [[1, 0], [0, 1], [-1, 0]], atol=1e-5)


def test_unknown_texture_names_those_that_exist():
    with pytest.raises(ValueError, match=r"expected one of .*stripes, uniform, vortex"):
        textures.load("strips")


def test_vortex_covers_half_of_the_sphere():
    texture = textures.load("vortex")
    wide = Singularity(0.0, 0.0, 0.0, "meron", radius_nm=850.0)
    # m_z = CORE / r at the rim: the directions cover the sphere down to that height.
    assert charge(texture, wide) == pytest.approx(0.5, abs=0.03)

"""A field from a file is what was written: by place, by amount, and against the analytic one."""

import h5py
import numpy as np
import pytest

from mistral_txm.simulated_beamline import textures
from mistral_txm.simulated_beamline.sample import PIXEL_NM, Pose, Sample
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.truth import dichroic_layers_nm, field_at, write_truth

FE = frozenset({"Ni80Fe20"})
NO_SPHERES = np.empty((0, 4))


def written(path, m_czyx, voxel_nm=10.0, **others):
    with h5py.File(path, "w") as file:
        for name, component in zip(("mx", "my", "mz"), m_czyx, strict=True):
            file[name] = np.asarray(component, dtype=np.float32)
        if voxel_nm is not None:
            file.attrs["voxel_nm"] = voxel_nm
        for name, value in others.items():
            del file[name]
            if value is not None:
                file[name] = value
    return path


def view_of(path, pose, shape_vu):
    sample = Sample(textures.load(path), 1, load_settings("ideal").fiducials)
    return sample.view(pose, shape_vu, FE, NO_SPHERES)


def test_density_is_that_of_the_voxel_and_ends_at_its_faces(tmp_path):
    """One voxel of 20 nm in the middle of 3 x 3 x 3, filled to 60 %."""
    m_czyx = np.zeros((3, 3, 3, 3))
    m_czyx[:, 1, 1, 1] = [0.6, 0, 0]
    texture = textures.load(written(tmp_path / "voxel.h5", m_czyx, 20.0))
    points = np.array(
        [[0, 0, 0], [9.9, -9.9, 9.9], [10.1, 0, 0], [0, 0, -10.1], [500, 0, 0]], float
    )
    m = field_at(texture, points)
    np.testing.assert_allclose(m[:, 3], [0.6, 0.6, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(m[:2, :3], [[1, 0, 0], [1, 0, 0]], atol=1e-6)
    np.testing.assert_array_equal(dichroic_layers_nm(texture), [[-10, 10]])
    assert texture.layers[0].low_nm == -60


def test_direction_is_interpolated_between_the_centres(tmp_path):
    """From +x at x = -10 nm to +y at x = +10 nm: a quarter of the way it is that of (3, 1)."""
    m_czyx = np.zeros((3, 2, 2, 2))
    m_czyx[0, :, :, 0] = 1
    m_czyx[1, :, :, 1] = 1
    texture = textures.load(written(tmp_path / "turning.h5", m_czyx, 20.0))
    m = field_at(texture, np.array([[-15.0, 0, 0], [-5, 3, 3], [0, 0, 0], [10, 0, -19]]))
    expected = np.array([[1, 0], [3 / 10**0.5, 1 / 10**0.5], [0.5**0.5, 0.5**0.5], [0, 1]])
    np.testing.assert_allclose(m[:, :2], expected, atol=1e-6)
    np.testing.assert_allclose(m[:, 3], 1)


def test_axes_are_z_y_x(tmp_path):
    """A block with one marked voxel at its high z, low y, middle x."""
    m_czyx = np.zeros((3, 4, 6, 7))
    m_czyx[2, 3, 0, 3] = 1
    texture = textures.load(written(tmp_path / "marked.h5", m_czyx, 10.0))
    m = field_at(texture, np.array([[0.0, -25.0, 15.0], [0.0, 25.0, 15.0], [0.0, -25.0, -15.0]]))
    assert m[:, 3].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(dichroic_layers_nm(texture), [[10, 20]])


def test_runs_of_slices_are_layers(tmp_path):
    m_czyx = np.zeros((3, 8, 2, 2))
    m_czyx[2, [1, 2, 6, 7]] = 1
    texture = textures.load(written(tmp_path / "bilayer.h5", m_czyx, 10.0))
    np.testing.assert_array_equal(dichroic_layers_nm(texture), [[-30, -10], [20, 40]])
    view = view_of(tmp_path / "bilayer.h5", Pose(0.0, 0.0), (1, 1))
    assert view.dichroic_nm["Ni80Fe20"][0, 0] == pytest.approx(40)
    assert view.path_nm["Si3N4"] == pytest.approx(50)


def test_the_whole_of_it_is_in_the_image(tmp_path):
    """The sum over an image is the volume of the material, at every tilt: cos(theta) less wide."""
    m_czyx = np.zeros((3, 4, 20, 20))
    m_czyx[0, 1:3, 4:16, 2:12] = 0.5
    written(tmp_path / "block.h5", m_czyx, 10.0)
    for theta_deg in (0.0, 45.0):
        view = view_of(tmp_path / "block.h5", Pose(theta_deg, 30.0, lean_deg=5.0), (40, 40))
        volume = view.path_nm["Ni80Fe20"].sum() * PIXEL_NM**2
        assert volume == pytest.approx(0.5 * 20 * 120 * 100, rel=0.02)


@pytest.mark.parametrize("theta_deg", [0.0, -50.0])
def test_a_sampled_hopfion_looks_like_the_analytic_one(tmp_path, theta_deg):
    texture = textures.load("hopfion")
    axes = [(np.arange(n) - (n - 1) / 2) * 10.0 for n in (22, 140, 140)]
    points = np.stack(np.meshgrid(*axes, indexing="ij")[::-1], axis=-1)
    written(tmp_path / "sampled.h5", np.moveaxis(field_at(texture, points)[..., :3], -1, 0))
    sampled = view_of(tmp_path / "sampled.h5", Pose(theta_deg, 0.0), (64, 64))
    analytic = Sample(texture, 1, load_settings("ideal").fiducials).view(
        Pose(theta_deg, 0.0), (64, 64), FE, NO_SPHERES
    )
    difference = sampled.dichroic_nm["Ni80Fe20"] - analytic.dichroic_nm["Ni80Fe20"]
    inner = difference[:, 16:-16]  # the slanted edge of the block lies in the field
    assert np.abs(inner).max() < 2.0
    assert np.sqrt(np.mean(inner**2)) < 1.0  # of 220 nm, interpolated between voxels of 10 nm


def test_truth_of_a_file_is_what_was_in_it(tmp_path):
    random = np.random.default_rng(3)
    m_czyx = random.normal(size=(3, 6, 32, 32))
    m_czyx *= 0.9 / np.linalg.norm(m_czyx, axis=0)
    written(tmp_path / "noise.h5", m_czyx, PIXEL_NM)
    settings = load_settings("ideal")
    sample = Sample(textures.load(tmp_path / "noise.h5"), 1, settings.fiducials)
    write_truth(tmp_path / "truth.h5", sample, 32, 1, settings)
    with h5py.File(tmp_path / "truth.h5") as file:
        assert file.attrs["texture"] == "noise"
        for name, component in zip(("mx", "my", "mz"), m_czyx, strict=True):
            np.testing.assert_allclose(file[name][9:15], component, atol=1e-4)
            assert not file[name][:9].any()


ONES = np.ones((3, 2, 2, 2)) / np.sqrt(3)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"my": None}, "no dataset my: expected mx, my and mz"),
        ({"voxel_nm": None}, "no attribute voxel_nm"),
        ({"voxel_nm": -3.0}, "voxel_nm is -3.0: expected one number above 0"),
        ({"voxel_nm": "ten"}, "voxel_nm is ten: expected one number"),
        ({"voxel_nm": [10.0, 5.0, 5.0]}, "expected one number above 0, in nm"),
        ({"mz": np.zeros((2, 2, 3))}, r"mz \(2, 2, 3\): expected three of one shape"),
        (
            {"mx": np.zeros((2, 2))},
            r"mx is float64 of shape \(2, 2\): expected numbers \[z, y, x\]",
        ),
        ({"mx": np.full((2, 2, 2), np.nan)}, "mx holds 8 values that are not finite"),
        ({"mx": np.full((2, 2, 2), 8e5)}, r"\|m\| reaches 8e\+05: expected at most 1"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, change, complaint):
    path = written(tmp_path / "bad.h5", ONES, **change)
    with pytest.raises(ValueError, match=complaint) as refusal:
        textures.load(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_no_field_at_all_is_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    for name in ("text.h5", "missing.h5"):
        with pytest.raises(ValueError, match="cannot be read as HDF5"):
            textures.load(tmp_path / name)
    with pytest.raises(ValueError, match="zero everywhere"):
        textures.load(written(tmp_path / "empty.h5", 0 * ONES))

import numpy as np
import pytest

from mistral_txm.reconstruction import topology

VOXEL_NM = 10.5


def lattice(n_zyx):
    z, y, x = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * VOXEL_NM for n in n_zyx), indexing="ij")
    return x, y, z


def vortex_core(n_zyx, at_x_nm, radius_nm=40.0):
    """A meron: in-plane vortex whose core turns up; half a unit of charge in the plane [module topology]."""
    x, y, _ = lattice(n_zyx)
    r, phi = np.hypot(x - at_x_nm, y), np.arctan2(y, x - at_x_nm)
    up = np.exp(-((r / radius_nm) ** 2))
    flat = np.sqrt(1 - up**2)
    return np.stack([-flat * np.sin(phi), flat * np.cos(phi), up])


def test_squares_along_a_line_find_the_meron_where_it_is():
    m = vortex_core((3, 41, 101), at_x_nm=210.0)
    profile = topology.planar_profile(m, VOXEL_NM, center_nm=(0, 0, 0), side_nm=20 * VOXEL_NM)
    inside = np.abs(profile.position_nm - 210.0) < 5
    assert profile.charge_p[inside] == pytest.approx(0.5, abs=0.01)
    far = np.abs(profile.position_nm - 210.0) > 200
    assert np.abs(profile.charge_p[far]).max() < 0.01
    # the same number as the rectangle's own
    at = int(np.argmax(inside))
    low, high = profile.position_nm[at] - 105 - 1e-6, profile.position_nm[at] + 105 + 1e-6
    assert profile.charge_p[at] == pytest.approx(
        topology.planar_charge(m, VOXEL_NM, x_range_nm=(low, high), y_range_nm=(-105.1, 105.1))
    )
    along_y = topology.planar_profile(
        m.transpose(0, 1, 3, 2), VOXEL_NM, center_nm=(0, 0, 0), side_nm=210.0, axis="y"
    )
    # a mirror image has the opposite charge
    np.testing.assert_allclose(along_y.charge_p, -profile.charge_p, atol=0.02)


def test_the_spread_is_that_of_squares_without_a_singularity():
    """Noise alone, Monte Carlo: the profile's std is the scatter of a square's charge over realizations."""
    rng = np.random.default_rng(4)
    uniform = np.zeros((3, 1, 60, 60))
    uniform[0] = 1
    charges, stated = [], []
    for _ in range(60):
        noisy = uniform + rng.normal(0, 0.2, uniform.shape)
        profile = topology.planar_profile(
            noisy, VOXEL_NM, center_nm=(0, 0, 0), side_nm=5 * VOXEL_NM
        )
        charges.append(profile.charge_p[25])
        stated.append(profile.std)
    assert np.mean(stated) == pytest.approx(np.std(charges), rel=0.25)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"side_nm": 1.0}, "side_nm: 1 nm, expected 10.5 to"),
        ({"side_nm": 900.0}, "side_nm: 900 nm"),
        ({"axis": "z"}, "axis: expected x or y"),
        ({"center_nm": (0, 0, 500)}, "outside the volume"),
        ({"center_nm": (0, 400, 0)}, "leave the slice"),
    ],
)
def test_planar_profile_refuses(arguments, words):
    given = {"center_nm": (0, 0, 0), "side_nm": 105.0} | arguments
    with pytest.raises(ValueError, match=words):
        topology.planar_profile(vortex_core((3, 21, 41), 0.0), VOXEL_NM, **given)


def test_streamlines_of_a_hedgehog_are_its_rays():
    """q = r / |r|^3: every line goes straight out, and in the other direction into the Bloch point."""
    x, y, z = lattice((31, 31, 31))
    m = np.stack([x, y, z]) / np.maximum(np.sqrt(x**2 + y**2 + z**2), 1e-9)
    q = topology.emergent_field(m, VOXEL_NM, minimum_norm=0.5)
    rays = np.array([[1.0, 0.2, 0.1], [-0.3, 1.0, 0.5], [0.2, -0.4, -1.0]])
    rays /= np.linalg.norm(rays, axis=1)[:, None]
    lines = topology.streamlines(q, VOXEL_NM, 60.0 * rays, length_nm=500.0)
    for ray, line in zip(rays, lines, strict=True):
        assert np.linalg.norm(np.cross(line, ray), axis=1).max() < 0.1 * VOXEL_NM
        along = line @ ray
        assert np.all(np.diff(along) > 0)
        assert along[-1] > 130.0
        assert along[0] < 35.0


def test_streamlines_refuse_seeds_that_are_no_points():
    with pytest.raises(ValueError, match="expected points"):
        topology.streamlines(np.zeros((3, 4, 4, 4)), 1.0, [[0.0, 1.0]], length_nm=1.0)

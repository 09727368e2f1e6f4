"""Charges against closed forms: every expected value is an exact number or an invariance."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mistral_txm.reconstruction import topology

VOXEL_NM = 10.5


def positions(shape_zyx, voxel_nm=VOXEL_NM, origin_nm=(0.0, 0.0, 0.0)):
    """Return x, y, z of every voxel relative to a point (x, y, z), each [z, y, x]."""
    axes = [(np.arange(n) - (n - 1) / 2) * voxel_nm for n in shape_zyx]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return x - origin_nm[0], y - origin_nm[1], z - origin_nm[2]


def hedgehog(shape_zyx, at_nm=(0.0, 0.0, 0.0), matrix=None, voxel_nm=VOXEL_NM):
    """Return m = matrix . r / |r| around a point."""
    r = np.stack(positions(shape_zyx, voxel_nm, at_nm))
    m = np.einsum("ij,jzyx->izyx", np.eye(3) if matrix is None else matrix, r)
    return m / np.maximum(np.linalg.norm(r, axis=0), 1e-12)


def vortex_point(shape_zyx, at_nm, sign=1, noise=0.0, seed=0, layer_nm=None):
    """Return a vortex whose core changes polarity at a point: a Bloch point, smooth around.

    Near the point m = (-y, x, 2 sign z) / ..., a linear map of determinant 2 sign: Q = sign.
    """
    x, y, z = positions(shape_zyx, origin_nm=at_nm)
    m = np.stack([-y, x, sign * 2 * z * np.exp(-(x**2 + y**2) / 300.0**2)])
    m /= np.maximum(np.linalg.norm(m, axis=0), 1e-12)
    m += noise * np.random.default_rng(seed).normal(size=m.shape)
    if layer_nm is not None:
        m *= np.abs(positions(shape_zyx)[2]) < layer_nm / 2
    return m


def skyrmion(shape_zyx, radius_nm, core, winding=1, helicity_rad=0.0, at_nm=(0.0, 0.0)):
    """Return m_z = core in the middle and -core outside the radius."""
    x, y, _ = positions(shape_zyx, origin_nm=(*at_nm, 0.0))
    polar = np.pi * np.clip(1 - np.hypot(x, y) / radius_nm, 0, 1)
    azimuth = winding * np.arctan2(y, x) + helicity_rad
    return np.stack(
        [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), -core * np.cos(polar)]
    )


def meron(shape_zyx, radius_nm, polarity, winding, at_nm=(0.0, 0.0), noise=0.0):
    x, y, _ = positions(shape_zyx, origin_nm=(*at_nm, 0.0))
    along = np.exp(-((x**2 + y**2) / radius_nm**2))
    across = np.sqrt(1 - along**2)
    azimuth = winding * np.arctan2(y, x) + np.pi / 2
    m = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), polarity * along])
    return m + noise * np.random.default_rng(1).normal(size=m.shape)


def hopfion(n, sense=1):
    """Return z turned about r / |r| by an angle that goes from 2 pi in the middle to 0 outside."""
    x, y, z = positions((n, n, n), 1.0)
    r = np.sqrt(x**2 + y**2 + z**2)
    angle = sense * 2 * np.pi * np.cos(np.pi / 2 * np.clip(r / (0.45 * n), 0, 1)) ** 2
    ux, uy, uz, c, s = x / r, y / r, z / r, np.cos(angle), np.sin(angle)
    return np.stack([ux * uz * (1 - c) + uy * s, uy * uz * (1 - c) - ux * s, c + uz**2 * (1 - c)])


class TestClosedSurfaces:
    @pytest.mark.parametrize("matrix", [np.eye(3), np.diag([2.0, 0.5, 1.0])])
    def test_a_hedgehog_is_plus_one_and_its_negative_minus_one(self, matrix):
        m = hedgehog((12, 12, 12), matrix=matrix)
        for side_nm in (VOXEL_NM, 50.0, 105.0):
            box = {"center_nm": (0, 0, 0), "side_nm": side_nm}
            assert topology.box_charge(m, VOXEL_NM, **box) == 1
            assert topology.box_charge(-m, VOXEL_NM, **box) == -1

    def test_a_mirrored_direction_changes_the_sign(self):
        m = hedgehog((8, 8, 8), matrix=np.diag([1.0, 1.0, -1.0]))
        assert topology.box_charge(m, VOXEL_NM, center_nm=(0, 0, 0), side_nm=40) == -1

    @given(
        offset=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
        seed=st.integers(0, 2**31),
    )
    @settings(max_examples=60, deadline=None)
    def test_any_turn_and_place_between_the_voxels(self, offset, seed):
        at_nm = np.array(offset) * VOXEL_NM
        turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
        m = hedgehog((9, 9, 9), at_nm, turn)
        box = {"center_nm": (0, 0, 0), "side_nm": 4 * VOXEL_NM, "minimum_norm": 1e-3}
        assert topology.box_charge(m, VOXEL_NM, **box) == 1
        assert (
            topology.sphere_charge(
                m, VOXEL_NM, center_nm=(0, 0, 0), radius_nm=2.5 * VOXEL_NM, minimum_norm=1e-3
            )
            == 1
        )

    @given(seed=st.integers(0, 2**31), side=st.tuples(*[st.integers(1, 5)] * 3))
    @settings(max_examples=60, deadline=None)
    def test_any_field_has_an_integer_charge_which_adds_up(self, seed, side):
        m = np.random.default_rng(seed).normal(size=(3, 6, 6, 6))
        both = topology.box_charge(m, 1.0, center_nm=(0, 0, 0), side_nm=(5, 5, 5), minimum_norm=0.0)
        # two boxes that share a face
        cut = 1 + seed % 4
        left = topology.box_charge(
            m, 1.0, center_nm=(cut / 2 - 2.5, 0, 0), side_nm=(cut, 5, 5), minimum_norm=0.0
        )
        right = topology.box_charge(
            m, 1.0, center_nm=(cut / 2, 0, 0), side_nm=(5 - cut, 5, 5), minimum_norm=0.0
        )
        assert left + right == both
        assert isinstance(
            topology.box_charge(m, 1.0, center_nm=(0, 0, 0), side_nm=side, minimum_norm=0.0), int
        )

    def test_turning_the_volume_changes_nothing(self):
        m = vortex_point((12, 12, 12), (11.0, -16.0, 4.0))
        box = {"center_nm": (0, 0, 0), "side_nm": 8 * VOXEL_NM}
        for _ in range(4):
            # about z by 90 deg: x -> y, y -> -x; array axes (z, y, x)
            m = np.rot90(np.stack([-m[1], m[0], m[2]]), k=1, axes=(3, 2))
            assert topology.box_charge(m, VOXEL_NM, **box) == 1
        # cyclic exchange of the axes: a turn about (1, 1, 1)
        m = np.transpose(m[[2, 0, 1]], (0, 2, 3, 1))
        assert topology.box_charge(m, VOXEL_NM, **box) == 1

    def test_two_in_one_box(self):
        x, y, z = positions((10, 12, 24), 1.0)
        for second, total in ((1, 2), (-1, 0)):
            # (w - a)(w - b) of w = x + i y has charge +2 in the plane; b's conjugate gives 0.
            a, b = x - 5 + 1j * y, x + 5 + 1j * y
            w = a * (b if second == 1 else b.conj())
            m = np.stack([w.real, w.imag, 10 * z])
            m /= np.linalg.norm(m, axis=0)
            box = {"side_nm": (5, 5, 5)}
            whole = topology.box_charge(m, 1.0, center_nm=(0, 0, 0), side_nm=(20, 9, 7))
            assert whole == total
            assert topology.box_charge(m, 1.0, center_nm=(5, 0, 0), **box) == 1
            assert topology.box_charge(m, 1.0, center_nm=(-5, 0, 0), **box) == second

    def test_the_unit_of_m_does_not_matter(self):
        m = (2.2e-3 * hedgehog((8, 8, 8))).astype(np.float32)
        assert topology.box_charge(m, VOXEL_NM, center_nm=(0, 0, 0), side_nm=40) == 1

    def test_an_undefined_voxel_inside_is_no_matter_on_the_surface_it_is(self):
        m = hedgehog((9, 9, 9))
        m[:, 4, 4, 4] = np.nan
        assert topology.box_charge(m, VOXEL_NM, center_nm=(0, 0, 0), side_nm=4 * VOXEL_NM) == 1
        m[:, 4, 4, 6] = 0
        with pytest.raises(topology.UndefinedDirectionError, match="undefined on 4 squares"):
            topology.box_charge(m, VOXEL_NM, center_nm=(0, 0, 0), side_nm=4 * VOXEL_NM)

    def test_opposite_neighbours_leave_the_charge_undefined(self):
        m = np.zeros((3, 2, 2, 2))
        m[2] = 1
        m[:, 0, 0, 0] = (0, 1, 0)
        m[:, 1, 1, 1] = (0, -1, 0)
        m[:, 0, 0, 1] = (0, -1, 0)
        m[:, 1, 0, 0] = (1, 0, 0)
        with pytest.raises(topology.UndefinedDirectionError, match="opposite"):
            topology.box_charge(m, 1.0, center_nm=(0, 0, 0), side_nm=1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"center_nm": (40, 0, 0), "side_nm": 30}, "leaves the volume"),
            ({"center_nm": (0, 0), "side_nm": 30}, "three finite lengths"),
            ({"center_nm": (0, 0, 0), "side_nm": -1}, "positive lengths"),
            ({"center_nm": (0, 0, 0), "side_nm": 30, "minimum_norm": -1}, ">= 0"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message) as error:
            topology.box_charge(hedgehog((8, 8, 8)), VOXEL_NM, **arguments)
        assert "\n" not in str(error.value)

    def test_bad_arrays(self):
        with pytest.raises(ValueError, match=r"expected shape \(3, z, y, x\)"):
            topology.box_charge(np.zeros((2, 4, 4, 4)), 1.0, center_nm=(0, 0, 0), side_nm=2)
        with pytest.raises(ValueError, match="voxel_nm"):
            topology.find_singularities(np.zeros((3, 4, 4, 4)), 0.0)


class TestFiniteDifferences:
    def test_emergent_field_of_a_hedgehog(self):
        m = hedgehog((21, 21, 21), voxel_nm=1.0)
        q = topology.emergent_field(m, 1.0)
        r = np.stack(positions((21, 21, 21), 1.0))
        distance = np.linalg.norm(r, axis=0)
        far = (distance > 6) & (distance < 9)
        expected = (r / np.maximum(distance, 1e-12) ** 3)[:, far]
        np.testing.assert_allclose(q[:, far], expected, atol=0.05 * np.abs(expected).max())
        assert np.isnan(q[:, 10, 10, 10]).all()

    def test_flux_is_close_to_the_lattice_form(self):
        m = vortex_point((24, 30, 30), (4.0, -3.0, 2.0))
        for side_nm in (84.0, 126.0, 168.0):
            box = {"center_nm": (0, 0, 0), "side_nm": side_nm}
            lattice = topology.box_charge(m, VOXEL_NM, **box)
            assert topology.box_flux(m, VOXEL_NM, **box) == pytest.approx(lattice, abs=0.1)
        coarse = topology.box_flux(m, VOXEL_NM, center_nm=(0, 0, 0), side_nm=3 * VOXEL_NM)
        assert abs(coarse - 1) > 0.05  # too close to the core: what the lattice form is there for

    def test_profile_and_width(self):
        m = hedgehog((24, 24, 40))
        profile = topology.charge_profile(m, VOXEL_NM, center_nm=(0, 0, 0), sides_nm=[63, 105])
        assert profile.charge_sp.shape == (2, 40)
        assert np.isnan(profile.charge_sp[:, 0]).all()
        for side_nm, charge in zip(profile.side_nm, profile.charge_sp, strict=True):
            middle = np.argmin(np.abs(profile.position_nm))
            assert charge[middle] == pytest.approx(1, abs=0.1)
            inside = np.abs(profile.position_nm) < side_nm / 2 - 2 * VOXEL_NM
            outside = np.abs(profile.position_nm) > side_nm / 2 + 3 * VOXEL_NM
            assert np.nanmin(charge[inside]) > 0.8
            assert np.nanmax(np.abs(charge[outside])) < 0.2
            assert 0 < topology.edge_width_nm(profile.position_nm, charge) < 4 * VOXEL_NM
        lattice = topology.charge_profile(
            m, VOXEL_NM, center_nm=(0, 0, 0), sides_nm=[63], form="lattice"
        )
        assert set(lattice.charge_sp[np.isfinite(lattice.charge_sp)]) == {0.0, 1.0}

    def test_profiles_along_any_axis_are_alike(self):
        m = hedgehog((20, 20, 20))
        x, y, z = (
            topology.charge_profile(
                m, VOXEL_NM, center_nm=(0, 0, 0), sides_nm=[63], axis=axis
            ).charge_sp
            for axis in ("x", "y", "z")
        )
        np.testing.assert_allclose(x, y)
        np.testing.assert_allclose(x, z)

    def test_edge_width(self):
        x = np.arange(-100.0, 101.0, 5.0)
        ramp = np.clip((60 - np.abs(x)) / 20, 0, 1)  # 20 nm from 0 to 1 on either side
        assert topology.edge_width_nm(x, -0.7 * ramp) == pytest.approx(16.0)
        with pytest.raises(ValueError, match="no charge"):
            topology.edge_width_nm(x, np.zeros_like(x))
        with pytest.raises(ValueError, match="no edge"):
            topology.edge_width_nm(x, np.ones_like(x))


class TestPlanes:
    def test_a_skyrmion_by_hand(self):
        # m = +z outside, -z at the core, turning outwards. Q = (cos(core) - cos(outside)) / 2 = -1.
        m = skyrmion((3, 40, 40), 150, core=-1)
        assert topology.planar_charge(m, VOXEL_NM) == pytest.approx(-1, abs=1e-12)

    @pytest.mark.parametrize("core", [1, -1])
    @pytest.mark.parametrize("winding", [1, -1, 2])
    @pytest.mark.parametrize("helicity_rad", [0.0, np.pi / 2, 2.0])
    def test_skyrmions(self, core, winding, helicity_rad):
        m = skyrmion((2, 41, 38), 150, core, winding, helicity_rad, at_nm=(13.0, -8.0))
        assert topology.planar_charge(m, VOXEL_NM) == pytest.approx(core * winding, abs=1e-12)

    def test_a_rectangle_holds_its_part(self):
        m = np.concatenate(
            [skyrmion((2, 30, 30), 120, -1), skyrmion((2, 30, 30), 120, 1)[:, :, :, ::-1]], axis=3
        )
        m[:, :, :, 30:] *= -1  # the same outside; turned over along x: charge +1
        assert topology.planar_charge(m, VOXEL_NM, x_range_nm=(-400, 0)) == pytest.approx(-1)
        left = topology.planar_charge(m, VOXEL_NM, x_range_nm=(-400, 0), y_range_nm=(-150, 150))
        assert left == pytest.approx(-1)

    @pytest.mark.parametrize("polarity", [1, -1])
    @pytest.mark.parametrize("winding", [1, -1])
    def test_merons_are_half(self, polarity, winding):
        m = meron((4, 60, 60), 50.0, polarity, winding, at_nm=(33.0, -41.0), noise=0.1)
        assert topology.planar_charge(m, VOXEL_NM) == pytest.approx(
            polarity * winding / 2, abs=0.02
        )
        (found,) = topology.find_merons(m, VOXEL_NM)
        assert found.kind == "meron"
        assert found.charge == pytest.approx(polarity * winding / 2, abs=0.05)
        assert np.hypot(found.x_nm - 33.0, found.y_nm + 41.0) < 22

    def test_a_skyrmion_is_found_as_such(self):
        (found,) = topology.find_merons(skyrmion((4, 60, 60), 120, -1), VOXEL_NM)
        assert found.kind == "skyrmion"
        assert found.charge == pytest.approx(-1, abs=0.1)

    def test_stripes_hold_nothing(self):
        x, y, _ = positions((8, 80, 80))
        phase = 2 * np.pi * (x + 0.3 * y) / 390
        m = np.stack([np.zeros_like(phase), np.sin(phase), np.cos(phase)])
        m += 0.2 * np.random.default_rng(3).normal(size=m.shape)
        assert topology.find_merons(m, VOXEL_NM) == []
        assert topology.find_singularities(m, VOXEL_NM) == []

    def test_undefined_is_said(self):
        m = skyrmion((3, 40, 40), 150, core=-1)
        m[:, 1, 3, 5] = 0
        with pytest.raises(topology.UndefinedDirectionError, match="1 of 1600 voxels"):
            topology.planar_charge(m, VOXEL_NM, z_nm=0)
        assert topology.planar_charge(m, VOXEL_NM, z_nm=VOXEL_NM) == pytest.approx(-1)
        with pytest.raises(ValueError, match="outside the volume"):
            topology.planar_charge(m, VOXEL_NM, z_nm=100)
        with pytest.raises(ValueError, match="at least 2"):
            topology.planar_charge(m, VOXEL_NM, x_range_nm=(0, 1))

    def test_layers(self):
        m = skyrmion((20, 40, 40), 150, core=-1)
        m[:, 8:12] = 0
        m[:, 12:] = [[[[0]]], [[[0]]], [[[1]]]]
        m[:, 15:17, 3, 5] = np.nan
        lower, upper = topology.layer_charges(m, VOXEL_NM)
        assert lower.charge == pytest.approx(-1)
        assert (lower.z0_nm, lower.z1_nm) == (-9.5 * VOXEL_NM, -2.5 * VOXEL_NM)
        assert upper.charge == pytest.approx(0, abs=1e-12)  # a hole smaller than the resolution


class TestHopf:
    @pytest.mark.parametrize(("n", "tolerance"), [(24, 0.02), (32, 0.01), (48, 0.005)])
    def test_hopfions(self, n, tolerance):
        assert abs(topology.hopf_index(hopfion(n))) == pytest.approx(1, abs=tolerance)

    def test_the_sign_is_the_linking_number(self):
        """m = -z on a ring in the plane z = 0, m = +z on the axis; q gives both a direction."""
        m = hopfion(48)
        q = topology.emergent_field(m, 1.0)
        middle = 23
        # the ring crosses the half-plane y = 0, x > 0 where m_z is least
        row = m[2, middle : middle + 2, middle : middle + 2, 24:].mean(axis=(0, 1))
        crossing = 24 + int(np.argmin(row))
        ring = np.sign(q[1, middle, middle, crossing])  # +1: runs from x to y, links +z once
        axis = np.sign(q[2, middle : middle + 2, middle : middle + 2, middle : middle + 2].mean())
        # On the axis away from the middle, still inside.
        axis_off = np.sign(q[2, middle + 8, middle, middle])
        assert axis_off == axis
        assert topology.hopf_index(m) == pytest.approx(ring * axis, abs=0.01)
        assert topology.hopf_index(hopfion(48, -1)) == pytest.approx(-ring * axis, abs=0.01)

    def test_no_hopfion(self):
        assert topology.hopf_index(np.tile([[[[0]]], [[[0]]], [[[1.0]]]], (1, 8, 8, 8))) == 0

    def test_where_it_has_no_meaning(self):
        with pytest.raises(ValueError, match="not uniform"):
            topology.hopf_index(hedgehog((8, 8, 8)))
        m = hopfion(24)
        m[:, 3, 4, 5] = 0
        with pytest.raises(topology.UndefinedDirectionError, match="1 voxels"):
            topology.hopf_index(m)
        m = np.tile([[[[0]]], [[[0]]], [[[1.0]]]], (1, 12, 12, 12))
        m[:, 3:9, 3:9, 3:9] = hedgehog((6, 6, 6))
        with pytest.raises(ValueError, match="singularity"):
            topology.hopf_index(m)


class TestSearch:
    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_bloch_point_in_noise(self, seed, sign):
        at_nm = np.random.default_rng(seed).uniform(-70, 70, 3)
        m = vortex_point((24, 48, 48), at_nm, sign, noise=0.2, seed=seed)
        (found,) = topology.find_singularities(m, VOXEL_NM)
        assert found.charge == sign
        assert np.linalg.norm(np.array([found.x_nm, found.y_nm, found.z_nm]) - at_nm) < 22
        assert found.radius_nm < 42

    @pytest.mark.parametrize("z_nm", [-25.0, 0.0, 25.0])
    def test_in_a_layer_thinner_than_the_resolution(self, z_nm):
        at_nm = (12.0, -20.0, z_nm)
        m = vortex_point((24, 40, 40), at_nm, -1, noise=0.2, layer_nm=80.0)
        (found,) = topology.find_singularities(m, VOXEL_NM)
        assert found.charge == -1
        assert np.linalg.norm(np.array([found.x_nm, found.y_nm, found.z_nm]) - at_nm) < 22

    def test_exact_where_there_is_no_noise(self):
        for at_nm in ((0.0, 0.0, 0.0), (5.25, 0, 0), (2.0, -3.0, 4.0), (30.1, 25.0, -10.0)):
            (found,) = topology.find_singularities(
                hedgehog((21, 20, 22), at_nm).astype(np.float32), VOXEL_NM, resolution_nm=20.0
            )
            assert found.charge == 1
            np.testing.assert_allclose(
                [found.x_nm, found.y_nm, found.z_nm], at_nm, atol=0.3 * VOXEL_NM
            )

    def test_a_blurred_core_with_no_direction(self):
        x, y, z = positions((24, 30, 30), origin_nm=(3.0, 2.0, -4.0))
        r = np.stack([x, y, z])
        m = r / np.sqrt((r**2).sum(axis=0) + 40.0**2)
        m[:, np.linalg.norm(r, axis=0) < 30] = 0
        (found,) = topology.find_singularities(m, VOXEL_NM)
        assert found.charge == 1
        assert 30 <= found.radius_nm <= 47.25
        assert np.linalg.norm([found.x_nm - 3, found.y_nm - 2, found.z_nm + 4]) < VOXEL_NM

    def test_noise_alone_and_nothing(self):
        rng = np.random.default_rng(0)
        uniform = np.zeros((3, 16, 32, 32))
        uniform[0] = 1
        assert topology.find_singularities(uniform, VOXEL_NM) == []
        noisy = uniform + 0.35 * rng.normal(size=uniform.shape)
        assert topology.find_singularities(noisy, VOXEL_NM) == []
        assert topology.find_singularities(np.zeros_like(uniform), VOXEL_NM) == []
        assert topology.find_singularities(np.full_like(uniform, np.nan), VOXEL_NM) == []

    def test_a_faint_echo_is_not_reported(self):
        m = vortex_point((24, 60, 60), (0.0, 0.0, 0.0), layer_nm=180.0)
        m[:, :, :, :30] = 0.1 * hedgehog((24, 60, 30))
        m[0, :, :, 40:] += 3
        found = topology.find_singularities(m, VOXEL_NM)
        assert all(p.x_nm > 0 for p in found)

    def test_a_meron_beside_a_bloch_point_is_its_own_field(self):
        m = vortex_point((24, 60, 60), (0.0, 0.0, 4.0), noise=0.1)
        assert abs(topology.planar_charge(m, VOXEL_NM, z_nm=60.0)) == pytest.approx(0.5, abs=0.1)
        assert topology.find_merons(m, VOXEL_NM) == []

    def test_pairs_and_neighbours(self):
        x, y, z = positions((24, 40, 60))

        def points(apart_nm, second):
            a, b = x - apart_nm / 2 + 1j * y, x + apart_nm / 2 + 1j * y
            w = a * (b if second == 1 else b.conj())
            m = np.stack([w.real, w.imag, apart_nm * z])
            return m / np.linalg.norm(m, axis=0)

        far = topology.find_singularities(points(200, -1), VOXEL_NM)
        assert sorted((p.charge, round(p.x_nm / 100)) for p in far) == [(-1, -1), (1, 1)]
        assert topology.find_singularities(points(60, -1), VOXEL_NM) == []
        (both,) = topology.find_singularities(points(60, 1), VOXEL_NM)
        assert both.charge == 2
        assert abs(both.x_nm) < VOXEL_NM

    def test_turning_the_volume_turns_the_result(self):
        m = vortex_point((24, 40, 40), (40.0, -20.0, 15.0), noise=0.1)
        turned = np.rot90(np.stack([-m[1], m[0], m[2]]), k=1, axes=(3, 2))
        (before,) = topology.find_singularities(m, VOXEL_NM)
        (after,) = topology.find_singularities(turned, VOXEL_NM)
        assert after.charge == before.charge
        np.testing.assert_allclose(
            [after.x_nm, after.y_nm, after.z_nm],
            [-before.y_nm, before.x_nm, before.z_nm],
            atol=1e-3,
        )

    def test_summary_is_json(self):
        m = vortex_point((24, 40, 40), (0.0, 10.0, 5.0), -1, layer_nm=160.0).astype(np.float32)
        summary = topology.topology_summary(m, VOXEL_NM)
        assert json.loads(json.dumps(summary)) == summary
        (point,) = summary["points"]
        assert set(point) == {"x_nm", "y_nm", "z_nm", "charge", "radius_nm"}
        assert summary["planar"][0]["kind"] == "layer"
        assert summary["hopf_index"] is None

    @pytest.mark.slow
    def test_one_is_found_in_a_volume_of_full_size(self):
        m = vortex_point((80, 400, 400), (30.0, -20.0, 15.0), noise=0.2).astype(np.float32)
        (found,) = topology.find_singularities(m, VOXEL_NM)
        assert found.charge == 1

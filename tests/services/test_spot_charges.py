"""Charges slice by slice: known textures have the charges and radii that follow from their formulas."""

import numpy as np
import pytest

from mistral_txm.reconstruction.planar_charges import PlanarCharge
from mistral_txm.services.spot_charges import (
    Core,
    centred_on_cores,
    charge_with_depth,
    core_of,
    nearest_distances_nm,
)

VOXEL_NM = 10.0
N = 61
X_NM, Y_NM = 35.0, -25.0
LAYER = PlanarCharge("layer", 0.0, None, z0_nm=-20.0, z1_nm=20.0)


def axis(n: int) -> np.ndarray:
    return (np.arange(n) - (n - 1) / 2) * VOXEL_NM


def cap(reach_nm: float, largest_deg: float) -> np.ndarray:
    """A film of five slices between empty ones; m leans outwards from +z, up to an angle at a radius, then stays."""
    _, y, x = np.meshgrid(axis(7), axis(N) - Y_NM, axis(N) - X_NM, indexing="ij")
    r = np.hypot(x, y)
    angle = np.deg2rad(largest_deg) * np.minimum(r / reach_nm, 1)
    across = np.sin(angle) / np.where(r > 0, r, 1)
    m_czyx = np.stack([across * x, across * y, np.cos(angle)]).astype(np.float32)
    m_czyx[:, [0, -1]] = 0
    return m_czyx


@pytest.mark.parametrize("largest_deg", [90.0, 180.0])
def test_the_charge_of_a_cap_is_its_solid_angle_in_every_slice(largest_deg: float) -> None:
    spot = PlanarCharge("meron", 0.0, 0.5, X_NM, Y_NM, 150.0)
    found = charge_with_depth(cap(120.0, largest_deg), None, VOXEL_NM, spot, LAYER)
    np.testing.assert_allclose(found.z_nm, [-20, -10, 0, 10, 20])
    np.testing.assert_allclose(found.charge_z, (1 - np.cos(np.deg2rad(largest_deg))) / 2, atol=0.03)
    assert found.std_z is None


def test_a_bloch_point_makes_the_charge_jump_by_its_own() -> None:
    z, y, x = np.meshgrid(axis(8), axis(N), axis(N), indexing="ij")
    hedgehog = np.stack([x, y, z]) / np.sqrt(x**2 + y**2 + z**2)
    layer = PlanarCharge("layer", 0.0, None, z0_nm=-35.0, z1_nm=35.0)
    spot = PlanarCharge("meron", 5.0, None, 0.0, 0.0, 150.0)
    found = charge_with_depth(hedgehog.astype(np.float32), None, VOXEL_NM, spot, layer)
    low, high = found.charge_z[:4], found.charge_z[4:]
    expected = (1 - np.abs(found.z_nm) / np.hypot(150.0, found.z_nm)) / 2  # solid angle of a disc
    np.testing.assert_allclose(high, expected[4:], atol=0.03)
    np.testing.assert_allclose(high - low[::-1], 2 * expected[4:], atol=0.05)


def test_the_spread_follows_the_noise() -> None:
    m_czyx = cap(120.0, 90.0)
    spot = PlanarCharge("meron", 0.0, 0.5, X_NM, Y_NM, 150.0)
    spread = [
        charge_with_depth(m_czyx, np.full(m_czyx.shape[1:], std, "f4"), VOXEL_NM, spot, LAYER).std_z
        for std in (0.0, 0.02, 0.04)
    ]
    assert all(one is not None for one in spread)
    none, little, twice = (float(np.mean(one)) for one in spread if one is not None)
    assert none < 1e-6
    assert 1.8 < twice / little < 2.2


def test_the_core_of_a_skyrmion_is_found_from_anywhere_in_it() -> None:
    m_czyx = -cap(160.0, 180.0)  # m_z = 0 at half the reach
    for x_nm, y_nm in ((X_NM, Y_NM), (X_NM + 40, Y_NM - 30)):
        core = core_of(m_czyx, VOXEL_NM, PlanarCharge("skyrmion", 0.0, -1.0, x_nm, y_nm, 160.0))
        assert core is not None
        assert core.radius_nm == pytest.approx(80.0, abs=3.0)
        assert (core.x_nm, core.y_nm) == pytest.approx((X_NM, Y_NM), abs=2.0)
    open_one = cap(160.0, 60.0)
    assert core_of(open_one, VOXEL_NM, PlanarCharge("skyrmion", 0.0, 1.0, 0.0, 0.0, 100.0)) is None


def test_a_disc_keeps_off_the_neighbours() -> None:
    """Two skyrmions 240 nm apart, of reach 110 nm: each disc holds its own charge alone."""
    _, y, x = np.meshgrid(axis(5), axis(N), axis(N), indexing="ij")
    m_czyx = np.stack([0 * x, 0 * x, 1 + 0 * x])
    for centre_nm in (-120.0, 120.0):
        r = np.hypot(x - centre_nm, y)
        angle = np.pi * (1 - np.minimum(r / 110.0, 1))
        across = np.sin(angle) / np.where(r > 0, r, 1)
        inside = r < 110.0
        one = np.stack([across * (x - centre_nm), across * y, np.cos(angle)])
        m_czyx[:, inside] = one[:, inside]
    m_czyx = m_czyx.astype(np.float32)
    spots = [PlanarCharge("skyrmion", 0.0, -1.1, x_nm, 20.0, 168.0) for x_nm in (-130.0, 100.0)]
    layer = PlanarCharge("layer", 0.0, None, z0_nm=-20.0, z1_nm=20.0)
    for (spot, core), centre_nm in zip(
        centred_on_cores(m_czyx, VOXEL_NM, spots), (-120.0, 120.0), strict=True
    ):
        assert core is not None
        assert (spot.x_nm, spot.y_nm) == pytest.approx((centre_nm, 0.0), abs=2.0)
        assert spot.radius_nm == pytest.approx(120.0, abs=3.0)
        found = charge_with_depth(m_czyx, None, VOXEL_NM, spot, layer)
        np.testing.assert_allclose(found.charge_z, -1.0, atol=0.02)


def test_distances_of_a_square_lattice() -> None:
    cores = [Core(100.0 * i, 100.0 * j, 20.0) for i in range(3) for j in range(2)]
    np.testing.assert_allclose(nearest_distances_nm(cores), 100.0)
    assert nearest_distances_nm(cores[:1]).size == 0

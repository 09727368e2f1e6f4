"""Samples with line integrals that owe nothing to the code under test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from mistral_txm.reconstruction import Grid, TiltSeries

Float64 = npt.NDArray[np.float64]
VOXEL_NM = 10.5


def _rays(
    theta_deg: float, phi_deg: float, n: int, roll_deg: float = 0.0, lean_deg: float = 0.0
) -> tuple[Float64, Float64, Float64, Float64]:
    """Beam, u and v in the sample frame, written out from the rotations, and pixel centres in nm."""
    t, p = np.deg2rad(theta_deg), np.deg2rad(phi_deg)
    # rows of Rz(phi) take a sample vector to the stage; its transpose takes stage vectors back
    rz = np.array([[np.cos(p), -np.sin(p), 0], [np.sin(p), np.cos(p), 0], [0, 0, 1]])
    r, lean = np.deg2rad(roll_deg), np.deg2rad(lean_deg)
    rx = np.array([[1, 0, 0], [0, np.cos(r), -np.sin(r)], [0, np.sin(r), np.cos(r)]])
    to_sample = (rx @ rz).T
    w, axis = np.array([np.sin(t), 0, np.cos(t)]), np.array([0, 1, 0])
    beam = to_sample @ (np.cos(lean) * w + np.sin(lean) * axis)
    u = to_sample @ np.array([np.cos(t), 0, -np.sin(t)])
    v = to_sample @ (np.cos(lean) * axis - np.sin(lean) * w)
    return beam, u, v, (np.arange(n) - (n - 1) / 2) * VOXEL_NM


@dataclass(frozen=True)
class GaussianBalls:
    """Magnetized balls ``m = vector exp(-|r - centre|^2 / 2 sigma^2)``, whose line integrals are Gaussians."""

    centres_nm: Float64
    vectors: Float64
    sigma_nm: float

    def field(self, grid: Grid) -> npt.NDArray[np.float32]:
        z, y, x = np.meshgrid(grid.z_nm, grid.y_nm, grid.x_nm, indexing="ij")
        m = np.zeros((3, *grid.shape_zyx))
        for centre, vector in zip(self.centres_nm, self.vectors, strict=True):
            r2 = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
            m += vector[:, None, None, None] * np.exp(-r2 / 2 / self.sigma_nm**2)
        return m.astype(np.float32)

    def view(
        self, theta_deg: float, phi_deg: float, n: int, roll_deg: float = 0.0, lean_deg: float = 0.0
    ) -> Float64:
        beam, u, v, pixels = _rays(theta_deg, phi_deg, n, roll_deg, lean_deg)
        image = np.zeros((n, n))
        for centre, vector in zip(self.centres_nm, self.vectors, strict=True):
            distance2 = (pixels[None, :] - centre @ u) ** 2 + (pixels[:, None] - centre @ v) ** 2
            image += vector @ beam * np.exp(-distance2 / 2 / self.sigma_nm**2)
        return image * self.sigma_nm * np.sqrt(2 * np.pi)

    def scalar(self, grid: Grid) -> npt.NDArray[np.float32]:
        """Balls of height one."""
        upright = GaussianBalls(
            self.centres_nm, np.tile([0.0, 0.0, 1.0], (len(self.centres_nm), 1)), self.sigma_nm
        )
        return upright.field(grid)[2]

    def shadow(
        self, theta_deg: float, phi_deg: float, n: int, roll_deg: float = 0.0, lean_deg: float = 0.0
    ) -> Float64:
        """Line integrals of `scalar`: the view of balls magnetized along the beam."""
        beam, *_ = _rays(theta_deg, phi_deg, n, roll_deg, lean_deg)
        along = GaussianBalls(
            self.centres_nm, np.tile(beam, (len(self.centres_nm), 1)), self.sigma_nm
        )
        return along.view(theta_deg, phi_deg, n, roll_deg, lean_deg)


@pytest.fixture
def balls() -> GaussianBalls:
    rng = np.random.default_rng(3)
    centres = rng.uniform(-1, 1, (6, 3)) * np.array([150.0, 150.0, 40.0])
    return GaussianBalls(centres, rng.normal(size=(6, 3)), 35.0)


def stripes(x_nm: Float64, y_nm: Float64, z_nm: Float64) -> Float64:
    """Weak stripe domains with flux closure in two layers, 40 to 120 nm off the middle; unit vectors (3, ...)."""
    turned = 0.906 * x_nm + 0.423 * y_nm
    phase = 2 * np.pi * turned / 390.0
    m_z = 0.85 * np.sin(phase)
    across = 0.75 * z_nm / 120.0 * np.cos(phase)
    along = np.sqrt(1 - m_z**2 - across**2)
    m = np.stack([0.906 * across - 0.423 * along, 0.423 * across + 0.906 * along, m_z])
    return m * ((np.abs(z_nm) > 40) & (np.abs(z_nm) < 120))


def integrate(
    texture: Callable[[Float64, Float64, Float64], Float64],
    theta_deg: float,
    phi_deg: float,
    n: int,
    reach_nm: float,
) -> Float64:
    """Line integrals of m . k through the film, midpoint rule at 4 nm along the ray, exact line of sight."""
    beam, u, v, pixels = _rays(theta_deg, phi_deg, n)
    start = pixels[None, :, None] * u + pixels[:, None, None] * v
    image = np.zeros((n, n))
    steps = int(np.ceil(2 * reach_nm / beam[2] / 4.0))
    dz = 2 * reach_nm / steps
    for z in -reach_nm + (np.arange(steps) + 0.5) * dz:
        point = start + ((z - start[..., 2]) / beam[2])[..., None] * beam
        image += np.tensordot(beam, texture(point[..., 0], point[..., 1], point[..., 2]), 1)
    return image * dz / beam[2]


@dataclass(frozen=True)
class Measured:
    """Series of a texture, with the truth at the voxels' centres."""

    series: list[TiltSeries]
    truth_czyx: npt.NDArray[np.float64]
    grid: Grid
    layers_nm: Sequence[tuple[float, float]]
    delta_per_nm: float

    def errors(self, m_czyx: npt.NDArray[np.float32], edge: int = 0) -> tuple[float, float]:
        """Relative vector error and median angle, deg, over the magnetic voxels."""
        inner = np.s_[:, :, edge : m_czyx.shape[2] - edge, edge : m_czyx.shape[3] - edge]
        m, truth = m_czyx[inner], self.truth_czyx[inner]
        magnetic = np.linalg.norm(truth, axis=0) > 0.5
        a, b = m[:, magnetic], truth[:, magnetic]
        cosine = np.sum(a * b, axis=0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        return float(error), float(np.degrees(np.median(np.arccos(np.clip(cosine, -1, 1)))))


@pytest.fixture(scope="session")
def striped_trilayer() -> Measured:
    """44 views at each azimuth of 64 x 64 pixels with 3 % noise."""
    n, delta = 64, 0.0022
    theta = np.r_[np.arange(-55, -23, 2), np.arange(-22, 23, 4), np.arange(24, 56, 2)].astype(float)
    rng = np.random.default_rng(11)
    series = []
    for phi_deg in (0.0, 102.0):
        clean = delta * np.stack([integrate(stripes, t, phi_deg, n, 120.0) for t in theta])
        std = 0.03 * clean.std()
        series.append(
            TiltSeries(
                phi_deg, theta, clean + rng.normal(0, std, clean.shape), np.full(theta.size, std)
            )
        )
    grid = Grid((24, n, n), VOXEL_NM)
    z, y, x = np.meshgrid(grid.z_nm, grid.y_nm, grid.x_nm, indexing="ij")
    return Measured(series, stripes(x, y, z), grid, ((-120.0, -40.0), (40.0, 120.0)), delta)

"""The sample: layers, texture, fiducials, and their exact line integrals in any pose.

Frames and signs are those of the design: sample frame (x, y, z) with z the film normal; mounted
with azimuth phi, r' = Rz(phi) r; beam k' = (sin theta, 0, cos theta) in the stage frame; a point
projects to u = x' cos theta - z' sin theta, v = y'. The ray of a detector point (u, v) passes the
height z at

    x' = (u + z sin theta) / cos theta,   y' = v,   dl = dz / cos theta,

and the integrals over a layer are sums over midpoints in z at most `STEP_NM` apart, on rays that
are `SUBSAMPLES` times finer than the pixels in u and in v. Nothing here is shared with the
reconstruction.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mistral_txm.simulated_beamline.materials import DICHROIC
from mistral_txm.simulated_beamline.textures import Field, Texture

PIXEL_NM = 10.5
"""Effective pixel of the camera, in the sample [Hierro-Rodriguez et al. 2020]."""
SUBSAMPLES = 2
STEP_NM = 5.0
SPHERE_SUBSAMPLES = 4

FIDUCIAL_RADIUS_NM = 50.0
FIDUCIALS_PER_UM2 = 0.09
"""Au spheres of about 100 nm, 8 to 10 per 100 um^2 [Hierro-Rodriguez et al. 2020]."""
NEAR_FIDUCIALS_NM = ((-980.0, -870.0), (1010.0, 760.0), (160.0, 1090.0))
"""Where spheres lie in every sample, so that the smallest field of view has three."""
FIDUCIAL_FIELD_NM = 24000.0
"""Side of the square that carries fiducials: more than the largest tilted field of view sees."""

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Pose:
    """How the sample stands in the beam: angles, and the shift of its image.

    `shift_u_nm` and `shift_v_nm` move the image along the axes of the detector; `depth_nm` is the
    distance of the sample's origin from the plane in focus, along the beam.
    """

    theta_deg: float
    azimuth_deg: float
    shift_u_nm: float = 0.0
    shift_v_nm: float = 0.0
    depth_nm: float = 0.0


@dataclass(frozen=True)
class View:
    """The line integrals of one pose, in nm: how much of each material a ray meets.

    `dichroic_nm_vu` is the integral of m . k over the dichroic material, `path_nm` the path through
    each material, an image where it varies over the field of view and a number where it does not.
    """

    dichroic_nm_vu: Image
    path_nm: dict[str, Image | float]


@cache
def _integrator(field: Field) -> Callable[..., None]:
    """Compile the sum over one layer for a texture's field."""

    @njit(fastmath=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
    def integrate(
        dichroic_vu: Image,
        path_vu: Image,
        heights_nm: NDArray[np.float32],
        weight_nm: float,
        first_u_nm: float,
        first_v_nm: float,
        step_nm: float,
        subsamples: int,
        sin_theta: float,
        cos_theta: float,
        sin_phi: float,
        cos_phi: float,
    ) -> None:
        rows, columns = dichroic_vu.shape
        k_x = np.float32(sin_theta * cos_phi)
        k_y = np.float32(-sin_theta * sin_phi)
        k_z = np.float32(cos_theta)
        fine = columns * subsamples
        sum_dichroic = np.empty(fine, np.float32)
        sum_path = np.empty(fine, np.float32)
        stretch = np.float32(step_nm / cos_theta)
        along_x = np.float32(cos_phi)
        along_y = np.float32(-sin_phi)
        scale = np.float32(weight_nm / (cos_theta * subsamples * subsamples))
        for row in range(rows):
            sum_dichroic[:] = 0
            sum_path[:] = 0
            for part in range(subsamples):
                v_nm = first_v_nm + (row * subsamples + part) * step_nm
                for z_nm in heights_nm:
                    stage_x = (first_u_nm + z_nm * sin_theta) / cos_theta
                    start_x = np.float32(stage_x * cos_phi + v_nm * sin_phi)
                    start_y = np.float32(-stage_x * sin_phi + v_nm * cos_phi)
                    for column in range(fine):
                        along = np.float32(column) * stretch
                        m_x, m_y, m_z, density = field(
                            start_x + along * along_x, start_y + along * along_y, z_nm
                        )
                        sum_dichroic[column] += density * (k_x * m_x + k_y * m_y + k_z * m_z)
                        sum_path[column] += density
            for column in range(columns):
                dichroic = np.float32(0)
                path = np.float32(0)
                for part in range(subsamples):
                    dichroic += sum_dichroic[column * subsamples + part]
                    path += sum_path[column * subsamples + part]
                dichroic_vu[row, column] += scale * dichroic
                path_vu[row, column] += scale * path

    function: Callable[..., None] = integrate
    return function


def layer_heights_nm(low_nm: float, high_nm: float, step_nm: float) -> NDArray[np.float32]:
    """Return the midpoints of equal slices, at most `step_nm` thick, of the slab low..high."""
    count = max(1, math.ceil((high_nm - low_nm) / step_nm - 1e-9))
    edges = np.linspace(low_nm, high_nm, count + 1)
    return ((edges[1:] + edges[:-1]) / 2).astype(np.float32)


def fiducial_positions_nm(seed: int, height_nm: float) -> NDArray[np.float64]:
    """Scatter Au spheres over the upper surface; returns (n, 3) centres in the sample frame, nm."""
    random = np.random.default_rng([seed, 0xF1D])
    count = round(FIDUCIALS_PER_UM2 * (FIDUCIAL_FIELD_NM / 1000) ** 2)
    scattered = random.uniform(-FIDUCIAL_FIELD_NM / 2, FIDUCIAL_FIELD_NM / 2, (count, 2))
    # The middle is kept for the spheres that are always there, and for the singularities.
    scattered = scattered[np.abs(scattered).max(axis=1) > 1600.0]
    lateral = np.concatenate([np.array(NEAR_FIDUCIALS_NM), scattered])
    return np.column_stack([lateral, np.full(len(lateral), height_nm)])


def project_points(points_nm: NDArray[np.float64], pose: Pose) -> NDArray[np.float64]:
    """Return (u, v) in nm on the detector of points (n, 3) given in the sample frame.

    A point on the normal moves against u where the tilt is positive:

    >>> project_points(np.array([[0.0, 0.0, 100.0]]), Pose(30.0, 0.0)).round(6)
    array([[-50.,   0.]])
    """
    theta, phi = math.radians(pose.theta_deg), math.radians(pose.azimuth_deg)
    x, y, z = points_nm.T
    stage_x = x * math.cos(phi) - y * math.sin(phi)
    stage_y = x * math.sin(phi) + y * math.cos(phi)
    u = stage_x * math.cos(theta) - z * math.sin(theta)
    return np.column_stack([u + pose.shift_u_nm, stage_y + pose.shift_v_nm])


def _add_sphere(path_vu: Image, centre_uv_nm: NDArray[np.float64], radius_nm: float) -> None:
    """Add the chord length 2 sqrt(R^2 - rho^2) of a sphere, averaged over each pixel."""
    rows, columns = path_vu.shape
    centre_v = centre_uv_nm[1] / PIXEL_NM + (rows - 1) / 2
    centre_u = centre_uv_nm[0] / PIXEL_NM + (columns - 1) / 2
    reach = radius_nm / PIXEL_NM + 1
    first_v, last_v = max(math.floor(centre_v - reach), 0), min(math.ceil(centre_v + reach), rows)
    first_u = max(math.floor(centre_u - reach), 0)
    last_u = min(math.ceil(centre_u + reach), columns)
    if first_v >= last_v or first_u >= last_u:
        return
    parts = (np.arange(SPHERE_SUBSAMPLES) + 0.5) / SPHERE_SUBSAMPLES - 0.5
    v = (np.arange(first_v, last_v)[:, None] + parts - centre_v) * PIXEL_NM
    u = (np.arange(first_u, last_u)[:, None] + parts - centre_u) * PIXEL_NM
    square = radius_nm**2 - v[:, None, :, None] ** 2 - u[None, :, None, :] ** 2
    chord = 2 * np.sqrt(np.maximum(square, 0)).mean(axis=(2, 3))
    path_vu[first_v:last_v, first_u:last_u] += chord.astype(np.float32)


class Sample:
    """A texture with fiducials on it; `seed` scatters the fiducials."""

    def __init__(self, texture: Texture, seed: int) -> None:
        """Take the texture and place the spheres."""
        self.texture = texture
        self.fiducials_nm = fiducial_positions_nm(seed, texture.top_nm + FIDUCIAL_RADIUS_NM)

    def view(self, pose: Pose, shape_vu: tuple[int, int]) -> View:
        """Integrate along every ray of an image of `shape_vu` pixels about the detector's axis.

        Raises ValueError for a tilt of 90 deg or more: no ray leaves such a film.
        """
        if abs(pose.theta_deg) >= 90:
            raise ValueError(f"tilt {pose.theta_deg} deg: expected less than 90 deg")
        theta, phi = math.radians(pose.theta_deg), math.radians(pose.azimuth_deg)
        dichroic_vu = np.zeros(shape_vu, np.float32)
        dichroic_path_vu = np.zeros(shape_vu, np.float32)
        path_nm: dict[str, Any] = {}
        step_nm = PIXEL_NM / SUBSAMPLES
        integrate = _integrator(self.texture.field)
        for layer in self.texture.layers:
            if layer.material != DICHROIC:
                path = layer.thickness_nm / math.cos(theta)
                path_nm[layer.material] = path_nm.get(layer.material, 0.0) + path
                continue
            heights_nm = layer_heights_nm(layer.low_nm, layer.high_nm, STEP_NM)
            integrate(
                dichroic_vu,
                dichroic_path_vu,
                heights_nm,
                layer.thickness_nm / len(heights_nm),
                -(shape_vu[1] * SUBSAMPLES - 1) / 2 * step_nm - pose.shift_u_nm,
                -(shape_vu[0] * SUBSAMPLES - 1) / 2 * step_nm - pose.shift_v_nm,
                step_nm,
                SUBSAMPLES,
                math.sin(theta),
                math.cos(theta),
                math.sin(phi),
                math.cos(phi),
            )
        path_nm[DICHROIC] = dichroic_path_vu
        gold_vu = np.zeros(shape_vu, np.float32)
        for centre_uv_nm in project_points(self.fiducials_nm, pose):
            _add_sphere(gold_vu, centre_uv_nm, FIDUCIAL_RADIUS_NM)
        path_nm["Au"] = gold_vu
        return View(dichroic_vu, path_nm)

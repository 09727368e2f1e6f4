"""The sample: layers, texture, fiducials, and their exact line integrals in any pose.

Frames and signs are those of the design: sample frame (x, y, z) with z the film normal; mounted
with azimuth phi, r' = Rz(phi) r, and tilted by theta about y', so that a point has, across and
along the tilt axis and along the beam (towards the camera),

    u_t = x' cos theta - z' sin theta,   v_t = y',   w_t = x' sin theta + z' cos theta.

A tilt axis that leans towards the camera by lambda turns that about u,

    u_0 = u_t,   v_0 = v_t cos lambda - w_t sin lambda,   w_0 = v_t sin lambda + w_t cos lambda,

and one that is inclined by iota turns the image, counter-clockwise from u towards v:

    u = u_0 cos iota - v_0 sin iota,   v = u_0 sin iota + v_0 cos iota,

to which the shift of the image is added. The beam w_0 is, in the stage frame,

    k' = (sin theta cos lambda, sin lambda, cos theta cos lambda),

and the ray of a detector point passes the height z at

    x' = (u_0 + z sin theta) / cos theta,
    y' = v_0 / cos lambda + (z + u_0 sin theta) tan lambda / cos theta,
    dl = dz / (cos theta cos lambda).

Integrals over a layer are sums over midpoints in z, at most the texture's `step_nm` apart, on rays
that are `SUBSAMPLES` times finer than the pixels in u and in v. Nothing here is shared with the
reconstruction.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mistral_txm.simulated_beamline import settings
from mistral_txm.simulated_beamline.materials import MAGNETIC
from mistral_txm.simulated_beamline.textures import Grid, Texture
from mistral_txm.simulated_beamline.textures._compiled import compiled, field_of_texture

PIXEL_NM = 10.5
"""Effective pixel of the camera, in the sample [Hierro-Rodriguez et al. 2020]."""
SUBSAMPLES = 2
SPHERE_SUBSAMPLES = 4

NEAR_FIDUCIALS_NM = ((-980.0, -870.0), (1010.0, 760.0), (160.0, 1090.0))
"""Where spheres lie in every sample, so that the smallest field of view has three."""
FIDUCIAL_FIELD_NM = 24000.0
"""Side of the square that carries fiducials: more than the largest tilted field of view sees."""
FREE_OF_FIDUCIALS_NM = 1600.0
"""Half side of the square in the middle that is kept for the near spheres and the texture."""

Image = NDArray[np.float32]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """How the sample stands in the beam: angles, and the shift of its image.

    `shift_u_nm` and `shift_v_nm` move the image along the axes of the detector; `depth_nm` is the
    distance of the sample's origin from the plane in focus, along the beam. `inclination_deg` turns
    the image from u towards v, `lean_deg` leans the tilt axis towards the camera.
    """

    theta_deg: float
    azimuth_deg: float
    shift_u_nm: float = 0.0
    shift_v_nm: float = 0.0
    depth_nm: float = 0.0
    inclination_deg: float = 0.0
    lean_deg: float = 0.0


@dataclass(frozen=True)
class View:
    """The line integrals of one pose, in nm: how much of each material a ray meets.

    `dichroic_nm` is the integral of m . k over each material that was asked for, an image [v, u];
    `path_nm` the path through each material, an image where it varies over the field of view and a
    number where it does not.
    """

    dichroic_nm: dict[str, Image]
    path_nm: dict[str, Image | float]


def stage_to_detector(pose: Pose) -> Points:
    """Return the matrix that turns (x', y', z') into (u, v, w), without the shift.

    The last row is the direction of the beam in the stage frame.
    """
    theta, lean, inclination = (
        math.radians(angle) for angle in (pose.theta_deg, pose.lean_deg, pose.inclination_deg)
    )
    tilted = np.array(
        [
            [math.cos(theta), 0, -math.sin(theta)],
            [0, 1, 0],
            [math.sin(theta), 0, math.cos(theta)],
        ]
    )
    leant = np.array(
        [[1, 0, 0], [0, math.cos(lean), -math.sin(lean)], [0, math.sin(lean), math.cos(lean)]]
    )
    matrix: Points = _about_third_axis(inclination) @ leant @ tilted
    return matrix


def _about_third_axis(angle: float) -> Points:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def project_points(points_nm: Points, pose: Pose) -> Points:
    """Return (u, v) in nm on the detector of points (n, 3) given in the sample frame.

    A point on the normal moves against u where the tilt is positive:

    >>> project_points(np.array([[0.0, 0.0, 100.0]]), Pose(30.0, 0.0)).round(6)
    array([[-50.,   0.]])
    """
    to_detector = stage_to_detector(pose) @ _about_third_axis(math.radians(pose.azimuth_deg))
    shift_nm = np.array([pose.shift_u_nm, pose.shift_v_nm])
    projected: Points = points_nm @ to_detector[:2].T + shift_nm
    return projected


def _integrate(
    dichroic_vu: Image,
    path_vu: Image,
    values: NDArray[np.float32],
    voxel_nm: float,
    heights_nm: NDArray[np.float32],
    weight_nm: float,
    subsamples: int,
    origin_xy: NDArray[np.float64],
    per_u_xy: NDArray[np.float64],
    per_v_xy: NDArray[np.float64],
    per_z_xy: NDArray[np.float64],
    beam_xyz: NDArray[np.float32],
) -> None:
    """Sum over one layer."""
    rows, columns = dichroic_vu.shape
    k_x, k_y, k_z = beam_xyz
    fine = columns * subsamples
    sum_dichroic = np.empty(fine, np.float32)
    sum_path = np.empty(fine, np.float32)
    along_x, along_y = np.float32(per_u_xy[0]), np.float32(per_u_xy[1])
    scale = np.float32(weight_nm / (subsamples * subsamples))
    for row in range(rows):
        sum_dichroic[:] = 0
        sum_path[:] = 0
        for part in range(subsamples):
            line = row * subsamples + part
            for z_nm in heights_nm:
                start_x = np.float32(origin_xy[0] + line * per_v_xy[0] + z_nm * per_z_xy[0])
                start_y = np.float32(origin_xy[1] + line * per_v_xy[1] + z_nm * per_z_xy[1])
                for column in range(fine):
                    along = np.float32(column)
                    m_x, m_y, m_z, density = field_of_texture(
                        start_x + along * along_x,
                        start_y + along * along_y,
                        z_nm,
                        values,
                        voxel_nm,
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


@dataclass(frozen=True)
class _Rays:
    """Where the fine rays of an image pass the sample: (x, y) is linear in u, v and z."""

    origin_xy: Points
    per_u_xy: Points
    per_v_xy: Points
    per_z_xy: Points
    beam_xyz: NDArray[np.float32]

    @property
    def stretch(self) -> float:
        """Path through a layer, over its thickness."""
        return 1 / float(self.beam_xyz[2])


def _rays(pose: Pose, shape_vu: tuple[int, int]) -> _Rays:
    to_detector = stage_to_detector(pose) @ _about_third_axis(math.radians(pose.azimuth_deg))
    # (u, v) = a (x, y) + b z, solved for (x, y).
    to_xy: Points = np.linalg.inv(to_detector[:2, :2]).astype(np.float64)
    step_nm = PIXEL_NM / SUBSAMPLES
    first_uv_nm = np.array(
        [
            -(shape_vu[1] * SUBSAMPLES - 1) / 2 * step_nm - pose.shift_u_nm,
            -(shape_vu[0] * SUBSAMPLES - 1) / 2 * step_nm - pose.shift_v_nm,
        ]
    )
    return _Rays(
        origin_xy=to_xy @ first_uv_nm,
        per_u_xy=to_xy[:, 0] * step_nm,
        per_v_xy=to_xy[:, 1] * step_nm,
        per_z_xy=-to_xy @ to_detector[:2, 2],
        beam_xyz=to_detector[2].astype(np.float32),
    )


def layer_heights_nm(low_nm: float, high_nm: float, step_nm: float) -> NDArray[np.float32]:
    """Return the midpoints of equal slices, at most `step_nm` thick, of the slab low..high."""
    count = max(1, math.ceil((high_nm - low_nm) / step_nm - 1e-9))
    edges = np.linspace(low_nm, high_nm, count + 1)
    return ((edges[1:] + edges[:-1]) / 2).astype(np.float32)


def scattered_spheres(texture: Texture, seed: int, fiducials: settings.Fiducials) -> Points:
    """Scatter Au spheres over both surfaces; returns (n, 4): x, y, z of the centre and radius, nm.

    Each touches the surface on which it lies.
    """
    random = np.random.default_rng([seed, 0xF1D])
    count = round(fiducials.per_um2 * (FIDUCIAL_FIELD_NM / 1000) ** 2)
    lateral = random.uniform(-FIDUCIAL_FIELD_NM / 2, FIDUCIAL_FIELD_NM / 2, (count, 2))
    lateral = lateral[np.abs(lateral).max(axis=1) > FREE_OF_FIDUCIALS_NM]
    lateral = np.concatenate([np.array(NEAR_FIDUCIALS_NM), lateral])
    spread = fiducials.radius_spread * random.uniform(-1, 1, len(lateral))
    radius_nm = fiducials.radius_nm * (1 + spread)
    below = random.uniform(size=len(lateral)) < fiducials.below_fraction
    bottom_nm, top_nm = texture.surfaces_nm(lateral)
    z_nm = np.where(below, bottom_nm - radius_nm, top_nm + radius_nm)
    spheres = np.column_stack([lateral, z_nm, radius_nm])
    return spheres[np.isfinite(z_nm)]


def _add_sphere(path_vu: Image, centre_uv_nm: Points, radius_nm: float) -> None:
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
    """A texture with fiducials on both surfaces; `seed` scatters them."""

    def __init__(self, texture: Texture, seed: int, fiducials: settings.Fiducials) -> None:
        """Take the texture and place the spheres."""
        self.texture = texture
        self._spheres_nm = scattered_spheres(texture, seed, fiducials)
        distance_nm = np.hypot(self._spheres_nm[:, 0], self._spheres_nm[:, 1])
        self._spheres_nm = self._spheres_nm[np.argsort(distance_nm)]
        random = np.random.default_rng([seed, 0x2F1D])
        self._turns = random.uniform(size=len(self._spheres_nm))

    def spheres(self, lost: int = 0, merged: int = 0) -> Points:
        """Return the fiducials (n, 4): x, y, z of the centre and radius in nm; nearest first.

        `lost` of those nearest to the middle fell off; `merged` of the nearest that are left got
        another one of their size, which touches them, on the same surface.
        """
        left = self._spheres_nm[max(lost, 0) :]
        added = left[: max(merged, 0)].copy()
        angle = 2 * np.pi * self._turns[max(lost, 0) :][: len(added)]
        added[:, 0] += 2 * added[:, 3] * np.cos(angle)
        added[:, 1] += 2 * added[:, 3] * np.sin(angle)
        return np.concatenate([left, added])

    def view(
        self,
        pose: Pose,
        shape_vu: tuple[int, int],
        magnetic: frozenset[str],
        spheres_nm: Points,
    ) -> View:
        """Integrate along every ray of an image of `shape_vu` pixels about the detector's axis.

        `magnetic` names the materials whose dichroic integral is asked for; the others cost nothing
        where they are continuous. Raises ValueError for a tilt or lean of 90 deg or more: no ray
        leaves such a film.
        """
        if abs(pose.theta_deg) >= 90 or abs(pose.lean_deg) >= 90:
            raise ValueError(
                f"tilt {pose.theta_deg} deg, lean {pose.lean_deg} deg: expected less than 90 deg"
            )
        rays = _rays(pose, shape_vu)
        grid = self.texture.grid or Grid()
        integrate = compiled(
            _integrate, self.texture, fastmath=True, nogil=True, error_model="numpy"
        )
        dichroic_nm: dict[str, Image] = {}
        path_nm: dict[str, Image | float] = {}
        for layer in self.texture.layers:
            material = layer.material
            varies = material in MAGNETIC and not self.texture.continuous
            if material not in magnetic & MAGNETIC and not varies:
                path_nm[material] = path_nm.get(material, 0.0) + rays.stretch * layer.thickness_nm
                continue
            if material not in dichroic_nm:
                dichroic_nm[material] = np.zeros(shape_vu, np.float32)
                path_nm[material] = np.zeros(shape_vu, np.float32)
            heights_nm = layer_heights_nm(layer.low_nm, layer.high_nm, self.texture.step_nm)
            integrate(
                dichroic_nm[material],
                path_nm[material],
                grid.values,
                grid.voxel_nm,
                heights_nm,
                rays.stretch * layer.thickness_nm / len(heights_nm),
                SUBSAMPLES,
                rays.origin_xy,
                rays.per_u_xy,
                rays.per_v_xy,
                rays.per_z_xy,
                rays.beam_xyz,
            )
        gold_vu = np.zeros(shape_vu, np.float32)
        centres_uv_nm = project_points(spheres_nm[:, :3], pose)
        for centre_uv_nm, radius_nm in zip(centres_uv_nm, spheres_nm[:, 3], strict=True):
            _add_sphere(gold_vu, centre_uv_nm, float(radius_nm))
        path_nm["Au"] = gold_vu
        kept = {name: image for name, image in dichroic_nm.items() if name in magnetic}
        return View(kept, path_nm)

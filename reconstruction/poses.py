"""How every view of every series stood: angles, shifts and scale, and what they make of points and images.

The frames and the projection are those of module `alignment`, which finds the poses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.geometry import InputError

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeriesPose:
    """How one series stood, with standard deviations.

    phi_deg, tilt_zero_deg, roll_deg: of the mounting. theta_deg_t: true tilts, motor + tilt zero, shape (views,).
    shift_vu_nm_t: where the sample's origin falls in each view, from the image's centre, shape (views, 2), as
    `views.TiltSeries` takes it; NaN where no fiducial was seen. scale_t: magnification, shape (views,).
    """

    phi_deg: float
    std_phi_deg: float
    tilt_zero_deg: float
    std_tilt_zero_deg: float
    roll_deg: float
    std_roll_deg: float
    theta_deg_t: Float64
    shift_vu_nm_t: Float64
    std_shift_vu_nm_t: Float64
    scale_t: Float64
    residual_rms_nm_t: Float64


@dataclass(frozen=True)
class Alignment:
    """Poses of all views of all series, the spheres, and how well they agree.

    sphere_xyz_nm: in the sample frame, shape (spheres, 3), with std_xyz_nm. residual_rms_nm: of the centres, per
    coordinate, outliers left out; residual_rms_pixels: the same. outliers: observed centres more than `OUTLIER_SIGMA`
    standard deviations off. std_factor: by how much the residuals exceed the centres' own standard deviations.
    """

    series: tuple[SeriesPose, ...]
    inclination_deg: float
    std_inclination_deg: float
    lean_deg: float
    std_lean_deg: float
    sphere_xyz_nm: Float64
    std_xyz_nm: Float64
    residual_rms_nm: float
    residual_rms_pixels: float
    observations: int
    outliers: int
    std_factor: float

    def projection_t(self, number: int) -> Float64:
        """Matrices that take sample coordinates to (v, u) but for the shift, shape (views, 2, 3), of one series."""
        pose = self.series[number]
        return projections(
            pose.theta_deg_t,
            pose.phi_deg,
            pose.roll_deg,
            self.inclination_deg,
            self.lean_deg,
            pose.scale_t,
        )

    def projected_vu_nm(self, number: int) -> Float64:
        """Where the spheres fall in the views of one series, shape (views, spheres, 2), also unseen ones: to mask."""
        pose = self.series[number]
        return np.asarray(
            np.einsum("tij,bj->tbi", self.projection_t(number), self.sphere_xyz_nm)
            + pose.shift_vu_nm_t[:, None]
        )

    def warp_t(self, number: int) -> Float64:
        """Matrices from where the film's points should fall to where they do, shape (views, 2, 2), in (v, u).

        A point of the film's mid-plane z = 0 should fall on ``v0 = y'``, ``u0 = x' cos(theta)``; it falls on
        ``warp (v0, u0) + shift``. Inclination, lean, roll and scale; the unit matrix where they are none. Beside the
        plane this errs by lean times z / cos(theta), less than a nm in a film.
        """
        pose = self.series[number]
        return warps(self.projection_t(number), pose.theta_deg_t, pose.phi_deg)

    def with_origin(self, xyz_nm: npt.ArrayLike) -> Alignment:
        """Return the same poses with the sample's origin moved to a point of the present sample frame, nm.

        With spheres of radius R on a film whose surface is at ``top_nm``, the film's middle is at
        ``z = mean(z of these spheres) - R - top_nm``.
        """
        origin = np.asarray(xyz_nm, dtype=np.float64)
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise InputError(f"origin: {xyz_nm!r} is not a point; give finite x, y, z in nm")
        moved = tuple(
            replace(pose, shift_vu_nm_t=pose.shift_vu_nm_t + self.projection_t(number) @ origin)
            for number, pose in enumerate(self.series)
        )
        return replace(self, series=moved, sphere_xyz_nm=self.sphere_xyz_nm - origin)


def turn(axis: int, angle: float | Float64) -> Float64:
    """Right-handed rotations about a coordinate axis, shape (..., 3, 3); angle in rad."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((*np.shape(angle), 3, 3))
    matrix[..., axis, axis] = 1
    matrix[..., i, i] = matrix[..., j, j] = c
    matrix[..., i, j], matrix[..., j, i] = -s, s
    return matrix


def turn_slope(axis: int, angle: float | Float64) -> Float64:
    """Derivative of `_turn` by its angle."""
    slope = turn(axis, np.asarray(angle) + np.pi / 2)
    slope[..., axis, axis] = 0
    return slope


TO_VU = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


def projections(
    theta_deg_t: Float64,
    phi_deg: float,
    roll_deg: float,
    inclination_deg: float,
    lean_deg: float,
    scale_t: Float64,
) -> Float64:
    """Matrices (views, 2, 3) of the module's docstring, rows v and u.

    With tilt zero a rotation by -theta about y' in the right-handed sense: x'' cos - z'' sin.
    """
    detector = TO_VU @ turn(2, np.deg2rad(inclination_deg)) @ turn(0, np.deg2rad(lean_deg))
    mount = turn(0, np.deg2rad(roll_deg)) @ turn(2, np.deg2rad(phi_deg))
    return np.asarray(
        scale_t[:, None, None] * (detector @ turn(1, -np.deg2rad(theta_deg_t)) @ mount)
    )


def warps(projection_t: Float64, theta_deg_t: Float64, phi_deg: float) -> Float64:
    """Matrices (views, 2, 2) from where points of the mid-plane should fall to where projections lay them."""
    nominal = projections(theta_deg_t, phi_deg, 0.0, 0.0, 0.0, np.ones(len(theta_deg_t)))
    return np.asarray(projection_t[:, :, :2] @ np.linalg.inv(nominal[:, :, :2]))

"""The one place where frames, angles and signs of the reconstruction are defined.

**Sample frame** ``(x, y, z)``: right-handed, z along the film normal, origin in the middle of the film
at the centre of the field of view, lengths in nm. A volume is an array ``[z, y, x]``, a vector field
``[component, z, y, x]`` with the components in the order x, y, z. Voxel i of n lies at
``(i - (n - 1) / 2) * voxel_nm``.

**Stage frame** ``(x', y', z')``: the sample is turned by hand, outside the microscope, by ``+phi`` about z
before it is mounted: ``r' = Rz(phi) r``, that is ``x' = x cos(phi) - y sin(phi)``,
``y' = x sin(phi) + y cos(phi)``, ``z' = z``.

**Tilt** ``theta`` about the vertical axis y'. The beam runs in the stage frame along
``k' = (sin(theta), 0, cos(theta))``, so in the sample frame along
``k = (sin(theta) cos(phi), -sin(theta) sin(phi), cos(theta))``.

**Detector**: u is horizontal (perpendicular to the tilt axis), v vertical (along it). A point falls on
``u = x' cos(theta) - z' sin(theta)``, ``v = y'``. Images are arrays ``[v, u]``, stacks ``[view, v, u]``;
pixel i of n lies at ``(i - (n - 1) / 2) * pixel_nm``, and a pixel is as wide as a voxel.

**Dichroic signal** of a ray: ``S = integral of delta * (m . k) dl``, with the unit magnetization m and
delta in 1/nm. With the helicities' labels swapped all of m changes its sign.

**Sheared frame** ``r0``: the ray that passes ``r0 = (x0, y0)`` at z = 0 passes the layer z at
``r0 + z t e`` with ``t = tan(theta)`` and ``e = (cos(phi), -sin(phi))``; it falls on
``u = x0' cos(theta)``, ``v = y0'``. So a view resampled to r0 is a sum of shifted layers,

    ``p(r0) = S = sum over z of dz * delta * w . m(r0 + z t e, z)``, ``w = k / cos(theta)``,

with one and the same shift for a whole layer, at any azimuth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

MAX_TILT_DEG = 80.0
"""Steeper views are refused: the sheared model divides by cos(theta)."""

ZONE_PLATE_CUTOFF_PER_NM = 1.0 / 25.0
"""Highest frequency that an incoherent objective with an outermost zone of 25 nm transmits, in cycles per nm
(2 NA / wavelength = 1 / zone width)."""


class InputError(ValueError):
    """What was handed in cannot be used; the message says what, where, what was expected and what to do."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels are: ``shape_zyx`` voxels of ``voxel_nm``, centred on the sample frame's origin.

    Raises:
        InputError: for a shape that is not three positive integers or a voxel that has no size.

    >>> Grid((3, 1, 1), 10.0).z_nm
    array([-10.,   0.,  10.])
    """

    shape_zyx: tuple[int, int, int]
    voxel_nm: float

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        if len(self.shape_zyx) != 3 or any(int(n) != n or n < 1 for n in self.shape_zyx):
            raise InputError(
                f"grid: shape {self.shape_zyx} is not three positive integers (z, y, x); give e.g. (80, 400, 400)"
            )
        if not (np.isfinite(self.voxel_nm) and self.voxel_nm > 0):
            raise InputError(
                f"grid: a voxel of {self.voxel_nm} nm; give a positive length, e.g. 10.5"
            )

    def _centres_nm(self, axis: int) -> Float64:
        n = self.shape_zyx[axis]
        return np.asarray((np.arange(n) - (n - 1) / 2) * self.voxel_nm, dtype=np.float64)

    @property
    def z_nm(self) -> Float64:
        """Heights of the layers' centres, shape (nz,), nm."""
        return self._centres_nm(0)

    @property
    def y_nm(self) -> Float64:
        """Centres along y, shape (ny,), nm."""
        return self._centres_nm(1)

    @property
    def x_nm(self) -> Float64:
        """Centres along x, shape (nx,), nm."""
        return self._centres_nm(2)


def to_stage_frame(r_3: npt.ArrayLike, phi_deg: float) -> Float64:
    """Turn vectors of the sample frame by the azimuth into the stage frame, ``r' = Rz(phi) r``.

    Args:
        r_3: last axis x, y, z.
        phi_deg: azimuth, deg.

    A point on the sample's x axis, turned by +90 deg, lies on y':

    >>> to_stage_frame([1.0, 0.0, 0.0], 90.0).round(12) + 0.0
    array([0., 1., 0.])
    """
    r = np.asarray(r_3, dtype=np.float64)
    c, s = np.cos(np.deg2rad(phi_deg)), np.sin(np.deg2rad(phi_deg))
    return np.stack(
        [c * r[..., 0] - s * r[..., 1], s * r[..., 0] + c * r[..., 1], r[..., 2]], axis=-1
    )


@dataclass(frozen=True)
class Mount:
    """How a series was mounted and turned: ``r'' = Rx(roll) Rz(phi) r``, then tilted about an axis that may lean.

    Args:
        phi_deg: azimuth, by which the sample was turned about its normal.
        roll_deg: by which it was then turned about x': the second mounting of a dual-axis measurement.
        lean_deg: by which the tilt axis is tipped towards the camera: laminography. With ``w = x'' sin(theta) + z''
            cos(theta)`` a point falls on ``v = y'' cos(lean) - w sin(lean)``, and the beam runs along growing
            ``w cos(lean) + y'' sin(lean)``; u does not change.

    All in deg, right-handed.
    """

    phi_deg: float
    roll_deg: float = 0.0
    lean_deg: float = 0.0

    def basis(self, theta_deg: npt.ArrayLike) -> Float64:
        """Unit vectors u, v and k in the sample frame, rows of shape (..., 3, 3), at tilts of shape (...), deg.

        A sample rolled by 30 deg is seen, untilted, from 30 deg beside its normal, towards its own y axis:

        >>> Mount(0.0, roll_deg=30.0).basis(0.0)[2].round(3) + 0.0
        array([0.   , 0.5  , 0.866])
        """
        theta = np.deg2rad(np.asarray(theta_deg, dtype=np.float64))
        zero, one = np.zeros_like(theta), np.ones_like(theta)
        s, c = np.sin(theta), np.cos(theta)
        along_u = np.stack([c, zero, -s], axis=-1)
        axis = np.stack([zero, one, zero], axis=-1)
        along_w = np.stack([s, zero, c], axis=-1)
        lean = np.deg2rad(self.lean_deg)
        along_v = np.cos(lean) * axis - np.sin(lean) * along_w
        along_k = np.cos(lean) * along_w + np.sin(lean) * axis
        roll, phi = np.deg2rad(self.roll_deg), np.deg2rad(self.phi_deg)
        turn_x = np.array(
            [[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]]
        )
        turn_z = np.array(
            [[np.cos(phi), -np.sin(phi), 0], [np.sin(phi), np.cos(phi), 0], [0, 0, 1]]
        )
        return np.asarray(np.stack([along_u, along_v, along_k], axis=-2) @ turn_x @ turn_z)


def beam_direction(theta_deg: npt.ArrayLike, phi_deg: npt.ArrayLike) -> Float64:
    """Unit vector k along the beam in the sample frame, shape (..., 3).

    ``k = (sin(theta) cos(phi), -sin(theta) sin(phi), cos(theta))``

    >>> beam_direction(90.0, 0.0).round(12) + 0.0
    array([1., 0., 0.])
    >>> beam_direction(90.0, 90.0).round(12) + 0.0
    array([ 0., -1.,  0.])
    """
    theta, phi = np.broadcast_arrays(np.deg2rad(theta_deg), np.deg2rad(phi_deg))
    return np.stack(
        [np.sin(theta) * np.cos(phi), -np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
    )


def detector_basis(theta_deg: npt.ArrayLike, phi_deg: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Unit vectors along the detector's u and v in the sample frame, each of shape (..., 3).

    A point r of the sample falls on ``(r . u, r . v)``; ``u x v = k``, the beam runs away from someone who
    looks at the image.

    >>> u, v = detector_basis(30.0, 0.0)
    >>> np.allclose(np.cross(u, v), beam_direction(30.0, 0.0))
    True
    """
    theta, phi = np.broadcast_arrays(np.deg2rad(theta_deg), np.deg2rad(phi_deg))
    u = np.stack(
        [np.cos(theta) * np.cos(phi), -np.cos(theta) * np.sin(phi), -np.sin(theta)], axis=-1
    )
    v = np.stack([np.sin(phi), np.cos(phi), np.zeros_like(phi)], axis=-1)
    return u, v


def film_direction(mount: Mount, theta_deg: float) -> tuple[float, float, int]:
    """Tilt and azimuth, deg, at which an ordinary mounting sees along the same line, and which way along it.

    The sheared model of a film knows no more of a view than the line ``k / k_z``; seen from behind (``k_z < 0``)
    the dichroic signal has the other sign.

    Returns:
        ``theta`` between -90 and 90 deg, ``phi``, and +1 or -1.

    >>> film_direction(Mount(0.0), 210.0)
    (30.0, 0.0, -1)
    >>> [round(x, 3) for x in film_direction(Mount(0.0, roll_deg=30.0), 0.0)]
    [30.0, -90.0, 1]
    """
    k = mount.basis(theta_deg)[2]
    side = 1 if k[2] >= 0 else -1
    if mount.roll_deg == 0 and mount.lean_deg == 0:
        turns = round(theta_deg / 180.0)
        return theta_deg - 180.0 * turns, mount.phi_deg, side
    k = side * k
    theta = float(np.rad2deg(np.arctan2(np.hypot(k[0], k[1]), k[2])))
    return theta, float(np.rad2deg(np.arctan2(-k[1], k[0]))), side

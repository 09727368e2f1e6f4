"""Solid angles of lattice squares, and where the direction of m is defined: the base of all
charges.

See `topology` for the definitions. Axis numbers are 0, 1, 2 for x, y, z; the axes (a, a + 1, a +
2) are right-handed for every a, modulo 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

MINIMUM_NORM_FRACTION = 0.05
"""Below this fraction of the field's typical norm a direction counts as undefined."""


Bool = NDArray[np.bool_]
Float = NDArray[np.float64]
Box = tuple[tuple[int, int], ...]
"""First and last voxel index along z, y and x."""

_F = TypeVar("_F", bound=Callable[..., Any])


class UndefinedDirectionError(ValueError):
    """The direction of m is needed where |m| is too small, or where neighbours are opposite."""


def compiled(**options: Any) -> Callable[[_F], _F]:
    """Return numba's njit with a cache, seen by the type checker as leaving the signature alone."""
    return cast("Callable[[_F], _F]", numba.njit(cache=True, nogil=True, **options))


@compiled(inline="always")
def _solid_angle(
    ax: float,
    ay: float,
    az: float,
    bx: float,
    by: float,
    bz: float,
    cx: float,
    cy: float,
    cz: float,
) -> float:
    """Return the signed solid angle (sr) of three vectors of any length.

    nan where it has two values: two directions opposite, or all three around a great circle.
    """
    triple = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    a = np.sqrt(ax * ax + ay * ay + az * az)
    b = np.sqrt(bx * bx + by * by + bz * bz)
    c = np.sqrt(cx * cx + cy * cy + cz * cz)
    rest = (
        a * b * c
        + (ax * bx + ay * by + az * bz) * c
        + (bx * cx + by * cy + bz * cz) * a
        + (cx * ax + cy * ay + cz * az) * b
    )
    if rest <= 1e-9 * a * b * c and abs(triple) <= 1e-9 * a * b * c:
        return np.nan
    return float(2.0 * np.arctan2(triple, rest))


@compiled()
def square_angle(m_czyx: NDArray[Any], axis: int, z: int, y: int, x: int) -> float:
    """Return the solid angle (sr) of the square with normal `axis` and lowest corner (z, y, x)."""
    if axis == 0:
        zb, yb, xb, zc, yc, xc = z, y + 1, x, z + 1, y, x
    elif axis == 1:
        zb, yb, xb, zc, yc, xc = z + 1, y, x, z, y, x + 1
    else:
        zb, yb, xb, zc, yc, xc = z, y, x + 1, z, y + 1, x
    zd, yd, xd = zb + zc - z, yb + yc - y, xb + xc - x
    ax = np.float64(m_czyx[0, z, y, x])
    ay = np.float64(m_czyx[1, z, y, x])
    az = np.float64(m_czyx[2, z, y, x])
    dx = np.float64(m_czyx[0, zd, yd, xd])
    dy = np.float64(m_czyx[1, zd, yd, xd])
    dz = np.float64(m_czyx[2, zd, yd, xd])
    bx = np.float64(m_czyx[0, zb, yb, xb])
    by = np.float64(m_czyx[1, zb, yb, xb])
    bz = np.float64(m_czyx[2, zb, yb, xb])
    cx = np.float64(m_czyx[0, zc, yc, xc])
    cy = np.float64(m_czyx[1, zc, yc, xc])
    cz = np.float64(m_czyx[2, zc, yc, xc])
    return _solid_angle(ax, ay, az, bx, by, bz, dx, dy, dz) + _solid_angle(
        ax, ay, az, dx, dy, dz, cx, cy, cz
    )


@compiled()
def _region_angle(
    m_czyx: NDArray[Any], defined_zyx: Bool, cells_zyx: Bool, z0: int, y0: int, x0: int
) -> tuple[float, int]:
    """Return the outward solid angle (sr) of a set of cells, and its squares with an undefined
    corner.

    `cells_zyx` is a block of cells whose first one is (z0, y0, x0) of the volume.
    """
    nz, ny, nx = cells_zyx.shape
    total = 0.0
    undefined = 0
    for k in range(nz):
        for j in range(ny):
            for i in range(nx):
                if not cells_zyx[k, j, i]:
                    continue
                for axis in range(3):
                    dx, dy, dz = int(axis == 0), int(axis == 1), int(axis == 2)
                    for up in range(2):
                        kk, jj, ii = (
                            k + (2 * up - 1) * dz,
                            j + (2 * up - 1) * dy,
                            i + (2 * up - 1) * dx,
                        )
                        if 0 <= kk < nz and 0 <= jj < ny and 0 <= ii < nx and cells_zyx[kk, jj, ii]:
                            continue
                        z, y, x = z0 + k + up * dz, y0 + j + up * dy, x0 + i + up * dx
                        whole = True
                        for s in range(2 - dz):
                            for t in range(2 - dy):
                                for r in range(2 - dx):
                                    whole = whole and defined_zyx[z + s, y + t, x + r]
                        if whole:
                            total += (2 * up - 1) * square_angle(m_czyx, axis, z, y, x)
                        else:
                            undefined += 1
    return total, undefined


@compiled(parallel=True)
def cell_charges(m_czyx: NDArray[Any], defined_zyx: Bool) -> NDArray[np.int8]:
    """Return the charge of every cell, 0 where it or one of its eight corners is undefined.

    A cell whose eight directions lie in one open half-space has charge 0; most do, and need no
    solid angle.
    """
    nz, ny, nx = defined_zyx.shape
    charges = np.zeros((nz - 1, ny - 1, nx - 1), dtype=np.int8)
    for k_unsigned in numba.prange(nz - 1):
        k = int(np.int64(k_unsigned))  # numba counts in unsigned integers, which mix badly
        for j in range(ny - 1):
            for i in range(nx - 1):
                sx = sy = sz = 0.0
                whole = True
                for corner in range(8):
                    z, y, x = k + corner // 4, j + (corner // 2) % 2, i + corner % 2
                    if not defined_zyx[z, y, x]:
                        whole = False
                        break
                    sx += m_czyx[0, z, y, x]
                    sy += m_czyx[1, z, y, x]
                    sz += m_czyx[2, z, y, x]
                if not whole:
                    continue
                one_sided = True
                for corner in range(8):
                    z, y, x = k + corner // 4, j + (corner // 2) % 2, i + corner % 2
                    along = (
                        sx * m_czyx[0, z, y, x] + sy * m_czyx[1, z, y, x] + sz * m_czyx[2, z, y, x]
                    )
                    if along <= 0.0:
                        one_sided = False
                        break
                if one_sided:
                    continue
                angle = 0.0
                for axis in range(3):
                    angle += square_angle(
                        m_czyx, axis, k + int(axis == 2), j + int(axis == 1), i + int(axis == 0)
                    ) - square_angle(m_czyx, axis, k, j, i)
                if not np.isnan(angle):
                    charges[k, j, i] = np.int8(np.rint(angle / (4.0 * np.pi)))
    return charges


@compiled()
def plane_angles(m_cyx: NDArray[Any], defined_yx: Bool) -> Float:
    """Return the solid angle (sr) of each square of a slice, nan where it is undefined."""
    ny, nx = defined_yx.shape
    m_czyx = m_cyx.reshape((3, 1, ny, nx))
    angles = np.full((ny - 1, nx - 1), np.nan)
    for j in range(ny - 1):
        for i in range(nx - 1):
            if (
                defined_yx[j, i]
                and defined_yx[j, i + 1]
                and defined_yx[j + 1, i]
                and defined_yx[j + 1, i + 1]
            ):
                angles[j, i] = square_angle(m_czyx, 2, 0, j, i)
    return angles


@compiled(parallel=True)
def all_squares(m_czyx: NDArray[Any], axis: int, angle_zyx: Float) -> None:
    """Fill `angle_zyx` with the solid angle (sr) of the square that starts at each voxel."""
    for z_unsigned in numba.prange(angle_zyx.shape[0]):
        z = int(np.int64(z_unsigned))
        for y in range(angle_zyx.shape[1]):
            for x in range(angle_zyx.shape[2]):
                angle_zyx[z, y, x] = square_angle(m_czyx, axis, z, y, x)


# --------------------------------------------------------------------------------------------------
# Arguments


def checked_field(m_czyx: ArrayLike) -> NDArray[Any]:
    """Return the field as a contiguous array of floats, or raise ValueError."""
    field = np.ascontiguousarray(m_czyx)
    if field.dtype not in (np.float32, np.float64):
        field = field.astype(np.float64)
    if field.ndim != 4 or field.shape[0] != 3:
        raise ValueError(f"m: expected shape (3, z, y, x), got {field.shape}")
    return field


def checked_voxel(voxel_nm: float) -> float:
    """Return the voxel size, or raise ValueError."""
    if not (np.isfinite(voxel_nm) and voxel_nm > 0):
        raise ValueError(f"voxel_nm: expected a positive length in nm, got {voxel_nm}")
    return float(voxel_nm)


def typical_norm(m_czyx: NDArray[Any]) -> float:
    """Return the 95th percentile of |m| where it is finite and not 0; 0 if that is nowhere."""
    with np.errstate(over="ignore"):
        norm2 = np.einsum("czyx,czyx->zyx", m_czyx, m_czyx)
    sample = norm2[np.isfinite(norm2) & (norm2 > 0)]
    if sample.size == 0:
        return 0.0
    sample = sample[:: max(1, sample.size // 1_000_000)]
    return float(np.sqrt(np.percentile(sample, 95.0)))


def defined_directions(m_czyx: NDArray[Any], minimum_norm: float | None) -> Bool:
    """Return where the direction is defined, [z, y, x]."""
    with np.errstate(over="ignore"):  # a square beyond float32 is inf, hence undefined
        norm2 = np.einsum("czyx,czyx->zyx", m_czyx, m_czyx)
    if minimum_norm is None:
        minimum_norm = MINIMUM_NORM_FRACTION * typical_norm(m_czyx)
    elif not (np.isfinite(minimum_norm) and minimum_norm >= 0):
        raise ValueError(f"minimum_norm: expected a number >= 0, got {minimum_norm}")
    defined: Bool = np.isfinite(norm2) & (norm2 > 0) & (norm2 >= minimum_norm**2)
    return defined


def center_in_zyx(center_nm: Sequence[float]) -> Float:
    """Return a centre given as x, y, z in the order z, y, x, or raise ValueError."""
    center_zyx = np.asarray(center_nm, dtype=np.float64)[::-1]
    if center_zyx.shape != (3,) or not np.all(np.isfinite(center_zyx)):
        raise ValueError(
            f"center_nm: expected three finite lengths (x, y, z) in nm, got {center_nm}"
        )
    return center_zyx


def box_corners(
    shape_zyx: tuple[int, ...],
    voxel_nm: float,
    center_nm: Sequence[float],
    side_nm: float | Sequence[float],
) -> Box:
    """Return the first and last voxel index of a box along z, y and x."""
    center_zyx = center_in_zyx(center_nm)
    side_xyz = np.asarray(side_nm, dtype=np.float64)
    if side_xyz.shape not in ((), (3,)) or not np.all((side_xyz > 0) & np.isfinite(side_xyz)):
        raise ValueError(f"side_nm: expected one or three positive lengths in nm, got {side_nm}")
    side_zyx = np.broadcast_to(side_xyz, 3)[::-1]
    corners = []
    for n, center, side, axis in zip(shape_zyx, center_zyx, side_zyx, "zyx", strict=True):
        cells = max(1, round(side / voxel_nm))
        first = round(center / voxel_nm + (n - 1) / 2 - cells / 2)
        if first < 0 or first + cells > n - 1:
            edge = (n - 1) / 2 * voxel_nm
            raise ValueError(
                f"the box of side {side:g} nm at {axis} = {center:g} nm leaves the volume, "
                f"which ends at {-edge:g} and {edge:g} nm"
            )
        corners.append((first, first + cells))
    return tuple(corners)


def charge_of_cells(
    m_czyx: NDArray[Any], defined_zyx: Bool, cells_zyx: Bool, first_zyx: Sequence[int], what: str
) -> int:
    """Return the charge of a set of cells (see `_region_angle`) as an exact integer.

    Raises `UndefinedDirectionError`, whose message begins with `what`.
    """
    angle, undefined = _region_angle(m_czyx, defined_zyx, cells_zyx, *first_zyx)
    if undefined:
        raise UndefinedDirectionError(
            f"{what}: the direction of m is undefined on {undefined} squares of the surface "
            "(|m| too small); move or resize it, or lower minimum_norm"
        )
    charge = angle / (4.0 * np.pi)
    if np.isnan(charge):
        raise UndefinedDirectionError(
            f"{what}: neighbouring directions on the surface are exactly opposite, which leaves "
            "the charge undefined; move or resize it"
        )
    return round(charge)


def slice_index(n: int, voxel_nm: float, z_nm: float) -> int:
    """Return which slice is nearest to a height, or raise ValueError outside the volume."""
    index = round(z_nm / voxel_nm + (n - 1) / 2)
    if not 0 <= index < n:
        edge = (n - 1) / 2 * voxel_nm
        raise ValueError(f"z_nm: {z_nm:g} nm is outside the volume ({-edge:g} to {edge:g} nm)")
    return index

"""The emergent field of a magnetization, its flux through boxes, and its streamlines.

``q_i = 1/2 eps_ijk m . (d_j m x d_k m)``, by central differences of unit vectors [A. Hierro-Rodriguez et al., Nat.
Commun. 11, 6382 (2020), eq. 1]. Bloch points are its sources and sinks, ``div q = 4 pi Q delta``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import ArrayLike, NDArray

from mistral_txm.reconstruction.lattice_charge import (
    Bool,
    Box,
    Float,
    UndefinedDirectionError,
    box_corners,
    checked_field,
    checked_voxel,
    defined_directions,
)


def emergent_field(
    m_czyx: ArrayLike, voxel_nm: float, *, minimum_norm: float | None = None
) -> NDArray[Any]:
    """Return the emergent field q_i = 1/2 eps_ijk m . (d_j m x d_k m) in 1/nm^2, shape [3, z, y,
    x].

    Central differences of the unit vectors (one-sided at the volume's faces), as in
    A. Hierro-Rodriguez et al., Nat. Commun. 11, 6382 (2020), eq. 1. nan where m or a neighbour
    needed for a difference is undefined. For a hedgehog q = r / |r|^3 away from the centre.
    """
    field, voxel = checked_field(m_czyx), checked_voxel(voxel_nm)
    if min(field.shape[1:]) < 2:
        raise ValueError(f"m: at least 2 voxels are needed along each axis, got {field.shape[1:]}")
    return _emergent_field(field, defined_directions(field, minimum_norm), voxel)


def _emergent_field(m_czyx: NDArray[Any], defined_zyx: Bool, voxel_nm: float) -> NDArray[Any]:
    unit = np.full_like(m_czyx, np.nan)
    norm = np.sqrt(np.einsum("czyx,czyx->zyx", m_czyx, m_czyx))
    np.divide(m_czyx, norm, out=unit, where=defined_zyx)
    dx, dy, dz = (np.gradient(unit, voxel_nm, axis=axis) for axis in (3, 2, 1))
    return np.stack(
        [
            np.einsum("czyx,czyx->zyx", unit, np.cross(a, b, axis=0))
            for a, b in ((dy, dz), (dz, dx), (dx, dy))
        ]
    )


def flux_of_box(m_czyx: NDArray[Any], defined_zyx: Bool, voxel_nm: float, corners: Box) -> float:
    """Return `box_flux` of a box by its corners, nan where a direction on or beside its surface is undefined."""
    low = [max(first - 1, 0) for first, _ in corners]
    part = tuple(slice(a, last + 2) for a, (_, last) in zip(low, corners, strict=True))
    q_czyx = _emergent_field(m_czyx[(slice(None), *part)], defined_zyx[part], voxel_nm)
    inner = tuple((first - a, last - a) for a, (first, last) in zip(low, corners, strict=True))
    return _flux(q_czyx, voxel_nm, inner)


def _flux(q_czyx: NDArray[Any], voxel_nm: float, corners: Box) -> float:
    """Return 1/(4 pi) times the outward flux of q through a box, by the trapezoid rule."""
    total = 0.0
    for axis in range(3):  # z, y, x
        inside = [slice(first, last + 1) for first, last in corners]
        for index, sign in zip(corners[axis], (-1, 1), strict=True):
            face = q_czyx[2 - axis][tuple(index if a == axis else inside[a] for a in range(3))]
            integral = np.trapezoid(np.trapezoid(face, dx=voxel_nm, axis=1), dx=voxel_nm, axis=0)
            total += sign * float(integral)
    return total / (4.0 * np.pi)


def box_flux(
    m_czyx: ArrayLike,
    voxel_nm: float,
    *,
    center_nm: Sequence[float],
    side_nm: float | Sequence[float],
    minimum_norm: float | None = None,
) -> float:
    """Return the charge of a box by finite differences, for comparison with `box_charge`.

    1/(4 pi) times the flux of `emergent_field` through the same box, by the trapezoid rule. Not an
    integer: it falls off as a face comes within a voxel or two of a singularity, which is what
    gives the profiles of the published measurement their width.

    Raises as `box_charge` does.
    """
    field, voxel = checked_field(m_czyx), checked_voxel(voxel_nm)
    corners = box_corners(field.shape[1:], voxel, center_nm, side_nm)
    flux = flux_of_box(field, defined_directions(field, minimum_norm), voxel, corners)
    if np.isnan(flux):
        raise UndefinedDirectionError(
            "box: the direction of m is undefined on or beside the surface (|m| too small); "
            "move or resize it, or lower minimum_norm"
        )
    return flux


def streamlines(
    q_czyx: NDArray[Any],
    voxel_nm: float,
    seeds_nm: ArrayLike,
    *,
    length_nm: float,
    step_nm: float | None = None,
) -> list[Float]:
    """Follow the emergent field from points, forwards and backwards.

    ``dr/ds = q / |q|`` by the classical Runge-Kutta method, q interpolated linearly. A line ends at the volume's
    border, where q is undefined, or after the length in either direction.

    Args:
        q_czyx: of `emergent_field`.
        voxel_nm: voxel edge.
        seeds_nm: points (x, y, z) from the volume's centre, shape (n, 3).
        length_nm: how far a line is followed in either direction.
        step_nm: of the integration; None: half a voxel.

    Returns:
        For each seed its line, shape (points, 3), x, y, z in nm, along q.

    Raises:
        ValueError: for seeds that are no points.

    >>> q = np.zeros((3, 5, 5, 9)); q[0] = 2.0
    >>> (line,) = streamlines(q, 10.0, [[0.0, 0.0, 0.0]], length_nm=100.0, step_nm=10.0)
    >>> line[0].tolist(), line[-1].tolist()
    ([-40.0, 0.0, 0.0], [40.0, 0.0, 0.0])
    """
    voxel = checked_voxel(voxel_nm)
    seeds = np.asarray(seeds_nm, dtype=np.float64)
    if seeds.ndim != 2 or seeds.shape[1] != 3 or not np.isfinite(seeds).all():
        raise ValueError(f"seeds_nm: shape {seeds.shape}, expected points (n, 3): x, y, z in nm")
    step = voxel / 2 if step_nm is None else step_nm
    centre = (np.array(q_czyx.shape[1:]) - 1) / 2
    largest = float(np.nanmax(np.abs(q_czyx), initial=0.0))

    def direction(r_nm: Float) -> Float:
        at = r_nm[:, ::-1].T / voxel + centre[:, None]
        q = np.stack(
            [scipy.ndimage.map_coordinates(c, at, order=1, cval=np.nan) for c in q_czyx], axis=1
        )
        norm = np.linalg.norm(q, axis=1, keepdims=True)
        return np.asarray(
            np.divide(q, norm, where=norm > 1e-9 * largest, out=np.full_like(q, np.nan))
        )

    halves = []
    for sign in (-step, step):
        points = [seeds]
        for _ in range(int(np.ceil(length_nm / step))):
            r = points[-1]
            k1 = direction(r)
            k2 = direction(r + sign / 2 * k1)
            k3 = direction(r + sign / 2 * k2)
            k4 = direction(r + sign * k3)
            onwards = r + sign / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            if np.isnan(onwards).all():
                break
            points.append(onwards)
        halves.append(np.stack(points, axis=1))
    lines = []
    for backwards, forwards in zip(*halves, strict=True):
        line = np.concatenate([backwards[:0:-1], forwards])
        lines.append(line[np.isfinite(line).all(axis=1)])
    return lines

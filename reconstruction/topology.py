r"""Topological charges of a magnetization field: singularities, planar charges, Hopf index.

The field is `m_czyx`, components x, y, z on axes z, y, x; voxel i of n sits at
(i - (n - 1) / 2) * voxel_nm. Only the direction of m enters. The emergent field is

    q_i = 1/2 eps_ijk m . (d_j m x d_k m),        Q = 1/(4 pi) * flux of q through a closed surface,

so that a hedgehog m = r / |r| has Q = +1, and m -> -m changes the sign of Q.

**Lattice form.** A *cell* is the cube between eight voxel centres. Each square of four voxel
centres is cut into two triangles along the diagonal from its lowest corner, and each triangle
contributes the solid angle of its three directions a, b, c (unit vectors),

    tan(omega / 2) = a . (b x c) / (1 + a . b + b . c + c . a).

Summed over a closed surface this is 4 pi times an integer, because the triangles close on the
sphere (B. Berg and M. Luscher, Nucl. Phys. B 190, 412 (1981)). Squares shared by two cells cancel,
so the charge of a region is the sum of the charges of its cells.

**Undefined directions.** Where |m| is not finite or below `minimum_norm` the direction is
undefined. Such voxels may lie inside a closed surface, never on it: functions that would need them
raise `UndefinedDirectionError`, and searches leave them out. `minimum_norm=None` means
`MINIMUM_NORM_FRACTION` of the field's typical norm (the 95th percentile where m is not zero), so
that the unit of m (1 or 1/nm) does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from mistral_txm.reconstruction.charge_profiles import (
    ChargeProfile,
    PlanarProfile,
    charge_profile,
    edge_width_nm,
    planar_profile,
)
from mistral_txm.reconstruction.emergent_field import box_flux, emergent_field, streamlines
from mistral_txm.reconstruction.lattice_charge import (
    MINIMUM_NORM_FRACTION,
    Float,
    UndefinedDirectionError,
    all_squares,
    box_corners,
    cell_charges,
    center_in_zyx,
    charge_of_cells,
    checked_field,
    checked_voxel,
    defined_directions,
    plane_angles,
    slice_index,
)
from mistral_txm.reconstruction.planar_charges import (
    PlanarCharge,
    find_merons,
    layer_charges,
    layer_charges_of,
    merons_of,
)
from mistral_txm.reconstruction.singularities import (
    RESOLUTION_NM,
    Singularity,
    find_singularities,
    prepared,
    singularities_of,
)

__all__ = [
    "MINIMUM_NORM_FRACTION",
    "ChargeProfile",
    "PlanarCharge",
    "PlanarProfile",
    "Singularity",
    "UndefinedDirectionError",
    "box_charge",
    "box_flux",
    "charge_profile",
    "edge_width_nm",
    "emergent_field",
    "find_merons",
    "find_singularities",
    "hopf_index",
    "layer_charges",
    "planar_charge",
    "planar_profile",
    "sphere_charge",
    "streamlines",
    "topology_summary",
]


# --------------------------------------------------------------------------------------------------
# Closed surfaces


def box_charge(
    m_czyx: ArrayLike,
    voxel_nm: float,
    *,
    center_nm: Sequence[float],
    side_nm: float | Sequence[float],
    minimum_norm: float | None = None,
) -> int:
    """Return the charge Q of a box by the lattice form: an exact integer.

    The faces lie on voxel centres: each side is rounded to a whole number of voxels (at least
    one), the box is then placed as close to `center_nm` (x, y, z; from the volume's centre) as the
    voxels allow. `side_nm` is one length or three (x, y, z).

    Raises `UndefinedDirectionError` if m is undefined somewhere on the surface, ValueError if the
    box leaves the volume.

    >>> z, y, x = np.mgrid[-4.5:5, -4.5:5, -4.5:5]
    >>> box_charge(np.stack([x, y, z]), 1.0, center_nm=(0, 0, 0), side_nm=5)
    1
    >>> box_charge(np.stack([x, y, z]), 1.0, center_nm=(2, 2, 2), side_nm=3)
    0
    """
    field, voxel = checked_field(m_czyx), checked_voxel(voxel_nm)
    corners = box_corners(field.shape[1:], voxel, center_nm, side_nm)
    block = tuple(slice(first, last + 1) for first, last in corners)
    defined = defined_directions(field, minimum_norm)[block]
    cells = np.ones([n - 1 for n in defined.shape], dtype=bool)
    inside = np.ascontiguousarray(field[(slice(None), *block)])
    return charge_of_cells(inside, np.ascontiguousarray(defined), cells, (0, 0, 0), "box")


def sphere_charge(
    m_czyx: ArrayLike,
    voxel_nm: float,
    *,
    center_nm: Sequence[float],
    radius_nm: float,
    minimum_norm: float | None = None,
) -> int:
    """Return the charge Q of a sphere by the lattice form: an exact integer.

    The sphere is the surface of all cells whose centre is within `radius_nm` of `center_nm` (x, y,
    z; from the volume's centre); at least the cell that holds the centre.

    Raises `UndefinedDirectionError` if m is undefined somewhere on the surface, ValueError if the
    sphere leaves the volume.
    """
    field, voxel = checked_field(m_czyx), checked_voxel(voxel_nm)
    if not radius_nm > 0:
        raise ValueError(f"radius_nm: expected a positive length in nm, got {radius_nm}")
    first, offsets = [], []
    for n, center, axis in zip(field.shape[1:], center_in_zyx(center_nm), "zyx", strict=True):
        middle = center / voxel + (n - 2) / 2  # the centre in units of cells
        low = int(np.ceil(middle - radius_nm / voxel))
        high = int(np.floor(middle + radius_nm / voxel))
        if high < low:
            low = high = round(middle)
        if low < 0 or high > n - 2:
            edge = (n - 1) / 2 * voxel
            raise ValueError(
                f"the sphere of radius {radius_nm:g} nm at {axis} = {center:g} nm leaves the "
                f"volume, which ends at {-edge:g} and {edge:g} nm"
            )
        first.append(low)
        offsets.append((np.arange(low, high + 1) - middle) * voxel)
    z, y, x = np.meshgrid(*offsets, indexing="ij")
    distance2 = x**2 + y**2 + z**2
    cells = distance2 <= max(radius_nm**2, float(distance2.min()))
    return charge_of_cells(field, defined_directions(field, minimum_norm), cells, first, "sphere")


# --------------------------------------------------------------------------------------------------
# Planes


def _span(n: int, voxel_nm: float, range_nm: tuple[float, float] | None, axis: str) -> slice:
    """Return the voxels whose centre lies within a range (at least two)."""
    if range_nm is None:
        return slice(0, n)
    position_nm = (np.arange(n) - (n - 1) / 2) * voxel_nm
    chosen = np.flatnonzero((position_nm >= range_nm[0]) & (position_nm <= range_nm[1]))
    if chosen.size < 2:
        raise ValueError(
            f"{axis}_range_nm: {range_nm} holds {chosen.size} voxel centres, at least 2 are needed "
            f"(the volume ends at {position_nm[0]:g} and {position_nm[-1]:g} nm)"
        )
    return slice(int(chosen[0]), int(chosen[-1]) + 1)


def planar_charge(
    m_czyx: ArrayLike,
    voxel_nm: float,
    *,
    z_nm: float = 0.0,
    x_range_nm: tuple[float, float] | None = None,
    y_range_nm: tuple[float, float] | None = None,
    minimum_norm: float | None = None,
) -> float:
    """Return the charge of a rectangle in the slice nearest to z, by the lattice form.

    1/(4 pi) times the solid angle that m covers over the squares between the voxel centres within
    the ranges (all of the slice by default). An integer where m is the same all around the
    rectangle: a skyrmion with m_z = -1 in the middle, +1 outside and the direction turning
    outwards (Neel) or around (Bloch) has -1; a vortex core (meron) with m_z = p and winding w has
    p * w / 2.

    Raises `UndefinedDirectionError` if m is undefined in the rectangle.
    """
    field, voxel = checked_field(m_czyx), checked_voxel(voxel_nm)
    _, nz, ny, nx = field.shape
    k = slice_index(nz, voxel, z_nm)
    rows = _span(ny, voxel, y_range_nm, "y")
    columns = _span(nx, voxel, x_range_nm, "x")
    defined = defined_directions(field, minimum_norm)[k, rows, columns]
    if not defined.all():
        raise UndefinedDirectionError(
            f"plane z = {z_nm:g} nm: the direction of m is undefined in "
            f"{np.count_nonzero(~defined)} of {defined.size} voxels (|m| too small); choose "
            "another rectangle, or lower minimum_norm"
        )
    part = np.ascontiguousarray(field[:, k, rows, columns])
    charge = float(plane_angles(part, np.ascontiguousarray(defined)).sum() / (4.0 * np.pi))
    if np.isnan(charge):
        raise UndefinedDirectionError(
            f"plane z = {z_nm:g} nm: neighbouring directions in the rectangle are exactly "
            "opposite, which leaves the charge undefined; choose another rectangle"
        )
    return charge


# --------------------------------------------------------------------------------------------------
# Hopf index


def hopf_index(m_czyx: ArrayLike, *, minimum_norm: float | None = None) -> float:
    """Return the Hopf index of a texture in a uniform surrounding: the linking number of preimages.

        H = 1/(4 pi)^2 * integral of q . A dV,   curl A = q,

    with the preimages oriented along q. q is the lattice form's flux through the squares between
    voxels, which has no sources, and A its solution in Fourier space, A(k) = i k x q(k) / k^2, in
    the gauge div A = 0. Close to an integer, and the closer the finer the grid: the size of the
    voxels does not matter.

    Raises `UndefinedDirectionError` if m is undefined anywhere, ValueError if the index has no
    meaning: if m is not uniform (within 30 deg) on the faces of the volume, or if there is a
    singularity inside.
    """
    field = checked_field(m_czyx)
    defined = defined_directions(field, minimum_norm)
    if not defined.all():
        raise UndefinedDirectionError(
            f"Hopf index: the direction of m is undefined in {np.count_nonzero(~defined)} voxels; "
            "cut out a part where it is defined everywhere"
        )
    if min(field.shape[1:]) < 4:
        raise ValueError(
            f"Hopf index: at least 4 voxels are needed along each axis, got {field.shape}"
        )
    unit = field / np.sqrt(np.einsum("czyx,czyx->zyx", field, field))
    faces = np.concatenate(
        [np.take(unit, end, axis=axis).reshape(3, -1) for axis in (1, 2, 3) for end in (0, -1)],
        axis=1,
    )
    mean = faces.mean(axis=1, dtype=np.float64)
    if (mean @ faces).min() < np.cos(np.deg2rad(30.0)) * np.linalg.norm(mean):
        raise ValueError("Hopf index: m is not uniform on the faces of the volume")
    if np.any(cell_charges(unit, defined)):
        raise ValueError("Hopf index: there is a singularity in the volume, preimages have ends")
    flux = [_squares(unit, axis) for axis in range(3)]
    if any(np.isnan(part).any() for part in flux):
        raise UndefinedDirectionError("Hopf index: neighbouring directions are exactly opposite")
    # Each square's flux belongs to the square's middle: half a voxel up along its two axes. The
    # phase brings all to the voxel centres; the difference operator of the lattice is then 2 sin(k
    # / 2).
    nz, ny, nx = field.shape[1:]
    k_zyx = (
        2 * np.pi * np.fft.fftfreq(nz)[:, None, None],
        2 * np.pi * np.fft.fftfreq(ny)[None, :, None],
        2 * np.pi * np.fft.rfftfreq(nx)[None, None, :],
    )
    k = (k_zyx[2], k_zyx[1], k_zyx[0])
    q = [
        scipy.fft.rfftn(flux[a], workers=-1) * np.exp(-0.5j * (k[(a + 1) % 3] + k[(a + 2) % 3]))
        for a in range(3)
    ]
    d = [2 * np.sin(0.5 * k[a]) for a in range(3)]
    d2 = d[0] ** 2 + d[1] ** 2 + d[2] ** 2
    d2[0, 0, 0] = 1.0
    density = np.zeros(d2.shape)
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        potential = 1j * (d[b] * q[c] - d[c] * q[b]) / d2
        density += (potential * q[a].conj()).real
    weight = np.full(d2.shape[2], 2.0)  # the half of the spectrum that rfft leaves out
    weight[0] = 1.0
    if nx % 2 == 0:
        weight[-1] = 1.0
    return float((density @ weight).sum() / (nz * ny * nx) / (4.0 * np.pi) ** 2)


def _squares(unit_czyx: NDArray[Any], axis: int) -> Float:
    """Return the solid angle (sr) of the square that starts at every voxel, periodically."""
    padded = np.pad(unit_czyx, ((0, 0), (0, 1), (0, 1), (0, 1)), mode="wrap")
    nz, ny, nx = unit_czyx.shape[1:]
    angles = np.empty((nz, ny, nx))
    all_squares(padded, axis, angles)
    return angles


# --------------------------------------------------------------------------------------------------


def topology_summary(
    m_czyx: ArrayLike,
    voxel_nm: float,
    *,
    resolution_nm: float = RESOLUTION_NM,
    minimum_norm: float | None = None,
) -> dict[str, Any]:
    """Return all of it, ready for JSON.

    `points`: what `find_singularities` finds. `planar`: for each magnetic layer the charge of its
    middle slice over the whole field of view (`layer_charges`), then the merons and skyrmions in
    these (`find_merons`). `hopf_index`: a number, or None where it has no meaning (see
    `hopf_index`), which is the rule for films whose surroundings are not uniform.
    """
    field = prepared(m_czyx, voxel_nm, resolution_nm, minimum_norm)
    points = singularities_of(field)
    planar = (*layer_charges_of(field), *merons_of(field, points))
    try:
        hopf: float | None = hopf_index(m_czyx, minimum_norm=minimum_norm)
    except ValueError:
        hopf = None
    return {
        "points": [asdict(point) for point in points],
        "planar": [asdict(charge) for charge in planar],
        "hopf_index": hopf,
    }

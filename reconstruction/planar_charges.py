"""Search a field for what is localised in a layer: the charge of each layer, merons and skyrmions in it.

See `topology` for the definitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from mistral_txm.reconstruction.lattice_charge import (
    Bool,
    Float,
    plane_angles,
)
from mistral_txm.reconstruction.singularities import (
    RESOLUTION_NM,
    Prepared,
    Singularity,
    prepared,
    singularities_of,
)


@dataclass(frozen=True)
class PlanarCharge:
    """A charge in a plane z = const: of a whole layer ("layer") or of a spot ("meron", "skyrmion").

    `charge` is None where the direction is undefined somewhere in the plane. For spots (x, y) is
    the centre and `radius_nm` the radius within which the charge was summed; for layers x, y and
    radius are None and `z0_nm`, `z1_nm` are the layer's lowest and highest voxel centre.
    """

    kind: Literal["layer", "meron", "skyrmion"]
    z_nm: float
    charge: float | None
    x_nm: float | None = None
    y_nm: float | None = None
    radius_nm: float | None = None
    z0_nm: float | None = None
    z1_nm: float | None = None


def _layers(defined_zyx: Bool) -> list[tuple[int, int]]:
    """Return the first and last slice of each layer in which m is defined.

    A layer is a run of slices that hold at least half as many defined voxels as the fullest one.
    """
    count = np.count_nonzero(defined_zyx, axis=(1, 2))
    if count.max() == 0:
        return []
    full = np.concatenate([[False], 2 * count >= count.max(), [False]])
    edges = np.flatnonzero(full[1:] != full[:-1])
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def layer_charges(
    m_czyx: ArrayLike,
    voxel_nm: float,
    *,
    resolution_nm: float = RESOLUTION_NM,
    minimum_norm: float | None = None,
) -> list[PlanarCharge]:
    """Return the planar charge of each magnetic layer's middle slice, over the whole field of view.

    A layer is a run of slices in which m is defined. The charge is that of `planar_charge`, of the
    field at the resolution (see `find_singularities`); None where m is undefined anywhere in that
    slice.
    """
    return layer_charges_of(prepared(m_czyx, voxel_nm, resolution_nm, minimum_norm))


def layer_charges_of(field: Prepared) -> list[PlanarCharge]:
    """Return what `layer_charges` does."""
    middle = (field.defined_zyx.shape[0] - 1) / 2
    charges = []
    for first, last in _layers(field.defined_zyx):
        k = (first + last) // 2
        angle = float(
            plane_angles(
                np.ascontiguousarray(field.m_czyx[:, k]),
                np.ascontiguousarray(field.support_zyx[k]),
            ).sum()
        )
        charges.append(
            PlanarCharge(
                "layer",
                z_nm=(k - middle) * field.voxel_nm,
                charge=None if np.isnan(angle) else angle / (4.0 * np.pi),
                z0_nm=(first - middle) * field.voxel_nm,
                z1_nm=(last - middle) * field.voxel_nm,
            )
        )
    return charges


def find_merons(
    m_czyx: ArrayLike,
    voxel_nm: float,
    *,
    resolution_nm: float = RESOLUTION_NM,
    minimum_norm: float | None = None,
    smallest_charge: float = 0.3,
) -> list[PlanarCharge]:
    """Search the middle slice of each magnetic layer for localised planar charge.

    The charge density (solid angle per square, of the field at the resolution) is summed in discs
    around its extremes, up to a radius of twice the resolution; the disc is the one where |Q|
    stops to grow. What reaches `smallest_charge` is reported: as "meron" below 0.75, as "skyrmion"
    above. Not reported is a spot whose disc holds undefined m or is cut by the edge, one closer
    than its radius or the resolution to a stronger one, and one closer than the resolution to a
    Bloch point, whose own field it is. Strongest first.
    """
    field = prepared(m_czyx, voxel_nm, resolution_nm, minimum_norm)
    return merons_of(field, singularities_of(field), smallest_charge)


def merons_of(
    field: Prepared, points: Sequence[Singularity], smallest_charge: float = 0.3
) -> list[PlanarCharge]:
    """Return what `find_merons` does, where the Bloch points are known."""
    voxel, resolution = field.voxel_nm, field.resolution_nm
    nz, ny, nx = field.defined_zyx.shape
    found: list[PlanarCharge] = []
    for first, last in _layers(field.defined_zyx):
        k = (first + last) // 2
        density_yx = plane_angles(
            np.ascontiguousarray(field.m_czyx[:, k]), np.ascontiguousarray(field.support_zyx[k])
        ) / (4.0 * np.pi)
        spots = []
        for j, i in _extremes(density_yx, resolution / voxel, smallest_charge):
            charge, radius = _disc_charge(density_yx, j, i, max(2, round(2 * resolution / voxel)))
            spot = PlanarCharge(
                "meron" if abs(charge) < 0.75 else "skyrmion",
                z_nm=(k - (nz - 1) / 2) * voxel,
                charge=charge,
                x_nm=(i - (nx - 2) / 2) * voxel,
                y_nm=(j - (ny - 2) / 2) * voxel,
                radius_nm=radius * voxel,
            )
            if abs(charge) >= smallest_charge and all(
                _apart_nm(spot, point) > resolution for point in points
            ):
                spots.append(spot)
        chosen: list[PlanarCharge] = []
        for spot in sorted(spots, key=_strength, reverse=True):
            if all(_apart_nm(spot, c) > max(resolution, c.radius_nm or 0.0) for c in chosen):
                chosen.append(spot)
        found += chosen
    return sorted(found, key=_strength, reverse=True)


def _strength(spot: PlanarCharge) -> float:
    return abs(spot.charge or 0.0)


def _apart_nm(spot: PlanarCharge, other: PlanarCharge | Singularity) -> float:
    x_nm, y_nm = (spot.x_nm or 0.0) - (other.x_nm or 0.0), (spot.y_nm or 0.0) - (other.y_nm or 0.0)
    return float(np.sqrt(x_nm**2 + y_nm**2 + (spot.z_nm - other.z_nm) ** 2))


def _extremes(
    density_yx: Float, resolution_voxels: float, smallest_charge: float
) -> list[tuple[int, int]]:
    """Return the squares (row, column) where the charge density has an extreme worth a look."""
    strength = np.abs(
        ndimage.gaussian_filter(
            np.nan_to_num(density_yx), resolution_voxels / 2.3548, mode="constant"
        )
    )
    size = 2 * max(1, round(resolution_voxels / 2)) + 1
    # A quarter of the density of the smallest charge, spread evenly over a disc of the resolution.
    faint = 0.25 * smallest_charge / (np.pi * resolution_voxels**2)
    peaks = (strength == ndimage.maximum_filter(strength, size)) & (strength > faint)
    return [(int(j), int(i)) for j, i in np.argwhere(peaks)]


def _disc_charge(density_yx: Float, j: int, i: int, largest: int) -> tuple[float, int]:
    """Return the charge of the disc about a square where it stops to grow, and its radius.

    Zero if m is undefined, or the plane ends, before it does.
    """
    best, best_radius = 0.0, 0
    ny, nx = density_yx.shape
    offset = np.arange(-largest, largest + 1)
    distance = np.hypot(offset[:, None], offset)
    room = min(j, i, ny - 1 - j, nx - 1 - i)
    near = np.full(distance.shape, np.nan)
    low_j, low_i = max(j - largest, 0), max(i - largest, 0)
    part = density_yx[low_j : j + largest + 1, low_i : i + largest + 1]
    top, left = low_j - (j - largest), low_i - (i - largest)
    near[top : top + part.shape[0], left : left + part.shape[1]] = part
    for radius in range(1, largest + 1):
        charge = float(near[distance <= radius].sum())
        if radius > room or np.isnan(charge):
            return 0.0, 0
        if abs(charge) < abs(best) - 0.02:
            break
        if abs(charge) > abs(best):
            best, best_radius = charge, radius
    return best, best_radius

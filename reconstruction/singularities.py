"""Search a field for what is localised in space: Bloch points (in a layer: module `planar_charges`).

See `topology` for the definitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from mistral_txm.reconstruction.lattice_charge import (
    Bool,
    Float,
    UndefinedDirectionError,
    cell_charges,
    charge_of_cells,
    checked_field,
    checked_voxel,
    defined_directions,
    typical_norm,
)

RESOLUTION_NM = 84.0
"""The smallest box side with a stable charge in the published measurement."""

_SEEN_NORM_FRACTION = 0.3
_SEEN_SURFACE_FRACTION = 0.9
"""A surface is seen well if |m| reaches that fraction of its typical value on that much of it."""


@dataclass(frozen=True)
class Singularity:
    """A point singularity (Bloch point): position from the volume's centre and charge.

    `charge` is the lattice charge of a box around the point; `radius_nm` is half the side of the
    smallest such box that has it, as larger ones have (see `find_singularities`).
    """

    x_nm: float
    y_nm: float
    z_nm: float
    charge: int
    radius_nm: float


@dataclass(frozen=True)
class Prepared:
    """A field made ready for a search.

    `m_czyx` is the field without what is finer than the resolution can show. `defined_zyx` is where
    it has a direction, `support_zyx` the same with small holes filled.
    """

    m_czyx: NDArray[Any]
    defined_zyx: Bool
    support_zyx: Bool
    typical_norm: float
    voxel_nm: float
    resolution_nm: float


def _without_small_holes(defined_zyx: Bool, size_voxels: float) -> Bool:
    """Return the mask with undefined places filled that are enclosed and not longer than a size."""
    if defined_zyx.all():
        return defined_zyx
    labels, _ = ndimage.label(~defined_zyx)
    filled = defined_zyx.copy()
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        enclosed = all(s.start > 0 and s.stop < n for s, n in zip(where, labels.shape, strict=True))
        if enclosed and max(s.stop - s.start for s in where) <= size_voxels:
            filled[where] |= labels[where] == label
    return filled


def prepared(
    m_czyx: ArrayLike, voxel_nm: float, resolution_nm: float, minimum_norm: float | None
) -> Prepared:
    """Return the field ready for a search (see `find_singularities` for the arguments)."""
    field, voxel = checked_field(m_czyx), checked_voxel(voxel_nm)
    if not (np.isfinite(resolution_nm) and resolution_nm > 0):
        raise ValueError(f"resolution_nm: expected a positive length in nm, got {resolution_nm}")
    if min(field.shape[1:]) < 2:
        raise ValueError(f"m: at least 2 voxels are needed along each axis, got {field.shape[1:]}")
    known = defined_directions(field, 0.0)
    smooth = np.where(known, field, field.dtype.type(0))
    sigma_voxels = resolution_nm / 4.0 / 2.3548 / voxel  # full width a quarter of the resolution
    if sigma_voxels > 0.3:
        weight = known.astype(field.dtype)
        for part in (*smooth, weight):
            ndimage.gaussian_filter(part, sigma_voxels, output=part, mode="nearest", truncate=3.0)
        np.divide(smooth, weight, out=smooth, where=weight > 0)
    # What smoothing has spread into places without any m does not count, except in small holes.
    defined = known & defined_directions(np.where(known, smooth, field.dtype.type(0)), minimum_norm)
    support = _without_small_holes(defined, resolution_nm / voxel)
    # Exactly opposite neighbours (a singularity on the line between two voxels) have no solid
    # angle; a constant far below any noise removes the tie and moves nothing.
    smooth += (1e-5 * np.sqrt(np.mean(smooth**2)) * np.array([0.71, 0.58, 0.40])).astype(
        smooth.dtype
    )[:, None, None, None]
    return Prepared(smooth, defined, support, typical_norm(smooth), voxel, resolution_nm)


def _zero_of_cell(corners_czyx: Float) -> Float:
    """Return where the trilinear field of a cell vanishes, (z, y, x) in units of the cell, 0 to 1.

    Newton's method from the middle; the middle where it does not converge inside the cell.
    """
    t = np.full(3, 0.5)
    for _ in range(20):
        weights = [np.array([1 - s, s]) for s in t]
        slope = np.array([-1.0, 1.0])
        value = np.einsum("czyx,z,y,x->c", corners_czyx, *weights)
        jacobian = np.stack(
            [
                np.einsum(
                    "czyx,z,y,x->c",
                    corners_czyx,
                    *[slope if a == axis else weights[a] for a in range(3)],
                )
                for axis in range(3)
            ],
            axis=1,
        )
        if abs(np.linalg.det(jacobian)) < 1e-12 * np.abs(jacobian).max() ** 3:
            break
        step = np.linalg.solve(jacobian, value)
        t = t - step
        if np.any(np.abs(t - 0.5) > 2.0):
            break
        if np.abs(step).max() < 1e-6:
            if np.all((t > -1e-6) & (t < 1 + 1e-6)):
                return t
            break
    return np.full(3, 0.5)


def _annihilated(
    position_tc: Float, charge_t: NDArray[np.int64], reach: float
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Cancel pairs of opposite sign within reach, the closest first, and group what is left.

    A group holds points of one sign, linked by distances within reach: (indices, charges left).
    """
    left = charge_t.copy()
    pairs = KDTree(position_tc).query_pairs(reach, output_type="ndarray")
    if pairs.size:
        apart = np.linalg.norm(position_tc[pairs[:, 0]] - position_tc[pairs[:, 1]], axis=1)
        for i, j in pairs[np.argsort(apart, kind="stable")]:
            if left[i] * left[j] < 0:
                both = np.sign(left[i]) * min(abs(left[i]), abs(left[j]))
                left[i] -= both
                left[j] += both
    waiting = set(np.flatnonzero(left).tolist())
    groups = []
    while waiting:
        front = [waiting.pop()]
        members = []
        while front:
            i = front.pop()
            members.append(i)
            near = [
                j
                for j in waiting
                if left[j] * left[i] > 0
                and np.linalg.norm(position_tc[j] - position_tc[i]) <= reach
            ]
            waiting.difference_update(near)
            front.extend(near)
        group = np.array(sorted(members))
        groups.append((group, left[group]))
    return groups


def _enclosing_box(
    defined_zyx: Bool, cell_zyx: Sequence[int], reach: int
) -> list[list[int]] | None:
    """Return the voxel corners of a box of `reach` cells around a cell, cut back to defined faces.

    A face with undefined voxels moves towards the cell until it has none, so that the box of a
    singularity in a thin layer is as flat as the layer. None where that is not possible.
    """
    box = [
        [max(c - reach, 0), min(c + 1 + reach, n - 1)]
        for c, n in zip(cell_zyx, defined_zyx.shape, strict=True)
    ]
    changed = True
    while changed:
        changed = False
        for axis in range(3):
            for end, step, limit in ((0, 1, cell_zyx[axis]), (1, -1, cell_zyx[axis] + 1)):
                while True:
                    face = [slice(first, last + 1) for first, last in box]
                    face[axis] = slice(box[axis][end], box[axis][end] + 1)
                    if defined_zyx[tuple(face)].all():
                        break
                    if box[axis][end] == limit:
                        return None
                    box[axis][end] += step
                    changed = True
    return box


def _confirmed_radius_nm(field: Prepared, cell_zyx: Sequence[int], charge: int) -> float | None:
    """Return half the side of the smallest box that has the charge, as the next larger ones have.

    None if the boxes do not confirm the charge, see `find_singularities`.
    """
    largest = max(1, int(np.ceil((field.resolution_nm / field.voxel_nm - 1) / 2)))
    half = min(largest, round(field.resolution_nm / 4 / field.voxel_nm))
    confirmed = [_has_charge(field, cell_zyx, reach, charge) for reach in range(largest + 2)]
    for smallest in range(largest + 1):
        if all(confirmed[smallest : max(smallest + 2, half + 1)]):
            box = _enclosing_box(field.defined_zyx, cell_zyx, max(smallest, half))
            small = _enclosing_box(field.defined_zyx, cell_zyx, smallest)
            if box is None or small is None or not _is_seen(field, box):
                return None
            return max(high - low for low, high in small) / 2 * field.voxel_nm
    return None


def _has_charge(field: Prepared, cell_zyx: Sequence[int], reach: int, charge: int) -> bool:
    box = _enclosing_box(field.defined_zyx, cell_zyx, reach)
    if box is None:
        return False
    first = [low for low, _ in box]
    cells = np.ones([high - low for low, high in box], dtype=bool)
    try:
        return charge_of_cells(field.m_czyx, field.defined_zyx, cells, first, "box") == charge
    except UndefinedDirectionError:
        return False


def _is_seen(field: Prepared, box: Sequence[Sequence[int]]) -> bool:
    """Return whether |m| is strong on enough of a box's surface to trust its directions."""
    block = field.m_czyx[(slice(None), *(slice(low, high + 1) for low, high in box))]
    norm = np.sqrt(np.einsum("czyx,czyx->zyx", block, block))
    surface = np.ones(norm.shape, dtype=bool)
    surface[1:-1, 1:-1, 1:-1] = False
    strong = norm[surface] >= _SEEN_NORM_FRACTION * field.typical_norm
    return bool(np.mean(strong) >= _SEEN_SURFACE_FRACTION)


def find_singularities(
    m_czyx: ArrayLike,
    voxel_nm: float,
    *,
    resolution_nm: float = RESOLUTION_NM,
    minimum_norm: float | None = None,
) -> list[Singularity]:
    """Search a volume for point singularities (Bloch points) that the data can resolve.

    1. m is smoothed with a full width of a quarter of the resolution; places where m is 0 or not
       finite have no weight. Put m = 0 where there is no magnetic material.
    2. Where |m| < `minimum_norm` after that, the direction is undefined and left out; undefined
       places that are no longer than the resolution and enclosed by defined ones (the core of a
       blurred singularity) count as unknown inside, not as an edge.
    3. The charge of every cell is computed in the lattice form; the position is where the trilinear
       field of a charged cell vanishes.
    4. Charges of opposite sign closer than the resolution cancel, the closest first; those of the
       same sign closer than the resolution are one singularity of their sum, in their middle.
    5. Boxes around it (flatter where the layer is thinner) must confirm the charge, with m defined
       on all of their surface: all sizes from the smallest that does to half the resolution, at
       least two, the smallest no larger than the resolution. On the box of half the resolution (or
       the smallest) |m| must reach 0.3 of its typical value on 90 % of the surface. `radius_nm` is
       half the (longest) side of the smallest. What is not confirmed is not reported.

    A reconstruction without a prior has true zeros between the magnetic layers, where it shows an
    echo of them: set m to 0 there if the layers are known.

    Strongest and best confirmed first: sorted by |charge|, then radius.
    """
    field = prepared(m_czyx, voxel_nm, resolution_nm, minimum_norm)
    return singularities_of(field)


def singularities_of(field: Prepared) -> list[Singularity]:
    """Return what `find_singularities` does."""
    charges = cell_charges(field.m_czyx, field.support_zyx)
    cells = np.argwhere(charges)
    if cells.shape[0] == 0:
        return []
    charge = charges[tuple(cells.T)].astype(np.int64)
    zero = np.stack(
        [
            _zero_of_cell(field.m_czyx[:, k : k + 2, j : j + 2, i : i + 2].astype(np.float64))
            for k, j, i in cells
        ]
    )
    position = cells + zero  # in voxels, z y x
    found = []
    for group, left in _annihilated(position, charge, field.resolution_nm / field.voxel_nm):
        total = int(left.sum())
        middle = np.average(position[group], axis=0, weights=np.abs(left))
        limit = np.array(field.defined_zyx.shape) - 2
        cell = [int(c) for c in np.clip(np.floor(middle), 0, limit)]
        radius_nm = _confirmed_radius_nm(field, cell, total)
        if radius_nm is None:
            continue
        offset = (np.array(field.defined_zyx.shape) - 1) / 2
        z_nm, y_nm, x_nm = ((middle - offset) * field.voxel_nm).tolist()
        found.append(Singularity(x_nm, y_nm, z_nm, total, radius_nm))
    return sorted(found, key=lambda s: (-abs(s.charge), s.radius_nm, s.z_nm, s.y_nm, s.x_nm))

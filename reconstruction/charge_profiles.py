"""Charges along a line, as published: of boxes (the publication's Fig. 4b) and of squares in a plane (its Fig. 4c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mistral_txm.reconstruction.emergent_field import flux_of_box
from mistral_txm.reconstruction.lattice_charge import (
    Float,
    UndefinedDirectionError,
    box_corners,
    charge_of_cells,
    checked_field,
    checked_voxel,
    defined_directions,
    plane_angles,
    slice_index,
)

_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class ChargeProfile:
    """Charge of boxes that move along one axis; nan where a box leaves the defined field."""

    axis: Literal["x", "y", "z"]
    position_nm: Float
    side_nm: Float
    charge_sp: Float
    """[side, position]"""


def charge_profile(
    m_czyx: ArrayLike,
    voxel_nm: float,
    *,
    center_nm: Sequence[float],
    sides_nm: Sequence[float],
    axis: Literal["x", "y", "z"] = "x",
    form: Literal["finite_difference", "lattice"] = "finite_difference",
    minimum_norm: float | None = None,
) -> ChargeProfile:
    """Return Q along a line through `center_nm` for a series of box sides.

    A box of each side moves voxel by voxel along `axis`; `form` says how its charge is computed
    (see `box_flux` and `box_charge`). nan where the box leaves the volume or m is undefined on it.
    """
    field, voxel = checked_field(m_czyx), checked_voxel(voxel_nm)
    if axis not in ("x", "y", "z"):
        raise ValueError(f"axis: expected x, y or z, got {axis!r}")
    if form not in ("finite_difference", "lattice"):
        raise ValueError(f"form: expected finite_difference or lattice, got {form!r}")
    moving = "xyz".index(axis)
    n = field.shape[3 - moving]
    position_nm = (np.arange(n) - (n - 1) / 2) * voxel
    defined = defined_directions(field, minimum_norm)
    charge = np.full((len(sides_nm), n), np.nan)
    for s, side_nm in enumerate(sides_nm):
        for p, position in enumerate(position_nm):
            center = [float(c) for c in center_nm]
            center[moving] = float(position)
            try:
                corners = box_corners(field.shape[1:], voxel, center, side_nm)
            except ValueError:
                continue
            if form == "finite_difference":
                charge[s, p] = flux_of_box(field, defined, voxel, corners)
                continue
            cells = np.ones([last - first for first, last in corners], dtype=bool)
            try:
                charge[s, p] = charge_of_cells(
                    field, defined, cells, [first for first, _ in corners], "box"
                )
            except UndefinedDirectionError:
                continue
    return ChargeProfile(axis, position_nm, np.asarray(sides_nm, dtype=np.float64), charge)


def edge_width_nm(position_nm: ArrayLike, charge: ArrayLike) -> float:
    """Return the 10-90 % width of the edges of a profile Q(x) with one plateau, in nm.

    The level is the value of largest magnitude; both edges are followed from there outwards to 90
    % and 10 % of it, with linear interpolation, and the widths of those that exist are averaged.

    Raises ValueError if the profile has no edge, or no charge of at least 0.1.

    >>> edge_width_nm([0, 10, 20, 30, 40], [0, 0, -1, -1, -1])
    8.0
    """
    x = np.asarray(position_nm, dtype=np.float64)
    q = np.asarray(charge, dtype=np.float64)
    known = np.isfinite(q)
    x, q = x[known], q[known]
    if q.size == 0 or np.max(np.abs(q)) < 0.1:
        raise ValueError("the profile has no charge whose edge could be measured")
    peak = int(np.argmax(np.abs(q)))
    level = q / q[peak]
    widths = []
    for side in (slice(peak, None), slice(peak, None, -1)):
        xs, ls = x[side], level[side]
        below = [int(np.argmax(ls < part)) for part in (0.9, 0.1)]
        if below[1] == 0:  # never falls below 10 %
            continue
        at = [
            xs[i - 1] + (xs[i] - xs[i - 1]) * (ls[i - 1] - part) / (ls[i - 1] - ls[i])
            for i, part in zip(below, (0.9, 0.1), strict=True)
        ]
        widths.append(abs(at[1] - at[0]))
    if not widths:
        raise ValueError("the profile has no edge: Q does not fall below 10 % on either side")
    return float(np.mean(widths))


@dataclass(frozen=True)
class PlanarProfile:
    """Charge of squares that move along one axis of a slice; nan where a square leaves the defined field.

    z_nm: height of the slice. std: robust standard deviation of the charges of all squares of this side in the slice:
    what squares have that hold no singularity, as long as those are the most.
    """

    axis: Literal["x", "y"]
    position_nm: Float
    side_nm: float
    z_nm: float
    charge_p: Float
    std: float


def planar_profile(
    m_czyx: ArrayLike,
    voxel_nm: float,
    *,
    center_nm: Sequence[float],
    side_nm: float,
    axis: Literal["x", "y"] = "x",
    minimum_norm: float | None = None,
) -> PlanarProfile:
    """Return the planar charge, by the lattice form, of squares along a line through `center_nm`.

    ``Q = 1/(4 pi)`` times the solid angle that m covers over the square, in the slice nearest to the centre's height.
    Not an integer in general: a vortex core (meron) has about +-1/2, and a square without a singularity what the
    texture's curvature and its noise give it, whose spread is `PlanarProfile.std`.

    Raises:
        ValueError: for a side of less than a voxel or more than the slice, or a centre outside the volume.
    """
    field, voxel = checked_field(m_czyx), checked_voxel(voxel_nm)
    if axis not in ("x", "y"):
        raise ValueError(f"axis: expected x or y, got {axis!r}")
    _, nz, ny, nx = field.shape
    k = slice_index(nz, voxel, float(center_nm[2]))
    cells = round(side_nm / voxel)
    if not 1 <= cells < min(ny, nx):
        raise ValueError(
            f"side_nm: {side_nm:g} nm, expected {voxel:g} to {(min(ny, nx) - 1) * voxel:g} nm"
        )
    defined = defined_directions(field, minimum_norm)[k]
    angle = plane_angles(np.ascontiguousarray(field[:, k]), np.ascontiguousarray(defined))
    windows = np.lib.stride_tricks.sliding_window_view(angle, (cells, cells))
    charge_yx = windows.sum(axis=(2, 3)) / (4 * np.pi)
    known = charge_yx[np.isfinite(charge_yx)]
    std = (
        _MAD_TO_SIGMA * float(np.median(np.abs(known - np.median(known)))) if known.size else np.nan
    )
    other = 1 if axis == "x" else 0
    lines = charge_yx if axis == "x" else charge_yx.T
    n_other = (nx, ny)[other]
    row = round(float(center_nm[other]) / voxel + (n_other - 1) / 2 - cells / 2)
    if not 0 <= row < len(lines):
        raise ValueError(f"center_nm: squares around {tuple(center_nm)} leave the slice")
    charge = np.asarray(lines[row], dtype=np.float64)
    n = nx if axis == "x" else ny
    position_nm = (np.arange(len(charge)) + cells / 2 - (n - 1) / 2) * voxel
    return PlanarProfile(axis, position_nm, cells * voxel, (k - (nz - 1) / 2) * voxel, charge, std)

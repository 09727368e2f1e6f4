"""Which disc of one view is which disc of the next: fiducials followed over the tilts of one series.

Views are taken from the tilt nearest to zero outwards, to either side. What is known of the spheres so far predicts
where they fall in the next view, but for a shift that is common to all of them (run-out): the shift on which most
spheres and discs agree is taken, then every sphere gets the disc next to it, if that is near enough. Then all that was
seen of a sphere gives its position anew, by least squares with a weak prior that it lies near the film; where that
leaves too many discs over, on something as thick as wide. A disc that no
sphere claims becomes a sphere of its own: so spheres may enter and leave the field of view, be missed, and come back.

In the stage frame (module `geometry`) ``u = x' cos(theta) - z' sin(theta)``, ``v = y'``; inclination and lean of the
axis are left to the adjustment (module `alignment`), the tolerance here holds them.

Where two spheres are predicted closer to each other than their discs are wide, neither is given a disc in that view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.fiducials import Fiducials
from mistral_txm.reconstruction.geometry import MAX_TILT_DEG, InputError

Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]

LARGEST_STEP_NM = 1000.0
"""Largest shift from one view to the next."""

NEAR_NM = 80.0
"""A disc this near to where a sphere is predicted may be that sphere: less than a sphere's diameter. To it comes what
the prediction itself is unsure of, across the axis, twice its standard deviation."""

HEIGHTS_NM = (250.0, 2500.0)
"""Spheres lie about so far from each other's mean height: film and membrane lie between them, or a pillar does."""
ENOUGH_CLAIMED = 0.8
"""Part of the discs that spheres have to claim for a smaller spread of heights to be right."""
_FIRST_NM = 15.0
"""By which a single observation may be wrong, axis errors included."""
AT_ONCE = 256
"""Shifts that are tried in one array."""
FEWEST_VIEWS = 3
"""A sphere seen in fewer views than this says less than it may spoil."""


@dataclass(frozen=True)
class Tracks:
    """Fiducials followed over one series.

    position_tb_vu_nm: shape (views, spheres, 2): v, u from the image's centre; NaN where a sphere was not seen.
    std_tb_vu_nm: their standard deviations, same shape. shift_vu_nm_t: first estimate of each view's shift against
    the tilt nearest to zero, shape (views, 2), NaN where nothing was matched. stage_xyz_nm: first estimate of the
    spheres in the stage frame, shape (spheres, 3).
    """

    position_tb_vu_nm: Float64
    std_tb_vu_nm: Float64
    shift_vu_nm_t: Float64
    stage_xyz_nm: Float64


def _projected(stage_xyz_nm: Float64, theta_deg: float) -> Float64:
    """(v, u) of spheres in the stage frame at a tilt."""
    c, s = np.cos(np.deg2rad(theta_deg)), np.sin(np.deg2rad(theta_deg))
    return np.column_stack([stage_xyz_nm[:, 1], stage_xyz_nm[:, 0] * c - stage_xyz_nm[:, 2] * s])


def _distances(predicted: Float64, near_u_nm: Float64, seen: Float64) -> Float64:
    """Distances (..., spheres, discs), nm, across the axis in units in which `NEAR_NM` is what a sphere is allowed."""
    off = predicted[..., :, None, :] - seen
    return np.asarray(np.hypot(off[..., 0], off[..., 1] * (NEAR_NM / near_u_nm)[:, None]))


def _agreed_shift(
    predicted: Float64, near_u_nm: Float64, seen: Float64, near_shift: Float64
) -> Float64 | None:
    """The shift that lays most predictions on discs, of equals the one nearest to the neighbour's; None for none."""
    candidates = (seen[:, None] - predicted[None]).reshape(-1, 2)
    away = np.hypot(*(candidates - near_shift).T)
    candidates, away = candidates[away < LARGEST_STEP_NM], away[away < LARGEST_STEP_NM]
    if not len(candidates):
        return None
    hits = np.concatenate(
        [
            (_distances(predicted + part[:, None], near_u_nm, seen).min(axis=2) < NEAR_NM).sum(
                axis=1
            )
            for part in np.array_split(candidates, -(-len(candidates) // AT_ONCE))
        ]
    )
    best = candidates[np.lexsort((away, -hits))[0]]
    distance = _distances(predicted + best, near_u_nm, seen)
    hit = distance.min(axis=1) < NEAR_NM
    return np.asarray(np.median(seen[distance[hit].argmin(axis=1)] - predicted[hit], axis=0))


def _pairs(predicted: Float64, near_u_nm: Float64, seen: Float64) -> tuple[Intp, Intp]:
    """Spheres and discs next to each other both ways and near enough."""
    if not len(predicted) or not len(seen):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    distance = _distances(predicted, near_u_nm, seen)
    disc = distance.argmin(axis=1)
    sphere = np.arange(len(predicted))
    mutual = (distance.argmin(axis=0)[disc] == sphere) & (distance[sphere, disc] < NEAR_NM)
    return sphere[mutual], disc[mutual]


def _located(
    theta_deg: Float64, position_vu_nm: Float64, height_nm: float
) -> tuple[Float64, Float64]:
    """Where a sphere is in the stage frame, from its positions less the views' shifts, and the covariance of x', z'."""
    c, s = np.cos(np.deg2rad(theta_deg)), np.sin(np.deg2rad(theta_deg))
    xx, xz, zz = c @ c, -(c @ s), s @ s + (_FIRST_NM / height_nm) ** 2
    covariance = np.array([[zz, -xz], [-xz, xx]]) / (xx * zz - xz**2)
    x, z = covariance @ np.array([c @ position_vu_nm[:, 1], -(s @ position_vu_nm[:, 1])])
    covariance = _FIRST_NM**2 * covariance
    return np.array([x, position_vu_nm[:, 0].mean(), z]), covariance


def _near_u_nm(covariance_bxz: Float64, theta_deg: float) -> Float64:
    """How far across the axis a disc may be from where each sphere is predicted."""
    along = np.array([np.cos(np.deg2rad(theta_deg)), -np.sin(np.deg2rad(theta_deg))])
    return np.asarray(NEAR_NM + 2 * np.sqrt(np.einsum("i,bij,j->b", along, covariance_bxz, along)))


@dataclass(frozen=True)
class _Followed:
    """Which disc of which view is each sphere, first shifts and places."""

    spheres: list[dict[int, int]]
    shift_vu_nm_t: Float64
    stage_xyz_nm: Float64

    @property
    def claimed(self) -> int:
        """How many discs are spheres that were seen often enough."""
        return sum(len(one) for one in self.spheres if len(one) >= FEWEST_VIEWS)


def _followed(theta: Float64, found_t: Sequence[Fiducials], height_nm: float) -> _Followed:
    """Go through the views from the tilt nearest to zero outwards."""
    spheres: list[dict[int, int]] = []
    stage, unsure = np.zeros((0, 3)), np.zeros((0, 2, 2))
    shift = np.full((theta.size, 2), np.nan)
    for view in np.argsort(np.abs(theta), kind="stable"):
        seen = found_t[view].position_vu_nm
        known = np.flatnonzero(np.isfinite(shift[:, 0]))
        if not len(seen):
            continue
        near = (
            shift[known[np.abs(theta[known] - theta[view]).argmin()]] if known.size else np.zeros(2)
        )
        near_u = _near_u_nm(unsure, theta[view])
        if len(stage):
            agreed = _agreed_shift(_projected(stage, theta[view]), near_u, seen, near)
            if agreed is None:
                continue
        else:
            agreed = near
        predicted = _projected(stage, theta[view]) + agreed
        number, disc = _pairs(predicted, near_u, seen)
        if number.size:
            agreed = agreed + np.median(seen[disc] - predicted[number], axis=0)
        shift[view] = agreed
        width = 2 * float(np.median(found_t[view].radius_nm)) + NEAR_NM / 4
        apart = np.hypot(*(predicted[:, None] - predicted[None]).transpose(2, 0, 1))
        merging = (apart + 1e9 * np.eye(len(apart)) < width).any(axis=1)
        for sphere, which in zip(number, disc, strict=True):
            if merging[sphere]:
                continue
            spheres[sphere][int(view)] = int(which)
            views = np.array(sorted(spheres[sphere]))
            at = np.array([found_t[i].position_vu_nm[spheres[sphere][i]] - shift[i] for i in views])
            stage[sphere], unsure[sphere] = _located(theta[views], at, height_nm)
        for which in np.setdiff1d(np.arange(len(seen)), disc):
            if len(predicted) and np.hypot(*(predicted - seen[which]).T).min() < width:
                continue
            spheres.append({int(view): int(which)})
            at = (seen[which] - agreed)[None]
            first, covariance = _located(theta[[view]], at, height_nm)
            stage, unsure = np.vstack([stage, first]), np.concatenate([unsure, covariance[None]])
    return _Followed(spheres, shift, stage)


def track(theta_deg_t: npt.ArrayLike, found_t: Sequence[Fiducials]) -> Tracks:
    """Follow fiducials over the tilts of one series.

    Args:
        theta_deg_t: tilts, deg, in any order.
        found_t: what `fiducials.find_fiducials` found in each view; none is allowed.

    Raises:
        InputError: for tilts that do not fit, or if fewer than two spheres are seen in `FEWEST_VIEWS` views.
    """
    theta = np.asarray(theta_deg_t, dtype=np.float64)
    if theta.shape != (len(found_t),) or not theta.size:
        raise InputError(
            f"tracks: tilts of shape {theta.shape} for {len(found_t)} views; give one per view"
        )
    if not np.all(np.abs(theta) <= MAX_TILT_DEG):
        raise InputError(
            f"tracks: tilts up to {np.abs(theta).max()}, expected at most {MAX_TILT_DEG:g} deg"
        )
    discs = sum(len(found) for found in found_t)
    followed = _followed(theta, found_t, HEIGHTS_NM[0])
    if followed.claimed < ENOUGH_CLAIMED * discs:
        taller = _followed(theta, found_t, HEIGHTS_NM[1])
        followed = max(followed, taller, key=lambda one: one.claimed)
    spheres, shift, stage = followed.spheres, followed.shift_vu_nm_t, followed.stage_xyz_nm
    kept = [i for i, one in enumerate(spheres) if len(one) >= min(FEWEST_VIEWS, theta.size)]
    if len(kept) < 2:
        raise InputError(
            f"tracks: {len(kept)} spheres could be followed over the tilts, at least 2 are needed; take a "
            "field of view with more fiducials"
        )
    position = np.full((theta.size, len(kept), 2), np.nan)
    std = np.full(position.shape, np.nan)
    for column, sphere in enumerate(kept):
        for view, which in spheres[sphere].items():
            position[view, column] = found_t[view].position_vu_nm[which]
            std[view, column] = found_t[view].std_vu_nm[which]
    return Tracks(position, std, shift, stage[kept])

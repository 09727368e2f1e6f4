"""Where the alignment of a film by its own structure begins (module `reprojection`).

Neighbouring tilts give shifts, the layers heights, and the least tilted views of a later series, laid over those of the
first, its place and azimuth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.coupling import Window
from mistral_txm.reconstruction.film_field import FilmField
from mistral_txm.reconstruction.film_poses import FilmPoses
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.neighbours import neighbour_shifts
from mistral_txm.reconstruction.overlay import Faded, laid_over
from mistral_txm.reconstruction.tilt_series import TiltSeries

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

LIFTS_NM = np.arange(-240.0, 241.0, 20.0)
"""Heights of the film over where shifts are smallest that are tried."""
WITHIN_DEG = 6.0
"""How far the azimuth of a later series may be from what was said."""
UNLIKELY_PER_DEG2 = 1e-3
"""What a correlation has to gain for an azimuth beside the said one, and by how much it must fall off for the film to
show its azimuth at all: that of a vortex is the same at every one."""
TRIED_DEG = 0.5
"""Azimuths that are tried lie so far apart."""
SUMMIT_DEG = 2.0
"""How far about the best azimuth the correlation is fitted by a parabola."""
MOST_REPEATED = 0.95
"""How much of the correlation there may be at another place: of a regular lattice all, of simulated stripes 0.86."""
FLATTEST = 5
"""Views of a later series that are laid over the first's."""


def _smallest(shift_vu_nm: Float64, one: TiltSeries) -> Float64:
    """Move the sample's origin to where the shifts are smallest."""
    basis = one.mount.basis(one.theta_deg_t)
    moves = basis[:, 1::-1, :]
    origin = np.linalg.lstsq(moves.reshape(-1, 3), shift_vu_nm.ravel(), rcond=1e-9)[0]
    return np.asarray(shift_vu_nm - moves @ origin)


def _laid_over_first(
    fields: Sequence[FilmField], poses: FilmPoses, number: int
) -> tuple[FilmPoses, bool]:
    """Turn and move a later series so that its least tilted views lie over those of the first; whether the azimuth
    shows.

    Raises:
        InputError: if they lie there as well at several places.
    """

    def face_on(field: FilmField, k: int, phi_deg: float) -> Faded:
        """Mean of the least tilted views, faded."""
        phis = list(poses.phi_deg_s)
        phis[k] = phi_deg
        tilts = np.abs(np.asarray(field.series[k].theta_deg_t))
        chosen = np.argsort(tilts, kind="stable")[:FLATTEST].tolist()
        flattest = field.laid_some(replace(poses, phi_deg_s=tuple(phis)), k, chosen)
        window = Window.of(flattest)
        mean = np.mean([view.signal_yx for view in flattest], axis=0)
        image, weight = np.zeros((2, *mean.shape))
        part = mean[window.rows, window.columns]
        part = part - np.average(part, weights=window.weight_yx)
        image[window.rows, window.columns] = part * window.weight_yx
        weight[window.rows, window.columns] = window.weight_yx
        return Faded(image, weight)

    said = poses.phi_deg_s[number]
    tried = said + np.arange(-WITHIN_DEG, WITHIN_DEG + 1e-9, TRIED_DEG)
    found: list[tuple[float, float, bool, Float64]] = []
    for field in fields:
        first = face_on(field, 0, poses.phi_deg_s[0])
        laid = [laid_over(first, face_on(field, number, float(phi_deg))) for phi_deg in tried]
        height = np.array([one[0] for one in laid])
        best = int(np.argmax(height - UNLIKELY_PER_DEG2 * (tried - said) ** 2))
        _, elsewhere, displaced = laid[best]
        if elsewhere > MOST_REPEATED * height[best]:
            continue
        near = np.abs(tried - tried[best]) <= SUMMIT_DEG
        bend, slope, _ = np.polyfit(tried[near] - tried[best], height[near], 2)
        shows = bend < -UNLIKELY_PER_DEG2
        summit = float(np.clip(-slope / (2 * bend), -TRIED_DEG, TRIED_DEG)) if shows else 0.0
        phi_deg = float(tried[best]) + summit if shows else said
        found.append((float(height[best]), phi_deg, shows, displaced * field.grid.voxel_nm))
    if not found:
        raise InputError(
            f"the film repeats itself, so that the series at phi = {said:g} deg lies as well over the first one at "
            "several places; a lattice needs fiducials"
        )
    _, phi_deg, shows, displaced_nm = max(found, key=lambda one: one[0])
    phis = list(poses.phi_deg_s)
    phis[number] = phi_deg
    turned = replace(poses, phi_deg_s=tuple(phis))
    moves = np.zeros((len(poses.series_v), 2))
    moves[poses.series_v == number] = displaced_nm
    return turned.moved(moves, turned.to_vu(fields[0].series)), shows


def lifted(fields: Sequence[FilmField], poses: FilmPoses, number: int) -> FilmPoses:
    """Move one series along the normal to where its views fit the layers best.

    Two layers fit two layers again when one lies on the other, so steps downhill do not do this.
    """
    one = fields[0].series[number]
    lift = one.mount.basis(one.theta_deg_t)[:, 1::-1, 2]
    misfit = sum(
        field.coupling(poses, [number]).misfits(field.laid(poses, [number]), LIFTS_NM)
        for field in fields
    )
    shifts = list(poses.shift_st)
    shifts[number] = shifts[number] + lift * LIFTS_NM[int(np.argmin(misfit))]
    return replace(poses, shift_st=tuple(shifts))


def first_poses(fields: Sequence[FilmField]) -> tuple[FilmPoses, Bool]:
    """Shifts and azimuths to begin with, and of each later series whether the film shows its azimuth."""
    phis = tuple(float(one.phi_deg) for one in fields[0].series)
    shifts = tuple(
        _smallest(_neighbours(fields, number), one) for number, one in enumerate(fields[0].series)
    )
    poses = FilmPoses(shifts, phis, (0.0, 0.0))
    shows = np.zeros(len(phis), np.bool_)
    for number in range(len(phis)):
        poses = lifted(fields, poses, number)
        if number:
            poses, shows[number] = _laid_over_first(fields, poses, number)
    return poses, shows[1:]


def _neighbours(fields: Sequence[FilmField], number: int) -> Float64:
    return neighbour_shifts([field.series[number] for field in fields], fields[0].grid.voxel_nm)

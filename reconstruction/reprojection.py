"""Shifts of the views without fiducials: what the joint solve of all views predicts of each, against what was seen.

Whatever structure the film has (in the dichroic signal its domains, in the absorption grains, dirt, an edge, gold) is
solved for jointly from all views; module `coupling` turns what is left of each into a step for all shifts at once,
and for the azimuths of the later series. Between steps the views are laid anew, by the one interpolation that all
solvers share. The start comes from neighbouring tilts (module `neighbours`), and for a later series from its least
tilted views turned over those of the first.

**What this cannot say** (the gauge): a move of the whole sample in its plane changes no image; steps leave it where
it is, and a start from nothing puts the origin where ``sum over views of |shift|^2`` of the first series is smallest.
Its height follows from where the layers are said to be. Inclination and lean of the axis are found with the azimuths;
roll and tilt zero are zero. Shifts that go slowly and smoothly with the tilt are known worst: a vector field can make
up for most of them, unless its length tells (module `uniform_length`). A sample that looks the same when turned, as a
vortex does, holds no azimuth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.coupling import Coupling, Normals, inverse_less_noise
from mistral_txm.reconstruction.film_field import VOXEL_NM, FilmField
from mistral_txm.reconstruction.film_poses import FilmPoses
from mistral_txm.reconstruction.film_start import first_poses, lifted
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.neighbours import Contrast
from mistral_txm.reconstruction.uniform_length import UniformLength

Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]

STEPS = 30
"""At most so many."""
COUPLED_ANEW = (0, 4, 10)
"""Steps before which window, weights and matrices are made anew for where the views then are."""
LIFTED_AGAIN = 4
"""Step before which the series' heights are looked for once more: then shifts are no longer in the way."""
LENGTH_FROM = 4
"""Step from which on the length of the magnetization counts: before, shifts spoil it too much to be a measure."""
SETTLED_PIXELS = 0.03
"""Root mean square step, pixels, from which on the shifts are settled. What then still creeps are the shifts that a
vector field makes up for, and there errors of the model weigh more than the data."""
LEAST_STIFFNESS = 0.4
"""Noise is taken out of the matrix down to this part: what moves nearly freely would go too far otherwise."""
LEAST_STIFFNESS_OF_STD = 0.1
"""The same for the standard deviations; chosen so that errors of five simulated stripe films are 0.6 to 2.4 of them."""
LEAST_STIFFNESS_OF_AZIMUTH = 0.2
"""Part of an azimuth's stiffness that is no noise, from which on the views tell it."""
LARGEST_STEP_PIXELS = 4.0
SURELY_DEG = 1.5
"""By how much laying one series over the other misses the azimuth at most, and the axis what it should be."""
PRIOR_DEG = 1.0
"""Standard deviation of what a person said of an azimuth, and of inclination and lean about 0."""
LAID_DEG = 0.3
"""That of an azimuth from laying one series over the other, where the film shows it."""


@dataclass(frozen=True)
class RefinedShifts:
    """Where the sample's origin falls in each view, and the azimuths that the structure itself says.

    shift_vu_nm_st: (v, u) in nm, shape (views, 2), of each series, with std_vu_nm_st, by noise and model error in the
    gauge. phi_deg_s: azimuth of each series, of the first as it was said; of a sample that looks the same when turned
    they all are, with an infinite standard deviation. axis_deg: inclination and lean of the tilt axis, warp_st what
    they make of the views, as `TiltSeries` takes it. last_step_nm: root mean square of the last step, how far from
    settled the result is. misfit: mean square of what is left of the views in units of what is expected, at most about
    1 where model and noise are right. placed: how many views were laid among the others later (module `placing`).
    """

    shift_vu_nm_st: tuple[Float64, ...]
    std_vu_nm_st: tuple[Float64, ...]
    phi_deg_s: tuple[float, ...]
    std_phi_deg_s: tuple[float, ...]
    axis_deg: tuple[float, float]
    std_axis_deg: tuple[float, float]
    warp_st: tuple[Float64, ...]
    last_step_nm: float
    misfit: float
    placed: int = 0


def refine_shifts(contrasts: Sequence[Contrast], pixel_nm: float) -> RefinedShifts:
    """Find the shift of every view from the film's own structure.

    Args:
        contrasts: at least one; the series of all are the same views. Shifts in their series are not looked at.
        pixel_nm: pixel, nm.

    Raises:
        InputError: for series that cannot be used, or without structure in common.
    """
    if not contrasts or not contrasts[0].series:
        raise InputError("alignment: no tilt series; give at least one")
    binning = max(1, round(VOXEL_NM / pixel_nm))
    fields = [FilmField.of(one, pixel_nm, binning) for one in contrasts]
    poses, shows = first_poses(fields)
    n, angles = len(poses.series_v), len(poses.angles)
    expected_deg, expected_std_deg = poses.angles, np.full(angles, PRIOR_DEG)
    expected_std_deg[: len(shows)][shows] = LAID_DEG
    possible = np.arange(2 * n + angles)
    rms_nm = np.inf
    couplings: list[Coupling] = []
    lengths: list[UniformLength] = []
    for number in range(STEPS):
        if number in COUPLED_ANEW:
            if number == LIFTED_AGAIN:
                for k in range(len(poses.phi_deg_s)):
                    poses = lifted(fields, poses, k)
            couplings = [field.coupling(poses) for field in fields]
            if number == LENGTH_FROM:
                lengths = [UniformLength.of(field, poses) for field in fields if not field.scalar]
        normals = _normals(fields, couplings, lengths, poses, expected_deg, expected_std_deg)
        free = _told(normals, n, possible, len(poses.phi_deg_s) - 1)
        step = np.zeros(2 * n + angles)
        step[free] = -_inverse(normals, n, free, LEAST_STIFFNESS) @ normals.gradient[free]
        moves = step[: 2 * n].reshape(n, 2)
        longest = LARGEST_STEP_PIXELS * pixel_nm
        length = np.maximum(np.hypot(moves[:, 0], moves[:, 1]), 1e-12)
        moves = moves * np.minimum(1, longest / length)[:, None]
        poses = poses.moved(moves, poses.to_vu(fields[0].series))
        turned_deg = poses.angles + np.rad2deg(step[2 * n :])
        turned_deg = np.clip(turned_deg, expected_deg - SURELY_DEG, expected_deg + SURELY_DEG)
        is_open = ~np.isin(np.arange(2 * n, 2 * n + angles), free)
        turned_deg[is_open] = expected_deg[is_open]
        poses = poses.turned(turned_deg - poses.angles)
        rms_nm = float(np.sqrt(np.mean(moves**2)))
        if rms_nm < SETTLED_PIXELS * pixel_nm:
            break
    normals = _normals(fields, couplings, lengths, poses, expected_deg, expected_std_deg)
    free = _told(normals, n, possible, len(poses.phi_deg_s) - 1)
    misfit = normals.misfit / normals.coefficients
    covariance = np.zeros((2 * n + angles, 2 * n + angles))
    repeats = _repeats(couplings)
    covariance[np.ix_(free, free)] = repeats * _inverse(normals, n, free, LEAST_STIFFNESS_OF_STD)
    covariance *= max(misfit, 1.0)
    to_vu = poses.to_vu(fields[0].series)
    blocks = covariance[: 2 * n, : 2 * n].reshape(n, 2, n, 2)[np.arange(n), :, np.arange(n)]
    of_shift = to_vu @ blocks @ to_vu.transpose(0, 2, 1)
    std = np.sqrt(np.maximum(np.diagonal(of_shift, axis1=1, axis2=2), 0))
    ends = np.cumsum([len(one) for one in poses.shift_st])[:-1]
    std_angle = np.rad2deg(np.sqrt(np.maximum(np.diag(covariance)[2 * n :], 0)))
    later = len(poses.phi_deg_s) - 1
    std_phi, std_axis = std_angle[:later], std_angle[later:]
    # what the views together leave open is as the series lie over each other, or as it was said
    std_phi = np.where(std_phi > 0, std_phi, np.where(shows, LAID_DEG, np.inf))
    warp_st = tuple(poses.warp_t(one.theta_deg_t, k) for k, one in enumerate(fields[0].series))
    return RefinedShifts(
        poses.shift_st,
        tuple(np.split(std, ends)),
        poses.phi_deg_s,
        (0.0, *(float(one) for one in std_phi)),
        poses.axis_deg or (0.0, 0.0),
        (float(std_axis[0]), float(std_axis[1])),
        warp_st,
        rms_nm,
        misfit,
    )


def _repeats(couplings: Sequence[Coupling]) -> float:
    """How many coefficients say the same."""
    return max(coupling.window.repeats for coupling in couplings)


def _normals(
    fields: Sequence[FilmField],
    couplings: Sequence[Coupling],
    lengths: Sequence[UniformLength],
    poses: FilmPoses,
    expected_deg: Float64,
    expected_std_deg: Float64,
) -> Normals:
    """What all contrasts together say, that magnetization has one length, and what is known of the angles before."""
    series = fields[0].series
    parts = [
        coupling.normals(field.laid(poses), poses.turns(series))
        for field, coupling in zip(fields, couplings, strict=True)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    for one in lengths:
        one.add_to(total, poses, _repeats(couplings))
    weight = _repeats(couplings) / np.deg2rad(expected_std_deg) ** 2
    angles = np.arange(len(total.gradient) - len(expected_deg), len(total.gradient))
    total.gradient[angles] += weight * np.deg2rad(poses.angles - expected_deg)
    total.matrix[angles, angles] += weight
    return total


def _told(normals: Normals, views: int, free: Intp, azimuths: int) -> Intp:
    """The unknowns less the azimuths that the views leave open: turning what is round changes only the noise."""
    matrix, noise = _held(normals, views, free), normals.noise[np.ix_(free, free)]
    is_azimuth = (free >= 2 * views) & (free < 2 * views + azimuths)
    directions = np.linalg.inv(matrix)[:, is_azimuth]
    of_noise = np.sum(directions * (noise @ directions), axis=0)
    stiffness = 1 - of_noise / np.sum(directions * (matrix @ directions), axis=0)
    kept = ~is_azimuth
    kept[is_azimuth] = stiffness > LEAST_STIFFNESS_OF_AZIMUTH
    return free[kept]


def _inverse(normals: Normals, views: int, free: Intp, least: float) -> Float64:
    """Inverse of the matrix of the free unknowns less what noise put into it, of which a part `least` stays."""
    noise = normals.noise[np.ix_(free, free)]
    return inverse_less_noise(_held(normals, views, free), noise, least)


def _held(normals: Normals, views: int, free: Intp) -> Float64:
    """The matrix of the free unknowns, with moves of the whole sample in its plane held."""
    matrix = normals.matrix
    strength = float(np.mean(np.diag(matrix)[: 2 * views]))
    if not strength > 0:
        raise InputError("alignment: the views have no structure to compare")
    moves = np.zeros((2, len(matrix)))
    moves[0, 0 : 2 * views : 2] = moves[1, 1 : 2 * views : 2] = 1 / np.sqrt(views)
    held = matrix + strength * moves.T @ moves
    held[np.diag_indices(2 * views)] += 1e-6 * strength
    return np.asarray(held[np.ix_(free, free)])

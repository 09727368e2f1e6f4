"""Shifts of the views without fiducials: what the joint solve of all views predicts of each, against what was seen.

Whatever structure the film has (in the dichroic signal its domains, in the absorption grains, dirt, an edge, gold) is
solved for jointly from all views; module `coupling` turns what is left of each into a step for all shifts at once,
and for the azimuths of the later series. Between steps the views are laid anew, by the one interpolation that all
solvers share. The start comes from neighbouring tilts (module `neighbours`), and for a later series from its least
tilted views turned over those of the first.

**What this cannot say** (the gauge): a move of the whole sample in its plane changes no image; steps leave it where it
is, and a start from nothing puts the origin where ``sum over views of |shift|^2`` of the first series is smallest.
Its height follows from where the layers are said to be. Inclination and lean of the axis are found with the azimuths;
roll and tilt zero are zero. Shifts that go slowly and smoothly with the tilt are known worst: a vector field can make
up for most of them. A sample that looks the same when turned, as a vortex does, holds no azimuth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.coupling import Coupling, Normals, Window
from mistral_txm.reconstruction.film_poses import FilmPoses
from mistral_txm.reconstruction.geometry import Grid, InputError
from mistral_txm.reconstruction.layers import Support, layer_coverage
from mistral_txm.reconstruction.neighbours import (
    Contrast,
    centre_moved_pixels,
    neighbour_shifts,
    prepared,
)
from mistral_txm.reconstruction.overlay import Faded, laid_over
from mistral_txm.reconstruction.tilt_series import TiltSeries
from mistral_txm.reconstruction.views import (
    Domain,
    View,
    checked_film,
    film_views,
    padded_domain,
)

Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]

VOXEL_NM = 21.0
"""Pixels are binned to about this: the finest structure that is used has four of them (`coupling.SHORTEST_NM`)."""
STEPS = 30
"""At most so many."""
COUPLED_ANEW = (0, 4, 10)
"""Steps before which window, weights and matrices are made anew for where the views then are."""
LIFTED_AGAIN = 4
"""Step before which the series' heights are looked for once more: then shifts are no longer in the way."""
SETTLED_PIXELS = 0.03
"""Root mean square step, pixels, from which on the shifts are settled. What then still creeps are the shifts that a
vector field makes up for, and there errors of the model weigh more than the data: going on makes them worse."""
LEAST_STIFFNESS = 0.4
"""Noise is taken out of the matrix down to this part: what moves nearly freely would go too far otherwise."""
LEAST_STIFFNESS_OF_STD = 0.1
"""The same for the standard deviations; chosen so that errors of five simulated stripe films are 0.6 to 2.4 of them."""
LEAST_STIFFNESS_OF_AZIMUTH = 0.2
"""Part of an azimuth's stiffness that is no noise, from which on the views tell it."""
LARGEST_STEP_PIXELS = 4.0
LIFTS_NM = np.arange(-240.0, 241.0, 20.0)
"""Heights of the film over where shifts are smallest that are tried."""
WITHIN_DEG = 6.0
"""How far the azimuth of a later series may be from what was said."""
UNLIKELY_PER_DEG2 = 1e-3
"""What a correlation has to gain for an azimuth beside the said one, and by how much it must fall off for the film to
show its azimuth at all: that of a vortex is the same at every one."""
TRIED_DEG = 0.5
"""Azimuths that are tried lie so far apart."""
SURELY_DEG = 1.5
"""By how much laying one series over the other misses the azimuth at most, and the axis what it should be."""
PRIOR_DEG = 1.0
"""Standard deviation of what a person said of an azimuth, and of inclination and lean about 0."""
LAID_DEG = 0.3
"""That of an azimuth from laying one series over the other, where the film shows it."""
SUMMIT_DEG = 2.0
"""How far about the best azimuth the correlation is fitted by a parabola."""
MOST_REPEATED = 0.95
"""How much of the correlation there may be at another place: of a regular lattice all, of simulated stripes 0.86."""
FLATTEST = 5
"""Views of a later series that are laid over the first's."""


@dataclass(frozen=True)
class RefinedShifts:
    """Where the sample's origin falls in each view, and the azimuths that the structure itself says.

    shift_vu_nm_st: (v, u) in nm, shape (views, 2), of each series, with std_vu_nm_st, by noise and model error in the
    gauge; zero for what was known. phi_deg_s: azimuth of each series, of the first as it was said; of a sample that
    looks the same when turned they all are, with an infinite standard deviation. axis_deg: inclination and lean of
    the tilt axis, warp_st what they make of the views, as `TiltSeries` takes it; zero and none where the warps of the
    series stay. last_step_nm: root
    mean square of the last step, how far from settled the result is. misfit: mean square of what is left of the views
    in units of what is expected, at most about 1 where model and noise are right.
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


@dataclass(frozen=True)
class _Field:
    """One contrast with binned images, on its grid."""

    series: tuple[TiltSeries, ...]
    grid: Grid
    domain: Domain
    support: Support
    scalar: bool
    centre_moved_nm: Float64

    @classmethod
    def of(cls, contrast: Contrast, pixel_nm: float, binning: int) -> _Field:
        """Bin the images and choose layers of voxels for where the contrast lies."""
        found, steepest_deg = checked_film(contrast.series)
        shape = found[0].signal_tvu.shape[1:]
        voxel_nm = binning * pixel_nm
        series = tuple(prepared(one, binning) for one in contrast.series)
        n_v, n_u = np.asarray(series[0].dichroic_tvu).shape[1:]
        reach = max(abs(border) for layer in contrast.layers_nm for border in layer)
        grid = Grid((2 * int(np.ceil(reach / voxel_nm)), n_v, n_u), voxel_nm)
        coverage = layer_coverage(grid, contrast.layers_nm)
        support = Support(grid.z_nm[coverage > 0], coverage[coverage > 0])
        moved = centre_moved_pixels(shape, binning) * pixel_nm
        return cls(series, grid, padded_domain(grid, steepest_deg), support, contrast.scalar, moved)

    def laid(self, poses: FilmPoses, which: Sequence[int] | None = None) -> list[View]:
        """Views of all or some of the series in the sheared frame, by these poses."""
        numbers = range(len(self.series)) if which is None else which
        posed = [poses.laid(self.series[k], k, self.centre_moved_nm) for k in numbers]
        views = [
            view
            for one in checked_film(posed)[0]
            for view in film_views(one, self.grid, self.domain)
        ]
        if not self.scalar:
            return views
        # A scalar's path through a layer is dz / cos(theta); a vector's weights hold that factor already.
        cosines = np.cos(np.deg2rad([view.theta_deg for view in views]))
        return [
            replace(view, signal_yx=np.float32(c) * view.signal_yx, std_signal=c * view.std_signal)
            for view, c in zip(views, cosines, strict=True)
        ]

    def coupling(self, poses: FilmPoses, which: Sequence[int] | None = None) -> Coupling:
        """The views of all or some of the series tied together, as they lie now."""
        views = self.laid(poses, which)
        return Coupling.of(views, self.grid, self.domain, self.support, scalar=self.scalar)


def _smallest(shift_vu_nm: Float64, one: TiltSeries) -> Float64:
    """Move the sample's origin to where the shifts are smallest."""
    basis = one.mount.basis(one.theta_deg_t)
    moves = basis[:, 1::-1, :]
    origin = np.linalg.lstsq(moves.reshape(-1, 3), shift_vu_nm.ravel(), rcond=1e-9)[0]
    return np.asarray(shift_vu_nm - moves @ origin)


def _laid_over_first(
    fields: Sequence[_Field], poses: FilmPoses, number: int
) -> tuple[FilmPoses, bool]:
    """Turn and move a later series so that its least tilted views lie over those of the first; whether the azimuth
    shows.

    Raises:
        InputError: if they lie there as well at several places.
    """

    def face_on(field: _Field, k: int, phi_deg: float) -> Faded:
        """Mean of the least tilted views, faded."""
        phis = list(poses.phi_deg_s)
        phis[k] = phi_deg
        views = field.laid(replace(poses, phi_deg_s=tuple(phis)), [k])
        flattest = sorted(views, key=lambda view: abs(view.theta_deg))[:FLATTEST]
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


def _lifted(fields: Sequence[_Field], poses: FilmPoses, number: int) -> FilmPoses:
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


def _start(
    fields: Sequence[_Field], known_st: Sequence[Float64] | None
) -> tuple[FilmPoses, Float64]:
    """Shifts to begin with: from neighbours, and where some are known, the unknown ones against these.

    Also how well the angles are known by then, standard deviations in deg.
    """
    shifts = []
    phis = tuple(float(one.phi_deg) for one in fields[0].series)
    for number, one in enumerate(fields[0].series):
        alone = neighbour_shifts(
            [field.series[number] for field in fields], fields[0].grid.voxel_nm
        )
        if known_st is None:
            shifts.append(_smallest(alone, one))
            continue
        known = np.asarray(np.isfinite(known_st[number]).all(axis=1))
        theta = np.asarray(one.theta_deg_t, dtype=np.float64)
        off = known_st[number] - alone
        order = np.argsort(theta[known])
        between = [
            np.interp(theta, theta[known][order], off[known][order, axis]) for axis in (0, 1)
        ]
        shifts.append(np.where(known[:, None], known_st[number], alone + np.column_stack(between)))
    poses = FilmPoses(tuple(shifts), phis, (0.0, 0.0) if known_st is None else None)
    std_deg = np.full(len(poses.angles), PRIOR_DEG)
    if known_st is None:
        for number in range(len(shifts)):
            poses = _lifted(fields, poses, number)
            if number:
                poses, shows = _laid_over_first(fields, poses, number)
                std_deg[number - 1] = LAID_DEG if shows else PRIOR_DEG
    return poses, std_deg


def refine_shifts(
    contrasts: Sequence[Contrast],
    pixel_nm: float,
    *,
    known_st: Sequence[Float64] | None = None,
) -> RefinedShifts:
    """Find the shift of every view from the film's own structure.

    Args:
        contrasts: at least one; the series of all are the same views. Shifts in their series are not looked at.
        pixel_nm: pixel, nm.
        known_st: shifts (v, u) in nm of each series, shape (views, 2), that stay, NaN where they are to be found; the
            azimuths and the warps of the series stay, too. None: nothing is known.

    Raises:
        InputError: for series that cannot be used, or without structure in common.
    """
    if not contrasts or not contrasts[0].series:
        raise InputError("alignment: no tilt series; give at least one")
    binning = max(1, round(VOXEL_NM / pixel_nm))
    fields = [_Field.of(one, pixel_nm, binning) for one in contrasts]
    poses, expected_std_deg = _start(fields, known_st)
    n, angles = len(poses.series_v), len(poses.angles)
    expected_deg = poses.angles
    possible = np.arange(2 * n + angles)
    if known_st is not None:
        unknown = ~np.isfinite(np.concatenate(list(known_st))).all(axis=1)
        possible = np.flatnonzero(np.repeat(unknown, 2))
    rms_nm = np.inf
    couplings: list[Coupling] = []
    for number in range(STEPS):
        if number in COUPLED_ANEW:
            if number == LIFTED_AGAIN and known_st is None:
                for k in range(len(poses.phi_deg_s)):
                    poses = _lifted(fields, poses, k)
            couplings = [field.coupling(poses) for field in fields]
        normals = _normals(fields, couplings, poses, expected_deg, expected_std_deg)
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
        rms_nm = float(np.sqrt(np.mean(moves[moves.any(axis=1)] ** 2))) if moves.any() else 0.0
        if rms_nm < SETTLED_PIXELS * pixel_nm:
            break
    normals = _normals(fields, couplings, poses, expected_deg, expected_std_deg)
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
    std_phi, std_axis = std_angle[:later], [*std_angle[later:], 0.0, 0.0]
    if known_st is None:
        # what the views together leave open is as the series lie over each other, or as it was said
        shown = expected_std_deg[:later] == LAID_DEG
        std_phi = np.where(std_phi > 0, std_phi, np.where(shown, LAID_DEG, np.inf))
    series = fields[0].series if known_st is None else ()
    warp_st = tuple(poses.warp_t(one.theta_deg_t, k) for k, one in enumerate(series))
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
    fields: Sequence[_Field],
    couplings: Sequence[Coupling],
    poses: FilmPoses,
    expected_deg: Float64,
    expected_std_deg: Float64,
) -> Normals:
    """What all contrasts together say, and what is known of the angles before."""
    series = fields[0].series
    parts = [
        coupling.normals(field.laid(poses), poses.turns(series))
        for field, coupling in zip(fields, couplings, strict=True)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
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
    """Inverse of the matrix less what noise put into it, of which a part `least` stays in every direction."""
    inverse = np.linalg.inv(np.linalg.cholesky(_held(normals, views, free)))
    noise = normals.noise[np.ix_(free, free)]
    stiffness, modes = np.linalg.eigh(np.eye(len(free)) - inverse @ noise @ inverse.T)
    directions = inverse.T @ modes
    return np.asarray((directions / np.maximum(stiffness, least)) @ directions.T)


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

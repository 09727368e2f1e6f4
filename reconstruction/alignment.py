"""Where the sample truly stood in every view, from fiducials: one adjustment of all tilts of all series.

A point r of the sample (frames: module `geometry`) falls in a view of tilt theta on

    ``(u, v) = q R(inclination) (u0, v0) + (shift_u, shift_v)``,
    ``u0 = x'' cos(theta) - z'' sin(theta)``, ``v0 = y'' cos(lean) - w sin(lean)``,
    ``w = x'' sin(theta) + z'' cos(theta)``, ``r'' = Rx(roll) Rz(phi) r``, ``theta = motor + tilt_zero``.

- **inclination** of the tilt axis turns the image counter-clockwise from u towards v; **lean** tips the axis
  towards the camera; both belong to the microscope and are common to all series.
- **shift**, free in every view: run-out, drift, the axis beside the image's centre.
- **phi**, **tilt_zero** and **roll**, one each per series: how the sample was put on the stage. Of the first series
  phi is what the person said and the other two are zero: that is the definition of the sample frame, not a result.
- q, the scale of a view, is 1; where the residuals say that the views differ in it (the zone plate moved), it is
  free with the mean of ln q zero.

`adjust` minimizes ``sum of rho((predicted - seen) / std)``, rho the soft L1 loss, over the positions of the spheres
and all of these. The axis' angles, and what mounting leaves besides phi, have the prior 0 +- `ANGLE_PRIOR_DEG`, which
decides nothing unless two or three spheres lie too close together to tell.

**What fiducials cannot say** (the gauge): moving all spheres by c while every shift moves by the projection of -c
changes no image. The sample's origin is therefore put where ``sum over views of |shift|^2`` is smallest: in x and y
the middle of the field of view, in z the height of the tilt axis. Where the film's middle is must come from elsewhere
(spheres on its surface: `Alignment.with_origin`). Nor do they say what angle the film makes with the stage in the
first series, its true phi, or the pixel's size.

Standard deviations come from the normal matrix at the solution, with the robust weights and in this gauge; where the
residuals are larger than the centres' own standard deviations say, they are scaled by that factor. A view with one
fiducial alone has nothing to check it by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.bundle import (
    OUTLIER_SIGMA,
    BundleModel,
    Observations,
    solved,
)
from mistral_txm.reconstruction.constellation import match_constellations
from mistral_txm.reconstruction.fiducials import Fiducials
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.poses import Alignment, SeriesPose, turn
from mistral_txm.reconstruction.tracks import Tracks, track

Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]

FEWEST_TILTS = 2
"""Of each series: from one direction heights are not seen."""
CENTRE_FLOOR_NM = 0.1
"""What a centre is wrong by besides noise: 0.01 pixels, the fit's own bias."""
VIEW_FLOOR_NM = 0.06
"""What all centres of a view are wrong by alike, which residuals do not show: so much do the errors of ten simulated
spheres exceed what their residuals say."""


@dataclass(frozen=True)
class MarkedSeries:
    """One tilt series with the fiducials that were found in it.

    phi_deg: azimuth at which the sample was mounted, as the person said. theta_deg_t: tilts by the motor, shape
    (views,). found_t: of `fiducials.find_fiducials`, one per view.
    """

    phi_deg: float
    theta_deg_t: npt.ArrayLike
    found_t: Sequence[Fiducials]


def adjust(
    series: Sequence[MarkedSeries],
    pixel_nm: float,
    *,
    within_deg: float = 10.0,
) -> Alignment:
    """Find the poses of all views of all series from the fiducials in them.

    Each series alone gives its spheres in three dimensions; the constellations of later series are found in the first,
    which gives their azimuths; then everything is adjusted together.

    Args:
        series: at least one; the first defines the sample frame.
        pixel_nm: pixel, nm.
        within_deg: how far the true azimuths of later series may be from what was said.

    Raises:
        InputError: if there are too few fiducials or tilts, or constellations do not match.
    """
    if not series:
        raise InputError("alignment: no tilt series; give at least one")
    theta = [np.asarray(one.theta_deg_t, dtype=np.float64) for one in series]
    for one, t in zip(series, theta, strict=True):
        if len(t) < FEWEST_TILTS:
            raise InputError(
                f"phi = {one.phi_deg:g} deg: one view does not tell how high its fiducials are; more tilts are needed"
            )
    tracks = [track(t, one.found_t) for t, one in zip(theta, series, strict=True)]
    alone = []
    for one, t, tracked in zip(series, theta, tracks, strict=True):
        number = np.arange(len(tracked.stage_xyz_nm))
        model = BundleModel([t], 0.0, _observations([tracked], [number]), len(number))
        start = np.zeros(model.size)
        start[: model.at_shift] = tracked.stage_xyz_nm.ravel()
        start[model.at_shift : model.at_axis] = np.nan_to_num(tracked.shift_vu_nm_t).ravel()
        if len(series) == 1:
            model = BundleModel([t], one.phi_deg, model.seen, len(number))
            turned = tracked.stage_xyz_nm @ turn(2, np.deg2rad(one.phi_deg))
            start = np.concatenate(
                [turned.ravel(), start[model.at_shift :], np.zeros(model.size - len(start))]
            )
            return _adjusted(model, start, pixel_nm, [len(t)])
        alone.append(_adjusted(model, start, pixel_nm, [len(t)]))
    return _joined(series, theta, tracks, alone, pixel_nm, within_deg)


def _joined(
    series: Sequence[MarkedSeries],
    theta: Sequence[Float64],
    tracks: Sequence[Tracks],
    alone: Sequence[Alignment],
    pixel_nm: float,
    within_deg: float,
) -> Alignment:
    """Match the later series with the first and adjust all of them together."""
    first_phi = series[0].phi_deg
    spheres = alone[0].sphere_xyz_nm @ turn(2, np.deg2rad(first_phi))
    sphere_of = [np.arange(len(spheres))]
    shifts = [np.nan_to_num(alone[0].series[0].shift_vu_nm_t)]
    mounts: list[float] = []
    for one, own in zip(series[1:], alone[1:], strict=True):
        phi, move, pairs = match_constellations(
            spheres, own.sphere_xyz_nm, one.phi_deg, within_deg=within_deg
        )
        number = np.full(len(own.sphere_xyz_nm), -1)
        number[pairs[:, 1]] = pairs[:, 0]
        new = np.flatnonzero(number < 0)
        number[new] = len(spheres) + np.arange(len(new))
        placed = (own.sphere_xyz_nm[new] - move) @ turn(2, np.deg2rad(phi))
        spheres = np.vstack([spheres, placed])
        sphere_of.append(number)
        pose = own.with_origin(move)
        shifts.append(np.nan_to_num(pose.series[0].shift_vu_nm_t))
        mounts += [np.deg2rad(phi), 0.0, 0.0]
    model = BundleModel(list(theta), first_phi, _observations(tracks, sphere_of), len(spheres))
    axis = np.deg2rad(
        [np.mean([a.inclination_deg for a in alone]), np.mean([a.lean_deg for a in alone])]
    )
    start = np.zeros(model.size)
    start[: model.at_scale] = np.concatenate(
        [spheres.ravel(), np.concatenate(shifts).ravel(), axis, mounts]
    )
    return _adjusted(model, start, pixel_nm, [len(t) for t in theta])


def _observations(tracks: Sequence[Tracks], sphere_of: Sequence[Intp]) -> Observations:
    """Gather the centres of all series; sphere_of numbers the spheres of each series in common."""
    views, spheres, positions, stds = [], [], [], []
    first = 0
    for one, number in zip(tracks, sphere_of, strict=True):
        view, column = np.nonzero(np.isfinite(one.position_tb_vu_nm[:, :, 0]))
        views.append(view + first)
        spheres.append(number[column])
        positions.append(one.position_tb_vu_nm[view, column])
        stds.append(one.std_tb_vu_nm[view, column])
        first += len(one.position_tb_vu_nm)
    std = np.hypot(np.concatenate(stds), CENTRE_FLOOR_NM)
    return Observations(
        np.concatenate(views), np.concatenate(spheres), np.concatenate(positions), std
    )


def _adjusted(
    model: BundleModel, start: Float64, pixel_nm: float, counts: Sequence[int]
) -> Alignment:
    """Solve twice, the second time with the standard deviations that the residuals show, and collect the result."""
    x = solved(model, start)
    count = 2 * len(model.seen.view)
    parameters = model.size - 3
    raw = np.abs(model.residuals(x)[:count])
    freedom = max(1.0 - parameters / count, 0.1)
    factor = max(1.0, 1.4826 * float(np.median(raw)) / np.sqrt(freedom))
    if factor > 1.0:
        model.seen = replace(model.seen, std_vu=model.seen.std_vu * factor)
        x = solved(model, x)
    if not model.fit_scale and model.scale_is_seen(x):
        model.seen = replace(model.seen, std_vu=model.seen.std_vu / factor)
        model.free_scale()
        return _adjusted(model, np.append(x, np.zeros(model.views)), pixel_nm, counts)
    x = model.in_gauge(x)
    residuals = model.residuals(x)
    std = model.std(x, 1 / np.sqrt(1 + (residuals / OUTLIER_SIGMA) ** 2))
    sigma = residuals[:count].reshape(-1, 2)
    off_nm = sigma * model.seen.std_vu
    outlier = (np.abs(sigma) > OUTLIER_SIGMA).any(axis=1)
    rms_nm = float(np.sqrt(np.mean(off_nm[~outlier] ** 2))) if (~outlier).any() else np.inf
    squares = np.bincount(model.seen.view, (off_nm**2).sum(axis=1), model.views)
    seen = np.bincount(model.seen.view, minlength=model.views)
    with np.errstate(invalid="ignore", divide="ignore"):
        rms_t = np.sqrt(squares / (2 * seen))
    shift, std_shift = (a[model.at_shift : model.at_axis].reshape(-1, 2) for a in (x, std))
    shift = np.where(seen[:, None] > 0, shift, np.nan)
    std_shift = np.hypot(std_shift, VIEW_FLOOR_NM)
    mounts = np.rad2deg(model.mounts(x))
    std_mounts = np.rad2deg(
        np.vstack([np.zeros(3), std[model.at_mount : model.at_scale].reshape(-1, 3)])
    )
    poses, first = [], 0
    for number, views in enumerate(counts):
        part = slice(first, first + views)
        first += views
        poses.append(
            SeriesPose(
                float(mounts[number, 0]), float(std_mounts[number, 0]),
                float(mounts[number, 1]), float(std_mounts[number, 1]),
                float(mounts[number, 2]), float(std_mounts[number, 2]),
                np.rad2deg(model.theta[part]) + mounts[number, 1],
                shift[part], std_shift[part], model.scale(x)[part], rms_t[part],
            )
        )  # fmt: skip
    axis, std_axis = (np.rad2deg(a[model.at_axis : model.at_mount]) for a in (x, std))
    return Alignment(
        tuple(poses), float(axis[0]), float(std_axis[0]), float(axis[1]), float(std_axis[1]),
        x[: model.at_shift].reshape(-1, 3), std[: model.at_shift].reshape(-1, 3),
        rms_nm, rms_nm / pixel_nm, len(model.seen.view), int(outlier.sum()), factor,
    )  # fmt: skip

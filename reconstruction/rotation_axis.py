"""Where a region of the sample lies against the tilt axis, from views of one series.

In the stage frame a point at (x', z') from the tilt axis falls on

    ``u = u0 + x' cos(theta) - z' sin(theta)``,

u0 where the axis itself is imaged. The **region** is the part of the film that one view, the reference, shows in the
middle. A view stretched by 1 / cos(theta) shows a film in its own coordinates, displaced by

    ``s = x' + u0 / cos(theta) - z' tan(theta)``,

magnetic domains and gold spheres alike. Neighbouring views are correlated (module `image_shift`) from the reference
outwards, where the next is laid by what the last ones tell: so the region may leave the field of view. (To follow the
spheres alone needs some in every view, takes longer, and finds where they lie: 170 to 220 nm off the film's middle.)

Over 110 deg, cos(theta) is nearly a constant: what the views say of u0 and x' alone is five times less sure than what
they say of their sum, and slow run-out passes for either. Microscopes are aligned so that the axis is imaged in the
middle: that is taken as known to `AXIS_IMAGE_STD_NM`, unless the views contradict it by more than `CONTRADICTION`
standard deviations; then u0 is free. Run-out counts as noise: its size is that of what the fit leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from mistral_txm.reconstruction.binning import binned
from mistral_txm.reconstruction.geometry import MAX_TILT_DEG, InputError
from mistral_txm.reconstruction.image_shift import NoCommonStructureError, image_shift

Float64 = npt.NDArray[np.float64]

AXIS_IMAGE_STD_NM = 20.0
"""How surely the tilt axis is imaged in the middle of the camera, before anything is measured: two pixels."""

CONTRADICTION = 4.0
"""In standard deviations: the axis is imaged elsewhere. Slow run-out reaches 3."""

FEWEST_VIEWS = 5
LEAST_RANGE_DEG = 20.0
"""From fewer views, or over less, x' and z' cannot be told apart from run-out."""

_ROUNDS = 20
_FIRST_SEARCH = 0.35
_LATER_NM = 170.0
"""A step is predicted but for run-out; stripes repeat after some 390 nm."""
_LEAST_WIDTH = 48
_BINNED_PIXELS = 256
"""Larger views are binned to about so many: their accuracy is far beyond what run-out leaves."""


@dataclass(frozen=True)
class RegionPath:
    """Where the region of the reference falls in each view: u from the image's middle, nm, and its standard deviation.

    NaN where it could not be followed.
    """

    theta_deg_t: Float64
    u_nm_t: Float64
    std_nm_t: Float64


@dataclass(frozen=True)
class AxisFit:
    """Where a region lies against the tilt axis, nm, with standard deviations; `rms_nm` is what the fit leaves in u.

    `axis_is_free`: the views say that the axis is not imaged in the middle; u0_nm is where it is.
    """

    x_nm: float
    z_nm: float
    u0_nm: float
    std_x_nm: float
    std_z_nm: float
    std_u0_nm: float
    rms_nm: float
    axis_is_free: bool

    def u_nm(self, theta_deg: npt.ArrayLike) -> Float64:
        """Return ``u0 + x' cos(theta) - z' sin(theta)``.

        >>> AxisFit(100.0, 200.0, 7.0, 1.0, 1.0, 1.0, 0.0, False).u_nm([0.0, 90.0]).round(6)
        array([ 107., -193.])
        """
        columns = _columns(np.asarray(theta_deg, dtype=np.float64))
        return np.asarray(columns @ np.array([self.u0_nm, self.x_nm, self.z_nm]))


def fit_axis(path: RegionPath) -> AxisFit:
    """Fit where the region lies against the axis.

    Raises:
        InputError: for fewer than `FEWEST_VIEWS` views, or tilts over less than `LEAST_RANGE_DEG`.

    >>> theta = np.arange(-50.0, 51.0, 10.0)
    >>> u = 100 * np.cos(np.deg2rad(theta)) - 3000 * np.sin(np.deg2rad(theta))
    >>> fit = fit_axis(RegionPath(theta, u, np.ones(11)))
    >>> round(fit.z_nm), fit.axis_is_free
    (3000, False)
    """
    known = np.isfinite(path.u_nm_t)
    theta, u, std = path.theta_deg_t[known], path.u_nm_t[known], path.std_nm_t[known]
    if len(theta) < FEWEST_VIEWS or np.ptp(theta) < LEAST_RANGE_DEG:
        over = f"{theta.min():g} to {theta.max():g} deg" if len(theta) else "none"
        raise InputError(
            f"rotation axis: the region was followed over {len(theta)} of {len(path.theta_deg_t)} views ({over}), "
            f"at least {FEWEST_VIEWS} over {LEAST_RANGE_DEG:g} deg are needed; take smaller steps, or longer exposures"
        )
    matrix = _columns(theta)
    free = _solve(matrix, u, std, None)
    u0, std_u0 = free[0][0], float(np.sqrt(free[1][0, 0]))
    axis_is_free = bool(abs(u0) > CONTRADICTION * np.hypot(std_u0, AXIS_IMAGE_STD_NM))
    solution, covariance = free if axis_is_free else _solve(matrix, u, std, AXIS_IMAGE_STD_NM)
    left = u - matrix @ solution
    std_u0, std_x, std_z = np.sqrt(np.diag(covariance))
    return AxisFit(
        x_nm=float(solution[1]),
        z_nm=float(solution[2]),
        u0_nm=float(solution[0]),
        std_x_nm=float(std_x),
        std_z_nm=float(std_z),
        std_u0_nm=float(std_u0),
        rms_nm=float(np.sqrt(np.mean(left**2))),
        axis_is_free=axis_is_free,
    )


def follow_region(
    theta_deg_t: npt.ArrayLike,
    transmittance_tvu: Sequence[npt.NDArray[np.floating]],
    pixel_nm: float,
    reference: int,
    *,
    reference_u_nm: float = 0.0,
) -> RegionPath:
    """Follow what the view `reference` shows in its middle, or at `reference_u_nm`.

    A view that has nothing in common with its neighbour ends the path on its side.

    Args:
        theta_deg_t: tilts, deg, in any order, each once.
        transmittance_tvu: views ``[v, u]`` of one helicity and shape, NaN where unknown.
        pixel_nm: pixel, nm.
        reference: index of the view.
        reference_u_nm: where the region is in that view; elsewhere than in the middle if it was moved on purpose.

    Raises:
        InputError: for tilts that do not fit the views, or a view that is masked all over.
    """
    theta = np.asarray(theta_deg_t, dtype=np.float64)
    if theta.shape != (len(transmittance_tvu),) or not np.all(np.abs(theta) <= MAX_TILT_DEG):
        raise InputError(
            f"rotation axis: {len(transmittance_tvu)} views and tilts {theta.tolist()}; give one tilt for each, at "
            f"most {MAX_TILT_DEG:g} deg"
        )
    binned = [_binned(view, pixel_nm, _BINNED_PIXELS) for view in transmittance_tvu]
    views, pixel_nm = [view for view, _ in binned], binned[0][1]
    n_t = len(theta)
    s, var = np.full(n_t, np.nan), np.full(n_t, np.nan)
    tangent, cosine = np.tan(np.deg2rad(theta)), np.cos(np.deg2rad(theta))
    s[reference], var[reference] = reference_u_nm / cosine[reference], 0.0
    order = np.argsort(theta)
    start = int(np.flatnonzero(order == reference)[0])
    sides = [order[start:], order[: start + 1][::-1]]
    slope: float | None = None
    # From both sides in turns: the first steps of one tell where those of the other lead.
    steps = sorted(
        (number, int(a), int(b)) for side in sides for number, (a, b) in enumerate(pairwise(side))
    )
    for _number, known, view in steps:
        if not np.isfinite(s[known]):
            continue
        predicted = s[known] + (0.0 if slope is None else slope) * (tangent[view] - tangent[known])
        width = int(np.ceil(views[view].shape[1] / min(cosine[known], cosine[view])))
        pair = [
            stretched(views[j], float(cosine[j]), offset / pixel_nm, width)
            for j, offset in ((known, s[known]), (view, predicted))
        ]
        common = np.flatnonzero(np.isfinite(pair[0][0]) & np.isfinite(pair[1][0]))
        if len(common) < _LEAST_WIDTH:
            continue
        pair = [one[:, common[0] : common[-1] + 1] for one in pair]
        most = (
            _FIRST_SEARCH * len(common)
            if slope is None
            else _LATER_NM / (pixel_nm * float(cosine[view]))
        )
        try:
            found = image_shift(pair[0], pair[1], most_pixels=most)
        except NoCommonStructureError:
            continue
        s[view] = predicted + found.shift_vu[1] * pixel_nm
        var[view] = var[known] + (found.std_vu[1] * pixel_nm) ** 2
        done = np.isfinite(s)
        slope = float(np.polyfit(tangent[done], s[done], 1)[0])
    return RegionPath(theta, s * cosine, np.sqrt(var) * cosine)


def stretched(
    transmittance_vu: npt.NDArray[np.floating], cosine: float, offset_pixels: float, width: int
) -> Float64:
    """Return the square root of a view in the film's own coordinates, `width` pixels, NaN beyond the view.

    The pixel X from the middle shows ``u = (X + offset) cos(theta)``.

    >>> view = np.arange(41.0)[None, :].repeat(4, axis=0) ** 2
    >>> stretched(view, 0.5, 10.0, 5)[0].round(2)
    array([24. , 24.5, 25. , 25.5, 26. ])
    """
    image = np.sqrt(np.maximum(np.asarray(transmittance_vu, dtype=np.float64), 0.0))
    good = np.isfinite(image)
    image = np.where(good, image, np.median(image[good]) if good.any() else 0.0)
    middle = (image.shape[1] - 1) / 2
    first = ((0 - (width - 1) / 2) + offset_pixels) * cosine + middle
    return np.asarray(
        scipy.ndimage.affine_transform(
            image,
            np.array([1.0, cosine]),
            offset=np.array([0.0, first]),
            output_shape=(image.shape[0], width),
            cval=np.nan,
        )
    )


def _binned(
    view_vu: npt.NDArray[np.floating], pixel_nm: float, pixels: int
) -> tuple[Float64, float]:
    """Average whole blocks of pixels, so that about `pixels` rows are left; NaN where all of a block is unknown."""
    times = max(1, view_vu.shape[0] // pixels)
    view = np.asarray(view_vu, np.float64)
    known = np.isfinite(view)
    with np.errstate(invalid="ignore"):
        mean = binned(np.where(known, view, 0.0), times) / binned(known.astype(np.float64), times)
    return mean, pixel_nm * times


def _columns(theta_deg_t: Float64) -> Float64:
    angle = np.deg2rad(theta_deg_t)
    return np.column_stack([np.ones(angle.shape), np.cos(angle), -np.sin(angle)])


def _solve(
    matrix: Float64, u: Float64, std: Float64, std_u0: float | None
) -> tuple[Float64, Float64]:
    """Least squares with a noise common to all views (run-out), as large as makes chi square that of the views.

    `std_u0`: u0 is zero within this; free if None.
    """
    prior = np.zeros((3, 3))
    unknowns = 3
    if std_u0 is not None:
        prior[0, 0] = std_u0**-2
        unknowns = 2
    run_out2 = 0.0
    for _ in range(_ROUNDS):
        weight = 1 / (std**2 + run_out2 + 1e-6)
        covariance = np.asarray(np.linalg.inv((matrix.T * weight) @ matrix + prior), np.float64)
        solution = np.asarray(covariance @ (matrix.T * weight) @ u)
        left2 = (u - matrix @ solution) ** 2
        freedom = len(u) - unknowns
        excess = float(np.sum(left2)) / freedom - float(np.mean(std**2))
        if abs(excess - run_out2) < 1e-6 * max(run_out2, 1e-3):
            break
        run_out2 = max(excess, 0.0)
    return solution, covariance

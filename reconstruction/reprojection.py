"""Shifts of the views without fiducials: reconstruct, project again, compare, repeat.

Whatever structure the film has (grains, dirt, an edge, in the dichroic signal its domains) is reconstructed from all
views as they are laid now; a view displaced by d in the sheared frame (module `geometry`) then differs from what the
volume projects to by ``p(r0) - q(r0) = -d . grad q(r0)``, to first order in d. The d of least squares over the pixels
seen, the maximum of the weighted cross-correlation, is added to the view's shift, and the volume is made again. Each
view is part of the volume that it is compared with, so a step falls short of the truth and several are needed; the
thinner the slab that holds the structure, the less freedom has the volume to follow a displaced view.

First, views of neighbouring tilts are compared by `image_shift`, each stretched to the other's cos(theta), from the
tilt nearest to zero outwards: that finds shifts of any size. Then the steps above go from coarse pixels to fine ones.

As with fiducials (module `alignment`) a move of the whole sample changes no image: the steps leave the sample's origin
where the start has it, and a start from nothing puts it where ``sum over views of |shift|^2`` of the first series is
smallest. Azimuths are taken as they are given, and the axis neither inclined nor leaning (`alignment.straightened`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from mistral_txm.reconstruction.fiducials import pixel_noise
from mistral_txm.reconstruction.film import sheared_problem
from mistral_txm.reconstruction.geometry import Grid, InputError, detector_basis
from mistral_txm.reconstruction.image_shift import NoCommonStructureError, image_shift, translated
from mistral_txm.reconstruction.layers import Support
from mistral_txm.reconstruction.solvers import Problem, cgls
from mistral_txm.reconstruction.tilt_series import TiltSeries
from mistral_txm.reconstruction.views import (
    Domain,
    View,
    checked_film,
    film_views,
    padded_domain,
)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

BINNINGS = (4, 2, 1)
"""Pixels are binned so, from coarse to fine."""

STEPS = 6
"""Reconstructions at each binning."""

_CGLS_ITERATIONS = 8
_SMOOTH_PIXELS = 40.0
"""What varies more slowly than this says nothing about shifts: film thickness, light that drifted."""
_LONGEST_STEP_PIXELS = 1.0
_VIEWS_BETWEEN_SERIES = 5


@dataclass(frozen=True)
class RefinedShifts:
    """Shifts (v, u) in nm, shape (views, 2), of each series, and their standard deviations by the noise alone.

    last_step_nm: root mean square of the last change, nm: how far from settled the result is.
    """

    shift_vu_nm_st: tuple[Float64, ...]
    std_vu_nm_st: tuple[Float64, ...]
    last_step_nm: float


def _binned(image_vu: Float64, binning: int) -> Float64:
    """Means over squares of pixels, a border left over is cut evenly; NaN where any pixel is."""
    n_v, n_u = (n // binning for n in image_vu.shape)
    first_v, first_u = (
        (n - m * binning) // 2 for n, m in zip(image_vu.shape, (n_v, n_u), strict=True)
    )
    cut = image_vu[first_v : first_v + n_v * binning, first_u : first_u + n_u * binning]
    return np.asarray(cut.reshape(n_v, binning, n_u, binning).mean(axis=(1, 3)))


def _centre_moved_nm(shape_vu: Sequence[int], binning: int, pixel_nm: float) -> Float64:
    """By how much cutting the border moved the image's centre, (v, u)."""
    left = np.array([n % binning for n in shape_vu])
    return (left // 2 - left / 2) * pixel_nm


def _without_background(image_vu: Float64, smooth: float) -> Float64:
    """Subtract the mean over a Gaussian neighbourhood, NaN left out of it."""
    good = np.isfinite(image_vu)
    weight = scipy.ndimage.gaussian_filter(good.astype(np.float64), smooth, mode="nearest")
    total = scipy.ndimage.gaussian_filter(np.where(good, image_vu, 0.0), smooth, mode="nearest")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(good, image_vu - total / weight, np.nan)


def _prepared(series: TiltSeries, binning: int) -> tuple[Float64, Float64]:
    """Images of one series binned and without background, and the noise of each."""
    images, noise = [], []
    for image in np.asarray(series.dichroic_tvu, dtype=np.float64):
        binned = _without_background(_binned(image, binning), _SMOOTH_PIXELS / binning)
        images.append(binned)
        noise.append(max(pixel_noise(np.nan_to_num(binned)), 1e-6))
    return np.stack(images), np.array(noise)


def _projections_vu(theta_deg_t: Float64, phi_deg: float) -> Float64:
    """Matrices (views, 2, 3) from sample coordinates to (v, u)."""
    u, v = detector_basis(theta_deg_t, phi_deg)
    return np.stack([v, u], axis=1)


def _in_gauge(change_st: Sequence[Float64], projections_st: Sequence[Float64]) -> list[Float64]:
    """Take out of changes of the shifts what a move of the whole sample would be."""
    projections, change = np.concatenate(projections_st), np.concatenate(change_st)
    normal = np.einsum("tij,tik->jk", projections, projections)
    move = np.linalg.lstsq(normal, np.einsum("tij,ti->j", projections, change), rcond=1e-9)[0]
    return [c - p @ move for c, p in zip(change_st, projections_st, strict=True)]


def _moved(vu_nm: Float64, projections: Float64) -> Float64:
    """Shifts of all views if the sample moves in its plane so that its face-on image moves by (v, u), (views, 2)."""
    flat = projections[np.abs(np.linalg.det(projections[:, :, :2])).argmax()][:, :2]
    return np.asarray(projections[:, :, :2] @ np.linalg.solve(flat, vu_nm))


def neighbour_shifts(series: TiltSeries, pixel_nm: float) -> Float64:
    """Follow the image from tilt to tilt: shifts (v, u) in nm against the tilt nearest to zero, shape (views, 2).

    Each view is compared with its neighbour nearer to zero, stretched by the ratio of the cosines; errors add up.

    Args:
        series: images (absorption or dichroic signal), NaN where masked.
        pixel_nm: pixel, nm.
    """
    theta = np.asarray(series.theta_deg_t, dtype=np.float64)
    images = [
        _without_background(np.asarray(one, np.float64), _SMOOTH_PIXELS)
        for one in np.asarray(series.dichroic_tvu)
    ]
    images = [np.where(np.isfinite(one), one, 0.0) for one in images]
    order = np.argsort(theta, kind="stable")
    middle = int(np.abs(theta[order]).argmin())
    shift = np.zeros((theta.size, 2))
    n_u = images[0].shape[1]
    for way in (order[middle:], order[middle::-1]):
        for inner, outer in pairwise(way):
            ratio = float(np.cos(np.deg2rad(theta[outer])) / np.cos(np.deg2rad(theta[inner])))
            known = shift[inner] * np.array([1.0, ratio]) / pixel_nm
            stretched = scipy.ndimage.affine_transform(
                images[inner], np.array([1.0, 1 / ratio]), np.array([0.0, (n_u - 1) / 2 * (1 - 1 / ratio)]),
                order=1, mode="constant",
            )  # fmt: skip
            try:
                step = image_shift(translated(stretched, -known), translated(images[outer], -known))
            except NoCommonStructureError as none:
                raise InputError(
                    f"views at theta = {theta[inner]:g} and {theta[outer]:g} deg (phi = {series.phi_deg:g} deg) have "
                    "no structure in common that stands out of the noise; align by fiducials"
                ) from none
            shift[outer] = (known + step.shift_vu) * pixel_nm
    return shift


def _to_vu(view: View, voxel_nm: float) -> Float64:
    """Matrix that takes a displacement (y, x) in voxels of the sheared frame to (v, u) in nm on the detector."""
    c, s = np.cos(np.deg2rad(view.phi_deg)), np.sin(np.deg2rad(view.phi_deg))
    cos = np.cos(np.deg2rad(view.theta_deg))
    return np.array([[c, s], [-s * cos, c * cos]]) * voxel_nm


@dataclass(frozen=True)
class _Level:
    """One binning's images, and what does not change with the shifts."""

    series: tuple[TiltSeries, ...]
    grid: Grid
    domain: Domain
    moved_nm: Float64
    vector: bool

    @classmethod
    def of(
        cls,
        series: Sequence[TiltSeries],
        binning: int,
        pixel_nm: float,
        depth_nm: float,
        vector: bool,
    ) -> _Level:
        """Bin the images."""
        shape = np.asarray(series[0].dichroic_tvu).shape[1:]
        prepared = [_prepared(one, binning) for one in series]
        voxel = binning * pixel_nm
        n_v, n_u = prepared[0][0].shape[1:]
        grid = Grid((max(int(np.ceil(depth_nm / voxel)), 1), n_v, n_u), voxel)
        steepest = max(float(np.abs(np.asarray(one.theta_deg_t)).max()) for one in series)
        return cls(
            tuple(replace(one, dichroic_tvu=p[0], std_tvu=p[1]) for one, p in zip(series, prepared, strict=True)),
            grid, padded_domain(grid, steepest), _centre_moved_nm(shape, binning, pixel_nm), vector,
        )  # fmt: skip

    def _problem(self, shifts_st: Sequence[Float64], which: slice) -> tuple[list[View], Problem]:
        """Views of some of the series, laid by these shifts, and what is to be solved for them."""
        laid = [
            replace(one, shift_vu_nm_t=shift - self.moved_nm)
            for one, shift in zip(self.series[which], shifts_st[which], strict=True)
        ]
        views = [
            view
            for one in checked_film(laid)[0]
            for view in film_views(one, self.grid, self.domain)
        ]
        support = Support(self.grid.z_nm, np.ones(len(self.grid.z_nm)))
        return views, sheared_problem(views, support, self.grid.voxel_nm, scalar=not self.vector)

    def between_series(self, shifts_st: Sequence[Float64], number: int) -> Float64:
        """By how much (v, u), nm, the shifts of one series have to change to lie on the series before it."""
        _, before = self._problem(shifts_st, slice(0, number))
        field = cgls(before, iterations=_CGLS_ITERATIONS)
        views, problem = self._problem(shifts_st, slice(number, number + 1))
        projected = problem.forward(field)
        found = []
        for index in np.argsort([abs(view.theta_deg) for view in views])[:_VIEWS_BETWEEN_SERIES]:
            view = views[index]
            step = image_shift(np.where(view.seen_yx, projected[index], 0), view.signal_yx)
            found.append(_to_vu(view, self.grid.voxel_nm) @ step.shift_vu)
        return np.asarray(np.median(found, axis=0), dtype=np.float64)

    def steps(self, shifts_st: Sequence[Float64]) -> tuple[list[Float64], list[Float64]]:
        """Reconstruct with these shifts, project, and return what to add to them, (v, u) in nm, with its std."""
        views, problem = self._problem(shifts_st, slice(None))
        field = cgls(problem, iterations=_CGLS_ITERATIONS)
        projected = problem.forward(field)
        found, stds = [], []
        for number, view in enumerate(views):
            seen = scipy.ndimage.binary_erosion(view.seen_yx)
            g_y, g_x = np.gradient(projected[number])
            gradient = np.stack([g_y[seen], g_x[seen]], axis=1).astype(np.float64)
            off = (view.signal_yx - projected[number])[seen].astype(np.float64)
            normal = gradient.T @ gradient
            if np.linalg.eigvalsh(normal)[0] <= 0:
                raise InputError(
                    f"view at theta = {view.theta_deg:g} deg, phi = {view.phi_deg:g} deg: nothing in it to align by; "
                    "align by fiducials"
                )
            d_yx = -np.linalg.solve(normal, gradient.T @ off)
            d_yx *= min(1.0, _LONGEST_STEP_PIXELS / max(float(np.hypot(*d_yx)), 1e-12))
            to_vu = _to_vu(view, self.grid.voxel_nm)
            found.append(to_vu @ d_yx)
            # Stretched by 1 / cos(theta), a pixel's noise is shared by that many points of the sheared frame.
            covariance = to_vu @ np.linalg.inv(normal) @ to_vu.T * view.std_signal**2
            covariance /= np.cos(np.deg2rad(view.theta_deg))
            stds.append(np.sqrt(np.diag(covariance)))
        counts = np.cumsum([len(one) for one in shifts_st])[:-1]
        return (
            list(np.split(np.array(found), counts)),
            list(np.split(np.array(stds), counts)),
        )


def refine_shifts(
    series: Sequence[TiltSeries], pixel_nm: float, *, depth_nm: float = 450.0, vector: bool = False
) -> RefinedShifts:
    """Find the shift of every view from the film's own structure, without fiducials or after them.

    Args:
        series: images of each azimuth in `dichroic_tvu`: absorption, or with vector the dichroic signal. Where
            `shift_vu_nm_t` is given the search starts there; else from nothing.
        pixel_nm: pixel, nm.
        depth_nm: thickness of the slab about the origin that holds the structure, nm: film, membrane and what lies
            on either, no more.
        vector: whether the images are dichroic signals, the rays' sums of a vector.

    Raises:
        InputError: for series that cannot be used, or without structure.
    """
    if not series:
        raise InputError("alignment: no tilt series; give at least one")
    theta_s = [np.asarray(one.theta_deg_t, dtype=np.float64) for one in series]
    projections = [_projections_vu(t, one.phi_deg) for t, one in zip(theta_s, series, strict=True)]
    coarse = _Level.of(series, BINNINGS[0], pixel_nm, depth_nm, vector)
    shifts: list[Float64] = []
    for number, one in enumerate(series):
        if one.shift_vu_nm_t is not None:
            shifts.append(np.array(one.shift_vu_nm_t, dtype=np.float64))
            continue
        alone = neighbour_shifts(one, pixel_nm)
        shifts.append(_in_gauge([alone], [projections[number]])[0])
        if number:
            shifts[-1] = shifts[-1] + _moved(
                coarse.between_series(shifts, number), projections[number]
            )
    std: list[Float64] = []
    last = np.inf
    for binning in BINNINGS:
        level = _Level.of(series, binning, pixel_nm, depth_nm, vector)
        for _ in range(STEPS):
            steps, std = level.steps(shifts)
            steps = _in_gauge(steps, projections)
            shifts = [a + b for a, b in zip(shifts, steps, strict=True)]
            last = float(np.sqrt(np.mean(np.concatenate(steps) ** 2)))
    return RefinedShifts(tuple(shifts), tuple(std), last)

"""Shifts of views without fiducials, first part: each view against its neighbour, the image stretched to its tilt.

Views of neighbouring tilts show nearly the same once one of them is stretched by the ratio of the cosines; module
`image_shift` says by how much one is displaced against the other, whatever the size. From the tilt nearest to zero
outwards the steps add up, and so do their errors; then views farther apart, which now lie nearly on each other, are
compared, too, and the shifts found on which all agree best. That halves the errors. Module `reprojection` begins here.

A film shows itself in two ways, in the dichroic signal and in the absorption; of each pair of views every contrast
that has structure gives a step, and counts by its variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from mistral_txm.reconstruction.binning import binned
from mistral_txm.reconstruction.fiducials import pixel_noise
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.image_shift import (
    NoCommonStructureError,
    image_shift,
    stretched,
    translated,
)
from mistral_txm.reconstruction.tilt_series import TiltSeries

Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]

SMOOTH_PIXELS = 40.0
"""What varies more slowly than this says nothing about shifts: film thickness, light that drifted."""
FARTHEST_DEG = 25.0
"""Tilts farther apart show the film too differently."""
PARTNERS = 6
"""Each view is compared with at most so many on either side, the nearest first and the others evenly apart."""


@dataclass(frozen=True)
class Contrast:
    """What all series show in one way.

    series: images of each azimuth in `dichroic_tvu`, dichroic signals, or with scalar absorbances. layers_nm: where
    along z what shows lies, lower and upper border; scalar: whether it is a number per voxel, no vector.
    """

    series: tuple[TiltSeries, ...]
    layers_nm: tuple[tuple[float, float], ...]
    scalar: bool = False


def without_background(image_vu: Float64, smooth_pixels: float) -> Float64:
    """Subtract the mean over a Gaussian neighbourhood, NaN left out of it."""
    good = np.isfinite(image_vu)
    if good.all():
        return image_vu - scipy.ndimage.gaussian_filter(image_vu, smooth_pixels, mode="nearest")
    weight = scipy.ndimage.gaussian_filter(good.astype(np.float64), smooth_pixels, mode="nearest")
    total = scipy.ndimage.gaussian_filter(
        np.where(good, image_vu, 0.0), smooth_pixels, mode="nearest"
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(good, image_vu - total / weight, np.nan)


def prepared(series: TiltSeries, binning: int) -> TiltSeries:
    """The series with binned images without background, and the noise of each view by its finest structure."""
    images, noise = [], []
    for image in np.asarray(series.dichroic_tvu, dtype=np.float64):
        small = without_background(binned(image, binning), SMOOTH_PIXELS / binning)
        images.append(small)
        noise.append(max(pixel_noise(np.nan_to_num(small)), 1e-6))
    return replace(series, dichroic_tvu=np.stack(images), std_tvu=np.array(noise))


def neighbour_shifts(contrasts: Sequence[TiltSeries], pixel_nm: float) -> Float64:
    """Follow the image from tilt to tilt: shifts (v, u) in nm against the tilt nearest to zero, shape (views, 2).

    Args:
        contrasts: the same views in one or more ways, NaN where masked, without background.
        pixel_nm: pixel, nm.

    Raises:
        InputError: if two neighbours have nothing in common in any contrast.
    """
    theta = np.asarray(contrasts[0].theta_deg_t, dtype=np.float64)
    stacks = [np.nan_to_num(np.asarray(one.dichroic_tvu, np.float64)) for one in contrasts]
    order = np.argsort(theta, kind="stable")
    middle = int(np.abs(theta[order]).argmin())
    shift = np.zeros((theta.size, 2))
    for way in (order[middle:], order[middle::-1]):
        for inner, outer in pairwise(way):
            known = shift[inner] * _stretch(theta, inner, outer)
            step = _step(stacks, theta, inner, outer, (known, known), pixel_nm)
            if step is None:
                raise _nothing_in_common(contrasts[0].phi_deg, theta[[inner, outer]])
            shift[outer] = known + step[0]
    return _agreed(stacks, theta, order, shift, pixel_nm)


def shift_beside(
    contrasts: Sequence[TiltSeries],
    number: int,
    beside: int,
    beside_vu_nm: Float64,
    pixel_nm: float,
) -> Float64:
    """Shift (v, u), nm, of one view by what it shows of another one whose shift is known; arguments as above.

    Raises:
        InputError: if they have nothing in common in any contrast.
    """
    theta = np.asarray(contrasts[0].theta_deg_t, dtype=np.float64)[[number, beside]]
    stacks = [np.nan_to_num(np.asarray(one.dichroic_tvu)[[number, beside]]) for one in contrasts]
    inner, outer = sorted((0, 1), key=lambda view: abs(theta[view]))
    stretch = _stretch(theta, inner, outer)
    of_both = (
        (beside_vu_nm / stretch, beside_vu_nm)
        if inner == 0
        else (beside_vu_nm, beside_vu_nm * stretch)
    )
    step = _step(stacks, theta, inner, outer, of_both, pixel_nm)
    if step is None:
        raise _nothing_in_common(contrasts[0].phi_deg, theta)
    return of_both[0] - step[0] / stretch if inner == 0 else of_both[1] + step[0]


def _nothing_in_common(phi_deg: float, theta: Float64) -> InputError:
    return InputError(
        f"views at theta = {theta[0]:g} and {theta[1]:g} deg (phi = {phi_deg:g} deg) have no structure in common that "
        "stands out of the noise"
    )


def _agreed(
    stacks: Sequence[Float64], theta: Float64, order: Intp, shift_nm: Float64, pixel_nm: float
) -> Float64:
    """The shifts on which views agree best that are up to `FARTHEST_DEG` apart, by least squares."""
    rows, columns, values, weights = [], [], [], []
    within = max(1, int(FARTHEST_DEG / np.median(np.diff(theta[order]))))
    for apart in np.unique(np.linspace(1, within, PARTNERS).round().astype(int)):
        for one, other in zip(order[:-apart], order[apart:], strict=True):
            inner, outer = sorted((one, other), key=lambda view: abs(theta[view]))
            if abs(theta[outer] - theta[inner]) > FARTHEST_DEG:
                continue
            stretch = _stretch(theta, inner, outer)
            known = shift_nm[inner] * stretch, shift_nm[outer]
            step = _step(stacks, theta, inner, outer, known, pixel_nm)
            if step is not None:
                rows.append((outer, inner))
                columns.append(np.array([np.ones(2), -stretch]))
                values.append(known[1] - known[0] + step[0])
                weights.append(1 / step[1])
    fixed = int(order[int(np.abs(theta[order]).argmin())])
    found = np.zeros_like(shift_nm)
    for axis in (0, 1):
        equations = np.zeros((len(rows) + 1, theta.size))
        for number, (views, column, weight) in enumerate(zip(rows, columns, weights, strict=True)):
            equations[number, list(views)] = column[:, axis] * weight[axis]
        equations[-1, fixed] = np.abs(equations).max()
        right = [value[axis] * weight[axis] for value, weight in zip(values, weights, strict=True)]
        found[:, axis] = np.linalg.lstsq(equations, np.array([*right, 0.0]))[0]
    return found


def _stretch(theta: Float64, inner: int, outer: int) -> Float64:
    """What a shift (v, u) at one tilt is at another."""
    return np.array(
        [1.0, float(np.cos(np.deg2rad(theta[outer])) / np.cos(np.deg2rad(theta[inner])))]
    )


def _step(
    stacks: Sequence[Float64],
    theta: Float64,
    inner: int,
    outer: int,
    known_nm: tuple[Float64, Float64],
    pixel_nm: float,
) -> tuple[Float64, Float64] | None:
    """By how much the outer view is displaced against the stretched inner one beyond what is known, and its standard
    deviation, nm; None without structure in common."""
    ratio = float(_stretch(theta, inner, outer)[1])
    steps, weights = [], []
    for images in stacks:
        try:
            step = image_shift(
                translated(stretched(images[inner], ratio), -known_nm[0] / pixel_nm),
                translated(images[outer], -known_nm[1] / pixel_nm),
            )
        except NoCommonStructureError:
            continue
        steps.append(step.shift_vu)
        weights.append(1 / np.maximum(step.std_vu, 1e-3) ** 2)
    if not steps:
        return None
    shift = np.average(steps, axis=0, weights=weights)
    return shift * pixel_nm, pixel_nm / np.sqrt(np.sum(weights, axis=0))

"""Shifts of views without fiducials, first part: each view against its neighbour, the image stretched to its tilt.

Views of neighbouring tilts show nearly the same once one of them is stretched by the ratio of the cosines; module
`image_shift` says by how much one is displaced against the other, whatever the size. From the tilt nearest to zero
outwards the steps add up, and so do their errors: module `reprojection` begins here.

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

from mistral_txm.reconstruction.fiducials import pixel_noise
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.image_shift import NoCommonStructureError, image_shift, translated
from mistral_txm.reconstruction.tilt_series import TiltSeries

Float64 = npt.NDArray[np.float64]

SMOOTH_PIXELS = 40.0
"""What varies more slowly than this says nothing about shifts: film thickness, light that drifted."""


@dataclass(frozen=True)
class Contrast:
    """What all series show in one way.

    series: images of each azimuth in `dichroic_tvu`, dichroic signals, or with scalar absorbances. layers_nm: where
    along z what shows lies, lower and upper border; scalar: whether it is a number per voxel, no vector.
    """

    series: tuple[TiltSeries, ...]
    layers_nm: tuple[tuple[float, float], ...]
    scalar: bool = False


def binned(image_vu: Float64, binning: int) -> Float64:
    """Means over squares of pixels, a border left over is cut evenly; NaN where any pixel is."""
    n_v, n_u = (n // binning for n in image_vu.shape)
    first_v, first_u = (
        (n - m * binning) // 2 for n, m in zip(image_vu.shape, (n_v, n_u), strict=True)
    )
    cut = image_vu[first_v : first_v + n_v * binning, first_u : first_u + n_u * binning]
    return np.asarray(cut.reshape(n_v, binning, n_u, binning).mean(axis=(1, 3)))


def centre_moved_pixels(shape_vu: Sequence[int], binning: int) -> Float64:
    """By how many unbinned pixels cutting the border moved the image's centre, (v, u).

    >>> centre_moved_pixels((7, 8), 2)
    array([-0.5,  0. ])
    """
    left = np.array([n % binning for n in shape_vu])
    return np.asarray(left // 2 - left / 2)


def without_background(image_vu: Float64, smooth_pixels: float) -> Float64:
    """Subtract the mean over a Gaussian neighbourhood, NaN left out of it."""
    good = np.isfinite(image_vu)
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
            ratio = float(np.cos(np.deg2rad(theta[outer])) / np.cos(np.deg2rad(theta[inner])))
            known = shift[inner] * np.array([1.0, ratio]) / pixel_nm
            steps, weights = [], []
            for images in stacks:
                try:
                    step = image_shift(
                        translated(_stretched(images[inner], ratio), -known),
                        translated(images[outer], -known),
                    )
                except NoCommonStructureError:
                    continue
                steps.append(step.shift_vu)
                weights.append(1 / np.maximum(step.std_vu, 1e-3) ** 2)
            if not steps:
                raise InputError(
                    f"views at theta = {theta[inner]:g} and {theta[outer]:g} deg (phi = {contrasts[0].phi_deg:g} deg) "
                    "have no structure in common that stands out of the noise"
                )
            shift[outer] = (known + np.average(steps, axis=0, weights=weights)) * pixel_nm
    return shift


def _stretched(image_vu: Float64, ratio: float) -> Float64:
    """Stretch an image along u about its middle."""
    middle = (image_vu.shape[1] - 1) / 2
    return np.asarray(
        scipy.ndimage.affine_transform(
            image_vu, np.array([1.0, 1 / ratio]), np.array([0.0, middle * (1 - 1 / ratio)]), order=1
        )
    )

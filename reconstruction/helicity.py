"""How far the images of the two helicities lie apart, from the magnetic contrast itself.

The beam of helicity +1 comes from above the orbit plane and that of -1 from below, the sample drifts while the jaws
move: so ``A(+) (r) = (a + s) (r - h / 2)`` and ``A(-) (r) = (a - s) (r + h / 2)``, a the absorption, s the dichroic
signal. To first order in the offset h the halves of sum and difference are

    ``mean = a - h . grad(s) / 2``, ``difference = s - h . grad(a) / 2``.

A film absorbs evenly, so away from gold all structure in the mean is a trace of the dichroic contrast, and its
regression on the difference's gradient is the offset:

    ``N h = r``, ``N = sum of grad(d) grad(d)^T / 4``, ``r = - sum of m grad(d) / 2``,

m and d mean and difference without what is coarser or finer than the contrast, N less what noise of standard deviation
sigma has in it, ``sigma^2 / (8 pi s^4)`` per pixel after a Gaussian of s. Images moved back by h are regressed once
more. Where the contrast runs along one direction only, the offset along it is badly known, and does no harm:
nothing changes along it. The posterior with the prior ``0 +- PRIOR_PIXELS`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from mistral_txm.reconstruction.geometry import InputError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

FINEST_PIXELS, COARSEST_PIXELS = 2.0, 12.0
"""Standard deviations of the Gaussians whose difference keeps the contrast: noise is finer, the film's own slow changes
and what illumination left are coarser."""

PRIOR_PIXELS = 2.0
"""Standard deviation of the prior on the offset."""

LEAST_SIGMA = 4.0
"""An offset less significant than this is none: the images stay as they were exposed."""

LARGEST_PIXELS = 6.0
"""An offset larger than this is none of the optics, and the first order of it means nothing."""

_BORDER = 8


@dataclass(frozen=True)
class HelicityOffset:
    """By how much images of helicity +1 are displaced against those of -1, (v, u), and the standard deviation, nm."""

    vu_nm: Float64
    std_vu_nm: Float64

    @property
    def is_known(self) -> bool:
        """Whether there is one to undo."""
        return bool(self.vu_nm.any())


NO_OFFSET = HelicityOffset(np.zeros(2), np.full(2, np.inf))
"""Nothing is known of an offset."""


def moved(image_vu: npt.ArrayLike, shift_vu_pixels: npt.ArrayLike) -> Float32:
    """Move the content of an image by (v, u) pixels, a cubic spline; NaN where an unknown pixel is needed.

    >>> moved([[0.0, 0.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.0, np.nan]], (0, 1))[1, 1:].round(5)
    array([5., 1.], dtype=float32)
    """
    image = np.asarray(image_vu, dtype=np.float32)
    shift = np.asarray(shift_vu_pixels, dtype=np.float64)
    bad = ~np.isfinite(image)
    filled = np.where(bad, np.float32(np.median(image[~bad])), image)
    if bad.any():
        # Neighbours' values instead of one far off, whose ringing would spread.
        near = scipy.ndimage.grey_dilation(np.where(bad, -np.inf, image), size=(3, 3))
        filled = np.where(bad & np.isfinite(near), near, filled)
    result = scipy.ndimage.shift(filled, shift, order=3, mode="nearest", output=np.float32)
    unknown = scipy.ndimage.shift(
        bad.astype(np.float32), shift, order=1, mode="constant", cval=1.0, output=np.float32
    )
    result[unknown > 1e-6] = np.nan
    return np.asarray(result)


def registered(
    positive_vu: npt.ArrayLike, negative_vu: npt.ArrayLike, offset_vu_pixels: npt.ArrayLike
) -> tuple[Float32, Float32]:
    """Move the images of both helicities by half of their offset, towards each other."""
    half = np.asarray(offset_vu_pixels, dtype=np.float64) / 2
    return moved(positive_vu, -half), moved(negative_vu, half)


def _contrasts(images_vu: Sequence[Float32], good_vu: Bool) -> list[Float32]:
    """Each image between the two Gaussians, normalized by the pixels that count."""
    weight = good_vu.astype(np.float32)
    contrasts: list[Float32] = [np.zeros_like(weight) for _ in images_vu]
    for sigma, sign in ((FINEST_PIXELS, 1), (COARSEST_PIXELS, -1)):
        seen = scipy.ndimage.gaussian_filter(weight, sigma, truncate=3)
        scale = np.float32(sign) / np.maximum(seen, np.float32(1e-3))
        for contrast, image_vu in zip(contrasts, images_vu, strict=True):
            filled = np.where(good_vu, image_vu, np.float32(0))
            contrast += scale * scipy.ndimage.gaussian_filter(filled, sigma, truncate=3)
    return contrasts


def _regression(
    positive_vu: Float32, negative_vu: Float32, left_out_vu: Bool, std: float
) -> tuple[Float64, Float64, float]:
    """N and r of the module's docstring, and the structure of the mean as a part of that of the difference."""
    good = np.isfinite(positive_vu) & np.isfinite(negative_vu) & ~left_out_vu
    half = np.float32(0.5)
    images = (half * (positive_vu + negative_vu), half * (positive_vu - negative_vu))
    mean, difference = _contrasts(images, good)
    inside = good.copy()
    for edge in (np.s_[:_BORDER], np.s_[-_BORDER:], np.s_[:, :_BORDER], np.s_[:, -_BORDER:]):
        inside[edge] = False
    gradient = np.stack([np.gradient(difference, axis=axis)[inside] for axis in (0, 1)])
    gradient = gradient.astype(np.float64)
    m, d = mean[inside].astype(np.float64), difference[inside].astype(np.float64)
    part = float(m @ m) / max(float(d @ d), 1e-30)
    noise = m.size * std**2 / (8 * np.pi * FINEST_PIXELS**4)
    powers, axes = np.linalg.eigh(gradient @ gradient.T - noise * np.eye(2))
    return (axes * np.maximum(powers, 0)) @ axes.T / 4, -gradient @ m / 2, part


def helicity_offset(
    positive_vu: npt.ArrayLike,
    negative_vu: npt.ArrayLike,
    std: float,
    pixel_nm: float,
    *,
    left_out_vu: Bool | None = None,
) -> HelicityOffset:
    """Find how far the images of both helicities of one view lie apart.

    Args:
        positive_vu, negative_vu: absorbances of helicity +1 and -1, NaN where masked.
        std: standard deviation of a pixel of their mean.
        pixel_nm: pixel, nm.
        left_out_vu: pixels that say nothing, such as those of gold spheres.

    Returns:
        Offset of +1 against -1, zero where it is not significant; `NO_OFFSET` where the sample has a structure of its
        own as strong as the magnetic contrast.

    Raises:
        InputError: for images that are not of one shape, or no positive std.

    >>> v, u = np.mgrid[-48.0:48.0, -48.0:48.0]
    >>> film = lambda v0, u0: 0.2 * np.sin((u - u0) / 4) * np.cos((v - v0) / 5)
    >>> helicity_offset(1 + film(0.5, -0.3), 1 - film(-0.5, 0.3), 0.001, 10.0).vu_nm.round(1)
    array([10., -6.])
    """
    positive, negative = (np.asarray(one, np.float32) for one in (positive_vu, negative_vu))
    if positive.shape != negative.shape or positive.ndim != 2:
        raise InputError(
            f"helicity offset: shapes {positive.shape} and {negative.shape}, expected the same (v, u)"
        )
    if not (np.isfinite(std) and std > 0):
        raise InputError(f"helicity offset: a standard deviation of {std}, expected a positive one")
    if min(positive.shape) < 6 * _BORDER:
        return NO_OFFSET
    left_out = np.zeros(positive.shape, np.bool_) if left_out_vu is None else left_out_vu
    prior = np.eye(2) * (std / PRIOR_PIXELS) ** 2
    offset: Float64 = np.zeros(2)
    for number in range(2):
        plus, minus = registered(positive, negative, offset) if number else (positive, negative)
        normal, right, part = _regression(plus, minus, left_out, std)
        if part > 0.5:
            return NO_OFFSET
        offset = np.asarray(np.linalg.solve(normal + prior, normal @ offset + right))
        if np.hypot(*offset) > LARGEST_PIXELS:
            return NO_OFFSET
    covariance = np.linalg.inv(normal + prior) * std**2
    if offset @ normal @ offset < (LEAST_SIGMA * std) ** 2:
        offset = np.zeros(2)
    return HelicityOffset(offset * pixel_nm, np.sqrt(np.diag(covariance)) * pixel_nm)

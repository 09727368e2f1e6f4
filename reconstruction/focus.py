"""How sharp an image is, and where along the beam it is sharpest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import curve_fit

from mistral_txm.reconstruction.frames import Float64
from mistral_txm.reconstruction.geometry import InputError

STEP_PIXELS = 2
"""Distance over which Brenner's measure takes differences."""
FEWEST_POSITIONS = 5
"""The model of a focus curve has four parameters."""


@dataclass(frozen=True)
class Focus:
    """The best position along the beam with its standard deviation, and the curve through the sharpness.

    ``F(z) = background + height exp(-(z - best)^2 / (2 width^2))``.
    """

    best_um: float
    std_um: float
    width_um: float
    height: float
    background: float

    def curve(self, z_um: npt.ArrayLike) -> Float64:
        """Return the fitted sharpness at positions."""
        return _curve(
            np.asarray(z_um, np.float64), self.background, self.height, self.best_um, self.width_um
        )


def sharpness(images_tvu: npt.ArrayLike) -> float:
    """Return the sharpness of an image from its repeats, without what noise would add.

    Brenner's measure, the mean square difference of pixels two apart, here along u and v and over
    the square of the mean, so that it does not depend on the flux. With differences d_i of repeat i
    the square is taken between repeats,

        F = mean over pixels of [(sum d_i)^2 - sum d_i^2] / (n (n - 1)) / mean^2,

    to which noise, independent from repeat to repeat, adds nothing on average. (J. F. Brenner et al.,
    J. Histochem. Cytochem. 24, 100 (1976); noise removed by products of independent pixels, as in
    D. Vollath, J. Microsc. 147, 279 (1987).) What all repeats share, such as the noise of one flat, adds
    a constant.

    Args:
        images_tvu: at least two repeats of one image, transmittance or counts above dark; NaN where
            a pixel says nothing.

    Raises:
        InputError: for fewer than two repeats, or images without light or known pixels.
    """
    images = np.asarray(images_tvu, dtype=np.float64)
    if images.ndim != 3 or len(images) < 2 or min(images.shape[1:]) <= STEP_PIXELS:
        raise InputError(
            f"sharpness: an array of shape {images.shape}; expected images [repeat, v, u], at least 2 "
            "repeats, whose noise differs"
        )
    n, total = len(images), 0.0
    for axis in (1, 2):
        ahead = np.take(images, range(STEP_PIXELS, images.shape[axis]), axis)
        behind = np.take(images, range(images.shape[axis] - STEP_PIXELS), axis)
        difference = ahead - behind
        pairs = difference.sum(axis=0) ** 2 - (difference**2).sum(axis=0)
        known = np.isfinite(pairs)
        if not known.any():
            raise InputError(
                f"sharpness: no two pixels that are {STEP_PIXELS} apart are known in all repeats"
            )
        total += float(pairs[known].mean()) / (n * (n - 1))
    mean = float(np.nanmean(images))
    if mean <= 0:
        raise InputError(
            f"sharpness: images of mean {mean:g}, expected light; is the shutter open?"
        )
    return total / mean**2


def best_focus(z_um: npt.ArrayLike, sharpness_z: npt.ArrayLike) -> Focus:
    """Fit a Gaussian on a background to the sharpness at positions; its centre is the best focus.

    The standard deviation of the position comes from the scatter about the fit.

    Args:
        z_um: at least five different positions along the beam, um.
        sharpness_z: sharpness at each.

    Raises:
        InputError: if there are too few positions, the sharpest one is at an end of the range, or no
            maximum stands out of the scatter.
    """
    z, values = np.asarray(z_um, np.float64), np.asarray(sharpness_z, np.float64)
    if z.ndim != 1 or z.shape != values.shape or len(np.unique(z)) < FEWEST_POSITIONS:
        raise InputError(
            f"focus: positions {z.shape} and sharpness {values.shape}; expected at least "
            f"{FEWEST_POSITIONS} different positions, and one value each"
        )
    order = np.argsort(z)
    z, values = z[order], values[order]
    top = int(np.argmax(values))
    if z[top] in (z[0], z[-1]):
        raise InputError(
            f"focus: the image is sharpest at {z[top]:g} um, the end of the range "
            f"{z[0]:g} to {z[-1]:g} um; measure beyond it"
        )
    span = float(z[-1] - z[0])
    start = (float(values.min()), float(np.ptp(values)), float(z[top]), span / 4)
    try:
        found, covariance = curve_fit(_curve, z, values, start, maxfev=5000)
    except RuntimeError as failure:
        raise InputError(f"focus: no maximum fits near {z[top]:g} um ({failure})") from failure
    background, height, best, width = (float(each) for each in found)
    std_height, std_best = (float(np.sqrt(covariance[i, i])) for i in (1, 2))
    if not (z[0] < best < z[-1] and height > 3 * std_height):
        raise InputError(
            f"focus: no maximum stands out between {z[0]:g} and {z[-1]:g} um; is there contrast, and is "
            "the range wide enough?"
        )
    return Focus(best, std_best, abs(width), height, background)


def _curve(z: Float64, background: float, height: float, best: float, width: float) -> Float64:
    result: Float64 = background + height * np.exp(-((z - best) ** 2) / (2 * width**2))
    return result

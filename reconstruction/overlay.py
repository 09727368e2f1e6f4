"""One image laid over another that shows the same film somewhere else, and whether it fits at one place only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

Float64 = npt.NDArray[np.float64]

LEAST_COMPARED = 0.3
"""Part of what two images have in common at most that has to be compared."""


@dataclass(frozen=True)
class Faded:
    """An image without mean that fades to its border, and the weights by which it does, shape (y, x)."""

    image_yx: Float64
    weight_yx: Float64


def laid_over(first: Faded, second: Faded) -> tuple[float, float, Float64]:
    """Find where an image lies over another, among the displacements at which enough of both is compared.

    The correlation at the displacement d is ``<i1, i2(d)> / (|i1| |i2(d)|)`` with both weights under each sum: how much
    the images overlap does not change it.

    Returns:
        The highest correlation, the highest of the other summits (0 if there is none), and by how many pixels (y, x)
        the second image is displaced against the first.

    >>> waves = np.cos(np.arange(48) / 2) + np.cos(np.arange(48)[:, None] / 3)
    >>> even = np.ones((48, 48))
    >>> best, elsewhere, _ = laid_over(Faded(waves, even), Faded(waves, even))
    >>> best > 0.99, elsewhere > 0.99 * best
    (True, True)
    """
    shape = [scipy.fft.next_fast_len(2 * n, real=True) for n in first.image_yx.shape]

    def crossed(a_yx: Float64, b_yx: Float64) -> Float64:
        cross = scipy.fft.rfft2(a_yx, shape).conj() * scipy.fft.rfft2(b_yx, shape)
        return np.asarray(scipy.fft.irfft2(cross, shape))

    power = [
        np.maximum(crossed(*pair), 0.0)
        for pair in (
            (first.image_yx**2, second.weight_yx**2),
            (first.weight_yx**2, second.image_yx**2),
        )
    ]
    both = crossed(first.weight_yx**2, second.weight_yx**2)
    compared = both > LEAST_COMPARED * both.max()
    scale = np.sqrt(np.where(compared, power[0] * power[1], 1.0))
    product = crossed(first.image_yx * first.weight_yx, second.image_yx * second.weight_yx)
    correlation = np.where(compared, product / scale, -1.0)
    at = np.array(np.unravel_index(int(correlation.argmax()), correlation.shape))
    displaced = np.where(at < np.array(shape) / 2, at, at - np.array(shape))
    summits = correlation == scipy.ndimage.maximum_filter(correlation, 5, mode="wrap")
    summits[tuple(at)] = False
    elsewhere = float(correlation[summits].max(initial=0.0))
    return float(correlation[tuple(at)]), elsewhere, displaced.astype(np.float64)

"""From exposures that were already divided by a flat, as MARTApp keeps them, to absorbances with their variance.

A transmittance times its dose, ring current times exposure, is counts in units of the open beam's: what `repeats`
judges, aligns and averages, with no dark left and no reference. The gain in these units, variance over mean, is told
from the scatter of the repeats; of a single exposure, from what neighbouring pixels do not have in common. The noise of
the flat is in the exposures, but nothing tells how much it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.frames import Dark, Rate, mean_rate, stack_of
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.repeats import average
from mistral_txm.reconstruction.signal import absorbance

Float64 = NDArray[np.float64]

SMALLEST_IMAGE = 32
"""Pixels of an image from which on repeats are judged and aligned."""
SMALLEST_RELATIVE_STD = 1e-5
"""Of a pixel of one exposure: a calculated image without noise has that of its rounding."""

_MAD_TO_SIGMA = 1.4826
_NOT_HIT = 0.999
"""Part of the pixels that the scatter is told from: the others may have been hit by zingers."""


def transmittance_absorbance(
    t_rvu: NDArray[np.floating], dose_r: Float64
) -> tuple[Float64, Float64]:
    """Average the repeats of one state; return ``A = -ln T`` and its variance, ``[v, u]``.

    NaN and infinity where the mean is not positive, or a repeat has no value.

    Args:
        t_rvu: transmittance of each repeat; NaN where it has none.
        dose_r: ring current times exposure of each, mA s.

    Raises:
        InputError: for images without light, or doses that are not positive numbers, one of each repeat.
    """
    stack = np.asarray(t_rvu, dtype=np.float64)
    unknown = np.asarray(~np.isfinite(stack).all(axis=0))
    if unknown.all():
        raise InputError("every pixel is without a value")
    dose = np.asarray(dose_r, dtype=np.float64)
    if dose.shape != stack.shape[:1] or not np.all(np.isfinite(dose) & (dose > 0)):
        raise InputError(
            f"ring current times exposure is {dose.min():g} to {dose.max():g} mA s; expected numbers above 0"
        )
    units = np.where(unknown, 0.0, stack) * dose[:, None, None]
    nothing = Dark(np.zeros(unknown.shape), 0.0, np.inf, unknown)
    level = float(units[:, ~unknown].mean())
    if not level > 0:
        raise InputError(f"a mean transmittance of {level / dose.mean():g}; expected light")
    gain = _gain(units[:, ~unknown], dose) if len(stack) > 1 else _gain_of_one(units[0])
    gain = max(gain, SMALLEST_RELATIVE_STD**2 * level)
    if min(unknown.shape) < SMALLEST_IMAGE:
        mean = mean_rate(units, nothing, dose, gain)
    else:
        mean, _ = average(stack_of(units, nothing, dose), gain)
    return absorbance(mean, Rate(np.ones(unknown.shape), np.zeros(unknown.shape)))


def _gain(units_rp: Float64, dose_r: Float64) -> float:
    """Return variance over mean from the scatter of the repeats."""
    scaled = units_rp * (dose_r.mean() / dose_r)[:, None]
    light_r = np.median(scaled, axis=1, keepdims=True)
    if (light_r > 0).all():
        scaled *= light_r.mean() / light_r
    variance_p = scaled.var(axis=0, ddof=1)
    kept = variance_p <= np.quantile(variance_p, _NOT_HIT)
    return float(variance_p[kept].mean() / scaled.mean())


def _gain_of_one(image_vu: Float64) -> float:
    """Return variance over mean, the variance from the mixed second difference of four pixels."""
    rough = image_vu[:-1, :-1] - image_vu[1:, :-1] - image_vu[:-1, 1:] + image_vu[1:, 1:]
    std = _MAD_TO_SIGMA * float(np.median(np.abs(rough))) / 2 if rough.size else 0.0
    return std**2 / float(image_vu.mean())

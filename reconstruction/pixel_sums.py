"""Loops over the pixels of repeats: block means, robust sums, products with gradients, interpolation.

They read raw counts ``[t, v, u]`` of any type, so that no second copy of a stack of large frames is made. In all of
them repeat t has the dark level ``level_kvu[dark_t[t]]`` and shows, at counts ``c``, the normalized value
``(c - level) / (dose_t[t] * reference_vu)``. With moves (v, u), whole pixels, the pixel (v, u) of the result is the
pixel ``(v, u) + move_t2[t]`` of the repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.intp]

SATURATION_MARGIN_SIGMA = 2.0
"""Where a pixel is expected this close to saturation, its noise is cut on one side: it is left out in any case."""

_F = TypeVar("_F", bound=Callable[..., Any])


def _compiled(function: _F) -> _F:
    return cast("_F", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@_compiled
def block_means(
    counts_tvu: npt.NDArray[Any],
    level_kvu: Float32,
    dark_t: Int,
    dose_t: Float64,
    reference_vu: Float32,
    usable_vu: Bool,
    saturation: float,
    block: int,
) -> Float64:
    """Return the mean value in each block of `block` x `block` pixels, [t, v, u]; NaN where no pixel counts."""
    frames, rows, columns = counts_tvu.shape
    result = np.full((frames, rows // block, columns // block), np.nan)
    for t in range(frames):
        k = dark_t[t]
        for i in range(rows // block):
            for j in range(columns // block):
                above, reference = 0.0, 0.0
                for v in range(i * block, (i + 1) * block):
                    for u in range(j * block, (j + 1) * block):
                        if usable_vu[v, u] and counts_tvu[t, v, u] < saturation:
                            above += counts_tvu[t, v, u] - level_kvu[k, v, u]
                            reference += reference_vu[v, u]
                if reference > 0:
                    result[t, i, j] = above / (reference * dose_t[t])
    return result


@_compiled
def robust_sums(
    counts_tvu: npt.NDArray[Any],
    level_kvu: Float32,
    dark_t: Int,
    dose_t: Float64,
    reference_vu: Float32,
    usable_vu: Bool,
    saturation: float,
    variance_t: Float64,
    gain: float,
    zinger_sigma: float,
    move_t2: Int,
    level_variance_k: Float64,
) -> tuple[Float64, Float64, Bool, Int]:
    """Sum the repeats of each pixel, but for those that were hit by a zinger or that saturation cuts.

    The median of a pixel's values tells what it should be: a zinger adds to that `zinger_sigma` standard deviations or
    more. Of two values the lower one tells. A single one is taken as it is.

    Returns:
        Value and variance [v, u] (NaN and infinity where nothing is left), which pixels were hit [t, v, u], and how
        many of each repeat saturation took.
    """
    frames, rows, columns = counts_tvu.shape
    value_vu = np.full((rows, columns), np.nan)
    variance_vu = np.full((rows, columns), np.inf)
    hit_tvu = np.zeros(counts_tvu.shape, np.bool_)
    saturated_t = np.zeros(frames, np.intp)
    values = np.empty(frames)
    per_dark = np.zeros(len(level_kvu))
    for v in range(rows):
        for u in range(columns):
            count = 0
            for t in range(frames):
                a, b = v + move_t2[t, 0], u + move_t2[t, 1]
                if not (0 <= a < rows and 0 <= b < columns) or not usable_vu[a, b]:
                    continue
                if counts_tvu[t, a, b] >= saturation:
                    continue
                value = (counts_tvu[t, a, b] - level_kvu[dark_t[t], a, b]) / (
                    dose_t[t] * reference_vu[a, b]
                )
                place = count
                while place > 0 and values[place - 1] > value:
                    values[place] = values[place - 1]
                    place -= 1
                values[place] = value
                count += 1
            if count < 3:  # of two the lower one: a zinger only adds
                middle = values[0]
            elif count % 2:
                middle = values[count // 2]
            else:
                middle = (values[count // 2 - 1] + values[count // 2]) / 2
            uncertain = zinger_sigma * np.sqrt(1 + 2 / max(count, 1))
            total, dose, variance, taken = 0.0, 0.0, 0.0, 0
            per_dark[:] = 0
            for t in range(frames):
                a, b = v + move_t2[t, 0], u + move_t2[t, 1]
                if not (0 <= a < rows and 0 <= b < columns) or not usable_vu[a, b]:
                    continue
                if count == 0:
                    saturated_t[t] += 1
                    continue
                level = level_kvu[dark_t[t], a, b]
                above, weight = counts_tvu[t, a, b] - level, dose_t[t] * reference_vu[a, b]
                expected = max(middle * weight, 0.0)
                sigma = np.sqrt(gain * expected + variance_t[t])
                if expected + level + SATURATION_MARGIN_SIGMA * sigma >= saturation:
                    saturated_t[t] += 1
                elif count > 1 and above - expected >= uncertain * sigma:
                    hit_tvu[t, v, u] = True
                elif counts_tvu[t, a, b] >= saturation:
                    saturated_t[t] += 1
                else:
                    total += above
                    dose += weight
                    variance += variance_t[t]
                    per_dark[dark_t[t]] += 1
                    taken += 1
            if taken > 0:
                value_vu[v, u] = total / dose
                variance += gain * max(total, 0.0)
                for k in range(len(per_dark)):
                    variance += per_dark[k] ** 2 * level_variance_k[k]
                variance_vu[v, u] = variance / dose**2
    return value_vu, variance_vu, hit_tvu, saturated_t


@_compiled
def normalized(
    counts_vu: npt.NDArray[Any],
    level_vu: Float32,
    dose: float,
    reference_vu: Float32,
    usable_vu: Bool,
    hit_vu: Bool,
    saturation: float,
    move: Int,
    otherwise_vu: Float32,
) -> Float32:
    """Return the values of one repeat [v, u], and those of `otherwise_vu` where it has none of its own."""
    rows, columns = counts_vu.shape
    result = otherwise_vu.copy()
    for v in range(max(0, -move[0]), min(rows, rows - move[0])):
        for u in range(max(0, -move[1]), min(columns, columns - move[1])):
            a, b = v + move[0], u + move[1]
            if usable_vu[a, b] and not hit_vu[v, u] and counts_vu[a, b] < saturation:
                result[v, u] = (counts_vu[a, b] - level_vu[a, b]) / (dose * reference_vu[a, b])
    return result


@_compiled
def products(
    image_vu: Float32, mean_vu: Float32, light: float, slope_v: Float32, slope_u: Float32
) -> Float64:
    """Return the sums of ``(image / light - mean) * slope``, for both slopes."""
    result = np.zeros(2)
    for v in range(image_vu.shape[0]):
        along_v, along_u = 0.0, 0.0
        for u in range(image_vu.shape[1]):
            rest = image_vu[v, u] / light - mean_vu[v, u]
            along_v += rest * slope_v[v, u]
            along_u += rest * slope_u[v, u]
        result[0] += along_v
        result[1] += along_u
    return result


@_compiled
def add_interpolated(
    total_vu: Float32, image_vu: Float32, weight: float, taps_v: Float32, taps_u: Float32
) -> None:
    """Add `weight` times an image that is interpolated with an odd number of taps; beyond the border it goes on."""
    rows, columns = image_vu.shape
    reach = len(taps_v) // 2
    line = np.empty(columns + 2 * reach, np.float32)
    for v in range(rows):
        line[:] = 0
        for tap in range(2 * reach + 1):
            row = min(max(v + tap - reach, 0), rows - 1)
            factor = np.float32(weight * taps_v[tap])
            for u in range(columns):
                line[u + reach] += factor * image_vu[row, u]
        for edge in range(reach):
            line[edge], line[columns + reach + edge] = line[reach], line[columns + reach - 1]
        for u in range(columns):
            value = np.float32(0)
            for tap in range(2 * reach + 1):
                value += taps_u[tap] * line[u + tap]
            total_vu[v, u] += value

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
    """Return the mean value in each block of `block` x `block` pixels, [t, v, u].

    NaN where no pixel counts, or where 3 % of them or more are full: the others are then the darker ones by chance.
    """
    frames, rows, columns = counts_tvu.shape
    result = np.full((frames, rows // block, columns // block), np.nan)
    above_j, reference_j = np.zeros(columns // block), np.zeros(columns // block)
    full_j = np.zeros(columns // block)
    for t in range(frames):
        level_vu = level_kvu[dark_t[t]]
        for i in range(rows // block):
            above_j[:], reference_j[:], full_j[:] = 0, 0, 0
            for v in range(i * block, (i + 1) * block):
                for j in range(columns // block):
                    above, reference, full = 0.0, 0.0, 0.0
                    for u in range(j * block, (j + 1) * block):
                        counts = counts_tvu[t, v, u]
                        below = counts < saturation
                        counted = 1.0 if usable_vu[v, u] and below else 0.0
                        above += counted * (counts - level_vu[v, u])
                        reference += counted * reference_vu[v, u] if counted > 0 else 0.0
                        full += 0.0 if below else 1.0
                    above_j[j] += above
                    reference_j[j] += reference
                    full_j[j] += full
            for j in range(columns // block):
                if reference_j[j] > 0 and 32 * full_j[j] < block * block:
                    result[t, i, j] = above_j[j] / (reference_j[j] * dose_t[t])
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
    more. Of two values the lower one tells. A single one is taken as it is. Where all values are within 3 standard
    deviations of their mean and far from saturation, the median is not looked for: none can be hit.

    Returns:
        Value and variance [v, u] (NaN and infinity where nothing is left), which pixels were hit [t, v, u], and how
        many of each repeat saturation took.
    """
    frames, rows, columns = counts_tvu.shape
    value_vu = np.full((rows, columns), np.nan)
    variance_vu = np.full((rows, columns), np.inf)
    hit_tvu = np.zeros(counts_tvu.shape, np.bool_)
    saturated_t = np.zeros(frames, np.intp)
    # Rows of all repeats are brought together: frames lie a power of two apart, which caches do not like.
    counts_tu = np.empty((frames, columns), np.float32)
    above_tu = np.empty((frames, columns), np.float32)
    weight_tu = np.empty((frames, columns), np.float32)
    mean_u = np.empty(columns)
    plain_u = np.empty(columns, np.bool_)
    values = np.empty(frames)
    left = np.empty(frames, np.bool_)
    per_dark = np.zeros(len(level_kvu))
    for v in range(rows):
        for t in range(frames):
            a, move = v + move_t2[t, 0], move_t2[t, 1]
            first, last = max(0, -move), min(columns, columns - move)
            weight_tu[t] = 0
            if not 0 <= a < rows:
                continue
            level_u, dose = level_kvu[dark_t[t], a], dose_t[t]
            for u in range(first, last):
                counts_tu[t, u] = counts_tvu[t, a, u + move]
                above_tu[t, u] = counts_tu[t, u] - level_u[u + move]
                weight_tu[t, u] = dose * reference_vu[a, u + move] if usable_vu[a, u + move] else 0
        mean_u[:] = 0
        plain_u[:] = True
        dose_u = np.zeros(columns)
        for t in range(frames):
            for u in range(columns):
                mean_u[u] += above_tu[t, u]
                dose_u[u] += weight_tu[t, u]
        for u in range(columns):
            mean_u[u] /= dose_u[u]
        for t in range(frames):
            for u in range(columns):
                expected = max(mean_u[u] * weight_tu[t, u], 0.0)
                limit = 9 * (gain * expected + variance_t[t])
                rest = above_tu[t, u] - mean_u[u] * weight_tu[t, u]
                room = saturation - counts_tu[t, u]
                inside = weight_tu[t, u] > 0 and rest**2 < limit and room > 0
                plain_u[u] &= inside and room**2 > 4 * limit
        for u in range(columns):
            if plain_u[u]:
                left[:] = True
            else:
                count = 0
                for t in range(frames):
                    if weight_tu[t, u] > 0 and counts_tu[t, u] < saturation:
                        value = above_tu[t, u] / weight_tu[t, u]
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
                for t in range(frames):
                    left[t] = weight_tu[t, u] > 0
                    if not left[t]:
                        continue
                    expected = max(middle * weight_tu[t, u], 0.0) if count else saturation
                    sigma = np.sqrt(gain * expected + variance_t[t])
                    level = counts_tu[t, u] - above_tu[t, u]
                    cut = expected + level + SATURATION_MARGIN_SIGMA * sigma >= saturation
                    hit = count > 1 and above_tu[t, u] - expected >= uncertain * sigma
                    if cut or (counts_tu[t, u] >= saturation and not hit):
                        saturated_t[t] += 1
                        left[t] = False
                    elif hit:
                        hit_tvu[t, v, u] = True
                        left[t] = False
            total, dose, variance = 0.0, 0.0, 0.0
            per_dark[:] = 0
            for t in range(frames):
                if left[t]:
                    total += above_tu[t, u]
                    dose += weight_tu[t, u]
                    variance += variance_t[t]
                    per_dark[dark_t[t]] += 1
            if dose > 0:
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
    down, right = move[0], move[1]
    factor = np.float32(1 / dose)
    for v in range(max(0, -down), min(rows, rows - down)):
        for u in range(max(0, -right), min(columns, columns - right)):
            counts = counts_vu[v + down, u + right]
            above = np.float32(counts) - level_vu[v + down, u + right]
            value = above * factor / reference_vu[v + down, u + right]
            good = usable_vu[v + down, u + right] & ~hit_vu[v, u] & (counts < saturation)
            result[v, u] = value if good else result[v, u]
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

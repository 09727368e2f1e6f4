"""From counts to the dichroic signal of one tilt, each step with the variance that it leaves.

A frame is ``counts = dark + gain * photons + read noise``, photons Poisson with the mean
``flux * current * exposure * T``. With gain ``g`` in counts per photon, the variance of a pixel is
``g (counts - dark) + v``, v that of the dark frames; both numbers are measured from the flats and darks themselves
(`measure_noise`), so no data sheet is needed. Then

- rate of repeats: ``r = sum(counts - dark) / sum(current * exposure)``, the maximum likelihood
  estimate for photon noise;
- transmittance ``T = r / r_flat``; absorbance ``A = -ln T``, with ``var A = var r / r^2 + var r_flat / r_flat^2``;
- absorption signal ``(A(+) + A(-)) / 2`` and dichroic signal ``S = (A(+) - A(-)) / 2``, both with the
  variance ``(var A(+) + var A(-)) / 4``.

A pixel that says nothing (hot, saturated, no counts above dark) is NaN with an infinite standard deviation; nothing
is clamped or filled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.geometry import InputError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

HOT_PIXEL_SIGMA = 10.0
"""A pixel whose dark level is this many robust standard deviations from the median is hot."""
ZINGER_SIGMA = 7.0
"""A pixel of one repeat this many standard deviations from the median of the repeats was hit by a zinger."""
FEWEST_REPEATS_FOR_ZINGERS = 3
"""With fewer repeats there is no telling which one was hit."""

_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Dark:
    """Level of the unexposed camera, ``[v, u]``, its variance per frame, how many frames, and which pixels are hot."""

    level_vu: Float64
    variance: float
    frames: int
    hot_vu: Bool


@dataclass(frozen=True)
class Rate:
    """Counts per second and mA above dark, ``[v, u]``, and the variance of that; NaN and infinity where unknown."""

    rate_vu: Float64
    var_vu: Float64


@dataclass(frozen=True)
class Signals:
    """Signals of one tilt, float32 ``[v, u]``: absorption and dichroic, and the standard deviation of either."""

    absorption_vu: Float32
    dichroic_vu: Float32
    std_vu: Float32


def dark_level(counts_tvu: npt.ArrayLike) -> Dark:
    """Average dark frames and find hot pixels.

    Args:
        counts_tvu: dark frames of one exposure time, at least two, counts.

    Raises:
        InputError: for fewer than two frames.
    """
    counts = _stack(counts_tvu, "dark frames")
    if len(counts) < 2:
        raise InputError(
            f"dark frames: {len(counts)} given, at least 2 are needed for their noise; take more"
        )
    level = counts.mean(axis=0)
    centre = float(np.median(level))
    spread = _MAD_TO_SIGMA * float(np.median(np.abs(level - centre)))
    hot = np.abs(level - centre) > HOT_PIXEL_SIGMA * max(spread, 1.0)
    variance = float(counts.var(axis=0, ddof=1)[~hot].mean())
    return Dark(level, variance, len(counts), hot)


def measure_noise(flats_tvu: npt.ArrayLike, dark: Dark, dose_t: npt.ArrayLike) -> float:
    """Return the gain, counts per photon, from the scatter of the flats (photon transfer).

    ``g = (var(counts) - v) / mean(counts - dark)``: the variance between repeats, each brought to the mean
    dose, pooled over the pixels that are not hot.

    Args:
        flats_tvu: flats of one helicity, at least two, counts.
        dark: of the same exposure time.
        dose_t: ring current times exposure of each flat, mA s.

    Raises:
        InputError: for fewer than two flats, or flats without light.
    """
    counts = _stack(flats_tvu, "flats")
    dose = _dose(dose_t, len(counts), "flats")
    if len(counts) < 2:
        raise InputError(
            f"flats: {len(counts)} given, at least 2 are needed for their noise; take more"
        )
    above = (counts - dark.level_vu)[:, ~dark.hot_vu] * (dose.mean() / dose)[:, None]
    mean = float(above.mean())
    if mean <= 0:
        raise InputError(
            f"flats: {mean:.1f} counts above dark, expected light; is the shutter open?"
        )
    # The median over pixels would be biased for few repeats; zingers are cut by a robust bound instead.
    variance_p = above.var(axis=0, ddof=1)
    bound = np.quantile(variance_p, 0.999)
    gain = (float(variance_p[variance_p <= bound].mean()) - dark.variance) / mean
    if gain <= 0:
        raise InputError(
            "flats: they scatter less than the dark frames do; are they copies of one frame?"
        )
    return gain


def mean_rate(
    counts_tvu: npt.ArrayLike,
    dark: Dark,
    dose_t: npt.ArrayLike,
    gain: float,
    *,
    saturation_counts: float = np.inf,
) -> Rate:
    """Average repeats: counts above dark per mA s, ``r = sum(counts - dark) / sum(dose)``, with its variance.

    ``var r = (g sum(counts - dark) + n v + n^2 v / n_dark) / sum(dose)^2``, sums over the repeats that
    count: a pixel is left out of a repeat where it is saturated or hit by a zinger, and has no rate where
    none is left.

    Args:
        counts_tvu: repeats of one state, counts.
        dark: of the same exposure time.
        dose_t: ring current times exposure of each repeat, mA s.
        gain: counts per photon (`measure_noise`).
        saturation_counts: counts at and above which a pixel is saturated.
    """
    counts = _stack(counts_tvu, "frames")
    dose = _dose(dose_t, len(counts), "frames")[:, None, None]
    above = counts - dark.level_vu
    good = (counts < saturation_counts) & ~dark.hot_vu
    if len(counts) >= FEWEST_REPEATS_FOR_ZINGERS:
        expected = np.median(above / dose, axis=0) * dose
        sigma = np.sqrt(gain * np.maximum(expected, 0.0) + dark.variance)
        good &= above - expected < ZINGER_SIGMA * sigma
    n_vu = good.sum(axis=0)
    total_vu = np.where(good, above, 0.0).sum(axis=0)
    dose_vu = np.where(good, dose, 0.0).sum(axis=0)
    variance_vu = gain * np.maximum(total_vu, 0.0) + dark.variance * n_vu * (1 + n_vu / dark.frames)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Rate(
            np.where(n_vu > 0, total_vu / dose_vu, np.nan),
            np.where(n_vu > 0, variance_vu / dose_vu**2, np.inf),
        )


def absorbance(sample: Rate, flat: Rate) -> tuple[Float64, Float64]:
    """Return ``A = -ln(r / r_flat)`` and its variance, ``[v, u]``; NaN and infinity where a rate is not positive."""
    known = (sample.rate_vu > 0) & (flat.rate_vu > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        a_vu = np.where(known, -np.log(sample.rate_vu / flat.rate_vu), np.nan)
        var_vu = np.where(
            known, sample.var_vu / sample.rate_vu**2 + flat.var_vu / flat.rate_vu**2, np.inf
        )
    return a_vu, var_vu


def helicity_signals(
    positive: tuple[Float64, Float64], negative: tuple[Float64, Float64]
) -> Signals:
    """Combine the absorbances of the two helicities: ``(A(+) + A(-)) / 2`` and ``S = (A(+) - A(-)) / 2``.

    Args:
        positive, negative: absorbance and variance of helicity +1 and -1, as `absorbance` returns them.

    >>> one = (np.array([[1.25]]), np.array([[0.02]]))
    >>> other = (np.array([[0.75]]), np.array([[0.02]]))
    >>> signals = helicity_signals(one, other)
    >>> float(signals.absorption_vu[0, 0]), float(signals.dichroic_vu[0, 0]), round(float(signals.std_vu[0, 0]), 3)
    (1.0, 0.25, 0.1)
    """
    (plus, var_plus), (minus, var_minus) = positive, negative
    return Signals(
        ((plus + minus) / 2).astype(np.float32),
        ((plus - minus) / 2).astype(np.float32),
        (np.sqrt(var_plus + var_minus) / 2).astype(np.float32),
    )


def mean_absorbance(
    transmittance_tvu: npt.ArrayLike, theta_deg_t: npt.ArrayLike
) -> tuple[Float64, Float32]:
    """Average exposures of the same tilt and take ``A = -ln T``: tilts ascending, and ``[view, v, u]``.

    NaN where the mean transmittance is not positive.

    >>> tilts, a = mean_absorbance(np.exp(-np.full((3, 1, 1), 0.5)), [10.0, -10.0, 10.0])
    >>> tilts.tolist(), a.ravel().tolist()
    ([-10.0, 10.0], [0.5, 0.5])
    """
    stack = _stack(transmittance_tvu, "transmittance")
    tilts, which = np.unique(np.asarray(theta_deg_t, dtype=np.float64), return_inverse=True)
    mean_vvu = np.stack([stack[which == index].mean(axis=0) for index in range(len(tilts))])
    with np.errstate(divide="ignore", invalid="ignore"):
        return tilts, np.where(mean_vvu > 0, -np.log(mean_vvu), np.nan).astype(np.float32)


def _stack(counts_tvu: npt.ArrayLike, what: str) -> Float64:
    counts = np.asarray(counts_tvu, dtype=np.float64)
    if counts.ndim != 3 or not len(counts):
        raise InputError(
            f"{what}: an array of shape {counts.shape}; expected frames [frame, v, u], at least one"
        )
    return counts


def _dose(dose_t: npt.ArrayLike, frames: int, what: str) -> Float64:
    dose = np.asarray(dose_t, dtype=np.float64)
    if dose.shape != (frames,) or not np.all(np.isfinite(dose) & (dose > 0)):
        raise InputError(
            f"{what}: doses {dose.tolist()}; expected {frames} positive numbers, ring current (mA) times exposure (s)"
        )
    return dose

"""Raw frames: dark level, gain, and the mean rate of repeats with its variance.

A frame is ``counts = dark + gain * photons + read noise``, photons Poisson with the mean
``flux * current * exposure * T``. With gain ``g`` in counts per photon, the variance of a pixel is
``g (counts - dark) + v``, v that of the dark frames; both numbers are measured from the flats and darks themselves
(`measure_noise`), so no data sheet is needed. The rate of repeats is ``r = sum(counts - dark) / sum(current *
exposure)``, the maximum likelihood estimate for photon noise.

A pixel that says nothing (hot, saturated, no repeat left) is NaN with an infinite variance; nothing is clamped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import pixel_sums
from mistral_txm.reconstruction.geometry import InputError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

HOT_PIXEL_SIGMA = 10.0
"""A pixel whose dark level is this many robust standard deviations from the median is hot."""
ZINGER_SIGMA = 7.0
"""A pixel of one repeat this many standard deviations above what the repeats tell was hit by a zinger."""
FEWEST_FOR_A_MEDIAN = 3

_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Dark:
    """Level of the unexposed camera, ``[v, u]``, its variance per frame, how many frames, and which pixels are hot."""

    level_vu: Float64
    variance: float
    frames: float
    """The level of a pixel has the variance ``variance / frames``."""
    hot_vu: Bool


@dataclass(frozen=True)
class Rate:
    """Counts per second and mA above dark, ``[v, u]``, and the variance of that; NaN and infinity where unknown.

    Of repeats that are normalized by a reference it is a transmittance.
    """

    rate_vu: Float64
    var_vu: Float64


def dark_level(counts_tvu: npt.ArrayLike) -> Dark:
    """Average dark frames, but for what zingers hit (of three or more), and find hot pixels.

    Args:
        counts_tvu: dark frames of one exposure time, at least two, counts.

    Raises:
        InputError: for fewer than two frames.
    """
    counts = _frames(counts_tvu, "dark frames").astype(np.float32)
    if len(counts) < 2:
        raise InputError(
            f"dark frames: {len(counts)} given, at least 2 are needed for their noise; take more"
        )
    rest = counts - np.median(counts, axis=0)
    if len(counts) < FEWEST_FOR_A_MEDIAN:
        good = np.ones(counts.shape, np.bool_)
    else:
        # Some differences from a median are zero: the median of the others is not too small.
        spread = _MAD_TO_SIGMA * float(np.median(np.abs(rest[rest != 0]))) if rest.any() else 0.0
        good = rest < ZINGER_SIGMA * max(spread, 1.0)
    level: Float64 = np.asarray(np.mean(counts, axis=0, where=good, dtype=np.float64))
    centre = float(np.median(level))
    spread = _MAD_TO_SIGMA * float(np.median(np.abs(level - centre)))
    hot = np.abs(level - centre) > HOT_PIXEL_SIGMA * max(spread, 1.0)
    whole = good.all(axis=0) & ~hot
    variance = float(counts.var(axis=0, ddof=1, dtype=np.float64)[whole].mean())
    return Dark(level, variance, len(counts), hot)


def dark_at(darks: Mapping[float, Dark], exposure_s: float) -> Dark:
    """Return the dark level of an exposure time: as measured, or on the line through the two nearest times.

    A dark level is an offset and a dark current times the exposure. Between two times the line is as certain as they
    are, beyond them less so: ``frames`` of the result says it.

    Args:
        darks: by exposure time, s.
        exposure_s: wanted, s.

    Raises:
        InputError: if that time was not measured, nor two others.

    >>> none = np.zeros((1, 1), bool)
    >>> darks = {t: Dark(np.array([[300 + 2 * t]]), 25.0, 5, none) for t in (4.0, 8.0)}
    >>> dark_at(darks, 20.0).level_vu.item(), round(dark_at(darks, 20.0).frames, 2)
    (340.0, 0.2)
    """
    for time_s, dark in darks.items():
        if np.isclose(time_s, exposure_s):
            return dark
    if len(darks) < 2:
        known = ", ".join(f"{time_s:g}" for time_s in darks) or "none"
        raise InputError(
            f"exposures of {exposure_s:g} s, but no dark frames of that time, nor of two others to go by (there are: "
            f"{known} s); take dark frames of {exposure_s:g} s"
        )
    times_s = sorted(darks)
    upper = min(max(int(np.searchsorted(times_s, exposure_s)), 1), len(times_s) - 1)
    one, other = darks[times_s[upper - 1]], darks[times_s[upper]]
    part = (exposure_s - times_s[upper - 1]) / (times_s[upper] - times_s[upper - 1])
    level_variance = (1 - part) ** 2 * one.variance / one.frames
    level_variance += part**2 * other.variance / other.frames
    variance = max((1 - part) * one.variance + part * other.variance, one.variance / 2)
    return Dark(
        (1 - part) * one.level_vu + part * other.level_vu,
        variance,
        variance / level_variance,
        one.hot_vu | other.hot_vu,
    )


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
    counts = _frames(flats_tvu, "flats")
    dose = _dose(dose_t, len(counts), "flats")
    if len(counts) < 2:
        raise InputError(
            f"flats: {len(counts)} given, at least 2 are needed for their noise; take more"
        )
    above = (counts - dark.level_vu)[:, ~dark.hot_vu] * (dose.mean() / dose)[:, None]
    # Light that came and went between flats is none of their noise.
    light_t = np.median(above, axis=1)
    mean = float(above.mean())
    if mean <= 0:
        raise InputError(
            f"flats: {mean:.1f} counts above dark, expected light; is the shutter open?"
        )
    above = above[np.abs(light_t / np.median(light_t) - 1) < 0.1]
    if len(above) < 2:
        raise InputError("flats: no two of them have the same light; take them again")
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
    stack = stack_of(counts_tvu, dark, dose_t, saturation_counts=saturation_counts)
    return stack.sums(gain).rate


@dataclass(frozen=True)
class Sums:
    """The robust mean of repeats, pixel by pixel.

    ``hit_tvu`` are pixels of single repeats that zingers hit, ``saturated_t`` how many are full in each repeat.
    """

    rate: Rate
    hit_tvu: Bool
    saturated_t: pixel_sums.Int


@dataclass(frozen=True)
class Stack:
    """Repeats of one state as they were read, and what normalizes them (`pixel_sums` says how)."""

    counts_tvu: npt.NDArray[Any]
    level_kvu: Float32
    variance_k: Float64
    frames_k: Float64
    dark_t: pixel_sums.Int
    dose_t: Float64
    reference_vu: Float32
    usable_vu: Bool
    saturation_counts: float
    reference_error_f: Float64 | None
    """Power of the relative error of the reference, in rings of equal frequency (`flat_field.ring_numbers`)."""

    @property
    def frames(self) -> int:
        """How many repeats."""
        return len(self.counts_tvu)

    @property
    def shape_vu(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.counts_tvu.shape[1], self.counts_tvu.shape[2]

    @property
    def variance_t(self) -> Float64:
        """Variance of a pixel without light, for each repeat."""
        return self.variance_k[self.dark_t]

    def some(self, repeats: pixel_sums.Int) -> Stack:
        """Return the stack of some repeats."""
        if len(repeats) == self.frames:
            return self
        return replace(
            self,
            counts_tvu=self.counts_tvu[repeats],
            dark_t=self.dark_t[repeats],
            dose_t=self.dose_t[repeats],
        )

    def block_means(self, side: int) -> Float64:
        """Return the mean value in each square of ``side`` pixels of each repeat, [t, v, u]."""
        return pixel_sums.block_means(
            self.counts_tvu,
            self.level_kvu,
            self.dark_t,
            self.dose_t,
            self.reference_vu,
            self.usable_vu,
            self.saturation_counts,
            side,
        )

    def sums(self, gain: float, move_t2: pixel_sums.Int | None = None) -> Sums:
        """Average the repeats, each moved back by whole pixels."""
        if move_t2 is None:
            move_t2 = np.zeros((self.frames, 2), np.intp)
        rate_vu, var_vu, hit_tvu, saturated_t = pixel_sums.robust_sums(
            self.counts_tvu,
            self.level_kvu,
            self.dark_t,
            self.dose_t,
            self.reference_vu,
            self.usable_vu,
            self.saturation_counts,
            self.variance_t,
            gain,
            ZINGER_SIGMA,
            move_t2,
            self.variance_k / self.frames_k,
        )
        return Sums(Rate(rate_vu, var_vu), hit_tvu, saturated_t)

    def normalized(
        self, t: int, sums: Sums, otherwise_vu: Float32, move: pixel_sums.Int | None = None
    ) -> Float32:
        """Return the values of one repeat, moved back by whole pixels; of hit pixels those of another image."""
        return pixel_sums.normalized(
            self.counts_tvu[t],
            self.level_kvu[self.dark_t[t]],
            self.dose_t[t],
            self.reference_vu,
            self.usable_vu,
            sums.hit_tvu[t],
            self.saturation_counts,
            np.zeros(2, np.intp) if move is None else move,
            otherwise_vu,
        )


def stack_of(
    counts_tvu: npt.ArrayLike,
    dark: Dark | Sequence[Dark],
    dose_t: npt.ArrayLike,
    *,
    reference_vu: Float64 | None = None,
    reference_error_f: Float64 | None = None,
    saturation_counts: float = np.inf,
) -> Stack:
    """Return the repeats of a state with what normalizes them.

    Args:
        counts_tvu: repeats, counts.
        dark: of all repeats, or of each (those of one exposure time are one object).
        dose_t: ring current times exposure of each repeat, mA s.
        reference_vu: rate of the open beam; without it values are rates. A pixel without one does not count.
        reference_error_f: power of its relative error, in rings of equal frequency.
        saturation_counts: counts at and above which a pixel is saturated.

    Raises:
        InputError: for what is no stack of frames, or doses that are not positive.
    """
    counts = _frames(counts_tvu, "frames")
    dose = _dose(dose_t, len(counts), "frames")
    of_each = [dark] * len(counts) if isinstance(dark, Dark) else list(dark)
    darks = list({id(one): one for one in of_each}.values())
    for one in darks:
        if one.level_vu.shape != counts.shape[1:]:
            raise InputError(
                f"frames of {counts.shape[1:]} pixels, dark frames of {one.level_vu.shape}; expected the same"
            )
    usable = ~np.any([one.hot_vu for one in darks], axis=0)
    if reference_vu is None:
        reference = np.ones(counts.shape[1:], np.float32)
    else:
        reference = np.asarray(reference_vu, np.float32)
        if reference.shape != counts.shape[1:]:
            raise InputError(
                f"frames of {counts.shape[1:]} pixels, flats of {reference.shape}; expected the same"
            )
        with np.errstate(invalid="ignore"):
            usable &= np.isfinite(reference) & (reference > 0)
    number = {id(one): k for k, one in enumerate(darks)}
    return Stack(
        np.ascontiguousarray(counts),
        np.stack([one.level_vu for one in darks]).astype(np.float32),
        np.array([one.variance for one in darks]),
        np.array([float(one.frames) for one in darks]),
        np.array([number[id(one)] for one in of_each], np.intp),
        dose,
        reference,
        usable,
        float(saturation_counts),
        reference_error_f,
    )


def filled(image_vu: Float64) -> Float64:
    """Return the image with each pixel that is unknown replaced by the mean of the 5 x 5 pixels around it.

    Where none of these is known, it is the median of the image, or 1 of an image that is all unknown.

    >>> filled(np.array([[1.0, 1.0], [np.nan, 4.0]]))[1, 0].item()
    2.0
    """
    bad = ~np.isfinite(image_vu)
    if not bad.any():
        return image_vu
    if bad.all():
        return np.ones_like(image_vu)
    padded = np.pad(np.where(bad, 0.0, image_vu), 2)
    known = np.pad(~bad, 2)
    total, count = np.zeros(bad.sum()), np.zeros(bad.sum())
    rows, columns = np.nonzero(bad)
    for v in range(5):
        for u in range(5):
            total += padded[rows + v, columns + u]
            count += known[rows + v, columns + u]
    result = image_vu.copy()
    result[bad] = np.where(count > 0, total / np.maximum(count, 1), np.median(image_vu[~bad]))
    return result


def _frames(counts_tvu: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    counts = np.asarray(counts_tvu)
    if counts.ndim != 3 or not len(counts):
        raise InputError(
            f"{what}: an array of shape {counts.shape}; expected frames [frame, v, u], at least one"
        )
    return counts if counts.dtype == np.uint16 else counts.astype(np.float64, copy=False)


def _dose(dose_t: npt.ArrayLike, frames: int, what: str) -> Float64:
    dose = np.asarray(dose_t, dtype=np.float64)
    if dose.shape != (frames,) or not np.all(np.isfinite(dose) & (dose > 0)):
        raise InputError(
            f"{what}: doses {dose.tolist()}; expected {frames} positive numbers, ring current (mA) times exposure (s)"
        )
    return dose

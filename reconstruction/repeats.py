"""The exposures of one state, judged and averaged: which were bad, how far each lies off, what a pixel's mean is.

Repeat t of an image ``x(r)`` is ``x(r - s_t)`` with a shift of less than a pixel, as long as nothing went wrong. In
order:

1. *Light*. ``q_t`` is the median over blocks of pixels of the repeat's value over that of the median repeat. A repeat
   is bad where it differs from 1 by more than `LIGHT_TOLERANCE` and by more than 5 standard deviations, robust and
   photon noise. Of two repeats the darker one is bad: light gets lost on its way, none is gained.
2. *Pixels*. Hot and saturated pixels and zingers are left out, pixel by pixel (`pixel_sums.robust_sums`).
3. *Shift*. To first order ``x_t - x = - s_t . grad(x)``, x the mean of all repeats, so with g the gradient of x after a
   Gaussian,

       ``N s_t = r_t``,  ``N = sum of g grad(x)^T - noise``,  ``r_t = - sum of g (x_t - x)``,
       ``var r_t = var x_t sum of g g^T``

   where the noise of x adds ``var x (1 - exp(-2 / w^2)) / (4 pi w^2)`` for each pixel to the diagonal of N, w the
   Gaussian's width, and the error of the open beam, which stays in place, as much as its spectrum says. What is on both
   sides of the first equation of noise has no mean: g is odd. The result is the
   posterior mean with the prior ``0 +- PRIOR_PIXELS``. As sums of r_t vanish, the mean stays where it is.
4. *Image*. chi^2 of the blocks of a repeat, shift and light allowed for, against photon noise: one that is several
   times that of the others shows something else. So does a shift by more than `MOST_PIXELS`.
5. *Alignment*. Where the shifts scatter by `LEAST_PIXELS` rms or more beyond their own standard deviation, the repeats
   are moved back: by whole pixels, and the rest by a Lagrange polynomial of five points. Smaller ones cost less than
   0.4 % of the contrast of the finest structures that a zone plate of 25 nm leaves, and stay. Interpolation averages
   neighbours: the variance that is stated is that of the pixels of the result, white noise times the sum of the
   squares of the polynomial's weights; their noise is correlated then over two pixels.

The mean is ``sum(counts - dark) / sum(dose * reference)``: each repeat counts by its dose, which is the maximum
likelihood estimate for photon noise, whatever their exposure times are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.special

from mistral_txm.reconstruction import pixel_sums
from mistral_txm.reconstruction.flat_field import ring_numbers
from mistral_txm.reconstruction.frames import Float32, Float64, Rate, Stack, Sums, filled

LIGHT_TOLERANCE = 0.02
"""Ring current and exposure time tell the light of a repeat to this part."""
MOST_PIXELS = 3.0
"""A sample that moves by more between two exposures moved during them, too."""
LEAST_PIXELS = 0.1
"""Shifts that scatter by less are not undone."""
PRIOR_PIXELS = 1.0
"""Standard deviation of the prior on a shift."""
LARGEST_CHI_SQUARED = 4.0
"""A repeat whose blocks differ from the others' by so many times their variance, and that of a usual repeat, is bad."""

_WIDTH_PIXELS = 2.0
_SMALLEST_IMAGE = 32
_SIGMA = 5.0
_MAD_TO_SIGMA = 1.4826


class BadRepeat(NamedTuple):
    """A repeat that is not in the mean: its place in the stack, and why, in a few words."""

    number: int
    reason: str


@dataclass(frozen=True)
class Findings:
    """What was found in the exposures of one state, and left out of their mean."""

    bad: tuple[BadRepeat, ...] = ()
    hot_pixels: int = 0
    zinger_pixels: tuple[int, ...] = ()
    """In each repeat; 0 in a bad one."""
    saturated_pixels: tuple[int, ...] = ()
    """In each repeat, those that are full or so close to it that their noise is cut; 0 in a bad one."""
    shift_vu: Float64 = field(default_factory=lambda: np.zeros((0, 2)))
    """Of each repeat from the mean, pixels; NaN of a bad one. The shifts were undone if `aligned`."""
    aligned: bool = False

    @property
    def shift_rms(self) -> float:
        """Root mean square length of the shifts, pixels."""
        lengths = np.hypot(*np.nan_to_num(self.shift_vu).T)
        return float(np.sqrt(np.mean(lengths**2))) if len(lengths) else 0.0


def average(stack: Stack, gain: float, *, align: bool = True) -> tuple[Rate, Findings]:
    """Average the repeats of one state, robustly; return their mean with its variance, and what was left out.

    Args:
        stack: the repeats (`frames.stack_of`), at least one.
        gain: counts per photon (`frames.measure_noise`).
        align: whether there is a sample that may have moved.

    >>> from mistral_txm.reconstruction.frames import Dark, stack_of
    >>> counts = np.full((3, 40, 40), 1100.0)
    >>> counts[1] -= 300
    >>> rate, findings = average(stack_of(counts, Dark(np.full((40, 40), 100.0), 4.0, 5,
    ...     np.zeros((40, 40), bool)), [2.0, 2.0, 2.0]), 1.0)
    >>> float(rate.rate_vu[5, 5]), [(one.number, one.reason) for one in findings.bad]
    (500.0, [(1, '70.0 % of the light of the others')])
    """
    blocks = _Blocks(stack, gain)
    bad = blocks.without_light()
    shift, aligned = np.zeros((stack.frames, 2)), False
    while True:
        kept = np.array([t for t in range(stack.frames) if t not in bad])
        some = stack.some(kept)
        sums = some.sums(gain)
        nothing = not np.isfinite(sums.rate.var_vu).any()  # saturated throughout
        if nothing or not align or len(kept) < 2 or min(stack.shape_vu) < _SMALLEST_IMAGE:
            break
        shift[:] = np.nan
        shift[kept], std, slopes = _shifts(some, sums, gain, blocks.light_t[kept])
        more = blocks.different(kept, shift, slopes)
        bad |= more
        if not more:
            aligned = _is_worth_it(shift[kept], std)
            break
    whole = np.rint(np.nan_to_num(shift[kept])).astype(np.intp) if aligned else None
    if whole is not None and whole.any():
        sums = some.sums(gain, whole)
    rate = sums.rate
    if aligned:
        assert whole is not None
        rate = _interpolated(some, sums, shift[kept] - whole, whole)
    zingers, saturated = np.zeros(stack.frames, int), np.zeros(stack.frames, int)
    zingers[kept] = sums.hit_tvu.sum(axis=(1, 2))
    saturated[kept] = sums.saturated_t
    return rate, Findings(
        bad=tuple(BadRepeat(number, reason) for number, reason in sorted(bad.items())),
        hot_pixels=int((~stack.usable_vu).sum()),
        zinger_pixels=tuple(zingers.tolist()),
        saturated_pixels=tuple(saturated.tolist()),
        shift_vu=shift,
        aligned=aligned,
    )


class _Blocks:
    """Means of the repeats over blocks of pixels, in which photon noise is small."""

    def __init__(self, stack: Stack, gain: float) -> None:
        self._side = max(4, min(16, min(stack.shape_vu) // 8))
        self._value_tvu = stack.block_means(self._side)
        self._usual_vu = _median(self._value_tvu, 0)
        dose = stack.dose_t[:, None, None] * self.mean_of(stack.reference_vu)
        expected = np.maximum(self._usual_vu, 0) * dose
        variance = gain * expected + stack.variance_t[:, None, None]
        self._std_tvu = np.sqrt(variance / self._side**2) / dose
        bright = self._usual_vu > _SIGMA * np.median(self._std_tvu, axis=0)
        self._any_light = bright.mean() > 0.5
        self.light_t = np.ones(stack.frames)
        self._light_std_t = np.full(stack.frames, np.inf)
        if self._any_light:
            quotient = (self._value_tvu / self._usual_vu)[:, bright]
            # A repeat that is full everywhere is none to judge.
            self.light_t = np.nan_to_num(_median(quotient, 1), nan=1.0)
            noise = (self._std_tvu / self._usual_vu)[:, bright]
            # A median scatters by 1.25 times as much as a mean.
            self._light_std_t = 1.25 * np.sqrt(np.mean(noise**2, axis=1) / bright.sum())

    def mean_of(self, image_vu: npt.ArrayLike) -> Float64:
        """Return the means of an image."""
        image, side = np.asarray(image_vu), self._side
        rows, columns = (n // side for n in image.shape)
        cut = image[: rows * side, : columns * side].reshape(rows, side, columns, side)
        return np.asarray(cut.mean(axis=(1, 3)), dtype=np.float64)

    def without_light(self) -> dict[int, str]:
        """Return which repeats have more or less light than the others, and say so."""
        light_t = self.light_t
        if len(light_t) < 2 or not self._any_light:
            return {}
        usual = light_t.max() if len(light_t) == 2 else float(np.median(light_t))
        spread = _MAD_TO_SIGMA * float(np.median(np.abs(light_t - usual)))
        robust = 0.0 if len(light_t) == 2 else _SIGMA * spread
        limit_t = np.maximum(np.maximum(LIGHT_TOLERANCE, robust), _SIGMA * self._light_std_t)
        return {
            t: f"{max(100 * one / usual, 0.0):.1f} % of the light of the others"
            for t, one in enumerate(light_t.tolist())
            if not abs(one / usual - 1) <= limit_t[t]
        }

    def different(
        self, kept: npt.NDArray[np.intp], shift: Float64, slopes: Sequence[Float32]
    ) -> dict[int, str]:
        """Return which of the kept repeats show another image than the others, never all of them, and say so."""
        if len(kept) < 3 or not self._any_light:
            return {}
        from_usual_t = np.hypot(*(shift[kept] - _usual_place(shift[kept])).T).tolist()
        moved = {
            int(t): f"moved by {length:.1f} pixels"
            for t, length in zip(kept, from_usual_t, strict=True)
            if length > MOST_PIXELS
        }
        if moved:  # what the others show is known once these are gone
            return moved
        slope_v, slope_u = (self.mean_of(slope) for slope in slopes)
        model = _median(self._value_tvu[kept], 0)
        # Each block of the model scatters, too.
        variance = self._std_tvu**2 * (1 + 1.57 / len(kept))
        chi = {}
        for t in kept:
            rest = self._value_tvu[t] / self.light_t[t] - model
            rest += shift[t, 0] * slope_v + shift[t, 1] * slope_u
            # The median of chi squared of one degree of freedom is 0.455.
            chi[int(t)] = float(_median((rest**2 / variance[t]).ravel(), 0)) / 0.455
        usual = float(_median(np.array(list(chi.values())), 0))
        return {
            t: f"another image than the others (chi squared {one:.1f})"
            for t, one in chi.items()
            if one > LARGEST_CHI_SQUARED * max(usual, 1.0)
        }


def _shifts(
    stack: Stack, sums: Sums, gain: float, light_t: Float64
) -> tuple[Float64, Float64, tuple[Float32, Float32]]:
    """Return the shift of each repeat [t, 2] from the mean, its standard deviation, and the gradient's images."""
    mean_vu = filled(sums.rate.rate_vu).astype(np.float32)
    smooth_vu = scipy.ndimage.gaussian_filter(mean_vu, _WIDTH_PIXELS, truncate=3)
    border = 2 * int(np.ceil(_WIDTH_PIXELS)) + 2
    slopes: list[Float32] = []
    for axis in (0, 1):
        slope = np.gradient(smooth_vu, axis=axis).astype(np.float32)
        for edge in (
            np.s_[:border],
            np.s_[-border:],
            np.s_[:, :border],
            np.s_[:, -border:],
        ):
            slope[edge] = 0
        slopes.append(slope)
    inside = (mean_vu.shape[0] - 2 * border) * (mean_vu.shape[1] - 2 * border)
    own = [np.gradient(mean_vu, axis=axis) for axis in (0, 1)]
    normal = np.array([[_dot(g, x) for x in own] for g in slopes])
    known = np.isfinite(sums.rate.var_vu)
    variance = float(np.mean(sums.rate.var_vu[known]))
    w2 = _WIDTH_PIXELS**2
    noise = variance * (1 - np.exp(-2 / w2)) / (4 * np.pi * w2)
    if stack.reference_error_f is not None:
        noise += float(np.mean(mean_vu**2)) * _slope_variance(stack)
    normal -= np.eye(2) * inside * noise
    powers, axes = np.linalg.eigh((normal + normal.T) / 2)
    normal = (axes * np.maximum(powers, 0)) @ axes.T
    square = np.array([[_dot(g, h) for h in slopes] for g in slopes])
    shifts, std = np.zeros((stack.frames, 2)), np.full((stack.frames, 2), PRIOR_PIXELS)
    if not square.any():
        return shifts, std, (slopes[0], slopes[1])
    for t in range(stack.frames):
        image_vu = stack.normalized(t, sums, mean_vu)
        right = -pixel_sums.products(image_vu, mean_vu, light_t[t], slopes[0], slopes[1])
        own_variance = variance * float(stack.dose_t.sum() / stack.dose_t[t])
        weighted = normal @ np.linalg.pinv(own_variance * square)
        covariance = np.linalg.inv(weighted @ normal + np.eye(2) / PRIOR_PIXELS**2)
        shifts[t] = covariance @ weighted @ right
        std[t] = np.sqrt(np.diag(covariance))
    return shifts, std, (slopes[0], slopes[1])


def _slope_variance(stack: Stack) -> float:
    """Return the mean product of the slopes, smooth and not, of the relative error of the reference."""
    assert stack.reference_error_f is not None
    rings = ring_numbers(stack.shape_vu)
    count = np.bincount(rings.ravel())
    omega = np.pi * np.arange(len(count)) / min(stack.shape_vu)
    # Central differences: the mean of sin(omega cos(angle))^2 over all angles.
    slope = (1 - scipy.special.j0(2 * omega)) / 2
    smooth = np.exp(-((_WIDTH_PIXELS * omega) ** 2) / 2)
    return float(np.sum(count * slope * smooth * stack.reference_error_f) / count.sum())


def _usual_place(shift_t2: Float64) -> Float64:
    """Return the shift that has most others near it, of several the one nearest to the mean.

    The mean itself lies between two places, and near none, where a sample slips after half of the repeats.
    """
    apart_ts = np.hypot(*(shift_t2[:, None] - shift_t2[None]).T)
    near_t = (apart_ts <= MOST_PIXELS).sum(axis=0)
    return np.asarray(shift_t2[np.lexsort((np.hypot(*shift_t2.T), -near_t))[0]])


def _is_worth_it(shift_t2: Float64, std_t2: Float64) -> bool:
    """Tell whether the repeats scatter by more than the blur that may stay, beyond all doubt."""
    chi_squared = float(np.sum((shift_t2 / std_t2) ** 2))
    freedom = shift_t2.size - 2
    significant = chi_squared > freedom + 4 * np.sqrt(2 * freedom)
    # In a direction in which nothing changes, the shift is as uncertain as the prior, and does not matter.
    excess_t2 = np.where(std_t2 < PRIOR_PIXELS / 2, shift_t2**2 - std_t2**2, 0.0)
    return bool(significant and excess_t2.sum(axis=1).mean() > LEAST_PIXELS**2)


def _interpolated(stack: Stack, sums: Sums, rest_t2: Float64, whole_t2: pixel_sums.Int) -> Rate:
    """Move the repeats back by what is left beyond whole pixels, and average them by dose."""
    otherwise_vu = filled(sums.rate.rate_vu).astype(np.float32)
    total_vu = np.zeros_like(otherwise_vu)
    weight_t = stack.dose_t / stack.dose_t.sum()
    noise = 0.0
    for t, rest in enumerate(rest_t2):
        taps_v, taps_u = (lagrange_taps(float(part)) for part in rest)
        image_vu = stack.normalized(t, sums, otherwise_vu, whole_t2[t])
        pixel_sums.add_interpolated(total_vu, image_vu, float(weight_t[t]), taps_v, taps_u)
        noise += float(weight_t[t] * np.sum(taps_v**2) * np.sum(taps_u**2))
    unknown = np.isnan(sums.rate.rate_vu)
    return Rate(np.where(unknown, np.nan, total_vu), sums.rate.var_vu * noise)


def lagrange_taps(distance: float) -> Float32:
    """Return the weights of the pixels -2 .. 2 for the place `distance` from the middle one, |distance| <= 1/2.

    The polynomial of fourth degree through the five values.

    >>> lagrange_taps(0.5) @ np.array([4.0, 1.0, 0.0, 1.0, 4.0])
    np.float64(0.25)
    """
    places = np.arange(-2.0, 3.0)
    taps = [
        np.prod([(distance - other) / (place - other) for other in places if other != place])
        for place in places
    ]
    return np.array(taps, dtype=np.float32)


def _median(values: Float64, axis: int) -> Float64:
    """Return the median of what is known; NaN where nothing is."""
    known = np.isfinite(values).any(axis=axis, keepdims=True)
    with_any = np.where(known, values, 0.0)
    median = np.nanmedian(with_any, axis=axis, keepdims=True)
    return np.asarray(np.where(known, median, np.nan).squeeze(axis), dtype=np.float64)


def _dot(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(np.einsum("vu,vu->", one, other, dtype=np.float64))

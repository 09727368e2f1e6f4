"""What a view should show by the views beside it: how far it lies off, and how much of the contrast it has.

Of a film the dichroic signal of a ray through (x, y) is ``S = integral of (m_z + t m_x') dz``, t the tangent of the
tilt: from tilt to tilt it changes in proportion to t, but for the shear of what lies above and below the middle, which
is small from one tilt to the next. So a line in t through the last views, at each pixel of the film, predicts the next
one. The absorption, times the cosine of the tilt, stays as it is. On coarse pixels:

- *shift*: where the cross-correlation of view and prediction is largest, of both signals together, near zero first;
- *gain* of each helicity: the regression of its absorbance on the predicted dichroic signal p,
  ``g(+) = <A(+), p> / <p, p>``, ``g(-) = - <A(-), p> / <p, p>``. Both are 1 where all is well, -1 where the helicities
  are swapped, smaller than 1 where the light has lost polarization, energy or focus;
- *correlation* of the dichroic signal with p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from mistral_txm.reconstruction.binning import binned
from mistral_txm.reconstruction.image_shift import stretched
from mistral_txm.reconstruction.signal import Signals

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

LARGEST_COARSE_FIELD = 128
"""Coarse pixels across at most."""
FINEST_COARSE, COARSEST = 0.7, 0.08
"""Structure counts between Gaussians of this many coarse pixels and of this part of the field: noise is finer, what
illumination and film do slowly is coarser."""
MOST_VIEWS = 4
"""Views that make a prediction, at most; one alone tells no more than the place."""
LEAST_PART = 0.3
"""Part of the power of the views beside it that a prediction must have."""
WIDEST_DEG = 16.0
"""Views at tilts farther off say nothing."""
LEAST_STRUCTURE = 5.0
"""Power of a prediction, in units of a coarse view's noise, from which on it can be compared."""
NEAR_PIXELS = 20.0
"""By so much a goniometer may move the sample from tilt to tilt, pixels of a view."""
FAR = 0.35
"""Part of the field by which a view is looked for at most."""
ALIKE = 0.6
"""Correlation with the prediction from which on a view shows the same, or the same turned."""
OF_ONE_HELICITY = 0.5
"""Gain of one helicity, and less than minus that of the other, from which on both images are of one helicity."""
LEAST_POWER = 0.01
"""Part of the predicted power below which a view's own is next to nothing, and so is its correlation."""
LEAST_OVERLAP = 0.3
"""Part that a view and its prediction have in common, at least, weighted towards the middle."""
FAR_COST = 0.05
"""Correlation that a place `NEAR_PIXELS` off, or farther, must have more."""


@dataclass(frozen=True)
class CoarseView:
    """A view on coarse pixels of the film at no tilt, without what is finer or coarser than its structure.

    dichroic_yx, absorption_yx: the latter times the cosine of the tilt. noise: variance that noise leaves in either.
    pixels: of the view in a coarse one. shift_yx: by which the content has been moved back to lie on others. views: how
    many it was made from.
    """

    theta_deg: float
    dichroic_yx: Float32
    absorption_yx: Float32
    noise: float
    pixels: int
    shift_yx: Float64 = field(default_factory=lambda: np.zeros(2))
    views: int = 1

    @property
    def tangent(self) -> float:
        """Of the tilt."""
        return float(np.tan(np.deg2rad(self.theta_deg)))

    def back(self, shift_yx: npt.ArrayLike) -> CoarseView:
        """Move the content back by (y, x) coarse pixels."""
        shift = np.asarray(shift_yx, dtype=np.float64)
        images = (_moved(one, -shift) for one in (self.dichroic_yx, self.absorption_yx))
        return replace(
            self,
            dichroic_yx=next(images),
            absorption_yx=next(images),
            shift_yx=self.shift_yx + shift,
        )


@dataclass(frozen=True)
class Comparison:
    """A view against its prediction.

    shift_yx: of the view's content, coarse pixels. jump_pixels: how far that is from where the others lay, pixels of
    the view. correlation: of the dichroic signals there. gain_plus, gain_minus: of the helicities. gain_absorption:
    of the absorption's own structure; NaN where it has none. power: of the dichroic signal, as a part of the predicted.
    """

    shift_yx: Float64
    jump_pixels: float
    correlation: float
    gain_plus: float
    gain_minus: float
    gain_absorption: float
    power: float

    @property
    def is_of_one_helicity(self) -> bool:
        """Whether both images seem to be of the same helicity."""
        low, high = sorted((self.gain_plus, self.gain_minus))
        return high > OF_ONE_HELICITY and low < -OF_ONE_HELICITY

    @property
    def gain(self) -> float:
        """Of the dichroic signal."""
        return (self.gain_plus + self.gain_minus) / 2


def coarse_view(signals: Signals, theta_deg: float) -> CoarseView:
    """Bring the signals of a view to coarse pixels.

    Args:
        signals: images [v, u] with the tilt axis in the middle, NaN where masked.
        theta_deg: the tilt.
    """
    height, width = np.shape(signals.dichroic_vu)
    factor = ceil(max(height, width) / LARGEST_COARSE_FIELD)
    cosine = float(np.cos(np.deg2rad(theta_deg)))
    images = [
        _structure(stretched(binned(_filled(image_vu), factor), 1 / cosine))
        for image_vu in (signals.dichroic_vu, np.asarray(signals.absorption_vu) * cosine)
    ]
    variance = float(np.nanmedian(signals.std_vu)) ** 2 / factor**2
    left = 1 / (4 * np.pi * FINEST_COARSE**2)
    return CoarseView(theta_deg, images[0], images[1], variance * left, factor)


def predicted(theta_deg: float, others: Sequence[CoarseView]) -> CoarseView | None:
    """Return what a view at a tilt should show by others, which lie on each other.

    None if none is near, or little is left of what they show: a line through them crosses zero.

    >>> flat = np.zeros((8, 8), np.float32)
    >>> tilted = [CoarseView(theta, flat + theta, flat, 1.0, 1) for theta in (2.0, 4.0)]
    >>> predicted(6.0, tilted).dichroic_yx[0, 0].round(1)
    np.float32(6.0)
    """
    near = [one for one in others if abs(one.theta_deg - theta_deg) <= WIDEST_DEG]
    near = sorted(near, key=lambda one: abs(one.theta_deg - theta_deg))[:MOST_VIEWS]
    if not near or any(one.dichroic_yx.shape != near[0].dichroic_yx.shape for one in near):
        return None
    t = np.array([one.tangent for one in near]) - np.tan(np.deg2rad(theta_deg))
    lever = (t - t.mean()) / max(np.sum((t - t.mean()) ** 2), 1e-9)
    weight = 1 / len(near) - t.mean() * lever
    dichroic = sum(np.float32(w) * one.dichroic_yx for w, one in zip(weight, near, strict=True))
    absorption = sum(one.absorption_yx for one in near) / np.float32(len(near))
    noise = float(np.sum(weight**2) * np.mean([one.noise for one in near]))
    shift = np.mean([one.shift_yx for one in near], axis=0)
    usual = float(np.mean([np.mean(one.dichroic_yx**2) for one in near]))
    if float(np.mean(np.square(dichroic))) < LEAST_PART * usual:
        return None
    return CoarseView(
        theta_deg,
        np.asarray(dichroic),
        np.asarray(absorption),
        noise,
        near[0].pixels,
        shift,
        len(near),
    )


def compared(view: CoarseView, prediction: CoarseView) -> Comparison | None:
    """Compare a view with its prediction; None where the prediction shows no structure.

    Of places where the view fits, with its sign or turned, a near one is better: stripes fit, turned, half a period
    away.
    """
    shape = view.dichroic_yx.shape
    if shape != prediction.dichroic_yx.shape:
        return None
    window = _window(shape)
    power = float(np.average(prediction.dichroic_yx**2, weights=window)) - prediction.noise
    if power < LEAST_STRUCTURE * max(view.noise, prediction.noise):
        return None
    of_dichroic = _correlation(prediction.dichroic_yx, view.dichroic_yx, window)
    of_absorption = _correlation(prediction.absorption_yx, view.absorption_yx, window)
    energy = np.sqrt(_energy(prediction, window) * _energy(view, window))
    # What is displaced far shows less of the same.
    overlap = _correlation(np.ones_like(window), np.ones_like(window), window)
    energy = energy * np.maximum(overlap / overlap[0, 0], LEAST_OVERLAP)
    y, x = np.meshgrid(*(scipy.fft.fftfreq(n, 1 / n) for n in shape), indexing="ij")
    away = np.hypot(y - prediction.shift_yx[0], x - prediction.shift_yx[1])
    cost = FAR_COST * np.minimum((away * view.pixels / NEAR_PIXELS) ** 2, 1)
    cost[away > FAR * min(shape)] = np.inf
    found = []
    for sign in (1.0, -1.0):
        place = _highest((sign * of_dichroic + of_absorption) / energy - cost)
        one = _regressed(view, prediction, place)
        least = min((one.jump_pixels / NEAR_PIXELS) ** 2, 1)
        found.append((sign * one.correlation - FAR_COST * least, one))
    best = max(found, key=lambda each: each[0])[1]
    if abs(best.correlation) > ALIKE:
        return best
    # Two images of one helicity differ by nothing, and their mean shows what their difference should.
    crossed = _correlation(prediction.dichroic_yx, view.absorption_yx, window)
    both = [
        _regressed(view, prediction, _highest(sign * crossed / energy - cost))
        for sign in (1.0, -1.0)
    ]
    same = min(both, key=lambda each: each.gain_plus * each.gain_minus)
    return same if same.is_of_one_helicity else best


def _regressed(view: CoarseView, prediction: CoarseView, shift_yx: Float64) -> Comparison:
    back = view.back(shift_yx)
    window = _window(view.dichroic_yx.shape, shift_yx)
    p, d, a = prediction.dichroic_yx, back.dichroic_yx, back.absorption_yx

    def product(one: Float32, other: Float32) -> float:
        return float(np.sum(one * other * window, dtype=np.float64))

    cosine = np.cos(np.deg2rad(view.theta_deg))
    total = float(window.sum())
    own = max(product(p, p) - prediction.noise * total, 1e-30)
    seen = max(product(d, d) - view.noise * total, LEAST_POWER * own)
    of_difference = product(d, p) / own
    of_mean = product(a - prediction.absorption_yx, p) / own / cosine
    before = prediction.absorption_yx
    absorbed = product(before, before) - prediction.noise * total
    marked = absorbed > LEAST_STRUCTURE * view.noise * total
    return Comparison(
        shift_yx,
        float(np.hypot(*(shift_yx - prediction.shift_yx))) * view.pixels,
        float(np.clip(product(d, p) / np.sqrt(own * seen), -1, 1)),
        of_difference + of_mean,
        of_difference - of_mean,
        product(a, before) / absorbed if marked else float("nan"),
        seen / own,
    )


def _energy(view: CoarseView, window: Float32) -> float:
    """Energy of both signals of a view in a window."""
    both = view.dichroic_yx**2 + view.absorption_yx**2
    return float(np.sum(both * window**2, dtype=np.float64))


def _correlation(one: Float32, other: Float32, window: Float32) -> Float32:
    """Cross-correlation by shift: how well `other` is `one` displaced by so much."""
    first, second = (scipy.fft.rfft2(image * window) for image in (one, other))
    return np.asarray(scipy.fft.irfft2(np.conj(first) * second, s=one.shape))


def _highest(score: npt.NDArray[np.floating]) -> Float64:
    """Return the shift (y, x) of the maximum, between pixels by a parabola."""
    i, j = np.unravel_index(int(np.argmax(score)), score.shape)
    shift = []
    for axis, (at, n) in enumerate(zip((i, j), score.shape, strict=True)):
        line = score[:, j] if axis == 0 else score[i]
        low, top, high = (float(line[(at + step) % n]) for step in (-1, 0, 1))
        bent = low - 2 * top + high
        part = (low - high) / bent / 2 if np.isfinite(bent) and bent < 0 else 0.0
        shift.append(float(at if at < (n + 1) // 2 else at - n) + float(np.clip(part, -0.5, 0.5)))
    return np.array(shift)


def _filled(image_vu: npt.ArrayLike) -> Float32:
    """Let what has no value be the median."""
    image = np.asarray(image_vu, dtype=np.float32)
    known = np.isfinite(image)
    return image if known.all() else np.where(known, image, np.float32(np.median(image[known])))


def _structure(image_yx: Float32) -> Float32:
    fine = scipy.ndimage.gaussian_filter(image_yx, FINEST_COARSE, mode="nearest", truncate=3)
    coarsest = COARSEST * min(image_yx.shape)
    slow = scipy.ndimage.gaussian_filter(image_yx, coarsest, mode="nearest", truncate=3)
    return np.asarray(fine - slow)


def _moved(image_yx: Float32, shift_yx: Float64) -> Float32:
    y, x = scipy.fft.fftfreq(image_yx.shape[0]), scipy.fft.rfftfreq(image_yx.shape[1])
    phase = np.exp(-2j * np.pi * (shift_yx[0] * y[:, None] + shift_yx[1] * x))
    turned = scipy.fft.rfft2(image_yx) * phase.astype(np.complex64)
    return np.asarray(scipy.fft.irfft2(turned, s=image_yx.shape), dtype=np.float32)


def _window(shape_yx: tuple[int, ...], shift_yx: npt.ArrayLike = (0.0, 0.0)) -> Float32:
    """Falls off towards the edges of what both a view and its displaced content show."""
    parts = []
    for n, shift in zip(shape_yx, np.asarray(shift_yx), strict=True):
        first, last = max(-shift, 0.0), n - 1 - max(shift, 0.0)
        at = (np.arange(n) - first + 0.5) / max(last - first + 1, 1.0)
        parts.append(np.where((at > 0) & (at < 1), np.sin(np.pi * np.clip(at, 0, 1)) ** 2, 0.0))
    return np.asarray(parts[0][:, None] * parts[1], dtype=np.float32)

"""What a return to zero tilt tells: did the sample move, does it absorb otherwise, is its magnetization what it was?

The same tilt of the same azimuth was exposed twice, hours apart. The later view is laid over the earlier one, and its
dichroic image S' is fitted by the earlier one, S, over the pixels that both show::

    S' = g S + c + a . (A, dA/dv, dA/du),   g = (cov(S, S') - f) / (var S - n)

What the absorption A and its slopes explain is taken off both first: where the images of the two helicities do not lie
on each other, edges and gold show up in S, and are there after the magnetization has gone, too.

Both are smoothed by a Gaussian of `SMOOTH_PIXELS` first, which takes most of the noise away and leaves domains as
they are. The noise of S makes its variance too large by n, and would make g too small; the noise of their common flats
is in both, as long as the sample stands on the same pixels, and adds f to the covariance. Both are known: white noise
of variance s^2 has ``s^2 / (4 pi w^2)`` after a Gaussian of width w, and ``exp(-d^2 / (4 w^2))`` of it in common with
itself displaced by d.

g is 1 where nothing happened, -1 where all magnetization turned over, between them where a part did, where the light
has lost circular polarization, or the film magnetic moment. Its standard deviation is that of the photons, times the
square root of what the fit leaves in units of them where that is more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from mistral_txm.reconstruction.helicity import moved
from mistral_txm.reconstruction.image_shift import ImageShift, NoCommonStructureError, image_shift
from mistral_txm.services.angle_signals import AngleSignals

Float64 = npt.NDArray[np.float64]

SMOOTH_PIXELS = 2.0
"""Width of the Gaussian by which both dichroic images are smoothed."""
SURE_PIXELS = 0.5
"""The absorption tells the shift where it tells it so well; else the magnetization does, which may have changed."""
CHANGED = 0.05
"""A smaller relative change of the dichroic signal or the absorption is no reason to worry: light and flats do that."""
SURE = 3.0
"""A change counts from so many standard deviations."""
MOVED_NM = 300.0
"""How far a sample may lie off: goniometers and drift do that, and the alignment takes it off."""
_NOISY = 2.0
"""Pixels with so many times the usual noise, behind gold, say nothing."""


@dataclass(frozen=True)
class ReturnToZero:
    """How the later view differs from the earlier one."""

    shift: ImageShift | None
    """How far the sample lies off, (v, u) pixels; None where the two have nothing in common."""
    dichroic: float | None
    """Ratio g of the dichroic signal to that of before; None without a shift, or where there was no signal."""
    std_dichroic: float | None
    absorption_change: float
    """Relative change of the mean absorbance."""
    had_signal: bool = True
    """Whether the earlier view shows magnetization: a film that lies in the plane shows none at zero tilt."""


def compare(before: AngleSignals, after: AngleSignals) -> ReturnToZero:
    """Compare the signals of a return with those of the view of the series at the same tilt.

    Args:
        before, after: as `needed_for_volume` makes them, images of one shape.

    Raises:
        ValueError: if the images are not of one shape.

    >>> v, u = np.mgrid[-32.0:32.0, -32.0:32.0]
    >>> spot, stripes = np.exp(-((v - 5) ** 2 + u**2) / 40), np.sin(u / 4) / 10
    >>> def seen(absorption, dichroic):
    ...     noise = np.full_like(absorption, 1e-3)
    ...     return AngleSignals(0.0, 0.0, Signals(absorption, dichroic, noise))
    >>> from mistral_txm.reconstruction.signal import Signals
    >>> found = compare(seen(spot, stripes), seen(np.roll(spot, 3, 0), 0.8 * np.roll(stripes, 3, 0)))
    >>> found.shift.shift_vu.round(1), round(found.dichroic, 2)
    (array([3., 0.]), 0.8)
    """
    first, second = before.signals, after.signals
    if first.dichroic_vu.shape != second.dichroic_vu.shape:
        raise ValueError(
            f"return to theta {after.theta_deg:g} deg: images of {second.dichroic_vu.shape} pixels, expected "
            f"{first.dichroic_vu.shape} as before; was the region of interest changed?"
        )
    shift = _shift(before, after)
    back = np.zeros(2) if shift is None else -shift.shift_vu
    noise, later_noise = (float(np.nanmedian(one.std_vu)) for one in (first, second))
    good = first.std_vu < _NOISY * noise
    clean = np.where(second.std_vu < _NOISY * later_noise, 1.0, np.nan)
    later = [moved(clean * image, back) for image in (second.dichroic_vu, second.absorption_vu)]
    good &= _inside(good.shape, back)
    for image in (first.dichroic_vu, first.absorption_vu, *later):
        good &= np.isfinite(image)
    if not good.any():
        return ReturnToZero(None, None, None, float("nan"), had_signal=False)
    absorbed, absorbs = float(first.absorption_vu[good].mean()), float(later[1][good].mean())
    change = absorbs / absorbed - 1
    of_flats = min(before.shared_part * noise**2, after.shared_part * later_noise**2)
    found = _fit(
        (first.dichroic_vu, later[0]),
        first.absorption_vu,
        good,
        (noise**2, later_noise**2),
        of_flats * np.exp(-float(back @ back) / (4 * SMOOTH_PIXELS**2)),
    )
    if shift is None or found is None:
        return ReturnToZero(shift, None, None, change, had_signal=found is not None)
    return ReturnToZero(shift, *found, change)


def entry(
    before: AngleSignals, after: AngleSignals, theta_deg: float, time: float, pixel_nm: float
) -> dict[str, Any]:
    """Return what the live status tells of a return to zero tilt, as JSON.

    Args:
        before, after: as for `compare`.
        theta_deg: the tilt as planned.
        time: when its last exposure ended, s since 1970-01-01 UTC.
        pixel_nm: pixel on the sample.
    """
    found = compare(before, after)
    shift = found.shift
    wrong = what_is_wrong(found, pixel_nm)
    return {
        "phi_deg": after.phi_deg,
        "theta_deg": theta_deg,
        "time": time,
        "shift_vu_pixels": None if shift is None else _rounded(shift.shift_vu),
        "std_vu_pixels": None if shift is None else _rounded(shift.std_vu),
        "dichroic": None if found.dichroic is None else round(found.dichroic, 4),
        "std_dichroic": None if found.std_dichroic is None else round(found.std_dichroic, 4),
        "absorption_change": round(found.absorption_change, 4)
        if np.isfinite(found.absorption_change)
        else None,
        "changed": bool(wrong),
        "text": told(found, after.phi_deg, theta_deg, wrong),
    }


def what_is_wrong(found: ReturnToZero, pixel_nm: float) -> list[str]:
    """Return what has changed, and what to do, in a few words each; nothing where all is as it was."""
    wrong = []
    if found.shift is None and found.had_signal:
        wrong.append(
            "the sample is another than before, or shows nothing any more; look at both views"
        )
    if found.dichroic is None or found.std_dichroic is None:
        pass
    elif found.dichroic < -CHANGED and found.dichroic < -SURE * found.std_dichroic:
        wrong.append("its sign is turned over: was a helicity swapped, or the sample in a field?")
    elif abs(found.dichroic - 1) > max(CHANGED, SURE * found.std_dichroic):
        wrong.append(
            "the sample may have been damaged or its magnetization changed; look at both dichroic images"
        )
    if abs(found.absorption_change) > CHANGED:
        wrong.append(
            f"it absorbs {100 * found.absorption_change:+.0f} %: damage, dirt, or the flats; look at the absorption"
        )
    if found.shift is not None and np.hypot(*found.shift.shift_vu) * pixel_nm > MOVED_NM:
        wrong.append("it moved more than a goniometer makes; check that it holds")
    return wrong


def told(found: ReturnToZero, phi_deg: float, theta_deg: float, wrong: Sequence[str]) -> str:
    """Say in one line what a return tells, and what to do.

    >>> same = ReturnToZero(ImageShift(np.array([0.3, 0.0]), np.full(2, 0.01)), 0.99, 0.01, 0.002)
    >>> told(same, 0.0, 0.0, what_is_wrong(same, 10.5))
    'phi 0: back at 0 deg the sample lies 0.3 pixels off, dichroic signal 0.99 +- 0.01 of before: unchanged'
    """
    seen = f"phi {phi_deg:g}: back at {theta_deg:g} deg"
    if found.shift is None:
        seen = f"{seen} nothing is seen that both views have in common"
        usual = "nothing can be told"
    else:
        off_pixels = float(np.hypot(*found.shift.shift_vu))
        seen = f"{seen} the sample lies {off_pixels:.1f} pixels off, dichroic signal "
        usual = "unchanged"
        if found.dichroic is None or found.std_dichroic is None:
            seen += "too weak to be compared"
        else:
            digits = 2 if found.std_dichroic >= 0.0095 else 3
            seen += f"{found.dichroic:.{digits}f} +- {found.std_dichroic:.{digits}f} of before"
    return f"{seen}: {'; '.join(wrong) or usual}"


def _shift(before: AngleSignals, after: AngleSignals) -> ImageShift | None:
    """Return how far the later view is displaced, from the absorption if that tells it; None if nothing does."""
    pairs = (
        [np.exp(-one.signals.absorption_vu / 2) for one in (before, after)],
        [one.signals.dichroic_vu for one in (before, after)],
    )
    found = []
    for first, second in pairs:
        try:
            one = image_shift(first, second)
        except NoCommonStructureError:
            continue
        if float(one.std_vu.max()) < SURE_PIXELS:
            return one
        found.append(one)
    return min(found, key=lambda one: float(one.std_vu.max()), default=None)


def _fit(
    dichroic_vu: tuple[npt.ArrayLike, npt.ArrayLike],
    absorption_vu: npt.ArrayLike,
    good: npt.NDArray[np.bool_],
    variances: tuple[float, float],
    common_variance: float,
) -> tuple[float, float] | None:
    """Return g and its standard deviation, None where the first image shows nothing but noise.

    The variances are those of a pixel's noise, and of what both images share.
    """
    noise, later_noise = variances
    absorption = np.where(good, absorption_vu, np.mean(np.asarray(absorption_vu)[good]))
    leaks = [_smoothed(each, good) for each in (absorption, *np.gradient(absorption))]
    x, y = (_without(leaks, _smoothed(np.asarray(image), good), good) for image in dichroic_vu)
    # A masked pixel has neither signal nor noise, and what lies beside it less of both.
    share = _smoothed_weight(good)
    left = float(share[good].mean()) / (4 * np.pi * SMOOTH_PIXELS**2)
    common = common_variance * left
    again = scipy.ndimage.gaussian_filter(x, SMOOTH_PIXELS, mode="constant")[good]
    x, y = x[good], y[good]
    structure = float(np.mean(x * x)) - noise * left
    # Its own standard deviation: what is no more than that is noise alone.
    uncertain = noise * np.sqrt(2 / (8 * np.pi * SMOOTH_PIXELS**2 * x.size))
    if structure <= SURE * uncertain:
        return None
    g = float((np.mean(x * y) - common) / structure)
    residual = float(np.mean((y - g * x) ** 2))
    expected = (later_noise + g * g * noise) * left - 2 * g * common
    excess = max(residual / expected, 1.0) if expected > 0 else 1.0
    # The sum of x times smoothed noise is that of smoothed x times white noise; and noise meets noise.
    pixels = 8 * np.pi * SMOOTH_PIXELS**2
    smooth = max(float(np.mean(again * again)) - noise * left / 2, 0.0)
    with_structure = (later_noise + g * g * noise) * smooth
    with_itself = noise * (later_noise + 2 * g * g * noise) / pixels
    std = float(np.sqrt(excess * (with_structure + with_itself) / x.size)) / structure
    return g, std


def _smoothed(image_vu: Float64, good: npt.NDArray[np.bool_]) -> Float64:
    """Take the mean off, set what is masked to zero, and smooth."""
    filled = np.where(good, image_vu, 0.0)
    filled = np.where(good, filled - filled[good].mean(), 0.0)
    smoothed = scipy.ndimage.gaussian_filter(filled, SMOOTH_PIXELS, mode="constant")
    return np.asarray(smoothed - smoothed[good].mean(), np.float64)


def _without(leaks: list[Float64], image_vu: Float64, good: npt.NDArray[np.bool_]) -> Float64:
    """Take off an image what others explain."""
    basis = np.stack([leak[good] for leak in leaks], axis=1)
    parts, *_ = np.linalg.lstsq(basis, image_vu[good], rcond=1e-9)
    return np.asarray(image_vu - np.einsum("i,ivu->vu", parts, np.stack(leaks)), np.float64)


def _smoothed_weight(good: npt.NDArray[np.bool_]) -> Float64:
    """Which part of its noise each smoothed pixel has: the square of a Gaussian is one of 1 / sqrt(2) of its width."""
    width = SMOOTH_PIXELS / np.sqrt(2)
    return np.asarray(
        scipy.ndimage.gaussian_filter(good.astype(np.float64), width, mode="constant")
    )


def _inside(shape: tuple[int, ...], back: Float64) -> npt.NDArray[np.bool_]:
    """Which pixels both images show, when the later one was moved by `back`."""
    inside = np.ones(shape, bool)
    for axis, by in enumerate(back):
        places = np.arange(shape[axis]) - by
        seen = (places >= 0) & (places <= shape[axis] - 1)
        inside &= seen.reshape([-1 if each == axis else 1 for each in range(len(shape))])
    return inside


def _rounded(pair: Float64) -> list[float]:
    return [round(float(part), 3) for part in pair]

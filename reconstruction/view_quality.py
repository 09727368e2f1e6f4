"""How good one view is: how far its dichroic structure stands out of the noise, and how sharp it is.

The noise of a pixel is known, so what it adds to a mean square is taken off again: these numbers do not depend on how
long was exposed, only their scatter does.

- *contrast*: ``sqrt(var S - sigma^2) / sigma``, S the dichroic signal, sigma the standard deviation of a pixel.
- *sharpness*: how much fine structure both signals show, ``sqrt(<d^2> + <a^2> - 2 g sigma^2)``, d and a the dichroic
  signal and the absorption between Gaussians of `FINE_PIXELS`, g what these leave of white noise. It depends on what is
  imaged and from where, so only views that show nearly the same can be compared, and falls with the contrast, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from mistral_txm.reconstruction.signal import Signals

Float32 = npt.NDArray[np.float32]

FINE_PIXELS = (2.0, 4.0)
"""Standard deviations of the Gaussians between which structure is fine: periods of about 10 to 30 pixels. What is finer
is noise in most views."""
_BORDER = 16


@dataclass(frozen=True)
class ViewQuality:
    """What is seen of the quality of a view in its own signals.

    contrast: in units of the noise. noise: standard deviation of a pixel of the dichroic signal, median. sharpness: rms
    of the fine structure, NaN where noise hides it. absorbance: median over the pixels, times the cosine of the
    tilt: of a film, the same in all views.
    """

    contrast: float
    noise: float
    sharpness: float
    absorbance: float


def view_quality(signals: Signals, theta_deg: float) -> ViewQuality:
    """Judge a view by its signals.

    Args:
        signals: of one view, images [v, u], NaN where masked.
        theta_deg: its tilt.

    >>> v, u = np.mgrid[:64, :64]
    >>> film = np.float32(0.2) * np.sin(u / 3, dtype=np.float32)
    >>> noise = np.random.default_rng(0).normal(0, 0.02, film.shape).astype(np.float32)
    >>> seen = view_quality(Signals(film + 1, film + noise, np.full_like(film, 0.02)), 60.0)
    >>> round(seen.contrast), round(seen.noise, 3), round(seen.absorbance, 1)
    (7, 0.02, 0.5)
    """
    signal_vu, known_vu = _filled(signals.dichroic_vu)
    noise = float(np.nanmedian(signals.std_vu))
    structure = float(np.var(signal_vu[known_vu], dtype=np.float64)) - noise**2
    inside = known_vu.copy()
    border = min(_BORDER, min(inside.shape) // 4)
    for edge in (np.s_[:border], np.s_[-border:], np.s_[:, :border], np.s_[:, -border:]):
        inside[edge] = False
    fine = -2 * _left_of_noise() * noise**2
    for image_vu in (signal_vu, _filled(signals.absorption_vu)[0]):
        narrow, wide = (
            scipy.ndimage.gaussian_filter(image_vu, width, truncate=3) for width in FINE_PIXELS
        )
        fine += float(np.mean((narrow - wide)[inside] ** 2, dtype=np.float64))
    absorbance = float(np.nanmedian(signals.absorption_vu)) * np.cos(np.deg2rad(theta_deg))
    return ViewQuality(
        contrast=float(np.sqrt(max(structure, 0.0))) / noise,
        noise=noise,
        sharpness=float(np.sqrt(fine)) if fine > 0 else float("nan"),
        absorbance=float(absorbance),
    )


def _filled(image_vu: npt.ArrayLike) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """Return an image with the median in place of what is unknown, and what is known."""
    image = np.asarray(image_vu, dtype=np.float32)
    known = np.isfinite(image)
    return np.where(known, image, np.float32(np.median(image[known]))), known


def _left_of_noise() -> float:
    """Part of the variance of white noise that is left between the Gaussians.

    The square of a Gaussian of width s sums to ``1 / (4 pi s^2)``, the product of two to ``1 / (2 pi (s^2 + t^2))``.
    """
    s, t = FINE_PIXELS
    return float((1 / s**2 + 1 / t**2) / (4 * np.pi) - 1 / (np.pi * (s**2 + t**2)))

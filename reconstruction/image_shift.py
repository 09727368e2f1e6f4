"""How far one image is displaced against another, to a fraction of a pixel, and how surely.

The shift s maximizes the weighted cross-correlation

    ``C(s) = sum over f of W(f) Re(F1*(f) F2(f) exp(2 pi i f . s))``

of the Fourier transforms of both images: first on whole pixels, then on a grid ten times finer about the maximum by a
matrix-multiply transform (Guizar-Sicairos, Thurman, Fienup, Opt. Lett. 33, 156 (2008)), then by Newton steps. Single
exposures are mostly noise, so frequencies count by what they say. With the power S of the common structure and N of the
noise in one image, both means over rings of equal |f|, the weight of least variance is ``W = S / (2 S N + N^2)``
(Hannan, Thomson, Biometrika 60, 469 (1973)); S is the rings' cross-spectrum, taken as zero where it does not stand out.

The covariance of s is ``H^-1 B H^-1``, ``H_ab = sum W w_a w_b S``, ``B_ab = sum W^2 w_a w_b (2 S N + N^2)``,
w = 2 pi f: the noise of both images, and of nothing else. N is taken as the same all over the image: square roots of
transmittances or counts are so under photon noise; absorbances are noisier behind gold, and s by up to a third more
than stated. What stays in place while the sample moves (a hot pixel, structure that the flat left) pulls s to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from mistral_txm.reconstruction.geometry import InputError

Floating = TypeVar("Floating", bound=np.floating)
Float64 = npt.NDArray[np.float64]
Complex128 = npt.NDArray[np.complex128]

UPSAMPLING = 10
"""The grid about the highest whole pixel is this many times finer."""

EDGE = 0.1
"""Part of the image on each side that fades to its mean."""

_ROUNDS = 8
_SEARCHED_ROUNDS = 2
_LATER_PIXELS = 3.0
_SETTLED_PIXELS = 0.003
_STANDS_OUT = 3.0
_NEWTON_STEPS = 8
_NEWTON_PIXELS = 0.5
_LEAST_NOISE = 0.01
"""Part of a ring's power that is taken for noise at least: no ring decides alone."""
_WEAKEST = 1e-3
"""What is taken for noise everywhere, as a part of the strongest ring but for the innermost `_SLOW_RINGS`: what the
window spreads over all frequencies stays in place, so rings without structure of their own must not count."""
_SLOW_RINGS = 3


class NoCommonStructureError(InputError):
    """Two images have nothing in common that stands out of the noise."""


@dataclass(frozen=True)
class ImageShift:
    """How far the content of an image is displaced, (v, u) in pixels, and the standard deviation of either."""

    shift_vu: Float64
    std_vu: Float64


def translated(image_vu: npt.ArrayLike, shift_vu: npt.ArrayLike) -> Float64:
    """Move the content of an image by (v, u) pixels, by a cubic spline; beyond the border the border goes on.

    >>> translated([[0.0, 0.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.0, 0.0]], (0, 1))[1, 2].round(9)
    np.float64(1.0)
    """
    return np.asarray(
        scipy.ndimage.shift(
            np.asarray(image_vu, np.float64), np.asarray(shift_vu, np.float64), mode="nearest"
        )
    )


def stretched(image_vu: npt.NDArray[Floating], ratio: float) -> npt.NDArray[Floating]:
    """Stretch an image along u about its middle, between pixels on a line; what comes from beyond the border is 0.

    >>> stretched(np.array([[1.0, 2.0, 4.0]]), 2.0)
    array([[1.5, 2. , 3. ]])
    """
    middle = (image_vu.shape[1] - 1) / 2
    return np.asarray(
        scipy.ndimage.affine_transform(
            image_vu, np.array([1.0, 1 / ratio]), np.array([0.0, middle * (1 - 1 / ratio)]), order=1
        )
    )


def _fading_window(shape_vu: tuple[int, int], shift_vu: Float64) -> Float64:
    """One in the middle, a raised cosine to zero over `EDGE` at the borders of what both images show.

    Of an image moved back by the shift the pixels beyond its border are unknown, and zero here.
    """
    parts = []
    for n, shift in zip(shape_vu, shift_vu, strict=True):
        first, last = max(-shift, 0.0), n - 1 - max(shift, 0.0)
        inside = np.minimum(np.arange(n) - first, last - np.arange(n)) + 0.5
        depth = np.clip(inside / (EDGE * n), 0, 1)
        parts.append(np.sin(np.pi / 2 * depth) ** 2)
    return np.asarray(parts[0][:, None] * parts[1][None, :], dtype=np.float64)


class _Rings:
    """Frequencies of real images, and means over rings of equal distance from zero."""

    def __init__(self, shape_vu: tuple[int, int]) -> None:
        n_v, n_u = shape_vu
        f_v, f_u = scipy.fft.fftfreq(n_v)[:, None], scipy.fft.rfftfreq(n_u)[None, :]
        self.omega_v, self.omega_u = 2 * np.pi * f_v, 2 * np.pi * f_u
        self.number = np.round(np.hypot(f_v, f_u) * min(shape_vu) / 2).astype(np.intp)
        self._times = np.broadcast_to(
            np.where((f_u == 0) | (np.abs(f_u) == 0.5), 1.0, 2.0), (n_v, f_u.size)
        )
        self._count = np.bincount(self.number.ravel(), self._times.ravel())

    def mean(self, values: Float64) -> Float64:
        """Mean over each ring, for all its frequencies."""
        total = np.bincount(self.number.ravel(), (self._times * values).ravel())
        return np.asarray((total / self._count)[self.number], dtype=np.float64)

    def sum(self, values: Float64) -> float:
        """Sum over all frequencies, also the half that is not stored."""
        return float(np.sum(self._times * values))

    @property
    def count(self) -> Float64:
        """How many frequencies the ring of each frequency has."""
        return np.asarray(self._count[self.number], dtype=np.float64)

    def phase(self, shift_vu: Float64) -> Complex128:
        """``exp(i w . s)``."""
        return np.asarray(
            np.exp(1j * (self.omega_v * shift_vu[0])) * np.exp(1j * (self.omega_u * shift_vu[1]))
        )


def _filled(image_vu: npt.ArrayLike, name: str) -> Float64:
    image = np.array(image_vu, dtype=np.float64)
    good = np.isfinite(image)
    if image.ndim != 2 or min(image.shape) < 16:
        raise InputError(f"{name}: shape {image.shape}, expected (v, u), 16 x 16 pixels or more")
    if not good.any():
        raise InputError(f"{name}: every pixel is masked or not a number; leave it out")
    image[~good] = np.median(image[good])
    return image


def _highest(
    cross: Complex128, shape_vu: tuple[int, int], rings: _Rings, most_pixels: float
) -> Float64:
    """The maximum of the correlation: whole pixels, then a finer grid about it."""
    correlation = scipy.fft.irfft2(cross, shape_vu)
    v, u = (scipy.fft.fftfreq(n, 1 / n) for n in shape_vu)
    correlation[np.hypot(v[:, None], u[None, :]) > most_pixels] = -np.inf
    i, j = np.unravel_index(int(np.argmax(correlation)), shape_vu)
    fine = np.arange(-UPSAMPLING, UPSAMPLING + 1) / UPSAMPLING
    fine_v, fine_u = v[i] + fine, u[j] + fine
    along_v = np.exp(1j * fine_v[:, None] * rings.omega_v[:, 0])
    along_u = np.exp(1j * fine_u[:, None] * rings.omega_u[0]) * rings._times[0]
    # Small products: einsum does not wake the threads of a matrix library.
    upsampled = np.einsum(
        "av,vu,bu->ab", along_v, cross, along_u, optimize=["einsum_path", (0, 1), (0, 1)]
    ).real
    a, b = np.unravel_index(int(np.argmax(upsampled)), upsampled.shape)
    return np.array([fine_v[a], fine_u[b]])


def _newton(cross: Complex128, rings: _Rings, shift_vu: Float64) -> Float64:
    """Climb to the maximum next to a start on the fine grid."""
    start = shift_vu
    for _ in range(_NEWTON_STEPS):
        turned = cross * rings.phase(shift_vu)
        wv, wu = rings.omega_v, rings.omega_u
        gradient = -np.array([rings.sum(wv * turned.imag), rings.sum(wu * turned.imag)])
        mixed = rings.sum(wv * wu * turned.real)
        curvature = np.array(
            [[rings.sum(wv**2 * turned.real), mixed], [mixed, rings.sum(wu**2 * turned.real)]]
        )
        if np.linalg.eigvalsh(curvature)[0] <= 0:
            return start
        step = np.linalg.solve(curvature, gradient)
        shift_vu = shift_vu + step
        if np.abs(shift_vu - start).max() > _NEWTON_PIXELS:
            return start
        if np.abs(step).max() < 1e-5:
            break
    return shift_vu


def image_shift(
    reference_vu: npt.ArrayLike, image_vu: npt.ArrayLike, *, most_pixels: float = np.inf
) -> ImageShift:
    """Return by how much an image shows the reference's content displaced: ``image(r) = reference(r - s)``.

    Args:
        reference_vu, image_vu: square roots of transmittances or counts, of one shape, NaN where masked. Their
            magnetic contrast has to be the same: images of opposite helicity are compared by module `helicity`.
        most_pixels: no shift is longer than this.

    Returns:
        Shift and standard deviation, (v, u), pixels.

    Raises:
        InputError: for images that cannot be compared.
        NoCommonStructureError: if nothing stands out of the noise.

    >>> v, u = np.mgrid[-32.0:32.0, -32.0:32.0]
    >>> spot = np.exp(-(v**2 + u**2) / 50)
    >>> moved = np.exp(-((v - 2.2) ** 2 + (u + 4.5) ** 2) / 50)
    >>> image_shift(spot, moved).shift_vu.round(1)
    array([ 2.2, -4.5])
    """
    reference, image = _filled(reference_vu, "reference"), _filled(image_vu, "image")
    if reference.shape != image.shape:
        raise InputError(
            f"image shift: shapes {reference.shape} and {image.shape}, expected the same"
        )
    shape = (reference.shape[0], reference.shape[1])
    rings = _Rings(shape)
    weight = np.ones((shape[0], shape[1] // 2 + 1))
    shift = np.zeros(2)
    covariance = np.zeros((2, 2))
    for number in range(_ROUNDS):
        # Both contents now lie alike in the window, so that its edges do not pull the shift to zero.
        window = _fading_window(shape, shift)
        # It multiplies the noise before that is summed: fewer independent pixels than there are.
        correlated = float(np.mean(window**4) / np.mean(window**2) ** 2)
        first, second = (
            scipy.fft.rfft2((pixels - np.average(pixels, weights=window)) * window)
            for pixels in (reference, translated(image, -shift) if number else image)
        )
        cross = np.conj(first) * second
        power = rings.mean((np.abs(first) ** 2 + np.abs(second) ** 2) / 2)
        weakest = _WEAKEST * power[rings.number >= _SLOW_RINGS].max()
        step = np.zeros(2)
        for again in (False, True):
            if not again and number < _SEARCHED_ROUNDS:
                most = _LATER_PIXELS if number else most_pixels
                step = _highest(weight * cross, shape, rings, most)
            step = _newton(weight * cross, rings, step)
            common = rings.mean((cross * rings.phase(step)).real)
            noise_of_mean = power * np.sqrt(correlated / rings.count)
            common = np.where(common > _STANDS_OUT * noise_of_mean, common, 0.0)
            noise = np.maximum(power - common, _LEAST_NOISE * power + weakest)
            unexplained = 2 * common * noise + noise**2
            weight = common / unexplained
            weight[0, 0] = 0
        shift = shift + step
        wv, wu = rings.omega_v, rings.omega_u
        products = (wv**2 + 0 * wu, wv * wu, wu**2 + 0 * wv)
        h = [rings.sum(weight * common * product) for product in products]
        b = [rings.sum(weight**2 * unexplained * product) * correlated for product in products]
        if h[0] * h[2] - h[1] ** 2 <= 1e-12 * h[0] * h[2] or h[0] <= 0:
            raise NoCommonStructureError(
                "image shift: the images have nothing in common that stands out of the noise; average more exposures"
            )
        inverse = np.linalg.inv([[h[0], h[1]], [h[1], h[2]]])
        covariance = inverse @ np.array([[b[0], b[1]], [b[1], b[2]]]) @ inverse
        if number and np.abs(step).max() < _SETTLED_PIXELS:
            break
    return ImageShift(shift, np.sqrt(np.diag(covariance)))

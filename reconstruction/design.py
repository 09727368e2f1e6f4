"""What views tell of a film, from their angles and noise alone: how fine the volume is, and what more would bring.

The Gaussian model of module `direct`, small enough to be asked after every view: at a lateral frequency q each slab k
of the magnetic layers, with the thickness d_k at the height z_k, has three unknown coefficients, and view i is

    ``p_i = sum over k of d_k sinc(s_i d_k / 2) exp(i s_i z_k) w_i . m_k + noise``,  ``s_i = t_i e_i . q``

(w, t, e: module `geometry`). The prior covariance K is along z that of `smooth_prior`; along the film its power is what
the views themselves show above their noise at that |q|. The noise of a coefficient is ``sigma_i^2 / cos(theta_i)``, and
`MODEL_ERROR` squared times the mean power there. What is left of the prior is ``C = (K^-1 + A^H N^-1 A)^-1``.

- *known part* of the field at |q|: ``f = 1 - tr C / tr K``, mean over directions. A third of the field no view sees,
  so f stays below 1 without any noise; with one azimuth it stays below 1/2 or so. The volume's coefficients are then
  expected to correlate with the true ones by ``sqrt(f)``.
- *resolution*: the length ``2 pi / q`` at which that correlation falls below 1/2, ``f = 1/4``: the field's period along
  the film, as with Fourier shells (module `resolution`), whose threshold of half a bit is nearly the same.
- *gain* of a further view: the part that it would take of what is left, ``sum of |C a|^2 / (n + a^H C a)`` over
  ``sum of tr C``, over all frequencies as strong as they are in the prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from mistral_txm.reconstruction.geometry import ZONE_PLATE_CUTOFF_PER_NM
from mistral_txm.reconstruction.smooth_prior import MODEL_ERROR

Float64 = npt.NDArray[np.float64]
Complex128 = npt.NDArray[np.complex128]

MOST_SLABS = 12
DIRECTIONS = 4
FREQUENCIES = 20
LONGEST_NM = 1000.0
"""Longest period that is looked at."""
KNOWN = 0.25
"""Known part at which the resolution is: the volume correlates with the truth by its root, 1/2."""
RINGS = 48
"""Rings of a view's power spectrum."""
NOISE_RINGS = 6
SMOOTHED_RINGS = 3
LEAST_POWER = 1e-8
"""Power of the field where the views show none, as a part of the largest."""
KAPPA_PER_NM = 0.005
"""Inverse of the longest correlation along the normal."""


@dataclass(frozen=True)
class Spectrum:
    """Power of a view per coefficient of the film's plane, in rings of |q| (1/nm), and how many there are."""

    q_per_nm: Float64
    power: Float64
    count: Float64


@dataclass(frozen=True)
class ViewFacts:
    """What is asked of a view: its angles, and the standard deviation of a pixel of its dichroic signal."""

    phi_deg: float
    theta_deg: float
    std: float


def view_spectrum(dichroic_vu: npt.ArrayLike, theta_deg: float, pixel_nm: float) -> Spectrum:
    """Return the power spectrum of a view as the film shows it, without its tilt's foreshortening.

    White noise of standard deviation sigma has the power ``sigma^2 / cos(theta)``.
    """
    signal = np.asarray(dichroic_vu, dtype=np.float64)
    known = np.isfinite(signal)
    image = np.where(known, signal, np.median(signal[known]))
    window = np.hanning(image.shape[0] + 2)[1:-1, None] * np.hanning(image.shape[1] + 2)[1:-1]
    image = (image - np.average(image, weights=window)) * window
    cosine = float(np.cos(np.deg2rad(theta_deg)))
    transform = scipy.fft.rfft2(image.astype(np.float32), norm="ortho")
    power: Float64 = np.square(np.abs(transform), dtype=np.float64)
    power /= float(np.mean(window**2)) * cosine
    q_y = 2 * np.pi * scipy.fft.fftfreq(image.shape[0], pixel_nm)
    q_x = 2 * np.pi * scipy.fft.rfftfreq(image.shape[1], pixel_nm) * cosine
    radius = np.hypot(q_y[:, None], q_x)
    most = 2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM * cosine
    ring = (radius / most * RINGS).astype(np.intp)
    inside = (ring < RINGS) & (ring > 0)
    count = np.bincount(ring[inside], minlength=RINGS)
    total = np.bincount(ring[inside], weights=power[inside], minlength=RINGS)
    mean_q = np.bincount(ring[inside], weights=radius[inside], minlength=RINGS)
    some = count > 0
    return Spectrum(
        mean_q[some] / count[some],
        total[some] / count[some],
        np.asarray(2.0 * count[some], np.float64),
    )


@dataclass(frozen=True)
class Slabs:
    """The magnetic layers as a few slabs: heights and thicknesses, nm."""

    z_nm: Float64
    thickness_nm: Float64

    @classmethod
    def of(cls, layers_nm: Sequence[tuple[float, float]]) -> Slabs:
        """Cut layers into at most about `MOST_SLABS` slabs, each layer into equal ones."""
        total = sum(high - low for low, high in layers_nm)
        z, thickness = [], []
        for low, high in layers_nm:
            n = max(1, round(MOST_SLABS * (high - low) / total))
            edges = np.linspace(low, high, n + 1)
            z.append((edges[1:] + edges[:-1]) / 2)
            thickness.append(np.diff(edges))
        return cls(np.concatenate(z), np.concatenate(thickness))

    def correlation(self, q_per_nm: float) -> Float64:
        """Prior correlation between the slabs at |q|, as that of `smooth_prior`."""
        a = np.hypot(KAPPA_PER_NM, q_per_nm) * np.abs(self.z_nm[:, None] - self.z_nm)
        return np.asarray((1 + a) * np.exp(-a))


@dataclass(frozen=True)
class Power:
    """The power of a coefficient of one component in one layer, and the mean power of the views, in rings of |q|."""

    q_per_nm: Float64
    of_field: Float64
    of_views: Float64

    def prior(self, q_per_nm: float) -> float:
        """Power of one component in one layer."""
        return float(np.interp(q_per_nm, self.q_per_nm, self.of_field))

    def model_noise(self, q_per_nm: float) -> float:
        """What the model cannot describe."""
        return float(MODEL_ERROR**2 * np.interp(q_per_nm, self.q_per_nm, self.of_views))


def measured_power(views: Sequence[ViewFacts], spectra: Sequence[Spectrum], slabs: Slabs) -> Power:
    """Return the field's power that explains what the views have above their noise, ring by ring.

    The noise is as stated, or as in the outermost `NOISE_RINGS` where that is more: no film shows so fine a structure
    that it could be seen there in one view.
    """
    q = np.linspace(
        min(float(one.q_per_nm[0]) for one in spectra),
        max(float(one.q_per_nm[-1]) for one in spectra),
        RINGS,
    )
    above, of_unit, total, weight = (np.zeros(RINGS) for _ in range(4))
    for view, one in zip(views, spectra, strict=True):
        stated = view.std**2 / float(np.cos(np.deg2rad(view.theta_deg)))
        noise = max(stated, float(np.median(one.power[-NOISE_RINGS:])))
        count = np.interp(q, one.q_per_nm, one.count) * (q <= one.q_per_nm[-1])
        power = np.interp(q, one.q_per_nm, one.power)
        above += count * (power - noise) / noise
        of_unit += count * _seen_of_unit(view, q, slabs) / noise
        total += count * power
        weight += count
    kernel = np.ones(SMOOTHED_RINGS)
    above, of_unit = (np.convolve(part, kernel, mode="same") for part in (above, of_unit))
    found = above / np.maximum(of_unit, np.finfo(float).tiny)
    least = max(LEAST_POWER * float(found.max()), np.finfo(float).tiny)
    return Power(q, np.maximum(found, least), total / np.maximum(weight, 1.0))


def _seen_of_unit(view: ViewFacts, q_per_nm: Float64, slabs: Slabs) -> Float64:
    """Power that a view sees of a field of power one, mean over the directions of q."""
    tangent = np.tan(np.deg2rad(view.theta_deg))
    angle = (np.arange(DIRECTIONS) + 0.5) * np.pi / DIRECTIONS
    shear = tangent * q_per_nm[:, None] * np.cos(angle)
    d = slabs.thickness_nm
    wave = (
        np.exp(1j * shear[..., None] * slabs.z_nm) * d * np.sinc(shear[..., None] * d / 2 / np.pi)
    )
    along = np.stack([slabs.correlation(float(q)) for q in q_per_nm])
    seen = np.einsum("qak,qkl,qal->q", wave.conj(), along, wave, optimize=True).real / DIRECTIONS
    return np.asarray(seen * (1 + tangent**2))


@dataclass(frozen=True)
class Design:
    """What some views tell: of each frequency looked at, what is left of the prior.

    q_per_nm, shape (frequencies,), ascending; left: C, shape (frequencies, directions, unknowns, unknowns); known: f.
    """

    slabs: Slabs
    power: Power
    q_per_nm: Float64
    left: Complex128
    known: Float64

    @property
    def resolution_nm(self) -> float:
        """Period at which the known part falls below `KNOWN`; infinite if even the longest one is not known."""
        below = np.flatnonzero(self.known < KNOWN)
        if not below.size:
            return float(2 * np.pi / self.q_per_nm[-1])
        k = int(below[0])
        if k == 0:
            return float("inf")
        part = (self.known[k - 1] - KNOWN) / (self.known[k - 1] - self.known[k])
        return float(2 * np.pi / np.interp(part, [0, 1], self.q_per_nm[k - 1 : k + 1]))

    @property
    def total_left(self) -> float:
        """Variance that is left, over all frequencies; those of a ring are as many as it is long and wide."""
        return float(
            np.sum(self._times() * np.trace(self.left, axis1=2, axis2=3).real.mean(axis=1))
        )

    def gains(self, candidates: Sequence[ViewFacts]) -> Float64:
        """Part that each of some further views would take of what is left."""
        found = np.zeros(len(candidates))
        for number, q in enumerate(self.q_per_nm):
            a, noise = _views_at(candidates, float(q), self.slabs, self.power)
            ca = np.einsum("dkl,dil->dik", self.left[number], a.conj())
            own = np.einsum("dik,dik->di", a, ca).real
            taken = np.sum(np.abs(ca) ** 2, axis=2) / (noise + own)
            found += self._times()[number] * taken.mean(axis=0)
        return np.asarray(found / self.total_left)

    def _times(self) -> Float64:
        return np.asarray(self.q_per_nm * np.gradient(self.q_per_nm))


def design(views: Sequence[ViewFacts], slabs: Slabs, power: Power, finest_nm: float) -> Design:
    """Return what views tell.

    Args:
        views: at least one.
        slabs: of the magnetic layers.
        power: of the prior.
        finest_nm: shortest period that the pixels and the zone plate leave.
    """
    q_f = np.geomspace(2 * np.pi / LONGEST_NM, 2 * np.pi / finest_nm, FREQUENCIES)
    unknowns = 3 * len(slabs.z_nm)
    left = np.empty((FREQUENCIES, DIRECTIONS, unknowns, unknowns), np.complex128)
    known = np.empty(FREQUENCIES)
    for number, q in enumerate(q_f):
        a, noise = _views_at(views, float(q), slabs, power)
        a = a / np.sqrt(noise)[..., None]
        along = slabs.correlation(float(q))
        along = power.prior(float(q)) * (along + 1e-6 * np.eye(len(along)))
        prior = np.kron(np.eye(3), along)
        left[number] = np.linalg.inv(np.linalg.inv(prior) + _squared(a))
        part = np.trace(left[number], axis1=1, axis2=2).real / np.trace(prior)
        known[number] = 1 - float(part.mean())
    return Design(slabs, power, q_f, left, known)


def _squared(a: Complex128) -> Complex128:
    """``A^H A`` of each direction, in real numbers: many times faster than complex ones are multiplied."""
    real, imaginary = np.ascontiguousarray(a.real), np.ascontiguousarray(a.imag)
    real_t, imaginary_t = np.swapaxes(real, 1, 2), np.swapaxes(imaginary, 1, 2)
    crossed = real_t @ imaginary
    return real_t @ real + imaginary_t @ imaginary + 1j * (crossed - np.swapaxes(crossed, 1, 2))


def _views_at(
    views: Sequence[ViewFacts], q: float, slabs: Slabs, power: Power
) -> tuple[Complex128, Float64]:
    """Rows of A, shape (directions, views, unknowns), and the noise of each, infinite beyond the passband."""
    theta = np.deg2rad([one.theta_deg for one in views])
    phi = np.deg2rad([one.phi_deg for one in views])
    std = np.array([one.std for one in views])
    tangent = np.tan(theta)
    angle = (np.arange(DIRECTIONS) + 0.5)[:, None] * np.pi / DIRECTIONS
    along = q * np.cos(angle + phi)  # e . q, with e = (cos phi, -sin phi)
    across = q * np.sin(angle + phi)
    shear = tangent * along
    d = slabs.thickness_nm
    wave = (
        np.exp(1j * shear[..., None] * slabs.z_nm) * d * np.sinc(shear[..., None] * d / 2 / np.pi)
    )
    w = np.stack([tangent * np.cos(phi), -tangent * np.sin(phi), np.ones_like(phi)], axis=1)
    rows = (w[None, :, :, None] * wave[:, :, None, :]).reshape(DIRECTIONS, len(theta), -1)
    noise = np.broadcast_to(std**2 / np.cos(theta) + power.model_noise(q), shear.shape)
    cutoff = 2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM
    beyond = (along / np.cos(theta)) ** 2 + across**2 > cutoff**2
    return rows, np.where(beyond, np.inf, noise)

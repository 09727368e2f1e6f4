"""The prior of the direct reconstruction: a smooth isotropic spectrum, its two numbers from the views themselves.

The components are independent, of equal power, with the three-dimensional spectrum ``A / (kappa^2 + k^2)^2``. Along z
at fixed q this is ``P(q) (1 + a|z - z'|) exp(-a|z - z'|)`` with ``a = sqrt(kappa^2 + q^2)`` and ``P(q)`` proportional
to ``a^-3``. A and kappa maximize the (composite) likelihood of the views' power spectra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.direct_kernel import LEAST_NOISE
from mistral_txm.reconstruction.geometry import ZONE_PLATE_CUTOFF_PER_NM
from mistral_txm.reconstruction.lanes import ROWS
from mistral_txm.reconstruction.lateral_frequencies import Frequencies
from mistral_txm.reconstruction.layers import Support
from mistral_txm.reconstruction.views import View

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]

MODEL_ERROR = 0.1
"""Error of the model relative to the root of the views' mean power at the same |q|."""

UNSEEN = 1e-3 * LEAST_NOISE
"""Part of a view's expected power that modes along z may have and be left out: far less than the least noise."""

SHEARS_PER_PERIOD = 6
"""Shears at which the modes are looked at, per period of the highest wave along the depth."""

KAPPAS_PER_NM = (0.0025, 0.005, 0.01, 0.02, 0.04)
"""Inverse correlation lengths that the data choose from."""


@dataclass(frozen=True)
class Prior:
    """Spectrum ``A / (kappa^2 + k^2)^2``; `variance` is the covariance's value at distance zero, (signal / nm)^2."""

    variance: float
    kappa_per_nm: float

    def power(self, q_per_nm: Float64, domain_q_per_nm: Float64) -> Float64:
        """P(q): variance of a lateral coefficient (orthonormal transform), normalized over all of a domain."""
        shape = (self.kappa_per_nm**2 + domain_q_per_nm**2) ** -1.5
        return np.asarray(
            self.variance * (self.kappa_per_nm**2 + q_per_nm**2) ** -1.5 / shape.mean()
        )

    def along_z(self, q_per_nm: float, z_nm: Float64) -> Float64:
        """Correlation matrix of the layers at |q|."""
        a = np.hypot(self.kappa_per_nm, q_per_nm) * np.abs(z_nm[:, None] - z_nm[None, :])
        return np.asarray((1 + a) * np.exp(-a))


@dataclass(frozen=True)
class Roots:
    """Roots of the prior's covariance along z, per bin of |q|, in the coordinates that views can see.

    In a symmetric support each layer k of the lower half and its mirror image make an even and an odd coordinate,
    ``(m_k +- m_-k) / sqrt(2)``, which neither the prior nor the rays mix; a view sees the first through
    ``sqrt(2) cos(s z_k)``, the second through ``sqrt(2) i sin(s z_k)``. In another support there is one coordinate
    per layer, and both roots are that of the covariance.

    A root is turned so that its columns are the modes which rays of any shear up to the steepest see most of, and
    those that they see next to nothing of are dropped: about ``s_max depth / pi`` are left of each parity's layers.

    even, odd: float32 (bins, column, k), zero beyond a bin's own columns; columns_b: how many those are, even and odd,
    shape (bins, 2), multiples of four, as is the number of k. factor: of the cosines and sines, per k. mirror: image
    of k, -1 where there is none.
    """

    even: Float32
    odd: Float32
    columns_b: npt.NDArray[np.int64]
    factor: Float32
    mirror: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        prior: Prior,
        frequencies: Frequencies,
        support: Support,
        voxel_nm: float,
        steepest: float,
    ) -> Roots:
        """Roots for rays of slopes up to the steepest, inside the passband."""
        passed = 2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM * steepest / np.hypot(1.0, steepest)
        z = support.z_nm
        n = len(z)
        mirror = n - 1 - np.arange((n + 1) // 2) if support.symmetric else np.full(n, -1)
        mirror[mirror == np.arange(len(mirror))] = -1
        paired = mirror >= 0
        h = len(mirror)
        factor = np.where(paired, np.sqrt(2.0), 1.0)
        cover = voxel_nm * factor * support.coverage_z[:h]
        height = z[:h] - support.centre_nm
        depth = float(z[-1] - z[0]) + voxel_nm
        power = prior.power(frequencies.bin_radius, frequencies.domain_radius)
        largest = np.zeros(len(power))
        np.maximum.at(largest, frequencies.bins, frequencies.radius)
        padded = -(-h // ROWS) * ROWS
        roots = np.zeros((2, len(power), padded, padded), np.float32)
        columns = np.zeros((len(power), 2), np.int64)
        for b, (radius, p) in enumerate(zip(frequencies.bin_radius, power, strict=True)):
            correlation = p * (prior.along_z(float(radius), z) + 1e-6 * np.eye(n))
            parts = [correlation[:h, :h]] * 2
            if support.symmetric:
                crossed = correlation[:h, n - 1 - np.arange(h)]
                # the middle layer of an odd number is even, and its own mirror image
                scale = np.where(paired, 1.0, np.sqrt(0.5))
                odd = int(np.count_nonzero(paired))
                parts = [
                    (parts[0] + crossed) * scale[:, None] * scale,
                    (parts[0] - crossed)[:odd, :odd],
                ]
            reach = min(steepest * largest[b], passed)
            shear = np.linspace(0, reach, 2 + int(SHEARS_PER_PERIOD * reach * depth / 2 / np.pi))
            waves = [wave(shear[:, None] * height) * cover for wave in (np.cos, np.sin)]
            if not support.symmetric:
                waves = [np.concatenate(waves)] * 2
            for parity, (covariance, wave) in enumerate(zip(parts, waves, strict=True)):
                k = len(covariance)
                if k:
                    seen = _seen_root(np.linalg.cholesky(covariance), wave[:, :k])
                    columns[b, parity] = -(-seen.shape[1] // ROWS) * ROWS
                    roots[parity, b, : seen.shape[1], :k] = seen.T
        return cls(roots[0], roots[1], columns, factor.astype(np.float32), mirror.astype(np.int64))


def _seen_root(root: Float64, wave: Float64) -> Float64:
    """Turn a root of a covariance so that its first columns are all that the waves (shear, k) see of it."""
    seen = wave @ root
    _, _, modes = np.linalg.svd(seen, full_matrices=False)
    power = (seen @ modes.T) ** 2
    total = power.sum(axis=1)
    least = max(1e-12 * float(total.max()), np.finfo(float).tiny)
    beyond = (total[:, None] - np.cumsum(power, axis=1)) / np.maximum(total, least)[:, None]
    kept = 1 + int(np.argmax(beyond.max(axis=0) < UNSEEN))
    return np.asarray(root @ modes[:kept].T)


@dataclass(frozen=True)
class Statistics:
    """What the views' power says: noise and mean power, and the prior that makes the views most likely."""

    noise_v: Float64
    model_noise_b: Float64
    prior: Prior


def _in_band(
    frequencies: Frequencies, theta_deg: float, phi_deg: float, which: npt.NDArray[np.intp]
) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Shear ``t e . q`` of some frequencies and whether each is inside the view's own band."""
    theta, phi = np.deg2rad(theta_deg), np.deg2rad(phi_deg)
    qx, qy = frequencies.qx[which], frequencies.qy[which]
    along = qx * np.cos(phi) - qy * np.sin(phi)
    across = qx * np.sin(phi) + qy * np.cos(phi)
    cutoff = 2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM
    return np.tan(theta) * along, (along / np.cos(theta)) ** 2 + across**2 < cutoff**2


@numba.njit(parallel=True, cache=True)
def _power_per_bin(  # type: ignore[no-untyped-def]
    p_hat, index_y, index_x, qy, qx, bins, cos_phi, sin_phi, cos_theta, cutoff2, power, count
):
    """Add up the power and the number of coefficients in each view's band, per bin of |q|."""
    for v in numba.prange(p_hat.shape[0]):
        for j in range(bins.shape[0]):
            along = qx[j] * cos_phi[v] - qy[j] * sin_phi[v]
            across = qx[j] * sin_phi[v] + qy[j] * cos_phi[v]
            if (along / cos_theta[v]) ** 2 + across**2 < cutoff2:
                value = p_hat[v, index_y[j], index_x[j]]
                power[v, bins[j]] += value.real * value.real + value.imag * value.imag
                count[v, bins[j]] += 1


def statistics(
    views: Sequence[View],
    p_hat: Complex64,
    frequencies: Frequencies,
    support: Support,
    voxel_nm: float,
) -> Statistics:
    """Noise per view, mean power per |q|, and A and kappa of the prior.

    The composite likelihood takes every coefficient for itself, ``|p_i(q)|^2`` of mean ``V = A g_i(q) + N_i``:
    ``-log L = sum of ln V + |p|^2 / V``; it needs no matrices. At most some 20 000 coefficients are used.
    """
    theta = np.array([v.theta_deg for v in views])
    noise = np.array([v.std_signal for v in views]) ** 2 / np.cos(np.deg2rad(theta))
    samples: list[tuple[int, Float64, npt.NDArray[np.intp], Float64]] = []
    stride = max(1, len(frequencies.radius) // 1000)
    # all the strong low frequencies, a few of the many weak ones
    looked_at = np.flatnonzero(
        (np.arange(len(frequencies.radius)) % stride == 0) | (frequencies.bins < 12)
    )
    for i in range(0, len(views), max(1, len(views) // 20)):
        shear, band = _in_band(frequencies, theta[i], views[i].phi_deg, looked_at)
        chosen = looked_at[band]
        values = p_hat[i, frequencies.index_y[chosen], frequencies.index_x[chosen]]
        samples.append((i, shear[band], chosen, np.abs(values.astype(np.complex128)) ** 2))
    power_vb = np.zeros((len(views), len(frequencies.bin_radius)))
    count_vb = np.zeros(power_vb.shape)
    phi = np.deg2rad([v.phi_deg for v in views])
    _power_per_bin(
        p_hat, frequencies.index_y, frequencies.index_x, frequencies.qy, frequencies.qx, frequencies.bins,
        np.cos(phi), np.sin(phi), np.cos(np.deg2rad(theta)), (2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM) ** 2,
        power_vb, count_vb,
    )  # fmt: skip
    power_sum, power_count = power_vb.sum(axis=0), count_vb.sum(axis=0)
    mean_power = power_sum / np.maximum(power_count, 1)
    model_noise = MODEL_ERROR**2 * mean_power
    step_z = support.z_nm[:, None] - support.z_nm[None, :]
    cover = voxel_nm * support.coverage_z
    best = (np.inf, Prior(1.0, KAPPAS_PER_NM[0]))
    for kappa in KAPPAS_PER_NM:
        unit = Prior(1.0, kappa)
        p_q = unit.power(frequencies.bin_radius, frequencies.domain_radius)
        # correlation summed along the diagonals: g depends on z - z' alone
        lags, inverse = np.unique(np.round(step_z / voxel_nm).astype(int), return_inverse=True)
        pair = np.outer(cover, cover)
        lag_weight = np.bincount(inverse.ravel(), weights=pair.ravel())
        half = lags >= 0
        lag_nm = lags[half] * voxel_nm
        lag_w = lag_weight[half] * np.where(lags[half] > 0, 2.0, 1.0)
        signal_parts, noise_parts, power_parts = [], [], []
        for i, shear, chosen, power in samples:
            bins = frequencies.bins[chosen]
            a = np.hypot(kappa, frequencies.bin_radius[bins])[:, None] * lag_nm
            g = ((1 + a) * np.exp(-a) * np.cos(shear[:, None] * lag_nm)) @ lag_w
            signal_parts.append(np.maximum(g, 0) * p_q[bins] / np.cos(np.deg2rad(theta[i])) ** 2)
            noise_parts.append(noise[i] + model_noise[bins])
            power_parts.append(power)
        g, n, power = (np.concatenate(part) for part in (signal_parts, noise_parts, power_parts))
        # where noise explains everything: a signal far below it
        least = 1e-6 * float(np.sum(n))
        scale = max(float(np.sum(np.maximum(power - n, 0))), least, np.finfo(float).tiny)
        scale /= float(np.sum(g))
        for variance in scale * np.geomspace(1e-3, 1e3, 49):
            v = variance * g + n
            cost = float(np.sum(np.log(v) + power / v))
            if cost < best[0]:
                best = (cost, Prior(float(variance), kappa))
    return Statistics(noise, model_noise, best[1])

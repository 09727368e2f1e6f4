"""The direct reconstruction: every lateral frequency of the film is a small problem of its own.

A shift of a layer is a phase, so the sheared model (module `geometry`) reads at the lateral frequency q

    ``p_i(q) = sum over z of c_z dz exp(i s_i z) w_i . m(q, z)``, ``s_i = t_i e_i . q``,

with c_z the part of the layer z that belongs to the support. With Gaussian m and noise the most probable field is

    ``m(q) = K A^H (A K A^H + N)^-1 p(q)``:

one real symmetric matrix of the size of the number of views per frequency. Neighbouring frequencies are factorized
side by side, so that every step is a vector instruction. A view takes part only at frequencies inside its own band:
the zone plate's passband, squeezed by cos(theta) along the stretched direction.

**Prior covariance K.** The components are independent, of equal power, with the isotropic three-dimensional spectrum
``A / (kappa^2 + k^2)^2``: smooth, nothing else. Along z at fixed q this is ``P(q) (1 + a|z - z'|) exp(-a|z - z'|)``
with ``a = sqrt(kappa^2 + q^2)`` and ``P(q)`` proportional to ``a^-3``. A and kappa maximize the (composite)
likelihood of the views' power spectra, so they come from the data and need no truth.

**Noise N.** ``sigma_i^2 / cos(theta_i)`` per frequency, and on top of it `MODEL_ERROR` squared times the mean power
of the views at that |q|: voxels, layer borders and residual misalignment make errors in proportion to the signal,
and without that term the strongest frequencies would be trusted beyond what the model can describe. On a striped
trilayer with 3 % noise, any value between 0.03 and 0.3 came within 5 % of the best vector error.

**Edges.** The views end, the film does not, and a Fourier transform needs the whole domain. `extend_views` first
solves the problem with unseen rays left out (conjugate gradients in real space on coarser voxels, few iterations)
and gives the unseen rays what that field projects to: a continuation that all views agree on. (Mirrored or tapered
views disagree with each other, and that disagreement is amplified all over the volume: the vector error was 30
times larger.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import scipy.fft

from mistral_txm.reconstruction.geometry import ZONE_PLATE_CUTOFF_PER_NM
from mistral_txm.reconstruction.projector import ShearedProjector
from mistral_txm.reconstruction.solvers import Problem, cgls
from mistral_txm.reconstruction.views import View

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]

MODEL_ERROR = 0.1
"""Error of the model relative to the root of the views' mean power at the same |q|."""

KAPPAS_PER_NM = (0.0025, 0.005, 0.01, 0.02, 0.04)
"""Inverse correlation lengths that the data choose from."""

_LANES = 16
_FAST = {"reassoc", "contract", "nsz", "arcp"}


@dataclass(frozen=True)
class Support:
    """Layers that may hold magnetization: centres and covered part of each, shape (layers,)."""

    z_nm: Float64
    coverage_z: Float64

    @property
    def symmetric(self) -> bool:
        """Whether the support is its own mirror image, which makes the matrices real."""
        z = self.z_nm - self.centre_nm
        return bool(
            np.allclose(z, -z[::-1]) and np.allclose(self.coverage_z, self.coverage_z[::-1])
        )

    @property
    def centre_nm(self) -> float:
        """Half way between the lowest and the highest layer."""
        return float(self.z_nm[0] + self.z_nm[-1]) / 2


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


def extend_views(
    views: Sequence[View],
    support: Support,
    voxel_nm: float,
    *,
    factor: int,
    iterations: int,
    initial: Float32 | None = None,
) -> tuple[Float32, Float32]:
    """Give unseen rays the value that a field agreeing with all seen ones projects to.

    Args:
        views: resampled views; their domain is divisible by `factor`.
        support: the layers.
        voxel_nm: voxel of the domain.
        factor: the field is found on a domain binned so many times.
        iterations: of conjugate gradients.
        initial: the coarse field of an earlier call, to start from.

    Returns:
        Extended views float32 [view, y, x], and the coarse field.
    """
    signal = np.stack([v.signal_yx for v in views])
    seen = np.stack([v.seen_yx for v in views])
    n, ny, nx = signal.shape
    blocks = (n, ny // factor, factor, nx // factor, factor)
    full = seen.reshape(blocks).all(axis=(2, 4))
    coarse = np.where(full, signal.reshape(blocks).mean(axis=(2, 4)), 0).astype(np.float32)
    theta = np.array([v.theta_deg for v in views])
    phi = np.array([v.phi_deg for v in views])
    scale = np.sqrt(np.cos(np.deg2rad(theta))) / np.array([v.std_signal for v in views])
    z_nm, coverage = _binned_layers(support, voxel_nm, factor)
    problem = Problem(
        ShearedProjector(theta, phi, z_nm, voxel_nm * factor),
        coarse,
        full * scale[:, None, None].astype(np.float32),
        coverage.astype(np.float32),
    )
    field = cgls(problem, iterations=iterations, initial=initial, stop_chi2=None)
    extended = _refine(problem.forward(field), factor)
    np.copyto(extended, signal, where=seen)
    return extended, field


def _binned_layers(support: Support, voxel_nm: float, factor: int) -> tuple[Float64, Float64]:
    """Layers `factor` times thicker that cover the same support."""
    thick = voxel_nm * factor
    index = np.floor((support.z_nm - support.centre_nm) / thick + 0.5 * (1 + 1e-9)).astype(int)
    kept = np.unique(index)
    coverage = np.array([support.coverage_z[index == k].sum() / factor for k in kept])
    centre = np.array(
        [np.average(support.z_nm[index == k], weights=support.coverage_z[index == k]) for k in kept]
    )
    return centre, coverage


@numba.njit(parallel=True, cache=True)
def _refine_kernel(coarse, factor, out):  # type: ignore[no-untyped-def]
    n, ny, nx = out.shape
    _, my, mx = coarse.shape
    for v in numba.prange(n):
        for y in range(ny):
            fy = (y + 0.5) / factor - 0.5
            y0 = int(np.floor(fy))
            fy -= y0
            for x in range(nx):
                fx = (x + 0.5) / factor - 0.5
                x0 = int(np.floor(fx))
                fx -= x0
                out[v, y, x] = (1 - fy) * (
                    (1 - fx) * coarse[v, y0 % my, x0 % mx] + fx * coarse[v, y0 % my, (x0 + 1) % mx]
                ) + fy * (
                    (1 - fx) * coarse[v, (y0 + 1) % my, x0 % mx]
                    + fx * coarse[v, (y0 + 1) % my, (x0 + 1) % mx]
                )


def _refine(coarse_vyx: Float32, factor: int) -> Float32:
    """Linear interpolation to a grid `factor` times finer, periodic."""
    n, ny, nx = coarse_vyx.shape
    out = np.empty((n, ny * factor, nx * factor), np.float32)
    _refine_kernel(coarse_vyx, factor, out)
    return out


@dataclass(frozen=True)
class Frequencies:
    """The lateral frequencies inside the passband, sorted by |q|, and all that belongs to each."""

    index_y: npt.NDArray[np.intp]
    index_x: npt.NDArray[np.intp]
    qy: Float64
    qx: Float64
    radius: Float64
    bins: npt.NDArray[np.intp]
    bin_radius: Float64
    domain_radius: Float64

    @classmethod
    def of(cls, shape_yx: tuple[int, int], voxel_nm: float) -> Frequencies:
        """All frequencies of the half plane of a real transform that the zone plate transmits."""
        qy = 2 * np.pi * np.fft.fftfreq(shape_yx[0], voxel_nm)
        qx = 2 * np.pi * np.fft.rfftfreq(shape_yx[1], voxel_nm)
        radius = np.hypot(qy[:, None], qx[None, :])
        domain_radius = np.asarray(radius.ravel())
        inside = np.flatnonzero(domain_radius < 2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM)
        inside = inside[np.argsort(domain_radius[inside], kind="stable")]
        iy, ix = np.divmod(inside, len(qx))
        r = radius[iy, ix]
        width = max(2 * np.pi / (min(shape_yx) * voxel_nm), r[-1] / 128) if r[-1] > 0 else 1.0
        bins = np.round(r / width).astype(np.intp)
        count = np.bincount(bins)
        bin_radius = np.asarray(np.bincount(bins, weights=r) / np.maximum(count, 1))
        return cls(
            iy, ix, np.asarray(qy[iy]), np.asarray(qx[ix]), r, bins, bin_radius, domain_radius
        )


def _bases(prior: Prior, frequencies: Frequencies, support: Support) -> tuple[Float64, Float64]:
    """B1, B2 per bin of |q|, shape (bins, layers, columns), with K = B1 B1^T + B2 B2^T (or each K, if not symmetric).

    If the support is symmetric, B1 spans the even and B2 the odd part of the correlation along z.
    """
    z = support.z_nm
    n = len(z)
    if support.symmetric:
        even, odd = [], []
        for k in range((n + 1) // 2):
            column = np.zeros(n)
            column[k] = column[n - 1 - k] = 1.0 if k == n - 1 - k else np.sqrt(0.5)
            even.append(column)
            if k != n - 1 - k:
                column = column.copy()
                column[n - 1 - k] *= -1
                odd.append(column)
        parts = [np.array(even).T, np.array(odd).T.reshape(n, len(odd))]
    else:
        parts = [np.eye(n), np.eye(n)]
    power = prior.power(frequencies.bin_radius, frequencies.domain_radius)
    width = parts[0].shape[1]
    bases = np.zeros((2, len(power), n, width))
    for b, (radius, p) in enumerate(zip(frequencies.bin_radius, power, strict=True)):
        correlation = prior.along_z(float(radius), z) + 1e-9 * np.eye(n)
        for part in range(2):
            u = parts[part]
            if u.shape[1]:
                bases[part, b, :, : u.shape[1]] = np.sqrt(p) * (
                    u @ np.linalg.cholesky(u.T @ correlation @ u)
                )
    return bases[0], bases[1]


@numba.njit(fastmath=_FAST, cache=True)
def _subtract_products(acc, a, b, k1):  # type: ignore[no-untyped-def]
    """``acc -= sum over k < k1 of a[k] b[k]``, lane by lane, eight terms per pass over acc."""
    k = 0
    while k + 8 <= k1:
        a0, a1, a2, a3, a4, a5, a6, a7 = (
            a[k],
            a[k + 1],
            a[k + 2],
            a[k + 3],
            a[k + 4],
            a[k + 5],
            a[k + 6],
            a[k + 7],
        )
        b0, b1, b2, b3, b4, b5, b6, b7 = (
            b[k],
            b[k + 1],
            b[k + 2],
            b[k + 3],
            b[k + 4],
            b[k + 5],
            b[k + 6],
            b[k + 7],
        )
        for s in range(_LANES):
            acc[s] -= ((a0[s] * b0[s] + a1[s] * b1[s]) + (a2[s] * b2[s] + a3[s] * b3[s])) + (
                (a4[s] * b4[s] + a5[s] * b5[s]) + (a6[s] * b6[s] + a7[s] * b7[s])
            )
        k += 8
    while k < k1:
        a0, b0 = a[k], b[k]
        for s in range(_LANES):
            acc[s] -= a0[s] * b0[s]
        k += 1


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _solve(  # type: ignore[no-untyped-def]
    groups, index_y, index_x, qy, qx, group_bin, p_hat, tan, cos_phi, sin_phi, cos_theta, noise, model_noise,
    b1, b2, z, steps, voxel, coverage_dz, centre, hermitian, cutoff, shares, sample_of_group, m_hat, explained,
):  # fmt: skip
    """Solve all frequencies, `_LANES` of one bin at a time; groups holds the frequencies' numbers, -1 for none."""
    n_views = tan.shape[0]
    n_layers = z.shape[0]
    columns = b1.shape[2]
    rows_per_view = 2 if hermitian else 1
    right_sides = 1 if hermitian else 2
    n_max = n_views * rows_per_view
    for share in numba.prange(shares):
        f = np.empty((n_max, 2 * columns, _LANES))
        m = np.empty((n_max, n_max, _LANES))
        y = np.empty((right_sides, n_max, _LANES))
        d = np.empty((n_views, _LANES))
        weight = np.empty((3, n_views))
        view = np.empty(n_views, np.int64)
        cosines = np.empty((n_layers, _LANES))
        sines = np.empty((n_layers, _LANES))
        phase = np.empty((4, _LANES))
        x = np.empty((n_max, _LANES))
        alpha = np.empty((2, _LANES))
        beta = np.empty((2, _LANES))
        out = np.empty((2, n_layers, _LANES))
        for g in range(share, groups.shape[0], shares):
            bin_number = group_bin[g]
            n = 0
            for i in range(n_views):
                some = False
                for s in range(_LANES):
                    d[n, s] = 0.0
                    k = groups[g, s]
                    if k >= 0:
                        along = qx[k] * cos_phi[i] - qy[k] * sin_phi[i]
                        across = qx[k] * sin_phi[i] + qy[k] * cos_phi[i]
                        if (along / cos_theta[i]) ** 2 + across**2 < cutoff**2:
                            d[n, s] = 1.0 / np.sqrt(noise[i] + model_noise[bin_number])
                            some = True
                if some:
                    view[n] = i
                    weight[0, n] = tan[i] * cos_phi[i]
                    weight[1, n] = -tan[i] * sin_phi[i]
                    weight[2, n] = 1.0
                    n += 1
            rows = n * rows_per_view
            # basis of each view: cosines on the even, sines on the odd part of the correlation
            for a in range(n):
                i = view[a]
                for s in range(_LANES):
                    k = groups[g, s]
                    shear = tan[i] * (qx[k] * cos_phi[i] - qy[k] * sin_phi[i]) if k >= 0 else 0.0
                    phase[0, s] = np.cos(shear * (z[0] - centre))
                    phase[1, s] = np.sin(shear * (z[0] - centre))
                    phase[2, s] = np.cos(shear * voxel)
                    phase[3, s] = np.sin(shear * voxel)
                    value = 0j
                    if k >= 0:
                        value = (
                            p_hat[i, index_y[k], index_x[k]]
                            * np.exp(-1j * shear * centre)
                            * d[a, s]
                        )
                    if hermitian:
                        y[0, a, s] = value.real
                        y[0, n + a, s] = value.imag
                    else:
                        y[0, a, s] = value.real
                        y[1, a, s] = value.imag
                for layer in range(n_layers):
                    for _ in range(steps[layer]):
                        for s in range(_LANES):
                            turned = phase[0, s] * phase[2, s] - phase[1, s] * phase[3, s]
                            phase[1, s] = phase[1, s] * phase[2, s] + phase[0, s] * phase[3, s]
                            phase[0, s] = turned
                    for s in range(_LANES):
                        cosines[layer, s] = phase[0, s] * coverage_dz[layer]
                        sines[layer, s] = phase[1, s] * coverage_dz[layer]
                for c in range(columns):
                    first = f[a, c]
                    second = f[a, columns + c]
                    first[:] = 0.0
                    second[:] = 0.0
                    for layer in range(n_layers):
                        u = b1[bin_number, layer, c]
                        w = b2[bin_number, layer, c]
                        if u != 0.0 or w != 0.0:
                            cl = cosines[layer]
                            sl = sines[layer]
                            for s in range(_LANES):
                                first[s] += u * cl[s]
                                second[s] += w * sl[s]
                if hermitian:
                    for c in range(columns):
                        for s in range(_LANES):
                            f[n + a, c, s] = f[a, columns + c, s]
                            f[n + a, columns + c, s] = -f[a, c, s]
            # M = 1 + D (A K A^H) D, then its factor in place, row by row (inverse of the diagonal stored)
            for r in range(rows):
                a = r % n
                row = m[r]
                fr = f[r]
                for q in range(r + 1):
                    b = q % n
                    acc = row[q]
                    acc[:] = 0.0
                    _subtract_products(acc, fr, f[q], 2 * columns)
                    w = (
                        weight[0, a] * weight[0, b]
                        + weight[1, a] * weight[1, b]
                        + weight[2, a] * weight[2, b]
                    )
                    da = d[a]
                    db = d[b]
                    for s in range(_LANES):
                        acc[s] *= -w * da[s] * db[s]
                    if q < r:
                        _subtract_products(acc, row, m[q], q)
                        diagonal = m[q, q]
                        for s in range(_LANES):
                            acc[s] *= diagonal[s]
                    else:
                        for s in range(_LANES):
                            acc[s] += 1.0
                        _subtract_products(acc, row, row, r)
                        for s in range(_LANES):
                            acc[s] = 1.0 / np.sqrt(acc[s])
            # prior variance that the data take away, for the groups asked for: |L^-1 D A K|^2 on the diagonal
            if sample_of_group[g] >= 0:
                for component in range(3):
                    for layer in range(n_layers):
                        for part in range(right_sides):
                            for r in range(rows):
                                xr = x[r]
                                xr[:] = 0.0
                                fr = f[r]
                                for c in range(columns):
                                    u = (
                                        b1[bin_number, layer, c]
                                        if part == 0
                                        else b2[bin_number, layer, c]
                                    )
                                    if u != 0.0:
                                        fc = fr[part * columns + c]
                                        for s in range(_LANES):
                                            xr[s] += u * fc[s]
                                w = weight[component, r % n]
                                dr = d[r % n]
                                for s in range(_LANES):
                                    xr[s] *= w * dr[s]
                                _subtract_products(xr, m[r], x, r)
                                diagonal = m[r, r]
                                for s in range(_LANES):
                                    xr[s] *= diagonal[s]
                                    if groups[g, s] >= 0:
                                        explained[sample_of_group[g], layer] += xr[s] ** 2
            for side in range(right_sides):
                ys = y[side]
                for r in range(rows):
                    _subtract_products(ys[r], m[r], ys, r)
                    for s in range(_LANES):
                        ys[r, s] *= m[r, r, s]
                for r in range(rows - 1, -1, -1):
                    yr = ys[r]
                    inverse = m[r, r]
                    for s in range(_LANES):
                        yr[s] *= inverse[s]
                    for q in range(r):
                        yq = ys[q]
                        mr = m[r, q]
                        for s in range(_LANES):
                            yq[s] -= mr[s] * yr[s]
                for r in range(rows):
                    dr = d[r % n]
                    for s in range(_LANES):
                        ys[r, s] *= dr[s]
            # m = K A^H y, through the same bases: m = B1 (sum w F1 y) - i B2 (sum w F2 y)
            for component in range(3):
                out[:] = 0.0
                for c in range(columns):
                    alpha[:] = 0.0
                    beta[:] = 0.0
                    for a in range(n):
                        w = weight[component, a]
                        f1 = f[a, c]
                        f2 = f[a, columns + c]
                        yr = y[0, a]
                        yi = y[0, n + a] if hermitian else y[1, a]
                        for s in range(_LANES):
                            alpha[0, s] += w * f1[s] * yr[s]
                            alpha[1, s] += w * f1[s] * yi[s]
                            beta[0, s] += w * f2[s] * yr[s]
                            beta[1, s] += w * f2[s] * yi[s]
                    for layer in range(n_layers):
                        u = b1[bin_number, layer, c]
                        w = b2[bin_number, layer, c]
                        if u != 0.0 or w != 0.0:
                            for s in range(_LANES):
                                out[0, layer, s] += u * alpha[0, s] + w * beta[1, s]
                                out[1, layer, s] += u * alpha[1, s] - w * beta[0, s]
                for s in range(_LANES):
                    k = groups[g, s]
                    if k >= 0:
                        for layer in range(n_layers):
                            m_hat[component, layer, index_y[k], index_x[k]] = (
                                out[0, layer, s] + 1j * out[1, layer, s]
                            )


@dataclass(frozen=True)
class Statistics:
    """What the views' power says: noise and mean power, and the prior that makes the views most likely."""

    noise_v: Float64
    model_noise_b: Float64
    prior: Prior


def _in_band(
    frequencies: Frequencies, theta_deg: float, phi_deg: float
) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Shear ``t e . q`` and whether the frequency is inside the view's own band."""
    theta, phi = np.deg2rad(theta_deg), np.deg2rad(phi_deg)
    along = frequencies.qx * np.cos(phi) - frequencies.qy * np.sin(phi)
    across = frequencies.qx * np.sin(phi) + frequencies.qy * np.cos(phi)
    cutoff = 2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM
    return np.tan(theta) * along, (along / np.cos(theta)) ** 2 + across**2 < cutoff**2


def _statistics(
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
    n_bins = len(frequencies.bin_radius)
    power_sum, power_count = np.zeros(n_bins), np.zeros(n_bins)
    samples: list[tuple[int, Float64, npt.NDArray[np.intp], Float64]] = []
    stride = max(1, len(frequencies.radius) // 1000)
    for i in range(len(views)):
        shear, band = _in_band(frequencies, theta[i], views[i].phi_deg)
        power = (
            np.abs(p_hat[i, frequencies.index_y, frequencies.index_x].astype(np.complex128)) ** 2
        )
        power_sum += np.bincount(frequencies.bins[band], weights=power[band], minlength=n_bins)
        power_count += np.bincount(frequencies.bins[band], minlength=n_bins)
        if i % max(1, len(views) // 20) == 0:
            # all the strong low frequencies, a few of the many weak ones
            chosen = np.flatnonzero(
                band & ((np.arange(len(band)) % stride == 0) | (frequencies.bins < 12))
            )
            samples.append((i, shear[chosen], chosen, power[chosen]))
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
        scale = max(float(np.sum(np.maximum(power - n, 0)) / np.sum(g)), np.finfo(float).tiny)
        for variance in scale * np.geomspace(1e-3, 1e3, 49):
            v = variance * g + n
            cost = float(np.sum(np.log(v) + power / v))
            if cost < best[0]:
                best = (cost, Prior(float(variance), kappa))
    return Statistics(noise, model_noise, best[1])


@dataclass(frozen=True)
class DirectSolution:
    """Field float32 [3, layers of the support, y, x] on the domain, signal per nm (None if not asked for), and its
    statistics."""

    field: Float32 | None
    prior: Prior
    data_fraction_z: Float64


def solve_direct(
    views: Sequence[View],
    extended_vyx: Float32,
    support: Support,
    voxel_nm: float,
    *,
    fraction_only: bool = False,
) -> DirectSolution:
    """Most probable field of the extended views.

    Args:
        views: for angles and noise.
        extended_vyx: from `extend_views`.
        support: layers that may hold magnetization.
        voxel_nm: voxel edge.
        fraction_only: solve no more than the data fraction needs, and return no field.
    """
    shape_yx = (extended_vyx.shape[1], extended_vyx.shape[2])
    frequencies = Frequencies.of(shape_yx, voxel_nm)
    p_hat = scipy.fft.rfft2(extended_vyx, norm="ortho", workers=-1)
    statistics = _statistics(views, p_hat, frequencies, support, voxel_nm)
    used = statistics.prior
    b1, b2 = _bases(used, frequencies, support)
    groups, group_bin = _groups(frequencies)
    sample_of_group, share = _sampled_groups(used, frequencies, groups, group_bin)
    if fraction_only:
        wanted = sample_of_group >= 0
        groups, group_bin, sample_of_group = (
            groups[wanted],
            group_bin[wanted],
            sample_of_group[wanted],
        )
    explained = np.zeros((len(share), len(support.z_nm)))
    steps = np.diff(
        np.round(support.z_nm / voxel_nm, 6), prepend=np.round(support.z_nm[0] / voxel_nm, 6)
    )
    theta = np.deg2rad([v.theta_deg for v in views])
    phi = np.deg2rad([v.phi_deg for v in views])
    m_hat = np.zeros((3, len(support.z_nm), shape_yx[0], shape_yx[1] // 2 + 1), np.complex64)
    _solve(
        groups, frequencies.index_y, frequencies.index_x, frequencies.qy, frequencies.qx, group_bin, p_hat,
        np.tan(theta), np.cos(phi), np.sin(phi), np.cos(theta), statistics.noise_v, statistics.model_noise_b,
        b1, b2, support.z_nm, np.round(steps).astype(np.int64), voxel_nm, voxel_nm * support.coverage_z,
        support.centre_nm, not support.symmetric, 2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM,
        8 * numba.get_num_threads(), sample_of_group, m_hat, explained,
    )  # fmt: skip
    del p_hat
    fraction = np.clip(share @ explained, 0, 1)
    if fraction_only:
        return DirectSolution(None, used, fraction)
    field = scipy.fft.irfft2(m_hat, s=shape_yx, norm="ortho", workers=-1, overwrite_x=True)
    return DirectSolution(np.asarray(field, dtype=np.float32), used, fraction)


def _groups(frequencies: Frequencies) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Frequencies of one bin, `_LANES` to a group, nearby directions together; -1 fills up the last of a bin."""
    groups, group_bin = [], []
    starts = np.searchsorted(frequencies.bins, np.arange(frequencies.bins[-1] + 2))
    for b in range(len(starts) - 1):
        members = np.arange(starts[b], starts[b + 1])
        if not len(members):
            continue
        members = members[
            np.argsort(np.arctan2(frequencies.qy[members], frequencies.qx[members]), kind="stable")
        ]
        filled = np.full(-(-len(members) // _LANES) * _LANES, -1, dtype=np.intp)
        filled[: len(members)] = members
        groups.append(filled.reshape(-1, _LANES))
        group_bin.append(np.full(len(groups[-1]), b, dtype=np.intp))
    return np.concatenate(groups), np.concatenate(group_bin)


def _sampled_groups(
    prior: Prior,
    frequencies: Frequencies,
    groups: npt.NDArray[np.intp],
    group_bin: npt.NDArray[np.intp],
) -> tuple[npt.NDArray[np.intp], Float64]:
    """Groups whose posterior is computed, numbered (-1: not), and the prior's share that each stands for.

    Up to 24 values of |q|, spread as the prior's power is, three directions each.
    """
    power = prior.power(frequencies.bin_radius, frequencies.domain_radius)
    members = np.bincount(frequencies.bins, minlength=len(power)) * power
    everywhere = float(prior.power(frequencies.domain_radius, frequencies.domain_radius).mean())
    # the half plane stands for the whole one: columns of qx = 0 count twice too, which hardly matters
    inside = min(1.0, float(members.sum()) / len(frequencies.domain_radius) / everywhere)
    cumulative = np.cumsum(members) / members.sum()
    bins, count = np.unique(
        np.searchsorted(cumulative, (np.arange(24) + 0.5) / 24), return_counts=True
    )
    sample_of_group = np.full(len(groups), -1, dtype=np.intp)
    share: list[float] = []
    for b, times in zip(bins, count, strict=True):
        of_bin = np.flatnonzero(group_bin == b)
        chosen = np.unique(of_bin[np.linspace(0, len(of_bin) - 1, 3).round().astype(int)])
        lanes = np.count_nonzero(groups[chosen] >= 0)
        for g in chosen:
            sample_of_group[g] = len(share)
            share.append(inside * times / 24 / lanes / (3 * power[b]))
    return sample_of_group, np.array(share)

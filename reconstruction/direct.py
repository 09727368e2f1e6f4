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

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.geometry import ZONE_PLATE_CUTOFF_PER_NM
from mistral_txm.reconstruction.lanes import LANES, ROWS, subtract_products, subtract_scaled
from mistral_txm.reconstruction.projector import ShearedProjector
from mistral_txm.reconstruction.solvers import Problem, cgls
from mistral_txm.reconstruction.views import View

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]

MODEL_ERROR = 0.1
"""Error of the model relative to the root of the views' mean power at the same |q|."""

LEAST_NOISE = 1e-3
"""Noise power of a coefficient relative to the power that the prior expects of it, at least: float32 is then enough."""

KAPPAS_PER_NM = (0.0025, 0.005, 0.01, 0.02, 0.04)
"""Inverse correlation lengths that the data choose from."""

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
    z_nm, coverage = _binned_layers(support, voxel_nm, factor)
    projector = ShearedProjector(
        np.array([v.theta_deg for v in views]),
        np.array([v.phi_deg for v in views]),
        z_nm,
        voxel_nm * factor,
    )
    scale = np.sqrt(projector.obliquity_v) / np.array([v.std_signal for v in views])
    problem = Problem(
        projector,
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


def _roots(
    prior: Prior, frequencies: Frequencies, support: Support
) -> tuple[Float32, Float32, Float32, npt.NDArray[np.int64]]:
    """Lower triangular roots of the prior's covariance along z, per bin of |q|.

    In a symmetric support each layer k of the lower half and its mirror image make an even and an odd coordinate,
    ``(m_k +- m_-k) / sqrt(2)``, which neither the prior nor the rays mix; a view sees the first through
    ``sqrt(2) cos(s z_k)``, the second through ``sqrt(2) i sin(s z_k)``. In another support there is one coordinate
    per layer, and both roots are that of the covariance.

    Returns:
        Roots (bins, column, k) of the even and the odd part, filled up to multiples of four; factor of the cosines
        and sines per k; mirror image of k, -1 where there is none.
    """
    z = support.z_nm
    n = len(z)
    mirror = n - 1 - np.arange((n + 1) // 2) if support.symmetric else np.full(n, -1)
    mirror[mirror == np.arange(len(mirror))] = -1
    paired = mirror >= 0
    h = len(mirror)
    power = prior.power(frequencies.bin_radius, frequencies.domain_radius)
    padded = -(-h // ROWS) * ROWS
    roots = np.zeros((2, len(power), padded, padded), np.float32)
    for b, (radius, p) in enumerate(zip(frequencies.bin_radius, power, strict=True)):
        correlation = p * (prior.along_z(float(radius), z) + 1e-6 * np.eye(n))
        direct = correlation[:h, :h]
        if not support.symmetric:
            roots[:, b, :h, :h] = np.linalg.cholesky(direct).T
            continue
        crossed = correlation[:h, n - 1 - np.arange(h)]
        # the middle layer of an odd number is even, and its own mirror image
        scale = np.where(paired, 1.0, np.sqrt(0.5))
        roots[0, b, :h, :h] = np.linalg.cholesky((direct + crossed) * scale[:, None] * scale).T
        odd = int(np.count_nonzero(paired))
        if odd:
            roots[1, b, :odd, :odd] = np.linalg.cholesky((direct - crossed)[:odd, :odd]).T
    factor = np.where(paired, np.sqrt(2.0), 1.0).astype(np.float32)
    return roots[0], roots[1], factor, mirror.astype(np.int64)


@numba.njit(fastmath=_FAST, cache=True)
def _solve_lower(m, width, rows, y):  # type: ignore[no-untyped-def]
    """``y <- L^-1 y``, L the lower triangle in m with its diagonal inverted; rows a multiple of four."""
    for r0 in range(0, rows, ROWS):
        subtract_products(y, r0 * LANES, m, r0 * width, width, LANES, y, 0, r0)
        for r in range(r0, r0 + ROWS):
            for q in range(r0, r):
                for s in range(LANES):
                    y[r * LANES + s] -= m[r * width + q * LANES + s] * y[q * LANES + s]
            for s in range(LANES):
                y[r * LANES + s] *= m[r * width + r * LANES + s]


@numba.njit(fastmath=_FAST, cache=True)
def _solve_upper(m, width, rows, y):  # type: ignore[no-untyped-def]
    """``y <- L^-T y``."""
    for r0 in range(rows - ROWS, -1, -ROWS):
        r1 = r0 + ROWS
        subtract_products(
            y, r0 * LANES, m, r1 * width + r0 * LANES, LANES, width, y, r1 * LANES, rows - r1
        )
        for r in range(r1 - 1, r0 - 1, -1):
            for q in range(r + 1, r1):
                for s in range(LANES):
                    y[r * LANES + s] -= m[q * width + r * LANES + s] * y[q * LANES + s]
            for s in range(LANES):
                y[r * LANES + s] *= m[r * width + r * LANES + s]


@numba.njit(fastmath=_FAST, cache=True)
def _factorize(f, f_width, terms, weight, rows, m, width, four):  # type: ignore[no-untyped-def]
    """Lower triangular factor of ``1 + (w . w) f f^T`` in m, row by row, four rows at once, the diagonal inverted."""
    for r0 in range(0, rows, ROWS):
        for q in range(r0 + ROWS):
            four[:] = 0
            subtract_products(four, 0, f, r0 * f_width, f_width, LANES, f, q * f_width, terms)
            for j in range(ROWS):
                w = (
                    weight[0, r0 + j] * weight[0, q]
                    + weight[1, r0 + j] * weight[1, q]
                    + weight[2, r0 + j] * weight[2, q]
                )
                for s in range(LANES):
                    four[j * LANES + s] *= -w
            subtract_products(four, 0, m, r0 * width, width, LANES, m, q * width, q)
            if q >= r0:
                for s in range(LANES):
                    m[q * width + q * LANES + s] = 1 / np.sqrt(1 + four[(q - r0) * LANES + s])
            inverse = m[q * width + q * LANES : q * width + (q + 1) * LANES]
            for j in range(max(0, q + 1 - r0), ROWS):
                target = m[(r0 + j) * width + q * LANES : (r0 + j) * width + (q + 1) * LANES]
                for s in range(LANES):
                    target[s] = four[j * LANES + s] * inverse[s]


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _solve(  # type: ignore[no-untyped-def]
    groups, index_y, index_x, qy, qx, group_bin, p_hat, tan, cos_phi, sin_phi, cos_theta, noise, model_noise,
    even, odd, h, z, steps, voxel, cover, mirror, centre, hermitian, cutoff, shares, sample_of_group, m_hat, explained,
):  # fmt: skip
    """Solve all frequencies, `LANES` of one bin at a time; groups holds the frequencies' numbers, -1 for none.

    Rows of the matrix are views; where the support has no symmetry the matrix is complex and is taken as the real
    one of twice the size, ``[[Re, -Im], [Im, Re]]``. Numbers of rows and of coordinates along z are filled up to
    multiples of four by zeros, that is by rows of the unit matrix. All arrays are flat, lanes last.
    """
    n_views = tan.shape[0]
    layers = mirror.shape[0]
    columns = 2 * h
    parts = 1 if hermitian else 2
    n_max = n_views * (2 if hermitian else 1) + ROWS
    f_width = columns * LANES
    width = n_max * LANES
    f32 = np.float32
    least_noise = f32(LEAST_NOISE)
    for share in numba.prange(shares):
        f = np.zeros(n_max * f_width, f32)
        m = np.zeros(n_max * width, f32)
        y_re = np.empty(width, f32)
        y_im = np.empty(width, f32)
        x = np.empty(width, f32)
        four = np.empty(ROWS * LANES, f32)
        d = np.empty((n_max, LANES), f32)
        weight = np.zeros((3, n_max), f32)
        view = np.empty(n_max, np.int64)
        cosines = np.zeros(h * LANES, f32)
        sines = np.zeros(h * LANES, f32)
        phase = np.empty((4, LANES), f32)
        sums = np.empty(2 * columns * LANES, f32)
        out = np.empty((4, h * LANES), f32)
        for g in range(share, groups.shape[0], shares):
            bin_number = group_bin[g]
            n = 0
            for i in range(n_views):
                some = False
                for s in range(LANES):
                    d[n, s] = 0
                    j = groups[g, s]
                    if j >= 0:
                        along = qx[j] * cos_phi[i] - qy[j] * sin_phi[i]
                        across = qx[j] * sin_phi[i] + qy[j] * cos_phi[i]
                        if (along / cos_theta[i]) ** 2 + across**2 < cutoff**2:
                            d[n, s] = noise[i] + model_noise[bin_number]
                            some = True
                if some:
                    view[n] = i
                    n += 1
            used = 2 * n if hermitian else n
            rows = (used + ROWS - 1) // ROWS * ROWS
            for r in range(used):
                i = view[r % n]
                weight[0, r] = tan[i] * cos_phi[i]
                weight[1, r] = -tan[i] * sin_phi[i]
                weight[2, r] = 1
            y_re[used * LANES : rows * LANES] = 0
            y_im[used * LANES : rows * LANES] = 0
            f[used * f_width : rows * f_width] = 0
            # what each view sees of each coordinate: f = [cosines R_even, sines R_odd], in units of the noise
            for a in range(n):
                i = view[a]
                for s in range(LANES):
                    j = groups[g, s]
                    shear = tan[i] * (qx[j] * cos_phi[i] - qy[j] * sin_phi[i]) if j >= 0 else 0.0
                    phase[0, s] = np.cos(shear * (z[0] - centre))
                    phase[1, s] = np.sin(shear * (z[0] - centre))
                    phase[2, s] = np.cos(shear * voxel)
                    phase[3, s] = np.sin(shear * voxel)
                for k in range(layers):
                    for _ in range(steps[k]):
                        for s in range(LANES):
                            turned = phase[0, s] * phase[2, s] - phase[1, s] * phase[3, s]
                            phase[1, s] = phase[1, s] * phase[2, s] + phase[0, s] * phase[3, s]
                            phase[0, s] = turned
                    for s in range(LANES):
                        cosines[k * LANES + s] = -phase[0, s] * cover[k]
                        sines[k * LANES + s] = -phase[1, s] * cover[k]
                fa = f[a * f_width : (a + 1) * f_width]
                fa[:] = 0
                for c in range(0, h, ROWS):
                    subtract_scaled(
                        fa, c * LANES, even, (bin_number * h + c) * h, h, 1, cosines, 0, h
                    )
                    subtract_scaled(
                        fa, (h + c) * LANES, odd, (bin_number * h + c) * h, h, 1, sines, 0, h
                    )
                expected = four[:LANES]
                expected[:] = 0
                for c in range(columns):
                    for s in range(LANES):
                        expected[s] += fa[c * LANES + s] ** 2
                floor = least_noise * (weight[0, a] ** 2 + weight[1, a] ** 2 + weight[2, a] ** 2)
                for s in range(LANES):
                    # a lane without this view gets zeros, that is a row of the unit matrix
                    d[a, s] = 1 / np.sqrt(d[a, s] + floor * expected[s]) if d[a, s] > 0 else 0.0
                    value = 0j
                    j = groups[g, s]
                    if j >= 0:
                        shear = tan[i] * (qx[j] * cos_phi[i] - qy[j] * sin_phi[i])
                        value = (
                            p_hat[i, index_y[j], index_x[j]]
                            * np.exp(-1j * shear * centre)
                            * d[a, s]
                        )
                    y_re[a * LANES + s] = value.real
                    y_im[a * LANES + s] = value.imag
                    if hermitian:
                        y_re[(n + a) * LANES + s] = value.imag
                da = d[a]
                for c in range(columns):
                    for s in range(LANES):
                        fa[c * LANES + s] *= da[s]
                if hermitian:
                    fb = f[(n + a) * f_width : (n + a + 1) * f_width]
                    fb[: h * LANES] = fa[h * LANES :]
                    fb[h * LANES :] = -fa[: h * LANES]
            _factorize(f, f_width, columns, weight, rows, m, width, four)
            # prior variance that the data take away, for the groups asked for: |L^-1 D A K|^2
            if sample_of_group[g] >= 0:
                number = sample_of_group[g]
                for component in range(3):
                    for k in range(layers):
                        for part in range(parts):
                            root = even if part == 0 else odd
                            for r in range(rows):
                                xr = x[r * LANES : (r + 1) * LANES]
                                xr[:] = 0
                                w = weight[component, r] if r < used else f32(0)
                                for c in range(k + 1):
                                    u = w * root[(bin_number * h + c) * h + k]
                                    fc = f[r * f_width + (part * h + c) * LANES :]
                                    for s in range(LANES):
                                        xr[s] += u * fc[s]
                            _solve_lower(m, width, rows, x)
                            total = 0.0
                            for s in range(LANES):
                                if groups[g, s] >= 0:
                                    for r in range(rows):
                                        total += x[r * LANES + s] ** 2
                            if mirror[k] >= 0:
                                explained[number, k] += total / 2
                                explained[number, mirror[k]] += total / 2
                            else:
                                explained[number, k] += total
            _solve_lower(m, width, rows, y_re)
            _solve_upper(m, width, rows, y_re)
            if not hermitian:
                _solve_lower(m, width, rows, y_im)
                _solve_upper(m, width, rows, y_im)
            # m = K A^H y: even part R_even (f_even y), odd part -i R_odd (f_odd y)
            for component in range(3):
                sums[:] = 0
                for side in range(2):
                    for a in range(n):
                        w = -weight[component, a]
                        if side == 0:
                            ya = y_re[a * LANES : (a + 1) * LANES]
                        elif hermitian:
                            ya = y_re[(n + a) * LANES : (n + a + 1) * LANES]
                        else:
                            ya = y_im[a * LANES : (a + 1) * LANES]
                        for s in range(LANES):
                            x[a * LANES + s] = w * ya[s]
                    for c in range(0, columns, ROWS):
                        subtract_products(
                            sums,
                            (side * columns + c) * LANES,
                            f,
                            c * LANES,
                            LANES,
                            f_width,
                            x,
                            0,
                            n,
                        )
                # the roots are stored transposed: element (k, c) at c h + k
                out[:] = 0
                for k in range(0, h, ROWS):
                    at = bin_number * h * h + k
                    subtract_scaled(out[0], k * LANES, even, at, 1, h, sums, 0, h)
                    subtract_scaled(out[1], k * LANES, even, at, 1, h, sums, columns * LANES, h)
                    subtract_scaled(
                        out[2], k * LANES, odd, at, 1, h, sums, (columns + h) * LANES, h
                    )
                    subtract_scaled(out[3], k * LANES, odd, at, 1, h, sums, h * LANES, h)
                for k in range(layers):
                    for s in range(LANES):
                        j = groups[g, s]
                        if j >= 0:
                            at = k * LANES + s
                            e = -out[0, at] - 1j * out[1, at]
                            o = -out[2, at] + 1j * out[3, at]
                            if mirror[k] >= 0:
                                m_hat[component, k, index_y[j], index_x[j]] = (e + o) * np.sqrt(0.5)
                                m_hat[component, mirror[k], index_y[j], index_x[j]] = (
                                    e - o
                                ) * np.sqrt(0.5)
                            else:
                                m_hat[component, k, index_y[j], index_x[j]] = e + o


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
    even, odd, factor, mirror = _roots(used, frequencies, support)
    half = len(mirror)
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
        even.ravel(), odd.ravel(), even.shape[1], support.z_nm[:half], np.round(steps).astype(np.int64)[:half],
        voxel_nm, (voxel_nm * factor * support.coverage_z[:half]).astype(np.float32), mirror, support.centre_nm, not
        support.symmetric, 2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM, 8 * numba.get_num_threads(), sample_of_group,
        m_hat, explained,
    )  # fmt: skip
    del p_hat
    fraction = np.clip(share @ explained, 0, 1)
    if fraction_only:
        return DirectSolution(None, used, fraction)
    field = scipy.fft.irfft2(m_hat, s=shape_yx, norm="ortho", workers=-1, overwrite_x=True)
    return DirectSolution(np.asarray(field, dtype=np.float32), used, fraction)


def _groups(frequencies: Frequencies) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Frequencies of one bin, `LANES` to a group, nearby directions together; -1 fills up the last of a bin."""
    groups, group_bin = [], []
    starts = np.searchsorted(frequencies.bins, np.arange(frequencies.bins[-1] + 2))
    for b in range(len(starts) - 1):
        members = np.arange(starts[b], starts[b + 1])
        if not len(members):
            continue
        members = members[
            np.argsort(np.arctan2(frequencies.qy[members], frequencies.qx[members]), kind="stable")
        ]
        filled = np.full(-(-len(members) // LANES) * LANES, -1, dtype=np.intp)
        filled[: len(members)] = members
        groups.append(filled.reshape(-1, LANES))
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

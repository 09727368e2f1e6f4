"""Many small linear systems side by side: the inner loops of the direct reconstruction (module `direct`)."""

from __future__ import annotations

import numba
import numpy as np

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.lanes import (
    LANES,
    ROWS,
    subtract_products,
    subtract_scaled,
    subtract_tile,
)

LEAST_NOISE = 1e-3
"""Noise power of a coefficient relative to the power that the prior expects of it, at least: float32 is then enough."""

_FAST = {"reassoc", "contract", "nsz", "arcp"}


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
def _factorize(f, f_width, terms, weight, rows, m, width, tile):  # type: ignore[no-untyped-def]
    """Lower triangular factor of ``1 + (w . w) f f^T`` in m, four by four at once, the diagonal inverted."""
    for r0 in range(0, rows, ROWS):
        for q0 in range(0, r0 + ROWS, ROWS):
            tile[:] = 0
            subtract_tile(tile, f, r0 * f_width, f_width, f, q0 * f_width, f_width, terms)
            for j in range(ROWS):
                for i in range(ROWS):
                    r, q = r0 + j, q0 + i
                    w = weight[0, r] * weight[0, q] + weight[1, r] * weight[1, q]
                    w += weight[2, r] * weight[2, q]
                    at = (j * ROWS + i) * LANES
                    for s in range(LANES):
                        tile[at + s] *= -w
            subtract_tile(tile, m, r0 * width, width, m, q0 * width, width, q0)
            for i in range(ROWS):
                q = q0 + i
                for j in range(i if q0 == r0 else 0, ROWS):
                    r = r0 + j
                    at = (j * ROWS + i) * LANES
                    for k in range(q0, q):
                        for s in range(LANES):
                            tile[at + s] -= (
                                m[r * width + k * LANES + s] * m[q * width + k * LANES + s]
                            )
                    if r == q:
                        for s in range(LANES):
                            m[q * width + q * LANES + s] = 1 / np.sqrt(1 + tile[at + s])
                    else:
                        for s in range(LANES):
                            m[r * width + q * LANES + s] = (
                                tile[at + s] * m[q * width + q * LANES + s]
                            )


@numba.njit(fastmath=_FAST, cache=True)
def _cos_sin(shear, height, cosine, sine):  # type: ignore[no-untyped-def]
    """Cosines and sines of ``shear height`` in all lanes, to 1e-9, by arithmetic that becomes vector instructions.

    Half the angle, brought between -pi/2 and pi/2, by its power series; then ``cos 2h = 1 - 2 sin^2 h`` and ``sin 2h
    = 2 sin h cos h``.
    """
    for s in range(LANES):
        turns = shear[s] * height / (2 * np.pi)
        h = np.pi * (turns - np.rint(turns))
        x = h * h
        sin_h = h * (
            1 - x / 6 * (1 - x / 20 * (1 - x / 42 * (1 - x / 72 * (1 - x / 110 * (1 - x / 156)))))
        )
        cos_h = 1 - x / 2 * (
            1 - x / 12 * (1 - x / 30 * (1 - x / 56 * (1 - x / 90 * (1 - x / 132 * (1 - x / 182)))))
        )
        cosine[s] = 1 - 2 * sin_h * sin_h
        sine[s] = 2 * sin_h * cos_h


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def solve_groups(  # type: ignore[no-untyped-def]
    filled, qy, qx, group_bin, p_gvl, tan, cos_phi, sin_phi, cos_theta, noise, model_noise,
    even, odd, h, columns_b, z, steps, voxel, cover, mirror, centre, hermitian, cutoff, shares, sample_of_group, m_gkl,
    explained,
):  # fmt: skip
    """Solve groups of frequencies of one bin each, `LANES` at a time; filled (groups, lanes) says where there is one.

    qy, qx, shape (groups, lanes), are the frequencies; p_gvl (groups, views, lanes) the views there, and becomes what
    the field leaves of them: ``p - A m = N (A K A^H + N)^-1 p``; m_gkl (groups, 3 layers, lanes) becomes the field
    there, explained (samples, layers) what `solve_direct` needs of the posterior.

    Rows of the matrix are views; where the support has no symmetry the matrix is complex and is taken as the real
    one of twice the size, ``[[Re, -Im], [Im, Re]]``. Numbers of rows and of coordinates along z are filled up to
    multiples of four by zeros, that is by rows of the unit matrix. All arrays are flat, lanes last.
    """
    n_views = tan.shape[0]
    layers = mirror.shape[0]
    depth = m_gkl.shape[1] // 3
    most = columns_b[:, 0].max() + columns_b[:, 1].max()
    parts = 1 if hermitian else 2
    n_max = n_views * (2 if hermitian else 1) + ROWS
    f_width = most * LANES
    width = n_max * LANES
    f32 = np.float32
    least_noise = f32(LEAST_NOISE)
    for share in numba.prange(shares):
        f = np.zeros(n_max * f_width, f32)
        m = np.zeros(n_max * width, f32)
        y_re = np.empty(width, f32)
        y_im = np.empty(width, f32)
        x = np.empty(width, f32)
        tile = np.empty(ROWS * ROWS * LANES, f32)
        d = np.empty((n_max, LANES), f32)
        weight = np.zeros((3, n_max), f32)
        view = np.empty(n_max, np.int64)
        cosines = np.zeros(h * LANES, f32)
        sines = np.zeros(h * LANES, f32)
        phase = np.empty((4, LANES), f32)
        shears = np.empty(LANES)
        sums = np.empty(2 * most * LANES, f32)
        out = np.empty((4, h * LANES), f32)
        for g in range(share, filled.shape[0], shares):
            bin_number = group_bin[g]
            half = columns_b[bin_number, 0]
            columns = half + columns_b[bin_number, 1]
            n = 0
            for i in range(n_views):
                some = False
                for s in range(LANES):
                    d[n, s] = 0
                    if filled[g, s]:
                        along = qx[g, s] * cos_phi[i] - qy[g, s] * sin_phi[i]
                        across = qx[g, s] * sin_phi[i] + qy[g, s] * cos_phi[i]
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
                    shears[s] = tan[i] * (qx[g, s] * cos_phi[i] - qy[g, s] * sin_phi[i])
                _cos_sin(shears, z[0] - centre, phase[0], phase[1])
                _cos_sin(shears, voxel, phase[2], phase[3])
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
                for c in range(0, half, ROWS):
                    subtract_scaled(
                        fa, c * LANES, even, (bin_number * h + c) * h, h, 1, cosines, 0, h
                    )
                for c in range(0, columns - half, ROWS):
                    subtract_scaled(
                        fa, (half + c) * LANES, odd, (bin_number * h + c) * h, h, 1, sines, 0, h
                    )
                expected = tile[:LANES]
                expected[:] = 0
                for c in range(columns):
                    for s in range(LANES):
                        expected[s] += fa[c * LANES + s] ** 2
                floor = least_noise * (weight[0, a] ** 2 + weight[1, a] ** 2 + weight[2, a] ** 2)
                for s in range(LANES):
                    # a lane without this view gets zeros, that is a row of the unit matrix
                    d[a, s] = 1 / np.sqrt(d[a, s] + floor * expected[s]) if d[a, s] > 0 else 0.0
                    value = p_gvl[g, i, s] * d[a, s]
                    if centre != 0:
                        value *= np.exp(-1j * shears[s] * centre)
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
                    # not symmetric: as many columns of either kind
                    fb[: half * LANES] = fa[half * LANES : columns * LANES]
                    fb[half * LANES : columns * LANES] = -fa[: half * LANES]
            _factorize(f, f_width, columns, weight, rows, m, width, tile)
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
                                for c in range(columns_b[bin_number, part]):
                                    u = w * root[(bin_number * h + c) * h + k]
                                    fc = f[r * f_width + (part * half + c) * LANES :]
                                    for s in range(LANES):
                                        xr[s] += u * fc[s]
                            _solve_lower(m, width, rows, x)
                            total = 0.0
                            for s in range(LANES):
                                if filled[g, s]:
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
            for a in range(n):
                i = view[a]
                for s in range(LANES):
                    if d[a, s] > 0:
                        im = y_re[(n + a) * LANES + s] if hermitian else y_im[a * LANES + s]
                        value = (y_re[a * LANES + s] + 1j * im) / d[a, s]
                        if centre != 0:
                            along = qx[g, s] * cos_phi[i] - qy[g, s] * sin_phi[i]
                            value *= np.exp(1j * (tan[i] * along * centre))
                        p_gvl[g, i, s] = value
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
                    other = columns - half
                    subtract_scaled(out[0], k * LANES, even, at, 1, h, sums, 0, half)
                    subtract_scaled(out[1], k * LANES, even, at, 1, h, sums, columns * LANES, half)
                    subtract_scaled(
                        out[2], k * LANES, odd, at, 1, h, sums, (columns + half) * LANES, other
                    )
                    subtract_scaled(out[3], k * LANES, odd, at, 1, h, sums, half * LANES, other)
                for k in range(layers):
                    for s in range(LANES):
                        at = k * LANES + s
                        e = -out[0, at] - 1j * out[1, at]
                        o = -out[2, at] + 1j * out[3, at]
                        if mirror[k] >= 0:
                            m_gkl[g, component * depth + k, s] = (e + o) * np.sqrt(0.5)
                            m_gkl[g, component * depth + mirror[k], s] = (e - o) * np.sqrt(0.5)
                        else:
                            m_gkl[g, component * depth + k, s] = e + o

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


@numba.njit(fastmath=_FAST, cache=True)
def _field(  # type: ignore[no-untyped-def]
    y_re, y_im, rows, f, f_width, weight, even, odd, first, h, half, columns, mirror, x, sums, out, m_kl,
):  # fmt: skip
    """``m = K A^H y`` into m (3 layers, lanes): even part R_even (f_even y), odd part -i R_odd (f_odd y).

    The roots are stored transposed, element (k, c) at ``first + c h + k``.
    """
    depth = m_kl.shape[0] // 3
    for component in range(3):
        sums[:] = 0
        for side in range(2):
            for a in range(rows):
                w = -weight[component, a]
                for s in range(LANES):
                    ya = y_re[a * LANES + s] if side == 0 else y_im[a * LANES + s]
                    x[a * LANES + s] = w * ya
            for c in range(0, columns, ROWS):
                at = (side * columns + c) * LANES
                subtract_products(sums, at, f, c * LANES, LANES, f_width, x, 0, rows)
        out[:] = 0
        for k in range(0, h, ROWS):
            at = first + k
            other = columns - half
            subtract_scaled(out[0], k * LANES, even, at, 1, h, sums, 0, half)
            subtract_scaled(out[1], k * LANES, even, at, 1, h, sums, columns * LANES, half)
            subtract_scaled(out[2], k * LANES, odd, at, 1, h, sums, (columns + half) * LANES, other)
            subtract_scaled(out[3], k * LANES, odd, at, 1, h, sums, half * LANES, other)
        for k in range(mirror.shape[0]):
            for s in range(LANES):
                at = k * LANES + s
                e = -out[0, at] - 1j * out[1, at]
                o = -out[2, at] + 1j * out[3, at]
                if mirror[k] >= 0:
                    m_kl[component * depth + k, s] = (e + o) * np.sqrt(0.5)
                    m_kl[component * depth + mirror[k], s] = (e - o) * np.sqrt(0.5)
                else:
                    m_kl[component * depth + k, s] = e + o


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def solve_groups(  # type: ignore[no-untyped-def]
    filled, qy, qx, group_bin, p_gvl, tan, cos_phi, sin_phi, cos_theta, noise, model_noise,
    even, odd, h, columns_b, z, steps, voxel, cover, mirror, centre, hermitian, cutoff, shares, sample_of_group, m_gkl,
    explained, predicted_gl, left_gl, gain_gkl,
):  # fmt: skip
    """Solve groups of frequencies of one bin each, `LANES` at a time; filled (groups, lanes) says where there is one.

    qy, qx, shape (groups, lanes), are the frequencies; p_gvl (groups, views, lanes) the views there, and becomes what
    the field leaves of them: ``p - A m = N (A K A^H + N)^-1 p``; m_gkl (groups, 3 layers, lanes) becomes the field
    there, explained (samples, layers) what `solve_direct` needs of the posterior.

    Where gain_gkl (groups, 3 layers, lanes) has groups, the last entry of tan, cos_phi, sin_phi, cos_theta and noise
    is a view that is still to come: predicted_gl (groups, lanes) becomes what the field makes expect there, gain_gkl
    by how much it changes with what is seen beyond that, and left_gl which part of it is left then
    (`direct.Response`). With S = L L^T the matrix of the views and s, 1 + c the new view's column and diagonal, in
    units of the noise, one more row of the factor, ``l = L^-1 s``, tells all: ``s^T y = l^T (L^T y)``,
    ``K A^H [-L^-T l, 1] / r`` and ``1 / r``, r = 1 + c - l^T l. Not for complex matrices.

    Rows of the matrix are views; where the support has no symmetry the matrix is complex and is taken as the real
    one of twice the size, ``[[Re, -Im], [Im, Re]]``. Numbers of rows and of coordinates along z are filled up to
    multiples of four by zeros, that is by rows of the unit matrix. All arrays are flat, lanes last.
    """
    n_views = p_gvl.shape[1]
    layers = mirror.shape[0]
    ahead = gain_gkl.shape[0] > 0
    most = columns_b[:, 0].max() + columns_b[:, 1].max()
    parts = 1 if hermitian else 2
    n_max = n_views * (2 if hermitian else 1) + 2 * ROWS
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
            seen = n = 0
            for i in range(n_views + ahead):
                some = False
                for s in range(LANES):
                    d[seen, s] = 0
                    if filled[g, s]:
                        along = qx[g, s] * cos_phi[i] - qy[g, s] * sin_phi[i]
                        across = qx[g, s] * sin_phi[i] + qy[g, s] * cos_phi[i]
                        if (along / cos_theta[i]) ** 2 + across**2 < cutoff**2:
                            d[seen, s] = noise[i] + model_noise[bin_number]
                            some = True
                if some:
                    view[seen] = i
                    seen += 1
                    if i < n_views:
                        n = seen
            used = 2 * n if hermitian else n
            rows = (used + ROWS - 1) // ROWS * ROWS
            # the view to come stands beyond the rows of the others, which know nothing of it
            every = rows + ROWS if seen > n else rows
            for r in range(used + seen - n):
                i = view[r % n] if r < used else view[n]
                at = r if r < used else rows
                weight[0, at] = tan[i] * cos_phi[i]
                weight[1, at] = -tan[i] * sin_phi[i]
                weight[2, at] = 1
            y_re[used * LANES : rows * LANES] = 0
            y_im[used * LANES : rows * LANES] = 0
            f[used * f_width : every * f_width] = 0
            # what each view sees of each coordinate: f = [cosines R_even, sines R_odd], in units of the noise
            for a in range(seen):
                i = view[a]
                row = a if a < n else rows
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
                fa = f[row * f_width : (row + 1) * f_width]
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
                floor = weight[0, row] ** 2 + weight[1, row] ** 2 + weight[2, row] ** 2
                floor *= least_noise
                for s in range(LANES):
                    # a lane without this view gets zeros, that is a row of the unit matrix
                    d[a, s] = 1 / np.sqrt(d[a, s] + floor * expected[s]) if d[a, s] > 0 else 0.0
                    if a == n:
                        continue
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
            _factorize(f, f_width, columns, weight, every, m, width, tile)
            new = m[rows * width : rows * width + (rows + 1) * LANES]  # read where seen > n
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
            if not hermitian:
                _solve_lower(m, width, rows, y_im)
            if seen > n:
                for s in range(LANES):
                    if d[n, s] > 0:
                        value = np.complex64(0)
                        for r in range(rows):
                            at = r * LANES + s
                            value += new[at] * (y_re[at] + np.complex64(1j) * y_im[at])
                        predicted_gl[g, s] = value / d[n, s]
            _solve_upper(m, width, rows, y_re)
            if not hermitian:
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
            if hermitian:
                y_im[: n * LANES] = y_re[n * LANES : 2 * n * LANES]
            first = bin_number * h * h
            _field(
                y_re, y_im, n, f, f_width, weight, even, odd, first, h, half, columns, mirror, x, sums, out, m_gkl[g],
            )  # fmt: skip
            if seen > n:
                for at in range(rows * LANES):
                    y_re[at] = -new[at]
                _solve_upper(m, width, rows, y_re)
                y_re[rows * LANES : (rows + 1) * LANES] = 1
                y_im[: (rows + 1) * LANES] = 0
                _field(
                    y_re, y_im, rows + 1, f, f_width, weight, even, odd, first, h, half, columns, mirror, x, sums, out,
                    gain_gkl[g],
                )  # fmt: skip
                for s in range(LANES):
                    i = view[n]
                    along = qx[g, s] * cos_phi[i] - qy[g, s] * sin_phi[i]
                    turned = np.exp(-1j * (tan[i] * along * centre))
                    predicted_gl[g, s] *= np.conj(turned)
                    left_gl[g, s] = new[rows * LANES + s] ** 2
                    scale = left_gl[g, s] * d[n, s] * turned
                    for k in range(gain_gkl.shape[1]):
                        gain_gkl[g, k, s] *= scale

"""The likelihood of counts in detector pixels, given absorption, magnetization and nuisances, and its minimum.

The counts of the exposure of helicity h = +1, -1 in view v are Poisson numbers of the mean

    ``lambda = F_h(pixel) dose_hv exp(eta)``,  ``eta = g_hv - integral of (mu + h delta m . k) dl``,

F the open beam per dose and g the logarithm of the factor by which the stated dose (ring current times exposure) is
wrong, Gaussian of a stated width. The flats say that F has the mean r and the variance v: a Gamma density, that of
``K = r^2 / v`` counts at the dose ``D = r / v``. The F that is most probable has a closed form,

    ``F = N / (D + sum over v of dose exp(eta))``,  ``N = K + sum over v of n``,

and with it put in, the negative logarithm of the likelihood is

    ``Phi = sum over pixels and helicities of N ln(D + sum_v dose exp(eta)) - sum_v n eta``,

convex in eta, which is linear in all unknowns. Its gradient by eta is ``lambda - n``, its Hessian
``diag(lambda) - lambda lambda^T / N``: what the flat takes away from what the views know. No logarithm of counts is
taken: zeros, and negative numbers left by the readout, are as good as any other. Readout noise of the variance r
makes an exposure weigh ``lambda / (lambda + r)`` with the mean lambda of all its pixels.

The projection is that of the other solvers (sheared domain, `projector`), and then onto detector pixels, by cubic
convolution in the plane, so that counts are left as they were measured.

Sources: J. A. Fessler, IEEE Trans. Image Process. 5, 493 (1996), transmission tomography by penalized likelihood;
R. G. Keys, IEEE Trans. Acoust. 29, 1153 (1981), cubic convolution; S. G. Nash, J. Comput. Appl. Math. 124, 45 (2000),
truncated Newton.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.likelihood_prior import SmoothRoot
from mistral_txm.reconstruction.projector import ShearedProjector

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

HELICITIES = np.array([1, -1], np.float32)
NEWTON_STEPS = 15
CG_STEPS = 300
DECREMENT_PER_PIXEL = 1e-5
"""Newton's steps end once one gains less than this per measured pixel, in units of ln likelihood,"""
GAIN_PER_PIXEL, RELATIVE_GAIN = 1e-7, 1e-4
"""conjugate gradients once one gains less than the first per pixel, or than the second of all before it."""
DRAW_GAIN = 1e-6
"""The second for a draw from the posterior: the modes known worst, which come last, are those that matter."""


@numba.njit(inline="always")
def _keys(f, w):  # type: ignore[no-untyped-def]
    """Weights of the four neighbours of a point by the part f beyond the second."""
    w[0] = ((-0.5 * f + 1.0) * f - 0.5) * f
    w[1] = (1.5 * f - 2.5) * f * f + 1.0
    w[2] = ((-1.5 * f + 2.0) * f + 0.5) * f
    w[3] = (0.5 * f - 0.5) * f * f


@numba.njit(inline="always")
def _first_neighbour(place_k, i, j, wy, wx):  # type: ignore[no-untyped-def]
    """Index (y, x) in the domain of the first of the 4 x 4 neighbours of the pixel (i, j); fills in their weights."""
    y = place_k[0] + place_k[2] * i + place_k[3] * j
    x = place_k[1] + place_k[4] * i + place_k[5] * j
    y0 = int(np.floor(y))
    x0 = int(np.floor(x))
    _keys(y - y0, wy)
    _keys(x - x0, wx)
    return y0 - 1, x0 - 1


@numba.njit(parallel=True, cache=True)
def _to_detector(a_vyx, s_vyx, place_hvk, seen_hvij, out_hvij):  # type: ignore[no-untyped-def]
    """``a + h s`` of each view at its pixels (i, j); place: y and x of the first pixel, and per step in i and in j."""
    _, views, rows, columns = out_hvij.shape
    _, ny, nx = a_vyx.shape
    for v in numba.prange(views):
        wy = np.empty(4)
        wx = np.empty(4)
        for h in range(2):
            sign = 1.0 - 2.0 * h
            for i in range(rows):
                for j in range(columns):
                    if not seen_hvij[h, v, i, j]:
                        continue
                    y0, x0 = _first_neighbour(place_hvk[h, v], i, j, wy, wx)
                    total = 0.0
                    for b in range(4):
                        yb = (y0 + b) % ny
                        for c in range(4):
                            xc = (x0 + c) % nx
                            total += wy[b] * wx[c] * (a_vyx[v, yb, xc] + sign * s_vyx[v, yb, xc])
                    out_hvij[h, v, i, j] = total


@numba.njit(parallel=True, cache=True)
def _from_detector(values_hvij, place_hvk, seen_hvij, a_vyx, s_vyx):  # type: ignore[no-untyped-def]
    """Add the transpose of `_to_detector` to a and s."""
    _, views, rows, columns = values_hvij.shape
    _, ny, nx = a_vyx.shape
    for v in numba.prange(views):
        wy = np.empty(4)
        wx = np.empty(4)
        for h in range(2):
            sign = 1.0 - 2.0 * h
            for i in range(rows):
                for j in range(columns):
                    if not seen_hvij[h, v, i, j]:
                        continue
                    y0, x0 = _first_neighbour(place_hvk[h, v], i, j, wy, wx)
                    value = values_hvij[h, v, i, j]
                    for b in range(4):
                        yb = (y0 + b) % ny
                        for c in range(4):
                            xc = (x0 + c) % nx
                            part = wy[b] * wx[c] * value
                            a_vyx[v, yb, xc] += part
                            s_vyx[v, yb, xc] += sign * part


@dataclass(frozen=True)
class Rays:
    """From fields on the domain to detector pixels, ``integral of (mu + h delta m . k) dl``, and the transpose.

    Args:
        scalar, vector: projectors of all views, of all layers and of those of the support.
        coverage_z: part of each layer of the support that may be magnetic.
        side_v: +1, or -1 for a view from behind.
        place_hvk: where pixels lie in the domain, see `_to_detector`.
        seen_hvij: pixels that count.
    """

    scalar: ShearedProjector
    vector: ShearedProjector
    coverage_z: Float32
    side_v: Float32
    place_hvk: Float64
    seen_hvij: Bool
    shape_yx: tuple[int, int]

    def forward(self, mu: Float32, signal: Float32) -> Float32:
        """Absorbance of each pixel, [h, view, v, u], zero where unseen."""
        s_vyx = self.vector.forward(signal * self.coverage_z[:, None, None])
        s_vyx *= self.side_v[:, None, None]
        out = np.zeros(self.seen_hvij.shape, np.float32)
        _to_detector(self.scalar.forward(mu), s_vyx, self.place_hvk, self.seen_hvij, out)
        return out

    def adjoint(self, values_hvij: Float32) -> tuple[Float32, Float32]:
        """Spread pixel values back to the fields."""
        a_vyx = np.zeros((values_hvij.shape[1], *self.shape_yx), np.float32)
        s_vyx = np.zeros_like(a_vyx)
        _from_detector(values_hvij, self.place_hvk, self.seen_hvij, a_vyx, s_vyx)
        s_vyx *= self.side_v[:, None, None]
        signal = self.vector.adjoint(s_vyx)
        signal *= self.coverage_z[:, None, None]
        return self.scalar.adjoint(a_vyx), signal


@dataclass(frozen=True)
class Counts:
    """What was measured, [h, view, v, u]: photons (0 where unseen), weight and log of the dose per exposure.

    flat_counts, flat_dose: K and D, [h, series, v, u]. series: the views of each series.
    """

    photons_hvij: Float32
    weight_hv: Float32
    log_dose_hv: Float64
    flat_counts_hsij: Float64
    flat_dose_hsij: Float64
    series: Sequence[slice]


@dataclass(frozen=True)
class State:
    """eta, Phi of the data alone, expected counts times weight [h, view, v, u], and the flat F [h, series, v, u]."""

    eta_hvij: Float64
    value: float
    expected_hvij: Float64
    flat_hsij: Float64


@dataclass(frozen=True)
class Fields:
    """mu, 1/nm [1, z, y, x] and the signal delta m, 1/nm [3, z, y, x] on the domain; g_hv, logs of the factors."""

    mu: Float32
    signal: Float32
    log_factor_hv: Float64


@dataclass(frozen=True)
class Model:
    """The problem in unknowns y of prior variance one: white fields behind mu and signal, mean of mu, factors.

    mean_mu_per_nm, mean_mu_std: start and width of the mean absorption coefficient. factor_std: width of g.
    """

    counts: Counts
    rays: Rays
    mu_root: SmoothRoot
    signal_root: SmoothRoot
    mean_mu_per_nm: float
    mean_mu_std: float
    factor_std: float

    @property
    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rays = self.rays
        return rays.scalar.field_shape(rays.shape_yx), rays.vector.field_shape(rays.shape_yx)

    @property
    def size(self) -> int:
        """How many unknowns."""
        return sum(int(np.prod(s)) for s in self._shapes) + 1 + self.counts.log_dose_hv.size

    def fields(self, y: Float64, mean_mu_per_nm: float = 0.0) -> Fields:
        """What the unknowns stand for."""
        mu_shape, signal_shape = self._shapes
        a, b = int(np.prod(mu_shape)), int(np.prod(mu_shape)) + int(np.prod(signal_shape))
        mu = self.mu_root.apply(y[:a].astype(np.float32).reshape(mu_shape))
        mu += np.float32(mean_mu_per_nm + self.mean_mu_std * y[b])
        signal = self.signal_root.apply(y[a:b].astype(np.float32).reshape(signal_shape))
        log_factor = self.factor_std * y[b + 1 :].reshape(self.counts.log_dose_hv.shape)
        return Fields(mu, signal, log_factor)

    def solution(self, y: Float64) -> Fields:
        """The fields, with the mean of mu that the search started from."""
        return self.fields(y, self.mean_mu_per_nm)

    def _eta_of(self, fields: Fields) -> Float64:
        eta = -self.rays.forward(fields.mu, fields.signal).astype(np.float64)
        eta += fields.log_factor_hv[:, :, None, None]
        return eta

    def eta(self, y: Float64) -> Float64:
        """Eta of all pixels; linear but for the mean absorption."""
        return self._eta_of(self.solution(y))

    def eta_step(self, step: Float64) -> Float64:
        """What a step of the unknowns changes of eta."""
        return self._eta_of(self.fields(step))

    def transpose(self, values_hvij: Float64) -> Float64:
        """The transpose of `eta_step`."""
        values = np.where(self.rays.seen_hvij, values_hvij, 0)
        mu, signal = self.rays.adjoint((-values).astype(np.float32))
        return np.concatenate(
            [
                self.mu_root.apply(mu).ravel(),
                self.signal_root.apply(signal).ravel(),
                [self.mean_mu_std * mu.sum(dtype=np.float64)],
                self.factor_std * values.sum(axis=(2, 3)).ravel(),
            ]
        )

    def state(self, eta_hvij: Float64) -> State:
        """The data's part of Phi, and what is expected, with the most probable flat."""
        counts = self.counts
        weight = (counts.weight_hv[:, :, None, None] * self.rays.seen_hvij).astype(np.float64)
        expected: Float64 = weight * np.exp(eta_hvij + counts.log_dose_hv[:, :, None, None])
        value = -float(np.sum(weight * counts.photons_hvij * eta_hvij))
        flats = []
        for k, views in enumerate(counts.series):
            total = counts.flat_dose_hsij[:, k] + expected[:, views].sum(axis=1)
            known = self.known_hsij[:, k]
            value += float(np.sum(known * np.log(total)))
            flats.append(known / total)
            expected[:, views] *= flats[-1][:, None]
        return State(eta_hvij, value, expected, np.stack(flats, axis=1))

    @property
    def known_hsij(self) -> Float64:
        """N, all counts behind a pixel of the flat."""
        counts = self.counts
        weighted = counts.weight_hv[:, :, None, None] * counts.photons_hvij
        return np.stack(
            [
                counts.flat_counts_hsij[:, k] + weighted[:, views].sum(axis=1)
                for k, views in enumerate(counts.series)
            ],
            axis=1,
        )

    def gradient(self, state: State, y: Float64) -> Float64:
        """Of Phi and the prior, ``J^T (lambda - n) + y``."""
        measured = self.counts.weight_hv[:, :, None, None] * self.counts.photons_hvij
        return self.transpose(state.expected_hvij - measured) + y

    def curvature(self, state: State, eta_hvij: Float64) -> Float64:
        """``(diag(lambda) - lambda lambda^T / N) eta``."""
        weighted = state.expected_hvij * eta_hvij
        known = self.known_hsij
        for k, views in enumerate(self.counts.series):
            shared = weighted[:, views].sum(axis=1) / known[:, k]
            weighted[:, views] -= state.expected_hvij[:, views] * shared[:, None]
        return weighted

    def hessian_times(self, state: State, y: Float64) -> Float64:
        """The Hessian of Phi and the prior, times y."""
        return self.transpose(self.curvature(state, self.eta_step(y))) + y

    def inverse_diagonal(self, state: State) -> Float64:
        """Of the Hessian, where it is far from one: at the mean absorption and the factors."""
        diagonal = np.ones(self.size)
        mean = self.size - 1 - self.counts.log_dose_hv.size
        one = np.zeros(self.size)
        one[mean] = 1
        change = self.eta_step(one)
        diagonal[mean] += float(np.sum(change * self.curvature(state, change)))
        diagonal[mean + 1 :] += self.factor_std**2 * state.expected_hvij.sum(axis=(2, 3)).ravel()
        return np.asarray(1 / diagonal)

    def solve(
        self, state: State, right: Float64, least_gain: float, relative_gain: float
    ) -> tuple[Float64, float]:
        """Return ``H^-1 right`` and what it gains of ln likelihood, ``right^T H^-1 right / 2``.

        Conjugate gradients know what each of their steps gains: they end where that is less than least_gain, or than
        relative_gain of all before. (The residual's norm is that of the few modes that are known best.)
        """
        inverse = self.inverse_diagonal(state)
        x = np.zeros(self.size)
        residual = right.copy()
        conditioned = inverse * residual
        direction = conditioned
        power = float(residual @ conditioned)
        total = 0.0
        for _ in range(CG_STEPS):
            if power == 0:
                break
            product = self.hessian_times(state, direction)
            length = power / float(direction @ product)
            x += length * direction
            residual -= length * product
            gain = length * power / 2
            total += gain
            if gain < max(least_gain, relative_gain * total):
                break
            conditioned = inverse * residual
            power, before = float(residual @ conditioned), power
            direction = conditioned + power / before * direction
        return x, total

    def minimum(self) -> tuple[Float64, State]:
        """The most probable unknowns, by Newton's method with conjugate gradients.

        A step changes no eta by more than one, within which the exponential is close enough to its parabola.
        """
        y = np.zeros(self.size)
        state = self.state(self.eta(y))
        pixels = np.count_nonzero(self.rays.seen_hvij)
        enough = DECREMENT_PER_PIXEL * pixels
        for _ in range(NEWTON_STEPS):
            right = -self.gradient(state, y)
            step, gain = self.solve(state, right, GAIN_PER_PIXEL * pixels, RELATIVE_GAIN)
            change = self.eta_step(step)
            part = min(1.0, 1.0 / max(float(np.abs(change).max()), 1e-12))
            cost = state.value + y @ y / 2 + enough
            new = self.state(state.eta_hvij + part * change)
            while new.value + (y + part * step) @ (y + part * step) / 2 > cost:
                part /= 2
                new = self.state(state.eta_hvij + part * change)
            y, state = y + part * step, new
            if part == 1 and gain < enough:
                break
        return y, state

    def random(self, state: State, rng: np.random.Generator) -> Float64:
        """A draw from the posterior's Gaussian about its maximum, by a perturbed problem.

        ``H^-1 (J^T e + z)`` with z white and e of the covariance of the data's Hessian has the covariance ``H^-1``
        (G. Papandreou and A. Yuille, NIPS 2010).
        """
        expected = state.expected_hvij
        noise = np.sqrt(expected) * rng.normal(size=expected.shape)
        known = self.known_hsij
        for k, views in enumerate(self.counts.series):
            own = self.counts.flat_dose_hsij[:, k] * state.flat_hsij[:, k]
            shared = noise[:, views].sum(axis=1) + np.sqrt(own) * rng.normal(size=own.shape)
            noise[:, views] -= expected[:, views] * (shared / known[:, k])[:, None]
        right = self.transpose(noise) + rng.normal(size=self.size)
        return self.solve(state, right, 0.0, DRAW_GAIN)[0]

"""The prior "norm": magnetization of length one in the layers, neighbours held together by exchange.

    minimize over unit vectors n(r):  ``f = 1/2 |W (p - delta A n)|^2 + lambda/2 sum over neighbours |n(r) - n(r')|^2``

Unit length adds what the dichroic signal alone cannot say (fields ``grad psi`` are invisible from every direction,
but they do not keep the length); exchange keeps that freedom from fitting noise. Both are prior knowledge about a
ferromagnet far below its ordering temperature, the second in the form of micromagnetism's exchange energy.

Method: conjugate gradients on the product of spheres (Polak-Ribiere with restart; gradients projected on the
    tangent planes; a step is the Gauss-Newton step along the direction, then back to unit length, shortened until f
    falls). delta, where it is not given, is at every point the least-squares factor, ``<A n, p> / <A n, A n>``
    (variable projection). f has more than one minimum: which is found depends on the start, and where the start has
    little length its direction decides, not the data.

The weight lambda comes from the data by cross-validation: every eighth view is held out, the exchange starts strong and
falls by steps, as long as each makes the field say clearly better what the held-out views measured (`WORTHWHILE`).
That needs no knowledge of the noise's size (chi2 = 1 is met too early where the views' resampling has smoothed the
noise, and never where they carry errors of another kind), and noise that was fitted shows at once. Then all views
are fitted with that weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.solvers import Problem, _dot

Float32 = npt.NDArray[np.float32]

HELD_OUT = 8
"""One view in so many is held out."""

FIRST_WEIGHT = 10.0
"""Weight of the exchange to begin with, over the curvature of the data's term."""

WEIGHT_STEP = 10**0.5
"""Factor from one weight to the next."""

WEIGHTS = 6
"""So many steps down from the first weight at most."""

STEPS = 15
"""Conjugate gradient steps for each weight."""

WORTHWHILE = 0.05
"""Relative gain of the held-out chi2 that is worth the next weaker exchange.

Least chi2 alone takes a weight three to ten times too weak: what no view sees well, held-out ones included, does not
show in it, and is noise by then. On stripes, a vortex, skyrmions and a hopfion with the noise of a real dose, any value
from 4 to 10 % came within a factor of 1.7 of the best median angle."""

CONVERGED = 3e-4
"""Relative gain of f in a step below which the steps end."""


@dataclass(frozen=True)
class UnitNormSolution:
    """field: delta times unit vectors [3, z, y, x], signal per nm; exchange_weight: lambda over the data's
    curvature; held_out_chi2: by weight, `Problem.chi2` of the views held out (empty if there were too few)."""

    field: Float32
    delta_per_nm: float
    exchange_weight: float
    held_out_chi2: dict[float, float]


def _tangent(vectors: Float32, n: Float32) -> Float32:
    """Remove the part along n, in place."""
    vectors -= np.einsum("czyx,czyx->zyx", vectors, n) * n
    return vectors


def _normalized(vectors: Float32) -> Float32:
    """Unit vectors; those without a length point along x, as good as any."""
    length = np.sqrt(np.einsum("czyx,czyx->zyx", vectors, vectors))
    lost = length < 1e-12
    out = vectors / np.where(lost, np.float32(1), length)
    out[0][lost], out[1][lost], out[2][lost] = 1, 0, 0
    return out.astype(np.float32, copy=False)


class _Exchange:
    """Sum of squared differences between neighbours, periodic along y and x, within each layer along z."""

    def __init__(self, z_nm: npt.NDArray[np.float64], voxel_nm: float) -> None:
        self._bound = (np.diff(z_nm) < 1.5 * voxel_nm).astype(np.float32)[None, :, None, None]

    def gradient(self, n: Float32) -> Float32:
        """``L n`` of the energy ``1/2 <n, L n>``."""
        out = 4 * n
        for axis in (2, 3):
            out -= np.roll(n, 1, axis)
            out -= np.roll(n, -1, axis)
        difference = np.diff(n, axis=1) * self._bound
        out[:, 1:] += difference
        out[:, :-1] -= difference
        return out


@dataclass(frozen=True)
class _State:
    """Unit vectors, their projection (unweighted) and the factor that fits it to the views."""

    n: Float32
    projected: Float32
    delta: float


class _Fit:
    """The views that are fitted, with their weights: zero where held out."""

    def __init__(self, problem: Problem, weight_vyx: Float32, delta_per_nm: float | None) -> None:
        self._problem = problem
        self._weight = weight_vyx
        self._data = weight_vyx * problem.signal_vyx
        self._delta = delta_per_nm
        self._exchange = _Exchange(problem.projector.z_nm, problem.projector.voxel_nm)

    def state(self, n: Float32) -> _State:
        """Project, and find delta."""
        projected = self._problem.forward(n)
        if self._delta is not None:
            return _State(n, projected, self._delta)
        weighted = self._weight * projected
        scale = _dot(weighted, weighted)
        return _State(n, projected, max(_dot(weighted, self._data) / scale, 1e-12))

    def residual(self, state: _State) -> Float32:
        """Weighted, zero for views that are held out."""
        return self._data - np.float32(state.delta) * (self._weight * state.projected)

    def descend(self, state: _State, weight: float) -> _State:
        """Take `STEPS` conjugate gradient steps with a weight of the exchange."""
        problem, exchange = self._problem, self._exchange
        before: Float32 | None = None
        norm2_before = 1.0
        direction = np.zeros_like(state.n)
        for _ in range(STEPS):
            residual = self.residual(state)
            pull = exchange.gradient(state.n)
            cost = _dot(residual, residual) + weight * _dot(state.n, pull)
            gradient = np.float32(-state.delta) * problem.adjoint(self._weight * residual)
            gradient += np.float32(weight) * pull
            _tangent(gradient, state.n)
            norm2 = _dot(gradient, gradient)
            if norm2 == 0:
                break
            if before is not None:
                _tangent(before, state.n)
                beta = max(0.0, (norm2 - _dot(gradient, before)) / norm2_before)
                direction *= np.float32(beta)
                _tangent(direction, state.n)
            direction -= gradient
            slope = _dot(direction, gradient)
            if slope >= 0:
                direction = -gradient
                slope = -norm2
            along = self._weight * problem.forward(direction)
            bend = state.delta**2 * _dot(along, along)
            bend += weight * _dot(direction, exchange.gradient(direction))
            found = self._shorten(state, direction, -slope / bend, weight, cost)
            if found is None:
                break
            state, gained = found
            before, norm2_before = gradient, norm2
            if gained < CONVERGED * cost:
                break
        return state

    def _shorten(
        self, state: _State, direction: Float32, step: float, weight: float, cost: float
    ) -> tuple[_State, float] | None:
        """Go along a direction, less far until the cost falls; None if it does not."""
        for _ in range(6):
            trial = self.state(_normalized(state.n + np.float32(step) * direction))
            residual = self.residual(trial)
            pull = self._exchange.gradient(trial.n)
            gained = cost - _dot(residual, residual) - weight * _dot(trial.n, pull)
            if gained > 0:
                return trial, gained
            step /= 3
        return None


def solve_unit_norm(
    problem: Problem, start: Float32, *, delta_per_nm: float | None = None
) -> UnitNormSolution:
    """Find unit vectors that explain the views.

    Args:
        problem: views and support.
        start: field in signal units whose directions to start from.
        delta_per_nm: dichroic coefficient, 1/nm; None: estimated.

    Raises:
        InputError: if there is nothing to fit.
    """
    if not (problem.weight_vyx * problem.signal_vyx).any():
        raise InputError(
            "prior 'norm': the signal is zero everywhere, unit vectors cannot explain it; is it dichroic?"
        )
    everything = _Fit(problem, problem.weight_vyx, delta_per_nm)
    first = everything.state(_normalized(start))
    w2 = np.sum(problem.projector.weight_vc**2, axis=1)
    per_view = np.max(problem.weight_vyx, axis=(1, 2)).astype(np.float64) ** 2
    voxel_nm = problem.projector.voxel_nm
    curvature = first.delta**2 * voxel_nm**2 * float(np.sum(w2 * per_view)) / 3
    weight, state, chi2 = _cross_validated(problem, first, curvature, delta_per_nm)
    state = everything.descend(everything.state(state.n), weight * curvature)
    return UnitNormSolution(np.float32(state.delta) * state.n, state.delta, weight, chi2)


def _cross_validated(
    problem: Problem, first: _State, curvature: float, delta_per_nm: float | None
) -> tuple[float, _State, dict[float, float]]:
    """The weight, over the curvature, that held-out views speak for, its field, and chi2 by weight.

    From the first weight downwards as long as it pays: a smooth field is found in few steps, its details then.
    """
    held = np.arange(HELD_OUT // 2, len(problem.weight_vyx), HELD_OUT)
    chi2: dict[float, float] = {}
    if not problem.weight_vyx[held].any():
        return FIRST_WEIGHT, first, chi2
    kept_weight = problem.weight_vyx.copy()
    kept_weight[held] = 0
    fit = _Fit(problem, kept_weight, delta_per_nm)
    weight_held, signal_held = problem.weight_vyx[held], problem.signal_vyx[held]
    seen_v = np.count_nonzero(weight_held, axis=(1, 2))
    pixels = float(np.sum(seen_v * problem.projector.obliquity_v[held]))

    def tried(state: _State, relative: float) -> _State:
        state = fit.descend(state, relative * curvature)
        projected = np.float32(state.delta) * state.projected[held]
        residual = weight_held * (signal_held - projected)
        chi2[relative] = _dot(residual, residual) / pixels
        return state

    best, state = FIRST_WEIGHT, tried(fit.state(first.n), FIRST_WEIGHT)
    for _ in range(WEIGHTS):
        following = best / WEIGHT_STEP
        candidate = tried(state, following)
        if chi2[following] > (1 - WORTHWHILE) * chi2[best]:
            break
        best, state = following, candidate
    return best, state, chi2

"""The prior "norm": magnetization of length one in the layers, neighbours held together by exchange.

    minimize over unit vectors n(r):  ``f = 1/2 |W (p - delta A n)|^2 + lambda/2 sum over neighbours |n(r) - n(r')|^2``

Unit length adds what the dichroic signal alone cannot say (fields ``grad psi`` are invisible from every direction,
but they do not keep the length); exchange keeps that freedom from fitting noise. Both are prior knowledge about a
ferromagnet far below its ordering temperature, the second in the form of micromagnetism's exchange energy.

Method: conjugate gradients on the product of spheres (Polak-Ribiere with restart; gradients projected on the
    tangent planes; a step is the Gauss-Newton step along the direction, then back to unit length, halved until f
    falls). delta, where it is not given, is at every point the least-squares factor, ``<A n, p> / <A n, A n>``
    (variable projection).

The weight lambda comes from the data: it starts strong and falls by a factor of three as long as the misfit is
above the noise (discrepancy principle, chi2 = 1) and still falls by more than `WORTHWHILE`: what the misfit does
not gain any more is model error, not a structure to be fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.solvers import Problem, _dot

Float32 = npt.NDArray[np.float32]

WORTHWHILE = 0.1
"""Relative gain of chi2 that is worth a weaker exchange."""


@dataclass(frozen=True)
class UnitNormSolution:
    """field: delta times unit vectors [3, z, y, x], signal per nm; exchange_weight: lambda over the data's
    curvature."""

    field: Float32
    delta_per_nm: float
    exchange_weight: float
    chi2: float


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


def solve_unit_norm(
    problem: Problem,
    start: Float32,
    *,
    delta_per_nm: float | None = None,
    steps_per_weight: int = 12,
) -> UnitNormSolution:
    """Find unit vectors that explain the views.

    Args:
        problem: views and support.
        start: field in signal units whose directions to start from.
        delta_per_nm: dichroic coefficient, 1/nm; None: estimated.
        steps_per_weight: conjugate-gradient steps for each weight of the exchange.

    Raises:
        InputError: if there is nothing to fit.
    """
    weighted = problem.weight_vyx * problem.signal_vyx
    if not weighted.any():
        raise InputError(
            "prior 'norm': the signal is zero everywhere, unit vectors cannot explain it; is it dichroic?"
        )
    n = _normalized(start)
    exchange = _Exchange(problem.projector.z_nm, problem.projector.voxel_nm)

    def project(field: Float32) -> Float32:
        return problem.weight_vyx * problem.forward(field)

    def best_delta(projected: Float32) -> float:
        if delta_per_nm is not None:
            return delta_per_nm
        return max(_dot(projected, weighted) / _dot(projected, projected), 1e-12)

    projected = project(n)
    delta = best_delta(projected)
    w2 = np.sum(problem.projector.weight_vc**2, axis=1)
    per_view = np.max(problem.weight_vyx, axis=(1, 2)).astype(np.float64) ** 2
    curvature = delta**2 * problem.projector.voxel_nm**2 * float(np.sum(w2 * per_view)) / 3
    relative = 30.0
    chi2_before = np.inf
    while True:
        weight = relative * curvature
        g_before: Float32 | None = None
        norm2_before = 1.0
        direction = np.zeros_like(n)
        for _ in range(steps_per_weight):
            residual = weighted - np.float32(delta) * projected
            pull = exchange.gradient(n)
            cost = _dot(residual, residual) + weight * _dot(n, pull)
            gradient = np.float32(-delta) * problem.adjoint(problem.weight_vyx * residual)
            gradient += np.float32(weight) * pull
            _tangent(gradient, n)
            norm2 = _dot(gradient, gradient)
            if norm2 == 0:
                break
            if g_before is not None:
                _tangent(g_before, n)
                beta = max(0.0, (norm2 - _dot(gradient, g_before)) / norm2_before)
                direction *= np.float32(beta)
                _tangent(direction, n)
            direction -= gradient
            slope = _dot(direction, gradient)
            if slope >= 0:
                direction = -gradient
                slope = -norm2
            along = project(direction)
            bend = delta**2 * _dot(along, along) + weight * _dot(
                direction, exchange.gradient(direction)
            )
            step = -slope / bend
            for _ in range(6):
                trial = _normalized(n + np.float32(step) * direction)
                trial_projected = project(trial)
                trial_delta = best_delta(trial_projected)
                trial_residual = weighted - np.float32(trial_delta) * trial_projected
                trial_cost = _dot(trial_residual, trial_residual) + weight * _dot(
                    trial, exchange.gradient(trial)
                )
                if trial_cost < cost:
                    break
                step /= 3
            else:
                break
            n, projected, delta = trial, trial_projected, trial_delta
            g_before, norm2_before = gradient, norm2
            if cost - trial_cost < 1e-3 * cost:
                break
        residual = weighted - np.float32(delta) * projected
        chi2 = problem.chi2(residual)
        if chi2 <= 1 or chi2 > (1 - WORTHWHILE) * chi2_before or relative < 1e-5:
            return UnitNormSolution(np.float32(delta) * n, float(delta), relative, chi2)
        chi2_before = chi2
        relative /= 3

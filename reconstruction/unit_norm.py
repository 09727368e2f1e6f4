"""The prior "norm": magnetization of length one in the layers, neighbours held together by exchange.

    minimize over unit vectors n(r):  ``f = 1/2 |W (p - delta A n)|^2 + lambda/2 sum over neighbours |n(r) - n(r')|^2``

Unit length adds what the dichroic signal alone cannot say (fields ``grad psi`` are invisible from every direction,
but they do not keep the length); exchange keeps that freedom from fitting noise. Both are prior knowledge about a
ferromagnet far below its ordering temperature, the second in the form of micromagnetism's exchange energy.

Method: conjugate gradients on the product of spheres (Polak-Ribiere with restart; gradients projected on the
    tangent planes; a step is the Gauss-Newton step along the direction, then back to unit length, shortened until f
    falls). delta, where it is not given, is at every point the least-squares factor, ``<A n, p> / <A n, A n>``
    (variable projection).

f has more than one minimum, and neither f nor the views that are fitted tell which is right; views that are held out
do. So both choices are made by cross-validation, which needs no knowledge of the noise's size (chi2 = 1
is met too early where resampling has smoothed the views' noise, and never where they carry errors of another kind):

1. the start. Where the linear solution is short, the rest of the length was invisible: in a film thinner than the
   texture is wide that is, above all, an mz whose mean over the thickness vanishes, ``cos(pi j (z - bottom) /
   thickness)``, of either sign. Starts with the missing length filled in so, j = 1 and 2, compete with the one that is
   just brought to length one (`MODES`), and the best two of them once more.
2. lambda, the exchange's weight: the strongest that predicts the held-out views nearly as well as the best one
   (`WORTHWHILE`).

Then all views are fitted. More data deserve a weight that grows more slowly than they do: by the root of their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.solvers import Problem, dot
from mistral_txm.reconstruction.unit_vectors import Exchange, moved, normalized, turned

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_FAST = {"reassoc", "contract", "nsz", "arcp"}

ENOUGH_VIEWS = 60
"""Start and weight are chosen with at most so many views, for speed."""

HELD_OUT = 8
"""One view in so many of these is held out."""

MODES = ((0, 1.0), (1, 1.0), (1, -1.0), (2, 1.0), (2, -1.0))
"""(j, sign) of the starts."""

FINALISTS = 2
"""So many starts get twice the steps."""

FIRST_WEIGHT = 1.0
"""Weight of the exchange to begin with, over the curvature of the data's term."""

WEIGHT_STEP = 10**0.5
"""Factor from one weight to the next."""

WEIGHTS = 6
"""So many steps away from the first weight at most."""

STEPS = 12
"""Conjugate gradient steps for each weight."""

WORTHWHILE = 0.07
"""A stronger exchange may predict the held-out views so much worse.

The least misfit itself belongs to a weight three to ten times too weak: what no view sees well, held-out ones included,
does not show in it, and is noise by then. Seen on textures with known truth and the noise of a real dose; values from
7 to 10 % changed the median angles by up to a third, of one texture up and of another down."""

CONVERGED = 3e-4
"""Relative gain of f in a step below which the steps end."""


@dataclass(frozen=True)
class UnitNormSolution:
    """field: delta times unit vectors [3, z, y, x], signal per nm; exchange_weight: lambda over the curvature of the
    data's term; held_out_chi2: by weight, `Problem.chi2` of the views held out (empty
    if there were too few)."""

    field: Float32
    delta_per_nm: float
    exchange_weight: float
    held_out_chi2: dict[float, float]


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _sums(weight, projected, signal, out):  # type: ignore[no-untyped-def]
    """Rows' sums of ``w^2 p^2``, ``w^2 p s`` and ``w^2 s^2``."""
    nv, ny, nx = projected.shape
    for row in numba.prange(nv * ny):
        v, y = row // ny, row % ny
        pp = ps = ss = 0.0
        for x in range(nx):
            p = np.float64(weight[v, y, x] * projected[v, y, x])
            s = np.float64(weight[v, y, x] * signal[v, y, x])
            pp += p * p
            ps += p * s
            ss += s * s
        out[row, 0], out[row, 1], out[row, 2] = pp, ps, ss


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _weighted_residual(weight, signal, projected, delta, out):  # type: ignore[no-untyped-def]
    """``w^2 (s - delta p)``."""
    nv, ny, nx = projected.shape
    for row in numba.prange(nv * ny):
        v, y = row // ny, row % ny
        for x in range(nx):
            w = weight[v, y, x]
            out[v, y, x] = w * w * (signal[v, y, x] - delta * projected[v, y, x])


@dataclass(frozen=True)
class _State:
    """Unit vectors, their projection (unweighted), the factor that fits it to the views, and the two terms of f."""

    n: Float32
    projected: Float32
    delta: float
    misfit: float
    exchange: float

    def cost(self, weight: float) -> float:
        """``2 f``."""
        return self.misfit + weight * self.exchange


class _Fit:
    """The views that are fitted."""

    def __init__(self, problem: Problem, delta_per_nm: float | None) -> None:
        self._problem = problem
        self._delta = delta_per_nm
        self._exchange = Exchange(problem.projector.z_nm, problem.projector.voxel_nm)

    def _products(self, projected: Float32) -> Float64:
        """``<p, p>``, ``<p, s>`` and ``<s, s>``, weighted."""
        problem = self._problem
        rows = np.empty((projected.shape[0] * projected.shape[1], 3))
        _sums(problem.weight_vyx, projected, problem.signal_vyx, rows)
        return np.asarray(rows.sum(axis=0))

    def state(self, n: Float32, projected: Float32 | None = None) -> _State:
        """Project (into an array, if one is given), and find delta."""
        projected = self._problem.forward(n, out=projected)
        pp, ps, ss = self._products(projected)
        delta = max(ps / pp, 1e-12) if self._delta is None else self._delta
        misfit = ss - 2 * delta * ps + delta**2 * pp
        return _State(n, projected, delta, misfit, self._exchange.energy(n))

    def descend(self, n: Float32, weight: float) -> _State:
        """Take `STEPS` conjugate gradient steps with a weight of the exchange.

        Arrays are used again from step to step: large ones take the system longer to give than to fill.
        """
        problem, exchange = self._problem, self._exchange
        here = self.state(n.copy())
        other_n, other_views = np.empty_like(here.n), np.empty_like(here.projected)
        gradient, before = np.empty_like(n), np.empty_like(n)
        direction = np.zeros_like(n)
        norm2_before = 0.0
        for _ in range(STEPS):
            cost = here.cost(weight)
            _weighted_residual(
                problem.weight_vyx, problem.signal_vyx, here.projected, np.float32(here.delta), other_views
            )  # fmt: skip
            problem.adjoint(other_views, out=gradient)
            exchange.pull(here.n, -here.delta, weight, gradient)
            norm2 = dot(gradient, gradient)
            if norm2 == 0:
                break
            # the gradient lies in the tangent planes, so what of the one before sticks out of them does not count
            beta = max(0.0, (norm2 - dot(gradient, before)) / norm2_before) if norm2_before else 0.0
            turned(direction, np.float32(beta), here.n, gradient)
            slope = dot(direction, gradient)
            if slope >= 0:
                np.negative(gradient, out=direction)
                slope = -norm2
            along = self._products(problem.forward(direction, out=other_views))[0]
            bend = here.delta**2 * along + weight * exchange.energy(direction)
            found = self._shortened(here, direction, -slope / bend, weight, other_n, other_views)
            if found is None:
                break
            other_n, other_views = here.n, here.projected
            here = found
            gradient, before, norm2_before = before, gradient, norm2
            if cost - here.cost(weight) < CONVERGED * cost:
                break
        return here

    def _shortened(
        self,
        here: _State,
        direction: Float32,
        step: float,
        weight: float,
        n: Float32,
        projected: Float32,
    ) -> _State | None:
        """Go along a direction, less far until the cost falls (into the arrays given); None if it does not."""
        for _ in range(6):
            moved(here.n, np.float32(step), direction, n)
            trial = self.state(n, projected)
            if trial.cost(weight) < here.cost(weight):
                return trial
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
    everything = _Fit(problem, delta_per_nm)
    n = normalized(start)
    first_delta = everything.state(n).delta
    some = problem.of_views(slice(None, None, -(-len(problem.weight_vyx) // ENOUGH_VIEWS)))
    curvature, in_all = (_curvature(each, first_delta) for each in (some, problem))
    held = np.arange(HELD_OUT // 2, len(some.weight_vyx), HELD_OUT)
    relative, chi2 = FIRST_WEIGHT, dict[float, float]()
    if some.weight_vyx[held].any():
        trial = _Trial(some, held, curvature, delta_per_nm)
        starts = _starts(
            start / np.float32(first_delta), problem.projector.z_nm, problem.projector.voxel_nm
        )
        n, chi2[relative] = _best_start(trial, starts)
        relative, n = _best_weight(trial, n, chi2)
    state = everything.descend(n, relative * np.sqrt(curvature * in_all))
    return UnitNormSolution(np.float32(state.delta) * state.n, state.delta, relative, chi2)


def _curvature(problem: Problem, delta: float) -> float:
    """Second derivative of the data's term for one component of one voxel, mean over the components."""
    w2 = np.sum(problem.projector.weight_vc**2, axis=1)
    per_view = np.max(problem.weight_vyx, axis=(1, 2)).astype(np.float64) ** 2
    return delta**2 * problem.projector.voxel_nm**2 * float(np.sum(w2 * per_view)) / 3


class _Trial:
    """Fits without the views held out, and tells how well they are predicted."""

    def __init__(
        self,
        problem: Problem,
        held: npt.NDArray[np.intp],
        curvature: float,
        delta_per_nm: float | None,
    ) -> None:
        kept = np.setdiff1d(np.arange(len(problem.weight_vyx)), held)
        self._fit = _Fit(problem.of_views(kept), delta_per_nm)
        self._held = problem.of_views(held)
        self._curvature = curvature

    def run(self, n: Float32, relative: float) -> tuple[Float32, float]:
        """Descend from unit vectors with a weight over the curvature; the field, and chi2 of the views held out."""
        state = self._fit.descend(n, relative * self._curvature)
        return state.n, self._held.chi2(self._held.residual(np.float32(state.delta) * state.n))


def _starts(linear: Float32, z_nm: Float64, voxel_nm: float) -> list[Float32]:
    """The linear solution brought to length one, its missing length filled in by each of `MODES`."""
    missing = np.sqrt(np.maximum(0, 1 - np.einsum("czyx,czyx->zyx", linear, linear)))
    layer = np.cumsum(np.diff(z_nm, prepend=z_nm[0]) > 1.5 * voxel_nm)
    height = np.concatenate(
        [(np.arange(n) + 0.5) / n for n in np.bincount(layer)]
    )  # within its layer, 0 to 1
    starts = []
    for j, sign in MODES:
        n = linear.copy()
        if j:
            n[2] += missing * (sign * np.cos(np.pi * j * height)).astype(np.float32)[:, None, None]
        starts.append(normalized(n))
    return starts


def _best_start(trial: _Trial, starts: list[Float32]) -> tuple[Float32, float]:
    """The field and chi2 of the start that predicts best, after two rounds."""
    first = [trial.run(n, FIRST_WEIGHT) for n in starts]
    first.sort(key=lambda found: found[1])
    second = [trial.run(n, FIRST_WEIGHT) for n, _ in first[:FINALISTS]]
    return min(second, key=lambda found: found[1])


def _best_weight(trial: _Trial, n: Float32, chi2: dict[float, float]) -> tuple[float, Float32]:
    """Weaken the exchange as long as it is worth while, else strengthen it as long as it costs little; fill chi2."""
    best = FIRST_WEIGHT
    for _ in range(WEIGHTS):
        weaker = best / WEIGHT_STEP
        found, chi2[weaker] = trial.run(n, weaker)
        if chi2[weaker] > (1 - WORTHWHILE) * chi2[best]:
            break
        best, n = weaker, found
    if best != FIRST_WEIGHT:
        return best, n
    for _ in range(WEIGHTS):
        stronger = best * WEIGHT_STEP
        found, chi2[stronger] = trial.run(n, stronger)
        if (1 - WORTHWHILE) * chi2[stronger] > min(chi2.values()):
            break
        best, n = stronger, found
    return best, n

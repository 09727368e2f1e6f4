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

from dataclasses import dataclass, replace

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.projector import ShearedProjector
from mistral_txm.reconstruction.solvers import Problem, _dot

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
def _tangent(vectors, n):  # type: ignore[no-untyped-def]
    """Remove the part along n, in place."""
    _, nz, ny, nx = n.shape
    for row in numba.prange(nz * ny):
        z, y = row // ny, row % ny
        for x in range(nx):
            along = (
                vectors[0, z, y, x] * n[0, z, y, x]
                + vectors[1, z, y, x] * n[1, z, y, x]
                + vectors[2, z, y, x] * n[2, z, y, x]
            )
            for c in range(3):
                vectors[c, z, y, x] -= along * n[c, z, y, x]


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _moved(n, step, direction, out):  # type: ignore[no-untyped-def]
    """``n + step direction``, brought to length one; what has no length points along x, as good as any."""
    _, nz, ny, nx = n.shape
    for row in numba.prange(nz * ny):
        z, y = row // ny, row % ny
        for x in range(nx):
            a = n[0, z, y, x] + step * direction[0, z, y, x]
            b = n[1, z, y, x] + step * direction[1, z, y, x]
            c = n[2, z, y, x] + step * direction[2, z, y, x]
            length = np.sqrt(a * a + b * b + c * c)
            if length < np.float32(1e-12):
                a, b, c, length = np.float32(1), np.float32(0), np.float32(0), np.float32(1)
            out[0, z, y, x] = a / length
            out[1, z, y, x] = b / length
            out[2, z, y, x] = c / length


def _normalized(vectors: Float32) -> Float32:
    out = np.empty_like(vectors)
    _moved(vectors, np.float32(0), vectors, out)
    return out


@numba.njit(parallel=True, fastmath=_FAST, cache=True)
def _exchange_gradient(n, bound, out):  # type: ignore[no-untyped-def]
    _, nz, ny, nx = n.shape
    for row in numba.prange(3 * nz * ny):
        c, z, y = row // (nz * ny), row // ny % nz, row % ny
        here, target = n[c, z, y], out[c, z, y]
        before, after = n[c, z, y - 1], n[c, z, (y + 1) % ny]
        below = n[c, z - 1] if z > 0 and bound[z - 1] else n[c, z]
        above = n[c, z + 1] if z < nz - 1 and bound[z] else n[c, z]
        for x in range(nx):
            target[x] = np.float32(6) * here[x] - before[x] - after[x] - below[y, x] - above[y, x]
        for x in range(1, nx - 1):
            target[x] -= here[x - 1] + here[x + 1]
        target[0] -= here[nx - 1] + here[1 % nx]
        if nx > 1:
            target[nx - 1] -= here[nx - 2] + here[0]


class _Exchange:
    """Sum of squared differences between neighbours, periodic along y and x, within each layer along z."""

    def __init__(self, z_nm: Float64, voxel_nm: float) -> None:
        self._bound = np.diff(z_nm) < 1.5 * voxel_nm

    def gradient(self, n: Float32) -> Float32:
        """``L n`` of the energy ``1/2 <n, L n>``."""
        out = np.empty_like(n)
        _exchange_gradient(n, self._bound, out)
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
            moved = np.empty_like(state.n)
            _moved(state.n, np.float32(step), direction, moved)
            trial = self.state(moved)
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
    some = _thinned(problem)
    curvature, in_all = (_curvature(each, first.delta) for each in (some, problem))
    held = np.arange(HELD_OUT // 2, len(some.weight_vyx), HELD_OUT)
    relative, n, chi2 = FIRST_WEIGHT, first.n, dict[float, float]()
    if some.weight_vyx[held].any():
        trial = _Trial(some, held, curvature, delta_per_nm)
        starts = _starts(
            start / np.float32(first.delta), problem.projector.z_nm, problem.projector.voxel_nm
        )
        n, chi2[relative] = _best_start(trial, starts)
        relative, n = _best_weight(trial, n, chi2)
    state = everything.descend(everything.state(n), relative * np.sqrt(curvature * in_all))
    return UnitNormSolution(np.float32(state.delta) * state.n, state.delta, relative, chi2)


def _curvature(problem: Problem, delta: float) -> float:
    """Second derivative of the data's term for one component of one voxel, mean over the components."""
    w2 = np.sum(problem.projector.weight_vc**2, axis=1)
    per_view = np.max(problem.weight_vyx, axis=(1, 2)).astype(np.float64) ** 2
    return delta**2 * problem.projector.voxel_nm**2 * float(np.sum(w2 * per_view)) / 3


def _thinned(problem: Problem) -> Problem:
    """Every so many'th view, `ENOUGH_VIEWS` at most."""
    chosen = slice(None, None, -(-len(problem.weight_vyx) // ENOUGH_VIEWS))
    projector = problem.projector
    assert isinstance(projector, ShearedProjector)  # films alone have this prior
    return replace(
        problem,
        projector=replace(
            projector,
            theta_deg_v=projector.theta_deg_v[chosen],
            phi_deg_v=projector.phi_deg_v[chosen],
        ),
        signal_vyx=problem.signal_vyx[chosen],
        weight_vyx=problem.weight_vyx[chosen],
    )


class _Trial:
    """Fits without the views held out, and tells how well they are predicted."""

    def __init__(
        self,
        problem: Problem,
        held: npt.NDArray[np.intp],
        curvature: float,
        delta_per_nm: float | None,
    ) -> None:
        kept_weight = problem.weight_vyx.copy()
        kept_weight[held] = 0
        self._fit = _Fit(problem, kept_weight, delta_per_nm)
        self._held = held
        self._weight = problem.weight_vyx[held]
        self._signal = problem.signal_vyx[held]
        self._curvature = curvature
        seen_v = np.count_nonzero(self._weight, axis=(1, 2))
        self._pixels = float(np.sum(seen_v * problem.projector.obliquity_v[held]))

    def run(self, n: Float32, relative: float) -> tuple[Float32, float]:
        """Descend from unit vectors with a weight over the curvature; the field, and chi2 of the views held out."""
        state = self._fit.descend(self._fit.state(n), relative * self._curvature)
        projected = np.float32(state.delta) * state.projected[self._held]
        residual = self._weight * (self._signal - projected)
        return state.n, _dot(residual, residual) / self._pixels


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
        starts.append(_normalized(n))
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

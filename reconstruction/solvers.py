"""Iterative solvers in real space: ART as in the publication, SIRT and CGLS, all on the same weighted problem.

    minimize ``sum over views i and seen rays of (A m - p)^2 / N_i``, ``N_i = sigma_i^2 / c_i``

over all fields on the layers of the support, the true direction of the beam in every view; c_i is the cosine between
the beam and the normal of the planes that views are resampled to, for a film ``cos(theta_i)``. Rays that a view did
not see have weight zero, so edges and masked pixels neither pull nor ring. Voxels outside the field of view, in
the margin, are unknowns like all others.

Without a stop rule least squares ends in fitting noise. The discrepancy principle stops once the weighted residual
is as large as the noise alone makes it: `Problem.chi2` at 1.

Sources: Kaczmarz (1937) in blocks of one view; Gilbert, J. Theor. Biol. 36, 105 (1972) for SIRT, here with the row
    and column sums of SART; Hestenes and Stiefel (1952), in the form of Björck for CGLS; Morozov (1966) for the
    stop rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.views import View

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Callback = Callable[[int, Float32, float], bool | None]
"""Called after every iteration with its number (from 1), the field, and chi2; returning True ends the iterations."""


class Projector(Protocol):
    """Ray sums and their transpose: `projector.ShearedProjector` of a film, `rays.RayProjector` of an isolated volume.

    voxel_nm: edge. z_nm: heights of the layers. obliquity_v: the cosines c_i, shape (views,). weight_vc: what a voxel's
    components count in a view, shape (views, components). path_nm: length of rays within the covered layers, along the
    planes' normal, broadcast against the views. of_views: the same for some views. field_shape: of the unknowns,
    for views of a shape.
    """

    @property
    def voxel_nm(self) -> float: ...  # noqa: D102
    @property
    def z_nm(self) -> Float64: ...  # noqa: D102
    @property
    def obliquity_v(self) -> Float64: ...  # noqa: D102
    @property
    def weight_vc(self) -> Float64: ...  # noqa: D102
    def field_shape(self, shape_ab: tuple[int, int], /) -> tuple[int, int, int, int]: ...  # noqa: D102
    def path_nm(self, coverage_z: Float32) -> Float32: ...  # noqa: D102
    def of_views(self, which: slice | npt.NDArray[np.intp], /) -> Self: ...  # noqa: D102
    def forward(  # noqa: D102
        self, field: Float32, /, out: Float32 | None = None, coverage_z: Float32 | None = None
    ) -> Float32: ...
    def adjoint(self, views: Float32, /, out: Float32 | None = None) -> Float32: ...  # noqa: D102


@dataclass(frozen=True)
class Problem:
    """Views, weights and support of one reconstruction.

    Args:
        projector: the ray sums.
        signal_vyx: the views, zero where unseen.
        weight_vyx: square root of the statistical weight, ``sqrt(c_i) / sigma``, zero where unseen.
        coverage_z: how much of each layer is inside the support, 0 to 1: a voxel's field is spread over that part
            of it.
    """

    projector: Projector
    signal_vyx: Float32
    weight_vyx: Float32
    coverage_z: Float32

    @classmethod
    def of(cls, views: Sequence[View], projector: Projector, coverage_z: Float64) -> Problem:
        """Assemble the problem; the projector is of the same views and of the layers covered."""
        scale = np.sqrt(projector.obliquity_v) / np.array([v.std_signal for v in views])
        weight = np.stack([v.seen_yx for v in views]).astype(np.float32)
        weight *= scale[:, None, None].astype(np.float32)
        signal = np.stack([v.signal_yx for v in views])
        return cls(projector, signal, weight, coverage_z.astype(np.float32))

    @property
    def field_shape(self) -> tuple[int, int, int, int]:
        """Shape [component, z, y, x] of the unknowns."""
        _, a, b = self.signal_vyx.shape
        return self.projector.field_shape((a, b))

    @cached_property
    def measured_pixels(self) -> float:
        """How many independent pixels are behind the weights: the stretched view has 1 / c_i times more."""
        seen_v = np.count_nonzero(self.weight_vyx, axis=(1, 2))
        return float(np.sum(seen_v * self.projector.obliquity_v))

    def of_views(self, which: slice | npt.NDArray[np.intp]) -> Problem:
        """Return the problem that some of the views pose."""
        return replace(
            self,
            projector=self.projector.of_views(which),
            signal_vyx=self.signal_vyx[which],
            weight_vyx=self.weight_vyx[which],
        )

    def forward(self, field: Float32, out: Float32 | None = None) -> Float32:
        """Ray sums in units of the signal, into `out` if it is given."""
        return self.projector.forward(field, out=out, coverage_z=self.coverage_z)

    def adjoint(self, views: Float32, out: Float32 | None = None) -> Float32:
        """The transpose of `forward`, into `out` if it is given."""
        field = self.projector.adjoint(views, out=out)
        if not np.all(self.coverage_z == 1):
            field *= self.coverage_z[:, None, None]
        return field

    def residual(self, field: Float32) -> Float32:
        """Weighted ``(p - A m) / sqrt(N)``."""
        return self.weight_vyx * (self.signal_vyx - self.forward(field))

    def chi2(self, weighted_residual: Float32) -> float:
        """Mean squared residual per measured pixel in units of the noise: 1 where only noise is left."""
        return dot(weighted_residual, weighted_residual) / self.measured_pixels


@numba.njit(parallel=True, fastmath={"reassoc", "contract", "nsz"}, cache=True)
def _sums(a, b, out):  # type: ignore[no-untyped-def]
    for row in numba.prange(a.shape[0]):
        total = np.float32(0)
        for x in range(a.shape[1]):
            total += a[row, x] * b[row, x]
        out[row] = total


@numba.njit(parallel=True, fastmath={"reassoc", "contract", "nsz"}, cache=True)
def _weighted(weight, q, sums):  # type: ignore[no-untyped-def]
    """``q = w q``, and the sums of its squares."""
    for row in numba.prange(q.shape[0]):
        total = np.float32(0)
        for x in range(q.shape[1]):
            value = weight[row, x] * q[row, x]
            q[row, x] = value
            total += value * value
        sums[row] = total


@numba.njit(parallel=True, fastmath={"reassoc", "contract", "nsz"}, cache=True)
def _less(step, weight, r, q, sums):  # type: ignore[no-untyped-def]
    """``r = r - step q``, the sums of its squares, and ``q = w r``."""
    for row in numba.prange(r.shape[0]):
        total = np.float32(0)
        for x in range(r.shape[1]):
            value = r[row, x] - step * q[row, x]
            r[row, x] = value
            q[row, x] = weight[row, x] * value
            total += value * value
        sums[row] = total


@numba.njit(parallel=True, fastmath={"contract"}, cache=True)
def _add(factor, a, total):  # type: ignore[no-untyped-def]
    """``total = total + factor a``."""
    for i in numba.prange(a.shape[0]):
        total[i] += factor * a[i]


@numba.njit(parallel=True, fastmath={"contract"}, cache=True)
def _scale_and_add(factor, a, total):  # type: ignore[no-untyped-def]
    """``total = factor total + a``."""
    for i in numba.prange(a.shape[0]):
        total[i] = factor * total[i] + a[i]


def dot(a: Float32, b: Float32) -> float:
    """Inner product of contiguous stacks: float32 along the last axis, float64 over all others."""
    sums = np.empty(a.size // a.shape[-1])
    _sums(a.reshape(len(sums), -1), b.reshape(len(sums), -1), sums)
    return float(sums.sum())


def _start(problem: Problem, initial: Float32 | None) -> Float32:
    return (
        np.zeros(problem.field_shape, np.float32)
        if initial is None
        else initial.astype(np.float32, copy=True)
    )


def cgls(
    problem: Problem,
    *,
    iterations: int = 40,
    initial: Float32 | None = None,
    stop_chi2: float | None = 1.0,
    callback: Callback | None = None,
) -> Float32:
    """Conjugate gradients on the normal equations.

    Args:
        problem: what to solve.
        iterations: at most so many.
        initial: field to start from, shape `Problem.field_shape`; zero otherwise.
        stop_chi2: end once `Problem.chi2` is at most this; None: never.
        callback: see `Callback`.

    Returns:
        Field in signal units per nm, float32 [component, z, y, x].
    """
    x = _start(problem, initial)
    weight = problem.weight_vyx
    r = problem.residual(x) if initial is not None else weight * problem.signal_vyx
    s = problem.adjoint(weight * r)
    d, q = s.copy(), np.empty_like(r)
    rows = r.shape[0] * r.shape[1]
    sums = np.empty(rows)
    q_rows, r_rows, weight_rows = (each.reshape(rows, -1) for each in (q, r, weight))
    gamma = dot(s, s)
    for number in range(1, iterations + 1):
        if gamma == 0:
            break
        problem.forward(d, out=q)
        _weighted(weight_rows, q_rows, sums)
        step = np.float32(gamma / sums.sum())
        _add(step, d.reshape(-1), x.reshape(-1))
        _less(step, weight_rows, r_rows, q_rows, sums)
        chi2 = float(sums.sum()) / problem.measured_pixels
        if (callback is not None and callback(number, x, chi2)) or (
            stop_chi2 is not None and chi2 <= stop_chi2
        ):
            break
        problem.adjoint(q, out=s)
        gamma, before = dot(s, s), gamma
        _scale_and_add(np.float32(gamma / before), s.reshape(-1), d.reshape(-1))
    return x


def sirt(
    problem: Problem,
    *,
    iterations: int = 100,
    initial: Float32 | None = None,
    stop_chi2: float | None = 1.0,
    callback: Callback | None = None,
) -> Float32:
    """Simultaneous iterative reconstruction, ``m += C A^T R (p - A m)``; arguments as for `cgls`.

    R and C are the inverse row and column sums of ``|A|``: for a view of weights w a row sums to ``sum_c |w_c|`` times
    the path in the covered layers, a column of component c to ``sum_i |w_ic| dz coverage``.
    """
    x = _start(problem, initial)
    projector = problem.projector
    w_vc = np.abs(projector.weight_vc)
    rows = w_vc.sum(axis=1)[:, None, None] * projector.path_nm(problem.coverage_z)
    used = (problem.weight_vyx > 0) & (rows > 0)
    inverse_rows = np.divide(1, rows, where=used, out=np.zeros(used.shape, np.float32))
    columns = (
        np.maximum(w_vc.sum(axis=0), 1e-3 * w_vc.sum())[:, None]
        * projector.voxel_nm
        * problem.coverage_z[None]
    )
    inverse_columns = (1 / columns).astype(np.float32)[:, :, None, None]
    for number in range(1, iterations + 1):
        difference = problem.signal_vyx - problem.forward(x)
        chi2 = problem.chi2(problem.weight_vyx * difference)
        if stop_chi2 is not None and chi2 <= stop_chi2:
            break
        difference *= inverse_rows
        x += inverse_columns * problem.adjoint(difference)
        if callback is not None and callback(number, x, chi2):
            break
    return x


def art(
    problem: Problem,
    *,
    iterations: int = 15,
    relaxation: float = 0.4,
    initial: Float32 | None = None,
    stop_chi2: float | None = 1.0,
    callback: Callback | None = None,
) -> Float32:
    """Algebraic reconstruction, one view after the other as in the publication; arguments as for `cgls`.

    For each view ``m += relaxation * A_i^T (p_i - A_i m) / (A_i A_i^T)``: rays of one view share hardly a voxel, so
    the matrix in the denominator is its diagonal, ``|w_i|^2 dz`` times the path weighted with the coverage's square.
    Views follow each other in an order that keeps neighbours far apart (steps of the golden section), so that each one
    brings something new.
    """
    x = _start(problem, initial)
    projector = problem.projector
    n = len(projector.obliquity_v)
    singles = [projector.of_views(slice(i, i + 1)) for i in range(n)]
    path_nm = projector.path_nm(problem.coverage_z**2)
    w2_v = np.sum(projector.weight_vc**2, axis=1)
    coverage = problem.coverage_z[:, None, None]
    order = np.argsort((np.arange(n) * 0.6180339887498949) % 1.0, kind="stable")
    for number in range(1, iterations + 1):
        total = 0.0
        for i in order:
            difference = problem.signal_vyx[i : i + 1] - singles[i].forward(
                x, coverage_z=problem.coverage_z
            )
            weighted = difference * problem.weight_vyx[i : i + 1]
            total += dot(weighted, weighted)
            path = path_nm[i % len(path_nm) : i % len(path_nm) + 1]
            scale = np.float32(projector.voxel_nm * w2_v[i] / relaxation) * path
            used = (problem.weight_vyx[i : i + 1] > 0) & (path > 0)
            difference = np.divide(difference, scale, where=used, out=np.zeros_like(difference))
            x += coverage * singles[i].adjoint(difference)
        chi2 = total / problem.measured_pixels
        if (callback is not None and callback(number, x, chi2)) or (
            stop_chi2 is not None and chi2 <= stop_chi2
        ):
            break
    return x


ITERATIONS = {"art": 15, "sirt": 100, "cgls": 40}
"""The methods that iterate, and at most how often."""

_SOLVERS = {"art": art, "sirt": sirt, "cgls": cgls}


def iterate(
    method: str,
    problem: Problem,
    iterations: int | None = None,
    initial: Float32 | None = None,
    callback: Callback | None = None,
) -> Float32:
    """Solve by one of `ITERATIONS`, as often as it says there, or at most `iterations` times."""
    return _SOLVERS[method](
        problem,
        iterations=iterations or ITERATIONS[method],
        initial=initial,
        callback=callback,
    )

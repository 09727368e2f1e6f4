"""Iterative solvers in real space: ART as in the publication, SIRT and CGLS, all on the same weighted problem.

    minimize ``sum over views i and seen rays of (A m - p)^2 / N_i``, ``N_i = sigma_i^2 / cos(theta_i)``

over all vector fields on the layers of the support, the true direction of the beam in every view. Rays that a view did
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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.projector import ShearedProjector
from mistral_txm.reconstruction.views import View

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Callback = Callable[[int, Float32, float], bool | None]
"""Called after every iteration with its number (from 1), the field, and chi2; returning True ends the iterations."""


@dataclass(frozen=True)
class Problem:
    """Views, weights and support of one reconstruction.

    Args:
        projector: the ray sums over the support's layers.
        signal_vyx: the views, zero where unseen.
        weight_vyx: square root of the statistical weight, ``sqrt(cos(theta)) / sigma``, zero where unseen.
        coverage_z: how much of each layer is inside the support, 0 to 1: a voxel's field is spread over that part
            of it.
    """

    projector: ShearedProjector
    signal_vyx: Float32
    weight_vyx: Float32
    coverage_z: Float32

    @classmethod
    def of(
        cls, views: Sequence[View], z_nm: Float64, coverage_z: Float64, voxel_nm: float
    ) -> Problem:
        """Assemble the problem; layers of coverage 0 must be left out."""
        theta = np.array([v.theta_deg for v in views])
        scale = np.sqrt(np.cos(np.deg2rad(theta))) / np.array([v.std_signal for v in views])
        weight = np.stack([v.seen_yx for v in views]).astype(np.float32)
        weight *= scale[:, None, None].astype(np.float32)
        return cls(
            ShearedProjector(theta, np.array([v.phi_deg for v in views]), z_nm, voxel_nm),
            np.stack([v.signal_yx for v in views]),
            weight,
            coverage_z.astype(np.float32),
        )

    @property
    def field_shape(self) -> tuple[int, int, int, int]:
        """Shape (3, z, y, x) of the unknowns."""
        return (3, len(self.coverage_z), *self.signal_vyx.shape[1:])

    @property
    def measured_pixels(self) -> float:
        """How many independent pixels are behind the weights: the stretched view has 1 / cos(theta) times more."""
        cos = np.cos(np.deg2rad(self.projector.theta_deg_v))
        return float(np.sum(np.count_nonzero(self.weight_vyx, axis=(1, 2)) * cos))

    def forward(self, field: Float32) -> Float32:
        """Ray sums in units of the signal."""
        return self.projector.forward(field * self.coverage_z[:, None, None])

    def adjoint(self, views: Float32) -> Float32:
        """The transpose of `forward`."""
        field = self.projector.adjoint(views)
        field *= self.coverage_z[:, None, None]
        return field

    def residual(self, field: Float32) -> Float32:
        """Weighted ``(p - A m) / sqrt(N)``."""
        return self.weight_vyx * (self.signal_vyx - self.forward(field))

    def chi2(self, weighted_residual: Float32) -> float:
        """Mean squared residual per measured pixel in units of the noise: 1 where only noise is left."""
        return _dot(weighted_residual, weighted_residual) / self.measured_pixels


def _dot(a: Float32, b: Float32) -> float:
    """Inner product with a float64 sum over float32 partial sums."""
    return float(np.sum(np.einsum("k...x,k...x->k...", a, b), dtype=np.float64))


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
        Field in signal units per nm, float32 [3, z, y, x].
    """
    x = _start(problem, initial)
    r = problem.residual(x) if initial is not None else problem.weight_vyx * problem.signal_vyx
    s = problem.adjoint(problem.weight_vyx * r)
    d = s.copy()
    gamma = _dot(s, s)
    for number in range(1, iterations + 1):
        if gamma == 0:
            break
        q = problem.weight_vyx * problem.forward(d)
        step = np.float32(gamma / _dot(q, q))
        x += step * d
        r -= step * q
        chi2 = problem.chi2(r)
        if (callback is not None and callback(number, x, chi2)) or (
            stop_chi2 is not None and chi2 <= stop_chi2
        ):
            break
        s = problem.adjoint(problem.weight_vyx * r)
        gamma, before = _dot(s, s), gamma
        d *= np.float32(gamma / before)
        d += s
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

    R and C are the inverse row and column sums of ``|A|``: for a view of tilt theta a row sums to
    ``(|t cos(phi)| + |t sin(phi)| + 1) dz sum(coverage)``, a column of component c to ``sum_i |w_ic| dz coverage``.
    """
    x = _start(problem, initial)
    projector = problem.projector
    t = np.tan(np.deg2rad(projector.theta_deg_v))
    phi = np.deg2rad(projector.phi_deg_v)
    w_iv = np.abs(np.stack([t * np.cos(phi), t * np.sin(phi), np.ones_like(t)]))
    rows = w_iv.sum(axis=0) * projector.voxel_nm * problem.coverage_z.sum(dtype=np.float64)
    inverse_rows = np.where(problem.weight_vyx > 0, (1 / rows)[:, None, None], 0).astype(np.float32)
    columns = (
        np.maximum(w_iv.sum(axis=1), 1e-3 * w_iv.sum())[:, None]
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
    the matrix in the denominator is its diagonal, ``|w_i|^2 dz^2 sum(coverage^2)``. Views follow each other in an order
    that keeps neighbours far apart (steps of the golden section), so that each one brings something new.
    """
    x = _start(problem, initial)
    projector = problem.projector
    n = len(projector.theta_deg_v)
    singles = [
        ShearedProjector(
            projector.theta_deg_v[i : i + 1],
            projector.phi_deg_v[i : i + 1],
            projector.z_nm,
            projector.voxel_nm,
        )
        for i in range(n)
    ]
    norm = projector.voxel_nm**2 * float(np.sum(problem.coverage_z.astype(np.float64) ** 2))
    coverage = problem.coverage_z[:, None, None]
    order = np.argsort((np.arange(n) * 0.6180339887498949) % 1.0, kind="stable")
    for number in range(1, iterations + 1):
        total = 0.0
        for i in order:
            difference = problem.signal_vyx[i : i + 1] - singles[i].forward(x * coverage)
            weighted = difference * problem.weight_vyx[i : i + 1]
            total += _dot(weighted, weighted)
            difference *= problem.weight_vyx[i : i + 1] > 0
            w2 = 1 / np.cos(np.deg2rad(projector.theta_deg_v[i])) ** 2
            difference *= np.float32(relaxation / (norm * w2))
            x += coverage * singles[i].adjoint(difference)
        chi2 = total / problem.measured_pixels
        if (callback is not None and callback(number, x, chi2)) or (
            stop_chi2 is not None and chi2 <= stop_chi2
        ):
            break
    return x

"""A film that goes on beyond the field of view: its views solved by any method, and put on the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.direct import Response, ViewToCome, solve_direct
from mistral_txm.reconstruction.extension import CoarseField
from mistral_txm.reconstruction.geometry import Grid
from mistral_txm.reconstruction.layers import CENTRE_INSIDE, Support, support_of
from mistral_txm.reconstruction.projector import ShearedProjector, seen_ends
from mistral_txm.reconstruction.solvers import Callback, Problem, iterate
from mistral_txm.reconstruction.unit_norm import solve_unit_norm
from mistral_txm.reconstruction.views import COARSE, Domain, View
from mistral_txm.reconstruction.workers import Spread, in_process

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Solved:
    """A field on the grid, in signal per nm, float32 [component, z, y, x], and what belongs to it.

    data_fraction, std (in signal per nm): as in `reconstruct.Reconstruction`. residual_rms_v, noise_v: per view.
    delta_per_nm: what was given or found. continuation and response: for the view to come (module `anticipation`).
    """

    field: Float32
    data_fraction: Float32
    residual_rms_v: Float64
    noise_v: Float64
    delta_per_nm: float | None
    std: Float32 | None = None
    continuation: CoarseField | None = None
    response: Response | None = None


@dataclass(frozen=True)
class How:
    """What to do: the options of `reconstruct.reconstruct` that solvers need; initial in signal per nm on the grid."""

    method: str
    prior: str
    delta_per_nm: float | None = None
    iterations: int | None = None
    initial: Float32 | None = None
    callback: Callback | None = None
    spread: Spread = in_process
    ahead: ViewToCome | None = None


def sheared_problem(
    views: Sequence[View], support: Support, voxel_nm: float, *, scalar: bool = False
) -> Problem:
    """The problem that the views of a film pose; rays before the first and after the last seen one are left out."""
    projector = ShearedProjector(
        np.array([v.theta_deg for v in views]),
        np.array([v.phi_deg for v in views]),
        support.z_nm,
        voxel_nm,
        scalar,
        seen_ends(np.stack([v.seen_yx for v in views])),
    )
    return Problem.of(views, projector, support.coverage_z)


def residual_rms(problem: Problem, field: Float32) -> Float64:
    """Root mean square of measured minus projected signal over the seen pixels of each view."""
    difference = problem.signal_vyx - problem.forward(field)
    difference *= problem.weight_vyx > 0
    squares = np.einsum("vyx,vyx->v", difference, difference, dtype=np.float64)
    return np.asarray(np.sqrt(squares / np.count_nonzero(problem.weight_vyx, axis=(1, 2))))


def solve_film(
    views: Sequence[View],
    grid: Grid,
    domain: Domain,
    coverage_z: Float64,
    how: How,
) -> Solved:
    """Solve the views of a film on the grid.

    Args:
        views: in the sheared frame, on the domain.
        grid: the volume.
        domain: of the views.
        coverage_z: part of each layer that may be magnetic.
        how: method and prior.
    """
    support, kept = support_of(grid, coverage_z)
    continuation = CoarseField.of(views, support, grid.voxel_nm)
    direct = solve_direct(
        views,
        continuation.continued(views),
        support,
        grid.voxel_nm,
        fraction_only=how.method != "direct",
        ahead=how.ahead,
        spread=how.spread,
    )
    delta_per_nm = how.delta_per_nm
    if direct.field is not None and how.prior != "norm":
        solution, residual = direct.field, direct.residual_rms_v
    else:
        problem = sheared_problem(views, support, grid.voxel_nm)
        if direct.field is not None:
            solution = direct.field
        else:
            start = None if how.initial is None else on_domain(how.initial[:, kept], domain)
            solution = iterate(how.method, problem, how.iterations, start, how.callback)
        if how.prior == "norm":
            unit = solve_unit_norm(problem, solution, delta_per_nm=delta_per_nm)
            solution, delta_per_nm = unit.field, unit.delta_per_nm
        residual = residual_rms(problem, solution)
    field = on_grid(solution, grid, domain, coverage_z)
    inside_z = support.coverage_z > CENTRE_INSIDE
    fraction = np.zeros(grid.shape_zyx, np.float32)
    fraction[kept] = np.where(inside_z, direct.data_fraction_z, 0)[:, None, None]
    fraction *= _seen_fraction(views, grid, domain)
    noise_v = np.array([v.std_signal for v in views])
    std: Float32 | None = None
    if how.method == "direct" and how.prior != "norm":
        variance = np.float32(direct.prior.variance) * (1 - fraction[kept])
        std = np.zeros_like(fraction)
        std[kept] = np.sqrt(variance) * inside_z[:, None, None]
    return Solved(
        field, fraction, residual, noise_v, delta_per_nm, std, continuation, direct.response
    )


def on_grid(solution: Float32, grid: Grid, domain: Domain, coverage_z: Float64) -> Float32:
    """A field of the magnetic layers on the domain, put on the grid: 0 where a voxel's centre is in no layer."""
    support, kept = support_of(grid, coverage_z)
    inside_z = support.coverage_z > CENTRE_INSIDE
    field = np.zeros((3, *grid.shape_zyx), np.float32)
    field[:, kept] = domain.crop(solution, grid) * inside_z[:, None, None]
    return field


def on_domain(field: Float32, domain: Domain) -> Float32:
    """A field of the grid continued over the padded domain by its values at the edge."""
    (oy, ox), (ny, nx) = domain.offset_yx, domain.shape_yx
    margins = ((0, 0), (0, 0), (oy, ny - oy - field.shape[2]), (ox, nx - ox - field.shape[3]))
    return np.pad(field, margins, mode="edge")


def _seen_fraction(views: Sequence[View], grid: Grid, domain: Domain) -> Float32:
    """Part of the views that see each voxel, from a backprojection of the seen pixels on coarse voxels."""
    factor, n = COARSE, len(views)
    ny, nx = domain.shape_yx
    coarse = np.stack(
        [
            v.seen_yx.reshape(ny // factor, factor, nx // factor, factor).mean(
                axis=(1, 3), dtype=np.float32
            )
            for v in views
        ]
    )
    depth = -(-grid.shape_zyx[0] // factor)
    z_nm = np.asarray(
        grid.voxel_nm * factor * (np.arange(depth) - (depth - 1) / 2), dtype=np.float64
    )
    projector = ShearedProjector(
        np.array([v.theta_deg for v in views]),
        np.array([v.phi_deg for v in views]),
        z_nm,
        grid.voxel_nm * factor,
    )
    counted = projector.adjoint(coarse)[2] / np.float32(grid.voxel_nm * factor * n)
    fine = np.repeat(np.repeat(np.repeat(counted, factor, 0), factor, 1), factor, 2)
    first = (fine.shape[0] - grid.shape_zyx[0]) // 2
    return np.clip(domain.crop(fine[first : first + grid.shape_zyx[0]], grid), 0, 1)

"""Views continued beyond the field of view by what a field that all seen rays agree on projects to.

The views end, the film does not, and a Fourier transform needs the whole domain. The problem is first solved with
unseen rays left out, by conjugate gradients in real space on coarser voxels and few iterations, and the unseen rays
are given what that field projects to: a continuation that all views agree on. (Mirrored or tapered views disagree
with each other, and that disagreement is amplified all over the volume: the vector error was 30 times larger.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.layers import Support
from mistral_txm.reconstruction.projector import ShearedProjector
from mistral_txm.reconstruction.solvers import Problem, cgls
from mistral_txm.reconstruction.views import View

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def extend_views(
    views: Sequence[View],
    support: Support,
    voxel_nm: float,
    *,
    factor: int,
    iterations: int,
    initial: Float32 | None = None,
) -> tuple[Float32, Float32]:
    """Give unseen rays the value that a field agreeing with all seen ones projects to.

    Args:
        views: resampled views; their domain is divisible by `factor`.
        support: the layers.
        voxel_nm: voxel of the domain.
        factor: the field is found on a domain binned so many times.
        iterations: of conjugate gradients.
        initial: the coarse field of an earlier call, to start from.

    Returns:
        Extended views float32 [view, y, x], and the coarse field.
    """
    signal = np.stack([v.signal_yx for v in views])
    seen = np.stack([v.seen_yx for v in views])
    n, ny, nx = signal.shape
    blocks = (n, ny // factor, factor, nx // factor, factor)
    full = seen.reshape(blocks).all(axis=(2, 4))
    coarse = np.where(full, signal.reshape(blocks).mean(axis=(2, 4)), 0).astype(np.float32)
    z_nm, coverage = _binned_layers(support, voxel_nm, factor)
    projector = ShearedProjector(
        np.array([v.theta_deg for v in views]),
        np.array([v.phi_deg for v in views]),
        z_nm,
        voxel_nm * factor,
    )
    scale = np.sqrt(projector.obliquity_v) / np.array([v.std_signal for v in views])
    problem = Problem(
        projector,
        coarse,
        full * scale[:, None, None].astype(np.float32),
        coverage.astype(np.float32),
    )
    field = cgls(problem, iterations=iterations, initial=initial, stop_chi2=None)
    extended = _refine(problem.forward(field), factor)
    np.copyto(extended, signal, where=seen)
    return extended, field


def _binned_layers(support: Support, voxel_nm: float, factor: int) -> tuple[Float64, Float64]:
    """Layers `factor` times thicker that cover the same support."""
    thick = voxel_nm * factor
    index = np.floor((support.z_nm - support.centre_nm) / thick + 0.5 * (1 + 1e-9)).astype(int)
    kept = np.unique(index)
    coverage = np.array([support.coverage_z[index == k].sum() / factor for k in kept])
    centre = np.array(
        [np.average(support.z_nm[index == k], weights=support.coverage_z[index == k]) for k in kept]
    )
    return centre, coverage


@numba.njit(parallel=True, cache=True)
def _refine_kernel(coarse, factor, out):  # type: ignore[no-untyped-def]
    n, ny, nx = out.shape
    _, my, mx = coarse.shape
    for v in numba.prange(n):
        for y in range(ny):
            fy = (y + 0.5) / factor - 0.5
            y0 = int(np.floor(fy))
            fy -= y0
            for x in range(nx):
                fx = (x + 0.5) / factor - 0.5
                x0 = int(np.floor(fx))
                fx -= x0
                out[v, y, x] = (1 - fy) * (
                    (1 - fx) * coarse[v, y0 % my, x0 % mx] + fx * coarse[v, y0 % my, (x0 + 1) % mx]
                ) + fy * (
                    (1 - fx) * coarse[v, (y0 + 1) % my, x0 % mx]
                    + fx * coarse[v, (y0 + 1) % my, (x0 + 1) % mx]
                )


def _refine(coarse_vyx: Float32, factor: int) -> Float32:
    """Linear interpolation to a grid `factor` times finer, periodic."""
    n, ny, nx = coarse_vyx.shape
    out = np.empty((n, ny * factor, nx * factor), np.float32)
    _refine_kernel(coarse_vyx, factor, out)
    return out

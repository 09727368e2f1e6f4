"""Views continued beyond the field of view by what a field that all seen rays agree on projects to.

The views end, the film does not, and a Fourier transform needs the whole domain. The problem is first solved with
unseen rays left out, by conjugate gradients in real space on coarser voxels and few iterations, and the unseen rays
are given what that field projects to: a continuation that all views agree on. (Mirrored or tapered views disagree
with each other, and that disagreement is amplified all over the volume: the vector error was 30 times larger.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.layers import Support
from mistral_txm.reconstruction.projector import ShearedProjector, seen_ends
from mistral_txm.reconstruction.solvers import Problem, cgls
from mistral_txm.reconstruction.views import COARSE, View

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


ITERATIONS = 14
"""Conjugate gradient steps."""


@dataclass(frozen=True)
class CoarseField:
    """A field that all seen rays agree on, on wider voxels (`views.COARSE`): float32 [3, z, y, x], signal per nm."""

    field: Float32
    z_nm: Float64
    coverage_z: Float32
    voxel_nm: float

    @classmethod
    def of(cls, views: Sequence[View], support: Support, voxel_nm: float) -> CoarseField:
        """Solve the binned views with unseen rays left out.

        Args:
            views: resampled views; their domain is divisible by `views.COARSE`.
            support: the layers.
            voxel_nm: voxel of the domain.
        """
        ny, nx = views[0].signal_yx.shape
        coarse = np.empty((len(views), ny // COARSE, nx // COARSE), np.float32)
        full = np.empty(coarse.shape, np.float32)
        for number, view in enumerate(views):
            _bin(view.signal_yx, view.seen_yx, COARSE, coarse[number], full[number])
        z_nm, coverage = _binned_layers(support, voxel_nm, COARSE)
        covered = coverage.astype(np.float32)
        projector = _projector(views, z_nm, voxel_nm * COARSE)
        scale = np.sqrt(projector.obliquity_v) / np.array([v.std_signal for v in views])
        full *= scale[:, None, None].astype(np.float32)
        measured = replace(projector, ends_vy2=seen_ends(full > 0))
        problem = Problem(measured, coarse, full, covered)
        field = cgls(problem, iterations=ITERATIONS, stop_chi2=None)
        return cls(field, z_nm, covered, voxel_nm * COARSE)

    def continued(self, views: Sequence[View]) -> Float32:
        """Give unseen rays of views the value that the field projects to, float32 [view, y, x]."""
        projector = _projector(views, self.z_nm, self.voxel_nm)
        projected = projector.forward(self.field, coverage_z=self.coverage_z)
        extended = np.empty((len(views), *views[0].signal_yx.shape), np.float32)
        for number, view in enumerate(views):
            _continue(view.signal_yx, view.seen_yx, projected[number], COARSE, extended[number])
        return extended


def extend_views(views: Sequence[View], support: Support, voxel_nm: float) -> Float32:
    """Give unseen rays the value that a field agreeing with all seen ones projects to.

    Arguments as those of `CoarseField.of`; returns the extended views, float32 [view, y, x].
    """
    return CoarseField.of(views, support, voxel_nm).continued(views)


def _projector(views: Sequence[View], z_nm: Float64, voxel_nm: float) -> ShearedProjector:
    theta_deg, phi_deg = np.array([(v.theta_deg, v.phi_deg) for v in views]).T
    return ShearedProjector(theta_deg, phi_deg, z_nm, voxel_nm)


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
def _bin(signal_yx, seen_yx, factor, mean, full):  # type: ignore[no-untyped-def]
    """Mean of squares that are seen all over (full is 1 there, else both are 0)."""
    for y in numba.prange(mean.shape[0]):
        for x in range(mean.shape[1]):
            total = np.float32(0)
            whole = True
            for j in range(y * factor, (y + 1) * factor):
                for i in range(x * factor, (x + 1) * factor):
                    total += signal_yx[j, i]
                    whole &= seen_yx[j, i]
            full[y, x] = 1 if whole else 0
            mean[y, x] = total / factor**2 if whole else 0


@numba.njit(parallel=True, cache=True)
def _continue(signal_yx, seen_yx, coarse, factor, out):  # type: ignore[no-untyped-def]
    """The signal where it was seen, elsewhere the coarse one by linear interpolation, periodic."""
    ny, nx = out.shape
    my, mx = coarse.shape
    for y in numba.prange(ny):
        fy = (y + 0.5) / factor - 0.5
        y0 = int(np.floor(fy))
        fy = np.float32(fy - y0)
        # from one column before the first to one after the last
        line = np.empty(mx + 2, np.float32)
        for k in range(mx + 2):
            x0 = (k - 1) % mx
            line[k] = (1 - fy) * coarse[y0 % my, x0] + fy * coarse[(y0 + 1) % my, x0]
        for x in range(nx):
            if seen_yx[y, x]:
                out[y, x] = signal_yx[y, x]
            else:
                fx = (x + np.float32(0.5)) / np.float32(factor) + np.float32(0.5)
                x0 = int(fx)
                fx -= x0
                out[y, x] = (1 - fx) * line[x0] + fx * line[x0 + 1]

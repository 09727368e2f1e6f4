"""Views of an isolated structure, resampled once to the planes of `rays.RayProjector`, from any direction.

A film goes on beyond the field of view, and its views must not see along it (module `views`). Of an isolated
structure (a disc, a pillar) nothing lies outside the volume; it may be turned fully round, and mounted at any angle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from mistral_txm.reconstruction.film import How, Solved, residual_rms
from mistral_txm.reconstruction.geometry import Grid, InputError
from mistral_txm.reconstruction.layers import CENTRE_INSIDE
from mistral_txm.reconstruction.rays import RayProjector, plane_axes, plane_shape, principal_axis
from mistral_txm.reconstruction.solvers import Problem, iterate
from mistral_txm.reconstruction.tilt_series import TiltSeries, checked
from mistral_txm.reconstruction.views import View, on_plane, view_name

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

PROBE_VOXELS = 2.0
"""Smoothness of the random field that tells how much of a field comes back."""


def isolated_problem(
    series: Sequence[TiltSeries], grid: Grid, coverage_z: Float64, *, scalar: bool = False
) -> tuple[list[View], Problem]:
    """All views of all series on planes of the volume, and the problem that they pose.

    Args:
        series: tilts of any size.
        grid: the volume, outside of which there is nothing.
        coverage_z: how much of each layer may hold something, shape (nz,).
        scalar: whether a number per voxel is looked for instead of a vector.

    Raises:
        InputError: for anything that cannot be used, in one line.
    """
    found = checked(series)
    k_vc = np.concatenate([one.mount.basis(one.theta_deg_t)[:, 2] for one in found])
    shape_ab = plane_shape(k_vc, grid.shape_zyx)
    projector = RayProjector(k_vc, grid.shape_zyx, grid.voxel_nm, shape_ab, scalar)
    meets = projector.path_nm(coverage_z.astype(np.float32)) > 0
    first_ab = [-(n - 1) / 2 for n in shape_ab]
    views: list[View] = []
    for one in found:
        for number, theta_deg in enumerate(one.theta_deg_t):
            where = view_name(one.mount, float(theta_deg))
            u, v, k = one.mount.basis(theta_deg)
            plane = list(plane_axes(principal_axis(k)))
            signal, seen, std = on_plane(
                where, one.signal_tvu[number], None if one.std_t is None else one.std_t[number], grid.voxel_nm,
                falls_vu=one.warp_tvu[number] @ np.array([v[plane], u[plane]]),
                shift_vu_nm=(float(one.shift_vu_nm_t[number, 0]), float(one.shift_vu_nm_t[number, 1])),
                first_ab=first_ab, shape_ab=shape_ab,
            )  # fmt: skip
            seen &= meets[len(views)]
            if not seen.any():
                raise InputError(
                    f"{where}: no pixel falls on the volume; check the shift and the grid"
                )
            signal[~seen] = 0
            views.append(View(one.mount.phi_deg, float(theta_deg), signal, seen, std))
    return views, Problem.of(views, projector, coverage_z)


def solve_isolated(
    series: Sequence[TiltSeries], grid: Grid, coverage_z: Float64, how: How
) -> Solved:
    """Solve the views of an isolated structure; raises as `isolated_problem`."""
    views, problem = isolated_problem(series, grid, coverage_z)
    solution = iterate(how.method, problem, how.iterations, how.initial, how.callback)
    inside_z = problem.coverage_z > CENTRE_INSIDE
    return Solved(
        solution * inside_z[:, None, None],
        _returned_fraction(problem, how) * inside_z[:, None, None],
        residual_rms(problem, solution),
        np.array([v.std_signal for v in views]),
        how.delta_per_nm,
    )


def _returned_fraction(problem: Problem, how: How) -> Float32:
    """How much of a field comes back through the same views and method, at each place, 0 to 1, shape (z, y, x).

    A random vector field z, smooth over `PROBE_VOXELS`, is projected, given the views' noise at the signal's own
    strength, and solved for: x. The fraction is ``<z . x> / <z . z>``, averages over a neighbourhood.
    """
    rng = np.random.default_rng(0)
    white = rng.standard_normal(problem.field_shape).astype(np.float32)
    probe = scipy.ndimage.gaussian_filter(white, (0, *3 * (PROBE_VOXELS,)), mode="constant")
    probe *= problem.coverage_z[:, None, None]
    projected = problem.forward(probe)
    seen = problem.weight_vyx > 0
    strength = np.linalg.norm(problem.signal_vyx[seen]) / np.linalg.norm(projected[seen])
    probe *= np.float32(strength)
    noise = rng.standard_normal(projected.shape).astype(np.float32)
    # The weights are the inverse standard deviation per pixel of the plane.
    noise *= np.divide(1, problem.weight_vyx, where=seen, out=np.zeros_like(projected))
    signal = np.where(seen, np.float32(strength) * projected + noise, 0).astype(np.float32)
    back = iterate(how.method, replace(problem, signal_vyx=signal), how.iterations)
    smooth = 3 * (2 * PROBE_VOXELS,)
    shared = scipy.ndimage.gaussian_filter(np.sum(probe * back, axis=0), smooth)
    whole = scipy.ndimage.gaussian_filter(np.sum(probe * probe, axis=0), smooth)
    least = np.float32(1e-6 * whole.max())
    return np.clip(shared / np.maximum(whole, least), 0, 1).astype(np.float32)

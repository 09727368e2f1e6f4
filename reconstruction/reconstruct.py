"""Tilt series in, magnetization out: the one call behind the command line, the live service and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.direct import Support, extend_views, solve_direct
from mistral_txm.reconstruction.geometry import MAX_TILT_DEG, Grid, InputError
from mistral_txm.reconstruction.projector import ShearedProjector
from mistral_txm.reconstruction.solvers import Callback, Problem, art, cgls, sirt
from mistral_txm.reconstruction.unit_norm import solve_unit_norm
from mistral_txm.reconstruction.views import (
    COARSE,
    Domain,
    TiltSeries,
    View,
    checked_views,
    padded_domain,
    resampled_views,
)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

METHODS = ("direct", "art", "sirt", "cgls")
PRIORS = ("none", "layers", "norm")

_EXTENSION_ITERATIONS = 20
_CENTRE_INSIDE = 0.5 - 1e-6


@dataclass(frozen=True)
class Reconstruction:
    """A magnetization volume and what is known about it.

    mx, my, mz: components float32 [z, y, x]; pure numbers where `delta_per_nm` is given or estimated, else the
    signal per length, delta times m, in 1/nm. A voxel holds the magnetization at its centre: zero where the centre lies
    outside the layers, undiminished where the layers cover a part of the voxel that holds the centre.

    data_fraction: float32 [z, y, x], how much of the voxel's value comes from the data: the part of the prior's
        variance that the views take away (1 all data, 0 all prior; module `direct`), times the part of the views
        that see the voxel. It is that of the Gaussian model with the same support and noise, for every method; 0
        outside the support.

    residual_rms_per_view: root mean square of measured minus projected signal over the pixels seen, in the order of the
    series and their tilts. noise_per_view: standard deviation of a pixel's signal, given or estimated.

    delta_per_nm: by which the signal was divided; None if it was not. method, prior: what made the volume.
    """

    mx: Float32
    my: Float32
    mz: Float32
    data_fraction: Float32
    residual_rms_per_view: Float64
    noise_per_view: Float64
    delta_per_nm: float | None
    method: str
    prior: str
    grid: Grid

    @property
    def m_czyx(self) -> Float32:
        """The three components as one array, shape (3, z, y, x)."""
        return np.stack([self.mx, self.my, self.mz])


def layer_coverage(grid: Grid, layers_nm: Sequence[tuple[float, float]]) -> Float64:
    """Part of each voxel layer inside the magnetic layers, shape (nz,), 0 to 1.

    Raises:
        InputError: for layers that are empty, upside down, or outside the volume.

    >>> layer_coverage(Grid((4, 1, 1), 10.0), [(-20.0, -5.0)])
    array([1. , 0.5, 0. , 0. ])
    """
    if not len(layers_nm):
        raise InputError(
            "layers: none given, but the prior needs to know where the magnetic layers are; give e.g. -120:-40"
        )
    low, high = grid.z_nm - grid.voxel_nm / 2, grid.z_nm + grid.voxel_nm / 2
    coverage = np.zeros(len(low))
    for z0, z1 in layers_nm:
        if not (np.isfinite(z0) and np.isfinite(z1) and z0 < z1):
            raise InputError(
                f"layers: {z0}:{z1} is not a layer; give lower and upper border in nm from the film's middle"
            )
        overlap = np.clip(np.minimum(high, z1) - np.maximum(low, z0), 0, None)
        if not overlap.any():
            raise InputError(
                f"layers: {z0:g}:{z1:g} nm lies outside the volume, {low[0]:g} to {high[-1]:g} nm; give more depth"
            )
        coverage += overlap / grid.voxel_nm
    if coverage.max() > 1 + 1e-9:
        raise InputError(f"layers: {list(layers_nm)} overlap each other; give each one once")
    return np.minimum(coverage, 1)


def _support(
    grid: Grid, prior: str, layers_nm: Sequence[tuple[float, float]]
) -> tuple[Support, npt.NDArray[np.intp]]:
    """The support, and which layers of the grid it holds."""
    coverage = np.ones(grid.shape_zyx[0]) if prior == "none" else layer_coverage(grid, layers_nm)
    kept = np.flatnonzero(coverage > 1e-6)
    return Support(grid.z_nm[kept], coverage[kept]), kept


def _check_options(
    method: str, prior: str, layers_nm: Sequence[tuple[float, float]], delta_per_nm: float | None
) -> None:
    if method not in METHODS:
        raise InputError(f"method: {method!r} is unknown; choose one of {', '.join(METHODS)}")
    if prior not in PRIORS:
        raise InputError(f"prior: {prior!r} is unknown; choose one of {', '.join(PRIORS)}")
    if prior == "none" and len(layers_nm):
        raise InputError(
            "layers: given, but the prior 'none' does not use them; choose the prior 'layers' or 'norm'"
        )
    if delta_per_nm is not None and not (np.isfinite(delta_per_nm) and delta_per_nm > 0):
        raise InputError(
            f"delta: {delta_per_nm} 1/nm is not a positive number; leave it out if it is unknown"
        )


def _seen_fraction(views: Sequence[View], grid: Grid, domain: Domain) -> Float32:
    """Part of the views that see each voxel, from a backprojection of the seen pixels on coarse voxels."""
    factor = COARSE
    seen = np.stack([v.seen_yx for v in views]).astype(np.float32)
    n, ny, nx = seen.shape
    coarse = seen.reshape(n, ny // factor, factor, nx // factor, factor).mean(axis=(2, 4))
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


def _assemble(
    views: Sequence[View],
    problem: Problem,
    solution: Float32,
    fraction_z: Float64,
    grid: Grid,
    domain: Domain,
    kept: npt.NDArray[np.intp],
    delta_per_nm: float | None,
    method: str,
    prior: str,
) -> Reconstruction:
    """Measure the residuals, cut the field of view, spread the layers over the grid."""
    difference = problem.signal_vyx - problem.forward(solution)
    difference *= problem.weight_vyx > 0
    squares = np.einsum("vyx,vyx->v", difference, difference, dtype=np.float64)
    residual = np.sqrt(squares / np.count_nonzero(problem.weight_vyx, axis=(1, 2)))
    volume = np.zeros((3, *grid.shape_zyx), np.float32)
    scale = (problem.coverage_z > _CENTRE_INSIDE) / np.float32(
        1.0 if delta_per_nm is None else delta_per_nm
    )
    volume[:, kept] = domain.crop(solution, grid) * scale[:, None, None].astype(np.float32)
    if not np.isfinite(volume).all():
        raise ArithmeticError(
            f"reconstruction: the {method} solution is not finite; please report this with the input"
        )
    fraction = np.zeros(grid.shape_zyx, np.float32)
    fraction[kept] = np.where(problem.coverage_z > _CENTRE_INSIDE, fraction_z, 0)[:, None, None]
    fraction *= _seen_fraction(views, grid, domain)
    return Reconstruction(
        volume[0], volume[1], volume[2], fraction, residual, np.array([v.std_signal for v in views]),
        delta_per_nm, method, prior, grid,
    )  # fmt: skip


def _initial_field(
    initial: Reconstruction, grid: Grid, domain: Domain, kept: npt.NDArray[np.intp]
) -> Float32:
    """An earlier reconstruction as a start, on the padded domain, in signal units."""
    if initial.grid != grid:
        raise InputError(f"initial: made on {initial.grid}, expected {grid}; start without it")
    scale = np.float32(1.0 if initial.delta_per_nm is None else initial.delta_per_nm)
    (oy, ox), (ny, nx) = domain.offset_yx, domain.shape_yx
    inner = initial.m_czyx[:, kept] * scale
    margins = ((0, 0), (0, 0), (oy, ny - oy - inner.shape[2]), (ox, nx - ox - inner.shape[3]))
    return np.pad(inner, margins, mode="edge")


def reconstruct(
    series: Sequence[TiltSeries],
    grid: Grid,
    *,
    method: str = "direct",
    prior: str = "none",
    layers_nm: Sequence[tuple[float, float]] = (),
    delta_per_nm: float | None = None,
    iterations: int | None = None,
    initial: Reconstruction | None = None,
    callback: Callback | None = None,
) -> Reconstruction:
    """Find the magnetization that all views of all azimuths agree on, each with its true beam direction.

    Args:
        series: one entry per azimuth; NaN pixels and infinite standard deviations are left out.
        grid: the volume; a voxel is as wide as a pixel.
        method: "direct" (per lateral frequency, the most probable field), or iterations in real space with a stop
            at the
            noise: "art" as in the publication, "sirt", "cgls".
        prior: "none"; "layers": magnetization only in `layers_nm`; "norm": there with |m| = 1 and exchange
            smoothing, started
            from what `method` finds with "layers".
        layers_nm: (lower, upper) borders in nm from the film's middle, for "layers" and "norm".
        delta_per_nm: dichroic coefficient to divide by, 1/nm. None: "none" and "layers" give m in units of the
            signal, 1/nm; "norm" estimates it.
        iterations: at most so many of an iterative method (cgls 40, sirt 100, art 15); not for "direct".
        initial: an earlier reconstruction on the same grid to start an iterative method from.
        callback: called after each iteration of an iterative method (see `solvers.Callback`).

    Returns:
        The volume, see `Reconstruction`.

    Raises:
        InputError: for input that cannot be used; one line says what, where, what was expected and what to do.
    """
    _check_options(method, prior, layers_nm, delta_per_nm)
    if method == "direct" and (
        initial is not None or iterations is not None or callback is not None
    ):
        raise InputError(
            "method 'direct' does not iterate; leave out initial, iterations and callback, or choose 'cgls'"
        )
    if iterations is not None and iterations < 1:
        raise InputError(f"iterations: {iterations}, expected at least 1")
    support, kept = _support(grid, prior, layers_nm)
    views, domain = checked_views(series, grid)
    extended, _ = extend_views(
        views, support, grid.voxel_nm, factor=COARSE, iterations=_EXTENSION_ITERATIONS
    )
    return _solve_views(
        views, extended, support, kept, grid, domain,
        method=method, prior=prior, delta_per_nm=delta_per_nm, iterations=iterations, initial=initial,
        callback=callback,
    )  # fmt: skip


class DirectModel:
    """The direct reconstruction of a measurement that is still running: add views as they come, solve at any time.

    Views are resampled once, when they come, and the continuation beyond the field of view starts from the one
    before. What `solve` returns is the same as `reconstruct(..., method="direct")` of all views so far, but for
    that start.

    Args:
        grid: the volume; a voxel is as wide as a pixel.
        max_tilt_deg: steepest tilt that will come; it sets how far beyond the field of view rays reach.
        prior, layers_nm, delta_per_nm: as for `reconstruct`.

    Raises:
        InputError: as `reconstruct`.

    >>> model = DirectModel(Grid((4, 16, 16), 10.5), max_tilt_deg=55.0)
    >>> for theta_deg in (-40.0, 0.0, 40.0):
    ...     model.add_view(0.0, theta_deg, np.full((16, 16), 0.1), 0.001)
    >>> model.views
    3
    >>> model.solve().mz.shape
    (4, 16, 16)
    """

    def __init__(
        self,
        grid: Grid,
        *,
        max_tilt_deg: float,
        prior: str = "none",
        layers_nm: Sequence[tuple[float, float]] = (),
        delta_per_nm: float | None = None,
    ) -> None:
        _check_options("direct", prior, layers_nm, delta_per_nm)
        if not 0 <= max_tilt_deg <= MAX_TILT_DEG:
            raise InputError(f"steepest tilt: {max_tilt_deg} deg, expected 0 to {MAX_TILT_DEG:g}")
        self._grid = grid
        self._prior = prior
        self._delta_per_nm = delta_per_nm
        self._max_tilt_deg = max_tilt_deg
        self._support, self._kept = _support(grid, prior, layers_nm)
        self._domain = padded_domain(grid, max_tilt_deg)
        self._views: dict[tuple[float, float], View] = {}
        self._coarse: Float32 | None = None

    @property
    def views(self) -> int:
        """How many views there are."""
        return len(self._views)

    def add_view(
        self,
        phi_deg: float,
        theta_deg: float,
        dichroic_vu: npt.ArrayLike,
        std: npt.ArrayLike | None = None,
        shift_vu_nm: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Add a view, or put a better one in place of an earlier view of the same angles.

        Args:
            phi_deg, theta_deg: azimuth and tilt, deg.
            dichroic_vu: dichroic signal, NaN where masked.
            std: its standard deviation per pixel or one number; None: estimated.
            shift_vu_nm: where the sample's origin falls, from the image's centre.

        Raises:
            InputError: for a view that cannot be used; the views before it stay.
        """
        signal = np.asarray(dichroic_vu)
        one_std = (
            None
            if std is None
            else np.broadcast_to(np.asarray(std, dtype=np.float64), signal.shape)[None]
        )
        series = TiltSeries(phi_deg, [theta_deg], signal[None], one_std, [shift_vu_nm])
        if abs(theta_deg) > self._max_tilt_deg + 1e-9:
            raise InputError(
                f"view at theta = {theta_deg:g} deg: steeper than the {self._max_tilt_deg:g} deg of this model"
            )
        (view,) = resampled_views(series, 1, self._grid, self._domain)
        self._views[view.phi_deg, view.theta_deg] = view

    def solve(self) -> Reconstruction:
        """Reconstruct from all views so far, ordered by azimuth and tilt.

        Raises:
            InputError: if there are none.
        """
        if not self._views:
            raise InputError("live model: no views yet; add one first")
        views = [self._views[key] for key in sorted(self._views)]
        iterations = _EXTENSION_ITERATIONS if self._coarse is None else _EXTENSION_ITERATIONS // 2
        extended, self._coarse = extend_views(
            views,
            self._support,
            self._grid.voxel_nm,
            factor=COARSE,
            iterations=iterations,
            initial=self._coarse,
        )
        return _solve_views(
            views, extended, self._support, self._kept, self._grid, self._domain,
            method="direct", prior=self._prior, delta_per_nm=self._delta_per_nm,
        )  # fmt: skip


def _solve_views(
    views: Sequence[View],
    extended: Float32,
    support: Support,
    kept: npt.NDArray[np.intp],
    grid: Grid,
    domain: Domain,
    *,
    method: str,
    prior: str,
    delta_per_nm: float | None,
    iterations: int | None = None,
    initial: Reconstruction | None = None,
    callback: Callback | None = None,
) -> Reconstruction:
    problem = Problem.of(views, support.z_nm, support.coverage_z, grid.voxel_nm)
    direct = solve_direct(views, extended, support, grid.voxel_nm, fraction_only=method != "direct")
    if direct.field is not None:
        solution = direct.field
    else:
        start = None if initial is None else _initial_field(initial, grid, domain, kept)
        if method == "cgls":
            solution = cgls(problem, iterations=iterations or 40, initial=start, callback=callback)
        elif method == "sirt":
            solution = sirt(problem, iterations=iterations or 100, initial=start, callback=callback)
        else:
            solution = art(problem, iterations=iterations or 15, initial=start, callback=callback)
    if prior == "norm":
        unit = solve_unit_norm(problem, solution, delta_per_nm=delta_per_nm)
        solution, delta_per_nm = unit.field, unit.delta_per_nm
    return _assemble(
        views,
        problem,
        solution,
        direct.data_fraction_z,
        grid,
        domain,
        kept,
        delta_per_nm,
        method,
        prior,
    )

"""Tilt series in, magnetization out: the one call behind the command line, the live service and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.film import (
    How,
    Solved,
    residual_rms,
    sheared_problem,
    solve_film,
)
from mistral_txm.reconstruction.geometry import Grid, InputError
from mistral_txm.reconstruction.isolated import isolated_problem, solve_isolated
from mistral_txm.reconstruction.layers import covered_layers, support_of
from mistral_txm.reconstruction.solvers import ITERATIONS, Callback, iterate
from mistral_txm.reconstruction.tilt_series import TiltSeries
from mistral_txm.reconstruction.views import resampled_film
from mistral_txm.reconstruction.workers import Spread, in_process

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

METHODS = ("direct", *ITERATIONS)
PRIORS = ("none", "layers", "norm")


@dataclass(frozen=True)
class Reconstruction:
    """A magnetization volume and what is known about it.

    mx, my, mz: components float32 [z, y, x]; pure numbers where `delta_per_nm` is given or estimated, else the
    signal per length, delta times m, in 1/nm. A voxel holds the magnetization at its centre: zero where the centre lies
    outside the layers, undiminished where the layers cover a part of the voxel that holds the centre.

    data_fraction: float32 [z, y, x], how much of the voxel's value comes from the data: the part of the prior's
        variance that the views take away (1 all data, 0 all prior; module `direct`), times the part of the views
        that see the voxel. It is that of the Gaussian model with the same support and noise, for every method; 0
        outside the support. Of an isolated structure: how much of a random field comes back (module `isolated`).

    residual_rms_per_view: root mean square of measured minus projected signal over the pixels seen, in the order of the
    series and their tilts. noise_per_view: standard deviation of a pixel's signal, given or estimated.

    delta_per_nm: by which the signal was divided; None if it was not. method, prior: what made the volume.

    std: float32 [z, y, x], standard deviation of one component, mean over the three, of the field about its most
        probable value: the noise's part and the prior's where no view tells, if the field is as smooth as the prior
        found in the views says. Of the method "direct" with the prior "none" or "layers", else None (module
        `uncertainty` has the bootstrap); 0 outside the support.
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
    std: Float32 | None = None

    @property
    def m_czyx(self) -> Float32:
        """The three components as one array, shape (3, z, y, x)."""
        return np.stack([self.mx, self.my, self.mz])

    def parallel_to(self, phi_deg: float) -> Float32:
        """The component that tilts at an azimuth see beside mz, ``cos(phi) mx - sin(phi) my``, shape (z, y, x)."""
        phi = np.deg2rad(phi_deg)
        return np.asarray(np.float32(np.cos(phi)) * self.mx - np.float32(np.sin(phi)) * self.my)


def check_options(
    method: str, prior: str, layers_nm: Sequence[tuple[float, float]], delta_per_nm: float | None
) -> None:
    """Refuse options that do not go together, in one line."""
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


def reconstruct(
    series: Sequence[TiltSeries],
    grid: Grid,
    *,
    method: str = "direct",
    prior: str = "none",
    layers_nm: Sequence[tuple[float, float]] = (),
    delta_per_nm: float | None = None,
    isolated: bool = False,
    iterations: int | None = None,
    initial: Reconstruction | None = None,
    callback: Callback | None = None,
    spread: Spread = in_process,
) -> Reconstruction:
    """Find the magnetization that all views of all series agree on, each with its true beam direction.

    Of a single series of a film the beam lies in one plane, and only two numbers per voxel can be known: the in-plane
    component along the plane, ``m_parallel = cos(phi) mx - sin(phi) my``, and ``m_perp = mz``
    (`Reconstruction.parallel_to`); the third is left at zero.

    Args:
        series: one entry per azimuth or mounting; NaN pixels and infinite standard deviations are left out.
        grid: the volume; a voxel is as wide as a pixel.
        method: "direct" (per lateral frequency, the most probable field), or iterations in real space with a stop
            at the noise: "art" as in the publication, "sirt", "cgls".
        prior: "none"; "layers": magnetization only in `layers_nm`; "norm": there with |m| = 1 and exchange
            smoothing, started from what `method` finds with "layers".
        layers_nm: (lower, upper) borders in nm from the film's middle, for "layers" and "norm".
        delta_per_nm: dichroic coefficient to divide by, 1/nm. None: "none" and "layers" give m in units of the
            signal, 1/nm; "norm" estimates it.
        isolated: whether nothing is magnetic outside the volume (a disc, a pillar), instead of a film that goes on.
            Then views of every direction are taken, full rotations too, by the methods that iterate.
        iterations: at most so many of an iterative method (`solvers.ITERATIONS`); not for "direct".
        initial: an earlier reconstruction on the same grid to start an iterative method from.
        callback: called after each iteration of an iterative method (see `solvers.Callback`).
        spread: where the method "direct" solves its frequencies (`workers.spread_over`); the result is the same.

    Returns:
        The volume, see `Reconstruction`.

    Raises:
        InputError: for input that cannot be used; one line says what, where, what was expected and what to do.
    """
    check_options(method, prior, layers_nm, delta_per_nm)
    if method == "direct" and (
        initial is not None or iterations is not None or callback is not None
    ):
        raise InputError(
            "method 'direct' does not iterate; leave out initial, iterations and callback, or choose 'cgls'"
        )
    if isolated and (method == "direct" or prior == "norm"):
        what = "method 'direct'" if method == "direct" else "prior 'norm'"
        raise InputError(
            f"{what}: it is made for a film that goes on, not for an isolated structure; choose the method 'cgls' and "
            "the prior 'none' or 'layers'"
        )
    _check_iterations(iterations)
    coverage_z = covered_layers(grid, prior, layers_nm)
    how = How(method, prior, delta_per_nm, iterations, _field_of(initial, grid), callback, spread)
    if isolated:
        return reconstruction_of(solve_isolated(series, grid, coverage_z, how), grid, how)
    views, domain = resampled_film(series, grid)
    return reconstruction_of(solve_film(views, grid, domain, coverage_z, how), grid, how)


@dataclass(frozen=True)
class Absorption:
    """Linear absorption coefficient, 1/nm, float32 [z, y, x], and the residual of each view (see `Reconstruction`)."""

    mu_per_nm: Float32
    residual_rms_per_view: Float64
    method: str
    grid: Grid


def reconstruct_absorption(
    series: Sequence[TiltSeries],
    grid: Grid,
    *,
    method: str = "cgls",
    isolated: bool = False,
    iterations: int | None = None,
) -> Absorption:
    """Find the absorption coefficient from the absorption signals, ``(A(+) + A(-)) / 2 = integral of mu dl``.

    The same views, projectors and iterations as for the magnetization, with one number per voxel. In a film that
    goes on, the missing wedge hides what does not vary laterally: heights of layers are smeared.

    Args:
        series: with the absorption signal in place of the dichroic one; several series add up.
        grid, isolated, iterations: as for `reconstruct`.
        method: "cgls", "sirt" or "art".

    Raises:
        InputError: as `reconstruct`.
    """
    if method not in ITERATIONS:
        raise InputError(f"method: {method!r} is unknown; choose one of {', '.join(ITERATIONS)}")
    _check_iterations(iterations)
    every_layer = np.ones(grid.shape_zyx[0])
    if isolated:
        _, problem = isolated_problem(series, grid, every_layer, scalar=True)
        field = iterate(method, problem, iterations)
        mu = field[0]
    else:
        views, domain = resampled_film(series, grid)
        support, _ = support_of(grid, every_layer)
        problem = sheared_problem(views, support, grid.voxel_nm, scalar=True)
        field = iterate(method, problem, iterations)
        mu = domain.crop(field[0], grid)
    return Absorption(mu, residual_rms(problem, field), method, grid)


def _check_iterations(iterations: int | None) -> None:
    if iterations is not None and iterations < 1:
        raise InputError(f"iterations: {iterations}, expected at least 1")


def _field_of(initial: Reconstruction | None, grid: Grid) -> Float32 | None:
    """An earlier reconstruction as a start, in signal per nm."""
    if initial is None:
        return None
    if initial.grid != grid:
        raise InputError(f"initial: made on {initial.grid}, expected {grid}; start without it")
    return initial.m_czyx * np.float32(initial.delta_per_nm or 1.0)


def reconstruction_of(solved: Solved, grid: Grid, how: How) -> Reconstruction:
    """Bring a solution to units of m."""
    if not np.isfinite(solved.field).all():
        raise ArithmeticError(
            f"reconstruction: the {how.method} solution is not finite; please report this with the input"
        )
    scale = np.float32(solved.delta_per_nm or 1.0)
    mx, my, mz = solved.field / scale
    std = None if solved.std is None else solved.std / scale
    return Reconstruction(
        mx, my, mz, solved.data_fraction, solved.residual_rms_v, solved.noise_v,
        solved.delta_per_nm, how.method, how.prior, grid, std,
    )  # fmt: skip

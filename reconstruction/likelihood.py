"""Absorption and magnetization together, from the photon counts of both helicities, most probable as a whole.

The other way takes logarithms: ``A = -ln(counts / flat)`` of each helicity (module `signal`), half their difference,
then `reconstruct`. That is as good while counts are high. Where they are low the logarithm of a Poisson number is
biased, has more variance than its first order says, and there is none of zero. Here the counts themselves are
explained (module `likelihood_model` has the formulas): each pixel weighs what its expected photons weigh, the flats'
noise is one pattern in all views of a series, and the ring current of each exposure is known only nearly.

Priors: mu (all layers) and delta m (magnetic layers) are smooth, each with the spectrum of `smooth_prior`, whose two
numbers come from the power of the views relative to a uniform film, without a logarithm:

    absorption ``1 - (n(+)/l(+) + n(-)/l(-)) / 2``,  dichroism ``(n(-)/l(-) - n(+)/l(+)) / 2``,

l the counts behind a film of the view's mean transmittance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.fft

from mistral_txm.reconstruction.extension import extend_views
from mistral_txm.reconstruction.geometry import Grid, InputError, film_direction
from mistral_txm.reconstruction.lateral_frequencies import Frequencies
from mistral_txm.reconstruction.layers import CENTRE_INSIDE, Support, covered_layers, support_of
from mistral_txm.reconstruction.likelihood_model import HELICITIES, Counts, Model, Rays, State
from mistral_txm.reconstruction.likelihood_prior import SmoothRoot
from mistral_txm.reconstruction.likelihood_series import (
    CheckedCounts,
    CountSeries,
    as_tilts,
    checked_counts,
)
from mistral_txm.reconstruction.projector import ShearedProjector
from mistral_txm.reconstruction.smooth_prior import Prior, statistics
from mistral_txm.reconstruction.tilt_series import CheckedSeries
from mistral_txm.reconstruction.views import Domain, checked_film, film_views, padded_domain

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class JointReconstruction:
    """What the counts of both helicities say together.

    mu_per_nm: linear absorption coefficient, float32 [z, y, x]. m_czyx: magnetization, float32 [component, z, y, x],
    divided by delta_per_nm if that is not None, else the signal delta m, 1/nm; 0 outside the layers.

    factor_ht: per series, shape (2, views), by how much the light of an exposure was more than its dose said.
    flat_hvu: per series, shape (2, v, u), the open beam per dose, from flats and views; NaN where no pixel counts.

    deviance_ht: per series, shape (2, views), mean over the pixels of ``2 (n ln(n / lambda) - n + lambda)``: near 1
    where the model explains the counts and those are more than a few.

    std_mu_per_nm, std_m_zyx, std_factor_ht: standard deviations from draws of the posterior, the second of one
    component (mean over the three), with what the prior leaves open where no view tells; None without draws.
    """

    mu_per_nm: Float32
    m_czyx: Float32
    factor_ht: list[Float64]
    flat_hvu: list[Float64]
    deviance_ht: list[Float64]
    delta_per_nm: float | None
    grid: Grid
    std_mu_per_nm: Float32 | None = None
    std_m_zyx: Float32 | None = None
    std_factor_ht: list[Float64] | None = None


def reconstruct_counts(
    series: Sequence[CountSeries],
    grid: Grid,
    *,
    dose_std: float,
    layers_nm: Sequence[tuple[float, float]] = (),
    delta_per_nm: float | None = None,
    draws: int = 0,
) -> JointReconstruction:
    """Find absorption and magnetization of a film that explain the counts of both helicities best.

    Minimizes ``-ln L(counts | mu, delta m, flats, factors)`` and the priors' part, see `likelihood_model`; the mean
    counts behind the film are ``factor dose F exp(-integral of (mu + h delta m . k) dl)`` for the helicity h.

    Args:
        series: one entry per azimuth or mounting; all images of one shape.
        grid: the volume; a voxel is as wide as a pixel.
        dose_std: relative standard deviation of a stated dose, 0 to 0.5: how far ring current, shutter and slits are
            believed. What all exposures of a helicity have in common is known no better than that.
        layers_nm: (lower, upper) borders of the magnetic layers, nm from the film's middle; none: all may be.
        delta_per_nm: dichroic coefficient to divide by, 1/nm.
        draws: so many draws from the posterior for the standard deviations, which are themselves certain to
            ``1 / sqrt(2 draws)``; each takes about as long as the reconstruction.

    Raises:
        InputError: for input that cannot be used; one line says what, where, what was expected and what to do.

    A film of 40 nm that takes half an absorption length from its normal:

    >>> from mistral_txm.reconstruction.frames import Rate
    >>> flat, tilts = Rate(np.full((16, 16), 1e4), np.full((16, 16), 1e2)), [-40.0, 0.0, 40.0]
    >>> left = 1e4 * np.exp(-0.5 / np.cos(np.deg2rad(tilts)))
    >>> photons = np.broadcast_to(left[:, None, None], (2, 3, 16, 16))
    >>> series = [CountSeries(phi, tilts, photons, np.ones((2, 3)), (flat, flat)) for phi in (0.0, 102.0)]
    >>> found = reconstruct_counts(series, Grid((4, 16, 16), 10.0), dose_std=0.01)
    >>> round(40 * float(found.mu_per_nm.mean()), 3)
    0.5
    """
    if not 0 <= dose_std <= 0.5:
        raise InputError(
            f"dose: a relative standard deviation of {dose_std}, expected 0 to 0.5; 0.02 is 2 %"
        )
    if delta_per_nm is not None and not (np.isfinite(delta_per_nm) and delta_per_nm > 0):
        raise InputError(
            f"delta: {delta_per_nm} 1/nm is not a positive number; leave it out if it is unknown"
        )
    coverage_z = covered_layers(grid, "layers" if len(layers_nm) else "none", layers_nm)
    support, kept = support_of(grid, coverage_z)
    model, domain = model_of(series, grid, support, dose_std)
    y, state = model.minimum()
    found = model.solution(y)
    scale = np.float32(delta_per_nm or 1.0)
    inside_z = (support.coverage_z > CENTRE_INSIDE)[:, None, None]

    def magnetic(values: Float32) -> Float32:
        on_grid = np.zeros((*values.shape[:-3], *grid.shape_zyx), np.float32)
        on_grid[..., kept, :, :] = domain.crop(values, grid) * inside_z / scale
        return on_grid

    views = model.counts.series
    factor, deviance = np.exp(found.log_factor_hv), _deviance(model, state)
    seen = [model.rays.seen_hvij[:, one].any(axis=1) for one in views]
    result = JointReconstruction(
        domain.crop(found.mu[0], grid),
        magnetic(found.signal),
        [factor[:, one] for one in views],
        [np.where(s, state.flat_hsij[:, k], np.nan) for k, s in enumerate(seen)],
        [deviance[:, one] for one in views],
        delta_per_nm,
        grid,
    )
    if not draws:
        return result
    std_mu, std_signal, std_factor = _posterior_std(model, state, draws)
    return replace(
        result,
        std_mu_per_nm=domain.crop(std_mu, grid),
        std_m_zyx=magnetic(std_signal),
        std_factor_ht=[(factor * std_factor)[:, one] for one in views],
    )


def _posterior_std(model: Model, state: State, draws: int) -> tuple[Float32, Float32, Float64]:
    """Standard deviations of mu, of one component of the signal, and of the factors' logarithms."""
    rng = np.random.default_rng(0)
    found = [model.fields(model.random(state, rng)) for _ in range(draws)]
    mu = np.mean([one.mu[0] ** 2 for one in found], axis=0)
    signal = np.mean([np.mean(one.signal**2, axis=0) for one in found], axis=0)
    factor = np.mean([one.log_factor_hv**2 for one in found], axis=0)
    return np.sqrt(mu), np.sqrt(signal), np.sqrt(factor)


def _deviance(model: Model, state: State) -> Float64:
    """Mean deviance of each exposure."""
    counts, seen = model.counts, model.rays.seen_hvij
    n = np.maximum(counts.photons_hvij, 0).astype(np.float64)
    mean = np.where(seen, state.expected_hvij / counts.weight_hv[:, :, None, None], 1)
    term = np.where(n > 0, n * np.log(np.where(n > 0, n, 1) / mean), 0) - n + mean
    total = 2 * np.sum(term, axis=(2, 3), where=seen)
    return np.asarray(total / np.count_nonzero(seen, axis=(2, 3)))


def model_of(
    series: Sequence[CountSeries], grid: Grid, support: Support, dose_std: float
) -> tuple[Model, Domain]:
    """The likelihood of checked series with the priors that their views ask for, and the domain of its fields."""
    found, steepest_deg = checked_film([as_tilts(one) for one in series])
    domain = padded_domain(grid, steepest_deg)
    checks = [checked_counts(a, b) for a, b in zip(series, found, strict=True)]
    shapes = {one.photons_htvu.shape[2:] for one in checks}
    if len(shapes) > 1:
        raise InputError(
            f"counts: images of {sorted(shapes)} pixels, expected one shape in all series"
        )
    rays = _rays(checks, grid, domain, support)
    stops = np.cumsum([len(one.series.theta_deg_t) for one in checks])
    views = [
        slice(int(b - len(one.series.theta_deg_t)), int(b))
        for one, b in zip(checks, stops, strict=True)
    ]
    photons = np.concatenate([one.photons_htvu for one in checks], axis=1)
    read_hv = np.concatenate([np.full(one.dose_ht.shape, one.read_variance) for one in checks], 1)
    seen = rays.seen_hvij
    total = np.sum(photons, axis=(2, 3), where=seen)
    pixels = np.count_nonzero(seen, axis=(2, 3))
    dark = np.argwhere(total <= 0)
    if len(dark):
        h, v = dark[0]
        what = "no pixel falls on the volume" if not pixels[h, v] else "no light"
        raise InputError(
            f"counts: {what} in view {v} of all, helicity {HELICITIES[h]:+.0f}; leave this view out"
        )
    counts = Counts(
        np.where(seen, photons, 0).astype(np.float32),
        (total / (total + read_hv * pixels)).astype(np.float32),
        np.log(np.concatenate([one.dose_ht for one in checks], axis=1)),
        np.stack([one.flat_hvu**2 / one.flat_var_hvu for one in checks], axis=1),
        np.stack([one.flat_hvu / one.flat_var_hvu for one in checks], axis=1),
        views,
    )
    # what a film of the view's mean transmittance leaves of the light
    open_beam = np.concatenate(
        [one.dose_ht * np.einsum("hvu,htvu->ht", one.flat_hvu, seen[:, k])
         for one, k in zip(checks, views, strict=True)], axis=1,
    )  # fmt: skip
    transmittance_hv = total / open_beam
    inverse = 1 / rays.scalar.obliquity_v
    depth_nm = grid.shape_zyx[0] * grid.voxel_nm
    mean_mu = float(
        -np.log(transmittance_hv).mean(axis=0) @ inverse / (inverse @ inverse) / depth_nm
    )
    dichroic, absorption = _priors(checks, seen, transmittance_hv, views, grid, domain, support)
    model = Model(
        counts, rays,
        SmoothRoot.of(absorption, grid.z_nm, domain.shape_yx, grid.voxel_nm),
        SmoothRoot.of(dichroic, support.z_nm, domain.shape_yx, grid.voxel_nm),
        mean_mu, 1 / depth_nm, dose_std,
    )  # fmt: skip
    return model, domain


def _rays(checks: Sequence[CheckedCounts], grid: Grid, domain: Domain, support: Support) -> Rays:
    """Where the pixels of all views lie in the domain; seen: with a number, on a ray that stays in the domain."""
    directions, places, seen = [], [], []
    for one in checks:
        rows, columns = one.photons_htvu.shape[2:]
        for v, theta_deg in enumerate(one.series.theta_deg_t):
            tilt_deg, azimuth_deg, side = film_direction(one.series.mount, float(theta_deg))
            directions.append((tilt_deg, azimuth_deg, side))
            u_3, v_3, _ = one.series.mount.basis(float(theta_deg))
            falls = one.series.warp_tvu[v] @ np.array([v_3[1::-1], u_3[1::-1]])
            back = np.linalg.inv(falls)
            reach = (grid.shape_zyx[0] - 1) / 2 * np.tan(np.deg2rad(abs(tilt_deg)))
            phi = np.deg2rad(azimuth_deg)
            margin = reach * np.abs([np.sin(phi), np.cos(phi)])
            for h in range(2):
                first = -np.array([(rows - 1) / 2, (columns - 1) / 2])
                first = back @ (first - one.shift_vu_nm_ht[h, v] / grid.voxel_nm)
                first += np.array(domain.offset_yx) + (np.array(grid.shape_zyx[1:]) - 1) / 2
                places.append([*first, *back[0], *back[1]])
                inside = np.isfinite(one.photons_htvu[h, v])
                for axis in range(2):
                    at = first[axis] + back[axis, 0] * np.arange(rows)[:, None]
                    at = at + back[axis, 1] * np.arange(columns)
                    last = domain.shape_yx[axis] - 1
                    inside &= (at >= margin[axis]) & (at <= last - margin[axis])
                seen.append(inside)
    tilts, azimuths, sides = (np.array(column) for column in zip(*directions, strict=True))
    count = len(tilts)
    return Rays(
        ShearedProjector(tilts, azimuths, grid.z_nm, grid.voxel_nm, scalar=True),
        ShearedProjector(tilts, azimuths, support.z_nm, grid.voxel_nm),
        support.coverage_z.astype(np.float32),
        sides.astype(np.float32),
        np.ascontiguousarray(np.array(places).reshape(count, 2, 6).swapaxes(0, 1)),
        np.ascontiguousarray(np.array(seen).reshape(count, 2, *seen[0].shape).swapaxes(0, 1)),
        domain.shape_yx,
    )


def _priors(
    checks: Sequence[CheckedCounts], seen_hvij: Bool, transmittance_hv: Float64, views: Sequence[slice],
    grid: Grid, domain: Domain, support: Support,
) -> tuple[Prior, Prior]:  # fmt: skip
    """Spectra of delta m and of mu, from the power of the views relative to a uniform film."""
    layers = Support(grid.z_nm, np.ones(grid.shape_zyx[0]))
    frequencies = Frequencies.of(domain.shape_yx, grid.voxel_nm)
    found = []
    for magnetic in (True, False):
        resampled = []
        for one, k in zip(checks, views, strict=True):
            through = transmittance_hv[:, k]
            if magnetic:
                # a difference between the helicities is signal, one in the mean, too
                through = np.sqrt(through.prod(axis=0)) * np.ones((2, 1))
            expected = (one.dose_ht * through)[:, :, None, None] * one.flat_hvu[:, None]
            ratio = np.where(seen_hvij[:, k], one.photons_htvu / expected, np.nan)
            image = (ratio[1] - ratio[0]) / 2 if magnetic else 1 - ratio.mean(axis=0)
            variance = 1 / expected + one.read_variance / expected**2
            variance += (one.flat_var_hvu / one.flat_hvu**2)[:, None]
            both = seen_hvij[0, k] & seen_hvij[1, k]
            std_t = np.sqrt(np.mean(variance.sum(axis=0) / 4, axis=(1, 2), where=both))
            linear = CheckedSeries(
                one.series.name, one.series.mount, one.series.theta_deg_t, image.astype(np.float32),
                std_t, one.shift_vu_nm_ht.mean(axis=0), one.series.warp_tvu,
            )  # fmt: skip
            resampled += film_views(linear, grid, domain)
        if magnetic:
            planes = extend_views(resampled, support, grid.voxel_nm)
        else:
            # the mean of each view is zero: little leaks from where it ends
            part = [np.sqrt(np.mean(view.seen_yx)) for view in resampled]
            planes = np.stack([v.signal_yx / p for v, p in zip(resampled, part, strict=True)])
        planes = planes.astype(np.float32)
        p_hat = np.asarray(scipy.fft.rfft2(planes, norm="ortho", workers=-1), dtype=np.complex64)
        used = support if magnetic else layers
        found.append(statistics(resampled, p_hat, frequencies, used, grid.voxel_nm).prior)
    return found[0], found[1]

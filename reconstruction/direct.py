"""The direct reconstruction: every lateral frequency of the film is a small problem of its own.

A shift of a layer is a phase, so the sheared model (module `geometry`) reads at the lateral frequency q

    ``p_i(q) = sum over z of c_z dz exp(i s_i z) w_i . m(q, z)``, ``s_i = t_i e_i . q``,

with c_z the part of the layer z that belongs to the support. With Gaussian m and noise the most probable field is

    ``m(q) = K A^H (A K A^H + N)^-1 p(q)``:

one real symmetric matrix of the size of the number of views per frequency. What it leaves of the views comes with
it, ``p - A m = N (A K A^H + N)^-1 p``, without another projection. Neighbouring frequencies are factorized
side by side, so that every step is a vector instruction. A view takes part only at frequencies inside its own band:
the zone plate's passband, squeezed by cos(theta) along the stretched direction.

**Prior covariance K.** The components are independent, of equal power, with the isotropic three-dimensional spectrum
``A / (kappa^2 + k^2)^2``: smooth, nothing else. Along z at fixed q this is ``P(q) (1 + a|z - z'|) exp(-a|z - z'|)``
with ``a = sqrt(kappa^2 + q^2)`` and ``P(q)`` proportional to ``a^-3``. A and kappa maximize the (composite)
likelihood of the views' power spectra, so they come from the data and need no truth.

**Noise N.** ``sigma_i^2 / cos(theta_i)`` per frequency, and on top of it `MODEL_ERROR` squared times the mean power
of the views at that |q|: voxels, layer borders and residual misalignment make errors in proportion to the signal,
and without that term the strongest frequencies would be trusted beyond what the model can describe. On a striped
trilayer with 3 % noise, any value between 0.03 and 0.3 came within 5 % of the best vector error.

**A view to come.** Everything but the data of a view is known before it is exposed. With it as one more row of the
factor, the same solution tells what it will show if nothing is new, a m, and the gain g, by which each coefficient of
the field follows what is: ``m + g (p - a m)`` is the most probable field with the new view, under the prior and noise
found without it (`Response`; it is the measurement step of a Kalman filter). It takes a Fourier transform per layer.

**Edges.** The views end, the film does not: module `extension` continues them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import scipy.fft

from mistral_txm.reconstruction.direct_kernel import solve_groups
from mistral_txm.reconstruction.geometry import ZONE_PLATE_CUTOFF_PER_NM
from mistral_txm.reconstruction.lateral_frequencies import Frequencies, Groups, gather, scatter
from mistral_txm.reconstruction.layers import Support
from mistral_txm.reconstruction.smooth_prior import Prior, Roots, statistics
from mistral_txm.reconstruction.views import View
from mistral_txm.reconstruction.workers import Spread, in_process

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]
Intp = npt.NDArray[np.intp]


@dataclass(frozen=True)
class ViewToCome:
    """Azimuth and tilt, as `views.View` has them, of a view that is not there yet, and the noise to expect."""

    phi_deg: float
    theta_deg: float
    std_signal: float


@dataclass(frozen=True)
class Response:
    """How the field follows a view that is still to come.

    By groups of frequencies: predicted_gl, the coefficients that are expected of the view; gain_gkl, of the field by
    what the view shows beyond them; left_gl, the part of it that the field then leaves. place_gl: where they lie in a
    plane.
    """

    predicted_gl: Complex64
    left_gl: Float32
    gain_gkl: Complex64
    place_gl: Intp

    def follow(self, extended_yx: Float32) -> tuple[Float32, Float32]:
        """Change of the field by the extended view, float32 [3, layers of the support, y, x], and what it leaves."""
        spectrum = scipy.fft.rfft2(extended_yx, norm="ortho")
        new = np.empty((len(self.place_gl), 1, self.place_gl.shape[1]), np.complex64)
        gather(spectrum.reshape(1, -1), self.place_gl, new)
        new[:, 0] -= self.predicted_gl

        def plane(values_g1l: Complex64, elsewhere: Complex64) -> Float32:
            filled = elsewhere.copy()
            scatter(values_g1l, 0, self.place_gl, filled.reshape(-1))
            return np.asarray(scipy.fft.irfft2(filled, s=extended_yx.shape, norm="ortho"))

        layers = self.gain_gkl.shape[1]
        change = np.empty((layers, *extended_yx.shape), np.float32)
        nothing = np.zeros_like(spectrum)

        def of_layer(k: int) -> None:
            change[k] = plane(self.gain_gkl[:, k : k + 1] * new, nothing)

        with ThreadPoolExecutor(numba.get_num_threads()) as threads:
            list(threads.map(of_layer, range(layers)))
        left = plane(self.left_gl[:, None] * new, spectrum)
        return change.reshape(3, -1, *extended_yx.shape), left


@dataclass(frozen=True)
class DirectSolution:
    """Field float32 [3, layers of the support, y, x] on the domain, signal per nm; what it leaves of the seen pixels of
    each view, root mean square; and its statistics. Without a field (None) there are no residuals (empty).

    response: to the view to come, if there is one and the support is symmetric, as the factor of one row needs it."""

    field: Float32 | None
    residual_rms_v: Float64
    prior: Prior
    data_fraction_z: Float64
    response: Response | None = None


@dataclass(frozen=True)
class _Shared:
    """What all groups of frequencies have in common; `ahead`: the last view is one to come."""

    tan_v: Float64
    cos_phi_v: Float64
    sin_phi_v: Float64
    cos_theta_v: Float64
    noise_v: Float64
    model_noise_b: Float64
    roots: Roots
    support: Support
    voxel_nm: float
    ahead: bool


@dataclass(frozen=True)
class _Part:
    """Some of the groups: frequencies (groups, lanes), NaN for none, views there, and which posteriors to compute."""

    qy_gl: Float64
    qx_gl: Float64
    bin_g: Intp
    p_gvl: Complex64
    sample_g: Intp


def _solve_part(
    part: _Part, shared: _Shared
) -> tuple[Complex64, Complex64, Complex64, Float32, Complex64, Float64]:
    """Field (groups, 3 layers, lanes) and residual (groups, views, lanes) of some groups; of a view to come prediction
    and what is left (groups, lanes), and gain (groups, 3 layers, lanes); and what the samples say of the posterior."""
    roots, support, voxel_nm = shared.roots, shared.support, shared.voxel_nm
    layers, half = len(support.z_nm), len(roots.mirror)
    position = np.round(support.z_nm / voxel_nm, 6)
    steps = np.round(np.diff(position, prepend=position[0])).astype(np.int64)
    cover = (voxel_nm * roots.factor * support.coverage_z[:half]).astype(np.float32)
    m_gkl = np.zeros((len(part.bin_g), 3 * layers, part.qy_gl.shape[1]), np.complex64)
    explained = np.zeros((int(part.sample_g.max(initial=-1)) + 1, layers))
    filled = np.isfinite(part.qy_gl)
    groups = len(part.bin_g) if shared.ahead else 0
    predicted_gl = np.zeros((groups, part.qy_gl.shape[1]), np.complex64)
    left_gl = np.ones((groups, part.qy_gl.shape[1]), np.float32)
    gain_gkl = np.zeros((groups, *m_gkl.shape[1:]), np.complex64)
    # overwritten, unless it came from elsewhere and must not be
    p_gvl = np.require(part.p_gvl, requirements="W")
    solve_groups(
        filled, np.where(filled, part.qy_gl, 0), np.where(filled, part.qx_gl, 0), part.bin_g, p_gvl,
        shared.tan_v, shared.cos_phi_v, shared.sin_phi_v, shared.cos_theta_v, shared.noise_v, shared.model_noise_b,
        roots.even.ravel(), roots.odd.ravel(), roots.even.shape[1], roots.columns_b, support.z_nm[:half],
        steps[:half], voxel_nm, cover, roots.mirror, support.centre_nm, not support.symmetric,
        2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM, 8 * numba.get_num_threads(), part.sample_g, m_gkl, explained,
        predicted_gl, left_gl, gain_gkl,
    )  # fmt: skip
    return m_gkl, p_gvl, predicted_gl, left_gl, gain_gkl, explained


def solve_direct(
    views: Sequence[View],
    extended_vyx: Float32,
    support: Support,
    voxel_nm: float,
    *,
    fraction_only: bool = False,
    ahead: ViewToCome | None = None,
    spread: Spread = in_process,
) -> DirectSolution:
    """Most probable field of the extended views.

    Args:
        views: for angles and noise.
        extended_vyx: from `extension.extend_views`.
        support: layers that may hold magnetization.
        voxel_nm: voxel edge.
        fraction_only: solve no more than the data fraction needs, and return no field.
        ahead: view to come to whose data the response is wanted; the field knows nothing of it.
        spread: where the groups of frequencies are solved (module `workers`); the result is the same.
    """
    shape_yx = (extended_vyx.shape[1], extended_vyx.shape[2])
    frequencies = Frequencies.of(shape_yx, voxel_nm)
    p_hat = scipy.fft.rfft2(extended_vyx, norm="ortho", workers=-1)
    found = statistics(views, p_hat, frequencies, support, voxel_nm)
    if ahead is not None and not support.symmetric:
        ahead = None
    noise_v, rows = found.noise_v, [(v.theta_deg, v.phi_deg) for v in views]
    if ahead is not None:
        variance = ahead.std_signal**2 / np.cos(np.deg2rad(ahead.theta_deg))
        noise_v, rows = np.append(noise_v, variance), [*rows, (ahead.theta_deg, ahead.phi_deg)]
    theta, phi = np.deg2rad(rows).T
    steepest = float(np.abs(np.tan(theta)).max())
    shared = _Shared(
        np.tan(theta), np.cos(phi), np.sin(phi), np.cos(theta), noise_v, found.model_noise_b,
        Roots.of(found.prior, frequencies, support, voxel_nm, steepest), support, voxel_nm, ahead is not None,
    )  # fmt: skip
    groups = Groups.of(frequencies)
    sample_g, share = _sampled_groups(found.prior, frequencies, groups)
    if fraction_only:
        groups, sample_g = groups.chosen(sample_g >= 0), sample_g[sample_g >= 0]
    number = groups.number_gl
    columns = p_hat.shape[2]
    flat = frequencies.index_y * columns + frequencies.index_x
    place_gl = np.where(number >= 0, flat[number], -1)
    p_gvl = np.empty((len(number), len(views), number.shape[1]), np.complex64)
    gather(p_hat.reshape(len(views), -1), place_gl, p_gvl)
    qy_gl = np.where(number >= 0, frequencies.qy[number], np.nan)
    qx_gl = np.where(number >= 0, frequencies.qx[number], np.nan)
    parts, samples = [], []
    for some in np.array_split(np.arange(len(number)), spread.parts):
        sampled = sample_g[some] >= 0
        samples.append(sample_g[some][sampled])
        local = np.where(sampled, np.cumsum(sampled) - 1, -1)
        chosen = slice(some[0], some[-1] + 1) if len(some) else slice(0, 0)
        parts.append(
            _Part(qy_gl[chosen], qx_gl[chosen], groups.bin_g[chosen], p_gvl[chosen], local)
        )
    solved = spread(_solve_part, parts, shared)
    explained = np.zeros((len(share), len(support.z_nm)))
    for which, (*_, of_part) in zip(samples, solved, strict=True):
        explained[which] = of_part
    fraction = np.clip(share @ explained, 0, 1)
    if fraction_only:
        return DirectSolution(None, np.empty(0), found.prior, fraction)

    def joined(k: int) -> Any:
        return solved[0][k] if len(solved) == 1 else np.concatenate([part[k] for part in solved])

    m_gkl, residual_gvl = joined(0), joined(1)
    response = None
    if ahead is not None:
        response = Response(joined(2), joined(3), joined(4), place_gl)
    field = np.empty((3 * len(support.z_nm), *shape_yx), np.float32)
    residual_rms_v = np.empty(len(views))

    def of_layer(k: int) -> None:
        spectrum = np.zeros(p_hat.shape[1:], np.complex64)
        scatter(m_gkl, k, place_gl, spectrum.reshape(-1))
        field[k] = scipy.fft.irfft2(spectrum, s=shape_yx, norm="ortho")

    def of_view(v: int) -> None:
        scatter(residual_gvl, v, place_gl, p_hat[v].reshape(-1))
        left = scipy.fft.irfft2(p_hat[v], s=shape_yx, norm="ortho")[views[v].seen_yx]
        residual_rms_v[v] = np.sqrt(np.mean(left**2, dtype=np.float64))

    # one at a time, because large temporary arrays take longer to get from the system than to transform
    with ThreadPoolExecutor(numba.get_num_threads()) as threads:
        list(threads.map(of_layer, range(len(field))))
        list(threads.map(of_view, range(len(views))))
    layers = field.reshape(3, -1, *shape_yx)
    return DirectSolution(layers, residual_rms_v, found.prior, fraction, response)


def _sampled_groups(prior: Prior, frequencies: Frequencies, groups: Groups) -> tuple[Intp, Float64]:
    """Groups whose posterior is computed, numbered (-1: not), and the prior's share that each stands for.

    Up to 24 values of |q|, spread as the prior's power is, three directions each.
    """
    power = prior.power(frequencies.bin_radius, frequencies.domain_radius)
    members = np.bincount(frequencies.bins, minlength=len(power)) * power
    everywhere = float(prior.power(frequencies.domain_radius, frequencies.domain_radius).mean())
    # the half plane stands for the whole one: columns of qx = 0 count twice too, which hardly matters
    inside = min(1.0, float(members.sum()) / len(frequencies.domain_radius) / everywhere)
    cumulative = np.cumsum(members) / members.sum()
    bins, count = np.unique(
        np.searchsorted(cumulative, (np.arange(24) + 0.5) / 24), return_counts=True
    )
    sample_of_group = np.full(len(groups.bin_g), -1, dtype=np.intp)
    share: list[float] = []
    for b, times in zip(bins, count, strict=True):
        of_bin = np.flatnonzero(groups.bin_g == b)
        chosen = np.unique(of_bin[np.linspace(0, len(of_bin) - 1, 3).round().astype(int)])
        lanes = np.count_nonzero(groups.number_gl[chosen] >= 0)
        for g in chosen:
            sample_of_group[g] = len(share)
            share.append(inside * times / 24 / lanes / (3 * power[b]))
    return sample_of_group, np.array(share)

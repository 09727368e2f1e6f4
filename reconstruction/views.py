"""Tilt series as they are measured, and the same views resampled once to the sheared frame for all solvers.

One interpolation does stretch, azimuth and alignment: a cubic spline through the pixels of each view is evaluated
at ``warp (v0, u0) + shift``, ``u0 = x0' cos(theta)``, ``v0 = y0'`` (with the basis of `geometry.Mount` ``u . r0``,
``v . r0``), for every point ``r0`` of a lateral domain that
is the volume's field of view plus a margin, so that every ray which carries data stays inside the domain from the
lowest to the highest layer.

Noise: white noise of standard deviation sigma per pixel becomes, stretched by ``1 / cos(theta)``, noise of the power
``sigma^2 / cos(theta)`` per lateral frequency inside the view's own band, and none outside. All solvers weight with
that power. Pixels without a number or with an infinite standard deviation are unseen, and so are pixels more than
`NOISY_PIXEL` times noisier than the view's median (behind a gold fiducial); what a ray unseen in one view would have
said is left open, not filled with a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.geometry import (
    MAX_TILT_DEG,
    ZONE_PLATE_CUTOFF_PER_NM,
    Grid,
    InputError,
    Mount,
    film_direction,
)
from mistral_txm.reconstruction.tilt_series import CheckedSeries, TiltSeries, checked

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

COARSE = 4
"""The padded domain is a multiple of this, so that it can be binned (`extension.extend_views`)."""

NOISY_PIXEL = 4.0
"""A pixel this many times noisier than the median of its view counts as unseen."""


@dataclass(frozen=True)
class View:
    """One view resampled to a plane of the sample: signal where seen (zero elsewhere), float32.

    phi_deg, theta_deg: azimuth and tilt at which an ordinary mounting sees along the same line.
    """

    phi_deg: float
    theta_deg: float
    signal_yx: Float32
    seen_yx: Bool
    std_signal: float
    """Standard deviation of a detector pixel's signal."""


@dataclass(frozen=True)
class Domain:
    """The padded lateral domain: shape (ny, nx) and where the volume's field of view begins in it."""

    shape_yx: tuple[int, int]
    offset_yx: tuple[int, int]

    def crop(self, stack: Float32, grid: Grid) -> Float32:
        """Cut the field of view out of the last two axes."""
        (oy, ox), (_, ny, nx) = self.offset_yx, grid.shape_zyx
        return np.ascontiguousarray(stack[..., oy : oy + ny, ox : ox + nx])


def padded_domain(grid: Grid, max_tilt_deg: float) -> Domain:
    """Lateral domain in voxels: the field of view and the rays' largest excursion on either side.

    ``n + 2 z_max tan(theta_max) / voxel``, rounded up to a multiple of `COARSE` times a quick length for Fourier
    transforms.
    """
    excursion = int(np.ceil((grid.shape_zyx[0] - 1) / 2 * np.tan(np.deg2rad(max_tilt_deg)))) + 1
    shape, offset = [], []
    for n in grid.shape_zyx[1:]:
        length = COARSE * int(scipy.fft.next_fast_len(-(-(n + 2 * excursion) // COARSE)))
        shape.append(length)
        offset.append((length - n) // 2)
    return Domain((shape[0], shape[1]), (offset[0], offset[1]))


@numba.njit(inline="always")
def _spline_weights(f):  # type: ignore[no-untyped-def]
    """Cubic B-spline at distances 1 + f, f, 1 - f, 2 - f, for f from 0 to 1."""
    g = 1 - f
    return (
        g * g * g / 6,
        2 / 3 - f * f * (1 - f / 2),
        2 / 3 - g * g * (1 - g / 2),
        f * f * f / 6,
    )


@numba.njit(nogil=True, fastmath={"contract"}, cache=True)
def _evaluate_spline(coefficients, masked, v0, u0, v_y, v_x, u_y, u_x, out, seen):  # type: ignore[no-untyped-def]
    """Cubic B-spline at v = v0 + v_y y + v_x x, u likewise (pixels); seen where all four neighbours are good.

    The coefficients have two more on every side than the image has pixels, masked has one more.
    """
    nv, nu = coefficients.shape[0] - 4, coefficients.shape[1] - 4
    ny, nx = out.shape
    for y in range(ny):
        for x in range(nx):
            v = v0 + v_y * y + v_x * x
            u = u0 + u_y * y + u_x * x
            if v < -0.5 or v > nv - 0.5 or u < -0.5 or u > nu - 0.5:
                continue
            # not negative, so that cutting off is rounding down
            jv = int(v + 2)
            ju = int(u + 2)
            if masked[jv - 1, ju - 1] or masked[jv - 1, ju] or masked[jv, ju - 1] or masked[jv, ju]:
                continue
            wv = _spline_weights(v + 2 - jv)
            w0, w1, w2, w3 = _spline_weights(u + 2 - ju)
            total = 0.0
            for j in range(4):
                row = coefficients[jv - 1 + j]
                total += wv[j] * (
                    w0 * row[ju - 1] + w1 * row[ju] + w2 * row[ju + 1] + w3 * row[ju + 2]
                )
            out[y, x] = total
            seen[y, x] = True


def _spline_coefficients(image_vu: Float32) -> Float32:
    """Coefficients of the interpolating cubic spline, with two more on every side by reflection."""
    coefficients: Float32 = image_vu
    for axis in (0, 1):
        coefficients = scipy.ndimage.spline_filter1d(
            coefficients, order=3, axis=axis, output=np.float32, mode="mirror"
        )
    return np.asarray(np.pad(coefficients, 2, mode="reflect"), dtype=np.float32)


def _std_from_unseen_frequencies(image_vu: Float32, pixel_nm: float) -> float | None:
    """Standard deviation per pixel from the power beyond the zone plate's cutoff; None if the pixels resolve none.

    A Hann window keeps the image's edges from leaking there; the median over the frequencies, divided by ln 2,
    is the mean power of white noise and does not mind a few strong lines.
    """
    n_v, n_u = image_vu.shape
    f_v, f_u = np.fft.fftfreq(n_v, pixel_nm), np.fft.rfftfreq(n_u, pixel_nm)
    beyond = np.hypot(f_v[:, None], f_u[None, :]) > 1.05 * ZONE_PLATE_CUTOFF_PER_NM
    if np.count_nonzero(beyond) < 50:
        return None
    window = np.hanning(n_v + 2)[1:-1, None] * np.hanning(n_u + 2)[1:-1]
    power = np.abs(np.fft.rfft2((image_vu - image_vu.mean()) * window)) ** 2
    return float(np.sqrt(np.median(power[beyond]) / np.log(2) / np.sum(window**2)))


def _fill_unseen(image_vu: Float32, masked_vu: Bool) -> Float32:
    """Give masked pixels their nearest good neighbour's value, for the spline alone: they stay unseen."""
    if not masked_vu.any():
        return image_vu
    nearest = scipy.ndimage.distance_transform_edt(
        masked_vu, return_distances=False, return_indices=True
    )
    return np.asarray(image_vu[tuple(nearest)], dtype=np.float32)


def view_name(mount: Mount, theta_deg: float) -> str:
    """Name a view in a message."""
    return f"view at theta = {theta_deg:g} deg, phi = {mount.phi_deg:g} deg"


def on_plane(
    where: str,
    signal_vu: Float32,
    std_vu: npt.ArrayLike | None,
    voxel_nm: float,
    *,
    falls_vu: Float64,
    shift_vu_nm: tuple[float, float],
    first_ab: Sequence[float],
    shape_ab: tuple[int, int],
) -> tuple[Float32, Bool, float]:
    """Resample one image to a plane of the sample, by a cubic spline.

    Args:
        where: names the view in messages.
        signal_vu: signal, NaN where masked; a pixel is as wide as a voxel.
        std_vu: standard deviation per pixel or one number; None: estimated.
        voxel_nm: voxel.
        falls_vu: shape (2, 2): a step (a, b) in the plane falls on ``falls (a, b)``, (v, u).
        shift_vu_nm: where the sample's origin falls, from the image's centre.
        first_ab: the plane's first point, from the sample's origin, in voxels.
        shape_ab: of the plane, in voxels.

    Returns:
        Signal, where it was seen, and the standard deviation of a pixel.

    Raises:
        InputError: if all pixels are masked, or their noise cannot be told.
    """
    masked = ~np.isfinite(signal_vu)
    std_signal: float | None = None
    if std_vu is not None:
        std = np.asarray(std_vu)
        finite = np.isfinite(std) & (std > 0)
        if not finite.any():
            raise InputError(
                f"{where}: no pixel has a finite, positive standard deviation; leave this view out"
            )
        masked |= np.broadcast_to(
            ~finite | (std > NOISY_PIXEL * np.median(std[finite])), masked.shape
        )
        good = np.broadcast_to(std, masked.shape)[~masked]
        std_signal = float(np.sqrt(np.mean(good**2, dtype=np.float64))) if good.size else None
    if masked.all():
        raise InputError(f"{where}: every pixel is masked or not a number; leave this view out")
    image = _fill_unseen(signal_vu, masked)
    if std_signal is None:
        std_signal = _std_from_unseen_frequencies(image, voxel_nm)
        if std_signal is None:
            raise InputError(
                f"{where}: voxels of {voxel_nm:g} nm resolve no frequency beyond the zone plate's "
                "from which the noise could be estimated; give the signal's standard deviation"
            )
    n_v, n_u = image.shape
    first = falls_vu @ np.asarray(first_ab, dtype=np.float64)
    out = np.zeros(shape_ab, np.float32)
    seen = np.zeros(shape_ab, np.bool_)
    _evaluate_spline(
        _spline_coefficients(image),
        np.pad(masked, 1, mode="edge"),
        (n_v - 1) / 2 + shift_vu_nm[0] / voxel_nm + first[0],
        (n_u - 1) / 2 + shift_vu_nm[1] / voxel_nm + first[1],
        falls_vu[0, 0], falls_vu[0, 1], falls_vu[1, 0], falls_vu[1, 1],
        out,
        seen,
    )  # fmt: skip
    return out, seen, std_signal


def resample(
    mount: Mount,
    theta_deg: float,
    signal_vu: Float32,
    grid: Grid,
    domain: Domain,
    *,
    std_vu: npt.ArrayLike | None = None,
    shift_vu_nm: tuple[float, float] = (0.0, 0.0),
    warp_vu: npt.ArrayLike = ((1.0, 0.0), (0.0, 1.0)),
) -> View:
    """Resample one view of a film to the sheared frame.

    Args:
        mount: how the sample was mounted.
        theta_deg: tilt, deg.
        signal_vu: dichroic signal, NaN where masked.
        grid: the volume; a pixel is as wide as a voxel.
        domain: from `padded_domain`.
        std_vu: standard deviation per pixel or one number; None: estimated.
        shift_vu_nm: where the sample's origin falls, from the image's centre.
        warp_vu: shape (2, 2), of `TiltSeries.warp_tvu`.

    Raises:
        InputError: if all pixels are masked.
    """
    where = view_name(mount, theta_deg)
    tilt_deg, azimuth_deg, side = film_direction(mount, theta_deg)
    u, v, _ = mount.basis(theta_deg)
    first = [-o - (n - 1) / 2 for o, n in zip(domain.offset_yx, grid.shape_zyx[1:], strict=True)]
    out, seen, std_signal = on_plane(
        where, signal_vu, std_vu, grid.voxel_nm,
        falls_vu=np.asarray(warp_vu, dtype=np.float64) @ np.array([v[1::-1], u[1::-1]]),
        shift_vu_nm=shift_vu_nm, first_ab=first, shape_ab=domain.shape_yx,
    )  # fmt: skip
    out *= np.float32(side)
    ny, nx = domain.shape_yx
    c, s = np.cos(np.deg2rad(azimuth_deg)), np.sin(np.deg2rad(azimuth_deg))
    reach = (grid.shape_zyx[0] - 1) / 2 * np.tan(np.deg2rad(abs(tilt_deg)))
    inside_y, inside_x = (
        (np.arange(n) - reach * abs(part) >= 0) & (np.arange(n) + reach * abs(part) <= n - 1)
        for n, part in ((ny, s), (nx, c))
    )
    seen &= inside_y[:, None] & inside_x[None, :]
    out[~seen] = 0
    if not seen.any():
        raise InputError(f"{where}: no pixel falls on the volume; check the shift and the grid")
    return View(azimuth_deg, tilt_deg, out, seen, std_signal)


def checked_film(series: Sequence[TiltSeries]) -> tuple[list[CheckedSeries], float]:
    """Check all series, and that no view sees along the film; the second is the steepest angle to its normal, deg.

    Raises:
        InputError: for anything that cannot be used, in one line.
    """
    found = checked(series)
    steepest = 0.0
    for one in found:
        for number, theta_deg in enumerate(one.theta_deg_t):
            tilt_deg = abs(film_direction(one.mount, float(theta_deg))[0])
            if not tilt_deg <= MAX_TILT_DEG:
                raise InputError(
                    f"{one.name}: view {number} at {theta_deg:g} deg sees the film at {tilt_deg:g} deg to its normal, "
                    f"expected at most {MAX_TILT_DEG:g}; leave it out, or say that the structure is isolated"
                )
            steepest = max(steepest, tilt_deg)
    return found, steepest


def film_views(series: CheckedSeries, grid: Grid, domain: Domain) -> list[View]:
    """The views of one series of a film in the sheared frame."""

    def view(i: int) -> View:
        return resample(
            series.mount,
            float(series.theta_deg_t[i]),
            series.signal_tvu[i],
            grid,
            domain,
            std_vu=None if series.std_t is None else series.std_t[i],
            shift_vu_nm=(float(series.shift_vu_nm_t[i, 0]), float(series.shift_vu_nm_t[i, 1])),
            warp_vu=series.warp_tvu[i],
        )

    # what takes the time releases Python's lock
    with ThreadPoolExecutor(numba.get_num_threads()) as threads:
        return list(threads.map(view, range(len(series.theta_deg_t))))


def resampled_film(series: Sequence[TiltSeries], grid: Grid) -> tuple[list[View], Domain]:
    """All views of all series of a film in the sheared frame, and the domain that holds them.

    Raises:
        InputError: for anything that cannot be used, in one line.
    """
    found, steepest_deg = checked_film(series)
    domain = padded_domain(grid, steepest_deg)
    return [view for one in found for view in film_views(one, grid, domain)], domain

"""Gold spheres in an absorption image: where their centres are, how surely, and which pixels they spoil.

A sphere of radius R absorbs along its chord ``2 sqrt(R^2 - rho^2)``, rho the distance from the centre's image; the
optics blur that, more where the sphere lies before or behind the plane in focus. Spheres are **found** with matched
filters: chords blurred by discs of several sizes, each less its mean, so that an even background, whatever its level,
gives no response. The noise of a response is its robust spread over the image.

A centre is **measured** without any assumption on radius, absorption or blur: around the right centre the image is a
function of rho alone. The model of a window is

    ``A(v, u) = f(rho) + g_v (v - v0) + g_u (u - u0)``, ``rho = |(v - v0, u - u0)|``,

f a cubic spline with knots `KNOT_PIXELS` apart, g the background's slope; the centre (v0, u0) follows by Gauss-Newton
with the weights of photon noise, ``1 / var A ~ exp(-A)``. f is even and its derivative along the centre odd, so freeing
f costs no accuracy. The standard deviation is that of the fit, scaled by the residual: misfit counts as noise.

Positions are (v, u) in nm from the image's centre, as everywhere (module `geometry`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from mistral_txm.reconstruction.geometry import InputError

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

DIAMETER_NM = 100.0
"""Gold spheres of about 100 nm [Hierro-Rodriguez et al., Nat. Commun. 11, 6382 (2020)]."""

KNOT_PIXELS = 3.0
"""Distance of the knots of the radial profile: 32 nm in pixels of 10.5 nm, about what a zone plate of 25 nm
resolves. Finer ones fit the noise of single exposures, and the centre follows."""

LEAST_RESPONSE = 8.0
"""A sphere's matched response, in robust standard deviations: one in 10^15 by Gaussian noise."""

BLUR_RADII = (0.0, 1.0, 2.0, 4.0)
"""Discs by which the matched filters are blurred, in radii of a sphere: 4 is 5.7 um from the focus (NA 0.035)."""

_MAD_TO_SIGMA = 1.4826
_STEPS = 25
_CONVERGED_SIGMA = 0.03
_LEAST_CONTRAST_SIGMA = 6.0
_WORST_MISFIT = 0.2
"""Largest residual beyond the noise, as a part of the contrast, of what still counts as a disc."""


@dataclass(frozen=True)
class Fiducials:
    """The spheres found in one image, strongest response first.

    position_vu_nm: centres, shape (n, 2): v, u from the image's centre. std_vu_nm: their standard deviations, same
    shape. radius_nm: where the profile has fallen to half its height, shape (n,): about 0.8 of a sphere's radius in
    focus, more out of it. contrast: absorbance of the middle above the background, shape (n,).

    >>> Fiducials.none().position_vu_nm.shape
    (0, 2)
    """

    position_vu_nm: Float64
    std_vu_nm: Float64
    radius_nm: Float64
    contrast: Float64

    def __len__(self) -> int:
        return len(self.contrast)

    @classmethod
    def none(cls) -> Fiducials:
        """Return the result of an image without spheres."""
        return cls(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class _Fit:
    """A window's result, in pixels of the image."""

    centre_vu: Float64
    std_vu: Float64
    radius: float
    contrast: float


def chord_template(radius: float, blur_radius: float) -> Float64:
    """Return a sphere's chord blurred by a disc, peak 1, on odd square pixels that hold all of it; lengths in pixels.

    Pixels hold the mean of 4 x 4 points. An image of a sphere that touches no border:

    >>> template = chord_template(4.8, 0.0)
    >>> template.shape, float(template[0].max()), float(template.max())
    ((13, 13), 0.0, 1.0)
    """
    reach = int(np.ceil(radius + blur_radius)) + 1
    fine = 4
    n = (2 * reach + 1) * fine
    at = (np.arange(n) - (n - 1) / 2) / fine
    rho2 = at[:, None] ** 2 + at[None, :] ** 2
    chord = np.sqrt(np.maximum(radius**2 - rho2, 0))
    if blur_radius > 0:
        disc = (rho2 <= blur_radius**2).astype(np.float64)
        size = scipy.fft.next_fast_len(2 * n, real=True)
        spectrum = scipy.fft.rfft2(chord, (size, size)) * scipy.fft.rfft2(disc, (size, size))
        first = (n - 1) // 2
        chord = scipy.fft.irfft2(spectrum, (size, size))[first : first + n, first : first + n]
    pixels = chord.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean(axis=(1, 3))
    pixels[pixels < 1e-9 * pixels.max()] = 0
    return np.asarray(pixels / pixels.max(), dtype=np.float64)


def _matched_filter(template: Float64) -> Float64:
    """The template less its mean, over a disc with as much background as sphere; zero outside the disc."""
    core = (len(template) - 1) / 2
    reach = int(np.ceil(1.5 * core)) + 1
    padded = np.pad(template, reach - int(core))
    at = np.arange(-reach, reach + 1)
    inside = at[:, None] ** 2 + at[None, :] ** 2 <= reach**2
    return np.where(inside, padded - padded[inside].mean(), 0.0)


def _response(image_vu: Float64, kernel: Float64) -> Float64:
    """Matched response in robust standard deviations of itself."""
    reach = len(kernel) // 2
    padded = np.pad(image_vu, reach, mode="reflect")
    shape = tuple(
        scipy.fft.next_fast_len(n + k - 1, real=True)
        for n, k in zip(padded.shape, kernel.shape, strict=True)
    )
    spectrum = scipy.fft.rfft2(padded, shape) * scipy.fft.rfft2(kernel, shape)
    n_v, n_u = image_vu.shape
    response = scipy.fft.irfft2(spectrum, shape)[
        2 * reach : 2 * reach + n_v, 2 * reach : 2 * reach + n_u
    ]
    spread = _MAD_TO_SIGMA * np.median(np.abs(response - np.median(response)))
    return np.asarray(response / max(float(spread), 1e-12), dtype=np.float64)


def _candidates(
    image_vu: Float64, radius: float
) -> tuple[npt.NDArray[np.intp], Float64, npt.NDArray[np.intp]]:
    """Pixels (n, 2) of the strongest responses over all blurs, the response, and which blur; strongest first."""
    best_vu = np.full(image_vu.shape, -np.inf)
    blur_vu = np.zeros(image_vu.shape, np.intp)
    for number, blur in enumerate(BLUR_RADII):
        kernel = _matched_filter(chord_template(radius, blur * radius))
        if len(kernel) > min(image_vu.shape):
            break
        response = _response(image_vu, kernel)
        better = response > best_vu
        best_vu[better] = response[better]
        blur_vu[better] = number
    size = 2 * int(np.ceil(radius)) + 1
    peak = (best_vu == scipy.ndimage.maximum_filter(best_vu, size)) & (best_vu > LEAST_RESPONSE)
    at = np.argwhere(peak)
    order = np.argsort(-best_vu[peak], kind="stable")
    at = at[order]
    return at, best_vu[at[:, 0], at[:, 1]], blur_vu[at[:, 0], at[:, 1]]


def _radial_basis(rho: Float64, reach: float) -> tuple[Float64, Float64]:
    """Even cubic B-splines in rho up to reach, shape (points, splines), and their derivatives.

    Of the splines that are mirrored at 0 only that of the second knot reaches across; the first is its own mirror.
    """
    count = int(np.ceil(reach / KNOT_PIXELS)) + 2
    x = rho / KNOT_PIXELS
    knot = np.floor(x).astype(np.intp)
    f = x - knot
    g = 1 - f
    # each point lies in the reach of four splines; what is beyond the last goes into a column that is cut off
    value, slope = np.zeros((2, len(rho), count + 1))
    point = np.arange(len(rho))
    for number, (part, its_slope) in enumerate((
        (g**3 / 6, -(g**2) / 2),
        (2 / 3 - f**2 + f**3 / 2, 1.5 * f**2 - 2 * f),
        (2 / 3 - g**2 + g**3 / 2, 2 * g - 1.5 * g**2),
        (f**3 / 6, f**2 / 2),
    )):  # fmt: skip
        column = np.minimum(np.abs(knot + number - 1), count)
        value[point, column] += part
        slope[point, column] += its_slope
    return value[:, :count], slope[:, :count] / KNOT_PIXELS


def _least_squares(matrix: Float64, values: Float64) -> tuple[Float64, Float64]:
    """Solution by normal equations, of least length where they leave it open, and their inverse."""
    inverse = np.linalg.pinv(matrix.T @ matrix, rcond=1e-12, hermitian=True)
    return np.asarray(inverse @ (matrix.T @ values)), np.asarray(inverse)


def _fit_centre(
    image_vu: Float64,
    good_vu: Bool,
    start_vu: npt.NDArray[np.intp],
    core: float,
    noise: float,
) -> _Fit | None:
    """Find the centre around which a window is a function of the distance; None if there is no such disc.

    core: radius of the disc with its blur, pixels. noise: standard deviation of a pixel of median absorbance.
    """
    reach = 1.6 * core + 2.5
    v0, u0 = (int(i) for i in start_vu)
    r = int(np.ceil(reach)) + 1
    n_v, n_u = image_vu.shape
    window = (
        slice(max(v0 - r, 0), min(v0 + r + 1, n_v)),
        slice(max(u0 - r, 0), min(u0 + r + 1, n_u)),
    )
    v, u = (at.ravel().astype(np.float64) for at in np.mgrid[window])
    values, good = image_vu[window].ravel(), good_vu[window].ravel()
    inside = good & (np.hypot(v - v0, u - u0) <= reach)
    v, u, values = v[inside], u[inside], values[inside]
    in_core = np.hypot(v - v0, u - u0) <= core
    if np.count_nonzero(in_core) < 0.8 * np.pi * core**2:
        return None
    root_weight = np.exp(-(values - np.median(values)) / 2).clip(0.05, 2.0)
    centre = np.array([v0, u0], dtype=np.float64)
    for number in range(_STEPS):
        dv, du = v - centre[0], u - centre[1]
        rho = np.hypot(dv, du)
        basis, slope = _radial_basis(rho, reach + 2)
        used = np.abs(basis).max(axis=0) > 0
        basis, slope = basis[:, used], slope[:, used]
        even = np.column_stack([basis, dv / reach, du / reach])
        coefficients, _ = _least_squares(even * root_weight[:, None], values * root_weight)
        model = even @ coefficients
        root_weight = np.exp(-(model - np.median(model)) / 2)
        falling = slope @ coefficients[: basis.shape[1]] / np.maximum(rho, 1e-9)
        full = np.column_stack([even, -falling * dv, -falling * du]) * root_weight[:, None]
        solution, inverse = _least_squares(full, values * root_weight)
        step = solution[-2:]
        length = float(np.hypot(*step))
        if not np.isfinite(length):
            return None
        # Half a step settles where the noise in f makes whole ones jump back and forth.
        centre = centre + step * min(0.5 if number else 1.0, 1.0 / max(length, 1e-12))
        if np.hypot(centre[0] - v0, centre[1] - u0) > max(2.0, 0.6 * core):
            return None
        residual = values * root_weight - full @ solution
        freedom = len(values) - full.shape[1]
        if freedom < 10:
            return None
        variance = float(residual @ residual) / freedom
        covariance = inverse[-2:, -2:] * variance
        if length**2 < _CONVERGED_SIGMA**2 * np.trace(covariance):
            break
    else:
        return None
    at = np.linspace(0, reach, 8 * int(np.ceil(reach)))
    profile = _radial_basis(at, reach + 2)[0][:, used] @ coefficients[: basis.shape[1]]
    ground = float(np.median(profile[at > 1.2 * core + 1.5]))
    contrast = float(profile[at < 0.4 * core].mean() - ground)
    below = np.flatnonzero(profile - ground < contrast / 2)
    misfit = np.sqrt(max(variance - noise**2, 0.0))
    if (
        contrast < _LEAST_CONTRAST_SIGMA * noise / np.sqrt(max(core, 1.0))
        or not below.size
        or misfit > _WORST_MISFIT * contrast
    ):
        return None
    radius = float(at[below[0]])
    return _Fit(centre, np.sqrt(np.diag(covariance)), radius, contrast)


def pixel_noise(image_vu: Float64) -> float:
    """Standard deviation of white noise from the image's mixed second difference, which no smooth image has."""
    cross = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
    difference = scipy.ndimage.convolve(image_vu, cross)
    return _MAD_TO_SIGMA * float(np.median(np.abs(difference)))


def find_fiducials(
    absorption_vu: npt.ArrayLike, pixel_nm: float, *, diameter_nm: float = DIAMETER_NM
) -> Fiducials:
    """Find gold spheres in an absorption image and measure their centres.

    Args:
        absorption_vu: absorbance averaged over both helicities, [v, u]: without magnetic signal; NaN where unknown.
        pixel_nm: pixel, nm.
        diameter_nm: nominal diameter of the spheres, nm; at least 4 pixels.

    Returns:
        The spheres that lie in the image with all of their disc. Two whose discs overlap are one or none: their centres
        would pull at each other.

    Raises:
        InputError: for what is no image or for spheres of fewer than 4 pixels.

    >>> at = (np.arange(64) - 31.5) * 10.5
    >>> chord_nm = 2 * np.sqrt(np.maximum(50.0**2 - (at[:, None] - 30) ** 2 - (at[None, :] + 72.5) ** 2, 0))
    >>> image = 0.9 + 0.011 * scipy.ndimage.gaussian_filter(chord_nm, 1.2)
    >>> find_fiducials(image, 10.5).position_vu_nm.round()
    array([[ 30., -72.]])
    """
    image = np.array(absorption_vu, dtype=np.float64)
    if image.ndim != 2 or min(image.shape) < 16:
        raise InputError(
            f"fiducials: an image of shape {image.shape}, expected (v, u), 16 x 16 or more"
        )
    if not diameter_nm >= 4 * pixel_nm > 0:
        raise InputError(
            f"fiducials: a diameter of {diameter_nm:g} nm with pixels of {pixel_nm:g} nm, expected at least 4 "
            "pixels; use images that are binned less"
        )
    good = np.isfinite(image)
    if not good.any():
        raise InputError("fiducials: every pixel is masked or not a number; leave this view out")
    image[~good] = np.median(image[good])
    radius = diameter_nm / 2 / pixel_nm
    noise = pixel_noise(image)
    at, _, blur = _candidates(image, radius)
    cores = radius * (1 + np.asarray(BLUR_RADII)[blur])
    found: list[_Fit] = []
    for start, core in zip(at, cores, strict=True):
        taken = any(np.hypot(*(fit.centre_vu - start)) < 2 * radius for fit in found)
        fit = None if taken else _fit_centre(image, good, start, float(core), noise)
        if fit is None or any(np.hypot(*(fit.centre_vu - o.centre_vu)) < 2 * radius for o in found):
            continue
        if 0.5 * radius < fit.radius < radius * (1.5 + BLUR_RADII[-1]):
            found.append(fit)
    if not found:
        return Fiducials.none()
    middle = (np.array(image.shape) - 1) / 2
    return Fiducials(
        (np.array([fit.centre_vu for fit in found]) - middle) * pixel_nm,
        np.array([fit.std_vu for fit in found]) * pixel_nm,
        np.array([fit.radius for fit in found]) * pixel_nm,
        np.array([fit.contrast for fit in found]),
    )


def fiducial_mask(
    shape_vu: tuple[int, int],
    position_vu_nm: npt.ArrayLike,
    radius_nm: npt.ArrayLike,
    pixel_nm: float,
    *,
    margin_nm: float = 35.0,
) -> Bool:
    """Return which pixels spheres spoil, bool [v, u]: give the signal there NaN, and all solvers leave it open.

    Args:
        shape_vu: of the image.
        position_vu_nm: centres, shape (n, 2), from the image's centre; also of spheres partly outside the image.
        radius_nm: where the disc has half its height, shape (n,) or one number.
        pixel_nm: pixel, nm.
        margin_nm: what the rest of the disc and its blurred border need, nm; for a sphere of 100 nm and a zone plate of
            25 nm.

    >>> fiducial_mask((5, 5), [[0.0, 10.0]], 4.0, 10.0, margin_nm=7.0).astype(int)
    array([[0, 0, 0, 0, 0],
           [0, 0, 0, 1, 0],
           [0, 0, 1, 1, 1],
           [0, 0, 0, 1, 0],
           [0, 0, 0, 0, 0]])
    """
    position = np.asarray(position_vu_nm, dtype=np.float64).reshape(-1, 2)
    reach = np.broadcast_to(np.asarray(radius_nm, dtype=np.float64) + margin_nm, len(position))
    v, u = ((np.arange(n) - (n - 1) / 2) * pixel_nm for n in shape_vu)
    mask = np.zeros(shape_vu, np.bool_)
    for (centre_v, centre_u), r in zip(position, reach, strict=True):
        rows, columns = np.abs(v - centre_v) <= r, np.abs(u - centre_u) <= r
        square = (v[rows, None] - centre_v) ** 2 + (u[None, columns] - centre_u) ** 2
        mask[np.ix_(rows, columns)] |= square <= r**2
    return mask

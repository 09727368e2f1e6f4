"""The microscope between sample and camera: zone plate, focus, illumination.

Images are [v, u], float32. Depths are along the beam, growing the way the light goes, as the beam
direction k' = (sin theta, 0, cos theta) of the stage frame does.
"""

import math
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft
from scipy.special import j1

from mistral_txm.simulated_beamline import settings

HC_EV_NM = 1239.84198
PADDING = 16
"""Pixels around an image that keep what lies beyond its edges in the image."""
SHIFT_REACH = 8
"""Pixels on either side of a point that `shifted` interpolates from."""
SHIFT_BAND = 0.42
"""Highest frequency in cycles per pixel that `shifted` keeps: all that the zone plate passes. Its
error is 0.06 % up to 0.2 and 0.15 % up to 0.35, where a tenth of the contrast is left."""
WALK_STEPS_PER_PIXEL = 64
"""The illumination walks in such steps: a change of 10^-4 of it at most."""
PLANES_PER_DEPTH_OF_FOCUS = 6
"""A tilted film is imaged at planes so close, and between two of them linearly."""

Image = NDArray[np.float32]


class ZonePlate:
    """The objective: an ideal thin lens of circular aperture, in incoherent light.

    >>> from mistral_txm.simulated_beamline.settings import load_settings
    >>> zone_plate = ZonePlate(load_settings("ideal").zone_plate)
    >>> zone_plate.best_focus_um(0.2, 707.4), zone_plate.best_focus_um(-0.2, 707.4)
    (0.0, 1.5)
    """

    def __init__(self, settings: settings.ZonePlate) -> None:
        self._settings = settings

    def best_focus_um(self, angle_mrad: float, energy_ev: float) -> float:
        """Return the best position for light from a vertical angle, at a photon energy.

        Linear in the angle through the positions of the two helicities; the focal length, and with
        it the position, is proportional to the energy.
        """
        its = self._settings
        middle_um = (its.focus_above_um + its.focus_below_um) / 2
        slope = (its.focus_above_um - its.focus_below_um) / (2 * its.focus_angle_mrad)
        detuning = energy_ev / its.nominal_energy_ev - 1
        return middle_um + slope * angle_mrad + its.focal_length_um * detuning

    def numerical_aperture(self, energy_ev: float) -> float:
        """Return NA = wavelength / (2 outermost zone)."""
        return HC_EV_NM / energy_ev / (2 * self._settings.outermost_zone_nm)

    def depth_of_focus_um(self, energy_ev: float) -> float:
        """Return wavelength / (2 NA^2): so far from the focus a quarter of a wave is lost."""
        return HC_EV_NM / energy_ev / (2 * self.numerical_aperture(energy_ev) ** 2) / 1000

    def transfer(self, frequency_per_nm: Image, defocus_um: float, energy_ev: float) -> Image:
        """Return the incoherent transfer function, 1 at zero frequency.

        With s = f / f_c, f_c = 1 / (outermost zone), in focus it is that of a circular pupil,
        (2 / pi) (acos s - s sqrt(1 - s^2)); out of focus it is multiplied by 2 J1(a) / a with
        a = 2 pi f r (1 - s), r = |defocus| NA the radius of the blur disc (A. C. Stokseth, J. Opt.
        Soc. Am. 59, 1314 (1969)), which is within 0.02 of the exact integral.
        """
        focused, blur_per_um = self._transfer_parts(frequency_per_nm, energy_ev)
        result: Image = focused * _disc(blur_per_um * np.float32(abs(defocus_um)))
        return result

    def _transfer_parts(self, frequency_per_nm: Image, energy_ev: float) -> tuple[Image, Image]:
        """Return the transfer function in focus, and a per um of defocus."""
        s = np.minimum(frequency_per_nm * np.float32(self._settings.outermost_zone_nm), 1)
        focused: Image = np.float32(2 / np.pi) * (np.arccos(s) - s * np.sqrt(1 - s**2))
        scale = np.float32(2 * np.pi * 1000 * self.numerical_aperture(energy_ev))
        blur_per_um: Image = scale * frequency_per_nm * (1 - s)
        return focused, blur_per_um

    def image(
        self,
        intensity_vu: Image,
        pixel_nm: float,
        defocus_um: float,
        theta_deg: float,
        energy_ev: float,
    ) -> Image:
        """Image an intensity; `PADDING` pixels at every edge are cut off.

        `defocus_um` is the depth of the film behind the plane in focus, on the column in the middle
        of the image. Where the settings say so it varies over the image of a film tilted by
        `theta_deg`, as defocus + u tan(theta): the point x' of the film is seen at u = x' cos(theta)
        and lies at the depth x' sin(theta). Each column is imaged with the defocus of its own.
        """
        pixels = intensity_vu.shape[1] - 2 * PADDING
        u_um = (np.arange(pixels) - (pixels - 1) / 2) * pixel_nm / 1000
        tilt = math.tan(math.radians(theta_deg)) if self._settings.tilted_focus else 0.0
        defocus_u_um = defocus_um + tilt * u_um
        return self._blurred(intensity_vu, pixel_nm, defocus_u_um, energy_ev)

    def _blurred(
        self,
        intensity_vu: Image,
        pixel_nm: float,
        defocus_u_um: NDArray[np.float64],
        energy_ev: float,
    ) -> Image:
        """Blur strips of columns at planes of defocus, and blend them; `PADDING` is cut off."""
        planes_um = _planes_um(defocus_u_um, self.depth_of_focus_um(energy_ev))
        weights_pu = _hats(planes_um, defocus_u_um)
        # The blur reaches beyond the edges of what is given, and finds its mirror image there.
        blur_nm = 1000 * float(np.abs(planes_um).max()) * self.numerical_aperture(energy_ev)
        beyond = min(math.ceil(blur_nm / pixel_nm), *intensity_vu.shape)
        reach = PADDING + beyond
        rows, width = (fft.next_fast_len(size + 2 * beyond, True) for size in intensity_vu.shape)
        fill = [
            (beyond, new - size - beyond)
            for new, size in zip((rows, width), intensity_vu.shape, strict=True)
        ]
        spectrum_fu = fft.rfft(np.pad(intensity_vu, fill, mode="symmetric"), axis=0)

        spans = [np.flatnonzero(weights_u)[[0, -1]] + [0, 1] for weights_u in weights_pu]
        widest = max(int(end - begin) for begin, end in spans)
        columns = min(fft.next_fast_len(widest + 2 * reach), width)
        focused, blur_per_um = self._transfer_parts(
            np.hypot(
                fft.rfftfreq(rows, pixel_nm).astype(np.float32)[:, None],
                fft.fftfreq(columns, pixel_nm).astype(np.float32)[None, :],
            ),
            energy_ev,
        )
        result_fu = np.zeros((len(spectrum_fu), len(defocus_u_um)), np.complex64)
        for plane_um, weights_u, (begin, end) in zip(planes_um, weights_pu, spans, strict=True):
            first = min(begin, width - columns)
            strip = fft.fft(spectrum_fu[:, first : first + columns], axis=1)
            strip *= focused * _disc(blur_per_um * np.float32(abs(plane_um)))
            blurred = fft.ifft(strip, axis=1, overwrite_x=True)
            from_column = begin - first + reach
            result_fu[:, begin:end] += (
                blurred[:, from_column : from_column + end - begin] * weights_u[begin:end]
            )
        image_vu: Image = fft.irfft(result_fu, rows, axis=0)
        return image_vu[reach : reach + intensity_vu.shape[0] - 2 * PADDING].copy()


def _disc(a: Image) -> Image:
    """Return 2 J1(a) / a, the transfer function of a disc."""
    safe = np.maximum(a, np.float32(1e-3))
    result: Image = (2 * j1(safe) / safe).astype(np.float32, copy=False)
    return result


def _planes_um(defocus_u_um: NDArray[np.float64], depth_of_focus_um: float) -> NDArray[np.float64]:
    """Return planes between the extremes, closer than the transfer function changes."""
    low_um, high_um = float(defocus_u_um.min()), float(defocus_u_um.max())
    nearest_um = float(np.abs(defocus_u_um).min())
    step_um = max(depth_of_focus_um / PLANES_PER_DEPTH_OF_FOCUS, nearest_um / 16)
    count = min(1 + math.ceil((high_um - low_um) / step_um), len(defocus_u_um))
    return np.linspace(low_um, high_um, count)


def _hats(planes_um: NDArray[np.float64], defocus_u_um: NDArray[np.float64]) -> Image:
    """Return how much of each plane is in each column, [plane, u]: linear, of sum 1."""
    if len(planes_um) == 1:
        return np.ones((1, len(defocus_u_um)), np.float32)
    step_um = planes_um[1] - planes_um[0]
    distance = np.abs(planes_um[:, None] - defocus_u_um[None, :]) / step_um
    hats: Image = np.maximum(1 - distance, 0).astype(np.float32)
    return hats


def shifted(image_vu: Image, du_pixels: float, dv_pixels: float, margin: int) -> Image:
    """Move the content of an image by (+du, +dv) pixels; `margin` pixels at every edge are cut off.

    What the zone plate passes is interpolated from 16 pixels in u and 16 in v, with the weights that
    are best for it in the sense of least squares.

    >>> image_vu = np.zeros((20, 20), np.float32)
    >>> image_vu[10, 11] = 1.0
    >>> np.argwhere(shifted(image_vu, -1.0, 0.0, margin=9))
    array([[1, 1]])

    Raises
    ------
    ValueError
        If the margin is less than the shift and the pixels to interpolate from.
    """
    if margin < SHIFT_REACH + max(abs(du_pixels), abs(dv_pixels)):
        raise ValueError(
            f"shift by {du_pixels:g}, {dv_pixels:g} pixels with a margin of {margin}: expected a "
            f"margin of the shift and {SHIFT_REACH} pixels"
        )
    rows, columns = image_vu.shape[0] - 2 * margin, image_vu.shape[1] - 2 * margin
    first_u, rest_u = _split(margin - du_pixels)
    first_v, rest_v = _split(margin - dv_pixels)
    if rest_u == 0 and rest_v == 0:
        return image_vu[first_v : first_v + rows, first_u : first_u + columns].copy()
    result_vu = np.empty((rows, columns), np.float32)
    needed_vu = image_vu[
        first_v - SHIFT_REACH + 1 : first_v + rows + SHIFT_REACH,
        first_u - SHIFT_REACH + 1 : first_u + columns + SHIFT_REACH,
    ]
    _interpolate(needed_vu, _weights(rest_u), _weights(rest_v), result_vu)
    return result_vu


def _split(position: float) -> tuple[int, float]:
    """Return a position as whole pixels and the rest, which is 0 where it is less than 10^-6."""
    nearest = round(position)
    if abs(position - nearest) < 1e-6:
        return nearest, 0.0
    return math.floor(position), position - math.floor(position)


def _weights(rest: float) -> Image:
    """Return the weights of the pixels 1 - SHIFT_REACH .. SHIFT_REACH for the point `rest`, 0..1.

    They minimize the integral of |sum of w_k exp(2 pi i f k) - exp(2 pi i f rest)|^2, weighted by
    (1 - |f| / b)^2, nearly the square of what the zone plate leaves of a frequency: sum over l of
    K(k - l) w_l = K(k - rest), K the Fourier transform of the weight. Their sum is made 1.
    """
    pixels = np.arange(1 - SHIFT_REACH, SHIFT_REACH + 1)
    weights = _inverse() @ _correlation(pixels - rest)
    result: Image = (weights / weights.sum()).astype(np.float32)
    return result


@cache
def _inverse() -> NDArray[np.floating[Any]]:
    pixels = np.arange(2 * SHIFT_REACH)
    return np.linalg.inv(_correlation(pixels[:, None] - pixels))


def _correlation(distance: NDArray[Any]) -> NDArray[np.float64]:
    """Return (6 / a^2) (1 - sin(a) / a), a = 2 pi b distance: the transform of (1 - |f| / b)^2."""
    a = 2 * np.pi * SHIFT_BAND * np.where(distance == 0, 1.0, distance)
    correlation: NDArray[np.float64] = np.where(distance == 0, 1.0, 6 / a**2 * (1 - np.sin(a) / a))
    return correlation


@njit(fastmath=True, nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba is untyped
def _interpolate(image_vu: Image, weights_u: Image, weights_v: Image, result_vu: Image) -> None:
    """Sum over the weights in u, then in v."""
    rows, columns = result_vu.shape
    in_u = np.empty((image_vu.shape[0], columns), np.float32)
    for row in range(image_vu.shape[0]):
        for column in range(columns):
            value = np.float32(0)
            for tap in range(2 * SHIFT_REACH):
                value += weights_u[tap] * image_vu[row, column + tap]
            in_u[row, column] = value
    for row in range(rows):
        for column in range(columns):
            result_vu[row, column] = 0
        for tap in range(2 * SHIFT_REACH):
            weight = weights_v[tap]
            for column in range(columns):
                result_vu[row, column] += weight * in_u[row + tap, column]


def _smooth_noise(shape_vu: tuple[int, int], scale: float, random: np.random.Generator) -> Image:
    """Return Gaussian noise of mean 0 and rms 1, smooth over `scale` pixels, without seams."""
    frequency = np.hypot(fft.fftfreq(shape_vu[0])[:, None], fft.rfftfreq(shape_vu[1])[None, :])
    spectrum = fft.rfft2(random.standard_normal(shape_vu))
    noise = fft.irfft2(spectrum * np.exp(-2 * (np.pi * frequency * scale) ** 2), s=shape_vu)
    noise -= noise.mean()
    result: Image = (noise / noise.std()).astype(np.float32)
    return result


class Illumination:
    """The structure of the condenser's light on the camera, mean 1: smooth spots, fine grain.

    The structure walks over the camera at a constant rate, in a direction that `seed` draws, and
    comes back on the other side.
    """

    def __init__(
        self, settings: settings.Illumination, shape_vu: tuple[int, int], seed: int
    ) -> None:
        """Draw the structure, and where it walks."""
        self._settings = settings
        random = np.random.default_rng([seed, 0x111])
        smooth = _smooth_noise(shape_vu, settings.smooth_scale_pixels, random)
        fine = _smooth_noise(shape_vu, settings.fine_scale_pixels, random)
        structure_vu = np.exp(settings.smooth_rms * smooth + settings.fine_rms * fine)
        self._structure_vu = np.float32(1 / structure_vu.mean()) * structure_vu
        self._gradient_v = np.linspace(-0.5, 0.5, shape_vu[0], dtype=np.float32)[:, None]
        direction = random.uniform(0, 2 * math.pi)
        pixels_per_s = settings.drift_pixels_per_h / 3600
        self._velocity_uv = pixels_per_s * np.array([math.cos(direction), math.sin(direction)])
        self._walked: tuple[tuple[int, int], Image] = ((0, 0), self._structure_vu)

    def image(self, angle_mrad: float, time_s: float) -> Image:
        """Return the illumination at a time, for light from a vertical angle.

        The helicities differ by a slope along v. The mean over the image is 1.
        """
        its = self._settings
        slope = its.helicity_gradient * angle_mrad / (2 * its.helicity_angle_mrad)
        structure_vu = self._structure_at(time_s)
        result: Image = structure_vu * (1 + np.float32(slope) * self._gradient_v)
        result *= np.float32(1 / result.mean())
        return result

    def _structure_at(self, time_s: float) -> Image:
        u, v = np.rint(self._velocity_uv * time_s * WALK_STEPS_PER_PIXEL).astype(int).tolist()
        steps, structure_vu = self._walked
        if steps != (u, v):
            whole_u, whole_v = u // WALK_STEPS_PER_PIXEL, v // WALK_STEPS_PER_PIXEL
            rolled_vu = np.roll(self._structure_vu, (whole_v, whole_u), axis=(0, 1))
            margin = SHIFT_REACH + 1
            structure_vu = shifted(
                np.pad(rolled_vu, margin, mode="wrap"),
                u / WALK_STEPS_PER_PIXEL - whole_u,
                v / WALK_STEPS_PER_PIXEL - whole_v,
                margin,
            )
            self._walked = ((u, v), structure_vu)
        return structure_vu

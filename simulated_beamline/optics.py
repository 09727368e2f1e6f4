"""The microscope between sample and camera: zone plate, focus, illumination."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import j1

OUTERMOST_ZONE_NM = 25.0
"""Outermost zone of the objective zone plate [Hierro-Rodriguez et al. 2020]."""
HC_EV_NM = 1239.84198
FOCUS_UM = {"above": 0.0, "below": 1.5}
"""Best position of the zone plate for light from 0.2 mrad above and below the orbit plane: the
acquisition scripts move it by 1 to 2 motor units between helicities."""
FOCUS_ANGLE_MRAD = 0.2
NOMINAL_EV = 707.4
FOCAL_LENGTH_UM = 2140.0
"""Focal length at `NOMINAL_EV` of 1500 zones, an assumption; it grows with the photon energy."""
PADDING = 16
"""Pixels around an image that keep the edges from leaking round in the transform."""

ILLUMINATION_SCALE_PIXELS = 40.0
ILLUMINATION_RMS = 0.06
ILLUMINATION_FINE_SCALE_PIXELS = 4.0
ILLUMINATION_FINE_RMS = 0.015
HELICITY_GRADIENT = 0.04
"""Change of the illumination from edge to edge between the two helicities: an assumption."""

Image = NDArray[np.float32]


def best_focus_um(angle_mrad: float, energy_ev: float) -> float:
    """Return the zone plate's best position for light from a vertical angle, at a photon energy."""
    middle = (FOCUS_UM["above"] + FOCUS_UM["below"]) / 2
    slope = (FOCUS_UM["above"] - FOCUS_UM["below"]) / (2 * FOCUS_ANGLE_MRAD)
    chromatic = FOCAL_LENGTH_UM * (energy_ev - NOMINAL_EV) / NOMINAL_EV
    return middle + slope * angle_mrad + chromatic


def transfer(frequency_per_nm: Image, defocus_um: float, energy_ev: float) -> Image:
    """Return the incoherent transfer function of the zone plate, 1 at zero frequency.

    With s = f / f_c, f_c = 1 / (outermost zone), in focus it is that of a circular pupil,
    (2 / pi) (acos s - s sqrt(1 - s^2)); out of focus it is multiplied by 2 J1(a) / a with
    a = 2 pi f r (1 - s), r the radius of the blur disc (A. C. Stokseth, J. Opt. Soc. Am. 59, 1314
    (1969)). r = |defocus| NA, NA = wavelength / (2 outermost zone).
    """
    s = np.minimum(frequency_per_nm * OUTERMOST_ZONE_NM, 1.0)
    focused = 2 / np.pi * (np.arccos(s) - s * np.sqrt(1 - s**2))
    aperture = HC_EV_NM / energy_ev / (2 * OUTERMOST_ZONE_NM)
    a = 2 * np.pi * frequency_per_nm * (1 - s) * abs(defocus_um) * 1000 * aperture
    small = a < 1e-3
    blur = np.where(small, 1.0, 2 * j1(a) / np.where(small, 1.0, a))
    result: Image = (focused * blur).astype(np.float32)
    return result


def blur(image_vu: Image, pixel_nm: float, defocus_um: float, energy_ev: float) -> Image:
    """Image an intensity through the zone plate; the `PADDING` pixels at its edges are cut off."""
    rows, columns = image_vu.shape
    frequency = np.hypot(
        fft.fftfreq(rows, pixel_nm)[:, None], fft.rfftfreq(columns, pixel_nm)[None, :]
    ).astype(np.float32)
    spectrum = fft.rfft2(image_vu) * transfer(frequency, defocus_um, energy_ev)
    blurred = fft.irfft2(spectrum, s=image_vu.shape)
    cut: Image = np.ascontiguousarray(
        blurred[PADDING : rows - PADDING, PADDING : columns - PADDING], dtype=np.float32
    )
    return cut


def _smooth_noise(shape_vu: tuple[int, int], scale: float, random: np.random.Generator) -> Image:
    """Return Gaussian noise of mean 0 and rms 1, smooth over `scale` pixels."""
    frequency = np.hypot(fft.fftfreq(shape_vu[0])[:, None], fft.rfftfreq(shape_vu[1])[None, :])
    spectrum = fft.rfft2(random.standard_normal(shape_vu))
    noise = fft.irfft2(spectrum * np.exp(-2 * (np.pi * frequency * scale) ** 2), s=shape_vu)
    noise -= noise.mean()
    result: Image = (noise / noise.std()).astype(np.float32)
    return result


class Illumination:
    """The structure of the condenser's light on the camera, mean 1: smooth spots, fine grain."""

    def __init__(self, shape_vu: tuple[int, int], seed: int) -> None:
        """Draw the structure."""
        random = np.random.default_rng([seed, 0x111])
        smooth = _smooth_noise(shape_vu, ILLUMINATION_SCALE_PIXELS, random)
        fine = _smooth_noise(shape_vu, ILLUMINATION_FINE_SCALE_PIXELS, random)
        structure = 1 + ILLUMINATION_RMS * smooth + ILLUMINATION_FINE_RMS * fine
        self._structure_vu = (structure / structure.mean()).astype(np.float32)
        self._gradient_v = np.linspace(-0.5, 0.5, shape_vu[0], dtype=np.float32)[:, None]

    def image(self, angle_mrad: float) -> Image:
        """Return the illumination for light from a vertical angle: helicities differ by a tilt."""
        tilt = HELICITY_GRADIENT * angle_mrad / (2 * FOCUS_ANGLE_MRAD)
        result: Image = self._structure_vu * (1 + np.float32(tilt) * self._gradient_v)
        return result

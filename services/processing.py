"""From the exposures of an angle to its signals: the same for the live reconstruction and for `mistral-txm process`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import Grid, TiltSeries, Volume, reconstruct, volume_of
from mistral_txm.reconstruction.signal import (
    Dark,
    Rate,
    Signals,
    absorbance,
    dark_level,
    helicity_signals,
    mean_rate,
    measure_noise,
)
from mistral_txm.services.exposures import Exposure
from mistral_txm.services.series_exposures import Angle

METHOD = "direct"
LARGEST_FIELD = 400
"""Lateral voxels of a volume; of larger images the middle is reconstructed."""
LARGEST_IMAGE = 640
"""Pixels of an image that such a volume needs: turned by any azimuth, and with a margin for tilted rays."""
DEPTH_WITHOUT_LAYERS = 80
"""Layers of the volume of a film of which nobody said where it is magnetic."""
NO_LIGHT_STD = 0.5
"""Standard deviation of the signal from which on a pixel says nothing: its light is as weak as its noise."""


class ProcessingError(ValueError):
    """The signals of an angle cannot be made; the message says which, what is missing and what to do."""


@dataclass(frozen=True)
class AngleSignals:
    """The signals of one tilt, at the azimuth that a person stated and the tilt that was read back."""

    phi_deg: float
    theta_deg: float
    signals: Signals


def needed_for_volume(made: AngleSignals) -> AngleSignals:
    """Cut what no ray through the volume needs off larger images: all views of a series are kept in memory."""
    middle = tuple(_middle(n) for n in made.signals.dichroic_vu.shape)
    images = (made.signals.absorption_vu, made.signals.dichroic_vu, made.signals.std_vu)
    return replace(made, signals=Signals(*(image[middle].copy() for image in images)))


def _middle(n: int) -> slice:
    """Return the middle pixels of a row, so that its centre stays where it is.

    >>> _middle(1024), _middle(1025), _middle(256)
    (slice(192, 832, None), slice(192, 833, None), slice(0, 256, None))
    """
    cut = max((n - LARGEST_IMAGE) // 2, 0)
    return slice(cut, n - cut)


class Processor:
    """Makes signals of angles; keeps what the angles of a run share (darks, flats) once computed.

    Parameters
    ----------
    saturation_counts
        Counts at and above which a pixel is saturated.
    """

    def __init__(self, saturation_counts: float) -> None:
        self._saturation_counts = saturation_counts
        self._darks: dict[tuple[Exposure, ...], Dark] = {}
        self._flats: dict[tuple[Exposure, ...], tuple[Rate, float]] = {}

    def signals(self, angle: Angle) -> AngleSignals:
        """Correct, average, take the logarithm and pair the helicities of one angle.

        Raises
        ------
        ProcessingError
            If a helicity, its flats, or darks of the right exposure time are missing, the jaws stood elsewhere, or the
            frames do not fit together or show no light.
        FrameError
            If a frame cannot be read or is damaged.
        """
        where = f"phi {angle.phi_deg:g} deg, theta {angle.theta_deg:g} deg"
        try:
            made = self._signals(angle, where)
        except ProcessingError:
            raise
        except ValueError as error:
            raise ProcessingError(f"{where}: {error}") from error
        if not np.median(made.signals.std_vu) < NO_LIGHT_STD:
            raise ProcessingError(
                f"{where}: half of the pixels have no light in one helicity or both; was the shutter open? "
                "expose it again"
            )
        return made

    def _signals(self, angle: Angle, where: str) -> AngleSignals:
        if missing := [f"{h:+d}" for h in (1, -1) if not angle.exposures.get(h)]:
            raise ProcessingError(
                f"{where}: no exposure of helicity {missing[0]}; take it with `resume`"
            )
        return AngleSignals(
            angle.stated_phi_deg,
            float(np.mean([one.theta_deg for h in (1, -1) for one in angle.exposures[h]])),
            helicity_signals(self._absorbance(angle, 1, where), self._absorbance(angle, -1, where)),
        )

    def _absorbance(
        self, angle: Angle, helicity: int, where: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        flats = angle.flats.get(helicity)
        if not flats:
            raise ProcessingError(
                f"{where}: the run has no flats of helicity {helicity:+d}; nothing is normalised without them"
            )
        exposures = angle.exposures[helicity]
        for one in (*flats, *exposures):
            if one.polarization != helicity:
                raise ProcessingError(
                    f"{where}: {one.stream} {one.seq_num} of helicity {helicity:+d} was taken with the jaws at "
                    f"helicity {one.polarization:+d} (0: at neither); its sign is unknown, expose it again"
                )
        flat, gain = self._flat(flats, angle.darks, where)
        sample = mean_rate(
            _counts(exposures),
            self._dark(exposures, angle.darks, where),
            _doses(exposures),
            gain,
            saturation_counts=self._saturation_counts,
        )
        return absorbance(sample, flat)

    def _flat(
        self, flats: tuple[Exposure, ...], darks: tuple[Exposure, ...], where: str
    ) -> tuple[Rate, float]:
        if flats not in self._flats:
            dark = self._dark(flats, darks, where)
            counts, doses = _counts(flats), _doses(flats)
            gain = measure_noise(counts, dark, doses)
            rate = mean_rate(counts, dark, doses, gain, saturation_counts=self._saturation_counts)
            self._flats[flats] = rate, gain
        return self._flats[flats]

    def _dark(self, exposures: Sequence[Exposure], darks: tuple[Exposure, ...], where: str) -> Dark:
        """Return the dark level for exposures of one exposure time."""
        times_s = {one.exposure_s for one in exposures}
        fitting = tuple(one for one in darks if any(np.isclose(one.exposure_s, t) for t in times_s))
        if len(times_s) != 1 or not fitting:
            raise ProcessingError(
                f"{where}: exposures of {', '.join(f'{t:g}' for t in sorted(times_s))} s, but no dark "
                "frames of that one time in the run"
            )
        if fitting not in self._darks:
            self._darks[fitting] = dark_level(_counts(fitting))
        return self._darks[fitting]


def tilt_series(signals: Iterable[AngleSignals]) -> list[TiltSeries]:
    """Put the signals of angles together, one tilt series per azimuth, the tilts ascending."""
    by_azimuth: dict[float, list[AngleSignals]] = {}
    for one in sorted(signals, key=lambda one: (one.phi_deg, one.theta_deg)):
        angles = by_azimuth.setdefault(one.phi_deg, [])
        shape = one.signals.dichroic_vu.shape
        if angles and shape != (expected := angles[0].signals.dichroic_vu.shape):
            raise ProcessingError(
                f"phi {one.phi_deg:g} deg, theta {one.theta_deg:g} deg: images of {shape} pixels, expected {expected} "
                f"as at theta {angles[0].theta_deg:g} deg; was the region of interest changed?"
            )
        angles.append(one)
    return [
        TiltSeries(
            phi_deg,
            np.array([one.theta_deg for one in angles]),
            np.stack([one.signals.dichroic_vu for one in angles]),
            np.stack([one.signals.std_vu for one in angles]),
        )
        for phi_deg, angles in by_azimuth.items()
    ]


def volume_grid(
    shape_vu: tuple[int, int], pixel_nm: float, layers_nm: Sequence[tuple[float, float]]
) -> Grid:
    """Return the voxels for images of a shape: as wide as a pixel, from below the lowest layer to above the highest.

    >>> volume_grid((1024, 1024), 10.5, [(-120.0, -40.0), (40.0, 120.0)]).shape_zyx
    (24, 400, 400)
    """
    reach_nm = max((abs(edge) for layer in layers_nm for edge in layer), default=0.0)
    depth = 2 * ceil(reach_nm / pixel_nm) or DEPTH_WITHOUT_LAYERS
    height, width = (min(n, LARGEST_FIELD) for n in shape_vu)
    return Grid((depth, height, width), pixel_nm)


def reconstruct_signals(
    signals: Sequence[AngleSignals], pixel_nm: float, layers_nm: Sequence[tuple[float, float]]
) -> Volume:
    """Solve for the magnetization from the signals of all angles; the magnetic layers, if known, are the prior.

    Raises
    ------
    ValueError
        If the signals do not fit together, or the result is not finite.
    """
    grid = volume_grid(signals[0].signals.dichroic_vu.shape, pixel_nm, layers_nm)
    prior = "layers" if layers_nm else "none"
    series = tilt_series(signals)
    result = reconstruct(series, grid, method=METHOD, prior=prior, layers_nm=layers_nm)
    if not all(np.isfinite(part).all() for part in (result.mx, result.my, result.mz)):
        raise ProcessingError("the reconstruction gave values that are not numbers")
    options = {"depth_voxels": grid.shape_zyx[0], "layers_nm": list(layers_nm)}
    return volume_of(result, series, layers_nm=layers_nm, options=options)


def _counts(exposures: Sequence[Exposure]) -> NDArray[Any]:
    return np.stack([one.read() for one in exposures])


def _doses(exposures: Sequence[Exposure]) -> list[float]:
    return [one.ring_current_ma * one.exposure_s for one in exposures]

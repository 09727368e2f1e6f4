"""From the exposures of an angle to its signals: the same for the live reconstruction and for `mistral-txm process`."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import Grid, Volume, reconstruct, volume_of
from mistral_txm.reconstruction.frames import Dark, Rate, dark_level, mean_rate, measure_noise
from mistral_txm.reconstruction.signal import absorbance, helicity_signals
from mistral_txm.services.alignment import SeriesAlignment, align
from mistral_txm.services.angle_signals import AngleSignals, ProcessingError, with_marks
from mistral_txm.services.exposures import Exposure
from mistral_txm.services.series_exposures import Angle

METHOD = "direct"
LARGEST_FIELD = 400
"""Lateral voxels of a volume; of larger images the middle is reconstructed."""
DEPTH_WITHOUT_LAYERS = 80
"""Layers of the volume of a film of which nobody said where it is magnetic."""
NO_LIGHT_STD = 0.5
"""Standard deviation of the signal from which on a pixel says nothing: its light is as weak as its noise."""


class Processor:
    """Makes signals of angles; keeps what the angles of a run share (darks, flats) once computed.

    Parameters
    ----------
    saturation_counts
        Counts at and above which a pixel is saturated.
    pixel_nm
        Pixel on the sample, nm.
    """

    def __init__(self, saturation_counts: float, pixel_nm: float) -> None:
        self._saturation_counts = saturation_counts
        self._pixel_nm = pixel_nm
        self._darks: dict[tuple[Exposure, ...], Dark] = {}
        self._flats: dict[tuple[Exposure, ...], tuple[Rate, float]] = {}

    def signals(self, angle: Angle) -> AngleSignals:
        """Correct, average, take the logarithm and pair the helicities of one angle, and see what marks it.

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
        return with_marks(made, self._pixel_nm)

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
    signals: Sequence[AngleSignals],
    pixel_nm: float,
    layers_nm: Sequence[tuple[float, float]],
    surfaces_nm: tuple[float, float] | None = None,
) -> tuple[Volume, SeriesAlignment]:
    """Align all views and solve for the magnetization; the magnetic layers, if known, are the prior.

    Raises
    ------
    ValueError
        If the signals do not fit together, or the result is not finite.
    """
    views, alignment = align(signals, pixel_nm, surfaces_nm)
    series = [one.tilt_series(pixel_nm) for one in views]
    grid = volume_grid(signals[0].signals.dichroic_vu.shape, pixel_nm, layers_nm)
    prior = "layers" if layers_nm else "none"
    result = reconstruct(series, grid, method=METHOD, prior=prior, layers_nm=layers_nm)
    if not all(np.isfinite(part).all() for part in (result.mx, result.my, result.mz)):
        raise ProcessingError("the reconstruction gave values that are not numbers")
    options = {"depth_voxels": grid.shape_zyx[0], "layers_nm": list(layers_nm)}
    return volume_of(result, series, layers_nm=layers_nm, options=options), alignment


def surfaces_of(sample: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the sample's surfaces on which spheres lie, if a start document's ``sample`` states them."""
    surfaces = sample.get("surfaces_nm")
    return None if surfaces is None else (float(surfaces[0]), float(surfaces[1]))


def _counts(exposures: Sequence[Exposure]) -> NDArray[Any]:
    return np.stack([one.read() for one in exposures])


def _doses(exposures: Sequence[Exposure]) -> list[float]:
    return [one.ring_current_ma * one.exposure_s for one in exposures]

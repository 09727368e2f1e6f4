"""The signals of one tilt, and what is seen in them once: gold spheres, and how far the helicities lie apart."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mistral_txm.reconstruction.fiducials import (
    DIAMETER_NM,
    Fiducials,
    fiducial_mask,
    find_fiducials,
)
from mistral_txm.reconstruction.helicity import (
    NO_OFFSET,
    HelicityOffset,
    helicity_offset,
    registered,
)
from mistral_txm.reconstruction.repeats import Findings
from mistral_txm.reconstruction.signal import Signals

LARGEST_IMAGE = 640
"""Pixels of an image that the largest volume needs: turned by any azimuth, and with a margin for tilted rays."""
SMALLEST_IMAGE = 16
"""Pixels of an image in which spheres can be looked for."""


class ProcessingError(ValueError):
    """The signals of an angle cannot be made; the message says which, what is missing and what to do."""


@dataclass(frozen=True)
class AngleSignals:
    """The signals of one tilt, at the azimuth that a person stated and the tilt that was read back.

    The images are as they were exposed: those of both helicities lie `helicity_offset` apart, and the spheres were
    found in the mean of both, in all of the frame.
    """

    phi_deg: float
    theta_deg: float
    signals: Signals
    fiducials: Fiducials = field(default_factory=Fiducials.none)
    helicity_offset: HelicityOffset = NO_OFFSET
    findings: Mapping[int, Findings] = field(default_factory=dict)
    """By helicity, what was found in the exposures and left out."""
    references_left_out: tuple[str, ...] = ()
    """A line for each dark or flat that could not be read: which, and why."""
    shared_part: float = 0.0
    """Part of the variance of a usual pixel that is the flats': all views that have the same flats share it."""


def with_marks(made: AngleSignals, pixel_nm: float) -> AngleSignals:
    """Find the spheres and the helicities' offset in the signals of an angle."""
    signals = made.signals
    shape = (signals.absorption_vu.shape[0], signals.absorption_vu.shape[1])
    if min(shape) < SMALLEST_IMAGE or 4 * pixel_nm > DIAMETER_NM:
        return made
    found = find_fiducials(signals.absorption_vu, pixel_nm)
    spoiled = fiducial_mask(shape, found.position_vu_nm, found.radius_nm, pixel_nm)
    middle = tuple(_middle(n) for n in shape)
    mean, half = signals.absorption_vu[middle], signals.dichroic_vu[middle]
    offset = helicity_offset(
        mean + half,
        mean - half,
        float(np.median(signals.std_vu[middle])),
        pixel_nm,
        left_out_vu=spoiled[middle],
    )
    return replace(made, fiducials=found, helicity_offset=offset)


def needed_for_volume(made: AngleSignals, pixel_nm: float) -> AngleSignals:
    """Cut what no ray through the volume needs off larger images, and lay the images of both helicities on each other.

    All views of a series are kept in memory.
    """
    middle = tuple(_middle(n) for n in made.signals.dichroic_vu.shape)
    mean, half, std = (
        image[middle]
        for image in (made.signals.absorption_vu, made.signals.dichroic_vu, made.signals.std_vu)
    )
    if made.helicity_offset.is_known:
        plus, minus = registered(mean + half, mean - half, made.helicity_offset.vu_nm / pixel_nm)
        mean, half = np.float32(0.5) * (plus + minus), np.float32(0.5) * (plus - minus)
    return replace(made, signals=Signals(*(image.copy() for image in (mean, half, std))))


def _middle(n: int) -> slice:
    """Return the middle pixels of a row, so that its centre stays where it is.

    >>> _middle(1024), _middle(1025), _middle(256)
    (slice(192, 832, None), slice(192, 833, None), slice(0, 256, None))
    """
    cut = max((n - LARGEST_IMAGE) // 2, 0)
    return slice(cut, n - cut)


def by_azimuth(signals: Iterable[AngleSignals]) -> dict[float, list[AngleSignals]]:
    """Group the signals of angles by their azimuth, the tilts ascending.

    Raises
    ------
    ProcessingError
        If the images of an azimuth are not of one shape.
    """
    grouped: dict[float, list[AngleSignals]] = {}
    for one in sorted(signals, key=lambda one: (one.phi_deg, one.theta_deg)):
        angles = grouped.setdefault(one.phi_deg, [])
        shape = one.signals.dichroic_vu.shape
        if angles and shape != (expected := angles[0].signals.dichroic_vu.shape):
            raise ProcessingError(
                f"phi {one.phi_deg:g} deg, theta {one.theta_deg:g} deg: images of {shape} pixels, expected {expected} "
                f"as at theta {angles[0].theta_deg:g} deg; was the region of interest changed?"
            )
        angles.append(one)
    return grouped

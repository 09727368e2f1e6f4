"""Where the region of a `centre_rotation` run lies against the tilt axis, from the run's documents and frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mistral_txm.reconstruction.rotation_axis import AxisFit, RegionPath, fit_axis, follow_region
from mistral_txm.services.scans import Rates, Scan, ScanError, expect, read_scan


@dataclass(frozen=True)
class RegionAxis:
    """How the region went through the field of view, and where it lies."""

    path: RegionPath
    fit: AxisFit


def locate_region(data: Path, uid: str) -> AxisFit:
    """Return where the region of a run of a data folder lies, from its journal and frames alone.

    Raises
    ------
    ValueError
        If there is no such run, it is another, or the region cannot be followed.
    FrameError
        If a frame cannot be read or is damaged.
    """
    return evaluate_rotation_axis(read_scan(data, uid)).fit


def evaluate_rotation_axis(scan: Scan) -> RegionAxis:
    """Follow the region that the start document tells, at the reference tilt, and fit it.

    Raises
    ------
    ScanError
        If the run is another scan, or the reference or the flats lack.
    InputError
        If the region cannot be followed over enough tilts.
    FrameError
        If a frame cannot be read or is damaged.
    """
    expect(scan, "theta")
    helicity = int(scan.start["scan"]["helicity"])
    reference_deg = float(scan.start["scan"]["reference"])
    places = sorted(scan.sample, key=lambda place: scan.readbacks[place])
    if (helicity, reference_deg) not in places:
        raise ScanError(f"{scan.name}: the exposures at {reference_deg:g} deg lack")
    rates = Rates(scan)
    path = follow_region(
        np.array([scan.readbacks[place] for place in places]),
        [rates.transmittance(place, (helicity, None)) for place in places],
        scan.pixel_nm,
        places.index((helicity, reference_deg)),
        reference_u_nm=1000 * float(scan.start["scan"]["region_u_um"]),
    )
    return RegionAxis(path, fit_axis(path))

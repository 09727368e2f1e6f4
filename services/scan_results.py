"""What scans of photon energy, focus and slit tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.focus import Focus, best_focus, sharpness
from mistral_txm.reconstruction.frames import Bool, Rate
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.signal import Signals
from mistral_txm.reconstruction.spectra import (
    Edge,
    Spectrum,
    degree_ratio,
    domains,
    find_edge,
    isotropic,
    region_absorbance,
    spectrum,
    xmcd,
)
from mistral_txm.services.scans import Place, Rates, Scan, ScanError, expect


@dataclass(frozen=True)
class EnergyScan:
    """Spectra of one region: absorbance of both helicities, XMCD, and the edge, if one is in the range."""

    region_vu: Bool
    positive: Spectrum
    negative: Spectrum
    xmcd: Spectrum
    edge: Edge | None
    no_edge: str
    """Why there is no edge; empty where there is one."""


@dataclass(frozen=True)
class FocusSeries:
    """Sharpness against the zone plate's position, and the best focus."""

    helicity: int
    z_um: NDArray[np.float64]
    sharpness_z: NDArray[np.float64]
    focus: Focus


@dataclass(frozen=True)
class PolarizationScan:
    """Intensity and circular degree against the vertical angle, each with its standard deviation.

    The intensity of the open beam is in units of the mean of both helicities' own jaw positions, the
    degree in units of that of helicity +1 there. `half_opening_mrad` is half of what the slit accepts.
    """

    angle_mrad_h: NDArray[np.float64]
    intensity_h: NDArray[np.float64]
    std_intensity_h: NDArray[np.float64]
    degree_h: NDArray[np.float64]
    std_degree_h: NDArray[np.float64]
    half_opening_mrad: float


def evaluate_energy_scan(scan: Scan) -> dict[int, EnergyScan]:
    """Make the spectra of an energy scan, one for each kind of domain.

    Domains are found at the energy of the strongest dichroism (`spectra.domains`): +1 where the
    magnetization points along the beam. Where there are none, the whole image is taken as 0. Energies
    at which a helicity or its flats lack, because the scan was ended, are left out.

    Raises
    ------
    ScanError
        If the run is another scan, or no energy of it is complete.
    FrameError
        If a frame cannot be read or is damaged.
    """
    expect(scan, "energy")
    rates = Rates(scan)
    complete = [
        position
        for position in _positions(scan)
        if all(
            (h, position) in scan.sample and len(scan.flats.get((h, position), ())) >= 2
            for h in (1, -1)
        )
    ]
    if not complete:
        raise ScanError(f"{scan.name}: no energy has sample and flats of both helicities")
    energies = [
        (scan.readbacks[1, position] + scan.readbacks[-1, position]) / 2 for position in complete
    ]
    # Frames are read twice rather than kept: a scan of large ones would fill the memory.
    strongest = max(complete, key=lambda position: _dichroism(rates.signals(position)))
    pair = rates.signals(strongest)
    regions = domains(pair.dichroic_vu, pair.std_vu) or {
        0: np.ones(pair.dichroic_vu.shape, dtype=bool)
    }
    found: dict[tuple[int, int], list[tuple[float, float]]] = {
        (kind, h): [] for kind in regions for h in (1, -1)
    }
    for position in complete:
        for h in (1, -1):
            lit = rates.pair((h, position))
            for kind, region_vu in regions.items():
                found[kind, h].append(region_absorbance(*lit, region_vu))
    results = {}
    for kind, region_vu in regions.items():
        spectra = {h: spectrum(energies, *np.transpose(found[kind, h])) for h in (1, -1)}
        edge, no_edge = None, ""
        try:
            edge = find_edge(isotropic(spectra[1], spectra[-1]))
        except InputError as refusal:
            no_edge = str(refusal)
        results[kind] = EnergyScan(
            region_vu, spectra[1], spectra[-1], xmcd(spectra[1], spectra[-1]), edge, no_edge
        )
    return results


def evaluate_focus_series(scan: Scan) -> FocusSeries:
    """Make the focus curve of a focus series and find the best focus.

    Raises
    ------
    ScanError
        If the run is another scan, or has no flats.
    InputError
        If no maximum lies inside the range.
    FrameError
        If a frame cannot be read or is damaged.
    """
    expect(scan, "zone_plate_z")
    rates = Rates(scan)
    helicity = int(scan.start["scan"]["helicity"])
    places = [place for place, of_it in scan.sample.items() if len(of_it) >= 2]
    flat = rates.flat((helicity, None))
    curve = [sharpness(rates.repeats(place) / flat.rate_vu) for place in places]
    z_um = np.array([scan.readbacks[place] for place in places])
    order = np.argsort(z_um)
    values = np.array(curve)[order]
    return FocusSeries(helicity, z_um[order], values, best_focus(z_um[order], values))


def evaluate_polarization_scan(scan: Scan) -> PolarizationScan:
    """Make intensity and circular degree of a slit scan.

    The degree comes from the dichroic contrast of the domains at each height, compared with that in both
    helicities' own jaw positions (`spectra.degree_ratio`).

    Raises
    ------
    ScanError
        If the run is another scan, or the exposures in both helicities, or of all heights, lack.
    InputError
        If the sample shows no dichroism.
    FrameError
        If a frame cannot be read or is damaged.
    """
    expect(scan, "jaws")
    rates = Rates(scan)
    nominal: list[Place] = [(1, None), (-1, None)]
    complete: list[Place] = [
        (0, position) for position in _positions(scan) if (0, position) in scan.sample
    ]
    if not complete or any(place not in scan.sample for place in nominal):
        raise ScanError(
            f"{scan.name}: the exposures in both helicities, or those of all heights, lack"
        )
    pair = rates.signals(None)
    regions = domains(pair.dichroic_vu, pair.std_vu)
    if not regions:
        raise InputError(
            f"{scan.name}: the sample shows no dichroism; choose the L3 edge and a magnetized region"
        )
    contrast, beam = {}, {}
    for place in (*nominal, *complete):
        lit = rates.pair(place)
        contrast[place], beam[place] = _contrast(lit, regions), _mean(lit[1])
    unit = (beam[1, None][0] + beam[-1, None][0]) / 2
    var_unit = (beam[1, None][1] + beam[-1, None][1]) / 4
    intensity_h = np.array([beam[place][0] for place in complete]) / unit
    var_h = np.array([beam[place][1] for place in complete]) + intensity_h**2 * var_unit
    degrees = [
        degree_ratio(contrast[place], contrast[1, None], contrast[-1, None]) for place in complete
    ]
    per_mm = 1 / float(scan.start["scan"]["slit_distance_m"])
    return PolarizationScan(
        angle_mrad_h=np.array([scan.readbacks[place] for place in complete]) * per_mm,
        intensity_h=intensity_h,
        std_intensity_h=np.sqrt(var_h) / unit,
        degree_h=np.array([ratio for ratio, _ in degrees]),
        std_degree_h=np.sqrt([variance for _, variance in degrees]),
        half_opening_mrad=float(scan.start["scan"]["opening_mm"]) / 2 * per_mm,
    )


def _positions(scan: Scan) -> list[float]:
    return [float(position) for position in scan.start["scan"]["positions"]]


def _dichroism(signals: Signals) -> float:
    """Return the mean square of the dichroic signal beyond its noise."""
    power_vu = signals.dichroic_vu.astype(np.float64) ** 2 - signals.std_vu.astype(np.float64) ** 2
    return float(np.mean(power_vu[np.isfinite(power_vu)]))


def _contrast(lit: tuple[Rate, Rate], regions: Mapping[int, Bool]) -> tuple[float, float]:
    """Return the absorbance of domains of one kind, less that of the other kind, and the variance."""
    value = variance = 0.0
    for sign, region_vu in regions.items():
        a, var_a = region_absorbance(*lit, region_vu)
        value, variance = value + sign * a, variance + var_a
    return value, variance


def _mean(rate: Rate) -> tuple[float, float]:
    known = np.isfinite(rate.var_vu)
    return float(rate.rate_vu[known].mean()), float(rate.var_vu[known].sum()) / known.sum() ** 2

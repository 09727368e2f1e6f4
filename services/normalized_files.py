"""Signals from MARTApp's stacks of exposures that were already divided by a flat, ``TomoNormalized``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import FileError
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.martapp import NormalizedStack, read_normalized
from mistral_txm.reconstruction.signal import helicity_signals
from mistral_txm.reconstruction.transmittance import transmittance_absorbance
from mistral_txm.services.angle_signals import AngleSignals, ProcessingError, with_marks
from mistral_txm.services.processing import NO_LIGHT_STD
from mistral_txm.services.raw_series import SAME_ENERGY_EV, SAME_PIXEL, SAME_TILT_DEG


def normalized_signals(
    paths: Sequence[Path], phi_deg: float
) -> tuple[list[AngleSignals], float, tuple[str, ...]]:
    """Return the signals of the two files of an azimuth, its pixel, nm, and a line for each tilt left out.

    Raises
    ------
    FileError
        If they are not the two helicities of one measurement, or no tilt is in both.
    """
    if len(paths) != 2:
        raise FileError(
            f"{paths[0]}: {len(paths)} TomoNormalized file{'s' * (len(paths) > 1)} of an azimuth; expected two, one "
            "per helicity"
        )
    (negative, of_negative), (positive, of_positive) = sorted(
        ((read_normalized(path), path) for path in paths), key=lambda pair: pair[0].polarization
    )
    if (negative.polarization, positive.polarization) != (-1, 1):
        raise FileError(
            f"{of_negative} and {of_positive}: polarisations {negative.polarization:g} and "
            f"{positive.polarization:g}; expected one negative and one positive, -1 and +1"
        )
    where = f"{of_positive} and {of_negative}"
    pixel_nm = _agreed(where, positive, negative)
    made, notes = [], []
    for theta_deg, of_positive_t, of_negative_t in _tilts(positive.theta_deg, negative.theta_deg):
        at = f"phi {phi_deg:g} deg, theta {theta_deg:g} deg"
        if not (of_positive_t.size and of_negative_t.size):
            there = +1 if of_positive_t.size else -1
            notes.append(
                f"{at}: images of helicity {there:+d} alone, the dichroic signal needs both: left out"
            )
            continue
        try:
            plus = _absorbance(positive, of_positive_t)
            minus = _absorbance(negative, of_negative_t)
        except InputError as problem:
            notes.append(f"{at}: {problem} in one helicity: left out")
            continue
        signals = helicity_signals(plus, minus)
        if not np.median(signals.std_vu) < NO_LIGHT_STD:
            notes.append(
                f"{at}: half of the pixels have no light in one helicity or both: left out"
            )
            continue
        one = AngleSignals(phi_deg, theta_deg, signals)
        made.append(with_marks(one, pixel_nm))
    if not made:
        raise ProcessingError(f"{where}: no tilt can be used; {notes[0]}")
    return made, pixel_nm, tuple(notes)


def _agreed(where: str, positive: NormalizedStack, negative: NormalizedStack) -> float:
    shapes = [one.transmittance_tvu.shape[1:] for one in (positive, negative)]
    if shapes[0] != shapes[1]:
        raise FileError(
            f"{where}: images of {shapes[0]} and {shapes[1]} pixels; expected the same pixels in both"
        )
    energies = np.concatenate([positive.energy_ev, negative.energy_ev])
    if np.ptp(energies) > SAME_ENERGY_EV:
        raise FileError(
            f"{where}: energies of {energies.min():g} to {energies.max():g} eV; expected one energy"
        )
    if not np.isclose(positive.pixel_nm, negative.pixel_nm, rtol=SAME_PIXEL):
        raise FileError(
            f"{where}: pixels of {positive.pixel_nm:g} and {negative.pixel_nm:g} nm; expected the same x_pixel_size"
        )
    return positive.pixel_nm


def _tilts(
    positive_deg: NDArray[np.float64], negative_deg: NDArray[np.float64]
) -> Iterator[tuple[float, NDArray[np.intp], NDArray[np.intp]]]:
    """Give each tilt, ascending, with the numbers of its exposures in either stack."""
    theta_deg = np.concatenate([positive_deg, negative_deg])
    order = np.argsort(theta_deg, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(theta_deg[order]) > SAME_TILT_DEG) + 1):
        of_positive = np.sort(group[group < len(positive_deg)])
        of_negative = np.sort(group[group >= len(positive_deg)]) - len(positive_deg)
        yield float(np.mean(theta_deg[group])), of_positive, of_negative


def _absorbance(
    stack: NormalizedStack, numbers: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    dose = stack.ring_current_ma[numbers] * stack.exposure_s[numbers]
    return transmittance_absorbance(stack.transmittance_tvu[numbers], dose)

"""Numbers that can hardly be in the unit they are said to be in, each refused with one line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import FileError

__all__ = ["checked_energy_ev", "checked_pixel_nm", "checked_tilts_deg"]

PIXEL_NM = (0.5, 1000.0)
"""Effective pixels of X-ray microscopes."""
ENERGY_EV = (50.0, 100e3)
"""Photons that a microscope with X-rays is run with."""
LARGEST_TILT_DEG = 90.0
FEWEST_TILTS = 5
NARROWEST_DEG = 0.3
"""Tilts within pi/2 that span more than this are radians: such a series in deg would show nothing."""


def checked_tilts_deg(where: str, theta_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return tilts that can be degrees.

    Raises `FileError` if one is 90 deg or more, or all of a series are so small that they are radians.

    >>> checked_tilts_deg("a.h5: Angles", np.deg2rad(np.linspace(-55, 55, 9)))
    Traceback (most recent call last):
    mistral_txm.reconstruction.files.FileError: a.h5: Angles span -0.96 to 0.96: these are radians; expected degrees
    """
    largest = float(np.abs(theta_deg).max(initial=0.0))
    if not largest < LARGEST_TILT_DEG:
        raise FileError(f"{where} reach {largest:g} deg; expected tilts between -90 and 90 deg")
    if theta_deg.size and largest <= np.pi / 2 and np.unique(theta_deg).size >= FEWEST_TILTS:
        low, high = float(theta_deg.min()), float(theta_deg.max())
        if high - low > NARROWEST_DEG:
            raise FileError(
                f"{where} span {low:.2f} to {high:.2f}: these are radians; expected degrees"
            )
    return theta_deg


def checked_pixel_nm(where: str, pixel_nm: float) -> float:
    """Return a pixel size that a microscope can have.

    Raises `FileError` for any other.

    >>> checked_pixel_nm("a.h5: pixel", 10500.0)
    Traceback (most recent call last):
    mistral_txm.reconstruction.files.FileError: a.h5: pixel is 10500 nm; expected 0.5 to 1000 nm: is the unit wrong?
    """
    low, high = PIXEL_NM
    if not low <= pixel_nm <= high:
        raise FileError(
            f"{where} is {pixel_nm:g} nm; expected {low:g} to {high:g} nm: is the unit wrong?"
        )
    return pixel_nm


def checked_energy_ev(where: str, energy_ev: float) -> float:
    """Return a photon energy that a microscope can have; raises `FileError` for any other."""
    low, high = ENERGY_EV
    if not low <= energy_ev <= high:
        raise FileError(
            f"{where} is {energy_ev:g} eV; expected {low:g} to {high:g} eV: is the unit wrong?"
        )
    return energy_ev

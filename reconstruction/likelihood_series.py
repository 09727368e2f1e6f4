"""Counts of both helicities as they were measured, and every check of them that names what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.frames import Rate
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.tilt_series import CheckedSeries, TiltSeries

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CountSeries:
    """The counts of one azimuth: helicity +1 first, then -1 (axis h), one view per tilt.

    Args:
        phi_deg: azimuth of the mounted sample, deg.
        theta_deg_t: tilts, shape (views,), deg.
        photons_htvu: photons per pixel, summed over the repeats of an exposure, shape (2, views, v, u): counts above
            dark over the gain (module `frames`); NaN where a pixel is masked. Zeros and what the readout makes
            negative stay as they are.
        dose_ht: ring current times exposure time, summed over the repeats, mA s, shape (2, views).
        flats: of helicity +1 and -1, photons per mA s with their variance, [v, u]. Of K counted photons at a dose D
            that is ``K / D`` and ``K / D^2``; `flat_field.flat_field` filters it.
        read_variance: of a pixel without light, photons squared, summed over the repeats.
        shift_vu_nm_t: where the sample's origin falls, (v, u) from the image's centre, shape (views, 2) or
            (2, views, 2) if the helicities differ, nm; None: in the centre.
        warp_tvu, roll_deg, lean_deg: as in `TiltSeries`.
    """

    phi_deg: float
    theta_deg_t: npt.ArrayLike
    photons_htvu: npt.ArrayLike
    dose_ht: npt.ArrayLike
    flats: tuple[Rate, Rate]
    read_variance: float = 0.0
    shift_vu_nm_t: npt.ArrayLike | None = None
    warp_tvu: npt.ArrayLike | None = None
    roll_deg: float = 0.0
    lean_deg: float = 0.0


@dataclass(frozen=True)
class CheckedCounts:
    """A series after all checks; flats are 1 where a pixel is not usable, and its photons NaN."""

    series: CheckedSeries
    photons_htvu: Float64
    dose_ht: Float64
    flat_hvu: Float64
    flat_var_hvu: Float64
    read_variance: float
    shift_vu_nm_ht: Float64


def as_tilts(one: CountSeries) -> TiltSeries:
    """The series as one of images, for the checks that all have in common."""
    photons = np.asarray(one.photons_htvu, dtype=np.float32)
    if photons.ndim != 4 or photons.shape[0] != 2:
        raise InputError(
            f"series at phi = {one.phi_deg} deg: photons of shape {photons.shape}, expected (2, views, v, u), helicity "
            "+1 first"
        )
    shift = None if one.shift_vu_nm_t is None else np.asarray(one.shift_vu_nm_t, np.float64)
    if shift is not None and shift.ndim == 3:
        shift = shift.mean(axis=0)
    return TiltSeries(
        one.phi_deg, one.theta_deg_t, photons[0], None, shift, one.warp_tvu, one.roll_deg, one.lean_deg
    )  # fmt: skip


def checked_counts(one: CountSeries, series: CheckedSeries) -> CheckedCounts:
    """Check what a series of counts has beyond one of images.

    Raises:
        InputError: for anything that cannot be used, in one line.
    """
    where = series.name
    photons = np.asarray(one.photons_htvu, dtype=np.float64)
    if np.isinf(photons).any():
        raise InputError(f"{where}: infinite photons; mask those pixels as NaN")
    dose = np.asarray(one.dose_ht, dtype=np.float64)
    if dose.shape != photons.shape[:2] or not np.all(np.isfinite(dose) & (dose > 0)):
        raise InputError(
            f"{where}: doses of shape {dose.shape}, expected {photons.shape[:2]} positive numbers, ring current (mA) "
            "times exposure (s)"
        )
    if not (np.isfinite(one.read_variance) and one.read_variance >= 0):
        raise InputError(f"{where}: a read variance of {one.read_variance}, expected 0 or more")
    shape = photons.shape[2:]
    if len(one.flats) != 2 or any(
        f.rate_vu.shape != shape or f.var_vu.shape != shape for f in one.flats
    ):
        raise InputError(f"{where}: flats, expected two of {shape} pixels, of helicity +1 and -1")
    rate = np.stack([flat.rate_vu for flat in one.flats])
    variance = np.stack([flat.var_vu for flat in one.flats])
    usable = np.isfinite(rate) & (rate > 0) & np.isfinite(variance)
    if not usable.any(axis=(1, 2)).all():
        raise InputError(f"{where}: a flat without light; is the shutter open?")
    if np.any(variance[usable] <= 0):
        raise InputError(f"{where}: a flat without variance; give that of its photons")
    views = photons.shape[1]
    shift = np.zeros((2, views, 2)) if one.shift_vu_nm_t is None else np.asarray(one.shift_vu_nm_t)
    if shift.shape not in ((views, 2), (2, views, 2)) or not np.isfinite(shift).all():
        raise InputError(
            f"{where}: shifts of shape {shift.shape}, expected finite ({views}, 2) or (2, {views}, 2): v, u in nm"
        )
    rate, variance = np.where(usable, rate, 1), np.where(usable, variance, 1)
    # readout alone may leave less than nothing in all views of a pixel: no flat explains that
    lit = rate**2 / variance + np.nansum(photons, axis=1) > 0
    photons = np.where((usable & lit)[:, None], photons, np.nan)
    rate, variance = np.where(lit, rate, 1), np.where(lit, variance, 1)
    return CheckedCounts(
        series, photons, dose, rate, variance, float(one.read_variance),
        np.broadcast_to(shift, (2, views, 2)),
    )  # fmt: skip

"""Alignment by what the film itself shows, where fiducials do not suffice or a view shows none."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import InputError, TiltSeries
from mistral_txm.reconstruction.neighbours import Contrast, prepared
from mistral_txm.reconstruction.reprojection import RefinedShifts, refine_shifts
from mistral_txm.services.aligned_views import AlignedViews
from mistral_txm.services.angle_signals import AngleSignals

SMALLEST_IMAGE = 128
"""Pixels across from which on there is enough of the film to compare."""
FEWEST_VIEWS = 9
"""Views of an azimuth that tie each other."""
WIDEST_STEP_DEG = 12.0
"""Neighbouring tilts farther apart than this show the film too differently."""
LEAST_DICHROIC = 0.5
"""Structure of the dichroic signal, in units of its noise, from which on it is used."""
LEAST_ABSORBANCE = 0.05
"""Structure of the absorption from which on it is used: light that drifted leaves half of that, and stays in place."""
LARGEST_STD_PIXELS = 0.5
"""Standard deviation of the shifts, rms, from which on nothing is gained."""
LEAST_RUN_OUT_PIXELS = 1.0
"""Shifts that are smaller than this, rms, are not worth undoing: what goes slowly with the tilt is known no better."""
SLAB_NM = 150.0
"""What shows lies within this of the middle of a film of which nobody said where it is magnetic."""


def shifts_by_structure(
    groups: Sequence[Sequence[AngleSignals]],
    pixel_nm: float,
    layers_nm: Sequence[tuple[float, float]],
) -> RefinedShifts:
    """Find the shifts of all views of all azimuths, and the azimuths of all but the first.

    Raises
    ------
    InputError
        If the film does not show enough for that, with the reason.
    """
    for group in groups:
        where = f"phi {group[0].phi_deg:g} deg"
        tilts_deg = np.array([one.theta_deg for one in group])
        if min(group[0].signals.dichroic_vu.shape) < SMALLEST_IMAGE:
            raise InputError(
                f"{where}: images under {SMALLEST_IMAGE} pixels are too small to compare"
            )
        if len(group) < FEWEST_VIEWS or np.diff(tilts_deg).max() > WIDEST_STEP_DEG:
            raise InputError(f"{where}: too few tilts to compare the views themselves")
    series = [
        TiltSeries(group[0].phi_deg, [one.theta_deg for one in group], _dichroic(group))
        for group in groups
    ]
    found = refine_shifts(_contrasts(groups, series, pixel_nm, layers_nm), pixel_nm)
    std_pixels = float(np.sqrt(np.mean(np.concatenate(found.std_vu_nm_st) ** 2))) / pixel_nm
    if not std_pixels <= LARGEST_STD_PIXELS:
        raise InputError(f"the views' own structure leaves shifts open by {std_pixels:.1f} pixels")
    run_out_pixels = float(np.sqrt(np.mean(np.concatenate(found.shift_vu_nm_st) ** 2))) / pixel_nm
    if run_out_pixels < LEAST_RUN_OUT_PIXELS:
        raise InputError(
            f"the views' own structure shows a run-out of no more than {run_out_pixels:.1f} pixels"
        )
    return found


def completed(
    views: Sequence[AlignedViews],
    pixel_nm: float,
    layers_nm: Sequence[tuple[float, float]],
) -> list[AlignedViews]:
    """Give the views without a place (NaN) the one that the others predict for what they show.

    Raises
    ------
    InputError
        If they have no structure in common with the others.
    """
    groups = [one.angles for one in views]
    series = [
        TiltSeries(one.phi_deg, one.theta_deg_t, _dichroic(group), warp_tvu=one.warp_tvu)
        for one, group in zip(views, groups, strict=True)
    ]
    known = [np.asarray(one.shift_vu_nm_t, dtype=np.float64) for one in views]
    contrasts = _contrasts(groups, series, pixel_nm, layers_nm)
    found = refine_shifts(contrasts, pixel_nm, known_st=known)
    unknown = ~np.isfinite(np.concatenate(known)).all(axis=1)
    std_pixels = float(np.concatenate(found.std_vu_nm_st)[unknown].max()) / pixel_nm
    if not std_pixels <= LARGEST_STD_PIXELS:
        raise InputError(f"the views' own structure leaves shifts open by {std_pixels:.1f} pixels")
    return [
        replace(one, shift_vu_nm_t=shift)
        for one, shift in zip(views, found.shift_vu_nm_st, strict=True)
    ]


def _dichroic(group: Sequence[AngleSignals]) -> NDArray[np.float32]:
    return np.stack([one.signals.dichroic_vu for one in group])


def _contrasts(
    groups: Sequence[Sequence[AngleSignals]],
    dichroic: Sequence[TiltSeries],
    pixel_nm: float,
    layers_nm: Sequence[tuple[float, float]],
) -> list[Contrast]:
    """What the views show that stands out.

    Raises
    ------
    InputError
        If nothing does.
    """
    absorption = [
        replace(one, dichroic_tvu=np.stack([angle.signals.absorption_vu for angle in group]))
        for one, group in zip(dichroic, groups, strict=True)
    ]
    reach_nm = max((abs(edge) for layer in layers_nm for edge in layer), default=SLAB_NM)
    slab = ((-reach_nm, reach_nm),)
    found = []
    structure, noise = _structure(dichroic)
    if structure > LEAST_DICHROIC * noise:
        found.append(Contrast(tuple(dichroic), tuple(layers_nm) or slab))
    structure, noise = _structure(absorption)
    if structure > max(LEAST_ABSORBANCE, LEAST_DICHROIC * noise):
        found.append(Contrast(tuple(absorption), slab, scalar=True))
    if not found:
        raise InputError("the views themselves show nothing to align by")
    return found


def _structure(series: Sequence[TiltSeries]) -> tuple[float, float]:
    """Structure of the least tilted view of each azimuth, rms, less noise, and the noise; the least of all."""
    levels = []
    for one in series:
        flattest = int(np.abs(np.asarray(one.theta_deg_t)).argmin())
        image = np.asarray(one.dichroic_tvu)[flattest : flattest + 1]
        small = prepared(
            TiltSeries(one.phi_deg, np.asarray(one.theta_deg_t)[flattest : flattest + 1], image), 2
        )
        noise = float(np.asarray(small.std_tvu)[0])
        spread = float(np.nanvar(np.asarray(small.dichroic_tvu)))
        levels.append((float(np.sqrt(max(spread - noise**2, 0.0))), noise))
    return min(levels)

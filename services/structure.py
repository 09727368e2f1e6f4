"""Alignment by what the film itself shows, where fiducials do not suffice or a view shows none."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import InputError, TiltSeries
from mistral_txm.reconstruction.neighbours import Contrast, prepared
from mistral_txm.reconstruction.placing import place_views
from mistral_txm.reconstruction.reprojection import RefinedShifts, refine_shifts
from mistral_txm.services.aligned_views import AlignedViews
from mistral_txm.services.angle_signals import AngleSignals

Groups = Sequence[Sequence[AngleSignals]]
"""The angles of each azimuth, the tilts ascending."""
Layers = Sequence[tuple[float, float]]

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
BESIDE = 6
"""Views of its own azimuth that predict a view, those of the nearest tilts."""
ACROSS = 8
"""Views of every azimuth that do, evenly apart. Without those of its own, errors of views placed one after another
added up to 0.35 pixels after 22 of them, with them to 0.16."""
SLAB_NM = 150.0
"""What shows lies within this of the middle of a film of which nobody said where it is magnetic."""


def shifts_by_structure(groups: Groups, pixel_nm: float, layers_nm: Layers) -> RefinedShifts:
    """Find the shifts of all views of all azimuths together, and the azimuths of all but the first.

    Raises
    ------
    InputError
        If the film does not show enough for that, with the reason.
    """
    check_comparable(groups)
    series = [
        TiltSeries(group[0].phi_deg, [one.theta_deg for one in group], _dichroic(group))
        for group in groups
    ]
    found = refine_shifts(_contrasts(groups, series, pixel_nm, layers_nm), pixel_nm)
    _check_std(np.sqrt(np.mean(np.concatenate(found.std_vu_nm_st) ** 2)), pixel_nm)
    run_out_pixels = float(np.sqrt(np.mean(np.concatenate(found.shift_vu_nm_st) ** 2))) / pixel_nm
    if run_out_pixels < LEAST_RUN_OUT_PIXELS:
        raise InputError(
            f"the views' own structure shows a run-out of no more than {run_out_pixels:.1f} pixels"
        )
    return found


def check_comparable(groups: Groups) -> None:
    """Refuse what is too little to be aligned by structure, before any image is looked at.

    Raises
    ------
    InputError
        With the reason.
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


def completed(
    views: Sequence[AlignedViews], pixel_nm: float, layers_nm: Layers
) -> list[AlignedViews]:
    """Give the views without a place (NaN) the one that the others predict for what they show.

    Raises
    ------
    InputError
        If they have no structure in common with the others.
    """
    known = [np.asarray(one.shift_vu_nm_t, dtype=np.float64) for one in views]
    shift_st, _ = placed_shifts(views, known, pixel_nm, layers_nm)
    return [replace(one, shift_vu_nm_t=shift) for one, shift in zip(views, shift_st, strict=True)]


def placed_shifts(
    views: Sequence[AlignedViews],
    known_st: Sequence[NDArray[np.float64]],
    pixel_nm: float,
    layers_nm: Layers,
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Shifts of all views, those that are not known (NaN) by what the known ones near them predict, and their
    standard deviations against these, zero for what was known.

    Raises
    ------
    InputError
        If they have no structure in common with the others.
    """
    shift_st = [known.copy() for known in known_st]
    std_st = [np.zeros_like(known) for known in known_st]
    near_s = [
        _near(one.theta_deg_t, np.asarray(np.isfinite(known).all(axis=1)))
        for one, known in zip(views, known_st, strict=True)
    ]
    groups, series = [], []
    for one, near in zip(views, near_s, strict=True):
        group = [one.angles[int(i)] for i in near]
        warp = None if one.warp_tvu is None else one.warp_tvu[near]
        groups.append(group)
        series.append(
            TiltSeries(one.phi_deg, one.theta_deg_t[near], _dichroic(group), warp_tvu=warp)
        )
    contrasts = _contrasts(groups, series, pixel_nm, layers_nm)
    known_near = [known[near] for known, near in zip(known_st, near_s, strict=True)]
    found, std = place_views(contrasts, pixel_nm, known_near)
    _check_std(max(float(one.max()) for one in std), pixel_nm)
    for number, near in enumerate(near_s):
        shift_st[number][near] = found[number]
        std_st[number][near] = std[number]
    return shift_st, std_st


def _near(theta_deg_t: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Which views of an azimuth predict views that are not known, and these."""
    chosen = ~known
    places = np.flatnonzero(known)
    if not len(places):
        return np.flatnonzero(chosen)
    chosen[places[np.linspace(0, len(places) - 1, ACROSS).round().astype(np.intp)]] = True
    for number in np.flatnonzero(~known):
        apart = np.abs(theta_deg_t[places] - theta_deg_t[number])
        chosen[places[np.argsort(apart, kind="stable")[:BESIDE]]] = True
    return np.flatnonzero(chosen)


def _check_std(std_nm: float, pixel_nm: float) -> None:
    if not std_nm <= LARGEST_STD_PIXELS * pixel_nm:
        raise InputError(
            f"the views' own structure leaves shifts open by {std_nm / pixel_nm:.1f} pixels"
        )


def _dichroic(group: Sequence[AngleSignals]) -> NDArray[np.float32]:
    return np.stack([one.signals.dichroic_vu for one in group])


def _contrasts(
    groups: Groups,
    dichroic: Sequence[TiltSeries],
    pixel_nm: float,
    layers_nm: Layers,
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

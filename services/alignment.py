"""Where the sample stood in every view of a series: the same live and offline.

Fiducials say it best; a view without any, or a sample, is aligned by what the film itself shows (`structure`). What
neither can say for sure is not used: the views stay as they were exposed, and the reason is told.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import InputError
from mistral_txm.reconstruction.alignment import MarkedSeries, adjust
from mistral_txm.reconstruction.poses import Alignment
from mistral_txm.reconstruction.reprojection import RefinedShifts
from mistral_txm.services.aligned_views import AlignedViews, AzimuthAlignment, SeriesAlignment
from mistral_txm.services.angle_signals import AngleSignals, by_azimuth
from mistral_txm.services.film_height import middle_height_nm
from mistral_txm.services.structure import Groups, Layers, completed, shifts_by_structure

ByStructure = Callable[[Groups, float, Layers], RefinedShifts]
"""As `shifts_by_structure`."""

LARGEST_RESIDUAL_PIXELS = 0.5
"""Residual of the spheres' centres from which on they are no rigid body, or not the same spheres."""
LARGEST_OUTLIERS = 0.2
"""Part of the centres that may disagree with the others."""
LARGEST_STD_PHI_DEG = 0.5
"""Standard deviation of an azimuth from which on what the person said is better."""
LARGEST_STD_NM = 20.0
"""Standard deviation of a sphere's place from which on the tilts so far do not tell its height. Where half of the
spheres are known no better, they tell nothing of the views."""
LARGEST_PART_LOST = 0.25
"""Part of the views of an azimuth in which no sphere may be seen."""
FEW_TILTS_DEG = 40.0
"""An azimuth whose tilts do not span more yet waits for more of them, where its fiducials do not suffice."""


def align(
    signals: Iterable[AngleSignals],
    pixel_nm: float,
    surfaces_nm: tuple[float, float] | None = None,
    layers_nm: Layers = (),
    by_structure: ByStructure = shifts_by_structure,
) -> tuple[list[AlignedViews], SeriesAlignment]:
    """Align all views of all azimuths, or say why they stay as they were exposed.

    Parameters
    ----------
    signals
        Of all angles so far, with their marks (`angle_signals.with_marks`), in any order.
    pixel_nm
        Pixel, nm.
    surfaces_nm
        Lower and upper surface on which spheres lie, from the middle of the film, which they put at z = 0. Without
        them z is counted from the tilt axis.
    layers_nm
        Where the film is magnetic, from its middle: what shows there ties views without fiducials.
    by_structure
        How films without fiducials are aligned: from nothing, or from what was known before
        (`structure_memory.StructureMemory`).

    Returns
    -------
    The views of each azimuth, in the order of the azimuths, and what to tell of them.

    Raises
    ------
    ProcessingError
        If the images of an azimuth are not of one shape.
    """
    groups = list(by_azimuth(signals).values())
    offset = _mean_offset(groups)
    chosen = [groups]
    begun = [group for group in groups if _span_deg(group) <= FEW_TILTS_DEG]
    if begun and len(begun) < len(groups):
        chosen.append([group for group in groups if _span_deg(group) > FEW_TILTS_DEG])
    reasons = []
    for used in chosen:
        try:
            found = _adjusted(used, pixel_nm)
        except InputError as problem:
            reasons.append(str(problem))
            continue
        waiting = [group for group in groups if not any(group is one for one in used)]
        return _described(used, waiting, found, pixel_nm, surfaces_nm, layers_nm, offset)
    used = chosen[-1]
    try:
        refined = by_structure(used, pixel_nm, layers_nm)
    except InputError as problem:
        reasons.append(str(problem))
    else:
        waiting = [group for group in groups if not any(group is one for one in used)]
        return _by_structure(used, waiting, refined, pixel_nm, reasons[0], offset)
    exposed = [
        AlignedViews(
            group[0].phi_deg,
            group[0].phi_deg,
            np.array([one.theta_deg for one in group]),
            tuple(group),
        )
        for group in groups
    ]
    return exposed, SeriesAlignment(
        False, f"{reasons[0]}; {reasons[-1]}", helicity_offset_vu_nm=offset
    )


def _span_deg(group: Sequence[AngleSignals]) -> float:
    return group[-1].theta_deg - group[0].theta_deg


def _mean_offset(groups: Sequence[Sequence[AngleSignals]]) -> tuple[float, float] | None:
    """Return the mean of the helicities' offsets, each coordinate of each view by how well it is known."""
    known = [
        one.helicity_offset for group in groups for one in group if one.helicity_offset.is_known
    ]
    if not known:
        return None
    weights = np.array([1 / one.std_vu_nm**2 for one in known])
    v, u = np.average([one.vu_nm for one in known], axis=0, weights=weights)
    return float(v), float(u)


def _adjusted(groups: Sequence[Sequence[AngleSignals]], pixel_nm: float) -> Alignment:
    """Return the adjustment of all views if it can be trusted.

    Raises
    ------
    InputError
        With the reason why not.
    """
    if sum(len(one.fiducials) > 0 for group in groups for one in group) < 3:
        raise InputError("fewer than 3 views with fiducials")
    marked = [
        MarkedSeries(
            group[0].phi_deg,
            np.array([one.theta_deg for one in group]),
            [one.fiducials for one in group],
        )
        for group in groups
    ]
    found = adjust(marked, pixel_nm)
    if not found.residual_rms_pixels <= LARGEST_RESIDUAL_PIXELS:
        raise InputError(
            f"the fiducials' places disagree by {found.residual_rms_pixels:.2f} pixels, more than "
            f"{LARGEST_RESIDUAL_PIXELS:g}"
        )
    if found.outliers > LARGEST_OUTLIERS * found.observations:
        raise InputError(
            f"{found.outliers} of {found.observations} places of fiducials disagree with the others"
        )
    # one at the border that few views show says little, and spoils nothing
    usual_nm = float(np.median(found.std_xyz_nm.max(axis=1)))
    if not usual_nm <= LARGEST_STD_NM:
        raise InputError(
            f"the tilts so far leave the fiducials' places open by {usual_nm:.0f} nm, more than {LARGEST_STD_NM:g} nm"
        )
    for pose, one in zip(found.series, marked, strict=True):
        where = f"phi {one.phi_deg:g} deg"
        if not pose.std_phi_deg <= LARGEST_STD_PHI_DEG:
            raise InputError(
                f"{where}: the fiducials leave the azimuth open by {pose.std_phi_deg:.2f} deg, more than "
                f"{LARGEST_STD_PHI_DEG:g} deg"
            )
        lost = int(np.isnan(pose.shift_vu_nm_t).any(axis=1).sum())
        if lost > LARGEST_PART_LOST * len(pose.shift_vu_nm_t):
            raise InputError(
                f"{where}: no fiducial is seen in {lost} of {len(pose.shift_vu_nm_t)} views"
            )
    return found


def _described(
    used: Sequence[Sequence[AngleSignals]],
    waiting: Sequence[Sequence[AngleSignals]],
    found: Alignment,
    pixel_nm: float,
    surfaces_nm: tuple[float, float] | None,
    layers_nm: Layers,
    offset: tuple[float, float] | None,
) -> tuple[list[AlignedViews], SeriesAlignment]:
    """Put the origin into the film's middle, leave out views without a place, and tell what was found."""
    notes = []
    if surfaces_nm is None:
        notes.append("the sample's surfaces are not known: z from the tilt axis")
    else:
        known = found.std_xyz_nm.max(axis=1) <= LARGEST_STD_NM
        height_nm, note = middle_height_nm(found.sphere_xyz_nm[known, 2], surfaces_nm)
        notes.append(note)
        if height_nm is not None:
            found = found.with_origin([0.0, 0.0, height_nm])
    placed = [
        AlignedViews(
            group[0].phi_deg,
            pose.phi_deg,
            pose.theta_deg_t,
            tuple(group),
            pose.shift_vu_nm_t,
            found.warp_t(number),
            found.projected_vu_nm(number),
        )
        for number, (group, pose) in enumerate(zip(used, found.series, strict=True))
    ]
    bare = sum(one.unplaced for one in placed)
    if bare:
        try:
            placed = completed(placed, pixel_nm, layers_nm)
            notes.append(f"{bare} views without fiducials are aligned by what they show")
        except InputError as problem:
            notes.append(str(problem))
    views, azimuths = [], []
    for one, pose in zip(placed, found.series, strict=True):
        if one.unplaced:
            notes.append(
                f"phi {one.stated_phi_deg:g} deg: {one.unplaced} views without fiducials are left out"
            )
        views.append(one.only_placed())
        azimuths.append(
            AzimuthAlignment(
                one.stated_phi_deg,
                pose.phi_deg,
                pose.std_phi_deg,
                pose.tilt_zero_deg,
                len(one.angles),
                one.unplaced,
            )
        )
    told, waits = _waiting(waiting)
    std_nm = _rms([pose.std_shift_vu_nm_t for pose in found.series])
    description = SeriesAlignment(
        aligned=True,
        by="fiducials",
        reason="; ".join(note for note in (*notes, *told) if note),
        std_shift_nm=std_nm,
        std_shift_pixels=std_nm / pixel_nm,
        fiducials=len(found.sphere_xyz_nm),
        residual_nm=found.residual_rms_nm,
        residual_pixels=found.residual_rms_pixels,
        inclination_deg=found.inclination_deg,
        std_inclination_deg=found.std_inclination_deg,
        lean_deg=found.lean_deg,
        std_lean_deg=found.std_lean_deg,
        azimuths=(*azimuths, *waits),
        spheres_xyz_nm=tuple((float(x), float(y), float(z)) for x, y, z in found.sphere_xyz_nm),
        helicity_offset_vu_nm=offset,
    )
    return views, description


def _by_structure(
    used: Sequence[Sequence[AngleSignals]],
    waiting: Sequence[Sequence[AngleSignals]],
    found: RefinedShifts,
    pixel_nm: float,
    why: str,
    offset: tuple[float, float] | None,
) -> tuple[list[AlignedViews], SeriesAlignment]:
    """Lay the views as their structure says, and tell what was found, and why not by fiducials."""
    views, azimuths, notes = [], [], [why]
    for group, phi_deg, std_phi_deg, shift, warp in zip(
        used,
        found.phi_deg_s,
        found.std_phi_deg_s,
        found.shift_vu_nm_st,
        found.warp_st,
        strict=True,
    ):
        theta_deg_t = np.array([one.theta_deg for one in group])
        stated_deg = group[0].phi_deg
        if not np.isfinite(std_phi_deg):
            notes.append(f"phi {stated_deg:g} deg as stated: the film looks the same when turned")
            std_phi_deg = 0.0
        views.append(AlignedViews(stated_deg, phi_deg, theta_deg_t, tuple(group), shift, warp))
        azimuths.append(AzimuthAlignment(stated_deg, phi_deg, std_phi_deg, 0.0, len(group), 0))
    told, waits = _waiting(waiting)
    std_nm = _rms(found.std_vu_nm_st)
    return views, SeriesAlignment(
        aligned=True,
        by="structure",
        provisional_views=found.placed,
        reason="; ".join((*notes, *told)),
        std_shift_nm=std_nm,
        std_shift_pixels=std_nm / pixel_nm,
        inclination_deg=found.axis_deg[0],
        std_inclination_deg=found.std_axis_deg[0],
        lean_deg=found.axis_deg[1],
        std_lean_deg=found.std_axis_deg[1],
        azimuths=(*azimuths, *waits),
        helicity_offset_vu_nm=offset,
    )


def _waiting(
    waiting: Sequence[Sequence[AngleSignals]],
) -> tuple[list[str], list[AzimuthAlignment]]:
    """Tell of azimuths of which there is too little yet."""
    told, azimuths = [], []
    for group in waiting:
        phi_deg, views = group[0].phi_deg, len(group)
        azimuths.append(AzimuthAlignment(phi_deg, phi_deg, 0.0, 0.0, views, views, waiting=True))
        told.append(f"phi {phi_deg:g} deg: {views} views wait for more tilts to be aligned")
    return told, azimuths


def _rms(std_vu_nm_st: Sequence[NDArray[np.float64]]) -> float:
    """Root mean square over the views that have one."""
    std = np.concatenate(list(std_vu_nm_st))
    return float(np.sqrt(np.mean(std[np.isfinite(std)] ** 2)))

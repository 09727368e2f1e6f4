"""Where the sample stood in every view of a series, from its fiducials: the same live and offline.

Whatever fiducials cannot say for sure is not used: the views stay as they were exposed, and the reason is told.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import InputError, TiltSeries
from mistral_txm.reconstruction.alignment import MarkedSeries, adjust
from mistral_txm.reconstruction.fiducials import DIAMETER_NM, fiducial_mask
from mistral_txm.reconstruction.poses import Alignment
from mistral_txm.services.angle_signals import AngleSignals, by_azimuth

LARGEST_RESIDUAL_PIXELS = 0.5
"""Residual of the spheres' centres from which on they are no rigid body, or not the same spheres."""
LARGEST_OUTLIERS = 0.2
"""Part of the centres that may disagree with the others."""
LARGEST_STD_PHI_DEG = 0.5
"""Standard deviation of an azimuth from which on what the person said is better."""
LARGEST_STD_NM = 20.0
"""Standard deviation of a sphere's place from which on the tilts so far do not tell its height."""
LARGEST_PART_LOST = 0.25
"""Part of the views of an azimuth in which no sphere may be seen."""
FEW_TILTS_DEG = 40.0
"""An azimuth whose tilts do not span more yet waits for more of them, where its fiducials do not suffice."""
CLEARLY = 2.0
"""By how much better one assignment of spheres to surfaces has to be than any other."""
OPEN_OFFSET_PIXELS = 0.3
"""Standard deviation of the helicities' offset up to which a sphere's rim shows less than noise."""
WORST_MISFIT = 4.0
"""Mean square of the dichroic signal on spheres, in units of its noise, from which on they are masked."""
HEIGHT_NM = 15.0
"""How well a sphere's height and its surface agree: spheres are not all of one size."""
FARTHEST_NM = 2000.0
"""Nobody puts a film farther from the tilt axis than this: it would leave the field of view."""


@dataclass(frozen=True)
class AzimuthAlignment:
    """What came out for one azimuth: stated and refined, the tilt's zero, deg, and how many views there are of it.

    ``waiting``: none of them is used, because there are too few yet to be aligned.
    """

    stated_phi_deg: float
    phi_deg: float
    std_phi_deg: float
    tilt_zero_deg: float
    views: int
    views_left_out: int
    waiting: bool = False


@dataclass(frozen=True)
class SeriesAlignment:
    """How the views of a series were aligned, in words and numbers; goes into files as JSON.

    ``aligned``: whether they were; if not, ``reason`` says why and the numbers are empty. ``reason`` also says what is
    left out or not known. Residuals are those of the spheres' centres, rms per coordinate. ``spheres_xyz_nm`` are in
    the sample frame, whose origin lies laterally in the middle of the fields of view.
    ``helicity_offset_vu_nm``: mean over the views, of +1 against -1; None where there was none to undo.
    """

    aligned: bool
    reason: str = ""
    fiducials: int = 0
    residual_nm: float | None = None
    residual_pixels: float | None = None
    inclination_deg: float | None = None
    std_inclination_deg: float | None = None
    lean_deg: float | None = None
    std_lean_deg: float | None = None
    azimuths: tuple[AzimuthAlignment, ...] = ()
    spheres_xyz_nm: tuple[tuple[float, float, float], ...] = ()
    helicity_offset_vu_nm: tuple[float, float] | None = None

    @property
    def message(self) -> str:
        """One line for a person.

        >>> SeriesAlignment(False, "no fiducials in the views").message
        'not aligned: no fiducials in the views'
        """
        if not self.aligned:
            return f"not aligned: {self.reason}"
        azimuths = ", ".join(
            f"phi {one.phi_deg:.2f} +- {one.std_phi_deg:.3f} deg (stated {one.stated_phi_deg:g})"
            for one in self.azimuths
            if one.std_phi_deg > 0
        )
        parts = [
            f"aligned by {self.fiducials} fiducials to {self.residual_pixels:.2f} pixels",
            azimuths,
            self.reason,
        ]
        return "; ".join(part for part in parts if part)

    def to_json(self) -> dict[str, Any]:
        """Return all of it, and the message, for files."""
        return asdict(self) | {"message": self.message}


@dataclass(frozen=True)
class AlignedViews:
    """The views of one azimuth that can be used, and how the film is to be found in them.

    ``shift_vu_nm_t`` and ``warp_tvu`` as `TiltSeries` takes them, and where the spheres fall in each view, shape
    (views, spheres, 2); None if the views are not aligned.
    """

    stated_phi_deg: float
    phi_deg: float
    theta_deg_t: NDArray[np.float64]
    angles: tuple[AngleSignals, ...]
    shift_vu_nm_t: NDArray[np.float64] | None = None
    warp_tvu: NDArray[np.float64] | None = None
    sphere_vu_nm_t: NDArray[np.float64] | None = None

    def spoiled(self, number: int, pixel_nm: float) -> NDArray[np.bool_]:
        """Return which pixels of a view, as it was exposed, spheres spoil.

        Where both helicities are known to lie on each other gold takes light, and so makes noise, but no signal. Where
        the magnetic contrast leaves the offset open, it shows in the dichroic signal of the spheres themselves.
        """
        angle = self.angles[number]
        signal_vu, std_vu = angle.signals.dichroic_vu, angle.signals.std_vu
        none = np.zeros(signal_vu.shape, np.bool_)
        if self.sphere_vu_nm_t is None:
            return none
        if angle.helicity_offset.std_vu_nm.max() <= OPEN_OFFSET_PIXELS * pixel_nm:
            return none
        found = angle.fiducials
        radius_nm = float(np.median(found.radius_nm)) if len(found) else DIAMETER_NM / 2
        height, width = signal_vu.shape
        mask = fiducial_mask((height, width), self.sphere_vu_nm_t[number], radius_nm, pixel_nm)
        inside = mask & np.isfinite(signal_vu) & np.isfinite(std_vu)
        if not inside.any():
            return mask
        level = float(np.nanmedian(signal_vu[~mask]))
        misfit = float(np.mean(((signal_vu[inside] - level) / std_vu[inside]) ** 2))
        return mask if misfit > WORST_MISFIT else none

    def tilt_series(self, pixel_nm: float) -> TiltSeries:
        """Return what the reconstruction takes, without a value where spheres spoil the signal."""
        dichroic_tvu = np.stack([one.signals.dichroic_vu for one in self.angles])
        if self.sphere_vu_nm_t is not None:
            for number, image_vu in enumerate(dichroic_tvu):
                image_vu[self.spoiled(number, pixel_nm)] = np.nan
        return TiltSeries(
            self.phi_deg,
            self.theta_deg_t,
            dichroic_tvu,
            np.stack([one.signals.std_vu for one in self.angles]),
            self.shift_vu_nm_t,
            self.warp_tvu,
        )


def align(
    signals: Iterable[AngleSignals],
    pixel_nm: float,
    surfaces_nm: tuple[float, float] | None = None,
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
        return _described(used, waiting, found, surfaces_nm, offset)
    exposed = [
        AlignedViews(
            group[0].phi_deg,
            group[0].phi_deg,
            np.array([one.theta_deg for one in group]),
            tuple(group),
        )
        for group in groups
    ]
    return exposed, SeriesAlignment(False, reasons[0], helicity_offset_vu_nm=offset)


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
    worst_nm = float(found.std_xyz_nm.max())
    if not worst_nm <= LARGEST_STD_NM:
        raise InputError(
            f"the tilts so far leave a fiducial's place open by {worst_nm:.0f} nm, more than {LARGEST_STD_NM:g} nm"
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


def middle_height_nm(
    z_nm: NDArray[np.float64], surfaces_nm: tuple[float, float]
) -> tuple[float | None, str]:
    """Return at which height of the spheres' frame the film's middle is, by the surfaces that they lie on.

    Every sphere is on the lower or the upper surface, by its radius below or above it. Where all spheres lie on one
    of them, it is the one that leaves the film nearer to the tilt axis.

    >>> z_nm, reason = middle_height_nm(np.array([100.0, 95.0, -275.0]), (-170.0, 120.0))
    >>> round(z_nm, 1), reason
    (-65.0, '')

    Returns
    -------
    The height, None if it cannot be told, and what to say of it.
    """
    radius_nm = DIAMETER_NM / 2
    levels_nm = np.array([surfaces_nm[0] - radius_nm, surfaces_nm[1] + radius_nm])
    ranked: list[tuple[float, float]] = []
    for sphere_nm in z_nm:
        for level_nm in levels_nm:
            height_nm = float(sphere_nm - level_nm)
            for _ in range(2):
                off_nm = z_nm[:, None] - height_nm - levels_nm
                nearest = np.abs(off_nm).argmin(axis=1)
                off_nm = off_nm[np.arange(len(z_nm)), nearest]
                height_nm += float(np.median(off_nm))
            off_nm = np.minimum(np.abs(z_nm[:, None] - height_nm - levels_nm).min(axis=1), 100.0)
            height_nm_fine = float(np.mean(z_nm - levels_nm[nearest]))
            misfit = float(np.sum((off_nm / HEIGHT_NM) ** 2))
            if misfit < 4 * len(z_nm) and abs(height_nm) < FARTHEST_NM:
                ranked.append((misfit, height_nm_fine))
    if not ranked:
        return None, "the fiducials' heights fit no surfaces of the sample: z from the tilt axis"
    best = min(misfit for misfit, _ in ranked)
    as_good = [height for misfit, height in ranked if misfit < best + 4.0]
    height_nm = min(as_good, key=abs)
    rivals = [one for one in as_good if abs(one - height_nm) > 2 * HEIGHT_NM]
    if not rivals:
        return height_nm, ""
    if min(map(abs, rivals)) < CLEARLY * abs(height_nm):
        return (
            None,
            "all fiducials lie on one surface, and it is open on which: z from the tilt axis",
        )
    return (
        height_nm,
        "all fiducials lie on one surface: the one that leaves the film nearer the axis",
    )


def _described(
    used: Sequence[Sequence[AngleSignals]],
    waiting: Sequence[Sequence[AngleSignals]],
    found: Alignment,
    surfaces_nm: tuple[float, float] | None,
    offset: tuple[float, float] | None,
) -> tuple[list[AlignedViews], SeriesAlignment]:
    """Put the origin into the film's middle, leave out views without a place, and tell what was found."""
    notes = []
    if surfaces_nm is None:
        notes.append("the sample's surfaces are not known: z from the tilt axis")
    else:
        height_nm, note = middle_height_nm(found.sphere_xyz_nm[:, 2], surfaces_nm)
        notes.append(note)
        if height_nm is not None:
            found = found.with_origin([0.0, 0.0, height_nm])
    views, azimuths = [], []
    for number, (group, pose) in enumerate(zip(used, found.series, strict=True)):
        kept = np.flatnonzero(np.isfinite(pose.shift_vu_nm_t).all(axis=1))
        if len(kept) < len(group):
            notes.append(
                f"phi {group[0].phi_deg:g} deg: {len(group) - len(kept)} views without fiducials are left out"
            )
        views.append(
            AlignedViews(
                group[0].phi_deg,
                pose.phi_deg,
                pose.theta_deg_t[kept],
                tuple(group[int(i)] for i in kept),
                pose.shift_vu_nm_t[kept],
                found.warp_t(number)[kept],
                found.projected_vu_nm(number)[kept],
            )
        )
        azimuths.append(
            AzimuthAlignment(
                group[0].phi_deg,
                pose.phi_deg,
                pose.std_phi_deg,
                pose.tilt_zero_deg,
                len(group),
                len(group) - len(kept),
            )
        )
    for group in waiting:
        phi_deg = group[0].phi_deg
        azimuths.append(
            AzimuthAlignment(phi_deg, phi_deg, 0.0, 0.0, len(group), len(group), waiting=True)
        )
        notes.append(f"phi {phi_deg:g} deg: {len(group)} views wait for more tilts to be aligned")
    description = SeriesAlignment(
        aligned=True,
        reason="; ".join(note for note in notes if note),
        fiducials=len(found.sphere_xyz_nm),
        residual_nm=found.residual_rms_nm,
        residual_pixels=found.residual_rms_pixels,
        inclination_deg=found.inclination_deg,
        std_inclination_deg=found.std_inclination_deg,
        lean_deg=found.lean_deg,
        std_lean_deg=found.std_lean_deg,
        azimuths=tuple(azimuths),
        spheres_xyz_nm=tuple((float(x), float(y), float(z)) for x, y, z in found.sphere_xyz_nm),
        helicity_offset_vu_nm=offset,
    )
    return views, description

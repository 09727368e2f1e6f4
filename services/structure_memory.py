"""Alignment by structure of a series that is being measured: new views are laid among those that are known.

Refining all views together takes longer the more there are, and one new view changes the others little. So it is put
where those near it predict it, which takes about a second, and only from time to time are all refined together. What is
found for a series that is complete does not depend on what was found on the way.
"""

from dataclasses import dataclass, replace

import numpy as np

from mistral_txm.reconstruction import InputError
from mistral_txm.reconstruction.film_poses import FilmPoses
from mistral_txm.reconstruction.reprojection import RefinedShifts
from mistral_txm.services.aligned_views import AlignedViews
from mistral_txm.services.structure import (
    Groups,
    Layers,
    check_comparable,
    placed_shifts,
    shifts_by_structure,
)

PART_CHANGED = 0.15
"""Views that came, went, or were taken again since all were refined together, as a part of those of then, up to which
they are not refined again."""


@dataclass(frozen=True)
class _Known:
    """Views and what was found of them, or why nothing was."""

    groups: Groups
    found: RefinedShifts | str


class StructureMemory:
    """What was found so far of one series."""

    def __init__(self) -> None:
        self._refined: _Known | None = None
        self._newest: _Known | None = None

    def shifts(self, groups: Groups, pixel_nm: float, layers_nm: Layers) -> RefinedShifts:
        """Find the shifts of the views so far, of the new ones by what the known ones predict.

        Raises
        ------
        InputError
            If the film does not show enough for that, with the reason.
        """
        check_comparable(groups)
        if self._refined is None or self._newest is None or _is_other(groups, self._refined.groups):
            return self.all_shifts(groups, pixel_nm, layers_nm)
        if isinstance(self._newest.found, str):
            raise InputError(self._newest.found)
        try:
            found = _placed(groups, self._newest.groups, self._newest.found, pixel_nm, layers_nm)
        except InputError:
            return self.all_shifts(groups, pixel_nm, layers_nm)
        found = replace(found, placed=len(_views(groups) - _views(self._refined.groups)))
        self._newest = _Known(groups, found)
        return found

    def all_shifts(self, groups: Groups, pixel_nm: float, layers_nm: Layers) -> RefinedShifts:
        """Find the shifts of all views together, as `shifts_by_structure`; once for the same views."""
        if self._refined is None or _views(self._refined.groups) != _views(groups):
            found: RefinedShifts | str
            try:
                found = shifts_by_structure(groups, pixel_nm, layers_nm)
            except InputError as problem:
                found = str(problem)  # itself it would keep all images of its frames
            self._refined = _Known(groups, found)
        self._newest = self._refined
        if isinstance(self._refined.found, str):
            raise InputError(self._refined.found)
        return self._refined.found


def _views(groups: Groups) -> set[int]:
    """Which views these are; one that was taken again is another."""
    return {id(one) for group in groups for one in group}


def _is_other(groups: Groups, refined: Groups) -> bool:
    """Whether an azimuth came or went, or many views did."""
    if [group[0].phi_deg for group in groups] != [group[0].phi_deg for group in refined]:
        return True
    before = _views(refined)
    return len(_views(groups) ^ before) > PART_CHANGED * len(before)


def _placed(
    groups: Groups, known: Groups, found: RefinedShifts, pixel_nm: float, layers_nm: Layers
) -> RefinedShifts:
    """Lay views that are not known among those that are, and leave out what is known and no longer there."""
    places = {
        id(one): np.concatenate([shift, std])
        for group, shifts, stds in zip(known, found.shift_vu_nm_st, found.std_vu_nm_st, strict=True)
        for one, shift, std in zip(group, shifts, stds, strict=True)
    }
    nowhere = np.full(4, np.nan)
    given = [np.stack([places.get(id(one), nowhere) for one in group]) for group in groups]
    poses = FilmPoses((), found.phi_deg_s, found.axis_deg)
    views = []
    for number, group in enumerate(groups):
        theta_deg_t = np.array([one.theta_deg for one in group])
        warp_t = poses.warp_t(theta_deg_t, number)
        views.append(
            AlignedViews(
                group[0].phi_deg,
                found.phi_deg_s[number],
                theta_deg_t,
                tuple(group),
                warp_tvu=warp_t,
            )
        )
    shift_st, std_st = [one[:, :2] for one in given], [one[:, 2:] for one in given]
    if not all(np.isfinite(one).all() for one in shift_st):
        of_known = np.sqrt(np.nanmean(np.concatenate(std_st) ** 2, axis=0))
        shift_st, against_st = placed_shifts(views, shift_st, pixel_nm, layers_nm)
        std_st = [
            np.where(np.isfinite(std), std, np.hypot(against, of_known))
            for std, against in zip(std_st, against_st, strict=True)
        ]
    return replace(
        found,
        shift_vu_nm_st=tuple(shift_st),
        std_vu_nm_st=tuple(std_st),
        warp_st=tuple(np.asarray(one.warp_tvu) for one in views),
    )

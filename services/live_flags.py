"""What is wrong with the views of a series while it is measured: one line each, with what to do.

Each view is compared with what those beside it predict (`reconstruction.view_comparison`), in the order in which they
were measured; one that was flagged predicts nothing any more, unless it is known what it shows: a turned sign is turned
back, a sample that slipped is followed. An azimuth is compared with those before it when it has `LOOKED_AT` views.
A fault that lasts is told once, of the first view that has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan

import numpy as np

from mistral_txm.reconstruction import InputError, TiltSeries
from mistral_txm.reconstruction.series_checks import (
    binned_images,
    coarse_factor,
    coarse_grid,
    turned_series,
)
from mistral_txm.reconstruction.view_comparison import (
    ALIKE,
    WIDEST_DEG,
    CoarseView,
    Comparison,
    coarse_view,
    compared,
    predicted,
)
from mistral_txm.services.aligned_views import AlignedViews
from mistral_txm.services.live_views import SeenView
from mistral_txm.services.live_volumes import volume_grid
from mistral_txm.services.series_exposures import Angle

Place = tuple[float, float]

SLIP_PIXELS = 25.0
"""A sample that is off by more than this from where it was did not get there by the goniometer's run-out."""
ABSORBANCE_OFF = 0.05
"""Part by which the absorbance, times the cosine of the tilt, may differ from that of views that show the same."""
AS_STEEP_DEG = 3.0
"""Tilts of either sign that differ by no more than this in steepness."""
LEAST_GAIN = 0.7
"""Part of the predicted dichroic signal from which on nothing is missing: a prediction is good to 10 to 20 %."""
LEAST_GAIN_OF_SECOND = 0.5
"""The same of the second view, of which the first alone tells."""
MOST_GAIN_OF_SECOND = 1.6
"""If the second view has more, the first was bad."""
LEAST_MARKS = 0.6
"""The same of the absorption's own structure, such as gold spheres, in a view with less than `LITTLE_GAIN`."""
LITTLE_GAIN = 0.9
LEAST_POWER = 0.3
"""Part of the predicted power from which on a view shows something, if not what was predicted."""
UNEQUAL = 0.04
"""Half of the helicities' difference, as a part of their mean, from which on one of them is weaker for sure."""
ENOUGH_VIEWS = 3
"""A prediction from fewer views tells nothing of a part; so many absorbances tell the usual one."""
VIEWS_COMPARED = 30
"""Views of each azimuth that are compared, about."""
NOTHING_IN_COMMON = (
    "the view has nothing in common with the tilts before; check where the sample stands, "
    "and `retake` it"
)
LOOKED_AT = (5, 10, 20, 40)
"""Numbers of views of a later azimuth at which its sign is compared with those before."""


@dataclass(frozen=True)
class Flag:
    """What is wrong, of which kind (``contrast``, ``helicity``, ``sample``, ``focus``), since which view."""

    kind: str
    phi_deg: float
    theta_deg: float
    text: str


@dataclass(frozen=True)
class _Judged:
    """What was found of a view: what is wrong with it, and what it tells of others; None: nothing."""

    angle: Angle
    flag: Flag | None
    reference: CoarseView | None
    absorbance: float


class QualityWatch:
    """Judges the views of one series as they come.

    Parameters
    ----------
    pixel_nm
        Pixel on the sample, nm.
    layers_nm
        Where the film is magnetic, nm from its middle; empty if nobody said.
    """

    def __init__(self, pixel_nm: float, layers_nm: Sequence[tuple[float, float]]) -> None:
        self._pixel_nm = pixel_nm
        self._layers_nm = layers_nm
        self._judged: dict[Place, _Judged] = {}
        self._turned: dict[float, tuple[int, Flag | None]] = {}

    def look(self, seen: Sequence[SeenView]) -> None:
        """Judge the views that are new or have changed; forget those that are gone."""
        places = {_place(one) for one in seen}
        self._judged = {place: one for place, one in self._judged.items() if place in places}
        for one in sorted(seen, key=lambda one: one.time):
            known = self._judged.get(_place(one))
            if known is None or known.angle != one.angle:
                if self._judged.pop(_place(one), None) is not None:
                    self._turned.pop(one.angle.phi_deg, None)  # it may be right now
                self._judged[_place(one)] = self._judge(one)

    def look_at_azimuths(self, views: Sequence[AlignedViews]) -> None:
        """Compare the newest azimuth with those before, if it is time for it, as they are laid for the volume."""
        now = self._azimuths()
        self._turned = {phi: one for phi, one in self._turned.items() if phi in now[1:]}
        if len(now) < 2:
            return
        newest = now[-1]
        own = [one.angle for place, one in self._judged.items() if place[0] == newest]
        # A hand turns the sample elsewhere than planned: what is laid is told by where it was stated to stand.
        if [one.stated_phi_deg for one in views].count(own[-1].stated_phi_deg) != 1:
            return
        count = len(own)
        known, flag = self._turned.get(newest, (0, None))
        if flag is None and any(known < number <= count for number in LOOKED_AT):
            self._turned[newest] = count, self._contradiction(newest, views)

    def flags(self) -> list[Flag]:
        """Return what is wrong, in the order in which it began."""
        found: list[Flag] = []
        before: dict[float, str | None] = {}
        for (phi_deg, _), one in self._judged.items():
            kind = None if one.flag is None else one.flag.kind
            if one.flag is not None and kind != before.get(phi_deg):
                found.append(one.flag)
            before[phi_deg] = kind
        return found + [flag for _, flag in self._turned.values() if flag is not None]

    def _contradiction(self, newest_deg: float, views: Sequence[AlignedViews]) -> Flag | None:
        """Say that the newest azimuth contradicts those before as it is, and fits with its sign turned."""
        series = []
        for one in views:
            images = np.stack([angle.signals.dichroic_vu for angle in one.angles])
            every = max(1, round(len(images) / VIEWS_COMPARED))
            series.append(
                TiltSeries(
                    one.phi_deg,
                    one.theta_deg_t[::every],
                    binned_images(images[::every]),
                    shift_vu_nm_t=None if one.shift_vu_nm_t is None else one.shift_vu_nm_t[::every],
                )
            )
        shape = np.shape(views[0].angles[0].signals.dichroic_vu)
        grid = volume_grid((shape[0], shape[1]), self._pixel_nm, self._layers_nm)
        coarse = coarse_grid(grid, coarse_factor(*shape), np.shape(series[0].dichroic_tvu))
        try:
            found = turned_series(series, coarse)
        except InputError:  # series that cannot be solved together tell nothing of their signs
            return None
        if found is None:
            return None
        first = next(place for place in self._judged if place[0] == newest_deg)
        return Flag(
            "helicity",
            *first,
            f"phi {newest_deg:g} deg: contradicts the azimuths before, and fits with its sign turned; check that "
            "jaws and helicity are as they were there, and by how much the sample was turned",
        )

    def _azimuths(self) -> list[float]:
        return list(dict.fromkeys(phi for phi, _ in self._judged))

    def _judge(self, one: SeenView) -> _Judged:
        view = coarse_view(one.signals.signals, one.signals.theta_deg)
        absorbance = one.quality.absorbance
        references = [
            (each.reference, each.flag)
            for place, each in self._judged.items()
            if place[0] == one.angle.phi_deg and each.reference is not None
        ]
        expected = predicted(view.theta_deg, [reference for reference, _ in references])
        against = None if expected is None else compared(view, expected)
        # While a view was taken in which the sample slipped, its helicities showed two places: it tells no sign.
        tells_sign = any(flag is None for _, flag in references)
        found = self._wrong(one, expected, against, absorbance, tells_sign=tells_sign)
        reference: CoarseView | None = view
        if against is not None:
            reference = view.back(against.shift_yx)
            if expected is not None and expected.views == 1 and against.gain > MOST_GAIN_OF_SECOND:
                self._begin_anew(one)
        if found is not None and found[0] == "helicity" and reference is not None:
            turned = against is not None and against.gain < 0
            reference = _turned(reference) if turned else None
        elif found is not None and found[0] in ("contrast", "focus"):
            reference = None
        elif found is not None and against is not None and against.correlation < ALIKE:
            # Another place of the sample: what was before says nothing of it.
            self._begin_anew(one)
            reference = view
        where = one.angle.phi_deg, one.angle.theta_deg
        flag = None
        if found is not None:
            name = f"phi {where[0]:g} deg, theta {where[1]:g} deg"
            flag = Flag(found[0], *where, f"{name}: {found[1]}")
        return _Judged(one.angle, flag, reference, absorbance)

    def _begin_anew(self, one: SeenView) -> None:
        """Let the views so far of the azimuth of this one say nothing of those that come."""
        for place, each in self._judged.items():
            if place[0] == one.angle.phi_deg:
                self._judged[place] = replace(each, reference=None)

    def _wrong(
        self,
        one: SeenView,
        expected: CoarseView | None,
        against: Comparison | None,
        absorbance: float,
        *,
        tells_sign: bool,
    ) -> tuple[str, str] | None:
        """Return what is wrong with a view, and its kind; None if nothing is.

        `tells_sign`: whether it is known which helicity is which from a view that was not flagged.
        """
        if against is not None and expected is not None:
            if against.correlation > ALIKE and against.jump_pixels > SLIP_PIXELS:
                return "sample", _slipped(against, self._pixel_nm)
            negative = against.correlation < -ALIKE and against.gain < -LEAST_GAIN
            if negative and against.jump_pixels > SLIP_PIXELS:
                return "sample", NOTHING_IN_COMMON
            if negative and tells_sign and _is_told(one, expected):
                return "helicity", (
                    "the dichroic signal is the negative of what the tilts before predict; check jaws and "
                    "helicity, then `retake` it"
                )
            if against.is_of_one_helicity:
                return "helicity", (
                    "both images show the same helicity; check that the jaws move, then `retake` it"
                )
        if flag := self._absorbs_otherwise(one):
            return flag
        if against is None or expected is None or expected.views in range(2, ENOUGH_VIEWS):
            return None
        return _weak(against, expected)

    def _absorbs_otherwise(self, one: SeenView) -> tuple[str, str] | None:
        """Compare the absorbance with that of the tilts beside it, and of those as steep, whenever they were taken."""
        theta_deg = one.signals.theta_deg
        good = [(place, each) for place, each in self._judged.items() if each.flag is None]
        beside = [
            each.absorbance
            for (phi_deg, other_deg), each in good
            if phi_deg == one.angle.phi_deg and abs(other_deg - theta_deg) <= WIDEST_DEG
        ][-ENOUGH_VIEWS:]
        as_steep = [
            each.absorbance
            for (_, other_deg), each in good
            if abs(abs(other_deg) - abs(theta_deg)) <= AS_STEEP_DEG
        ][:ENOUGH_VIEWS]
        for usual in (beside, as_steep):
            part = one.quality.absorbance / float(np.median(usual)) if usual else 1.0
            if abs(part - 1) > ABSORBANCE_OFF:
                return "contrast", (
                    f"the film absorbs {100 * part:.0f} % of what it did; check photon energy (it may have drifted "
                    "off the edge), flats and sample, then `retake` it"
                )
        return None


def _weak(against: Comparison, expected: CoarseView) -> tuple[str, str] | None:
    """Return what is wrong where the signals are weaker than predicted, and its kind."""
    gain, marks = against.gain, against.gain_absorption
    if expected.views == 1 and gain > LEAST_GAIN_OF_SECOND:
        return None
    unequal = abs(against.gain_plus - against.gain_minus) / 2
    unexplained = np.sqrt(1 - against.correlation**2)
    alike = against.correlation > ALIKE
    if alike and unequal > gain * max(UNEQUAL, 0.4 * unexplained):
        which = "+1" if against.gain_plus < against.gain_minus else "-1"
        return "focus", (
            f"helicity {which} shows {100 * (1 - 2 * unequal / (gain + unequal)):.0f} % of the contrast of the "
            "other; check focus (zone_plate_z) and jaws of that helicity, then `retake` it"
        )
    if not alike and against.power > LEAST_POWER:
        return "sample", NOTHING_IN_COMMON
    blurred = not isnan(marks) and marks < LEAST_MARKS and gain < LITTLE_GAIN
    if blurred or (gain < LEAST_GAIN and (isnan(marks) or marks < LITTLE_GAIN)):
        return "focus", (
            f"{100 * max(gain, 0):.0f} % of the predicted structure is left; check the focus (zone_plate_z), then the "
            "jaws, and `retake` it"
        )
    if gain < LEAST_GAIN:
        return "contrast", (
            f"{100 * max(gain, 0):.0f} % of the predicted dichroic signal is left, while the film's own structure is "
            "sharp; check the jaws (degree of polarization), then `retake` it"
        )
    return None


def _is_told(one: SeenView, expected: CoarseView) -> bool:
    """Whether the sign is known: the first view alone tells it where the tilt has not gone through zero."""
    return expected.views > 1 or abs(one.signals.theta_deg) > WIDEST_DEG


def _slipped(against: Comparison, pixel_nm: float) -> str:
    off_nm = against.jump_pixels * pixel_nm
    return (
        f"the sample lies {off_nm:.0f} nm off from where it was, more than a goniometer makes; check that it holds, "
        "and that the field of view still shows what is wanted, then go on"
    )


def _turned(view: CoarseView) -> CoarseView:
    return replace(view, dichroic_yx=-view.dichroic_yx)


def _place(one: SeenView) -> Place:
    return one.angle.phi_deg, one.angle.theta_deg

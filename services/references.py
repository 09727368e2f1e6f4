"""The darks and flats of a run: which of them are used for which exposures of the sample."""

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import NamedTuple

from mistral_txm.services.exposures import Exposure, RunExposures

FEWEST = 2
"""So many darks or flats tell their noise."""


class _Flat(NamedTuple):
    """A flat, and where it stands in its run."""

    exposure: Exposure
    place: int
    group: int
    """Flats of one group were taken one after the other."""
    is_usable: bool


class References:
    """The darks and flats of a run as it stands.

    While it goes on, its darks are those from before its first exposure of the sample, and flats in the making do not
    count. What cannot be read is passed over; but where too few of a kind can, all are there, so that their reader
    says why.
    """

    def __init__(self, run: RunExposures, unreadable: Collection[Exposure]) -> None:
        recorded = run.in_order()
        self._unreadable = unreadable
        self._places = {one: place for place, one in enumerate(recorded)}
        places: dict[tuple[int, int], list[int]] = {}
        group, before = 0, None
        for place, one in enumerate(recorded):
            if one.stream == "flat":
                group += before != "flat"
                places.setdefault((one.key.helicity, group), []).append(place)
            before = one.stream
        # Each flat in the making would change the angles before it.
        in_the_making = group if run.stop is None and before == "flat" else None
        self._flats: dict[int, list[_Flat]] = {}
        for (helicity, number), of_it in places.items():
            if number == in_the_making:
                continue
            usable = set(_usable([recorded[place] for place in of_it], unreadable))
            self._flats.setdefault(helicity, []).extend(
                _Flat(recorded[place], place, number, recorded[place] in usable) for place in of_it
            )
        darks: dict[float, list[Exposure]] = {}
        for one in recorded if run.stop is not None else takewhile(_without_sample, recorded):
            if one.stream == "dark":
                darks.setdefault(one.exposure_s, []).append(one)
        used = [_usable(of_it, unreadable) or of_it for of_it in darks.values()]
        self.darks = tuple(
            sorted((one for of_it in used for one in of_it), key=self._places.__getitem__)
        )
        self.darks_left_out = [
            one for of_it in darks.values() for one in of_it if one not in self.darks
        ]

    def flats_about(
        self, exposures: Sequence[Exposure]
    ) -> tuple[dict[int, tuple[Exposure, ...]], list[Exposure]]:
        """Return by helicity the flats last taken before some exposures and next after them, and those passed over."""
        places = [self._places[one] for one in exposures if one in self._places]
        first, last = min(places, default=0), max(places, default=0)
        found, left_out = {}, []
        for helicity, every in self._flats.items():
            wanted = _nearest(every, first, last)
            used = _nearest([flat for flat in every if flat.is_usable], first, last)
            if used:
                left_out += [flat.exposure for flat in wanted if not flat.is_usable]
            if used or wanted:
                found[helicity] = tuple(flat.exposure for flat in used or wanted)
        return found, [one for one in left_out if one in self._unreadable]


def _usable(alike: Sequence[Exposure], unreadable: Collection[Exposure]) -> list[Exposure]:
    """Return those of alike darks or flats that can be read, none where they are too few to know their noise."""
    readable = [one for one in alike if one not in unreadable]
    return readable if len(readable) >= min(FEWEST, len(alike)) else []


def _nearest(flats: Sequence[_Flat], first: int, last: int) -> list[_Flat]:
    before = [flat for flat in flats if flat.place < first]
    after = [flat for flat in flats if flat.place > last]
    groups = {flat.group for flat in (*before[-1:], *after[:1])}
    return [flat for flat in (*before, *after) if flat.group in groups]


def _without_sample(exposure: Exposure) -> bool:
    return exposure.stream in ("dark", "flat")

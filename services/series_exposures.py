"""A series as it is being measured: which exposures it has, and which angles are finished."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mistral_txm.devices.key import Key
from mistral_txm.services.exposures import RETURN, Exposure, RunExposures, UnreadableExposure
from mistral_txm.services.references import References
from mistral_txm.services.standing import Standing, last_of_each, planned_keys, standing

T = TypeVar("T")


@dataclass(frozen=True)
class Angle:
    """One tilt of one azimuth, with all that its signal is made from.

    Darks and flats are those of the run that finished it. Of the flats these are the ones last taken before its
    exposures and the ones taken next after them, once these are complete: the run has gone on to other exposures, or
    has ended. While a run goes on, its darks are those from before its first exposure of the sample. What cannot be
    read is passed over; where too few flats of a helicity or darks of an exposure time can, they are all there, so
    that their reader says why.
    """

    phi_deg: float
    theta_deg: float
    """As planned: the key. The readbacks are in the exposures."""
    exposures: Mapping[int, tuple[Exposure, ...]]
    """By helicity, in the order of the repeats."""
    flats: Mapping[int, tuple[Exposure, ...]]
    darks: tuple[Exposure, ...]
    stated_phi_deg: float
    """The azimuth that a person stated when the sample was mounted, which the reconstruction uses."""
    references_left_out: tuple[str, ...] = ()
    """A line for each dark or flat that would be used, too, but cannot be read: which, and why."""

    @property
    def is_return(self) -> bool:
        """Whether it is a return to zero tilt: the same tilt again, after the last one."""
        return any(one.stream == RETURN for of_it in self.exposures.values() for one in of_it)


class SeriesExposures:
    """Collects the documents of the runs of one series, oldest run first.

    Parameters
    ----------
    start
        Start document of one of its runs. Each that plans the series anew replaces the plan.
    """

    def __init__(self, start: Mapping[str, Any]) -> None:
        self.uid: str = start["series"]
        self.manifest: list[Key] = []
        """All keys, in the planned order, as the last run that plans them tells."""
        self._places: dict[tuple[float, float], list[Key]] = {}
        self._runs: dict[str, RunExposures] = {}
        self._unreadable: dict[Exposure, str] = {}
        self._plan(start)

    @property
    def runs(self) -> list[RunExposures]:
        """The runs that take exposures, oldest first."""
        return [run for run in self._runs.values() if not run.is_rejection]

    @property
    def rejections(self) -> int:
        """How many runs reject what others took."""
        return len(self._runs) - len(self.runs)

    @property
    def exposures(self) -> list[Exposure]:
        """Every exposure, in any stream, in the order of recording; repeated and rejected ones too."""
        return [exposure for run in self._runs.values() for exposure in run.recorded()]

    def standing(self, unusable: Collection[Exposure] = frozenset()) -> Standing[Exposure]:
        """Return what is accepted, waived and missing, but for frames that are known to be damaged."""
        runs = [run.contribution() for run in self._runs.values()]
        return standing(self.manifest, runs, unusable)

    def accepted(self) -> Mapping[Key, Exposure]:
        """Return the exposures that count by key, the one taken last comes last; no frame is read for it."""
        return self.standing().accepted

    @property
    def planned(self) -> int:
        """Exposures planned, without those that are waived."""
        return self.standing().planned

    @property
    def angles_planned(self) -> int:
        """Angles planned, over all azimuths, without those of which every exposure is waived."""
        waived = frozenset(self.standing().waived)
        return sum(not waived.issuperset(keys) for keys in self._places.values())

    def add(self, run_uid: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document of one of its runs."""
        self._runs.setdefault(run_uid, RunExposures()).add(name, doc)
        if name == "start":
            self._plan(doc)

    def add_run(self, run: RunExposures) -> None:
        """Take a whole run."""
        self._runs[run.start["uid"]] = run
        self._plan(run.start)

    def finished(self) -> dict[tuple[float, float], Angle]:
        """Return the angles of which every exposure that is not waived is there, by ``(phi, theta)`` as planned.

        The angle that was finished last comes last. Exposures that `read` could not read are passed over where an
        earlier one of the same key takes their place.
        """
        found = self._readable()
        order = {key: number for number, key in enumerate(found.accepted)}
        missing = {(key.phi_deg, key.theta_deg) for key in found.missing}
        taken_keys = {
            place: [key for key in keys if key in order]
            for place, keys in self._places.items()
            if place not in missing
        }
        places = [place for place, keys in taken_keys.items() if keys]
        places.sort(key=lambda place: max(order[key] for key in taken_keys[place]))
        references = self._references()
        return {
            place: self._angle([found.accepted[key] for key in taken_keys[place]], references)
            for place in places
        }

    def newest(self) -> Angle | None:
        """Return the angle of the exposure that was taken last, with what there is of it so far; None before any."""
        accepted = self._readable().accepted
        if not accepted:
            return None
        last = list(accepted)[-1]
        here = (last.phi_deg, last.theta_deg)
        of_it = [one for key, one in accepted.items() if (key.phi_deg, key.theta_deg) == here]
        return self._angle(of_it, self._references())

    def returns(self) -> dict[tuple[float, float], Angle]:
        """Return the finished returns to zero tilt, one for each azimuth, by ``(phi, theta)`` as planned.

        One is finished when every planned exposure is there, or its run has ended with some of both helicities.
        """
        taken_keys = last_of_each(
            one for run in self.runs for one in run.stream(RETURN) if one not in self._unreadable
        )
        places: dict[tuple[float, float], list[Exposure]] = {}
        for key, one in taken_keys.items():
            places.setdefault((key.phi_deg, key.theta_deg), []).append(one)
        whole = {place: of_it for place, of_it in places.items() if self._is_whole(of_it)}
        references = self._references() if whole else {}
        return {place: self._angle(of_it, references) for place, of_it in whole.items()}

    def _is_whole(self, exposures: Sequence[Exposure]) -> bool:
        run = self._runs[exposures[-1].run_uid]
        planned = run.start.get("measurement", {}).get("return_to_zero", {}).get("repeats", 1)
        least = planned if run.stop is None else 1
        counts = Counter(one.key.helicity for one in exposures)
        return min(counts[1], counts[-1]) >= least

    def read(self, angle: Angle, make: Callable[[Angle], T]) -> tuple[Angle, T]:
        """Make something of the frames of a finished angle or return; give back what it was made of, too.

        Of a key whose last frame cannot be read, the exposure before it is used, if there is one; darks and flats are
        passed over while there are others.

        Raises
        ------
        FrameError
            If no exposure of a key can be read, or too few flats of a helicity or darks of an exposure time.
        """
        while True:
            try:
                return angle, make(angle)
            except UnreadableExposure as problem:
                self._unreadable.setdefault(problem.exposure, str(problem))
                found = self.returns() if angle.is_return else self.finished()
                other = found.get((angle.phi_deg, angle.theta_deg), angle)
                if other == angle:
                    raise
                angle = other

    def look_again(self) -> None:
        """Use again what could not be read before, but can now."""
        self._unreadable = {one: why for one, why in self._unreadable.items() if not _readable(one)}

    def _plan(self, start: Mapping[str, Any]) -> None:
        keys = planned_keys(start)
        if keys:
            self.manifest = keys
            self._places = {}
            for key in keys:
                self._places.setdefault((key.phi_deg, key.theta_deg), []).append(key)

    def _readable(self) -> Standing[Exposure]:
        """Pass over what cannot be read; but where nothing of a key can, keep the last, so that its reader says why."""
        if not self._unreadable:
            return self.standing()
        readable = self.standing(self._unreadable.keys()).accepted
        return self.standing({one for one in self._unreadable if one.key in readable})

    def _references(self) -> dict[str, References]:
        return {run.start["uid"]: References(run, self._unreadable) for run in self.runs}

    def _angle(self, exposures: Sequence[Exposure], references: Mapping[str, References]) -> Angle:
        of_it = {one.run_uid for one in exposures}
        last_run = next(uid for uid in reversed(self._runs) if uid in of_it)
        own = references[last_run]
        flats, left_out = own.flats_about([one for one in exposures if one.run_uid == last_run])
        key = exposures[0].key
        return Angle(
            key.phi_deg,
            key.theta_deg,
            exposures=_by_helicity(sorted(exposures, key=lambda one: one.key.repeat)),
            flats=flats,
            darks=own.darks,
            stated_phi_deg=float(self._runs[last_run].start["phi_deg"]),
            references_left_out=tuple(
                f"{_called(one)}: {self._unreadable[one]}"
                for one in (*own.darks_left_out, *left_out)
            ),
        )


def _called(exposure: Exposure) -> str:
    of_helicity = f" of helicity {exposure.key.helicity:+d}" if exposure.stream == "flat" else ""
    return f"phi {exposure.key.phi_deg:g} deg, {exposure.stream} {exposure.seq_num}{of_helicity}"


def _readable(exposure: Exposure) -> bool:
    try:
        exposure.read()
    except UnreadableExposure:
        return False
    return True


def taken(runs: Iterable[RunExposures]) -> dict[str, list[int]]:
    """Return by run how many exposures of it are known, and whether (1) or not (0) its end is."""
    return {run.start["uid"]: [len(run.in_order()), int(run.stop is not None)] for run in runs}


def _by_helicity(exposures: Iterable[Exposure]) -> dict[int, tuple[Exposure, ...]]:
    found: dict[int, list[Exposure]] = {}
    for exposure in exposures:
        found.setdefault(exposure.key.helicity, []).append(exposure)
    return {helicity: tuple(of_it) for helicity, of_it in found.items()}

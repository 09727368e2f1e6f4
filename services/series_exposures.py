"""A series as it is being measured: which exposures it has, and which angles are finished."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from mistral_txm.devices.key import Key
from mistral_txm.services.exposures import Exposure, RunExposures
from mistral_txm.services.verification import planned_keys


@dataclass(frozen=True)
class Angle:
    """One tilt of one azimuth, with all that its signal is made from.

    Darks and flats are those of the run that finished it: while it goes on, those from before its first exposure of
    the sample; once it has ended, also those that it took later.
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


class SeriesExposures:
    """Collects the documents of the runs of one series.

    Parameters
    ----------
    start
        Start document of one of its runs: it carries the plan of the whole series.
    """

    def __init__(self, start: Mapping[str, Any]) -> None:
        self.uid: str = start["series"]
        self._planned: dict[tuple[float, float], list[Key]] = {}
        for key in planned_keys(dict(start)):
            self._planned.setdefault((key.phi_deg, key.theta_deg), []).append(key)
        self._runs: dict[str, RunExposures] = {}

    @property
    def planned(self) -> int:
        """Exposures planned."""
        return sum(len(keys) for keys in self._planned.values())

    @property
    def angles_planned(self) -> int:
        """Angles planned, over all azimuths."""
        return len(self._planned)

    @property
    def runs(self) -> list[RunExposures]:
        """The runs, oldest first."""
        return list(self._runs.values())

    def accepted(self) -> dict[Key, Exposure]:
        """Return the exposures of all runs by key, the last one last; of repeated ones, the last."""
        found: dict[Key, Exposure] = {}
        for run in self._runs.values():
            for key, exposure in run.accepted().items():
                found.pop(key, None)
                found[key] = exposure
        return found

    def add(self, run_uid: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document of one of its runs."""
        self._runs.setdefault(run_uid, RunExposures()).add(name, doc)

    def add_run(self, run: RunExposures) -> None:
        """Take a whole run."""
        self._runs[run.start["uid"]] = run

    def finished(self) -> dict[tuple[float, float], Angle]:
        """Return the angles of which every planned exposure is there, by ``(phi, theta)`` as planned.

        The angle that was finished last comes last.
        """
        accepted = self.accepted()
        order = {key: number for number, key in enumerate(accepted)}
        places = [
            place for place, keys in self._planned.items() if all(key in accepted for key in keys)
        ]
        places.sort(key=lambda place: max(order[key] for key in self._planned[place]))
        references = {uid: _references(run) for uid, run in self._runs.items()}
        return {
            place: self._angle([accepted[key] for key in self._planned[place]], references)
            for place in places
        }

    def _angle(
        self, exposures: Sequence[Exposure], references: Mapping[str, Sequence[Exposure]]
    ) -> Angle:
        of_it = {one.run_uid for one in exposures}
        last_run = next(uid for uid in reversed(self._runs) if uid in of_it)
        darks_and_flats = references[last_run]
        key = exposures[0].key
        return Angle(
            key.phi_deg,
            key.theta_deg,
            exposures=_by_helicity(sorted(exposures, key=lambda one: one.key.repeat)),
            flats=_by_helicity(one for one in darks_and_flats if one.stream == "flat"),
            darks=tuple(one for one in darks_and_flats if one.stream == "dark"),
            stated_phi_deg=float(self._runs[last_run].start["phi_deg"]),
        )


def taken(runs: Iterable[RunExposures]) -> dict[str, list[int]]:
    """Return by run how many exposures of it are known, and whether (1) or not (0) its end is."""
    return {run.start["uid"]: [len(run.in_order()), int(run.stop is not None)] for run in runs}


def _references(run: RunExposures) -> list[Exposure]:
    """Return the darks and flats that count for the exposures of a run."""
    recorded = run.in_order()
    if run.stop is None:  # else each flat at the end would change every angle
        recorded = list(takewhile(lambda one: one.stream != "primary", recorded))
    return [one for one in recorded if one.stream != "primary"]


def _by_helicity(exposures: Iterable[Exposure]) -> dict[int, tuple[Exposure, ...]]:
    found: dict[int, list[Exposure]] = {}
    for exposure in exposures:
        found.setdefault(exposure.key.helicity, []).append(exposure)
    return {helicity: tuple(of_it) for helicity, of_it in found.items()}

"""A series as it is being measured: which exposures it has, and which angles are finished."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mistral_txm.services.exposures import Exposure, RunExposures


@dataclass(frozen=True)
class Angle:
    """One tilt of one azimuth, with all that its signal is made from.

    Darks and flats are those of the same run that were there when the angle was finished.
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
        self._repeats: dict[tuple[float, float], dict[int, int]] = {}
        for phi_deg, theta_deg, helicity, repeats in start["planned_keys"]:
            angle = self._repeats.setdefault((float(phi_deg), float(theta_deg)), {})
            angle[int(helicity)] = angle.get(int(helicity), 0) + int(repeats)
        self._runs: dict[str, RunExposures] = {}

    @property
    def planned(self) -> int:
        """Exposures planned."""
        return sum(sum(repeats.values()) for repeats in self._repeats.values())

    @property
    def angles_planned(self) -> int:
        """Angles planned, over all azimuths."""
        return len(self._repeats)

    @property
    def runs(self) -> list[RunExposures]:
        """The runs, oldest first."""
        return list(self._runs.values())

    def accepted(self) -> dict[Any, Exposure]:
        """Return the exposures of all runs by key; of repeated ones, the last."""
        return {
            key: exposure for run in self._runs.values() for key, exposure in run.accepted().items()
        }

    def add(self, run_uid: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document of one of its runs."""
        self._runs.setdefault(run_uid, RunExposures()).add(name, doc)

    def add_run(self, run: RunExposures) -> None:
        """Take a whole run."""
        self._runs[run.start["uid"]] = run

    def finished(self) -> dict[tuple[float, float], Angle]:
        """Return the angles of which every planned exposure is there, by ``(phi, theta)``, as planned."""
        found: dict[tuple[float, float], dict[int, dict[int, Exposure]]] = {}
        for key, exposure in self.accepted().items():
            angle = found.setdefault((key.phi_deg, key.theta_deg), {})
            angle.setdefault(key.helicity, {})[key.repeat] = exposure
        return {
            place: self._angle(place, by_helicity)
            for place, by_helicity in found.items()
            if place in self._repeats
            and all(
                len(by_helicity.get(helicity, ())) >= repeats
                for helicity, repeats in self._repeats[place].items()
            )
        }

    def _angle(
        self, place: tuple[float, float], by_helicity: Mapping[int, Mapping[int, Exposure]]
    ) -> Angle:
        last = max(
            (exposure for repeats in by_helicity.values() for exposure in repeats.values()),
            key=lambda exposure: exposure.time,
        )
        run = self._runs[last.run_uid]
        flats: dict[int, list[Exposure]] = {}
        for exposure in run.stream("flat"):
            flats.setdefault(exposure.key.helicity, []).append(exposure)
        return Angle(
            *place,
            exposures={
                helicity: tuple(repeats[number] for number in sorted(repeats))
                for helicity, repeats in by_helicity.items()
            },
            flats={helicity: tuple(exposures) for helicity, exposures in flats.items()},
            darks=tuple(run.stream("dark")),
            stated_phi_deg=float(run.start["phi_deg"]),
        )

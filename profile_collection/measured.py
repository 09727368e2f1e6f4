"""Measurements that were begun, as the journal of a data folder tells of them."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mistral_txm.devices.key import Key
from mistral_txm.devices.strict_toml import explain
from mistral_txm.plans import Measurement, PlanError
from mistral_txm.plans.return_to_zero import return_keys
from mistral_txm.services.exposures import RETURN, Exposure
from mistral_txm.services.frame_files import existing
from mistral_txm.services.series_exposures import SeriesExposures
from mistral_txm.services.standing import assigned
from mistral_txm.services.verification import read_series, verify

logger = logging.getLogger("mistral_txm.measurement")


@dataclass(frozen=True)
class Measured:
    """A measurement that was begun: its series, one for each photon energy, which are resumed together."""

    uid: str
    """Of the series; of several, what their names begin with."""
    measurement: Measurement
    series: Mapping[float, SeriesExposures]
    """By photon energy, the one measured last comes last; without those that were not begun."""

    @property
    def keys(self) -> dict[Key, None]:
        """All keys of all its series, in the order of the plan."""
        return dict.fromkeys(key for one in self.series.values() for key in one.manifest)

    @property
    def planned(self) -> int:
        """How many exposures of the sample there are in all, those of the returns to zero tilt included."""
        return self.left({})

    def missing(self) -> dict[float, int]:
        """Return how many exposures are missing, by energy, without returns to zero tilt; no frame is read for it."""
        whole = len(self.keys)
        return {
            energy_ev: len(_missing(self.series[energy_ev])) if energy_ev in self.series else whole
            for energy_ev in self.measurement.energies_ev
        }

    @property
    def lacks(self) -> bool:
        """Whether there is something to take, a return to zero tilt included; no frame is read for it."""
        return any(self.missing().values()) or any(self.open_returns().values())

    @property
    def start(self) -> Mapping[str, Any]:
        """The start document of the newest run."""
        newest: Mapping[str, Any] = list(self.series.values())[-1].runs[-1].start
        return newest

    def left(self, skip: Mapping[float, frozenset[Key]], phi_deg: float | None = None) -> int:
        """Return how many exposures there are without those to skip, returns to zero tilt included.

        `phi_deg`: only those of that azimuth.
        """
        keys = frozenset(
            key
            for key in (*self.keys, *return_keys(self.measurement))
            if phi_deg in (None, key.phi_deg)
        )
        return sum(len(keys - skip.get(each, frozenset())) for each in self.measurement.energies_ev)

    def verified(self, data: Path) -> dict[float, frozenset[Key]]:
        """Read every frame, and return by energy which keys are not to be taken any more."""
        done = {}
        for energy_ev, one in self.series.items():
            (found,) = verify(data, one.uid)
            damaged = {exposure for exposure, _ in found.damaged}
            done[energy_ev] = found.done | self._returned(one, found.missing, damaged)
        return done

    def open_returns(self) -> dict[str, list[Key]]:
        """Return by series the keys of returns to zero tilt that are still to be taken; no frame is read for it."""
        planned = return_keys(self.measurement)
        found = {}
        for one in self.series.values():
            returned = self._returned(one, _missing(one), _lost(one))
            found[one.uid] = [key for key in planned if key not in returned]
        return found

    def _returned(
        self, series: SeriesExposures, missing: Iterable[Key], damaged: Collection[Exposure]
    ) -> frozenset[Key]:
        """Return the keys of returns that are not to be taken: they were, or the sample was turned since then."""
        if not (planned := return_keys(self.measurement)):
            return frozenset()
        good = {one.key for one in _returns(series) if assigned(one) and one not in damaged}
        last = max(
            (one for each in self.series.values() for one in each.exposures if _shows_sample(one)),
            key=lambda one: one.time,
            default=None,
        )
        unfinished = {key.phi_deg for key in missing}
        if last is not None:
            unfinished.add(last.key.phi_deg)
        return frozenset(key for key in planned if key in good or key.phi_deg not in unfinished)


def _lost(series: SeriesExposures) -> frozenset[Exposure]:
    """Return the exposures whose file is gone."""
    gone = {path for path in {one.path for one in series.exposures} if existing(path) is None}
    return frozenset(one for one in series.exposures if one.path in gone)


def _missing(series: SeriesExposures) -> Sequence[Key]:
    return series.standing(_lost(series)).missing


def _returns(series: SeriesExposures) -> list[Exposure]:
    return [one for one in series.exposures if one.stream == RETURN]


def _shows_sample(exposure: Exposure) -> bool:
    return exposure.stream in ("primary", RETURN)


@dataclass(frozen=True)
class Unreadable:
    """A measurement that was begun by another version; what it planned cannot be read by this one."""

    uid: str
    series: Mapping[float, SeriesExposures]
    why: str
    """One line: what is wrong with it, and what to do."""

    @property
    def lacks(self) -> bool:
        """Whether there is something to take, as far as it can be told."""
        return any(_missing(one) for one in self.series.values())


def begun(data: Path) -> list[Measured | Unreadable]:
    """Return all measurements that were begun in a data folder; the one that was measured last comes last."""
    return [_begun(uid, group) for uid, group in _groups(data).items()]


def measured(data: Path) -> list[Measured]:
    """Return the measurements of a data folder; the one that was measured last comes last.

    One that cannot be read is left out, and told of in the log, once.
    """
    found = begun(data)
    for each in found:
        if isinstance(each, Unreadable):
            _tell(data, each.why)
    return [each for each in found if isinstance(each, Measured)]


def named(found: Sequence[Measured | Unreadable], name: str) -> Measured:
    """Return the measurement of that name, which may be that of one of its series, or that begins so.

    Raises
    ------
    PlanError
        If there is none, or more than one, or it cannot be read.
    """
    names = [(each, (each.uid, *(one.uid for one in each.series.values()))) for each in found]
    exact = [each for each, its in names if name in its]
    chosen = exact or [each for each, its in names if any(one.startswith(name) for one in its)]
    if not chosen:
        known = ", ".join(each.uid for each in found) or "none"
        raise PlanError(f"series {name}: no such series here; known are: {known}")
    if len(chosen) > 1:
        raise PlanError(f"series {name}: {len(chosen)} series begin so; type more of the name")
    return readable(chosen[0])


def to_resume(
    found: Sequence[Measured | Unreadable], data: Path
) -> tuple[Measured, dict[float, frozenset[Key]]]:
    """Return the newest measurement that lacks something, and by energy which keys are not to be taken any more.

    Where none lacks anything it is the newest. Of that one the frames tell; of those before it the journal does, and
    then their frames: all that was ever measured is not read.

    Raises
    ------
    PlanError
        If it cannot be read.
    """
    newest, *before = reversed(found)
    lacking = (each for each in before if each.lacks)
    if isinstance(newest, Unreadable):
        chosen = readable(newest if newest.lacks else next(lacking, newest))
        return chosen, chosen.verified(data)
    done = newest.verified(data)
    older = None if newest.left(done) else next(lacking, None)
    if older is None:
        return newest, done
    chosen = readable(older)
    return chosen, chosen.verified(data)


def readable(one: Measured | Unreadable) -> Measured:
    """Return a measurement that can be read.

    Raises
    ------
    PlanError
        If it cannot.
    """
    if isinstance(one, Unreadable):
        raise PlanError(one.why)
    return one


def open_returns(data: Path) -> dict[str, list[Key]]:
    """Return by series which exposures of returns to zero tilt `resume` still takes, from the journal alone."""
    found: dict[str, list[Key]] = {}
    for each in measured(data):
        found |= each.open_returns()
    return found


@cache
def _tell(_data: Path, line: str) -> None:
    logger.warning(line)


def _groups(data: Path) -> dict[str, dict[float, SeriesExposures]]:
    """Return the series of each measurement by their photon energy."""
    groups: dict[str, dict[float, SeriesExposures]] = {}
    for record in read_series(data):
        start = record.runs[-1].start if record.manifest else {}
        if not {"measurement", "energy_ev"} <= start.keys():  # nothing that could be resumed
            continue
        uid = _edges(record).get("series", record.uid)
        energy_ev = float(start["energy_ev"])
        others = {each: one for each, one in groups.pop(uid, {}).items() if each != energy_ev}
        groups[uid] = {**others, energy_ev: record}
    return groups


def _edges(record: SeriesExposures) -> Mapping[str, Any]:
    """Return what the runs of a series say of the photon energies beside its own; nothing if there are none."""
    found = [run.start["edges"] for run in record.runs if "edges" in run.start]
    return found[-1] if found else {}


def _begun(uid: str, group: Mapping[float, SeriesExposures]) -> Measured | Unreadable:
    newest = list(group.values())[-1]
    try:
        description = dict(newest.runs[-1].start["measurement"])
        if edges := _edges(newest):
            description |= {"energies_ev": edges["energies_ev"], "edges": edges["order"]}
        return Measured(uid, Measurement.from_dict(description), group)
    except ValidationError as refusal:
        what = explain(refusal.errors()[0], Measurement)
    except (ValueError, TypeError, KeyError) as refusal:
        what = f"{type(refusal).__name__}: {refusal}"
    why = (
        f"series {uid}: its measurement is none that this version of mistral-txm can read ({what}); go on with it in "
        "the version that began it, or name another series"
    )
    return Unreadable(uid, group, " ".join(why.split()))

"""What an operator types between a measurement's begin and its end: resume, retake, reject, the next azimuth, status.

Whatever returns a plan looks at the data first, and refuses in one line: nothing has moved then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from mistral_txm import plans
from mistral_txm.devices.key import Key
from mistral_txm.plans import Measurement, PlanError
from mistral_txm.plans.exposure_control import Looked
from mistral_txm.plans.scans import is_number
from mistral_txm.profile_collection.looked import looked as looked_before
from mistral_txm.profile_collection.measured import (
    Measured,
    Unreadable,
    begun,
    named,
    readable,
    to_resume,
)
from mistral_txm.profile_collection.outcome import told_exposures
from mistral_txm.profile_collection.series_progress import measurement_of
from mistral_txm.profile_collection.typed import typed
from mistral_txm.services.journal import journal_files, read_journal

if TYPE_CHECKING:  # to look at data must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument

NEAR_DEG = 0.05
"""How far a tilt may be from the one that is meant."""
AGREEMENT_DEG = 1.0
"""How far the sample may be mounted from a planned azimuth."""


class OperatorPlans:
    """The functions for one session; `names` are those that the operator types.

    Parameters
    ----------
    instrument
        The devices.
    data
        The data folder.
    turn
        Turns the sample where nobody else does: at a simulated beamline.
    """

    def __init__(
        self, instrument: Instrument, data: Path, turn: Callable[[float], None] | None = None
    ) -> None:
        self._instrument = instrument
        self._data = data
        self._turn = turn

    @property
    def names(self) -> dict[str, Any]:
        """The functions by name."""
        own = (self.resume, self.retake, self.reject, self.next_azimuth, self.status)
        return {
            "vector_tomography": typed(
                self.vector_tomography,
                plans.vector_tomography,
                example="RE(vector_tomography(instrument, 'film.toml', series='film'))",
            ),
            **{each.__name__: typed(each) for each in own},
        }

    def vector_tomography(
        self,
        instrument: Instrument,
        measurement: Measurement,
        *,
        series: str | None = None,
        skip: Mapping[float, Collection[Key]] | None = None,
        looked: Looked | None = None,
        md: Mapping[str, Any] | None = None,
    ) -> MsgGenerator[tuple[str, ...]]:
        """Measure all azimuths: `plans.vector_tomography`, which does not take again what is there.

        Raises
        ------
        PlanError
            If a series of that name was begun, and nothing is said of what to skip.
        """
        if skip is None and series is not None and self._is_begun(series):
            raise PlanError(
                f"series {series}: was begun here already; RE(resume({series!r})) takes the rest, or choose "
                "another name"
            )
        plan: MsgGenerator[tuple[str, ...]] = plans.vector_tomography(
            instrument, measurement, series=series, skip=skip or {}, looked=looked, md=md
        )
        return plan

    def resume(self, series: str | None = None) -> MsgGenerator[tuple[str, ...]]:
        """Take what is missing of a series: ``RE(resume())``. All its frames are read and compared first.

        Parameters
        ----------
        series
            Its uid, or the first characters; by default the newest that lacks something, be it a return to zero tilt.

        Raises
        ------
        PlanError
            If there is no such series, or nothing is missing.
        """
        found = self._begun(series)
        wanted = found if series is None else [named(found, series)]
        chosen, skip = to_resume(wanted, self._data)
        left = chosen.left(skip)
        if not left:
            raise PlanError(f"series {chosen.uid}: nothing is missing")
        print(f"series {chosen.uid}: {told_exposures(left)} to take")
        plan: MsgGenerator[tuple[str, ...]] = plans.vector_tomography(
            self._instrument,
            chosen.measurement,
            series=chosen.uid,
            skip=skip,
            looked=self._looked(chosen, skip),
        )
        return plan

    def retake(
        self,
        theta: float,
        helicity: int | None = None,
        phi: float | None = None,
        series: str | None = None,
    ) -> MsgGenerator[tuple[str, ...]]:
        """Take an angle again: ``RE(retake(-44, helicity=-1))``. What was taken before stays on the disk.

        Parameters
        ----------
        theta
            Tilt in degrees.
        helicity
            +1 or -1; by default both.
        phi
            Azimuth in degrees; by default that of the sample as it is mounted.
        series
            Its uid, or the first characters; by default the newest.

        Raises
        ------
        PlanError
            If there is no such series or angle; the message names the angles beside it.
        """
        chosen = self._chosen(series)
        again = self._keys(chosen, theta, helicity, phi)
        plan: MsgGenerator[tuple[str, ...]] = plans.retake(
            self._instrument, chosen.measurement, again, series=chosen.uid
        )
        return plan

    def reject(
        self,
        theta: float,
        helicity: int | None = None,
        phi: float | None = None,
        repeat: int | None = None,
        *,
        reason: str,
        series: str | None = None,
    ) -> MsgGenerator[None]:
        """Let exposures count no more: ``RE(reject(-44, reason="sample moved"))``. ``RE(resume())`` takes them again.

        Parameters
        ----------
        theta, helicity, phi, series
            As those of `retake`.
        repeat
            Which exposure, from 1 as the progress shows it; by default all.
        reason
            Why: it is kept with the data.

        Raises
        ------
        PlanError
            As `retake`; also if nothing was taken that could be rejected.
        """
        if not isinstance(reason, str) or not reason.strip():
            raise PlanError("reason: expected a text that says why, such as 'sample moved'")
        chosen = self._chosen(series)
        keys = [
            key
            for key in self._keys(chosen, theta, helicity, phi)
            if repeat is None or key.repeat == repeat - 1
        ]
        rejected = {
            one.uid: [key for key in keys if key in one.accepted()]
            for one in chosen.series.values()
        }
        if not any(rejected.values()):
            raise PlanError(
                f"series {chosen.uid}: nothing accepted at theta = {theta:g} deg that could be rejected"
            )
        return self._reject(rejected, reason)

    def _reject(self, rejected: Mapping[str, list[Key]], reason: str) -> MsgGenerator[None]:
        for series, keys in rejected.items():
            if keys:
                yield from plans.reject(self._instrument, series, keys, reason)

    def next_azimuth(self, phi: float) -> MsgGenerator[tuple[str, ...]]:
        """Say how the sample is mounted now, and take the rest of the newest series there: ``RE(next_azimuth(102))``.

        Parameters
        ----------
        phi
            Azimuth in degrees as the sample stands, within 1 deg of a planned one.

        Raises
        ------
        PlanError
            If no planned azimuth is so near, or nothing is missing there.
        """
        _check_angle("phi", phi, "an azimuth")
        chosen = self._chosen(None)
        planned = chosen.measurement.azimuths_deg
        nearest = min(planned, key=lambda each: abs(each - phi))
        if abs(nearest - phi) > AGREEMENT_DEG:
            raise PlanError(
                f"phi = {phi:g} deg is not within {AGREEMENT_DEG:g} deg of a planned azimuth ({_angles(planned)} deg)"
            )
        skip = chosen.verified(self._data)
        if not chosen.left(skip, nearest):
            raise PlanError(f"series {chosen.uid}: nothing is missing at phi = {nearest:g} deg")
        return self._next_azimuth(chosen, nearest, phi, skip, self._looked(chosen, skip))

    def _looked(self, chosen: Measured, skip: Mapping[float, Collection[Key]]) -> Looked:
        return looked_before(self._data, chosen, self._instrument.configuration.ccd, skip)

    def _next_azimuth(
        self,
        chosen: Measured,
        azimuth_deg: float,
        phi_deg: float,
        skip: Mapping[float, frozenset[Key]],
        seen: Looked,
    ) -> MsgGenerator[tuple[str, ...]]:
        if self._turn is not None:
            self._turn(phi_deg)
        yield from bps.mv(self._instrument.azimuth, phi_deg)
        uids: tuple[str, ...] = yield from plans.tilt_series(
            self._instrument,
            chosen.measurement,
            azimuth_deg,
            series=chosen.uid,
            skip=skip,
            looked=seen,
        )
        return uids

    def status(self) -> None:
        """Print what is done of each series and what comes next, as ``mistral-txm status`` does."""
        from mistral_txm.profile_collection.command_line import main

        main(["status", "--data", str(self._data)])

    def _is_begun(self, series: str) -> bool:
        """Look at the start documents alone: the rest of a long journal is not read before every measurement."""
        for path in journal_files(self._data / "journal"):
            _, start = next(read_journal(path), ("", {}))
            if "planned_keys" in start and measurement_of(start) == series:
                return True
        return False

    def _chosen(self, series: str | None) -> Measured:
        """Return the measurement of a name; the newest without."""
        found = self._begun(series)
        return readable(found[-1]) if series is None else named(found, series)

    def _begun(self, series: str | None) -> list[Measured | Unreadable]:
        if not isinstance(series, str | None):
            raise PlanError(f"series = {series!r}: expected its name as a text, such as 'film'")
        found = begun(self._data)
        if not found and series is None:
            raise PlanError(
                "no series was begun here yet: RE(vector_tomography(instrument, m)) begins one"
            )
        return found

    def _keys(
        self, chosen: Measured, theta_deg: float, helicity: int | None, phi_deg: float | None
    ) -> list[Key]:
        """Return the planned keys of an angle."""
        _check_angle("theta", theta_deg, "a tilt")
        if phi_deg is not None:
            _check_angle("phi", phi_deg, "an azimuth")
        if helicity not in (None, 1, -1):
            raise PlanError(f"helicity: {helicity}, expected 1 or -1")
        azimuth_deg = self._azimuth(chosen.measurement, phi_deg)
        here = [key for key in chosen.keys if key.phi_deg == azimuth_deg]
        tilts = sorted({key.theta_deg for key in here}, key=lambda each: abs(each - theta_deg))
        if not tilts or abs(tilts[0] - theta_deg) > NEAR_DEG:
            raise PlanError(
                f"theta = {theta_deg:g} deg is not planned; beside it are {_angles(sorted(tilts[:2]))} deg"
            )
        return [
            key for key in here if key.theta_deg == tilts[0] and helicity in (None, key.helicity)
        ]

    def _azimuth(self, measurement: Measurement, phi_deg: float | None) -> float:
        """Return the planned azimuth that is meant; by default that at which the sample is mounted."""
        planned = measurement.azimuths_deg
        if phi_deg is None and len(planned) == 1:
            return planned[0]
        meant_deg = self._instrument.azimuth.phi_deg if phi_deg is None else phi_deg
        near = [each for each in planned if abs(each - meant_deg) <= AGREEMENT_DEG]
        if not near:
            said = "phi" if phi_deg is None else f"phi = {phi_deg:g} deg"
            raise PlanError(f"{said}: expected one of {_angles(planned)} deg")
        return min(near, key=lambda each: abs(each - meant_deg))


def _check_angle(name: str, value: object, what: str) -> None:
    """Refuse what is no angle."""
    if not is_number(value):
        raise PlanError(f"{name} = {value!r}: expected {what} in deg, a number without quotes")


def _angles(angles_deg: Any) -> str:
    """Name angles.

    >>> _angles((0.0, 102.0))
    '0, 102'
    """
    return ", ".join(f"{each:g}" for each in angles_deg)

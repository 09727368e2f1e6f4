"""Plans of the queue: their parameters are JSON, and what is wrong with one is refused when it is added.

The queue server validates parameters in a process of its own, from annotations that it keeps as text. A
measurement is checked there, too: the text of its annotation names `CheckedMeasurement`, by an import.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator
from bluesky_queueserver import parameter_annotation_decorator
from pydantic import AfterValidator, ValidationError

from mistral_txm import plans
from mistral_txm.devices.configuration import load_configuration
from mistral_txm.devices.strict_toml import explain
from mistral_txm.plans import Measurement, PlanError, check_positions, load_measurement
from mistral_txm.plans.operator import turn_sample
from mistral_txm.profile_collection.acquire import Ended
from mistral_txm.profile_collection.measured import Measured, begun, readable
from mistral_txm.profile_collection.session import Session

logger = logging.getLogger("mistral_txm.measurement")

CONFIG_VARIABLE = "MISTRAL_TXM_CONFIG"
"""The environment variable that names the configuration."""
SIMULATED_VARIABLE = "MISTRAL_TXM_SIMULATED"
"""The environment variable that, being 1, asks for a simulated beamline."""


class Refusal(Exception):
    """A parameter of a plan is wrong; the message is one line. (Not a ValueError, to which pydantic adds lines.)"""


def described(measurement: str | dict[str, Any]) -> Measurement:
    """Return a measurement by the name of a preset, from a TOML file, or from a dictionary.

    >>> described("small") == described(described("small").to_dict())
    True

    Raises
    ------
    ValueError, OSError
        If there is no such preset or file, or the description is wrong; one line.
    """
    if isinstance(measurement, str):
        return load_measurement(measurement)
    try:
        return Measurement.from_dict(measurement)
    except ValidationError as refusal:
        raise ValueError(explain(refusal.errors()[0], Measurement)) from None


def check_measurement(measurement: str | dict[str, Any]) -> str | dict[str, Any]:
    """Refuse a measurement that cannot be read or is beyond the limits of this beamline.

    Raises
    ------
    Refusal
        One line.
    """
    try:
        configuration = load_configuration(_configuration_path())
        check_positions(configuration, described(measurement))
    except (ValueError, OSError) as refusal:
        raise Refusal(f"measurement: {refusal}") from None
    return measurement


CheckedMeasurement = AfterValidator(check_measurement)
_MEASUREMENT = {
    "annotation": "typing.Annotated[typing.Union[str, dict], "
    f"__import__('{__name__}', fromlist=['*']).CheckedMeasurement]"
}
_SECONDS = {"min": 0.001, "max": 600}
_EXPOSING: dict[str, Any] = {
    "exposure_s": {**_SECONDS, "description": "Exposure time of the sample in s."},
    "flat_exposure_s": {**_SECONDS, "description": "Exposure time of the open beam in s."},
    "repeats": {"min": 1, "max": 1000, "description": "Exposures of the sample in each state."},
    "flat_repeats": {
        "min": 2,
        "max": 1000,
        "description": "Exposures of the open beam in each of its states.",
    },
    "dark_repeats": {
        "min": 2,
        "max": 1000,
        "description": "Dark frames for each exposure time.",
    },
}
_DEGREES = {"min": -360, "max": 360}
_HELICITY = {"min": -1, "max": 1}
_ANGLE: dict[str, Any] = {
    "phi_deg": {**_DEGREES, "description": "Azimuth as planned, in degrees."},
    "theta_deg": {"min": -90, "max": 90, "description": "Tilt in degrees."},
    "helicity": {**_HELICITY, "description": "+1 or -1; both if 0."},
    "series": {"description": "Uid of the series, or its first characters; the newest if empty."},
}

_Plan = TypeVar("_Plan", bound=Callable[..., MsgGenerator[Any]])
_Found = TypeVar("_Found")


def _checked(parameters: dict[str, Any]) -> Callable[[_Plan], _Plan]:
    """Let the queue server check parameters of a plan further than by their types."""
    decorator: Callable[[_Plan], _Plan] = parameter_annotation_decorator({"parameters": parameters})
    return decorator


def _off_the_loop(function: Callable[..., _Found], *arguments: Any) -> MsgGenerator[_Found]:
    """Read data in a thread: the engine's own, in which plans run, has to stay free."""

    def reading() -> asyncio.Future[_Found]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(None, partial(function, *arguments))

    (found,) = yield from bps.wait_for([reading])
    result: _Found = found.result()
    return result


class QueuePlans:
    """The plans of a session that a queue can hold; each public method is one."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @_checked({"measurement": _MEASUREMENT})
    def measure(
        self, measurement: str | dict[str, Any], series: str = ""
    ) -> MsgGenerator[tuple[str, ...]]:
        """Measure all azimuths of a vector tomography, one run each, or what is missing of the series if it was begun.

        Parameters
        ----------
        measurement
            A preset (small, medium, paper), a TOML file on the queue server's machine, or the description itself.
        series
            A name for the series. Without one it is a new series, unless the newest of the same measurement
            lacks something: that goes on.
        """
        wanted = described(measurement)
        found = yield from _off_the_loop(begun, self._session.data)
        named = [readable(each) for each in found if each.uid == series]
        if named and named[0].measurement != wanted:
            raise PlanError(f"series {series}: is another measurement; choose another name")
        same = named or [
            each
            for each in found
            if not series and isinstance(each, Measured) and each.measurement == wanted
        ]
        if same and same[-1].lacks:
            if not series:
                logger.info(
                    "series %s: is not complete, and goes on; a name for the series begins another one",
                    same[-1].uid,
                )
            return (yield from self.resume_series(same[-1].uid))
        if named:
            logger.info("series %s: is complete, nothing is taken", series)
            return ()
        uids: tuple[str, ...] = yield from plans.vector_tomography(
            self._session.instrument, wanted, series=series or None
        )
        return uids

    def resume_series(self, series: str = "") -> MsgGenerator[tuple[str, ...]]:
        """Take what is missing of a series; all its frames are read and compared first.

        Parameters
        ----------
        series
            Uid of the series, or its first characters; the newest that lacks something if empty.
        """
        plan = yield from _off_the_loop(self._session.resume, series or None)
        uids: tuple[str, ...] = yield from plan
        return uids

    @_checked(_ANGLE)
    def retake_angle(
        self, phi_deg: float, theta_deg: float, helicity: int = 0, series: str = ""
    ) -> MsgGenerator[tuple[str, ...]]:
        """Take an angle of a series again; what was taken before stays on the disk and does not count any more."""
        plan = yield from _off_the_loop(
            self._session.retake, theta_deg, helicity or None, phi_deg, series or None
        )
        uids: tuple[str, ...] = yield from plan
        return uids

    @_checked(_ANGLE)
    def reject_angle(
        self, phi_deg: float, theta_deg: float, reason: str, helicity: int = 0, series: str = ""
    ) -> MsgGenerator[None]:
        """Let an angle of a series count no more; `resume_series` takes it again.

        Parameters
        ----------
        reason
            Why: it is kept with the data.
        """
        yield from (
            yield from _off_the_loop(
                partial(self._session.reject, reason=reason, series=series or None),
                theta_deg,
                helicity or None,
                phi_deg,
            )
        )

    @_checked({"phi_deg": _DEGREES})
    def turn_sample(self, phi_deg: float) -> MsgGenerator[None]:
        """Ask for the sample to be turned, unless it stands so; the plan pauses until somebody says `mounted`.

        Parameters
        ----------
        phi_deg
            Azimuth in degrees.
        """
        yield from turn_sample(self._session.instrument, phi_deg)

    @_checked(_EXPOSING)
    def energy_scan(
        self,
        energies_ev: list[float],
        exposure_s: float,
        repeats: int,
        flat_exposure_s: float,
        flat_repeats: int,
        dark_repeats: int = 5,
    ) -> MsgGenerator[str]:
        """Expose sample and open beam in both helicities at each photon energy, at the present tilt.

        Parameters
        ----------
        energies_ev
            Photon energies in eV, ascending.
        """
        uid: str = yield from plans.energy_scan(
            self._session.instrument,
            energies_ev,
            exposure_s=exposure_s,
            repeats=repeats,
            flat_exposure_s=flat_exposure_s,
            flat_repeats=flat_repeats,
            dark_repeats=dark_repeats,
        )
        return uid

    @_checked({**_EXPOSING, "repeats": {**_EXPOSING["repeats"], "min": 2}, "helicity": _HELICITY})
    def focus_series(
        self,
        helicity: int,
        z_um: list[float],
        exposure_s: float,
        repeats: int,
        flat_exposure_s: float,
        flat_repeats: int,
        dark_repeats: int = 5,
    ) -> MsgGenerator[str]:
        """Expose the sample at positions of the zone plate, in one helicity, at the present energy.

        Parameters
        ----------
        helicity
            +1 or -1.
        z_um
            Positions of the zone plate in um, ascending, at least 5.
        """
        uid: str = yield from plans.focus_series(
            self._session.instrument,
            helicity,
            z_um,
            exposure_s=exposure_s,
            repeats=repeats,
            flat_exposure_s=flat_exposure_s,
            flat_repeats=flat_repeats,
            dark_repeats=dark_repeats,
        )
        return uid

    @_checked({"exposure_s": _SECONDS})
    def snapshot(self, exposure_s: float = 1.0) -> MsgGenerator[str]:
        """Expose once, with everything where it stands.

        Parameters
        ----------
        exposure_s
            Exposure time in s.
        """
        uid: str = yield from plans.snapshot(self._session.instrument, exposure_s)
        return uid


def serve(session: Session) -> dict[str, Any]:
    """Return what the queue server sees of a session: `RE`, the devices, the plans of the queue, `mounted`.

    At a beamline, prompts pause the plan. A signal that ends a plan ends this process then, too.
    """
    azimuth = session.instrument.azimuth
    if "faults" not in session:  # not a simulated beamline, whose simulated operator answers
        from mistral_txm.profile_collection.absent_operator import AbsentOperator

        session.RE.register_command("input", AbsentOperator(session.RE, azimuth))
    session.RE.context_managers.insert(0, partial(_Leaving, session))

    def mounted(phi_deg: float) -> None:
        """Say how the sample stands now: its azimuth in degrees."""
        azimuth.set(phi_deg).wait()

    return {
        "RE": session.RE,
        **session.instrument.devices,
        **queue_plans(session),
        "mounted": mounted,
    }


class _Leaving:
    """What the engine enters while it runs a plan: a process that was asked to end does, after the plan has.

    (The queue server would take its end for that of the plan alone, and go on.)
    """

    def __init__(self, session: Session, RE: Any) -> None:
        self._session = session

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """End in order: services, logs, process."""
        if isinstance(error, Ended):
            self._session.close()
            logging.shutdown()
            os._exit(int(error.code or 0))


def queue_plans(session: Session) -> dict[str, Callable[..., MsgGenerator[Any]]]:
    """Return the plans of the queue by name."""
    bound = QueuePlans(session)
    return {name: getattr(bound, name) for name in vars(QueuePlans) if not name.startswith("_")}


def _configuration_path() -> Path | None:
    given = os.environ.get(CONFIG_VARIABLE)
    return Path(given) if given else None

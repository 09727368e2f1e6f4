"""Plans of the queue: their parameters are JSON, and what is wrong with one is refused when it is added.

The queue server validates parameters in a process of its own, from annotations that it keeps as text. A
measurement is checked there, too: the text of its annotation names `CheckedMeasurement`, by an import.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator
from bluesky_queueserver import parameter_annotation_decorator
from pydantic import AfterValidator, ValidationError

from mistral_txm import plans
from mistral_txm.devices.configuration import explain, load_configuration, read_toml
from mistral_txm.devices.key import Key
from mistral_txm.plans import Measurement, PlanError, check_positions
from mistral_txm.plans.operator import turn_sample
from mistral_txm.profile_collection.session import Session
from mistral_txm.services.verification import Verification, read_series, verify

CONFIG_VARIABLE = "MISTRAL_TXM_CONFIG"
"""The environment variable that names the configuration."""
SIMULATED_VARIABLE = "MISTRAL_TXM_SIMULATED"
"""The environment variable that, being 1, asks for a simulated beamline."""
PRESETS = ("small", "medium", "paper")


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
    if isinstance(measurement, dict):
        try:
            return Measurement.from_dict(measurement)
        except ValidationError as refusal:
            raise ValueError(explain(refusal.errors()[0], Measurement)) from None
    if measurement in PRESETS:
        preset: Measurement = getattr(plans, measurement)()
        return preset
    path = Path(measurement).absolute()
    if not path.is_file():
        raise ValueError(
            f"{measurement!r}: neither a preset ({', '.join(PRESETS)}) nor a file ({path})"
        )
    return read_toml(path, Measurement)


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
    "exposure_s": _SECONDS,
    "flat_exposure_s": _SECONDS,
    "repeats": {"min": 1, "max": 1000},
    "flat_repeats": {"min": 2, "max": 1000},
    "dark_repeats": {"min": 2, "max": 1000},
}
_DEGREES = {"min": -360, "max": 360}
_HELICITY = {"min": -1, "max": 1}

_Plan = TypeVar("_Plan", bound=Callable[..., MsgGenerator[Any]])


def _checked(parameters: dict[str, Any]) -> Callable[[_Plan], _Plan]:
    """Let the queue server check parameters of a plan further than by their types."""
    decorator: Callable[[_Plan], _Plan] = parameter_annotation_decorator({"parameters": parameters})
    return decorator


class QueuePlans:
    """The plans of a session that a queue can hold; each public method is one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._instrument = session.instrument

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
            A name for the series. Without one each start of the item is a new series.
        """
        wanted = described(measurement)
        known = {record.uid: record for record in read_series(self._session.data)}
        if series in known:
            if Measurement.from_dict(known[series].runs[-1].start["measurement"]) != wanted:
                raise PlanError(f"series {series}: is another measurement; choose another name")
            return (yield from self.resume_series(series))
        uids: tuple[str, ...] = yield from plans.vector_tomography(
            self._instrument, wanted, series=series or None
        )
        return uids

    def resume_series(self, series: str = "") -> MsgGenerator[tuple[str, ...]]:
        """Take what is missing of a series; all its frames are read and compared first.

        Parameters
        ----------
        series
            Uid of the series, or its first characters; the newest that is not complete if empty.
        """
        found = yield from self._verified(series)
        left = [each for each in found if each.missing]
        if not left:
            raise PlanError(f"series {series or 'any'}: nothing is missing")
        uids: tuple[str, ...] = yield from self._take(left[-1].uid, left[-1].done)
        return uids

    @_checked({"phi_deg": _DEGREES, "theta_deg": {"min": -90, "max": 90}, "helicity": _HELICITY})
    def retake_angle(
        self, phi_deg: float, theta_deg: float, helicity: int = 0, series: str = ""
    ) -> MsgGenerator[tuple[str, ...]]:
        """Take an angle of a series again; what was taken before stays on the disk and does not count any more.

        Parameters
        ----------
        phi_deg
            Azimuth as planned, in degrees.
        theta_deg
            Tilt in degrees.
        helicity
            +1 or -1; both if 0.
        series
            Uid of the series, or its first characters; the newest if empty.
        """
        record = read_series(self._session.data, series or None)[-1]
        again = {
            key
            for key in record.manifest
            if (key.phi_deg, key.theta_deg) == (phi_deg, theta_deg)
            and helicity in (0, key.helicity)
        }
        if not again:
            raise PlanError(
                f"series {record.uid}: plans nothing at phi = {phi_deg:g}, theta = {theta_deg:g} deg"
            )
        uids: tuple[str, ...] = yield from self._take(
            record.uid, frozenset(record.manifest) - again
        )
        return uids

    @_checked({"phi_deg": _DEGREES})
    def next_azimuth(self, phi_deg: float) -> MsgGenerator[None]:
        """Ask for the sample to be turned, unless it stands so; the plan pauses until somebody says `mounted`.

        Parameters
        ----------
        phi_deg
            Azimuth in degrees.
        """
        yield from turn_sample(self._instrument, phi_deg)

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
        exposure_s
            Exposure time of the sample in s.
        repeats
            Exposures of the sample for each energy and helicity.
        flat_exposure_s
            Exposure time of the open beam in s.
        flat_repeats
            Exposures of the open beam for each energy and helicity.
        dark_repeats
            Dark frames for each exposure time.
        """
        uid: str = yield from plans.energy_scan(
            self._instrument,
            energies_ev,
            exposure_s=exposure_s,
            repeats=repeats,
            flat_exposure_s=flat_exposure_s,
            flat_repeats=flat_repeats,
            dark_repeats=dark_repeats,
        )
        return uid

    @_checked({**_EXPOSING, "helicity": _HELICITY})
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
        exposure_s
            Exposure time of the sample in s.
        repeats
            Exposures of the sample at each position, at least 2.
        flat_exposure_s
            Exposure time of the open beam in s.
        flat_repeats
            Exposures of the open beam.
        dark_repeats
            Dark frames for each exposure time.
        """
        uid: str = yield from plans.focus_series(
            self._instrument,
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
        uid: str = yield from plans.snapshot(self._instrument, exposure_s)
        return uid

    def _verified(self, series: str) -> MsgGenerator[list[Verification]]:
        """Read all frames in a thread: the engine's own has to stay free."""

        def reading() -> asyncio.Future[list[Verification]]:
            return asyncio.get_running_loop().run_in_executor(
                None, verify, self._session.data, series or None
            )

        (read,) = yield from bps.wait_for([reading])
        found: list[Verification] = read.result()
        return found

    def _take(self, series: str, skip: frozenset[Key]) -> MsgGenerator[tuple[str, ...]]:
        (record,) = read_series(self._session.data, series)
        start = record.runs[-1].start
        uids: tuple[str, ...] = yield from plans.vector_tomography(
            self._instrument,
            Measurement.from_dict(start["measurement"]),
            series=series,
            skip={start["energy_ev"]: skip},
        )
        return uids


def serve(session: Session) -> dict[str, Any]:
    """Return what the queue server sees of a session: `RE`, the devices, the plans of the queue, `mounted`.

    At a beamline, prompts pause the plan. When this process is asked to end, a plan that runs is aborted first.
    (When the environment is closed, the process has half a second: the services notice its end by themselves.)
    """
    azimuth = session.instrument.azimuth
    if "faults" not in session:  # not a simulated beamline, whose simulated operator answers
        from mistral_txm.profile_collection.absent_operator import AbsentOperator

        session.RE.register_command("input", AbsentOperator(session.RE, azimuth))

    def mounted(phi_deg: float) -> None:
        """Say how the sample stands now: its azimuth in degrees."""
        azimuth.set(phi_deg).wait()

    def leave(number: int, frame: FrameType | None) -> None:
        session.close()
        logging.shutdown()
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    return {
        "RE": session.RE,
        **session.instrument.devices,
        **queue_plans(session),
        "mounted": mounted,
    }


def queue_plans(session: Session) -> dict[str, Callable[..., MsgGenerator[Any]]]:
    """Return the plans of the queue by name."""
    bound = QueuePlans(session)
    return {name: getattr(bound, name) for name in vars(QueuePlans) if not name.startswith("_")}


def _configuration_path() -> Path | None:
    given = os.environ.get(CONFIG_VARIABLE)
    return Path(given) if given else None

"""What an operator has at the prompt: RunEngine, catalog, devices and plans, wired together."""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from mistral_txm.devices.configuration import Configuration, load_configuration
from mistral_txm.devices.strict_toml import ConfigurationError
from mistral_txm.profile_collection.channel_access import use_control_server
from mistral_txm.profile_collection.screen import logging_to
from mistral_txm.profile_collection.simulation import (
    Simulation,
    usable_conditions,
    usable_faults,
    usable_texture,
)
from mistral_txm.services.keeper import kept_running
from mistral_txm.services.lease import acquisition_lease
from mistral_txm.services.lifeline import ServiceProcess

DATA_VARIABLE = "MISTRAL_TXM_DATA"
"""The environment variable that names the data folder."""

PLANS = (
    "tilt_series",
    "dichroic_projection",
    "flats",
    "darks",
    "sample_queue",
    "energy_scan",
    "focus_series",
    "polarization_scan",
    "snapshot",
)
"""Plans of a session as they are; it has others of its own."""
MEASUREMENTS = ("Measurement", "Sample", "load_measurement", "small", "medium", "paper")
"""What describes a measurement."""
BESIDE = "catalog", "live", "monitor"
"""The processes that follow a measurement and are not needed by it."""
UNTYPED = ("light", "key", "waived", "budget", "log", "advice")
"""Devices that tell of exposures, for plans alone; they stand nowhere, and nobody moves them."""

READY_TIMEOUT_S = 90.0
SIMULATED_BEAMLINE = "mistral_txm.simulated_beamline"


def data_folder(data: str | os.PathLike[str] | None = None) -> Path:
    """Return the data folder: the one given, else `MISTRAL_TXM_DATA`, else ``./mistral-txm-data``."""
    return Path(data or os.environ.get(DATA_VARIABLE) or "mistral-txm-data").resolve()


class SessionError(RuntimeError):
    """There is a session already; the message says which, in one line."""


class Session(dict[str, Any]):
    """The operator's namespace: a mapping whose names are attributes too.

    ``globals().update(session)`` puts everything at the prompt; ``session.RE`` is the RunEngine. As a
    context manager, or by `close`, it ends the processes that it started.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exits = ExitStack()
        self.services: dict[str, ServiceProcess] = {}

    def __getattr__(self, name: str) -> Any:
        """Return the entry of that name."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the session has no {name!r}; it has {', '.join(self)}") from None

    def __repr__(self) -> str:
        """Name what there is, since the whole mapping would fill the screen."""
        return f"<Session with {', '.join(self)}>"

    def terminate(self) -> None:
        """Ask all processes that this session started to end, side by side."""
        for service in self.services.values():
            service.terminate()

    def close(self) -> None:
        """End every process that this session started; more than once does no harm."""
        self._exits.close()
        if _open and _open[0] is self:
            _open.clear()

    def __enter__(self) -> Self:
        """Return the session itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End what was started."""
        self.close()


_open: list[Session] = []
"""The session of this process, while there is one."""


def start(
    simulated: bool = False,
    *,
    data: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    size: str = "small",
    texture: str | os.PathLike[str] = "stripes",
    seed: int = 0,
    time_scale: float = 0.0,
    conditions: str | os.PathLike[str] = "ideal",
    faults: Sequence[str] = (),
) -> Session:
    """Start an acquisition and return the operator's namespace.

    It holds ``RE`` (the RunEngine), ``cat`` (the databroker catalog), ``instrument`` and each of its
    devices under its own name, the plans, what is asked before one (``summary``, ``check``, ``simulate``), what is
    done with a series (``resume``, ``retake``, ``reject``, ``next_azimuth``, ``status``, ``find``, ``arrays``), and
    ``data`` (the data folder); of a simulated beamline also ``faults``, the device that lets things go wrong. The
    catalog, the live reconstruction and the monitor page run in processes of their own; the RunEngine needs none of
    them. One more closes the shutter when this one is gone. Of these, one that ends by itself is started again. Where
    the light is lost, the suspenders of ``RE`` wait until it is back.

    Parameters
    ----------
    simulated
        Start a simulated beamline and connect to it, instead of the one of the environment.
    data
        Data folder; by default `MISTRAL_TXM_DATA`, else ``./mistral-txm-data``.
    config
        TOML file of addresses, limits and focus positions; by default the packaged one.
    size, texture, seed, time_scale
        Of the simulated beamline: frames of the sizes ``small``, ``medium`` or ``paper``, the
        magnetization's name or the OVF or HDF5 file that holds it, the seed of its noise, and how long an
        exposure of one second takes, s.
    conditions
        Of the simulated beamline: ``ideal``, ``real``, or a TOML file of what differs from that.
    faults
        What goes wrong there from the start, each as ``NAME`` or ``NAME=VALUE``.

    Raises
    ------
    ValueError
        If the configuration, the texture, the conditions or a fault are wrong; nothing has started then.
    SessionError
        If this process has a session: libca reads its addresses once, and the shutter has one master.
    LeaseError
        If another acquisition uses the data folder.
    ServiceError
        If the simulated beamline does not start.
    TimeoutError
        If devices do not answer; the message names them.
    """
    if _open:
        raise SessionError(
            f"a session runs here already, with its data in {_open[0]['data']}; to start another, leave with exit first"
        )
    folder = data_folder(data)
    session = Session()
    exits = session._exits
    try:
        configuration = load_configuration(None if config is None else Path(config))
        exits.enter_context(acquisition_lease(folder))
        simulation, in_folder = None, ["--data", str(folder)]
        if simulated:
            if configuration.simulation is None:
                raise ConfigurationError(
                    f"{config}: has no section [simulation], which says where a simulated sample is turned"
                )
            simulation = Simulation(
                size=size,
                texture=usable_texture(os.fspath(texture), folder),
                seed=seed,
                conditions=usable_conditions(os.fspath(conditions)),
                time_scale=time_scale,
            )
            options = [word for fault in usable_faults(faults) for word in ("--fault", fault)]
            options += [*in_folder, *simulation.options()]
            _start_service(session, "simulated_beamline", SIMULATED_BEAMLINE, folder, options)
        for name in BESIDE:
            _start_service(session, name, f"mistral_txm.services.{name}", folder, in_folder)
        exits.callback(session.terminate)
        if simulated:
            ready = session.services["simulated_beamline"].wait_ready(READY_TIMEOUT_S)
            use_control_server(int(ready["port"]))
        # It closes the shutter when this process is gone: nothing may move before it is there.
        options = [] if config is None else ["--config", str(Path(config).resolve())]
        _start_service(session, "watchdog", "mistral_txm.services.watchdog", folder, options)
        exits.enter_context(logging_to(folder / "logs" / "acquisition.log"))
        _wire(session, folder, configuration, simulation)
        session.services["watchdog"].wait_ready(READY_TIMEOUT_S)
        kept = {name: session.services[name] for name in (*BESIDE, "watchdog")}
        exits.enter_context(kept_running(kept))
        shell = _shell()
        exits.enter_context(_ending_in_order(session, tells=shell is not None))
        if shell is not None:
            from mistral_txm.profile_collection.prompt import dress, greet

            dress(shell, session.RE, session.instrument, folder, session.get("faults"))
            greet(session.instrument, folder, session.services["monitor"])
    except BaseException:
        session.close()
        raise
    _keep_garbage_small()
    atexit.register(session.close)
    _open.append(session)
    return session


def _keep_garbage_small() -> None:
    """Let Python look for cycles soon again: every status of ophyd is one.

    It looks when a quarter as many objects as there were before have come, and half a million are there from the
    begin. Frozen, they do not count.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # counts anew


def _start_service(
    session: Session, name: str, module: str, data: Path, options: Sequence[str]
) -> None:
    """Start one helper process without waiting for it; the session's end ends it."""
    service = ServiceProcess(module, ["--lifeline", *options], log=data / "logs" / f"{name}.log")
    session.services[name] = session._exits.enter_context(service)


@contextmanager
def _ending_in_order(session: Session, *, tells: bool) -> Iterator[None]:
    """End a plan that is paused with the session, as an abort; so do SIGTERM and SIGHUP, with one that runs.

    The plan puts back what it moved, the shutter first, and its run gets a stop document. The signals then end
    this process. (Unhandled, they would do that at once, and leave the shutter open.) With `tells` a line says how
    all was left.
    """
    from mistral_txm.profile_collection.acquire import (
        SIGNALS,
        Ended,
        end_plan,
        ending_by_signals,
        handling,
        waking_the_main_thread,
    )

    came: list[Ended] = []

    def leave(number: int, frame: FrameType | None) -> None:
        came.append(Ended(number))
        raise came[-1]

    in_main_thread = threading.current_thread() is threading.main_thread()
    with ExitStack() as exits:
        if in_main_thread:
            exits.enter_context(handling(SIGNALS, leave))
            exits.enter_context(waking_the_main_thread(SIGNALS))
        exits.enter_context(ending_by_signals(session.RE))
        try:
            yield
        finally:
            wrong = end_plan(session.RE)
            if tells:
                _tell_end(session, str(came[-1]) if came else "", wrong)


def _tell_end(session: Session, cause: str, complaints: Sequence[str]) -> None:
    """Say how all was left."""
    from mistral_txm.plans.failures import not_put_back
    from mistral_txm.profile_collection.prompt import shutter_told

    by = f" by {cause}" if cause else ""
    line = (
        f"the session has ended{by}; {shutter_told(session.instrument)}; the data are in "
        f"{session.data}{not_put_back(complaints)}"
    )
    with suppress(OSError, ValueError):  # the terminal may be gone
        print(line, flush=True)


def _shell() -> Any:
    """Return the running IPython; None where that is not the prompt."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _wire(
    session: Session, data: Path, configuration: Configuration, simulation: Simulation | None
) -> None:
    """Build the RunEngine, the devices and the plans; ophyd is first imported here."""
    import bluesky.plan_stubs
    import bluesky.plans
    import epics

    from mistral_txm import plans
    from mistral_txm.devices.instrument import make_instrument
    from mistral_txm.profile_collection import suspenders
    from mistral_txm.profile_collection.acquire import Awake
    from mistral_txm.profile_collection.engine import Engine
    from mistral_txm.profile_collection.engine_words import use_our_words
    from mistral_txm.profile_collection.operator_plans import OperatorPlans
    from mistral_txm.profile_collection.preflight import Preflight
    from mistral_txm.profile_collection.progress import ProgressLine
    from mistral_txm.profile_collection.survey_plans import survey_plans
    from mistral_txm.profile_collection.typed import typed
    from mistral_txm.services.catalog_search import find
    from mistral_txm.services.journal import JournalWriter
    from mistral_txm.services.series_arrays import series_arrays

    instrument = make_instrument(configuration, data / "frames")
    instrument.connect(configuration.connection_timeout_s)
    RE = Engine({}, during_task=Awake())  # the name that every Bluesky operator types
    RE.record_interruptions = (
        True  # pauses and suspensions stand in the documents, with their reason
    )
    watching = suspenders.light_suspenders(instrument)
    suspenders.install(RE, watching)
    use_our_words()
    progress = ProgressLine(
        data, configuration, lambda: next(filter(None, (each.waits_for for each in watching)), "")
    )
    RE.context_managers.append(lambda _RE: progress)
    RE.subscribe(session._exits.enter_context(JournalWriter(data / "journal")))
    turn = None
    if simulation is not None and configuration.simulation is not None:
        from mistral_txm.profile_collection.simulated_faults import make_faults
        from mistral_txm.profile_collection.simulated_operator import SimulatedOperator

        RE.md["simulation"] = simulation.metadata()
        operator = SimulatedOperator(configuration.simulation)
        turn = operator.turn
        RE.register_command("input", operator)
        session["faults"] = faults = make_faults(configuration.simulation.faults_address)
        faults.wait_for_connection(timeout=configuration.connection_timeout_s)
        # The simulated beamline ends before this process: that is no fault to be printed.
        session._exits.callback(epics.ca.disable_ca_messages)
    cat = _catalog(data)
    session.update(
        RE=RE,
        cat=cat,
        find=typed(partial(find, cat), find, without=("cat",), example="find(sample='film')"),
        arrays=typed(
            partial(series_arrays, cat), series_arrays, without=("cat",), example="arrays('film')"
        ),
        bp=bluesky.plans,
        bps=bluesky.plan_stubs,
        data=data,
        instrument=instrument,
        **{name: device for name, device in instrument.devices.items() if name not in UNTYPED},
        **{name: typed(getattr(plans, name)) for name in PLANS},
        **{name: getattr(plans, name) for name in MEASUREMENTS},
    )
    session.update(Preflight(instrument, data, RE.md, session.services).names)
    session.update(OperatorPlans(instrument, data, turn).names)
    session.update(survey_plans(instrument, data))


def _catalog(data: Path) -> Any:
    """Open the catalog; without it a measurement runs on its journal alone, and the operator is told so."""
    from mistral_txm.services.catalog import CatalogError, open_catalog

    try:
        return open_catalog(data, READY_TIMEOUT_S)
    except CatalogError as error:
        print(f"{error}; measuring goes on, the journal keeps everything", file=sys.stderr)
        return None

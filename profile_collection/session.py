"""What an operator has at the prompt: RunEngine, catalog, devices and plans, wired together."""

import atexit
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from mistral_txm.devices.configuration import (
    Configuration,
    ConfigurationError,
    load_configuration,
)
from mistral_txm.profile_collection.channel_access import use_control_server
from mistral_txm.profile_collection.simulation import (
    Simulation,
    usable_conditions,
    usable_faults,
    usable_texture,
)
from mistral_txm.services.lease import acquisition_lease
from mistral_txm.services.lifeline import ServiceProcess

DATA_VARIABLE = "MISTRAL_TXM_DATA"
"""The environment variable that names the data folder."""

READY_TIMEOUT_S = 90.0
SIMULATED_BEAMLINE = "mistral_txm.simulated_beamline"


def data_folder(data: str | os.PathLike[str] | None = None) -> Path:
    """Return the data folder: the one given, else `MISTRAL_TXM_DATA`, else ``./mistral-txm-data``."""
    return Path(data or os.environ.get(DATA_VARIABLE) or "mistral-txm-data").resolve()


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
    devices under its own name, the plans, and ``data`` (the data folder); of a simulated beamline also
    ``faults``, the device that lets things go wrong. The catalog, the live reconstruction and the monitor page
    run in processes of their own; the RunEngine needs none of them.

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
    LeaseError
        If another acquisition uses the data folder.
    ServiceError
        If the simulated beamline does not start.
    TimeoutError
        If devices do not answer; the message names them.
    """
    folder = data_folder(data)
    session = Session()
    exits = session._exits
    try:
        configuration = load_configuration(None if config is None else Path(config))
        exits.enter_context(acquisition_lease(folder))
        simulation = None
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
            options += simulation.options()
            _start_service(session, "simulated_beamline", SIMULATED_BEAMLINE, folder, options)
        for name in ("catalog", "live", "monitor"):
            _start_service(session, name, f"mistral_txm.services.{name}", folder)
        exits.callback(session.terminate)
        if simulated:
            ready = session.services["simulated_beamline"].wait_ready(READY_TIMEOUT_S)
            use_control_server(int(ready["port"]))
        exits.enter_context(_logging_to(folder / "logs" / "acquisition.log"))
        _wire(session, folder, configuration, simulation)
        exits.enter_context(_ending_in_order(session.RE))
        if (shell := _shell()) is not None:
            from mistral_txm.profile_collection.prompt import dress

            dress(shell, session.RE, session.instrument, session.get("faults"))
    except BaseException:
        session.close()
        raise
    atexit.register(session.close)
    return session


def _start_service(
    session: Session, name: str, module: str, data: Path, options: Sequence[str] = ()
) -> None:
    """Start one helper process without waiting for it; the session's end ends it."""
    arguments = ["--data", str(data), "--lifeline", *options]
    service = ServiceProcess(module, arguments, log=data / "logs" / f"{name}.log")
    session.services[name] = session._exits.enter_context(service)


@contextmanager
def _ending_in_order(RE: Any) -> Iterator[None]:
    """End a plan that is paused with the session, as an abort; so do SIGTERM and SIGHUP, with one that runs.

    The plan puts back what it moved, the shutter first, and its run gets a stop document. The signals then end
    this process. (Unhandled, they would do that at once, and leave the shutter open.)
    """
    from mistral_txm.profile_collection.acquire import SIGNALS, end_plan, handling

    def leave(number: int, frame: FrameType | None) -> None:
        end_plan(RE)
        if (shell := _shell()) is not None:
            shell.ask_exit()  # within a cell, IPython takes SystemExit for a mistake
        raise SystemExit(128 + number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    with handling(SIGNALS if in_main_thread else (), leave):
        try:
            yield
        finally:
            end_plan(RE)


def _shell() -> Any:
    """Return the running IPython; None where that is not the prompt."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


class _LogFile(logging.FileHandler):
    """A log that gives up in silence where its disk is full: that is told by what matters more."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Print no stack trace."""

    def close(self) -> None:
        """Close the file, with or without its last lines."""
        with suppress(OSError):
            super().close()


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Keep what bluesky and ophyd log in a file: an operator reads lines, not stack traces."""
    handler = _LogFile(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("bluesky", "ophyd")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def _wire(
    session: Session, data: Path, configuration: Configuration, simulation: Simulation | None
) -> None:
    """Build the RunEngine, the devices and the plans; ophyd is first imported here."""
    import bluesky.plan_stubs
    import bluesky.plans
    import epics
    from bluesky import RunEngine

    from mistral_txm import plans
    from mistral_txm.devices.instrument import make_instrument
    from mistral_txm.services.journal import JournalWriter

    instrument = make_instrument(configuration, data / "frames")
    instrument.connect(configuration.connection_timeout_s)
    RE = RunEngine({})  # the name that every Bluesky operator types
    RE.subscribe(session._exits.enter_context(JournalWriter(data / "journal")))
    if simulation is not None and configuration.simulation is not None:
        from mistral_txm.profile_collection.simulated_faults import make_faults
        from mistral_txm.profile_collection.simulated_operator import SimulatedOperator

        RE.md["simulation"] = simulation.metadata()
        RE.register_command("input", SimulatedOperator(configuration.simulation))
        session["faults"] = faults = make_faults(configuration.simulation.faults_address)
        faults.wait_for_connection(timeout=configuration.connection_timeout_s)
        # The simulated beamline ends before this process: that is no fault to be printed.
        session._exits.callback(epics.ca.disable_ca_messages)
    session.update(
        RE=RE,
        cat=_catalog(data),
        bp=bluesky.plans,
        bps=bluesky.plan_stubs,
        data=data,
        instrument=instrument,
        **instrument.devices,
        **{name: getattr(plans, name) for name in plans.__all__},
    )


def _catalog(data: Path) -> Any:
    """Open the catalog; without it a measurement runs on its journal alone, and the operator is told so."""
    from mistral_txm.services.catalog import CatalogError, open_catalog

    try:
        return open_catalog(data, READY_TIMEOUT_S)
    except CatalogError as error:
        print(f"{error}; measuring goes on, the journal keeps everything", file=sys.stderr)
        return None

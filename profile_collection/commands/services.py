"""Processes that run beside the acquisition, each alone: `ioc`, `live` and `monitor`."""

import argparse
from pathlib import Path

from mistral_txm.profile_collection.commands.arguments import (
    SIZES,
    data_option,
    number_from_zero,
    port_number,
    simulation_options,
)
from mistral_txm.profile_collection.session import data_folder
from mistral_txm.profile_collection.simulation import (
    Simulation,
    usable_conditions,
    usable_texture,
)


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parsers of this group."""
    ioc = commands.add_parser(
        "ioc", help="the simulated beamline alone, until Ctrl-C", description=_ioc.__doc__
    )
    ioc.add_argument(
        "--size",
        choices=SIZES,
        default="small",
        help="frames of the CCD: small and medium 256 x 256, paper 1024 x 1024 (default: small)",
    )
    simulation_options(ioc)
    ioc.add_argument(
        "--time-scale",
        type=number_from_zero,
        default=1.0,
        metavar="X",
        help="how long one second of exposure or motion takes, s (default: 1; 0: computing time alone)",
    )
    ioc.add_argument(
        "--port", type=port_number, default=0, metavar="N", help="0: any free port (default)"
    )
    data_option(ioc)
    ioc.set_defaults(run=_ioc)

    live = commands.add_parser(
        "live", help="the live reconstruction as a process of its own", description=_live.__doc__
    )
    live.add_argument("--series", metavar="UID", help="series to follow (default: the newest)")
    data_option(live)
    live.set_defaults(run=_live)

    monitor = commands.add_parser("monitor", help="the web page", description=_monitor.__doc__)
    monitor.add_argument(
        "--port", type=port_number, default=0, metavar="N", help="0: any free port"
    )
    monitor.add_argument(
        "--address",
        default="127.0.0.1",
        metavar="IP",
        help="where it listens: 0.0.0.0 lets other machines open it, with a token that is printed with the address "
        "(default: 127.0.0.1, this machine alone, without a token)",
    )
    data_option(monitor)
    monitor.set_defaults(run=_monitor)


def _ioc(arguments: argparse.Namespace) -> None:
    """Serve the simulated beamline over Channel Access on loopback, until Ctrl-C.

    One line of JSON on stdout says the port; point a client at it with EPICS_CA_ADDR_LIST=127.0.0.1,
    EPICS_CA_AUTO_ADDR_LIST=NO and EPICS_CA_SERVER_PORT.
    """
    from mistral_txm.simulated_beamline.__main__ import main

    folder = data_folder(arguments.data)
    simulation = Simulation(
        size=arguments.size,
        texture=usable_texture(arguments.texture, folder),
        seed=arguments.seed,
        conditions=usable_conditions(arguments.conditions),
        time_scale=arguments.time_scale,
    )
    faults = [word for fault in arguments.fault for word in ("--fault", fault)]
    place = ["--data", str(folder), "--port", str(arguments.port)]
    _run(main([*simulation.options(), *faults, *place]))


def _live(arguments: argparse.Namespace) -> None:
    """Follow the journal and the frames of a series and publish its volume, until Ctrl-C."""
    from mistral_txm.services.live import main

    options = ["--series", arguments.series] if arguments.series else []
    _run(main(["--data", str(_folder(arguments)), *options]))


def _monitor(arguments: argparse.Namespace) -> None:
    """Serve the read-only web page of a measurement, until Ctrl-C.

    Without --address only this machine can open it. With another address it makes a token, prints it once as part of
    the address to open, and answers 403 to whoever does not have it. The page is not encrypted: use it within the
    beamline's own network.
    """
    from mistral_txm.services.monitor import main

    place = ["--address", arguments.address, "--port", str(arguments.port)]
    _run(main(["--data", str(_folder(arguments)), *place]))


def _folder(arguments: argparse.Namespace) -> Path:
    folder = data_folder(arguments.data)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(code: int) -> None:
    """Leave with the exit code of a process that has told its cause in one line itself."""
    if code:
        raise SystemExit(code)

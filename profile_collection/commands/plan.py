"""What is asked before anything moves: `plan`."""

import argparse
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from mistral_txm.profile_collection.commands import CommandFailed
from mistral_txm.profile_collection.commands.arguments import (
    SIZES,
    data_option,
    json_option,
    print_json,
)
from mistral_txm.profile_collection.session import data_folder

if TYPE_CHECKING:
    from mistral_txm.devices.configuration import Configuration
    from mistral_txm.plans import Measurement


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this group."""
    plan = commands.add_parser("plan", help="what a measurement takes", description=_plan.__doc__)
    what = plan.add_mutually_exclusive_group(required=True)
    what.add_argument("--summary", action="store_true", help="time, frames, data, dose")
    what.add_argument(
        "--check", action="store_true", help="what stands in its way; exit 3 if anything does"
    )
    plan.add_argument(
        "--measurement",
        metavar="FILE|NAME",
        help="a measurement (TOML), or the name of one that is packaged (default: that of --size)",
    )
    plan.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="beamline configuration (TOML); a measurement is taken as one here, too",
    )
    plan.add_argument(
        "--size",
        choices=SIZES,
        default="paper",
        help="of the frames, and which measurement unless one is given (default: paper)",
    )
    data_option(plan)
    json_option(plan)
    plan.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> None:
    """Say what a measurement takes, or what stands in its way, before anything moves."""
    from mistral_txm.profile_collection.preflight import (
        FRAME_SHAPES_VU,
        NOTHING_STANDS_IN_THE_WAY,
        print_summary,
        problems,
        summarize,
    )

    configuration, measurement = _described(arguments)
    shape_vu = FRAME_SHAPES_VU[arguments.size]
    if arguments.summary:
        summary = summarize(configuration, measurement, shape_vu)
        if arguments.json:
            print_json(summary)
        else:
            print_summary(summary)
        return
    found = problems(configuration, measurement, shape_vu, data_folder(arguments.data))
    if arguments.json:
        print_json({"problems": found})
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        number = "1 thing stands" if len(found) == 1 else f"{len(found)} things stand"
        raise CommandFailed(f"{number} in the way of this measurement")
    if not arguments.json:
        print(NOTHING_STANDS_IN_THE_WAY)


def _described(arguments: argparse.Namespace) -> "tuple[Configuration, Measurement]":
    """Read the configuration and the measurement; what ``--config`` names may be either.

    Raises
    ------
    ValueError
        If there are two of a kind, or a file is wrong.
    """
    from mistral_txm.devices.configuration import load_configuration
    from mistral_txm.plans import load_measurement

    measurements = [path for path in arguments.config if _is_measurement(path)]
    configurations = [path for path in arguments.config if path not in measurements]
    if arguments.measurement is not None:
        measurements.insert(0, arguments.measurement)
    for kind, given in (("measurement", measurements), ("configuration", configurations)):
        if len(given) > 1:
            raise ValueError(f"{given[1]}: a second {kind} beside {given[0]}; give one")
    return (
        load_configuration(configurations[0] if configurations else None),
        load_measurement(measurements[0] if measurements else arguments.size),
    )


def _is_measurement(path: Path) -> bool:
    """Tell whether a file describes a measurement; who reads it says what is wrong with it.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    from mistral_txm.devices.strict_toml import kind_of

    try:
        return kind_of(tomllib.loads(path.read_text(encoding="utf-8"))) == "a measurement"
    except ValueError:
        return False

"""Types of command-line arguments, each refused with one line that says what was expected."""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from mistral_txm.profile_collection.session import data_folder
from mistral_txm.profile_collection.simulation import fault_table, usable_faults

SIZES = ("small", "medium", "paper")
"""Frames of the simulated CCD: 256 x 256, 256 x 256 with all tilts, 1024 x 1024 pixels."""


def whole_number(low: int) -> Callable[[str], int]:
    """Return a parser of whole numbers of at least ``low``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least {low}")
        return value

    return parse


def port_number(text: str) -> int:
    """Parse the number of a port, 0 for any free one."""
    value = whole_number(0)(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0 (any free port) to 65535")
    return value


def number(text: str) -> float:
    """Parse a finite number.

    >>> number("-102")
    -102.0
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a finite number")
    return value


def number_above_zero(text: str) -> float:
    """Parse a finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value


def number_from_zero(text: str) -> float:
    """Parse a finite number of at least 0."""
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of at least 0")
    return value


def fault(text: str) -> str:
    """Check a fault of the simulated beamline, ``NAME`` or ``NAME=VALUE``."""
    try:
        usable_faults((text,))
    except ValueError as refusal:
        raise argparse.ArgumentTypeError(str(refusal)) from None
    return text


class _ListFaults(argparse.Action):
    """Print all faults, and leave."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print_table(("fault", "value", "meaning"), fault_table())
        print(
            "MOTOR is the name of an axis, such as theta. A switch is 0 or 1; an amount is in its unit;"
        )
        print("a count is how many of the next occasions go wrong, -1 for all of them.")
        parser.exit()


def simulation_options(parser: argparse.ArgumentParser) -> None:
    """Add what makes a simulated beamline: sample, seed, conditions, faults."""
    parser.add_argument(
        "--texture",
        default="stripes",
        metavar="NAME|FILE",
        help="the magnetization: a name (an unknown one lists them), or an OVF or HDF5 file (default: stripes)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="of sample and noise (default: 0)",
    )
    parser.add_argument(
        "--conditions",
        default="ideal",
        metavar="NAME|FILE",
        help="how the beamline behaves: ideal, real, or a TOML file of what differs from real (default: ideal)",
    )
    parser.add_argument(
        "--fault",
        type=fault,
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="what goes wrong from the start; may be given several times, see --list-faults",
    )
    parser.add_argument("--list-faults", action=_ListFaults, nargs=0, help="print them, and leave")


def layers_nm(text: str) -> tuple[tuple[float, float], ...]:
    """Parse magnetic layers, ``Z0:Z1[,Z0:Z1]`` in nm from the middle of the film.

    >>> layers_nm("-120:-40,40:120")
    ((-120.0, -40.0), (40.0, 120.0))
    """
    layers = []
    for part in text.split(","):
        try:
            low_nm, high_nm = (float(edge) for edge in part.split(":"))
        except ValueError:
            low_nm = high_nm = math.nan
        if not -math.inf < low_nm < high_nm < math.inf:
            raise argparse.ArgumentTypeError(
                f"{part!r}: expected Z0:Z1 with Z0 below Z1, in nm from the middle of the film, such as -120:-40"
            )
        layers.append((low_nm, high_nm))
    return tuple(layers)


def data_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``, the folder of all that belongs to a beamline."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="data folder (default: $MISTRAL_TXM_DATA, else ./mistral-txm-data)",
    )


def json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout and nothing else there"
    )


def print_json(value: object) -> None:
    """Print one JSON value on stdout."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows of text under their heads, columns aligned."""
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def existing_data(arguments: argparse.Namespace) -> Path:
    """Return the data folder that the arguments name.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    folder = data_folder(arguments.data)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such data folder; give --data DIR")
    return folder


def writable(path: Path) -> None:
    """Refuse an output whose folder is missing before hours are spent on it.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        With one line.
    """
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"{path}: the folder {path.absolute().parent} does not exist; make it first"
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; name a file")
    if not os.access(path.absolute().parent, os.W_OK):
        raise PermissionError(
            f"{path}: the folder {path.absolute().parent} may not be written to; choose another"
        )

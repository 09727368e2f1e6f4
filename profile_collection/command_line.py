"""The command `mistral-txm`: arguments in, one function of a room called, an exit code out.

Exit codes: 0 success, 2 bad input, 3 a failed measurement or a refused action, 130 interrupted by Ctrl-C.
Heavy imports wait until their command runs, so that ``--help`` answers at once.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .session import DATA_VARIABLE, data_folder

BAD_INPUT = 2
REFUSED = 3
INTERRUPTED = 130

SIZES = ("small", "medium", "paper")


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


class CommandError(Exception):
    """A command ends here, with one line for the person and an exit code."""

    def __init__(self, message: str, code: int = REFUSED) -> None:
        super().__init__(message)
        self.code = code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Every refusal of an input, in whatever room, is a `ValueError` or an `OSError` with one line that
    says what, where and what was expected; it is printed on stderr behind the command's name.
    """
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int | None] = arguments.command
    name = f"mistral-txm {arguments.name}"
    try:
        return command(arguments) or 0
    except CommandError as refusal:
        print(f"{name}: {_one_line(refusal)}", file=sys.stderr)
        return refusal.code
    except (ValueError, OSError) as refusal:
        print(f"{name}: {_one_line(refusal)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _one_line(refusal: Exception) -> str:
    if isinstance(refusal, OSError) and refusal.filename is not None and refusal.strerror:
        return f"{refusal.filename}: {refusal.strerror}"
    return " ".join(str(refusal).split())


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least 1")
    return value


def non_negative_int(text: str) -> int:
    """Parse a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least 0")
    return value


def non_negative_float(text: str) -> float:
    """Parse a finite number of at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a finite number of at least 0")
    return value


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a finite number above 0")
    return value


def layers_nm(text: str) -> tuple[tuple[float, float], ...]:
    """Parse magnetic layers, ``Z0:Z1[,Z0:Z1]`` in nm from the middle of the film.

    >>> layers_nm("-120:-40,40:120")
    ((-120.0, -40.0), (40.0, 120.0))
    """
    layers = []
    for part in text.split(","):
        try:
            low, high = (float(edge) for edge in part.split(":"))
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{part!r}: expected Z0:Z1 in nm from the middle of the film, such as -120:-40"
            ) from None
        if not -1e5 < low < high < 1e5:
            raise argparse.ArgumentTypeError(f"{part!r}: expected Z0 below Z1, both in nm")
        layers.append((low, high))
    return tuple(layers)

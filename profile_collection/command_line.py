"""The command `mistral-txm`: arguments in, one function called, an exit code out.

Heavy imports wait until their command runs, so that ``--help`` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from mistral_txm.profile_collection.commands import (
    CommandFailed,
    analysis,
    catalog,
    measurement,
    notify,
    plan,
    queue,
    services,
)

BAD_INPUT = 2
FAILED = 3
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave."""
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 is success; 2 bad input, which every room refuses with a `ValueError` or an `OSError` whose one line
    says what, where and what was expected; 3 a failed measurement or a refused action, which a `RuntimeError` of a
    service tells in one line; 130 Ctrl-C.
    """
    arguments = _parser().parse_args(_joined(sys.argv[1:] if argv is None else argv))
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run(arguments)
    except (ValueError, OSError) as refusal:
        return _complain(arguments.name, refusal, BAD_INPUT)
    except (CommandFailed, RuntimeError) as failure:
        return _complain(arguments.name, failure, FAILED)
    except KeyboardInterrupt:
        return _complain(arguments.name, "interrupted", INTERRUPTED)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mistral-txm",
        description="Measure and reconstruct magnetization in three dimensions with soft X-rays.",
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, dest="name"
    )
    for group in (measurement, plan, queue, services, notify, catalog, analysis):
        group.add_commands(commands)
    return parser


def _joined(arguments: Sequence[str]) -> list[str]:
    """Bind ``--layers`` and ``--surfaces`` to their values, whose minus argparse would take for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--layers", "--surfaces"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _complain(command: str, what: object, code: int) -> int:
    if isinstance(what, OSError) and what.filename is not None and what.strerror:
        what = f"{what.filename}: {what.strerror}"
    print(f"mistral-txm {command}: {' '.join(str(what).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Who is told when something happens: `notify`."""

import argparse
import logging
import signal
import threading

from mistral_txm.profile_collection.commands.arguments import data_option, number_from_zero
from mistral_txm.profile_collection.session import data_folder


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    notify = commands.add_parser(
        "notify", help="tell a person what must not wait", description=_notify.__doc__
    )
    notify.add_argument(
        "--after-s",
        type=number_from_zero,
        default=60.0,
        metavar="S",
        help="a pause or a wait for light that is over sooner is not told, s (default: 60)",
    )
    data_option(notify)
    notify.add_argument(
        "command",
        nargs="*",
        metavar="COMMAND",
        help="after --: a program and its arguments, such as: -- mail -s beamline name@example.org; it gets the line "
        "on its standard input, and in place of an argument {}",
    )
    notify.set_defaults(run=_notify)


def _notify(arguments: argparse.Namespace) -> None:
    """Follow the journal until Ctrl-C and hand one line to a command when something happens, once.

    Told are pauses and waits that last, that the sample is to be turned, flags, the end of an azimuth, of the series,
    and of a run that failed. Nothing is told of what happened before the first start on a data folder. Without a
    command the lines are printed.
    """
    from mistral_txm.services.notifier import notify

    folder = data_folder(arguments.data)
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s notify %(levelname)s: %(message)s"
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    notify(folder, arguments.command, arguments.after_s, stop)

"""Closes the shutter when the acquisition has ended, however it ended: also by ``kill -9``.

``python -m mistral_txm.services.watchdog --lifeline`` is started by the acquisition, connects, says that it is
ready, and does nothing until its parent is gone. Then it closes the shutter, verifies the shutter's status and
ends: the sample gets no dose that nobody records. Signals do not end it before.
"""

import argparse
import json
import logging
import math
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mistral_txm.devices.configuration import Configuration, load_configuration
from mistral_txm.devices.strict_toml import ConfigurationError

POLL_S = 0.5
"""How often it looks whether its parent is still there; the end of standard input is seen at once."""

ATTEMPT_S = 2.0
"""How long the shutter has to close before it is told again."""

RETRY_S = 0.2
"""How long it waits before that."""

PATIENCE_S = 300.0
SIMULATED_PATIENCE_S = 6.0
"""How long after the end of its parent it still begins to try; a simulated beamline may have ended, too."""

END_S = 14
"""How long after that the operating system ends it, whatever it hangs on."""

logger = logging.getLogger(__name__)


class _NoCamera:
    """Stands for the camera, of which the shutter's device asks to give up what would be cut short."""

    def give_up_exposure(self) -> None:
        """Do nothing: who wanted the exposure is gone."""


def main(argv: Sequence[str] | None = None) -> int:
    """Watch until the parent ends; returns 0, 2 for a wrong configuration, 3 if the shutter is not closed."""
    parser = argparse.ArgumentParser(
        prog="python -m mistral_txm.services.watchdog",
        description="closes the shutter when the process that started it has ended",
    )
    parser.add_argument(
        "--lifeline", action="store_true", required=True, help="standard input ends with the parent"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration of the beamline")
    options = parser.parse_args(argv)
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s watchdog %(levelname)s: %(message)s"
    )
    try:
        configuration = load_configuration(options.config)
        shutter = _connected(configuration)
    except ConfigurationError as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except TimeoutError as failure:
        print(failure, file=sys.stderr)
        return 3
    with suppress(OSError):  # the parent may be gone already
        print(json.dumps({"ready": True}), flush=True)
    _wait_for_the_end_of(parent)
    patience_s = SIMULATED_PATIENCE_S if configuration.simulation else PATIENCE_S
    signal.alarm(math.ceil(patience_s) + END_S)
    return _close(shutter, patience_s)


def _connected(configuration: Configuration) -> Any:
    """Return the shutter's device, which answers.

    Raises
    ------
    TimeoutError
        If it does not.
    """
    # Imported after signals are ignored: it takes seconds.
    from mistral_txm.devices.control_systems import control_system

    settings = configuration.shutter
    section = configuration.control_systems[settings.address.scheme]
    system = control_system(settings.address)
    system.set_up(section)
    shutter: Any = system.shutter(
        settings.address.name,
        name="shutter",
        settings=settings.model_copy(update={"timeout_s": min(settings.timeout_s, ATTEMPT_S)}),
        camera=_NoCamera(),
    )
    try:
        shutter.wait_for_connection(timeout=section.connection_timeout_s)
    except TimeoutError:
        raise TimeoutError(
            f"shutter: {settings.address} did not answer within {section.connection_timeout_s:g} s; "
            "check that the control servers run"
        ) from None
    return shutter


def _wait_for_the_end_of(parent: int) -> None:
    """Return when standard input has ended, or is held open by children alone that the parent left."""
    descriptor = sys.stdin.fileno()
    with suppress(OSError):  # which is as good as an end
        while os.getppid() == parent:
            readable, _, _ = select.select([descriptor], [], [], POLL_S)
            if readable and not os.read(descriptor, 4096):
                return


def _close(shutter: Any, patience_s: float) -> int:
    """Close the shutter; returns the exit code."""
    began_s, last = time.monotonic(), ""
    while time.monotonic() - began_s < patience_s:
        try:
            shutter.set("closed").wait(2 * ATTEMPT_S)
        except Exception as failure:  # whatever it is: try again, and tell the last one
            last = str(failure) or type(failure).__name__
            time.sleep(RETRY_S)
        else:
            logger.info(
                "the acquisition has ended; the shutter is closed, after %.2f s",
                time.monotonic() - began_s,
            )
            return 0
    logger.error(
        "the acquisition has ended, and the shutter is NOT known to be closed: %s; close it by hand",
        " ".join(last.split()),
    )
    return 3


if __name__ == "__main__":
    sys.exit(main())

"""Runs a plan for somebody who is not at a prompt: every way out leaves the engine idle and the beamline put back."""

import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bluesky import Msg, RunEngine
from bluesky.utils import RunEngineInterrupted

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Ask a process to end: a reboot, a lost terminal. They are treated as Ctrl-C is."""


class MeasurementFailed(Exception):
    """A plan ended before its end; the message is one line: what happened, what to do."""


class MeasurementInterrupted(KeyboardInterrupt):
    """Ctrl-C or a signal ended a measurement; everything was put back before this was raised."""


def acquire(RE: RunEngine, plan: Generator[Msg, Any, Any]) -> tuple[str, ...]:
    """Run a plan to its end and return the uids of its runs.

    Ctrl-C, SIGTERM and SIGHUP end it at the next checkpoint, as an abort: the plan puts back what it moved,
    and the runs get their stop documents.

    Raises
    ------
    MeasurementInterrupted
        If a person or the operating system ended it.
    MeasurementFailed
        If the plan raised; the cause is chained.
    """
    uids: list[str] = []
    token = RE.subscribe(lambda _, start: uids.append(start["uid"]), "start")
    try:
        with _pausing(RE):
            RE(plan)
    except RunEngineInterrupted:
        RE.abort(reason="ended by the operator or by the system")
        raise MeasurementInterrupted from None
    except Exception as error:  # whatever a plan or a device may raise becomes one line
        raise MeasurementFailed(f"the measurement stopped: {error}") from error
    finally:
        RE.unsubscribe(token)
    return tuple(uids)


@contextmanager
def _pausing(RE: RunEngine) -> Iterator[None]:
    """Turn the signals that end a process into a pause of the RunEngine, asked for outside the handler."""

    def pause(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=RE.request_pause, daemon=True).start()

    before = {number: signal.signal(number, pause) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

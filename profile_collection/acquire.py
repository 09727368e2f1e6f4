"""Runs a plan for somebody who is not at a prompt: every way out leaves the engine idle and the beamline put back."""

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bluesky import Msg, RunEngine
from bluesky.utils import FailedStatus, RunEngineInterrupted

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Ask a process to end: a reboot, a lost terminal. They are treated as Ctrl-C is, but do not wait for a checkpoint."""
PATIENCE = 10
"""Signals after which a process stops putting things back: a person who insists is never stuck."""
PAUSE_TIMEOUT_S = 10.0
"""How long a plan may take to pause before it is left alone, s."""


class MeasurementFailed(Exception):
    """A plan ended before its end; the message is one line: what happened, what to do."""


class MeasurementInterrupted(KeyboardInterrupt):
    """Ctrl-C or a signal ended a measurement; everything was put back before this was raised."""


def acquire(RE: RunEngine, plan: Generator[Msg, Any, Any]) -> tuple[str, ...]:
    """Run a plan to its end and return the uids of its runs.

    Ctrl-C ends it at the next checkpoint, SIGTERM and SIGHUP at once, as an abort: the plan puts back what it
    moved, which further signals do not disturb, and the runs get their stop documents.

    Raises
    ------
    MeasurementInterrupted
        If a person or the operating system ended it.
    MeasurementFailed
        If the plan raised; one line with the cause, and with what could not be put back. The cause is chained.
    """
    uids: list[str] = []
    token = RE.subscribe(lambda _, start: uids.append(start["uid"]), "start")
    try:
        with _pausing(RE):
            RE(plan)
    except RunEngineInterrupted:
        end_plan(RE)
        raise MeasurementInterrupted from None
    except Exception as error:  # whatever a plan or a device may raise becomes one line
        raise MeasurementFailed(f"the measurement stopped: {_told(error)}") from error
    finally:
        RE.unsubscribe(token)
    return tuple(uids)


def end_plan(RE: RunEngine) -> None:
    """Abort the plan that is paused or runs, if there is one; return when everything is put back.

    A plan that runs is paused first, from another thread: the engine may be waited for in this one.
    """
    _leave_lost_terminal()
    if RE.state == "running":
        pausing = threading.Thread(target=RE.request_pause, daemon=True)
        pausing.start()
        pausing.join(PAUSE_TIMEOUT_S)
        deadline_s = time.monotonic() + PAUSE_TIMEOUT_S
        while RE.state not in ("paused", "idle") and time.monotonic() < deadline_s:
            time.sleep(0.01)
    if RE.state == "paused":  # it is idle, where there was no checkpoint to pause at
        with _undisturbed(RE):
            RE.abort(reason="ended by the operator or by the system")


def _leave_lost_terminal() -> None:
    """Send to nowhere what would be printed on a terminal that is gone: to print there raises, in mid-abort."""
    for output in (1, 2):
        if stat.S_ISCHR(os.fstat(output).st_mode) and not os.isatty(output):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, output)
            os.close(nowhere)


@contextmanager
def _pausing(RE: RunEngine) -> Iterator[None]:
    """Turn the signals that end a process into a pause of the RunEngine, asked for outside the handler."""

    def pause(number: int, frame: FrameType | None) -> None:
        _leave_lost_terminal()
        threading.Thread(target=RE.request_pause, daemon=True).start()

    with handling(SIGNALS, pause):
        yield


@contextmanager
def _undisturbed(RE: RunEngine) -> Iterator[None]:
    """Let the plan put back what it moved, whatever signals come meanwhile, up to `PATIENCE` of them."""
    count = 0

    def insist(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count >= PATIENCE:
            raise KeyboardInterrupt
        print(
            f"putting everything back; {PATIENCE - count} more signals leave it as it is",
            file=sys.stderr,
        )

    managers, RE.context_managers = (
        RE.context_managers,
        [],
    )  # the engine's own takes Ctrl-C for a pause
    try:
        with handling((signal.SIGINT, *SIGNALS), insist):
            yield
    finally:
        RE.context_managers = managers


@contextmanager
def handling(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Have signals handled so, and afterwards as before."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _told(error: Exception) -> str:
    """Say in one line why a plan failed, and what it could not put back."""
    cause = error.__cause__ or error if isinstance(error, FailedStatus) else error
    text = str(cause) or type(cause).__name__
    if notes := getattr(error, "__notes__", []):
        text += f"; not put back: {'; '.join(notes)}"
    return " ".join(text.split())

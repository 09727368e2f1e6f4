"""Runs a plan for somebody who is not at a prompt: every way out leaves the engine idle and the beamline put back."""

import logging
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

from bluesky import Msg, RunEngine
from bluesky.utils import (
    DefaultDuringTask,
    RunEngineInterrupted,
    TransitionError,
)

from mistral_txm.plans.failures import not_put_back, reason_of

logger = logging.getLogger("bluesky")

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Ask a process to end: a reboot, a lost terminal. They end a plan at once, where Ctrl-C waits for a checkpoint."""
PATIENCE = 10
"""Signals after which a process stops putting things back: a person who insists is never stuck."""
PAUSE_TIMEOUT_S = 10.0
"""How long a plan may take to pause before it is aborted as it is, s."""
END_TIMEOUT_S = 600.0
"""How long such a plan may take to put back what it moved, s; one that pauses may take as long as it needs."""
WAKE_S = 0.1
WAKE_AGAIN_S = (0.05, 0.5, 2.0)
"""Waits before the main thread is woken, s: it may be about to read just then."""
POLL_S = 0.01

Documents = Mapping[str, Any]


class MeasurementFailed(Exception):
    """A plan ended before its end; the message is one line: what happened, what to do."""


class MeasurementInterrupted(KeyboardInterrupt):
    """Ctrl-C or a signal ended a measurement; everything was put back before this was raised."""


class Ended(SystemExit):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self._name = signal.Signals(number).name

    def __str__(self) -> str:
        return self._name


class Awake(DefaultDuringTask):  # type: ignore[misc]  # bluesky is untyped
    """What the main thread does while a plan runs: it wakes up now and then, and sees what signals came.

    The kernel may hand a signal to any thread, and Python runs its handler in the main one alone. That would sleep
    on, for as long as the plan runs, if it waited without end.
    """

    def block(self, blocking_event: threading.Event) -> None:
        """Wait for the plan; Qt, where there is one, keeps the thread awake by itself."""
        if "matplotlib" in sys.modules:
            import matplotlib

            if "qt" in matplotlib.get_backend().lower():
                super().block(blocking_event)
                return
        while not blocking_event.wait(WAKE_S):
            pass


class PauseReason:
    """Why a plan paused itself: what it noted last, if that is a pause. A subscriber of the RunEngine."""

    def __init__(self) -> None:
        self.text = ""
        self._logs: set[str] = set()
        self._interruptions: set[str] = set()

    def __call__(self, name: str, doc: Documents) -> None:
        """Take a document."""
        if name == "descriptor" and doc["name"] == "log":
            self._logs.add(doc["uid"])
        elif name == "descriptor" and doc["name"] == "interruptions":
            self._interruptions.add(doc["uid"])
        elif name == "event" and doc["descriptor"] not in self._interruptions:
            data = doc["data"] if doc["descriptor"] in self._logs else {}
            is_pause = data.get("log_kind") == "pause"
            self.text = " ".join(data["log_text"].split()) if is_pause else ""
        elif name in ("start", "stop"):
            self.text = ""


def acquire(RE: RunEngine, plan: Generator[Msg, Any, Any]) -> tuple[str, ...]:
    """Run a plan to its end and return the uids of its runs.

    Ctrl-C ends it at the next checkpoint, SIGTERM and SIGHUP at once, as an abort: the plan puts back what it
    moved, which further signals do not disturb, and the runs get their stop documents. So ends a plan that pauses
    itself: nobody is there to put right what it complains of.

    Raises
    ------
    MeasurementInterrupted
        If a person or the operating system ended it.
    MeasurementFailed
        If the plan raised, or paused itself; one line with the cause, and with what could not be put back.
        The cause is chained.
    """
    uids: list[str] = []
    reason = PauseReason()
    tokens = [
        RE.subscribe(lambda _, start: uids.append(start["uid"]), "start"),
        RE.subscribe(reason),
    ]
    try:
        with ending_by_signals(RE):
            RE(plan)
    except Ended:
        raise MeasurementInterrupted from None
    except RunEngineInterrupted:
        why = reason.text
        notes = end_plan(RE)
        if why:
            raise MeasurementFailed(
                f"the measurement stopped: {why}{not_put_back(notes)}"
            ) from None
        raise MeasurementInterrupted from None
    except Exception as error:  # whatever a plan or a device may raise becomes one line
        notes = getattr(error, "__notes__", [])
        line = f"the measurement stopped: {reason_of(error)}{not_put_back(notes)}"
        raise MeasurementFailed(line) from error
    finally:
        for token in tokens:
            RE.unsubscribe(token)
    return tuple(uids)


@contextmanager
def ending_by_signals(RE: RunEngine) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end what the engine runs, as an abort; `Ended` is raised when everything is put back."""
    before = RE.context_managers
    RE.context_managers = [*before, *([] if _EndingInOrder in before else [_EndingInOrder])]
    try:
        yield
    finally:
        RE.context_managers = before


class _EndingInOrder:
    """What the engine enters while it runs a plan, in the thread that waits for it.

    The handler of a signal does nothing but raise, once: it may have interrupted that thread anywhere. The plan is
    ended later, when the engine leaves this context.
    """

    def __init__(self, RE: RunEngine) -> None:
        self._RE = RE
        self._exits = ExitStack()
        self._is_ending = False

    def __enter__(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._exits.enter_context(handling(SIGNALS if in_main_thread else (), self._leave))

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        with self._exits:
            if isinstance(error, Ended):
                end_plan(self._RE)

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        if not self._is_ending:
            self._is_ending = True
            raise Ended(number)


def end_plan(RE: RunEngine) -> list[str]:
    """Abort the plan that is paused or runs, if there is one, and return when everything is put back.

    A plan that runs is paused first: that stops what moves, and closes the shutter.

    Returns
    -------
    list of str
        What was not put back.
    """
    _leave_lost_terminal()
    with _undisturbed(RE):
        if RE.state not in ("idle", "panicked", "paused"):
            threading.Thread(target=_pause, args=(RE,), daemon=True).start()
            _wait_until(RE, ("paused", "idle", "panicked"), PAUSE_TIMEOUT_S)
        if RE.state in ("idle", "panicked"):  # idle, where there was no checkpoint to pause at
            return []
        try:
            RE.abort(reason="ended by the operator or by the system")
            _wait_until(RE, ("idle", "panicked"), END_TIMEOUT_S)
        except (
            Exception
        ) as failure:  # the run has its stop document; what matters is what stands where
            logger.exception("a plan did not end in order")
            return [reason_of(failure), *getattr(failure, "__notes__", [])]
    return []


def _pause(RE: RunEngine) -> None:
    """Ask for a pause until the engine takes it: while it suspends, it takes none."""
    while RE.state in ("running", "suspending"):
        with suppress(TransitionError):
            RE.request_pause()
            return
        time.sleep(POLL_S)


def _wait_until(RE: RunEngine, states: Sequence[str], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while RE.state not in states and time.monotonic() < deadline_s:
        time.sleep(POLL_S)


def _leave_lost_terminal() -> None:
    """Send to nowhere what would be printed on a terminal that is gone: to print there raises, in mid-abort."""
    for output in (1, 2):
        if stat.S_ISCHR(os.fstat(output).st_mode) and not os.isatty(output):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, output)
            os.close(nowhere)


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

    # The engine's own managers take Ctrl-C for a pause.
    managers, RE.context_managers = RE.context_managers, []
    in_main_thread = threading.current_thread() is threading.main_thread()
    try:
        with handling((signal.SIGINT, *SIGNALS) if in_main_thread else (), insist):
            yield
    finally:
        RE.context_managers = managers


@contextmanager
def waking_the_main_thread(numbers: Collection[int]) -> Iterator[None]:
    """Let no signal wait for a key: the main thread, which alone handles them, may sit in a read at the prompt.

    The kernel may hand a signal to any thread. One of its own is told, and wakes the main one by a signal that means
    nothing. (At the prompt of a terminal, the event loop of that has itself told instead, and needs no waking.)
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    main = threading.main_thread().ident
    assert main is not None

    def wake() -> None:
        with open(told, "rb", buffering=0) as news:
            while number := news.read(1):
                for delay_s in WAKE_AGAIN_S if number[0] in numbers else ():
                    time.sleep(delay_s)
                    signal.pthread_kill(main, signal.SIGURG)

    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=wake, name="signals", daemon=True).start()
    try:
        with handling((signal.SIGURG,), lambda *_: None):
            yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(tell)


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

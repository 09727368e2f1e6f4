"""Every way out of a measurement: the engine idle, everything put back, one line for the operator."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis
from ophyd.status import Status

from mistral_txm.devices.log import Log
from mistral_txm.plans.exposing import ask_for_help
from mistral_txm.profile_collection.acquire import (
    PATIENCE,
    Awake,
    MeasurementFailed,
    MeasurementInterrupted,
    acquire,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Recorder:
    """A RunEngine, the ends of its runs, and what the plans below put back."""

    def __init__(self):
        self.RE = RunEngine({}, during_task=Awake())
        self.ends = []
        self.RE.subscribe(lambda _, doc: self.ends.append(doc["exit_status"]), "stop")
        self.put_back = []

    def measure(self, during, cleanup=(), at_checkpoints=True):
        """Plan of one run: the messages given, then many short exposures; what it put back is recorded."""

        @bpp.run_decorator()
        def run():
            yield from bps.checkpoint()
            yield from during
            for _ in range(100):
                if at_checkpoints:
                    yield from bps.checkpoint()
                yield from bps.sleep(0.02)

        def put_back():
            yield from bps.checkpoint()
            yield from cleanup
            yield from bps.sleep(0.05)
            self.put_back.append(True)

        return bpp.finalize_wrapper(run(), put_back)


@pytest.fixture
def recorder():
    return Recorder()


def send(number):
    """Message plan that sends a signal to this process while the engine runs."""
    threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
    yield from bps.null()


def test_a_plan_that_ends_returns_the_uids_of_its_runs(recorder):
    @bpp.run_decorator()
    def empty():
        yield from bps.null()

    def two_runs():
        yield from empty()
        yield from empty()

    uids = acquire(recorder.RE, two_runs())
    assert len(set(uids)) == 2
    assert recorder.ends == ["success", "success"]


@pytest.mark.parametrize("number", SIGNALS)
def test_one_signal_ends_the_run_as_an_abort_and_puts_back(recorder, number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(MeasurementInterrupted):
        acquire(recorder.RE, recorder.measure(send(number)))
    assert recorder.RE.state == "idle"
    assert recorder.ends == ["abort"]
    assert recorder.put_back == [True]
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_more_signals_do_not_disturb_what_is_put_back(recorder, number, capsys):
    def again():
        for _ in range(3):
            os.kill(os.getpid(), number)
            yield from bps.sleep(0.02)

    with pytest.raises(MeasurementInterrupted):
        acquire(recorder.RE, recorder.measure(send(number), cleanup=again()))
    assert recorder.put_back == [True]
    assert recorder.RE.state == "idle"
    assert recorder.RE.context_managers  # the prompt's Ctrl-C works as before
    assert f"{PATIENCE - 3} more signals" in capsys.readouterr().err


INSIST = """
import os, signal
import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import RunEngine
from mistral_txm.profile_collection.acquire import PATIENCE, acquire

def measure():
    os.kill(os.getpid(), signal.SIGTERM)
    yield from bps.sleep(60)

def stuck():
    for _ in range(PATIENCE):
        os.kill(os.getpid(), signal.SIGINT)
        yield from bps.sleep(0.02)
    yield from bps.sleep(60)

try:
    acquire(RunEngine({}), bpp.finalize_wrapper(measure(), stuck))
except KeyboardInterrupt:
    os._exit(7)  # as a process that is left
"""


@pytest.mark.slow
def test_who_insists_is_not_stuck():
    done = subprocess.run(
        [sys.executable, "-c", INSIST], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_where_no_pause_is_possible_still_interrupts(recorder, number):
    def no_checkpoint():
        yield from bps.clear_checkpoint()
        yield from send(number)

    with pytest.raises(MeasurementInterrupted):
        acquire(recorder.RE, recorder.measure(no_checkpoint(), at_checkpoints=False))
    assert recorder.RE.state == "idle"
    assert recorder.put_back == [True]


def test_a_signal_that_another_thread_gets_ends_the_run(recorder):
    """The kernel may choose any thread; the main one sleeps, and has to wake up for its handler."""

    def elsewhere():
        engine_thread = threading.get_ident()
        threading.Timer(0.05, signal.pthread_kill, (engine_thread, signal.SIGTERM)).start()
        yield from bps.null()

    with pytest.raises(MeasurementInterrupted):
        acquire(recorder.RE, recorder.measure(elsewhere()))
    assert recorder.ends == ["abort"]
    assert recorder.put_back == [True]


def test_a_signal_while_the_plan_is_suspended_ends_the_run(recorder):
    async def forever():
        await asyncio.sleep(60)

    def suspend():
        recorder.RE.request_suspend(forever)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        yield from bps.null()

    with pytest.raises(MeasurementInterrupted):
        acquire(recorder.RE, recorder.measure(suspend()))
    assert recorder.ends == ["abort"]
    assert recorder.put_back == [True]


@pytest.fixture
def log():
    """What a plan notes, in the form of the device that holds it."""

    class Log:
        name = "log"
        parent = None
        line = "note", ""

        def read(self):
            return {
                name: {"value": value, "timestamp": 0.0}
                for name, value in zip(("log_kind", "log_text"), self.line, strict=True)
            }

        def describe(self):
            return {
                name: {"source": "plan", "dtype": "string", "shape": []}
                for name in ("log_kind", "log_text")
            }

    return Log()


def noting(log, kind, text):
    log.line = kind, text
    yield from bps.create("log")
    yield from bps.read(log)
    yield from bps.save()
    yield from bps.checkpoint()


def test_a_plan_that_pauses_itself_ends_with_its_reason(recorder, log):
    def complain():
        yield from noting(log, "pause", "ccd: no frame within 38 s;\n check the camera")
        yield from bps.pause()

    with pytest.raises(MeasurementFailed) as raised:
        acquire(recorder.RE, recorder.measure(complain()))
    assert str(raised.value) == (
        "the measurement stopped: ccd: no frame within 38 s; check the camera"
    )
    assert recorder.ends == ["abort"]
    assert recorder.put_back == [True]
    assert recorder.RE.state == "idle"


class Shutter(SynAxis):
    """A shutter that takes its time, and closes or does not."""

    def __init__(self, closes):
        super().__init__(name="shutter")
        self.closes = closes

    def set(self, value):
        status = Status()
        failure = TimeoutError(f"shutter: not {value} within 5 s")
        end = status.set_finished if self.closes else partial(status.set_exception, failure)
        threading.Timer(0.1, end).start()
        return status


def asking(closes):
    """Return what a plan needs that asks for help."""
    return SimpleNamespace(shutter=Shutter(closes), log=Log(name="log"))


def test_a_shutter_that_does_not_close_hides_no_reason(recorder):
    lines = []
    recorder.RE.subscribe(lambda _, doc: lines.append(tuple(doc["data"].values())), "event")
    plan = ask_for_help(asking(closes=False), "ccd: 3 C, check the cooler")
    with pytest.raises(MeasurementFailed) as raised:
        acquire(recorder.RE, recorder.measure(plan))
    assert str(raised.value) == "the measurement stopped: ccd: 3 C, check the cooler"
    assert lines == [
        ("flag", "shutter: not closed within 5 s"),
        ("pause", "ccd: 3 C, check the cooler"),
    ]


def test_a_cut_while_the_shutter_closes_repeats_nothing_that_came_before(recorder):
    """What came before may be an exposure."""
    instrument, exposed = asking(closes=True), SynAxis(name="exposed")
    RE, sent, cut = recorder.RE, [], iter([True])

    def pause(message):
        if message.command == "set":
            sent.append(message.obj.name)
        if message.command == "set" and message.obj is instrument.shutter and next(cut, False):
            # The public way would wait for itself here.
            RE.loop.create_task(RE._request_pause_coro(False))

    RE.msg_hook = pause

    def plan():
        yield from bps.mv(exposed, 1)
        yield from ask_for_help(instrument, "ccd: 3 C, check the cooler")

    with pytest.raises(RunEngineInterrupted):
        RE(recorder.measure(plan()))
    with pytest.raises(RunEngineInterrupted):
        RE.resume()
    assert sent == ["exposed", "shutter", "shutter", "log"]
    RE.abort()


def test_a_reason_of_earlier_is_not_that_of_ctrl_c(recorder, log):
    def waited():
        yield from noting(log, "pause", "front_end: closed")
        yield from noting(log, "go_on", "front_end: open")
        yield from send(signal.SIGINT)

    with pytest.raises(MeasurementInterrupted):
        acquire(recorder.RE, recorder.measure(waited()))


def test_a_plan_that_raises_becomes_one_line_with_what_was_not_put_back(recorder):
    def broken():
        error = ValueError("theta:\n  stands at 3 deg, expected 5 deg")
        error.add_note("shutter: does not close")
        error.add_note("energy: no answer")
        raise error
        yield

    with pytest.raises(MeasurementFailed) as raised:
        acquire(recorder.RE, broken())
    assert str(raised.value) == (
        "the measurement stopped: theta: stands at 3 deg, expected 5 deg; "
        "not put back: shutter: does not close; energy: no answer"
    )
    assert isinstance(raised.value.__cause__, ValueError)
    assert recorder.RE.state == "idle"


def test_a_move_that_fails_is_told_by_its_cause(recorder):
    class Stuck(SynAxis):
        def set(self, value):
            status = Status()
            status.set_exception(RuntimeError("theta: stands at 3 deg, expected 5 deg"))
            return status

    with pytest.raises(MeasurementFailed, match=r"^the measurement stopped: theta: stands at 3"):
        acquire(recorder.RE, bps.mv(Stuck(name="theta"), 5))


def test_the_subscription_ends_with_the_measurement(recorder):
    seen = []
    token = recorder.RE.subscribe(lambda *_: seen.append(1), "start")
    acquire(recorder.RE, bps.null())
    assert recorder.RE.subscribe(lambda *_: None, "start") - token == 3


LOSE_TERMINAL = """
import os, pty, sys

begun, begin = os.pipe()  # not the terminal: to print there would race with its loss
child, terminal = pty.fork()
if child:
    os.read(begun, 1)  # the measurement has begun
    os.close(terminal)
    os.waitpid(child, 0)
    sys.exit()

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import RunEngine
from mistral_txm.profile_collection.acquire import MeasurementInterrupted, acquire

@bpp.run_decorator()
def measure():
    yield from bps.checkpoint()
    os.write(begin, b"!")
    yield from bps.sleep(60)

RE = RunEngine({})
ends = []
RE.subscribe(lambda _, doc: ends.append(doc["exit_status"]), "stop")
try:
    acquire(RE, measure())
except MeasurementInterrupted:
    with open(sys.argv[1], "w") as file:
        file.write(f"{RE.state} {ends}")
"""


@pytest.mark.slow
def test_a_lost_terminal_ends_the_run_as_an_abort(tmp_path):
    result = tmp_path / "result"
    subprocess.run([sys.executable, "-c", LOSE_TERMINAL, result], timeout=120, check=True)
    assert result.read_text() == "idle ['abort']"

"""The watchdog on a simulated beamline: nobody leaves the shutter open, however the acquisition ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mistral_txm.services.lifeline import ServiceProcess
from mistral_txm.services.watchdog import main

WATCHDOG = "mistral_txm.services.watchdog"
PARENT = """
import os, sys, time
from pathlib import Path
from mistral_txm.services.lifeline import ServiceProcess
watchdog = ServiceProcess({module!r}, ["--lifeline"], log=Path({log!r}))
watchdog.start()
assert watchdog.wait_ready(120.0) == {{"ready": True}}
child = os.fork() if {forks} else 0
if {forks} and not child:
    time.sleep(60)
print(watchdog.process_id, child, flush=True)
time.sleep(60)
"""


@pytest.fixture
def shutter(instrument: Any) -> Iterator[Any]:
    yield instrument.shutter
    instrument.shutter.set("closed").wait(120)


@pytest.fixture
def stuck(simulated_beamline: Any) -> Iterator[Any]:
    from ophyd import EpicsSignal

    fault = EpicsSignal("SIM:FAULT:shutter_stuck_open", name="stuck")
    fault.wait_for_connection(timeout=120)
    yield fault
    fault.set(0).wait(120)


def becomes(reached: Callable[[], bool], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not reached() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return reached()


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # nobody here may wait for a grandchild


@pytest.mark.slow
@pytest.mark.parametrize("forks", [False, True])
def test_the_shutter_closes_when_the_acquisition_is_killed(
    shutter: Any, tmp_path: Path, forks: bool
) -> None:
    """Also where a child that was forked off the acquisition keeps the lifeline's other end open."""
    log = tmp_path / "watchdog.log"
    code = textwrap.dedent(PARENT.format(module=WATCHDOG, log=str(log), forks=forks))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        watchdog, child = map(int, parent.stdout.readline().split())
        try:
            shutter.set("open").wait(120)
            time.sleep(0.5)
            assert shutter.is_open
            parent.send_signal(signal.SIGKILL)
            killed_s = time.monotonic()
            assert becomes(lambda: not shutter.is_open, 5)
            print(f"closed {time.monotonic() - killed_s:.2f} s after the kill")
            assert becomes(lambda: is_gone(watchdog), 5)
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
    lines = [line for line in log.read_text().splitlines() if " watchdog " in line]
    assert len(lines) == 1
    assert "the acquisition has ended; the shutter is closed, after " in lines[0]


@pytest.mark.slow
def test_signals_do_not_end_it_before_its_parent_does(shutter: Any, tmp_path: Path) -> None:
    with ServiceProcess(WATCHDOG, ["--lifeline"], log=tmp_path / "watchdog.log") as watchdog:
        watchdog.wait_ready(120.0)
        group = watchdog.process_id
        assert group is not None
        shutter.set("open").wait(120)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.killpg(group, number)
        time.sleep(1.0)
        assert watchdog.running
        assert shutter.is_open
    assert becomes(lambda: not shutter.is_open, 1)


@pytest.mark.slow
def test_a_shutter_that_does_not_close_is_told_and_the_watchdog_ends(
    shutter: Any, stuck: Any
) -> None:
    command = [sys.executable, "-m", WATCHDOG, "--lifeline"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        shutter.set("open").wait(120)
        stuck.set(1).wait(120)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 3
    lines = [line for line in errors.splitlines() if " watchdog " in line]
    assert len(lines) == 1, errors
    (line,) = lines
    assert "the shutter is NOT known to be closed: shutter: not closed within 2 s" in line
    assert line.endswith("close it by hand")


def test_a_configuration_that_cannot_be_used_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert main(["--lifeline", "--config", str(tmp_path / "none.toml")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/none.toml: No such file or directory\n"
    for number, handler in zip((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), before, strict=True):
        signal.signal(number, handler)


@pytest.mark.slow
def test_a_shutter_that_does_not_answer_is_told(tmp_path: Path) -> None:
    from mistral_txm.devices.configuration import SIMULATED

    text = SIMULATED.read_text().replace("ca://SIM:SHUTTER:", "ca://SIM:NOWHERE:")
    text = text.replace("connection_timeout_s = 10.0", "connection_timeout_s = 0.5")
    (tmp_path / "wrong.toml").write_text(text)
    command = [sys.executable, "-m", WATCHDOG, "--lifeline", "--config", tmp_path / "wrong.toml"]
    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    assert "shutter: ca://SIM:NOWHERE: did not answer within 0.5 s; check" in done.stderr

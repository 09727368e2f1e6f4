"""An operator at the prompt of IPython: short commands with units, errors of one line, an orderly end."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from mistral_txm.services.journal import journal_files, read_journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

START = """
from mistral_txm.profile_collection import start
session = start(simulated=True, data={data!r}); globals().update(session)
"""
WORDS = """
%mov theta 3 polarization -1
%mov shutter open
%movr theta -1
%mov shutter closed
%wa shutter theta
%mov theta 90
%movr shutter 1
%mov jaw 1
%mov theta
%ct 2
%ct long
RE(bps.mv(theta, 91))
"""
SERIES = """
sides = dict(flats=dict(exposure_s=3.0, repeats=1), darks=dict(repeats=1))
tilt = dict(first_deg=0.0, last_deg=0.0, exposure_s=8.0, repeats=2)
film = dict(sample=dict(name="film"), azimuths_deg=[0.0], energies_ev=[707.4], tilts=[tilt], **sides)
faults.ccd_dropped_frame.put(3)
RE(vector_tomography(instrument, Measurement.from_dict(film), series="typed"))
RE.state, shutter.is_open
RE.resume()
RE(retake(4))
RE(reject(0, helicity=1, repeat=2, reason="a flash"))
status()
RE(resume())
status()
RE(resume())
len(RE.suspenders)
"""
"""The camera's server drops a frame three times: the plan tries that often, and asks for help."""
LONG = "RE(bp.scan([ring_current], theta, 0, 5, 10000))\n"


@contextmanager
def prompt(profile):
    """IPython, its input and output joined to pipes, with a history and a profile of its own."""
    with subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-X",
            "faulthandler",
            "-m",
            "IPython",
            "--simple-prompt",
            "--no-banner",
            "--colors=NoColor",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"IPYTHONDIR": str(profile)},
    ) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The data folder of a session in which all of WORDS and SERIES was typed, and what it printed."""
    data = tmp_path_factory.mktemp("data")
    with prompt(tmp_path_factory.mktemp("ipython")) as process:
        typed = START.format(data=str(data)) + WORDS + SERIES + "exit\n"
        output, _ = process.communicate(typed, timeout=900)
    return data, output


def test_the_commands_of_an_operator(session, processes_about):
    data, output = session
    lines = [
        line.split(": ", 1)[-1] if line.startswith("In [") else line for line in output.split("\n")
    ]
    assert [line.split() for line in lines if line.startswith("theta  ")] == [
        ["theta", f"{theta:.4f}", "deg", "-70", "to", "70", "deg"] for theta in (3, 2, 2)
    ]
    assert [line.split()[1] for line in lines if line.startswith("shutter  ")] == [
        "Closed",
        "Closed",
    ]
    assert [line.split() for line in lines if line.startswith("polarization ")] == [
        ["polarization", "-1"]
    ]
    (counted,) = (line for line in lines if line.startswith("2 s: "))
    assert "counts" in counted
    assert "ring current" in counted
    for expected in (
        "LimitError: theta: 90.0 deg is not within the configured limits",
        "UsageError: every plan leaves the shutter closed",
        "UsageError: shutter 1: cannot be moved by a distance",
        "UsageError: 'jaw': no such device; there are theta",
        "UsageError: expected pairs of device and position",
        "UsageError: 'long': expected an exposure time in seconds",
        "LimitError: theta: 91.0 deg is not within the configured limits",
    ):
        assert sum(expected in line for line in lines) == 1, expected
    assert "Traceback" not in output
    assert processes_about(str(data)) == []


def test_a_series_that_pauses_itself_and_is_mended(session):
    _, output = session
    told = [re.sub(r"^((In|Out) ?\[\d+\]: )+", "", line) for line in output.split("\n")]
    (paused,) = (line for line in told if line.startswith("paused: "))
    assert paused.startswith("paused: dark frame 1: ccd: ")
    assert paused.endswith("; RE.resume() when it is put right, RE.abort() to end")
    told = told[told.index(paused) :]
    assert "('paused', False)" in told
    assert "PlanError: theta = 4 deg is not planned; beside it are 0 deg" in told
    whole, cut = (
        f"series typed: {state}, {accepted} of 4 exposures accepted, {missing} missing"
        for state, accepted, missing in (("complete", 4, 0), ("running", 3, 1))
    )
    stood = [
        line
        for line in told
        if line.startswith("series typed: ") and " of 4 exposures accepted" in line
    ]
    assert stood[0].startswith(f"{cut} (1 of them rejected)")
    assert "series typed: 1 exposures are missing" in told
    assert stood[1].startswith(whole)
    assert "PlanError: series typed: nothing is missing" in told
    assert "3" in told
    assert "Your RunEngine is entering a paused state" not in output
    assert "Traceback" not in output


def test_a_closed_terminal_ends_the_plan_as_an_abort_and_then_the_prompt(tmp_path, processes_about):
    data = tmp_path / "data"
    with prompt(tmp_path / "ipython") as process:
        process.stdin.write(START.format(data=str(data)) + LONG)
        process.stdin.flush()
        deadline = time.monotonic() + 600
        while not (found := journal_files(data / "journal")) or found[0].stat().st_size < 20_000:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGHUP)
        try:
            process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # makes it print what every thread does
            pytest.fail(f"still there after 300 s: {process.communicate(timeout=20)[0][-8000:]}")
    *_, (name, stop) = read_journal(journal_files(data / "journal")[0])
    assert (name, stop["exit_status"]) == ("stop", "abort")
    assert processes_about(str(data)) == []

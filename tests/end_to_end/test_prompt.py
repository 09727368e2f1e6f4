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
session = start(simulated=True, data={data!r}, time_scale={time_scale}); globals().update(session)
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
MISTAKES = """
start()
RE(check("small"))
RE(small())
RE(vector_tomography)
RE(vector_tomography(small()))
RE(vector_tomography(instrument, "nonsense.toml"))
RE(retake("2"))
RE(reject(2))
RE.resume()
vector_tomography(instrument, small())
(each for each in "ab")
"""
ANSWERS = (
    "SessionError: a session runs here already, with its data in",
    "PlanError: RE: nothing to run; what prints by itself",
    "PlanError: RE: a measurement says what to take; to take it: RE(",
    "PlanError: RE: vector_tomography lacks its parentheses",
    "PlanError: vector_tomography: the instrument comes first",
    "ConfigurationError: nonsense.toml: No such file",
    "PlanError: theta = '2': expected a tilt in deg",
    "PlanError: reject: missing a required argument: 'reason'",
    "no plan is paused: nothing to go on with or to end",
    "a plan, and nothing has happened yet: run it with RE(...)",
    "<generator object",
)
"""What is said of each line of `MISTAKES`."""
NAMES = """
import inspect
print("names:", *session)
takes = lambda one: str(inspect.signature(one))
ours = lambda one: callable(one) and getattr(one, "__module__", "").startswith("mistral_txm")
typed = [name for name, one in session.items() if name != "RE" and ours(one)]
print("without a signature:", *(n for n in typed if "**" in takes(session[n]) or "*args" in takes(session[n])))
print("without help:", *(n for n in typed if not inspect.getdoc(session[n])))
"""
INTERNALS = {
    "light",
    "key",
    "waived",
    "budget",
    "log",
    "Key",
    "PlanError",
    "check_positions",
    "edge_series",
    "steps",
}
OF_THE_ENGINE = (
    "deferred pause",
    "hard pause",
    "Pausing",
    "Aborting",
    "acknowledged",
    "Your RunEngine",
    "Suspen",
)
"""What bluesky would print of a pause, an end and a suspension."""
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
    """The data folder of a session in which all of WORDS, SERIES, MISTAKES and NAMES was typed, and what it printed."""
    data = tmp_path_factory.mktemp("data")
    with prompt(tmp_path_factory.mktemp("ipython")) as process:
        begin = START.format(data=str(data), time_scale=0)
        typed = begin + WORDS + SERIES + MISTAKES + NAMES + "exit\n"
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
    assert paused.endswith(
        "; the shutter is closed; RE.resume() when it is put right, RE.abort() to end"
    )
    told = told[told.index(paused) :]
    assert "('paused', False)" in told
    assert "PlanError: theta = 4 deg is not planned; beside it are 0 deg" in told
    whole, cut = (
        f"series typed: {state}, {accepted} of 4 exposures accepted, {missing} missing"
        for state, accepted, missing in (("complete", 4, 0), ("interrupted", 3, 1))
    )
    stood = [
        line
        for line in told
        if line.startswith("series typed: ") and " of 4 exposures accepted" in line
    ]
    assert stood[0].startswith(f"{cut} (1 of them rejected)")
    assert "series typed: 1 exposure rejected, for 'a flash'" in told
    assert (
        "series typed: 3 of 4 exposures good, 1 missing (1 of them rejected): RE(resume('typed')) takes the rest"
    ) in told
    assert "series typed: 1 exposure to take" in told
    assert "series typed: 1 exposure taken; 4 of 4 exposures good, nothing missing" in told
    assert stood[1].startswith(whole)
    assert "PlanError: series typed: nothing is missing" in told
    assert "3" in told
    assert "Your RunEngine is entering a paused state" not in output
    assert "Traceback" not in output


def test_a_closed_terminal_ends_the_plan_as_an_abort_and_then_the_prompt(tmp_path, processes_about):
    data = tmp_path / "data"
    with prompt(tmp_path / "ipython") as process:
        process.stdin.write(START.format(data=str(data), time_scale=0) + LONG)
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


def test_a_mistake_is_answered_by_one_line_that_says_what_to_type(session):
    _, output = session
    answers = output[output.index("SessionError: ") :]
    found = [answers.find(answer) for answer in ANSWERS]
    assert -1 not in found, ANSWERS[found.index(-1)]
    assert found == sorted(found)
    assert "TypeError" not in output
    assert "AttributeError" not in output


def test_the_prompt_begins_and_ends_with_where_everything_is(session):
    data, output = session
    assert re.search(r"simulated MISTRAL: \d+ devices answer; the shutter is closed\n", output)
    assert f"data: {data}\n" in output
    assert re.search(r"monitor: http://127.0.0.1:\d+/\n", output)
    assert f"the session has ended; the shutter is closed; the data are in {data}\n" in output


def test_the_names_are_those_that_an_operator_types_and_each_has_help(session):
    _, output = session
    names = re.search(r"names: (.*)\n", output)[1].split()
    assert {"vector_tomography", "retake", "mosaic", "theta", "cat", "small"} <= set(names)
    assert not INTERNALS & set(names)
    assert re.search(r"without a signature: *\n", output)
    assert re.search(r"without help: *\n", output)


def tells(process, *lines):
    """Type lines."""
    process.stdin.write("\n".join(lines) + "\n")
    process.stdin.flush()


def read_until(process, text):
    """Read what is printed up to a line with that text."""
    read = []
    for line in process.stdout:
        read.append(line)
        if text in line:
            return "".join(read)
    raise AssertionError(f"{text!r} was not told: {''.join(read)[-4000:]}")


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """The data folder of a series that Ctrl-C has paused, and `RE.abort()` ended, and what was printed."""
    data = tmp_path_factory.mktemp("cut")
    with prompt(tmp_path_factory.mktemp("ipython")) as process:
        tells(process, START.format(data=str(data), time_scale=0.02))
        tells(process, "RE(vector_tomography(instrument, small(), series='cut'))")
        deadline = time.monotonic() + 600
        while not (found := journal_files(data / "journal")) or found[-1].stat().st_size < 60_000:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output = read_until(process, "paused; ")
        tells(process, "RE(resume())", "RE.abort()", "RE.abort()", "exit")
        output += process.communicate(timeout=300)[0]
    return data, output


def test_ctrl_c_and_an_abort_are_told_in_our_words_alone(cut):
    _, output = cut
    for line in (
        "Ctrl-C: pausing after this exposure; press it again to pause at once",
        "paused; the shutter is closed; RE.resume() to go on, RE.abort() to end",
        "PlanError: a plan is paused: RE.resume() goes on with it, RE.abort() ends it",
        "ending the plan, and putting everything back",
        "ended early; the shutter is closed",
        "no plan is paused: nothing to go on with or to end",
    ):
        assert output.count(line) == 1, line
    stands = r"series cut: (\d+ exposures? taken; )?\d+ of 276 exposures good, \d+ missing: RE\(resume\('cut'\)\)"
    assert re.search(stands, output)
    for words in OF_THE_ENGINE:
        assert words not in output, words


def test_a_signal_ends_a_prompt_at_which_nobody_types(cut, tmp_path, processes_about):
    """The kernel may hand it to any thread, while the one that handles it sits in a read: so it is here."""
    data, _ = cut
    elsewhere = "signal.pthread_kill(threading.get_ident(), signal.SIGTERM)"
    with prompt(tmp_path) as process:
        tells(process, "import signal, threading", START.format(data=str(data), time_scale=0))
        tells(process, f"threading.Timer(1.0, lambda: {elsewhere}).start()")
        output = read_until(process, "interrupted: ")
        try:  # not by communicate, which closes the input: that ends a prompt by itself
            code = process.wait(timeout=300)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # makes it print what every thread does
            pytest.fail(f"still there after 300 s: {process.stdout.read()[-8000:]}")
        output += process.stdout.read()
    assert code == 128 + signal.SIGTERM
    assert re.search(
        r"interrupted: series cut of .*, \d+ exposures missing: RE\(resume\('cut'\)\) takes the rest\n",
        output,
    )
    assert (
        f"the session has ended by SIGTERM; the shutter is closed; the data are in {data}\n"
        in output
    )
    assert processes_about(str(data)) == []

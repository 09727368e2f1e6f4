"""Ctrl-C and kill -9 in the middle: nothing that was exposed is lost, nothing is left running, the rest can be done."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mistral_txm.services.verification import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def documents(data):
    return sum(path.read_bytes().count(b"\n") for path in (data / "journal").glob("*.jsonl"))


@pytest.fixture
def begun(tmp_path):
    """A demo in a process group of its own, as a shell starts it, well into its exposures."""
    data = tmp_path / "data"
    command = [sys.executable, "-m", "mistral_txm.profile_collection.command_line"]
    with subprocess.Popen(
        [*command, "demo", "--output", str(data), "--seed", "3"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    ) as process:
        try:
            wait_for(lambda: documents(data) > 150, 600)
            yield process, data
        finally:
            process.kill()


def test_ctrl_c_ends_in_order_and_the_rest_can_be_done(begun, run, demo, processes_about):
    process, data = begun
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "resume --data" in output
    assert "Traceback" not in output
    assert processes_about(str(data)) == []
    (status,) = json.loads(run("status", "--data", data, "--json").stdout)["series"]
    assert status["state"] == "interrupted"
    assert 0 < status["accepted"] < status["planned"]
    assert status["next"]

    done = run("resume", "--data", data, "--json")
    assert done.returncode == 0, done.stderr
    frames = json.loads(done.stdout)["frames"]
    assert frames["asked"] == frames["taken"] == frames["in_catalog"] == 276
    (resumed,), (undisturbed,) = verify(data), verify(demo.data)
    assert resumed.repeated == []
    assert resumed.missing == []
    assert resumed.accepted.keys() == undisturbed.accepted.keys()
    for key, exposure in undisturbed.accepted.items():
        assert resumed.accepted[key].crc32 == exposure.crc32


def test_kill_leaves_no_process_and_every_acknowledged_frame(begun, processes_about):
    process, data = begun
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: processes_about(str(data)) == [], 60)
    (series,) = verify(data)
    assert series.accepted
    assert series.damaged == []

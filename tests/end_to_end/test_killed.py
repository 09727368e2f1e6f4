"""kill -9 in mid-exposure at a beamline that lives on: the shutter closes, and a new session does the rest."""

import json
import os
import queue
import subprocess
import sys
import threading
import time

import pytest

from mistral_txm.services.verification import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WATCH = """
import time, epics
def say(value, **_):
    print("Open" if value else "Closed", flush=True)
status = epics.PV("SIM:SHUTTER:Status", auto_monitor=True, callback=say)
time.sleep(600)
"""

MEASURE = """
import sys
from mistral_txm.profile_collection import start
with start(data=sys.argv[1]) as session:
    session.azimuth.set(0.0).wait(120)
    session.RE({plan})
"""

SERIES = """session.vector_tomography(session.instrument, session.Measurement.from_dict({
    "sample": {"name": "film"}, "azimuths_deg": [0.0], "energies_ev": [707.4],
    "tilts": [{"first_deg": 0.0, "last_deg": 0.0, "exposure_s": 20.0, "repeats": 3}],
    "flats": {"exposure_s": 1.0, "repeats": 1}, "darks": {"repeats": 1},
}), series="killed")"""


@pytest.fixture
def beamline(tmp_path):
    """A simulated beamline in a process of its own, and the environment of who uses it."""
    command = [sys.executable, "-m", "mistral_txm.profile_collection.command_line", "ioc"]
    with subprocess.Popen(
        [*command, "--data", str(tmp_path / "beamline"), "--time-scale", "0.05"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        port = json.loads(process.stdout.readline())["port"]
        yield os.environ | {
            "EPICS_CA_ADDR_LIST": "127.0.0.1",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_SERVER_PORT": str(port),
        }
        process.terminate()


@pytest.fixture
def shutter(beamline):
    """What the status of the shutter says, one entry for each change."""
    seen = queue.SimpleQueue()
    with subprocess.Popen(
        [sys.executable, "-c", WATCH],
        env=beamline,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        threading.Thread(
            target=lambda: [seen.put(line.strip()) for line in process.stdout], daemon=True
        ).start()
        yield seen
        process.kill()


def measure(plan, data, beamline):
    code = MEASURE.replace("{plan}", plan)
    return subprocess.Popen([sys.executable, "-c", code, str(data)], env=beamline)


def recorded(data):
    events = [
        line for path in (data / "journal").glob("*.jsonl") for line in path.read_text().split("\n")
    ]
    return sum('"name":"event"' in line and '"key_helicity"' in line for line in events)


def test_the_shutter_closes_and_a_new_session_does_the_rest(beamline, shutter, tmp_path):
    data = tmp_path / "data"
    with measure(SERIES, data, beamline) as acquisition:
        state, enough = "", 5  # two darks, two flats, an exposure of the sample
        while state != "Open" or recorded(data) < enough:
            assert acquisition.poll() is None
            time.sleep(0.02)
            while not shutter.empty():
                state = shutter.get()
        acquisition.kill()
        assert shutter.get(timeout=20) == "Closed"
    (cut,) = verify(data)
    assert 0 < len(cut.accepted) < 6
    with measure("session.resume()", data, beamline) as acquisition:
        assert acquisition.wait(timeout=600) == 0
    (whole,) = verify(data)
    assert whole.missing == whole.damaged == whole.repeated == []
    assert {key: whole.accepted[key].crc32 for key in cut.accepted} == {
        key: exposure.crc32 for key, exposure in cut.accepted.items()
    }

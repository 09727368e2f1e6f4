"""The Channel Access client of a process is pointed at one server, before libca reads its environment.

Each test runs in a process of its own, since libca is set up once per process.
"""

import json
import os
import subprocess
import sys

import pytest

REGISTER = """
import json, os, socket, struct
from mistral_txm.profile_collection.channel_access import use_control_server
use_control_server(5099)
answers = []
for _ in range(2):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        register = struct.pack(">HHHHII", 24, 0, 0, 0, 0, 0x7F000001)
        client.sendto(register, ("127.0.0.1", int(os.environ["EPICS_CA_REPEATER_PORT"])))
        answers.append(struct.unpack(">HHHHII", client.recv(64)))
print(json.dumps([answers, {name: value for name, value in os.environ.items() if name.startswith("EPICS_CA")}]))
"""

AGAIN = """
import os, sys, types
from mistral_txm.profile_collection.channel_access import use_control_server
use_control_server(5099)
first = os.environ["EPICS_CA_REPEATER_PORT"]
sys.modules["ophyd"] = types.ModuleType("ophyd")  # as if imported: importing it for real takes a second
use_control_server(5099)
assert os.environ["EPICS_CA_REPEATER_PORT"] == first
use_control_server(5100)
"""


def run(code: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if "EPICS" not in name}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )


def test_registration_with_the_repeater_is_confirmed():
    done = run(REGISTER)
    answers, environment = json.loads(done.stdout)
    confirmed = [17, 0, 0, 0, 0, 0x7F000001]  # CA protocol: REPEATER_CONFIRM, with its address
    assert answers == [confirmed, confirmed]
    del environment["EPICS_CA_REPEATER_PORT"]
    assert environment == {
        "EPICS_CA_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": "5099",
    }


def test_another_server_is_refused_after_ophyd_was_imported():
    done = run(AGAIN)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "RuntimeError: the Channel Access client of this process is already set up"
    )
    assert "call start() first" in last


@pytest.mark.slow
def test_libca_finds_the_repeater():
    """Without one, libca writes a complaint onto the operator's screen."""
    done = run(
        "from mistral_txm.profile_collection.channel_access import use_control_server\n"
        "use_control_server(5099)\n"
        "import epics, time\n"
        "epics.PV('NO:SUCH:PV', connection_timeout=0.1)\n"
        "time.sleep(1.5)\n"
    )
    assert done.returncode == 0
    assert done.stdout + done.stderr == ""

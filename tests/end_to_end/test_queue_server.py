"""Measurements in a queue, headless: added, started, paused, cut and finished with the words of `qserver`."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tomli_w
import zmq
from fakeredis import TcpFakeServer

from mistral_txm.services.journal import journal_files, read_journal
from mistral_txm.services.verification import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TINY = {
    "sample": {"name": "tiny"},
    "tilts": [
        {"first_deg": -45.0, "last_deg": 45.0, "step_deg": 90.0, "exposure_s": 8.0, "repeats": 1}
    ],
    "azimuths_deg": [0.0, 102.0],
    "flats": {"exposure_s": 3.0, "repeats": 2},
    "darks": {"repeats": 1},
    "energies_ev": [707.4],
}
EXPOSURES = 2 * 2 * 2
LONGER = {**TINY, "tilts": [{**TINY["tilts"][0], "repeats": 10}]}
SOMEBODY = {"user": "somebody", "user_group": "primary"}


class Queue:
    """The command of an operator, and `qserver` beside it."""

    def __init__(self, data: Path, port: int, redis_port: int) -> None:
        self.data = data
        self.port = port
        command = [sys.executable, "-m", "mistral_txm.profile_collection.command_line", "queue"]
        command += ["--simulated", "--data", str(data), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--redis", f"127.0.0.1:{redis_port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def qserver(self, *words: str) -> str:
        """Type a command of the queue server, and return what it prints."""
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("qserver")),
                *words,
                "--zmq-control-addr",
                f"tcp://localhost:{self.port}",
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.stdout

    def ask(self, method, **parameters):
        with zmq.Context() as context, context.socket(zmq.REQ) as channel:
            channel.linger = 0
            channel.connect(f"tcp://127.0.0.1:{self.port}")
            channel.send_json({"method": method, "params": parameters})
            return channel.recv_json() if channel.poll(120_000) else {"manager_state": None}

    def wait_for(self, condition, seconds=600.0):
        deadline = time.monotonic() + seconds
        while not condition(status := self.ask("status")):
            assert self.process.poll() is None, self.process.stdout.read()
            assert time.monotonic() < deadline, f"waited too long; {status}"
            time.sleep(0.05)

    def documents(self):
        return sum(path.read_bytes().count(b"\n") for path in journal_files(self.data / "journal"))

    def items(self):
        return [
            (item["name"], item["result"]["exit_status"])
            for item in self.ask("history_get")["items"]
        ]


@pytest.fixture
def redis_port():
    with TcpFakeServer(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server.server_address[1]
        server.shutdown()
        serving.join()


@pytest.fixture
def queue(tmp_path, redis_port, reserve_ports):
    ports = reserve_ports(2)  # for commands, and for what is printed
    port = ports[0].getsockname()[1]
    for one in ports:
        one.close()
    queue = Queue(tmp_path / "data", port, redis_port)
    try:
        yield queue
    finally:
        if queue.process.poll() is None:
            queue.process.send_signal(signal.SIGINT)
            queue.process.communicate(timeout=600)
        queue.process.stdout.close()


def plan(name, **parameters):
    return json.dumps({"name": name, "kwargs": parameters})


def idle_with_environment(status):
    return status["manager_state"] == "idle" and status["worker_environment_exists"]


def test_a_queue_measures_is_cut_and_goes_on(queue, tmp_path, processes_about):
    description = tmp_path / "tiny.toml"
    description.write_text(tomli_w.dumps(TINY))
    queue.wait_for(idle_with_environment)

    wrong = {"name": "measure", "kwargs": {"measurement": {**TINY, "tilt": 1}}}
    answer = queue.ask("queue_item_add", item={**wrong, "item_type": "plan"}, **SOMEBODY)
    assert (
        answer["msg"]
        .split("\n")[0]
        .endswith("measurement: unknown key 'tilt'; the nearest valid key is 'tilts'")
    )
    assert queue.ask("status")["items_in_queue"] == 0

    queue.qserver(
        "queue", "add", "plan", plan("measure", measurement=str(description), series="first")
    )
    queue.qserver("queue", "add", "plan", plan("measure", measurement=TINY, series="second"))
    again = plan("retake_angle", phi_deg=102.0, theta_deg=45.0, helicity=-1, series="second")
    queue.qserver("queue", "add", "plan", again)
    queue.qserver("queue", "start")
    queue.wait_for(lambda now: now["manager_state"] == "idle" and now["items_in_history"] == 3)
    assert queue.items() == [*[("measure", "completed")] * 2, ("retake_angle", "completed")]
    found = {series.uid: series for series in verify(queue.data)}
    assert [(uid, len(one.accepted), one.missing) for uid, one in found.items()] == [
        ("first", EXPOSURES, []),
        ("second", EXPOSURES, []),
    ]
    assert found["first"].repeated == []
    assert found["second"].repeated == [(102.0, 45.0, -1, 0)]

    begun = queue.documents()
    queue.qserver("queue", "add", "plan", plan("measure", measurement=LONGER, series="third"))
    queue.qserver("queue", "start")
    queue.wait_for(lambda now: queue.documents() > begun + 40)
    queue.ask("re_pause", option="immediate")  # at once: `qserver` takes seconds to start
    queue.wait_for(lambda now: now["manager_state"] == "paused")
    paused_at = queue.documents()
    time.sleep(0.5)
    assert queue.documents() == paused_at
    queue.qserver("re", "resume")
    queue.wait_for(lambda now: queue.documents() > paused_at + 20)

    queue.ask("environment_destroy")
    queue.wait_for(lambda now: now["worker_environment_exists"] is False)
    assert queue.ask("status")["items_in_queue"] == 1  # what was cut stands in front again
    queue.qserver("environment", "open")
    queue.wait_for(idle_with_environment)
    queue.qserver("queue", "item", "remove", "front")
    queue.qserver("queue", "add", "plan", plan("resume_series", series="third"))
    queue.qserver("queue", "start")
    queue.wait_for(lambda now: now["manager_state"] == "idle" and now["items_in_history"] == 5)
    assert queue.items()[3:] == [("measure", "failed"), ("resume_series", "completed")]
    third = verify(queue.data, "third")[0]
    assert (len(third.accepted), third.missing, third.damaged) == (10 * EXPOSURES, [], [])
    assert len(third.repeated) <= 1

    queue.qserver("queue", "add", "plan", plan("measure", measurement=LONGER))
    ended = queue.documents()
    queue.qserver("queue", "start")
    queue.wait_for(lambda now: queue.documents() > ended + 40)
    os.killpg(queue.process.pid, signal.SIGINT)
    output, _ = queue.process.communicate(timeout=600)
    assert queue.process.returncode == 130, output
    *_, (name, stop) = read_journal(journal_files(queue.data / "journal")[-1])
    assert (name, stop["exit_status"]) == ("stop", "abort")
    deadline = time.monotonic() + 60
    while processes_about(str(queue.data)):
        assert time.monotonic() < deadline, processes_about(str(queue.data))
        time.sleep(0.1)

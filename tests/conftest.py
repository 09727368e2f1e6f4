"""Fixtures that more than one room uses: the simulated beamline in its own process."""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest


def reserve_ports(count: int = 1) -> list[socket.socket]:
    """Take a free port, and others 10 above each; they are free again when the sockets are closed.

    Below 32768, from where the system hands out ports: nobody is given one who did not ask for it by
    its number.
    """
    while True:
        first = random.SystemRandom().randrange(20000, 30000)
        taken = [socket.socket() for _ in range(count)]
        try:
            for number, one in enumerate(taken):
                one.bind(("127.0.0.1", first + 10 * number))
        except OSError:
            for one in taken:
                one.close()
            continue
        return taken


# libca reads these when ophyd is imported, once per process; a port chosen here therefore holds for
# the session, and the server is told to take it.
(RESERVED,) = reserve_ports()
os.environ["EPICS_CA_ADDR_LIST"] = "127.0.0.1"
os.environ["EPICS_CA_AUTO_ADDR_LIST"] = "NO"
os.environ["EPICS_CA_SERVER_PORT"] = str(RESERVED.getsockname()[1])

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores already
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _no_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep bluesky from writing down the stack of each stub, which takes most of the time here."""
    monkeypatch.setattr("bluesky.utils.traceback", SimpleNamespace(format_stack=list))


@pytest.fixture(scope="session", name="reserve_ports")
def reserve_ports_fixture() -> Callable[[int], list[socket.socket]]:
    return reserve_ports


class SimulatedBeamline(NamedTuple):
    """Where a simulated beamline serves and writes."""

    port: int
    data: Path


@contextmanager
def run_simulated_beamline(data: Path, *options: str) -> Iterator[SimulatedBeamline]:
    """Run a simulated beamline in its own process, and end it."""
    command = [sys.executable, "-m", "mistral_txm.simulated_beamline"]
    command += ["--data", str(data), "--lifeline", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, "the simulated beamline ended before it was ready"
            ready = json.loads(line)
            yield SimulatedBeamline(ready["port"], Path(ready["data"]))
        finally:
            process.stdin.close()
            process.wait(timeout=120)


@pytest.fixture(scope="session")
def simulated_beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedBeamline]:
    """Serve a simulated beamline of size small, which this process' Channel Access points to.

    Yields (port, data folder). libca reads its port once per process, so this is the one beamline
    that a test may reach through ophyd in this process.
    """
    data = tmp_path_factory.mktemp("beamline")
    port = os.environ["EPICS_CA_SERVER_PORT"]
    RESERVED.close()
    options = ("--seed", "1", "--time-scale", "0", "--port", port)
    with run_simulated_beamline(data, *options) as beamline:
        yield beamline


@pytest.fixture(scope="session")
def instrument(simulated_beamline: SimulatedBeamline) -> Any:
    """Return the devices of the simulated beamline, connected."""
    from mistral_txm.devices.configuration import load_configuration
    from mistral_txm.devices.instrument import make_instrument

    devices = make_instrument(load_configuration(), simulated_beamline.data / "frames")
    devices.connect(120.0)
    return devices

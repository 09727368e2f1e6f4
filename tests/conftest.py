"""Fixtures that more than one room uses: the simulated beamline in its own process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

# pyepics reads these when libca is loaded, once per process; a port chosen here therefore holds for
# the session, and the server is told to take it.
os.environ["EPICS_CA_ADDR_LIST"] = "127.0.0.1"
os.environ["EPICS_CA_AUTO_ADDR_LIST"] = "NO"


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
            process.wait(timeout=20)


@pytest.fixture(scope="session")
def simulated_beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedBeamline]:
    """Serve a simulated beamline of size small; this process' Channel Access then points to it.

    Yields (port, data folder). libca reads its port once per process, so this is the one beamline
    that a test may reach through ophyd in this process.
    """
    data = tmp_path_factory.mktemp("beamline")
    with run_simulated_beamline(data, "--seed", "1", "--time-scale", "0") as beamline:
        os.environ["EPICS_CA_SERVER_PORT"] = str(beamline.port)
        yield beamline

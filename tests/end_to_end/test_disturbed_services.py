"""A service that sleeps, crashes or is stopped changes nothing in the run's documents and frames."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def measure(data, *how):
    script = Path(__file__).with_name("measure_tiny.py")
    done = subprocess.run(
        [sys.executable, str(script), str(data), *how],
        capture_output=True,
        text=True,
        timeout=1150,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def volume(data):
    with h5py.File(data / "live" / "tiny" / "volume.h5") as file:
        return np.stack([file[name][...] for name in ("mx", "my", "mz")])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    data = tmp_path_factory.mktemp("undisturbed")
    return data, measure(data)


def test_undisturbed(undisturbed):
    _, found = undisturbed
    assert found["ends"] == ["success", "success"]
    assert found["written"]
    assert found["live"] == "complete"
    streams = [one[0] for one in found["exposures"]]
    assert streams.count("primary") == 2 * 3 * 2 * 2
    assert streams.count("flat") == 2 * 2 * 2
    assert streams.count("dark") == 2 * 2 * 2


def test_disturbed_services_change_nothing(undisturbed, tmp_path):
    """The live reconstruction sleeps, wakes up and is killed, the catalog is killed."""
    quiet_data, quiet = undisturbed
    found = measure(tmp_path, "10-pause-live", "10-kill-catalog", "40-wake-live", "70-kill-live")
    assert found["hit"] == 4
    assert found["exposures"] == quiet["exposures"]
    assert found["ends"] == quiet["ends"]
    assert found["written"]
    assert found["live"] == "complete"
    np.testing.assert_allclose(volume(tmp_path), volume(quiet_data), atol=1e-7)

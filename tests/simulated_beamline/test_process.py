"""The simulated beamline as a process: how it starts, and that it always ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from caproto.sync import client

from mistral_txm.simulated_beamline.__main__ import main

COMMAND = [sys.executable, "-m", "mistral_txm.simulated_beamline"]


@contextmanager
def beamline(data, *options, stdin=subprocess.DEVNULL):
    command = [*COMMAND, "--data", str(data), "--texture", "uniform", *options]
    with subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def point_client_to(monkeypatch):
    def point(port):
        monkeypatch.setenv("EPICS_CA_SERVER_PORT", str(port))
        monkeypatch.setenv("EPICS_CA_ADDR_LIST", "127.0.0.1")
        monkeypatch.setenv("EPICS_CA_AUTO_ADDR_LIST", "NO")

    return point


def put(name, value, *, notify=False):
    client.write(name, value, notify=notify, repeater=False, timeout=120)


def get(name):
    return client.read(name, repeater=False, timeout=120, force_int_enums=True).data


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One that several tests talk to, in real time; its data folder and what it said of itself."""
    data = tmp_path_factory.mktemp("served")
    with beamline(data, "--time-scale", "1") as (process, ready):
        yield data, ready
        process.terminate()
        process.communicate(timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path, number):
    """And nothing else does: without a lifeline the end of standard input does not matter."""
    with beamline(tmp_path) as (process, ready):
        assert ready["ready"] is True
        assert ready["prefix"] == "SIM:"
        assert ready["data"] == str(tmp_path)
        assert (tmp_path / "truth.h5").exists()
        time.sleep(0.3)
        assert process.poll() is None
        for table in ("tcp", "udp"):  # it listens on loopback alone
            lines = Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]
            local = [line.split()[1].split(":") for line in lines]
            addresses = {address for address, port in local if int(port, 16) == ready["port"]}
            assert addresses == {"0100007F"}
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.slow
def test_the_end_of_its_lifeline_ends_it(tmp_path):
    with beamline(tmp_path, "--lifeline", stdin=subprocess.PIPE) as (process, _ready):
        time.sleep(0.3)
        assert process.poll() is None
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.slow
def test_a_capture_in_progress_survives_the_end_under_its_temporary_name(tmp_path, point_client_to):
    """And a put-callback to Acquire completes when the frame is in the file."""
    with beamline(tmp_path) as (process, ready):
        point_client_to(ready["port"])
        hdf = "SIM:CCD:HDF1:"
        put(f"{hdf}CreateDirectory", -3)
        put(f"{hdf}FilePath", str(tmp_path / "frames" / "series"))
        put(f"{hdf}FileName", "dark")
        put(f"{hdf}FileTemplate", "%s%s.h5")
        put(f"{hdf}TempSuffix", ".tmp")
        put(f"{hdf}LazyOpen", 1, notify=True)
        put(f"{hdf}Capture", 1)
        put("SIM:CCD:cam1:Acquire", 1, notify=True)
        assert get(f"{hdf}NumCaptured_RBV")[0] == 1
        put("SIM:CCD:cam1:Acquire", 1, notify=True)
        process.terminate()
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, output, errors) == (0, "", "")
    assert [each.name for each in (tmp_path / "frames" / "series").iterdir()] == ["dark.h5.tmp"]
    with h5py.File(tmp_path / "frames" / "series" / "dark.h5.tmp") as file:
        assert file["/entry/data/data"].shape == (2, 256, 256)


def expose_into(name, folder, numbers):
    """Take the exposures of these numbers into a file of their own; returns the frames."""
    hdf = "SIM:CCD:HDF1:"
    put(f"{hdf}FilePath", str(folder))
    put(f"{hdf}FileName", name)
    put(f"{hdf}FileTemplate", "%s%s.h5")
    put(f"{hdf}LazyOpen", 1, notify=True)
    put(f"{hdf}Capture", 1)
    put("SIM:SHUTTER:Cmd", 1, notify=True)
    for number in numbers:
        put("SIM:CCD:cam1:ArrayCounter", number, notify=True)
        put("SIM:CCD:cam1:Acquire", 1, notify=True)
    put(f"{hdf}Capture", 0, notify=True)
    with h5py.File(folder / f"{name}.h5") as file:
        return file["/entry/data/data"][()]


@pytest.mark.slow
def test_a_row_that_a_kill_cuts_and_another_server_ends_equals_an_undisturbed_one(
    tmp_path, point_client_to
):
    options = ("--seed", "7")
    with beamline(tmp_path, *options) as (process, ready):
        point_client_to(ready["port"])
        whole = expose_into("whole", tmp_path, range(4))
        first = expose_into("first", tmp_path, range(2))
        process.kill()
        process.communicate(timeout=120)
    with beamline(tmp_path, *options) as (process, ready):
        point_client_to(ready["port"])
        rest = expose_into("rest", tmp_path, (2, 3))
        process.terminate()
        process.communicate(timeout=120)
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)
    assert len({frame.tobytes() for frame in whole}) == 4
    assert whole.mean() > 1000  # there was light


@pytest.mark.slow
def test_frames_survive_a_kill(tmp_path, point_client_to):
    with beamline(tmp_path) as (process, ready):
        point_client_to(ready["port"])
        hdf = "SIM:CCD:HDF1:"
        put(f"{hdf}FilePath", str(tmp_path))
        put(f"{hdf}FileName", "frames")
        put(f"{hdf}LazyOpen", 1, notify=True)
        put(f"{hdf}Capture", 1)
        for _exposure in range(3):
            put("SIM:CCD:cam1:Acquire", 1, notify=True)
        process.kill()
        process.communicate(timeout=120)
    with h5py.File(tmp_path / "frames_000000.h5", swmr=True) as file:
        assert file["/entry/data/data"].shape == (3, 256, 256)
        assert file["/entry/data/data"][2].any()


@pytest.mark.slow
def test_a_capture_that_cannot_be_written_says_why(served, point_client_to):
    data, ready = served
    point_client_to(ready["port"])
    hdf = "SIM:CCD:HDF1:"
    put(f"{hdf}FilePath", str(data / "nowhere"))
    assert get(f"{hdf}FilePathExists_RBV")[0] == 0
    put("SIM:CCD:cam1:Acquire", 1, notify=True)
    put(f"{hdf}Capture", 1, notify=True)
    assert get(f"{hdf}WriteStatus")[0] == 1
    assert b"no such folder" in bytes(get(f"{hdf}WriteMessage"))
    assert get(f"{hdf}Capture_RBV")[0] == 0


@pytest.mark.slow
def test_a_long_exposure_is_aborted(served, point_client_to):
    point_client_to(served[1]["port"])
    exposures = get("SIM:CCD:cam1:ArrayCounter_RBV")[0]
    put("SIM:CCD:cam1:AcquireTime", 30.0)
    put("SIM:CCD:cam1:Acquire", 1)
    assert get("SIM:CCD:cam1:Acquire_RBV")[0] == 1
    put("SIM:CCD:cam1:Acquire", 0)
    deadline = time.monotonic() + 120
    while get("SIM:CCD:cam1:Acquire_RBV")[0]:
        assert time.monotonic() < deadline
    assert get("SIM:CCD:cam1:ArrayCounter_RBV")[0] == exposures


def test_a_port_that_is_taken_is_refused_in_one_line(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--data", str(tmp_path), "--port", str(port)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--data", str(tmp_path / "file" / "data")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert os.fspath(tmp_path) in message


@pytest.mark.parametrize(
    "options",
    [["--fault", "beam_dum"], ["--time-scale", "-1"], ["--port", "70000"], ["--size", "x"]],
)
def test_bad_options_are_refused(tmp_path, capsys, options):
    with pytest.raises(SystemExit) as refusal:
        main(["--data", str(tmp_path), *options])
    assert refusal.value.code == 2
    assert options[1] in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--texture", "strips"], ["--conditions", "perfect"]])
def test_names_that_do_not_exist_are_refused_in_one_line(tmp_path, capsys, options):
    assert main(["--data", str(tmp_path), *options]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert options[1] in message


@pytest.mark.slow
def test_a_second_one_in_the_same_folder_is_refused_in_one_line(served):
    data, _ready = served
    truth = (data / "truth.h5").read_bytes()
    second = [*COMMAND, "--data", str(data), "--texture", "vortex"]
    refused = subprocess.run(second, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "another simulated beamline writes there" in refused.stderr
    assert (data / "truth.h5").read_bytes() == truth

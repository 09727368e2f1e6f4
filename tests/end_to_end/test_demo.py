"""The whole chain over real Channel Access: what `mistral-txm demo` leaves is what it says.

Also after Ctrl-C and kill -9 in the middle: nothing that was exposed is lost, nothing is left running.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from mistral_txm.services.live_files import read_status
from mistral_txm.services.verification import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_frames_asked_are_taken_and_in_the_catalog(demo):
    frames = demo.summary["frames"]
    assert frames["asked"] == frames["taken"] == frames["in_catalog"] == 2 * 23 * 2 * 3
    assert frames["missing"] == frames["damaged"] == 0
    assert frames["verified_on_disk"] > frames["taken"]
    assert json.loads((demo.data / "summary.json").read_text()) == demo.summary


def test_each_azimuth_goes_back_to_zero_tilt_and_finds_nothing_changed(demo):
    """In these conditions time stands still, so the sample lies where it lay and is what it was."""
    (folder,) = (demo.data / "live").iterdir()
    returns = read_status(folder / "status.json")["returns"]
    assert [(one["phi_deg"], one["theta_deg"]) for one in returns] == [(0.0, 0.0), (102.0, 0.0)]
    for one in returns:
        assert np.hypot(*one["shift_vu_pixels"]) < 0.2
        assert one["dichroic"] == pytest.approx(1.0, abs=3 * one["std_dichroic"] + 0.005)
        assert one["std_dichroic"] < 0.01
        assert one["text"].endswith("of before: unchanged")
    assert demo.summary["frames"]["verified_on_disk"] == 2 * (23 * 2 * 3 + 2 * 3 + 2 * 10 + 4 * 5)


def test_the_magnetization_is_that_of_the_sample(demo):
    components = demo.summary["errors"]["components"]
    assert components["mx"]["correlation"] > 0.9
    assert components["my"]["correlation"] > 0.6
    assert components["mz"]["correlation"] > 0.9


def test_the_bloch_point_is_found_with_its_charge(demo):
    found = demo.summary["singularities"]
    bloch = [pair for pair in found["matched"] if pair["true"]["kind"] == "Bloch point"]
    assert len(bloch) == 1
    assert bloch[0]["found"]["charge"] == -1
    assert bloch[0]["distance_nm"] < 40


def test_the_volume_has_its_attributes_and_provenance(demo):
    with h5py.File(demo.data / "magnetization.h5") as file:
        assert file["mx"].shape == file["my"].shape == file["mz"].shape == (24, 256, 256)
        assert file["mx"].dtype == np.float32
        assert file.attrs["method"] == "direct"
        assert file.attrs["prior"] == "layers"
        assert np.isfinite(file["mz"][...]).all()
        assert "provenance" in file


def test_the_report_shows_what_it_links_to(demo):
    page = (demo.data / "report" / "index.html").read_text()
    pictures = sorted((demo.data / "report").glob("*.png"))
    assert len(pictures) >= 5
    assert all(picture.name in page for picture in pictures)
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_no_process_is_left(demo, processes_about):
    assert processes_about(str(demo.data)) == []


def test_no_key_in_any_message_or_log(demo):
    key = (demo.data / "catalog" / "api_key").read_text().strip()
    assert (demo.data / "catalog" / "api_key").stat().st_mode & 0o077 == 0
    assert key not in demo.messages
    for log in (demo.data / "logs").iterdir():
        assert key not in log.read_text(), log


def test_the_commands_read_what_the_demo_left(demo, run):
    status = json.loads(run("status", "--data", demo.data, "--json").stdout)["series"]
    assert [(one["state"], one["missing"]) for one in status] == [("complete", 0)]
    runs = json.loads(run("runs", "list", "--data", demo.data, "--json").stdout)["runs"]
    assert [(one["plan_name"], one["phi_deg"], one["exposures"]) for one in runs] == [
        ("turn_sample", None, 0),
        ("vector_tomography", 0.0, 138),
        ("turn_sample", None, 0),
        ("vector_tomography", 102.0, 138),
    ]
    verified = run("verify", "--data", demo.data)
    assert verified.returncode == 0, verified.stderr
    assert run("resume", "--data", demo.data).stderr.endswith("nothing is missing\n")
    points = json.loads(run("topology", demo.data / "magnetization.h5", "--json").stdout)["points"]
    assert any(point["charge"] == -1 for point in points)


def test_a_damaged_frame_is_named_and_counts_as_missing(demo, run, tmp_path):
    import shutil

    data = tmp_path / "copy"
    shutil.copytree(demo.data / "journal", data / "journal")
    (frames,) = (demo.data / "frames").iterdir()
    victim = frames / "phi_0_theta_0_plus.h5"
    before = victim.read_bytes()
    with h5py.File(victim) as file:
        offset = file["/entry/data/data"].id.get_chunk_info(1).byte_offset
    try:
        with victim.open("r+b") as file:
            file.seek(offset + 1000)
            file.write(b"\x55\xaa")
        done = run("verify", "--data", data)
    finally:
        victim.write_bytes(before)
    assert done.returncode == 3
    assert "1 missing, 1 damaged" in done.stdout
    assert str(victim) in done.stdout


def test_a_run_is_exported(demo, run, tmp_path):
    uid = demo.summary["runs"][0]
    output = tmp_path / "run.nxtomo"
    done = run("runs", "export", uid, "--format", "nxtomo", "--output", output, "--data", demo.data)
    assert done.returncode == 0, done.stderr
    with h5py.File(output) as file:
        keys = file["positive/instrument/detector/image_key"][...]
        assert np.bincount(keys).tolist() == [69, 10, 20]


def test_a_run_is_processed_and_reconstructed_as_it_was_live(demo, run, tmp_path):
    """The same functions offline and live: equal up to the noise weights, which the files do not carry."""
    done = run(
        "process", demo.summary["series"], "--output", tmp_path / "a.h5", "--data", demo.data
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()
    assert first.endswith("a_phi000.h5")
    output = tmp_path / "out.h5"
    done = run(
        "reconstruct", first, second, "--phi", 0, 102, "--depth-voxels", 24, "--prior", "layers",
        "--layers", "-120:-40,40:120", "--output", output,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with h5py.File(output) as offline, h5py.File(demo.data / "magnetization.h5") as live:
        for name in ("mx", "my", "mz"):
            a, b = (np.asarray(file[name])[:, 40:-40, 40:-40].ravel() for file in (offline, live))
            assert np.corrcoef(a, b)[0, 1] > 0.98


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def documents(data):
    return sum(path.read_bytes().count(b"\n") for path in (data / "journal").glob("*.jsonl"))


@contextmanager
def begun(data, *words):
    """A command in a process group of its own, as a shell starts it, well into its exposures."""
    command = [sys.executable, "-m", "mistral_txm.profile_collection.command_line", *words]
    before = documents(data)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    ) as process:
        try:
            wait_for(lambda: documents(data) > before + 120, 600)
            yield process
        finally:
            process.kill()


def check_frames_are_those_of(demo, data):
    """Every frame that counts is the one of the undisturbed demo; returns how many there are."""
    (cut,), (undisturbed,) = verify(data), verify(demo.data)
    assert cut.damaged == cut.repeated == []
    for key, exposure in cut.accepted.items():
        assert exposure.crc32 == undisturbed.accepted[key].crc32
    return len(cut.accepted)


def test_ctrl_c_ends_in_order_and_a_kill_of_the_rest_loses_nothing(
    run, demo, tmp_path, processes_about
):
    data = tmp_path / "data"
    with begun(data, "demo", "--output", str(data), "--seed", "3") as process:
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert processes_about(str(data)) == []
    (status,) = json.loads(run("status", "--data", data, "--json").stdout)["series"]
    assert f"mistral-txm resume --series {status['uid'][:8]} --data {data}\n" in output
    assert status["state"] == "interrupted"
    assert 0 < status["accepted"] < status["planned"]
    assert status["next"]
    taken = check_frames_are_those_of(demo, data)

    with begun(data, "resume", "--data", str(data)) as process:
        process.kill()
        process.communicate(timeout=60)
    wait_for(lambda: processes_about(str(data)) == [], 60)
    assert check_frames_are_those_of(demo, data) > taken

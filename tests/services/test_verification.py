"""What is said of a data folder: done, missing, repeated, damaged, and what comes next."""

from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import h5py
import numpy as np
import pytest
from bluesky.utils import FailedStatus, RunEngineInterrupted

from mistral_txm.devices.key import Key
from mistral_txm.services.journal import journal_files
from mistral_txm.services.lease import acquisition_lease
from mistral_txm.services.runs import list_runs
from mistral_txm.services.verification import UnknownSeriesError, series_status, verify

GROUPS = [(0.0, -10.0, 1, 2), (0.0, -10.0, -1, 2), (0.0, 0.0, -1, 1)]
KEYS = [
    Key(0.0, -10.0, 1, 0),
    Key(0.0, -10.0, 1, 1),
    Key(0.0, -10.0, -1, 0),
    Key(0.0, -10.0, -1, 1),
    Key(0.0, 0.0, -1, 0),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of its own for each test."""
    return tmp_path


def damage(path: Path) -> None:
    """Change one number of the first frame, as a failing disk does."""
    with h5py.File(path, "r+") as file:
        file["/entry/data/data"][0, 2, 3] += 1


def frame_file(data: Path, start: str) -> Path:
    (path,) = (data / "frames").glob(f"{start}*")
    return path


def test_an_undisturbed_series_is_complete(beamline: Any, data: Path) -> None:
    uid = beamline.measure(GROUPS)
    (found,) = verify(data)
    assert list(found.accepted) == KEYS
    assert (found.missing, found.repeated, found.damaged) == ([], [], [])
    assert found.frames_read == 6
    assert series_status(data) == {
        "series": [
            {
                "uid": "a-series",
                "planned": 5,
                "accepted": 5,
                "missing": 0,
                "repeated": 0,
                "damaged": 0,
                "state": "complete",
                "next": None,
            }
        ]
    }
    (line,) = list_runs(data)
    assert (line.uid, line.series, line.phi_deg, line.sample) == (uid, "a-series", 0.0, "soft")
    assert (line.exit_status, line.exposures) == ("success", 5)


def test_damaged_and_lost_frames_are_missing_keys(beamline: Any, data: Path) -> None:
    beamline.measure(GROUPS)
    damage(frame_file(data, "0.0_-10.0_-1"))
    damage(frame_file(data, "dark"))
    frame_file(data, "0.0_0.0").unlink()
    (found,) = verify(data, "a-ser")
    assert found.missing == [KEYS[2], KEYS[4]]
    assert {exposure.stream for exposure, _ in found.damaged} == {"dark", "primary"}
    reasons = " ".join(reason for _, reason in found.damaged)
    assert "the file is damaged" in reasons
    assert "no such file" in reasons
    summary = found.summary()
    assert (summary["accepted"], summary["missing"], summary["damaged"]) == (3, 2, 3)
    (state,) = series_status(data)["series"]
    assert (state["accepted"], state["damaged"], state["state"]) == (4, 1, "interrupted")
    assert state["next"] == "phi 0 deg, theta 0 deg, helicity -1, repeat 1"


def test_a_failed_run_tells_what_comes_next_and_a_resumed_one_completes(
    beamline: Any, data: Path
) -> None:
    def fail(count: int) -> Any:
        if count == 4:
            raise FailedStatus("no beam")
        yield from bps.null()

    with pytest.raises(FailedStatus):
        beamline.measure(GROUPS, hook=fail)
    (state,) = series_status(data)["series"]
    assert (state["accepted"], state["missing"], state["state"]) == (3, 2, "interrupted")
    assert state["next"] == "phi 0 deg, theta -10 deg, helicity -1, repeat 2"
    with acquisition_lease(data):
        assert series_status(data)["series"][0]["state"] == "running"
    assert series_status(data)["series"][0]["state"] == "interrupted"

    beamline.measure(GROUPS)
    (found,) = verify(data)
    assert (found.missing, found.repeated) == ([], KEYS[:3])
    assert series_status(data)["series"][0]["state"] == "complete"
    assert [run.exit_status for run in list_runs(data)] == ["fail", "success"]


def test_a_killed_run_counts_what_was_acknowledged(beamline: Any, data: Path) -> None:
    uid = beamline.measure(GROUPS)
    (path,) = journal_files(data / "journal")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]) + lines[-2][:40])
    (found,) = verify(data)
    assert found.missing == KEYS[4:]
    (line,) = list_runs(data)
    assert (line.uid, line.exit_status) == (uid, "no stop document")


def test_a_pause_repeats_an_exposure_and_the_last_one_counts(beamline: Any, data: Path) -> None:
    paused = []

    def pause(count: int) -> Any:
        if count == 3 and not paused:
            paused.append(count)
            yield from bps.pause()
        else:
            yield from bps.null()

    with pytest.raises(RunEngineInterrupted):
        beamline.measure(GROUPS, hook=pause)
    beamline.engine.resume()
    (found,) = verify(data)
    assert found.missing == []
    assert found.repeated == [KEYS[1]]
    assert found.accepted[KEYS[1]].frame_number == 2
    assert np.all(found.accepted[KEYS[1]].read()[0, 0] == 3000)


def test_series_are_kept_apart_and_found_by_their_first_letters(beamline: Any, data: Path) -> None:
    beamline.measure(GROUPS, series="abc")
    beamline.measure(GROUPS[:1], series="abd")
    assert [found.uid for found in verify(data)] == ["abc", "abd"]
    assert [found.planned for found in verify(data, "abd")] == [2]
    with pytest.raises(UnknownSeriesError, match="known are: abc, abd"):
        verify(data, "ab")
    beamline.measure(GROUPS[:1], series="abc")
    with acquisition_lease(data):
        beamline.measure([GROUPS[1], GROUPS[0]], series="abd")
        assert [entry["uid"] for entry in series_status(data)["series"]] == ["abc", "abd"]
        assert series_status(data, "abd")["series"][0]["state"] == "complete"
    with pytest.raises(UnknownSeriesError, match="no such series"):
        verify(data, "x")


def test_nothing_measured_is_nothing_to_tell(data: Path) -> None:
    assert series_status(data) == {"series": []}
    assert verify(data) == []
    assert list_runs(data) == []

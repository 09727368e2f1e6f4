"""What is said of a data folder: done, missing, repeated, damaged, and what comes next."""

import json
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from bluesky.utils import FailedStatus, RunEngineInterrupted

from mistral_txm.devices.key import Key
from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.journal import journal_files, read_journal
from mistral_txm.services.lease import acquisition_lease
from mistral_txm.services.runs import list_runs
from mistral_txm.services.verification import (
    UnknownSeriesError,
    read_series,
    series_states,
    series_status,
    verify,
)

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
    with acquisition_lease(data):  # somebody measures there, but not this series
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


def test_rejected_keys_are_missing_until_they_are_taken_again(beamline: Any, data: Path) -> None:
    beamline.measure(GROUPS)
    beamline.reject(KEYS[1:3])
    (found,) = verify(data)
    assert (found.missing, found.rejected, found.repeated) == (KEYS[1:3], KEYS[1:3], [])
    assert (found.planned, found.frames_read, len(found.accepted)) == (5, 6, 3)
    assert found.done == {KEYS[0], KEYS[3], KEYS[4]}
    (state,) = series_states(data)
    assert (state.missing, state.rejected, state.state) == (2, 2, "interrupted")
    with acquisition_lease(data):  # at a prompt that stays open nothing of it is being taken
        assert series_states(data)[0].state == "interrupted"
    assert state.next == "phi 0 deg, theta -10 deg, helicity +1, repeat 2"

    beamline.measure(GROUPS, keys=KEYS[1:2])
    (found,) = verify(data)
    assert (found.missing, found.rejected, found.repeated) == ([KEYS[2]], [KEYS[2]], [KEYS[1]])
    assert np.all(found.accepted[KEYS[1]].read()[0, 0] == 7000)
    assert read_series(data)[0].rejections == 1
    assert len(read_series(data)[0].runs) == 2


def test_waived_keys_are_done_but_not_planned(beamline: Any, data: Path) -> None:
    def stop_early(count: int) -> Any:
        if count == 4:
            yield from beamline.say("note", "signal to noise of 12.5 reached")
            yield from beamline.waive(0.0, -10.0, -1, 1)

    uid = beamline.measure(GROUPS, hook=stop_early, keys=[*KEYS[:3], KEYS[4]])
    (found,) = verify(data)
    assert (found.missing, found.waived) == ([], [KEYS[3]])
    assert found.planned == len(found.accepted) == 4
    assert found.done == frozenset(KEYS)
    summary = found.summary()
    assert (summary["waived"], summary["waived_keys"]) == (1, [[0.0, -10.0, -1, 1]])
    (state,) = series_status(data)["series"]
    assert list(state) == [
        "uid", "planned", "accepted", "missing", "repeated", "damaged", "state", "next",
    ]  # fmt: skip
    assert (state["planned"], state["accepted"], state["missing"]) == (4, 4, 0)
    assert state["state"] == "complete"
    run = RunExposures.of(read_journal(data / "journal" / f"{uid}.jsonl"))
    assert [(one.kind, one.text) for one in run.log] == [
        ("note", "signal to noise of 12.5 reached")
    ]


def test_the_exposure_before_a_damaged_one_counts(beamline: Any, data: Path) -> None:
    beamline.measure(GROUPS)
    beamline.measure(GROUPS, keys=KEYS[4:])
    _, later = sorted(
        (data / "frames").glob("0.0_0.0_-1-*"), key=lambda path: path.stat().st_mtime_ns
    )
    damage(later)
    (found,) = verify(data)
    assert (found.missing, found.repeated, len(found.damaged)) == ([], [KEYS[4]], 1)
    assert np.all(found.accepted[KEYS[4]].read()[0, 0] == 5000)


def interleaved(beamline: Any) -> Any:
    """A plan of two series, an exposure of the one and of the other in turn; ends with both runs open."""
    camera = beamline.camera

    def run_of(series: str, number: int) -> Any:
        md = {"series": series, "planned_keys": [[0.0, 0.0, 1, 2]], "phi_deg": 0.0}
        if number == 0:
            yield from bps.open_run(md | {"plan_name": "vector_tomography"})
        camera.open_file(f"{series}-{number}.h5")
        camera.key = dict(
            zip(
                ("key_phi_deg", "key_theta_deg", "key_helicity", "key_repeat"),
                (0.0, 0.0, 1, number),
                strict=True,
            )
        )
        yield from bps.trigger_and_read([camera], name="primary")

    for number in (0, 1):
        for series in ("iron", "cobalt"):
            yield from bpp.set_run_key_wrapper(run_of(series, number), run=series)
            if (series, number) == ("cobalt", 0):
                yield from bps.pause()
    for series in ("iron", "cobalt"):
        yield from bpp.set_run_key_wrapper(bps.close_run(), run=series)


def test_two_runs_open_at_once_are_two_series_being_measured(beamline: Any, data: Path) -> None:
    uid = beamline.measure(GROUPS, keys=KEYS[:1])
    journal = data / "journal" / f"{uid}.jsonl"  # of a process that was killed
    header, *lines, _ = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([json.dumps(json.loads(header) | {"pid": 1}) + "\n", *lines]))
    with acquisition_lease(data):
        assert series_states(data)[0].state == "running"
        with pytest.raises(RunEngineInterrupted):
            beamline.engine(interleaved(beamline))
        states = {state.uid: state for state in series_states(data)}
        assert {uid: state.state for uid, state in states.items()} == {
            "a-series": "interrupted",
            "iron": "running",
            "cobalt": "running",
        }
        assert {states[uid].accepted for uid in ("iron", "cobalt")} == {1}
        beamline.engine.resume()
    found = {series.uid: series for series in verify(data)}
    assert found["iron"].missing == found["cobalt"].missing == []
    crcs = [one.crc32 for uid in ("iron", "cobalt") for one in found[uid].accepted.values()]
    assert len(set(crcs)) == 4


def test_a_rejection_is_listed_with_its_reason(beamline: Any, data: Path) -> None:
    beamline.measure(GROUPS, md={"energy_ev": 707.4})
    beamline.reject(KEYS[:2], reason="the film slipped")
    measured, rejection = list_runs(data)
    assert (measured.energy_ev, measured.rejected, measured.reason) == (707.4, 0, "")
    assert (rejection.plan_name, rejection.series) == ("reject", "a-series")
    assert (rejection.rejected, rejection.reason) == (2, "the film slipped")
    assert (rejection.exposures, rejection.energy_ev, rejection.exit_status) == (0, None, "success")


def test_a_rejection_alone_is_no_series_to_resume(beamline: Any, data: Path) -> None:
    beamline.reject(KEYS[:2], series="unknown")
    assert series_status(data) == {"series": []}
    beamline.measure(GROUPS)
    beamline.measure(GROUPS[:1], series="newest")
    beamline.reject(KEYS[:2])
    assert [state.uid for state in series_states(data)] == ["a-series", "newest"]


def test_a_series_is_found_by_its_whole_uid_though_another_begins_so(
    beamline: Any, data: Path
) -> None:
    beamline.measure(GROUPS, series="abc")
    beamline.measure(GROUPS, series="abcd")
    assert [found.uid for found in verify(data, "abc")] == ["abc"]

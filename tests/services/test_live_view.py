"""What the monitor sees: good files, no files, damaged files, files that are replaced."""

import json
import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from mistral_txm.reconstruction.volume_file import Volume, write_volume
from mistral_txm.services import live_view
from mistral_txm.services.journal import JournalWriter
from mistral_txm.services.lease import acquisition_lease
from mistral_txm.services.live_files import read_pair, read_status, stale_s
from mistral_txm.services.live_view import LiveView
from mistral_txm.services.monitor_progress import Place
from mistral_txm.services.monitor_words import head_html

SERIES = "a-series"
GROUPS = [[0.0, -30.0, 1, 2], [0.0, -30.0, -1, 2], [102.0, -30.0, 1, 2], [102.0, -30.0, -1, 2]]


def put(path: Path, text: str) -> None:
    """Replace a file as the live reconstruction does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    os.replace(temporary, path)


def put_volume(path: Path, value: float) -> None:
    m = np.full((2, 3, 4), value, dtype=np.float32)
    write_volume(path, Volume(m, m, m, 10.5, method="art", prior="none", delta_per_nm=0.002))


def put_pair(path: Path, value: float) -> None:
    with h5py.File(path, "w") as file:
        for name in ("frame_vu", "absorption_vu", "dichroic_vu"):
            file[name] = np.full((3, 4), value)
        file.attrs.update({"phi_deg": 102.0, "theta_deg": -31.5, "helicity": -1})


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "live" / SERIES
    folder.mkdir(parents=True)
    return folder


class Run:
    """Documents of a run of one angle, with frames in one file, into a journal."""

    def __init__(
        self, data: Path, uid: str = "run-1", started_at: float = 1000.0, series: str = SERIES
    ) -> None:
        self.path = data / "frames.h5"
        self.frames = np.arange(8 * 12, dtype="<u2").reshape(8, 3, 4)
        with h5py.File(self.path, "w") as file:
            file["frames"] = self.frames
        self.uid = uid
        self.journal = JournalWriter(data / "journal")
        start = {"uid": uid, "time": started_at, "series": series, "planned_keys": GROUPS}
        self.journal("start", start | {"sample": {"name": "a film"}})
        descriptor = {"uid": "d", "name": "primary", "run_start": uid}
        self.journal("descriptor", descriptor | {"data_keys": {"key_phi_deg": {}}})
        resource = {"uid": "r", "run_start": uid, "uri": f"file://localhost{self.path}"}
        self.journal("stream_resource", resource | {"parameters": {"dataset": "frames"}})

    def expose(self, number: int, time_s: float, helicity: int, repeat: int) -> None:
        numbers = {"start": number + 1, "stop": number + 2}
        datum = {"uid": f"s{number}", "stream_resource": "r", "descriptor": "d"}
        indices = {"start": number, "stop": number + 1}
        self.journal("stream_datum", datum | {"indices": indices, "seq_nums": numbers})
        data = {
            "key_phi_deg": 0.0,
            "key_theta_deg": -30.0,
            "key_helicity": helicity,
            "key_repeat": repeat,
            "theta": -30.0,
            "polarization": helicity,
            "ccd_frame_number": number,
            "ccd_frame_crc32": zlib.crc32(self.frames[number].tobytes()),
            "ccd_exposure_s": 1.0,
            "ring_current": 200.0,
            "ccd_saturated_fraction": 0.0,
        }
        event = {"uid": f"e{number}", "descriptor": "d", "seq_num": number + 1, "time": time_s}
        self.journal("event", event | {"data": data})


class Log:
    """What is noted in a run."""

    def __init__(self, journal: JournalWriter, run_uid: str) -> None:
        self.journal, self.uid, self.count = journal, f"log of {run_uid}", 0
        descriptor = {"uid": self.uid, "name": "log", "run_start": run_uid}
        journal("descriptor", descriptor | {"data_keys": {"log_text": {}}})

    @classmethod
    def of_its_own(cls, journal: JournalWriter, uid: str, started_at: float) -> "Log":
        """Note it in a run that belongs to no series, as questions are."""
        journal("start", {"uid": uid, "time": started_at, "plan_name": "turn_sample"})
        return cls(journal, uid)

    def say(self, time_s: float, kind: str, text: str) -> None:
        self.count += 1
        event = {"uid": f"{self.uid} {self.count}", "descriptor": self.uid, "time": time_s}
        data = {"log_kind": kind, "log_text": text}
        self.journal("event", event | {"seq_num": self.count, "data": data})


def followed(view: LiveView, until) -> None:
    """Wait until the journal's documents have arrived."""
    for _ in range(200):
        if until(view.snapshot):
            return
        view._stop.wait(0.01)
    pytest.fail(f"not seen within 2 s: {view.snapshot}")


def test_an_empty_folder_shows_nothing_and_no_problem(tmp_path):
    snapshot = LiveView(tmp_path / "not there").look()
    assert snapshot.progress is None
    assert snapshot.volume is None
    assert not snapshot.status
    assert not snapshot.problems


def test_the_newest_files_are_shown(tmp_path, folder):
    view = LiveView(tmp_path)
    put(folder / "status.json", json.dumps({"state": "following", "angles_done": 3}))
    put_pair(folder / "pair.h5", 0.25)
    put_volume(folder / "volume.h5", 0.5)
    snapshot = view.look()
    assert snapshot.status["angles_done"] == 3
    assert snapshot.pair.theta_deg == -31.5
    assert snapshot.volume.field.m_czyx.max() == 0.5
    assert view.look().volume is snapshot.volume
    put_volume(folder / "volume.h5", 0.75)
    assert view.look().volume.field.m_czyx.max() == 0.75
    assert view.look().pair is snapshot.pair


@pytest.mark.parametrize("name", ["status.json", "pair.h5", "volume.h5"])
@pytest.mark.parametrize("content", ["", "garbage", "[1]", "\x89HDF\r\n\x1a\n cut"])
def test_a_damaged_file_leaves_the_last_good_content(tmp_path, folder, name, content):
    view = LiveView(tmp_path)
    put(folder / "status.json", json.dumps({"state": "following"}))
    put_pair(folder / "pair.h5", 0.25)
    put_volume(folder / "volume.h5", 0.5)
    good = view.look()
    put(folder / name, content)
    snapshot = view.look()
    assert (snapshot.status, snapshot.pair, snapshot.volume) == (
        good.status,
        good.pair,
        good.volume,
    )
    (problem,) = snapshot.problems
    assert name in problem
    assert "\n" not in problem
    (folder / name).unlink()
    assert view.look().volume is good.volume


def test_progress_is_told_from_the_journal(tmp_path):
    run = Run(tmp_path, started_at=1000.0)
    with LiveView(tmp_path, poll_s=0.01) as view:
        followed(view, lambda snapshot: snapshot.progress is not None)
        assert view.snapshot.progress.planned == 8
        assert view.snapshot.progress.ends_at(1000.0) is None
        run.expose(0, 1010.0, +1, 0)
        run.expose(1, 1020.0, +1, 1)
        followed(view, lambda snapshot: snapshot.progress.taken == 2)
        assert view.snapshot.progress.ends_at(1022.0) == pytest.approx(1080)
        assert view.snapshot.progress.ends_at(1036.0) == pytest.approx(1086)  # the third is late
        assert view.snapshot.progress.place == Place(1, 2, 1, 1, 2)
        followed(
            view,
            lambda snapshot: snapshot.frame_vu is not None and snapshot.frame_vu[0, 0] == 12,
        )
        assert np.array_equal(view.snapshot.frame_vu, run.frames[1])
        run.journal("stop", {"uid": "stop", "run_start": run.uid, "exit_status": "abort"})
        followed(view, lambda snapshot: snapshot.progress.state == "abort")
        assert view.snapshot.progress.ends_at(1022.0) is None


def test_a_run_that_pauses_says_why_until_it_goes_on(tmp_path):
    run = Run(tmp_path)
    run.expose(0, 1010.0, +1, 0)
    log = Log(run.journal, run.uid)
    with LiveView(tmp_path, poll_s=0.01) as view:
        log.say(1011.0, "pause", "the shutter sticks")
        followed(view, lambda s: s.progress is not None and s.progress.held is not None)
        assert view.snapshot.progress.held.text == "the shutter sticks"
        assert "paused for 60 s" in head_html(view.snapshot, 1071.0)
        assert "the shutter sticks" in head_html(view.snapshot, 1071.0)
        assert view.snapshot.progress.ends_at(1071.0) is None
        log.say(1080.0, "go_on", "")
        followed(view, lambda s: s.progress.held is None)
        assert [entry.kind for entry in view.snapshot.log] == ["start", "pause", "go_on"]


def test_only_what_goes_on_ends_a_pause(tmp_path):
    """What else is noted meanwhile does not: the shutter that is to close may stick, too."""
    run = Run(tmp_path)
    run.expose(0, 1010.0, +1, 0)
    log = Log(run.journal, run.uid)
    with LiveView(tmp_path, poll_s=0.01) as view:
        followed(view, lambda s: len(s.log) == 1)
        for time_s, kind in ((1011.0, "pause"), (1012.0, "flag"), (1013.0, "note")):
            log.say(time_s, kind, f"the {kind}")
            followed(view, lambda s: len(s.log) == 1 + log.count)
            assert view.snapshot.progress.held.text == "the pause"
        log.say(1014.0, "wait", "no light")
        followed(view, lambda s: s.progress.held.text == "no light")
        run.expose(1, 1020.0, +1, 1)
        followed(view, lambda s: s.progress.held is None)
        log.say(1021.0, "pause", "the jaw sticks")
        followed(view, lambda s: s.progress.held is not None)
        run.journal("stop", {"uid": "stop", "run_start": run.uid, "exit_status": "abort"})
        followed(view, lambda s: s.progress.state == "abort")
        assert view.snapshot.progress.held is None


def health_of(snapshot, name):
    (one,) = (each for each in snapshot.health if each.name == name)
    return one.state


def test_a_question_between_two_runs_is_shown_until_it_is_answered(tmp_path, monkeypatch):
    monkeypatch.setattr(live_view, "_HEALTH_S", 0.0)
    run = Run(tmp_path)
    for number, (helicity, repeat) in enumerate(((1, 0), (1, 1), (-1, 0), (-1, 1))):
        run.expose(number, 1010.0 + number, helicity, repeat)
    run.journal("stop", {"uid": "stop", "run_start": run.uid, "exit_status": "success"})
    text = "turn the sample to phi = 102 deg (it was at 0 deg)"
    with LiveView(tmp_path, poll_s=0.01) as view:
        followed(view, lambda s: s.progress is not None and s.progress.state == "success")
        question = Log.of_its_own(run.journal, "question", 1030.0)
        question.say(1031.0, "ask", text)
        with acquisition_lease(tmp_path):
            followed(view, lambda s: s.held is not None and health_of(s, "acquisition") == "good")
            head = head_html(view.snapshot, 1091.0)
        assert "asks for 60 s" in head
        assert f"‖ asks: {text}" in head
        assert "success" not in head
        assert "measuring" not in head
        assert "broken off" not in head
        assert "4 of 8 exposures" in head
        # While it is open, the process that asks has to be there.
        followed(view, lambda s: health_of(s, "acquisition") == "bad")
        assert "broken off" in head_html(view.snapshot, 1091.0)
        question.say(1100.0, "go_on", "the sample stands at phi = 102 deg")
        followed(view, lambda s: s.held is None)
        assert "success" in head_html(view.snapshot, 1101.0)


@pytest.mark.parametrize("then", ["stop", "run", "question"])
def test_a_question_that_nobody_can_answer_any_more_is_not_shown(tmp_path, then):
    """Its run has ended without an answer, or another one has begun after the process was killed."""
    (tmp_path / "journal").mkdir()
    journal = JournalWriter(tmp_path / "journal")
    with LiveView(tmp_path, poll_s=0.01) as view:
        Log.of_its_own(journal, "question", 900.0).say(901.0, "ask", "turn the sample")
        followed(view, lambda s: s.held is not None)
        assert "‖ asks: turn the sample" in head_html(view.snapshot, 910.0)  # before any series
        if then == "stop":
            end = {"uid": "stop", "run_start": "question", "exit_status": "abort"}
            journal("stop", end)
        elif then == "run":
            Run(tmp_path)
        else:
            Log.of_its_own(journal, "another", 950.0)
        followed(view, lambda s: s.held is None)


def test_a_resumed_series_goes_on_where_it_was(tmp_path):
    """The pace is that of the newest run, between its exposures: four are left, 5 s each."""
    run = Run(tmp_path, "run-1", started_at=1000.0)
    run.expose(0, 1010.0, +1, 0)
    run.expose(1, 1020.0, +1, 1)
    run.journal("stop", {"uid": "stop", "run_start": run.uid, "exit_status": "abort"})
    run = Run(tmp_path, "run-2", started_at=5000.0)
    run.expose(0, 5010.0, -1, 0)
    run.expose(1, 5015.0, -1, 1)
    with LiveView(tmp_path, poll_s=0.01) as view:
        followed(view, lambda s: s.progress is not None and s.progress.taken == 4)
        assert view.snapshot.progress.ends_at(5015.0) == pytest.approx(5035)


def test_a_damaged_frame_is_a_problem_and_no_picture(tmp_path):
    run = Run(tmp_path)
    with h5py.File(run.path, "r+") as file:
        file["frames"][0] = 0
    run.expose(0, 1010.0, +1, 0)
    with LiveView(tmp_path, poll_s=0.01) as view:
        followed(view, lambda snapshot: snapshot.problems)
        assert "newest frame" in view.snapshot.problems[0]
        assert view.snapshot.frame_vu is None


def test_a_run_of_another_plan_is_left_out(tmp_path):
    journal = JournalWriter(tmp_path / "journal")
    journal("start", {"uid": "scan", "time": 900.0, "plan_name": "count"})
    Run(tmp_path)
    with LiveView(tmp_path, poll_s=0.01) as view:
        followed(view, lambda snapshot: snapshot.progress is not None)
        assert view.snapshot.progress.series == SERIES


def test_of_two_runs_open_at_once_the_one_that_began_last_is_shown(tmp_path):
    runs = [Run(tmp_path, "run-1", series="iron"), Run(tmp_path, "run-2", 1001.0, series="cobalt")]
    with LiveView(tmp_path, poll_s=0.01) as view:
        for number in range(3):
            for run in runs:
                run.expose(number, 1010.0 + number, +1, number)
        followed(view, lambda s: s.progress is not None and s.progress.taken == 2)
        assert view.snapshot.progress.series == "cobalt"
        assert view.snapshot.progress.state == "measuring"
        assert view.snapshot.problems == ()


def test_rejected_exposures_are_not_counted_and_their_series_does_not_come_to_the_front(tmp_path):
    old = Run(tmp_path, "run-1", series="old")
    old.expose(0, 1010.0, +1, 0)
    old.journal("stop", {"uid": "stop", "run_start": old.uid, "exit_status": "success"})
    run = Run(tmp_path, "run-2", started_at=2000.0)
    run.expose(0, 2010.0, +1, 0)
    run.expose(1, 2020.0, +1, 1)

    def reject(uid, series):
        start = {"uid": uid, "time": 3000.0, "plan_name": "reject", "series": series}
        run.journal("start", start | {"rejected_keys": [[0.0, -30.0, 1, 0]], "reason": "blurred"})
        run.journal("stop", {"uid": f"{uid}-stop", "run_start": uid, "exit_status": "success"})

    with LiveView(tmp_path, poll_s=0.01) as view:
        followed(view, lambda s: s.progress is not None and s.progress.taken == 2)
        reject("reject-1", SERIES)
        followed(view, lambda s: s.progress.taken == 1)
        assert view.snapshot.progress.planned == 8
        reject("reject-2", "old")
        followed(view, lambda s: view._series["old"].rejections == 1)
        assert view.look().progress.series == SERIES


def test_a_pair_that_holds_no_images_is_refused(tmp_path):
    path = tmp_path / "pair.h5"
    put_pair(path, 1.0)
    assert read_pair(path).helicity == -1
    with h5py.File(path, "r+") as file:
        del file["dichroic_vu"]
    with pytest.raises(ValueError, match="dichroic_vu"):
        read_pair(path)
    with h5py.File(path, "r+") as file:
        file["dichroic_vu"] = np.zeros(5)
    with pytest.raises(ValueError, match="expected images"):
        read_pair(path)


def test_a_status_is_an_object(tmp_path):
    path = tmp_path / "status.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="no JSON object"):
        read_status(path)


@pytest.mark.parametrize(
    ("status", "stale"),
    [
        ({"state": "following", "updated_at": 990.0, "update_s": 1.0}, None),
        ({"state": "following", "updated_at": 900.0, "update_s": 1.0}, 100.0),
        ({"state": "following", "updated_at": 900.0, "update_s": 60.0}, None),
        ({"state": "following"}, float("inf")),
        ({"state": "following", "updated_at": "yesterday"}, float("inf")),
        ({"state": "waiting", "updated_at": 900.0}, 100.0),
        ({"state": "error", "updated_at": 900.0}, 100.0),
        ({"state": "complete", "updated_at": 0.0}, None),
        ({}, None),
    ],
)
def test_when_a_status_is_stale(status, stale):
    assert stale_s(status, 1000.0) == stale

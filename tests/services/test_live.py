"""The live reconstruction on documents and frames of a film whose magnetization is known."""

import gc
import json
import random
import shutil
import threading
import time

import h5py
import numpy as np
import pytest

from mistral_txm.devices.advice_file import ADVICE
from mistral_txm.reconstruction import Grid, TiltSeries, read_aligned, read_volume
from mistral_txm.reconstruction import reconstruct as solve
from mistral_txm.services import live, live_series, live_volumes
from mistral_txm.services.aligned_files import process
from mistral_txm.services.angle_signals import AngleSignals
from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.journal import follow, read_journal
from mistral_txm.services.lease import acquisition_lease
from mistral_txm.services.live import LiveReconstruction
from mistral_txm.services.live_files import LIVE, PAIR, STATUS, VOLUME, read_pair, read_status
from mistral_txm.services.live_series import LiveSeries
from mistral_txm.services.live_volumes import VolumeMaker
from mistral_txm.services.processing import Processor
from mistral_txm.services.series_exposures import SeriesExposures


@pytest.fixture
def series(tmp_path, written_series):
    """Two azimuths, two tilts each, two repeats."""
    return written_series(tmp_path, tilts_deg=(-30.0, 20.0))


@pytest.fixture
def short(tmp_path, written_series):
    """One azimuth, two tilts."""
    return written_series(tmp_path, azimuths_deg=(0.0,), tilts_deg=(-30.0, 20.0))


def feed(follower, documents):
    uid = documents[0][1]["uid"]
    for name, doc in documents:
        follower.add(uid, name, doc)


def status_of(series):
    return read_status(series.data / LIVE / series.uid / STATUS)


def volume_bytes(series):
    return (series.data / LIVE / series.uid / VOLUME).read_bytes()


def reconstruct(series, *runs):
    """Make the volume in one go, in a folder of its own; return its bytes."""
    data = series.data / "undisturbed"
    shutil.rmtree(data, ignore_errors=True)
    follower = LiveReconstruction(data)
    for documents in runs:
        feed(follower, documents)
    follower.update()
    return (data / LIVE / series.uid / VOLUME).read_bytes()


def index_of_event(documents, number):
    """Place of the primary Event of that number, from 1."""
    (start, *_) = [doc["uid"] for name, doc in documents if name == "start"]
    return next(
        place
        for place, (name, doc) in enumerate(documents)
        if name == "event" and doc["uid"] == f"{start}-primary-{number}"
    )


def test_the_volume_is_that_of_the_film(series):
    follower = LiveReconstruction(series.data)
    feed(follower, series.run(0.0))
    feed(follower, series.run(102.0))
    follower.update()
    status = status_of(series)
    assert status["state"] == "complete"
    assert (status["angles_done"], status["angles_planned"]) == (4, 4)
    assert (status["frames_seen"], status["frames_planned"], status["lag_frames"]) == (16, 16, 0)
    assert status["singularities"] == []
    assert status["prior"] == "layers"
    volume = read_volume(series.data / LIVE / series.uid / VOLUME)
    assert volume.mx.shape == (8, 48, 48)
    middle = np.s_[:, 8:-8, 8:-8]
    found = [part[middle].mean() for part in (volume.mx, volume.my, volume.mz)]
    expected = np.multiply(series.DELTA_PER_NM, series.MAGNETIZATION)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05 * series.DELTA_PER_NM)
    pair = read_pair(series.data / LIVE / series.uid / PAIR)
    assert (pair.phi_deg, pair.theta_deg) == (102.0, 20.0)
    assert [(one["phi_deg"], one["theta_deg"]) for one in status["views"]] == [
        (0.0, -30.0), (0.0, 20.0), (102.0, -30.0), (102.0, 20.0),
    ]  # fmt: skip
    assert all(one["repeats"] == {"+1": 2, "-1": 2} for one in status["views"])
    # The standard deviation that is stated of a pixel, against the scatter of an even film.
    scatter = pair.dichroic_vu.std()
    assert status["views"][-1]["noise"] == pytest.approx(scatter, rel=0.1)
    assert status["flags"] == []
    assert status["advice"]["text"].startswith("all angles are there")
    advice = json.loads((series.data / LIVE / series.uid / ADVICE).read_text())
    assert (advice["flags"], advice["reached"]) == ([], False)
    # The standard deviation of a pixel is 0.008 or less, of the mean of 48 x 48 a 48th of that.
    assert pair.dichroic_vu.mean() == pytest.approx(series.dichroic(102.0, 20.0), abs=8e-4)
    assert pair.absorption_vu.mean() == pytest.approx(series.absorption(20.0), abs=8e-4)


def test_an_angle_is_finished_with_the_last_planned_repeat_of_the_second_helicity(short):
    documents = short.run(0.0)
    uid = documents[0][1]["uid"]
    last = index_of_event(documents, 4)  # two repeats of +1, two of -1
    follower = LiveReconstruction(short.data)
    for name, doc in documents[:last]:
        follower.add(uid, name, doc)
        follower.update()
        assert status_of(short)["state"] == "waiting"
        assert not (short.data / LIVE / short.uid / VOLUME).exists()
    follower.add(uid, *documents[last])
    follower.update()
    status = status_of(short)
    assert (status["state"], status["angles_done"], status["updates"]) == ("following", 1, 1)
    assert status["message"].startswith(
        "1 of 2 angles in the volume; not aligned: fewer than 3 views"
    )
    assert status["alignment"]["aligned"] is False


def test_angles_that_finish_together_are_one_update(series):
    follower = LiveReconstruction(series.data)
    feed(follower, series.run(0.0))
    follower.update()
    feed(follower, series.run(102.0))
    follower.update()
    follower.update()
    assert status_of(series)["updates"] == 2


def test_documents_that_come_twice_change_nothing(short):
    documents = short.run(0.0)
    follower = LiveReconstruction(short.data)
    uid = documents[0][1]["uid"]
    for name, doc in documents:
        follower.add(uid, name, doc)
        follower.add(uid, name, doc)
    follower.update()
    once = volume_bytes(short)
    feed(follower, documents)
    follower.update()
    assert status_of(short)["updates"] == 1
    assert once == volume_bytes(short) == reconstruct(short, documents)


def test_journal_lines_out_of_order_and_twice_give_the_same_volume(short):
    documents = short.run(0.0)
    path = short.record(documents)
    header, *lines = path.read_text().splitlines(keepends=True)
    lines += lines[5:20]
    random.Random(3).shuffle(lines)
    path.write_text(header + "".join(lines))
    follower = LiveReconstruction(short.data)
    feed(follower, list(read_journal(path)))
    follower.update()
    assert volume_bytes(short) == reconstruct(short, documents)


def test_killed_and_started_again_it_arrives_at_the_same_volume(series):
    documents = series.run(0.0)
    series.record(documents)
    first = LiveReconstruction(series.data)
    for name, doc in documents[:-6]:
        first.add("written-run1", name, doc)
    first.update()
    rest = series.run(102.0)
    series.record(rest)
    stop = threading.Event()
    second, left = LiveReconstruction(series.data), len(documents) + len(rest)
    for entry in follow(series.data / "journal", stop, 0.001):
        second.add(*entry)
        left -= 1
        if not left:
            stop.set()
    second.update()
    assert status_of(series)["state"] == "complete"
    assert volume_bytes(series) == reconstruct(series, documents, rest)


def test_a_history_goes_on_after_a_restart(series):
    """One entry for each volume; what is compared with the volume before begins anew."""
    first, second = series.run(0.0), series.run(102.0)
    feed(follower := LiveReconstruction(series.data), first)
    follower.update()
    feed(again := LiveReconstruction(series.data), first)
    feed(again, second)
    again.update()
    feed(again, series.run(0.0, keys=[(0.0, 20.0, -1, 1)]))
    again.update()
    entries = status_of(series)["history"]
    assert [one["angles"] for one in entries] == [2, 4, 4]
    assert [one["change"] is None for one in entries] == [True, True, False]
    assert len(status_of(series)["views"]) == 4
    # The frames of the documents are older than the process: nobody waited for their volume.
    assert all(one["latency_s"] is None for one in entries)


def test_while_it_catches_up_it_says_how_far_it_is_and_the_volume_stays(series, monkeypatch):
    runs = [series.run(0.0), series.run(102.0)]
    feed(first := LiveReconstruction(series.data), runs[0])
    first.update()
    before, told, write = status_of(series), [], live_series.write_status

    def recorded(path, status):
        write(path, status)
        told.append(status)

    monkeypatch.setattr(live_series, "write_status", recorded)
    monkeypatch.setattr(live_series, "TOLD_S", 0.0)
    second = LiveReconstruction(series.data)
    for documents in runs:
        feed(second, documents)
    second.update()
    reading = [one for one in told if str(one.get("message", "")).startswith("catching up")]
    assert [one["message"] for one in reading] == [
        f"catching up: {number} of 4 angles read" for number in range(4)
    ]
    assert all(one["views"] == before["views"] for one in reading)
    assert all(one["residual"] == before["residual"] for one in reading)
    assert told[-1] is not reading[-1]
    assert (status_of(series)["state"], len(status_of(series)["views"])) == ("complete", 4)


def test_a_provisional_volume_comes_before_that_of_the_whole_solution(series, monkeypatch):
    published = []
    write = live_series.write_volume

    def recorded(path, volume):
        write(path, volume)
        published.append((len(np.concatenate([one.theta_deg for one in volume.residuals])), volume))

    monkeypatch.setattr(live_series, "write_volume", recorded)
    documents = series.run(0.0)
    uid = documents[0][1]["uid"]
    follower = LiveReconstruction(series.data)
    for name, doc in documents:
        follower.add(uid, name, doc)
        follower.update()
    assert [angles for angles, _ in published] == [1, 2, 2]
    assert [one.options.get("provisional", False) for _, one in published] == [False, True, False]
    status = status_of(series)
    assert (status["provisional"], status["updates"], len(status["history"])) == (False, 2, 2)
    before, followed, whole = (one.m_czyx for _, one in published)
    size = np.linalg.norm(whole)
    assert np.linalg.norm(followed - whole) < 0.5 * np.linalg.norm(before - whole)
    assert np.linalg.norm(followed - whole) < 0.2 * size


def test_live_ends_with_the_volume_of_all_data_at_once(series, tmp_path):
    """Angle by angle here; there in one go from the journal, and from the files of `mistral-txm process`."""
    runs = [series.run(0.0), series.run(102.0)]
    follower = LiveReconstruction(series.data)
    for documents in runs:
        series.record(documents)
        for name, doc in documents:
            follower.add(documents[0][1]["uid"], name, doc)
            follower.update()
    assert status_of(series)["updates"] == 4
    grown = read_volume(series.data / LIVE / series.uid / VOLUME)
    exposures = SeriesExposures(runs[0][0][1])
    for documents in runs:
        exposures.add_run(RunExposures.of(documents))
    processor = Processor(65535.0, series.PIXEL_NM)
    signals = [processor.signals(angle) for angle in reversed(exposures.finished().values())]
    (whole,) = (one.volume for one in VolumeMaker(series.PIXEL_NM, grown.layers_nm).make(signals))
    size = np.abs(whole.m_czyx).max()
    np.testing.assert_allclose(grown.m_czyx, whole.m_czyx, rtol=0, atol=1e-5 * size)
    # The files hold one standard deviation a view, not one a pixel: the noise is weighted a little otherwise.
    written = process([series.uid], tmp_path / "out.h5", series.data)
    views = [read_aligned(path) for path in written.paths]
    tilted = [TiltSeries(one.phi_deg, one.theta_deg, one.dichroic_tvu, one.std_t) for one in views]
    grid = Grid(grown.mx.shape, grown.voxel_nm)
    solved = solve(tilted, grid, method="direct", prior="layers", layers_nm=grown.layers_nm)
    assert np.std(grown.m_czyx - solved.m_czyx) < 0.05 * np.std(solved.m_czyx)


def test_a_resumed_angle_takes_its_repeats_from_both_runs(short):
    keys = [(0.0, -30.0, 1, 0), (0.0, -30.0, 1, 1), (0.0, -30.0, -1, 0)]
    rest = [(0.0, -30.0, -1, 1)]
    rest += [(0.0, 20.0, helicity, repeat) for helicity in (1, -1) for repeat in (0, 1)]
    follower = LiveReconstruction(short.data)
    feed(follower, short.run(0.0, keys=keys, stop=False))
    follower.update()
    assert status_of(short)["angles_done"] == 0
    feed(follower, short.run(0.0, keys=rest))
    follower.update()
    assert status_of(short)["state"] == "complete"
    volume = read_volume(short.data / LIVE / short.uid / VOLUME)
    whole = LiveReconstruction(short.data / "whole")
    feed(whole, short.run(0.0))
    whole.update()
    undisturbed = read_volume(short.data / "whole" / LIVE / short.uid / VOLUME)
    for name in ("mx", "my", "mz"):  # bit for bit: each exposure has the same frame in both
        np.testing.assert_array_equal(getattr(volume, name), getattr(undisturbed, name))


def test_a_damaged_frame_is_named_and_the_other_angles_are_used(short, monkeypatch, caplog):
    documents = short.run(0.0)
    damaged = short.damage(documents)
    follower = LiveReconstruction(short.data)
    feed(follower, documents)
    follower.update()
    status = status_of(short)
    assert (status["state"], status["angles_done"], status["lag_frames"]) == ("error", 1, 4)
    assert damaged.name in status["message"]
    assert "checksum" in status["message"]
    follower.update()
    follower.update()
    assert caplog.text.count(damaged.name) == 1
    with h5py.File(damaged, "r+") as file:  # the storage is back
        file["/entry/data/data"][0] -= 1
    monkeypatch.setattr(live_series, "RETRY_S", 0.0)
    follower.update()
    assert status_of(short)["state"] == "complete"
    assert volume_bytes(short) == reconstruct(short, documents)


def test_a_key_that_was_damaged_and_exposed_again_heals_the_series(short):
    documents = short.run(0.0)
    short.damage(documents, 1)
    follower = LiveReconstruction(short.data)
    feed(follower, documents)
    follower.update()
    assert status_of(short)["state"] == "error"
    feed(follower, short.run(0.0, keys=[(0.0, 20.0, -1, 1)]))
    follower.update()
    assert status_of(short)["state"] == "complete"


def test_a_key_whose_second_exposure_is_damaged_uses_the_first(short, monkeypatch):
    first = short.run(0.0)
    again = short.run(0.0, keys=[(0.0, 20.0, -1, 1)])
    damaged = short.damage(again)
    feed(follower := LiveReconstruction(short.data), first)
    feed(follower, again)
    follower.update()
    assert status_of(short)["state"] == "complete"
    # The darks and flats are of the run that finished the angle, here as if the second had not been.
    assert volume_bytes(short) == reconstruct(short, first)
    with h5py.File(damaged, "r+") as file:  # the storage is back
        file["/entry/data/data"][0] -= 1
    monkeypatch.setattr(live_series, "RETRY_S", 0.0)
    follower.update()
    assert volume_bytes(short) == reconstruct(short, first, again)


def test_a_rejected_angle_leaves_the_volume_until_it_is_taken_again(series):
    first, other = series.run(0.0), series.run(102.0)
    rejected = [(0.0, 20.0, -1, 1)]
    rejection, again = series.reject(rejected), series.run(0.0, keys=rejected)
    follower = LiveReconstruction(series.data)
    for documents in (first, other):
        feed(follower, documents)
    follower.update()
    whole = volume_bytes(series)
    feed(follower, rejection)
    follower.update()
    status = status_of(series)
    assert (status["state"], status["angles_done"], status["frames_seen"]) == ("following", 3, 15)
    assert status["lag_frames"] == 15 - 3 * 4
    assert volume_bytes(series) == reconstruct(series, first, other, rejection) != whole
    feed(follower, again)
    follower.update()
    assert status_of(series)["state"] == "complete"
    assert volume_bytes(series) == reconstruct(series, first, other, rejection, again)


def test_the_pair_of_a_rejected_angle_makes_way_for_the_one_before(short):
    documents = short.run(0.0)
    feed(follower := LiveReconstruction(short.data), documents)
    follower.update()
    assert read_pair(short.data / LIVE / short.uid / PAIR).theta_deg == 20.0
    feed(follower, short.reject([(0.0, 20.0, 1, 0)]))
    follower.update()
    assert read_pair(short.data / LIVE / short.uid / PAIR).theta_deg == -30.0
    assert status_of(short)["theta_deg"] == -30.0


def test_without_any_angle_left_there_is_no_volume(short):
    documents = short.run(0.0)
    feed(follower := LiveReconstruction(short.data), documents)
    follower.update()
    feed(follower, short.reject([(0.0, theta, 1, 0) for theta in (-30.0, 20.0)]))
    follower.update()
    status = status_of(short)
    assert (status["state"], status["angles_done"], status["theta_deg"]) == ("waiting", 0, None)
    assert not (short.data / LIVE / short.uid / VOLUME).exists()
    feed(follower, short.run(0.0))
    follower.update()
    assert status_of(short)["state"] == "complete"


def test_a_rejection_after_the_end_is_taken_up_by_a_process_that_starts_later(short):
    documents, rejection = short.run(0.0), short.reject([(0.0, 20.0, 1, 0)])
    feed(first := LiveReconstruction(short.data), documents)
    first.update()
    feed(second := LiveReconstruction(short.data), documents)
    second.update()
    assert status_of(short)["updates"] == 1
    feed(second, rejection)
    second.update()
    assert (status_of(short)["state"], status_of(short)["angles_done"]) == ("following", 1)


def test_a_rejection_in_an_older_series_leaves_the_newer_one_the_newest(short, written_series):
    newer = written_series(short.data, tilts_deg=(-30.0, 20.0), uid="newer")
    follower = LiveReconstruction(short.data)
    for documents in (short.run(0.0), newer.run(0.0)):
        feed(follower, documents)
        follower.update()
    before = kept()
    rejection = short.reject([(0.0, 20.0, 1, 0)])
    rejection[0][1]["time"] = time.time()
    feed(follower, rejection)
    follower.update()
    follower.update()
    assert status_of(short)["angles_done"] == 1
    told_at = status_of(newer)["updated_at"]
    follower.update()
    assert status_of(newer)["updated_at"] > told_at
    assert kept() == before


def test_waived_exposures_are_not_waited_for(short):
    keys = [(0.0, theta, h, 0) for theta in (-30.0, 20.0) for h in (1, -1)]
    waived = [(0.0, theta, h, 1) for theta in (-30.0, 20.0) for h in (1, -1)]
    documents = short.run(0.0, keys=keys, waived=waived)
    feed(follower := LiveReconstruction(short.data), documents)
    follower.update()
    status = status_of(short)
    assert (status["state"], status["frames_seen"], status["frames_planned"]) == ("complete", 4, 4)


def test_jaws_that_stood_elsewhere_are_told(short):
    def jaws(stream, data):
        if stream == "primary" and data["key_theta_deg"] == 20.0 and data["key_helicity"] == 1:
            data["polarization"] = 0

    feed(follower := LiveReconstruction(short.data), short.run(0.0, alter=jaws))
    follower.update()
    status = status_of(short)
    assert (status["state"], status["angles_done"]) == ("following", 1)
    assert status["message"].startswith(
        "phi 0 deg, theta 20 deg, helicity +1, repeat 1: taken with the jaws elsewhere"
    )


def test_two_runs_open_at_once_are_two_volumes(short, written_series):
    other = written_series(short.data, azimuths_deg=(0.0,), tilts_deg=(-30.0, 20.0), uid="cobalt")
    runs = [short.run(0.0), other.run(0.0)]
    for documents in runs:
        documents[0][1]["edges"] = {"series": "film", "order": "interleaved"}
    follower = LiveReconstruction(short.data)
    for entries in zip(*runs, strict=True):
        for documents, (name, doc) in zip(runs, entries, strict=True):
            follower.add(documents[0][1]["uid"], name, doc)
    follower.update()
    assert status_of(short)["state"] == status_of(other)["state"] == "complete"
    assert volume_bytes(short) == reconstruct(short, runs[0])


def kept():
    """How many signals are in memory."""
    # by its type itself: a weak proxy of something gone, which other tests leave, cannot be asked for its class
    return sum(type(each) is AngleSignals for each in gc.get_objects())


@pytest.mark.parametrize("while_it_ran", [False, True])
def test_the_measurement_that_goes_on_does_not_wait_for_those_before(
    short, written_series, while_it_ran
):
    """What ended before live began waits for a pause; one whose end came with the next one's start does not."""
    keys = [(0.0, -30.0, helicity, repeat) for helicity in (1, -1) for repeat in (0, 1)]
    killed = short.run(0.0, keys=keys, stop=False)
    other = written_series(short.data, azimuths_deg=(0.0,), tilts_deg=(-30.0, 20.0), uid="cobalt")
    follower = LiveReconstruction(short.data)
    if while_it_ran:
        killed[-1][1]["time"] = time.time()
    feed(follower, killed)
    feed(follower, other.run(0.0, stop=False))
    before = kept()
    with acquisition_lease(short.data):
        follower.update()
        assert status_of(other)["angles_done"] == 2
        of_one = kept() - before
        assert not (short.data / LIVE / short.uid / STATUS).exists()
        follower.update()
        assert (short.data / LIVE / short.uid / STATUS).exists() == while_it_ran
    follower.update()
    assert (status_of(short)["state"], status_of(short)["angles_done"]) == ("following", 1)
    assert kept() - before == of_one
    feed(follower, resumed := short.run(0.0, keys=[(0.0, 20.0, h, n) for _, _, h, n in keys]))
    follower.update()
    assert volume_bytes(short) == reconstruct(short, killed, resumed)


def test_a_run_that_does_not_say_what_is_needed_is_named_and_passed_over(
    short, written_series, caplog
):
    other = written_series(short.data, azimuths_deg=(0.0,), tilts_deg=(-30.0, 20.0), uid="cobalt")
    strange = other.run(0.0)
    del strange[0][1]["pixel_nm"]
    follower = LiveReconstruction(short.data)
    feed(follower, strange)
    feed(follower, short.run(0.0))
    follower.update()
    assert status_of(short)["state"] == "complete"
    (line,) = caplog.messages
    assert strange[0][1]["uid"] in line
    assert "'pixel_nm'" in line


def test_where_nothing_can_be_written_it_is_said_once_and_tried_again(short, caplog):
    place = short.data / LIVE / short.uid
    place.parent.mkdir()
    place.write_text("a file where a folder should be")
    follower = LiveReconstruction(short.data)
    feed(follower, short.run(0.0))
    for _ in range(2):
        follower.update()
    assert caplog.text.count(str(place)) == 1
    place.unlink()
    follower.update()
    assert status_of(short)["state"] == "complete"


def test_a_series_that_has_ended_makes_room_for_the_next(short, written_series):
    other = written_series(short.data, azimuths_deg=(0.0,), tilts_deg=(-30.0, 20.0), uid="cobalt")
    documents = short.run(0.0)
    feed(follower := LiveReconstruction(short.data), documents)
    follower.update()
    with_one = kept()
    feed(follower, other.run(0.0))
    follower.update()
    assert kept() == with_one
    published = status_of(short)
    follower.update()
    assert status_of(short) == published
    again = short.run(0.0, keys=[(0.0, 20.0, -1, 1)])
    feed(follower, again)
    follower.update()
    assert status_of(short)["state"] == "complete"
    assert volume_bytes(short) == reconstruct(short, documents, again)
    feed(follower, short.reject([(0.0, theta, 1, 0) for theta in (-30.0, 20.0)]))
    follower.update()
    assert not (short.data / LIVE / short.uid / VOLUME).exists()


def test_a_damaged_frame_in_mid_series_does_not_stop_it(series):
    documents = series.run(0.0)
    series.damage(documents)
    follower = LiveReconstruction(series.data)
    feed(follower, documents)
    follower.update()
    status = status_of(series)
    assert (status["state"], status["angles_done"]) == ("following", 1)
    assert "checksum" in status["message"]


def test_a_volume_that_fails_leaves_the_last_good_one(series, monkeypatch):
    follower = LiveReconstruction(series.data)
    feed(follower, series.run(0.0))
    follower.update()
    good = volume_bytes(series)
    feed(follower, series.run(102.0))
    with monkeypatch.context() as patch:
        solved = live_volumes.reconstruct

        def not_a_number(*arguments, **options):
            result = solved(*arguments, **options)
            result.mx[0, 0, 0] = np.nan
            return result

        patch.setattr(live_volumes, "reconstruct", not_a_number)
        follower.update()
    status = status_of(series)
    assert status["state"] == "error"
    assert status["message"].startswith("no new volume: ")
    assert volume_bytes(series) == good
    monkeypatch.setattr(live_series, "RETRY_S", 0.0)
    follower.update()
    assert status_of(series)["state"] == "complete"
    assert volume_bytes(series) != good


def test_an_angle_without_light_is_left_out(short, monkeypatch):
    lit = short.frame

    def shuttered(stream, key, current_ma):
        closed = stream == "primary" and key[1:3] == (20.0, -1)
        return lit("dark" if closed else stream, key, current_ma)

    monkeypatch.setattr(short, "frame", shuttered)
    follower = LiveReconstruction(short.data)
    feed(follower, short.run(0.0))
    follower.update()
    status = status_of(short)
    assert (status["state"], status["angles_done"]) == ("error", 1)
    assert "theta 20 deg: half of the pixels have no light" in status["message"]


@pytest.mark.parametrize("where", ["an angle", "the series"])
def test_a_fault_of_the_program_ends_nothing(short, written_series, monkeypatch, caplog, where):
    """The angle in which it happens is left out; what concerns a whole series ends no other."""
    other = written_series(short.data, azimuths_deg=(0.0,), tilts_deg=(-30.0, 20.0), uid="cobalt")
    wrong = (Processor, "signals") if where == "an angle" else (LiveSeries, "_tell")
    well, calls = getattr(*wrong), []

    def faulty(self, *arguments, **options):
        calls.append(self)
        if len(calls) == 1:
            [][1]
        return well(self, *arguments, **options)

    monkeypatch.setattr(*wrong, faulty)
    follower = LiveReconstruction(short.data)
    feed(follower, short.run(0.0))
    follower.update()
    (record,) = caplog.records
    assert record.exc_info
    assert "a fault of the program, its log tells where: IndexError" in record.message
    if where == "an angle":
        assert (status_of(short)["state"], status_of(short)["angles_done"]) == ("error", 1)
    monkeypatch.setattr(live_series, "RETRY_S", 0.0)
    follower.update()
    feed(follower, other.run(0.0))
    follower.update()
    assert status_of(short)["state"] == status_of(other)["state"] == "complete"


def test_flats_at_the_end_are_taken_up_once_when_the_run_has_ended(short):
    """The latency of an angle is that of its first volume, not of one that is made again."""
    documents = short.run(0.0, flats_at_end=True)
    uid = documents[0][1]["uid"]
    follower = LiveReconstruction(short.data)
    last = index_of_event(documents, 8)
    for name, doc in documents[:last]:
        follower.add(uid, name, doc)
    documents[last][1]["time"] = time.time()
    follower.add(uid, *documents[last])
    follower.update()
    before = volume_bytes(short)
    for name, doc in documents[last + 1 : -1]:
        follower.add(uid, name, doc)
        follower.update()
    status = status_of(short)
    assert status["updates"] == 1
    assert volume_bytes(short) == before
    assert 0 < status["latency_s"] == status["history"][-1]["latency_s"]
    follower.add(uid, *documents[-1])
    follower.update()
    again = status_of(short)
    assert again["updates"] == 2
    assert again["latency_s"] == status["latency_s"]
    assert volume_bytes(short) == reconstruct(short, documents) != before


def test_a_complete_series_is_left_alone_until_there_is_more_of_it(short):
    documents = short.run(0.0)
    feed(first := LiveReconstruction(short.data), documents)
    first.update()
    before = status_of(short)
    second = LiveReconstruction(short.data)
    for name, doc in documents:
        second.add("written-run1", name, doc)
        second.update()
    assert status_of(short) == before
    feed(second, short.run(0.0, keys=[(0.0, 20.0, -1, 1)]))
    second.update()
    assert status_of(short)["state"] == "complete"
    assert list(status_of(short)["runs"]) == ["written-run1", "written-run2"]


def test_a_series_that_was_asked_for_is_made_again(short):
    documents = short.run(0.0)
    feed(first := LiveReconstruction(short.data), documents)
    first.update()
    feed(again := LiveReconstruction(short.data, series=short.uid), documents)
    again.update()
    assert status_of(short)["updated_at"] > 0
    volume = short.data / LIVE / short.uid / VOLUME
    made = volume.stat().st_mtime_ns
    feed(other := LiveReconstruction(short.data, series="other"), documents)
    other.update()
    assert volume.stat().st_mtime_ns == made


def test_runs_that_are_no_series_are_passed_over(tmp_path):
    follower = LiveReconstruction(tmp_path)
    follower.add("count", "start", {"uid": "count", "plan_name": "count"})
    follower.add("count", "stop", {"run_start": "count"})
    follower.update()
    assert not (tmp_path / LIVE).exists()


def test_the_process_follows_the_journal_and_ends_at_once(short, monkeypatch):
    monkeypatch.setattr(live, "HEARTBEAT_S", 120.0)
    stop = threading.Event()
    thread = threading.Thread(target=live.run, args=(short.data, None, stop))
    thread.start()
    short.record(short.run(0.0))
    deadline_s = time.monotonic() + 120
    path = short.data / LIVE / short.uid / STATUS
    while not (path.exists() and json.loads(path.read_text())["state"] == "complete"):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    stop.set()
    thread.join(live.HEARTBEAT_S / 2)
    assert not thread.is_alive()

"""What the monitor's page is made of: curves, health, cuts, arrows, and what many pages share."""

import json
import math
import socket
import time

import numpy as np
import psutil
import pytest
from bokeh.document import Document

from mistral_txm.services import live_view
from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.fields import Field
from mistral_txm.services.journal import journal_files, read_journal
from mistral_txm.services.lease import acquisition_lease
from mistral_txm.services.live_view import LiveView
from mistral_txm.services.live_volume import LiveVolume
from mistral_txm.services.monitor_curves import (
    exposure_columns,
    flux_points,
    history_columns,
    view_columns,
)
from mistral_txm.services.monitor_health import Pace, health
from mistral_txm.services.monitor_page import Page, Shared
from mistral_txm.services.monitor_scene import MOST_ARROWS, arrows, scene
from tests.services.measured_folder import MeasuredFolder

NOW_S = 2000.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return MeasuredFolder(tmp_path_factory.mktemp("data"))


def test_flux_is_what_the_darks_leave_per_current_and_time(folder):
    (journal,) = journal_files(folder.data / "journal")
    run = RunExposures.of(read_journal(journal))
    points = flux_points([run])
    assert [(one.stream, one.helicity) for one in points] == [("primary", 1), ("primary", -1)]
    assert [one.flux for one in points] == pytest.approx([folder.flux_of(1), folder.flux_of(-1)])
    assert points[-1].time == run.stream("primary")[-1].time


def test_without_darks_there_is_no_flux(folder):
    (journal,) = journal_files(folder.data / "journal")
    documents = [one for one in read_journal(journal) if one[1].get("descriptor") != "dark"]
    assert flux_points([RunExposures.of(documents)]) == ()


def test_curves_leave_open_what_is_not_known():
    status = {
        "views": [{"theta_deg": 3, "drift_vu_pixels": None}, "garbage", {"drift_vu_pixels": [1, "2"]}],
        "history": [{"angles": 2, "resolution_nm": None}],
    }  # fmt: skip
    views = view_columns(status)
    assert np.array_equal(views["theta_deg"], [3, math.nan], equal_nan=True)
    assert np.array_equal(views["drift_v_pixels"], [math.nan, 1], equal_nan=True)
    assert np.array_equal(views["drift_u_pixels"], [math.nan, math.nan], equal_nan=True)
    assert history_columns(status)["angles"] == [2]
    assert math.isnan(history_columns(status)["resolution_nm"][0])


def test_drifts_of_exposures_stand_with_their_helicity():
    first = {"time": 3.0, "helicity": 1, "drift_vu_pixels": None}
    second = {"time": 4.0, "helicity": -1, "drift_vu_pixels": [0.5, -2]}
    columns = exposure_columns({"newest_exposures": [first, "garbage", {"time": None}, second]})
    assert columns["time"] == [3, 4]
    for name, value in (("v_minus", 0.5), ("u_minus", -2)):
        assert np.array_equal(columns[name], [math.nan, value], equal_nan=True)
    assert np.isnan(columns["v_plus"] + columns["u_plus"]).all()


def told(data, status=None, documents=None, pace=None, now_s=NOW_S):
    found = health(data, status or {}, documents or {}, pace or Pace(False, None), now_s)
    return {one.name: (one.state, one.text) for one in found}


def test_an_empty_folder_has_nothing_wrong(tmp_path):
    found = told(tmp_path)
    assert {name for name, (state, _) in found.items() if state == "bad"} == set()
    assert found["acquisition"][0] == "off"


def test_an_acquisition_without_its_helpers_is_told(tmp_path):
    with acquisition_lease(tmp_path):
        assert told(tmp_path, now_s=time.time() + 60)["live"][0] == "off"  # it may still start
        found = told(tmp_path, now_s=time.time() + 600)
    assert found["acquisition"][0] == "good"
    assert f"on {socket.gethostname()}" in found["acquisition"][1]
    for name in ("watchdog", "live", "catalog"):
        assert found[name][0] == "bad", name
    assert "close the shutter by hand" in found["watchdog"][1]
    assert told(tmp_path, pace=Pace(True, None))["acquisition"][0] == "bad"  # died in its run


def test_the_watchdog_is_found_among_the_children_of_the_acquisition(tmp_path, monkeypatch):
    class Child:
        pid = 77

        def cmdline(self):
            return ["python", "-m", "mistral_txm.services.watchdog", "--lifeline"]

    monkeypatch.setattr(psutil.Process, "children", lambda self: [Child()])
    with acquisition_lease(tmp_path):
        state, text = told(tmp_path)["watchdog"]
    assert state == "good"
    assert "process 77" in text


def test_a_silent_live_process_and_a_catalog_that_is_behind_are_told(tmp_path):
    status = {"state": "following", "updated_at": NOW_S - 300}
    assert told(tmp_path, status)["live"][0] == "bad"
    status |= {"updated_at": NOW_S - 3, "frames_seen": 20, "lag_frames": 6}
    state, text = told(tmp_path, status, pace=Pace(True, None, taken=23))["live"]
    assert (state, "9 frames behind" in text) == ("good", True)
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    (catalog / "address.json").write_text(json.dumps({"pid": psutil.Process().pid}))
    runs = {"run": {"documents": 7, "complete": False, "failed": None}}
    (catalog / "progress.json").write_text(json.dumps({"runs": runs}))
    assert told(tmp_path, documents={"run": 7})["catalog"][1].endswith("all is written")
    assert "5 documents behind" in told(tmp_path, documents={"run": 12})["catalog"][1]
    runs["run"]["failed"] = "refused"
    (catalog / "progress.json").write_text(json.dumps({"runs": runs}))
    assert told(tmp_path)["catalog"][0] == "bad"


def test_room_on_the_disk_is_told_in_hours_of_measurement(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 36e9})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert told(tmp_path, pace=Pace(True, 1e6))["disk"] == (
        "good",
        "36.0 GB free: 10 h of measurement",
    )
    assert told(tmp_path, pace=Pace(True, 1e7))["disk"] == (
        "bad",
        "36.0 GB free: 1.0 h of measurement",
    )


def test_arrows_stand_in_the_layers_and_are_as_long_as_the_field():
    m_czyx = np.zeros((3, 9, 80, 60), dtype=np.float32)
    m_czyx[2] = -0.5
    m_czyx[:, :, 40:] = 0
    layers_nm = ((-40.0, -20.0), (20.0, 40.0))
    volume = LiveVolume(Field(m_czyx, 10.0), "direct", "layers", layers_nm, 0.8)
    places_um, m = arrows(volume)
    assert 100 < len(places_um) <= MOST_ARROWS
    assert set(places_um[:, 2].round(3)) == {-0.03, 0.03}
    assert places_um[:, 1].max() < 0.0
    assert np.array_equal(m, np.tile([0, 0, -0.5], (len(m), 1)))


def test_singularities_stand_in_the_figure_where_they_are():
    volume = LiveVolume(Field(np.ones((3, 2, 4, 4), np.float32), 10.0), "direct", "none", (), None)
    points = [{"x_nm": 10.0, "y_nm": -20.0, "z_nm": 5.0, "charge": -1.0, "sureness": 0.5}]
    figure = json.loads(scene(volume, points))
    (marked,) = [one for one in figure["data"] if one.get("name") == "charge −"]
    assert (marked["x"], marked["y"], marked["z"]) == ([0.01], [-0.02], [0.005])
    assert marked["text"] == ["charge −1, 50% sure"]


@pytest.mark.slow
def test_many_pages_read_and_draw_no_more_than_one(tmp_path, monkeypatch):
    """What a client costs is its own page: files are looked at, and figures made, once for all."""
    folder = MeasuredFolder(tmp_path / "data")
    counts = {"read": 0, "drawn": 0}

    def counted(name, what):
        def call(*arguments):
            counts[name] += 1
            return what(*arguments)

        return call

    read = counted("read", live_view.read_live_volume)
    monkeypatch.setattr(live_view, "read_live_volume", read)
    monkeypatch.setattr("mistral_txm.services.monitor_page.scene", counted("drawn", scene))
    view = LiveView(folder.data)
    shared = Shared(view)
    pages = [Page(shared) for _ in range(3)]
    for page in pages:
        page.add_to(Document())
    for _ in range(2):
        folder.put_volume(folder.m_czyx + 0.1)
        view.look()
        for _ in range(3):
            for page in pages:
                page.refresh()
    assert counts == {"read": 2, "drawn": 2}
    (shown,) = pages[-1].slices.panels["xy", "component"].source.data["image"]
    z = folder.index(5.25, "z")
    assert np.allclose(shown, folder.m_czyx[2, z])

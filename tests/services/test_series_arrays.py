"""A series as labelled arrays from a real catalog: what counts, where it stands, and that frames are read late."""

import shutil
from pathlib import Path

import bluesky.plan_stubs as bps
import h5py
import numpy as np
import pytest
from bluesky.utils import RunEngineInterrupted

from mistral_txm.services.catalog import wait_until_written
from mistral_txm.services.catalog_frames import CHUNK_BYTES, SeriesError
from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.frame_files import FrameError
from mistral_txm.services.journal import read_journal
from mistral_txm.services.series_arrays import series_arrays
from mistral_txm.services.verification import verify

GROUPS = [(0.0, -10.0, 1, 3), (0.0, -10.0, -1, 3), (0.0, 5.0, 1, 2), (0.0, 5.0, -1, 2)]
TURNED = [(102.0, theta, helicity, repeats) for _, theta, helicity, repeats in GROUPS]
FILM = {
    "sample": {"name": "labelled film"},
    "energy_ev": 707.4,
    "pixel_nm": 10.5,
    "planned_keys": [list(group) for group in GROUPS + TURNED],
}

pytestmark = [pytest.mark.usefixtures("service"), pytest.mark.slow]


@pytest.fixture(scope="module")
def measured(data, service, beamline_class):
    """One azimuth that was cut short, resumed, waived in part, rejected in part and taken again; half of the other.

    Returns what verification says of it.
    """
    beamline = beamline_class(data)
    waive, say = beamline.waive, beamline.say
    begin = beamline.camera.count

    def stop_early(count):
        if count - begin == 7:
            yield from waive(0.0, -10.0, -1, 2)
            yield from say("note", "the signal is good enough")

    first = [(0.0, -10.0, 1, repeat) for repeat in range(3)]
    second = [(0.0, -10.0, -1, repeat) for repeat in range(2)]
    beamline.measure(GROUPS, "labelled", stop_early, keys=first + second, flats=1, md=FILM)
    beamline.reject([(0.0, -10.0, 1, 1), (0.0, -10.0, 1, 2)], "labelled")
    rest = [(0.0, 5.0, helicity, repeat) for helicity in (1, -1) for repeat in range(2)]
    beamline.measure(GROUPS, "labelled", keys=[(0.0, -10.0, 1, 2), *rest], flats=2, md=FILM)
    turned = FILM | {"phi_deg": 101.3}
    beamline.measure(TURNED, "labelled", keys=[(102.0, 5.0, -1, 1)], md=turned)
    assert wait_until_written(data, 120.0)
    (found,) = verify(data, "labelled")
    return found


@pytest.fixture(scope="module", params=["opened", "v2", "found"])
def arrays(request, measured, catalog):
    cat = {"opened": catalog, "v2": catalog.v2, "found": catalog.v3}[request.param]
    return series_arrays(cat, "labelled")


def test_every_key_that_verification_accepts_stands_at_its_label(measured, arrays):
    assert len(measured.accepted) == 2 + 2 + 4 + 1
    for key, exposure in measured.accepted.items():
        here = dict(zip(("phi", "theta", "helicity", "repeat"), key, strict=True))
        one = arrays.sel(here)
        assert one.taken
        np.testing.assert_array_equal(one.frames.values, exposure.read())
        assert one.frame_crc32 == exposure.crc32
        assert one.theta_readback == exposure.theta_deg
        assert (one.exposure_s, one.ring_current_mA) == (0.1, 250.0)
        assert one.run == exposure.run_uid
        assert one.time == np.datetime64(round(exposure.time * 1e9), "ns")
    assert int(arrays.taken.sum()) == len(measured.accepted)


def test_what_is_planned_waived_and_missing_is_told_apart(measured, arrays):
    assert arrays.frames.dims == ("phi", "theta", "helicity", "repeat", "y", "x")
    assert arrays.frames.shape == (2, 2, 2, 3, 6, 5)
    assert arrays.phi.values.tolist() == [0.0, 102.0]
    assert arrays.theta.values.tolist() == [-10.0, 5.0]
    assert arrays.helicity.values.tolist() == [1, -1]
    planned = measured.planned + len(measured.waived)
    assert int(arrays.planned.sum()) == planned == 20
    assert int(arrays.waived.sum()) == len(measured.waived) == 1
    assert bool(arrays.waived.sel(phi=0, theta=-10, helicity=-1, repeat=2))
    missing = arrays.planned & ~arrays.taken & ~arrays.waived
    assert int(missing.sum()) == len(measured.missing)
    rejected = {"phi": 0, "theta": -10, "helicity": 1, "repeat": 1}
    gone = arrays.sel(rejected)
    assert measured.rejected == [(0.0, -10.0, 1, 1)]
    assert bool(missing.sel(rejected))
    assert not gone.frames.values.any()
    assert np.isnan([gone.theta_readback, gone.exposure_s, gone.ring_current_mA]).all()
    assert np.isnat(gone.time)
    assert (gone.run, gone.frame_crc32) == ("", 0)


def test_darks_and_flats_of_all_runs_are_numbered_in_the_order_of_time(data, measured, arrays):
    runs = [RunExposures.of(read_journal(data / "journal" / f"{uid}.jsonl")) for uid in arrays.runs]
    for helicity in (1, -1):
        expected = [
            one.read() for run in runs for one in run.stream("flat") if one.key.helicity == helicity
        ]
        found = arrays.flats.sel(phi=0.0, helicity=helicity).values
        np.testing.assert_array_equal(found, expected)
        assert len(expected) == 3
    assert arrays.flat_taken.sum("flat").sel(phi=102.0).values.tolist() == [0, 0]
    darks = [one.read() for run in runs for one in run.stream("dark")]
    assert arrays.dark_exposure_s.values.tolist() == [0.1]
    np.testing.assert_array_equal(arrays.darks.sel(phi=0.0, dark_exposure_s=0.1).values, darks[:2])
    assert arrays.dark_taken.sel(phi=102.0).values.tolist() == [[True, False]]


def test_what_is_true_of_the_series_is_with_it(arrays):
    assert arrays.attrs["series"] == "labelled"
    assert (arrays.attrs["sample"], arrays.attrs["energy_ev"]) == ("labelled film", 707.4)
    assert arrays.attrs["pixel_nm"] == 10.5
    assert len(arrays.attrs["runs"]) == 4
    assert arrays.stated_phi.values.tolist() == [0.0, 101.3]


@pytest.fixture
def requests(catalog):
    """The paths that are asked of the server."""
    seen: list[str] = []
    hooks = catalog.context.http_client.event_hooks
    before = hooks["request"]
    catalog.context.http_client.event_hooks = {
        **hooks,
        "request": [*before, lambda request: seen.append(request.url.path)],
    }
    yield seen
    catalog.context.http_client.event_hooks = hooks


def test_frames_are_read_when_they_are_computed_and_those_alone(measured, catalog, requests):
    arrays = series_arrays(catalog, "labelled")
    one = arrays.frames.sel(phi=0, theta=5)
    bright = arrays.taken.sum().values
    assert bright == 9
    assert not [path for path in requests if "/array/" in path]
    requests.clear()
    assert one.compute().values.any()
    (path,) = requests  # both helicities and their repeats were taken one after the other
    assert "/array/full/" in path
    assert path.endswith("/primary/ccd")


def test_repeats_are_read_in_pieces_of_bounded_size(measured, catalog, monkeypatch):
    monkeypatch.setattr("mistral_txm.services.catalog_frames.CHUNK_BYTES", 2 * 6 * 5 * 2)
    arrays = series_arrays(catalog, "labelled")
    assert arrays.frames.data.chunks == ((1, 1), (1, 1), (1, 1), (2, 1), (6,), (5,))
    assert CHUNK_BYTES >= 1024 * 1024 * 2


def test_a_damaged_and_a_lost_frame_are_refused_by_name(data, measured, catalog):
    arrays = series_arrays(catalog, "labelled")
    exposure = measured.accepted[0.0, 5.0, -1, 1]
    kept = exposure.path.with_suffix(".kept")
    shutil.copy(exposure.path, kept)
    try:
        with h5py.File(exposure.path, "r+") as file:
            file[exposure.dataset][exposure.frame_number, 2, 3] += 1
        with pytest.raises(FrameError, match=r"theta 5 deg, helicity -1, repeat 2: .*damaged"):
            arrays.frames.compute()
        arrays.frames.sel(theta=-10).compute()
        exposure.path.unlink()
        with pytest.raises(FrameError, match=rf"the catalog cannot read it .*{exposure.path.name}"):
            arrays.frames.compute()
    finally:
        kept.replace(exposure.path)


def test_a_series_that_is_not_there_or_not_alone_is_refused(measured, catalog, beamline, data):
    beamline.measure(GROUPS, "labelled-too", keys=[])
    assert wait_until_written(data, 120.0)
    assert series_arrays(catalog, "labelled").attrs["series"] == "labelled"
    with pytest.raises(SeriesError, match=r"label: 2 such series .*\(labelled, labelled-too\)"):
        series_arrays(catalog, "label")
    with pytest.raises(SeriesError, match="series nothing: no such series in the catalog"):
        series_arrays(catalog, "nothing")
    empty = series_arrays(catalog, "labelled-too")
    assert not empty.taken.any()
    assert empty.frames.shape == (1, 2, 2, 3, 6, 5)
    assert not empty.frames.values.any()


def test_an_exposure_taken_again_after_a_pause_is_there_once(beamline, catalog, data):
    paused = []

    def pause(count):
        if beamline.camera.key["key_repeat"] == 1 and not paused:
            paused.append(count)
            yield from bps.pause()

    with pytest.raises(RunEngineInterrupted):
        beamline.measure(GROUPS, "paused", pause, flats=2)
    beamline.engine.resume()
    assert wait_until_written(data, 120.0)
    arrays = series_arrays(catalog, "paused")
    (found,) = verify(data, "paused")
    assert len(RunExposures.of(read_journal(journal_of(data, arrays))).recorded()) == 1 + 5 + 10
    assert arrays.flat_taken.sum("flat").values.tolist() == [[2, 2]]
    for key, exposure in found.accepted.items():
        here = dict(zip(("phi", "theta", "helicity", "repeat"), key, strict=True))
        np.testing.assert_array_equal(arrays.frames.sel(here).values, exposure.read())


def journal_of(data: Path, arrays):
    (uid,) = arrays.runs
    return data / "journal" / f"{uid}.jsonl"


def test_a_changed_region_of_interest_is_told(beamline, catalog, data, monkeypatch):
    beamline.measure(GROUPS[2:], "cropped")
    module = __import__(type(beamline.camera).__module__, fromlist=["x"])
    monkeypatch.setattr(module, "FRAME_SHAPE", (4, 5))
    beamline.measure(GROUPS[2:], "cropped")
    assert wait_until_written(data, 120.0)
    with pytest.raises(SeriesError, match=r"frames of \(4, 5\) pixels, expected \(6, 5\)"):
        series_arrays(catalog, "cropped")

"""One run into one file: its table, its documents, its frames."""

import csv
import json

import h5py
import numpy as np
import pytest

from mistral_txm.reconstruction.nxtomo import DARK, FLAT, INVALID, PROJECTION, read_nxtomo
from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.frame_files import FrameError
from mistral_txm.services.run_export import COLUMNS, export_run, find_run


@pytest.fixture
def series(tmp_path, written_series):
    return written_series(tmp_path, azimuths_deg=(102.0,), tilts_deg=(-30.0, 20.0))


@pytest.fixture
def documents(series):
    made = series.run(102.0, stated_phi_deg=101.5)
    series.record(made)
    return made


def test_csv_has_a_line_per_exposure_with_its_frame(series, documents, tmp_path):
    output = tmp_path / "run.csv"
    export_run(series.data, "written-run1", "csv", output)
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    exposures = RunExposures.of(documents).in_order()
    assert len(rows) == len(exposures) == 4 + 8 + 8
    for row, exposure in zip(rows, exposures, strict=True):
        assert row["stream"] == exposure.stream
        assert int(row["seq_num"]) == exposure.seq_num
        key = (row["phi_deg"], row["theta_deg"], row["helicity"], row["repeat"])
        assert tuple(map(float, key)) == exposure.key
        assert float(row["theta_readback_deg"]) == exposure.theta_deg
        assert float(row["ring_current_mA"]) == exposure.ring_current_ma
        assert row["file"] == str(exposure.path)
        assert int(row["frame_number"]) == exposure.frame_number
        assert int(row["crc32"], 16) == exposure.crc32


def test_jsonl_holds_the_documents_as_they_were(series, documents, tmp_path):
    output = tmp_path / "run.jsonl"
    export_run(series.data, "written", "jsonl", output)
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert found == json.loads(json.dumps(documents))


def test_nxtomo_has_an_entry_for_each_helicity_with_frames_as_taken(series, documents, tmp_path):
    output = tmp_path / "run.nx"
    export_run(series.data, "written", "nxtomo", output)
    entries = read_nxtomo(output)
    run = RunExposures.of(documents)
    assert set(entries) == {"positive", "negative"}
    for name, helicity in (("positive", 1), ("negative", -1)):
        entry = entries[name]
        assert entry.image_key.tolist() == [DARK] * 4 + [FLAT] * 4 + [PROJECTION] * 4
        taken = [
            *run.stream("dark"),
            *(one for one in run.stream("flat") if one.key.helicity == helicity),
            *(one for one in run.stream("primary") if one.key.helicity == helicity),
        ]
        for frame, exposure in zip(entry.frames_tvu, taken, strict=True):
            np.testing.assert_array_equal(frame, exposure.read())
        np.testing.assert_allclose(entry.theta_deg, [one.theta_deg for one in taken])
        assert (entry.helicity, entry.phi_deg, entry.energy_ev) == (helicity, 101.5, 707.4)
        assert entry.pixel_nm == pytest.approx(10.5)


def test_nxtomo_keeps_what_the_jaws_spoiled_but_marks_it_as_invalid(series, tmp_path):
    def with_closed_jaws(stream, data):
        if stream == "flat" and data["key_repeat"] == 3:
            data["polarization"] = 0

    series.record(series.run(102.0, alter=with_closed_jaws))
    output = tmp_path / "run.nx"
    export_run(series.data, "written", "nxtomo", output)
    for entry in read_nxtomo(output).values():
        keys = [DARK] * 4 + [FLAT] * 3 + [INVALID] + [PROJECTION] * 4
        assert entry.image_key.tolist() == keys
        assert entry.saturation_counts == 65000
        assert np.all(np.diff(entry.time_s[:4]) > 0)


def test_images_for_martapp_are_named_as_at_the_beamline(series, documents, tmp_path):
    output = tmp_path / "images"
    export_run(series.data, "written", "martapp", output)
    names = sorted(path.name for path in output.iterdir())
    assert len(names) == 4 + 8 + 8
    assert "19700101_uniformfilm_-1_-30.0_1.hdf5" in names
    assert "19700101_uniformfilm_1_0.0_FF_0.hdf5" in names
    run = RunExposures.of(documents)
    one = next(one for one in run.accepted().values() if one.key == (102.0, 20.0, -1, 1))
    with h5py.File(output / "19700101_uniformfilm_-1_20.0_1.hdf5") as file:
        np.testing.assert_array_equal(file["data_1"], one.read())
        found = {name: file["metadata"][name][()] for name in file["metadata"]}
    assert (found["angle"], found["polarisation"], found["azimuth"]) == (20.0, -1.0, 101.5)
    assert (found["exposure_time"], found["machine_current"]) == (1.0, one.ring_current_ma)
    assert found["pixel_size"] == pytest.approx(0.0105)
    with pytest.raises(FileExistsError, match="images: exists; name a new folder"):
        export_run(series.data, "written", "martapp", output)


def test_an_unknown_format_a_wrong_uid_and_two_runs_are_refused(series, documents, tmp_path):
    with pytest.raises(
        ValueError, match=r"format 'xlsx': expected one of csv, jsonl, nxtomo, martapp"
    ):
        export_run(series.data, "written", "xlsx", tmp_path / "a")
    with pytest.raises(ValueError, match="run nothing: no such run"):
        find_run(series.data, "nothing")
    series.record(series.run(102.0))
    with pytest.raises(ValueError, match="run written: 2 such run"):
        find_run(series.data, "written")
    assert find_run(series.data, "written-run2").stem == "written-run2"


def test_a_damaged_frame_leaves_no_file(series, documents, tmp_path):
    series.damage(documents)
    before = sorted(tmp_path.iterdir())
    for format in ("nxtomo", "martapp"):
        with pytest.raises(FrameError, match="checksum"):
            export_run(series.data, "written", format, tmp_path / "run.nx")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("format", ["csv", "nxtomo", "martapp"])
def test_a_run_without_exposures_is_refused(series, tmp_path, format):
    series.record(
        [("start", {"uid": "count", "time": 1.0}), ("stop", {"uid": "s", "run_start": "count"})]
    )
    with pytest.raises(ValueError, match="run count: it has no exposures"):
        export_run(series.data, "count", format, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_return_to_zero_is_in_the_table_and_in_no_tilt_series(series, tmp_path):
    back = [(102.0, -30.0, helicity, 2) for helicity in (1, -1)]
    made = series.run(102.0, returned=back)
    series.record(made)
    for format in ("csv", "nxtomo", "martapp"):
        export_run(series.data, "written", format, tmp_path / format)
    with (tmp_path / "csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stream"] for row in rows[-2:]] == ["zero", "zero"]
    assert len(rows) == 4 + 8 + 8 + 2
    entries = read_nxtomo(tmp_path / "nxtomo")
    assert sum(np.sum(entry.image_key == PROJECTION) for entry in entries.values()) == 8
    assert len(list((tmp_path / "martapp").iterdir())) == 4 + 8 + 8

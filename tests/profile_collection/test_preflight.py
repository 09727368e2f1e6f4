"""What a planned measurement takes, and what stands in its way, before anything moves."""

import math
from collections import namedtuple
from pathlib import Path

import pytest

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.plans import Measurement, paper, small
from mistral_txm.profile_collection import preflight
from mistral_txm.profile_collection.preflight import problems, summarize


@pytest.fixture(scope="module")
def configuration():
    return load_configuration()


def beyond_limits():
    """A tilt that the goniometer does not reach."""
    description = small().to_dict()
    description["angles_deg"] = [-75.0, 0.0]
    description["exposures"] = [{"up_to_deg": 80.0, "exposure_s": 1.0, "repeats": 1}]
    return Measurement.from_dict(description)


def test_the_paper_measurement_is_summed_up_as_by_hand(configuration):
    found = summarize(configuration, paper(), "paper")
    assert (found["azimuths"], found["tilts_per_azimuth"]) == (2, 87)
    # Tilts up to 24 deg: 25, to 44: 40, to 55: 22; 15, 20 and 20 exposures of 8, 12 and 20 s.
    exposures = 2 * 2 * (25 * 15 + 40 * 20 + 22 * 20)
    assert found["exposures"] == exposures
    flats, darks = 2 * 2 * 2 * 50, 2 * 4 * 10
    assert found["frames_with_flats_and_darks"] == exposures + flats + darks
    assert found["data_GB"] == round((exposures + flats + darks) * 2 * 1024**2 / 1e9, 2)
    seconds = 2 * 2 * (25 * 15 * 8 + 40 * 20 * 12 + 22 * 20 * 20) + flats * 3
    seconds += 2 * 10 * (3 + 8 + 12 + 20)
    assert found["exposure_h"] == round(seconds / 3600, 2)
    assert found["duration_h"] > found["exposure_h"]


def test_nothing_stands_in_the_way_of_the_small_measurement(configuration, tmp_path):
    assert problems(configuration, small(), "small", tmp_path / "new" / "folder") == []
    assert not list(tmp_path.rglob(".writable"))


def test_a_tilt_beyond_the_limits_is_named(configuration, tmp_path):
    (line,) = problems(configuration, beyond_limits(), "small", tmp_path)
    assert line.startswith("theta: -75 deg is planned")


def test_a_full_disk_is_told_in_gigabytes(configuration, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage(1, 1, 1_000_000))
    (line,) = problems(configuration, paper(), "paper", tmp_path / "not" / "there")
    needed = summarize(configuration, paper(), "paper")["data_GB"]
    assert f"need {math.floor(needed * 10) / 10:.0f}" in line
    assert "0.0 GB are free" in line


def test_a_file_in_place_of_the_data_folder_is_named(configuration, tmp_path):
    file = tmp_path / "taken"
    file.touch()
    for data in (file, file / "below"):
        (line,) = problems(configuration, small(), "small", data)
        assert "is not a folder; choose another data folder" in line


def test_a_folder_that_cannot_be_written_is_named(configuration):
    """Nobody can make a folder in /proc, not even root."""
    *_, line = problems(configuration, small(), "small", Path("/proc/mistral"))
    assert line.startswith("/proc/mistral: cannot be written (")
    assert line.endswith("choose another data folder")


def test_every_problem_is_told_at_once(configuration, tmp_path):
    file = tmp_path / "taken"
    file.touch()
    assert len(problems(configuration, beyond_limits(), "small", file)) == 2

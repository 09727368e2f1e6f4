"""What a planned measurement takes, and what stands in its way, before anything moves."""

import math
import re
import time
from collections import namedtuple
from pathlib import Path

import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.plans import Measurement, paper, small, tilt_series
from mistral_txm.profile_collection import preflight
from mistral_txm.profile_collection.command_line import main
from mistral_txm.profile_collection.preflight import Preflight, foretell, problems, summarize


@pytest.fixture(scope="module")
def configuration():
    return load_configuration()


def beyond_limits():
    """A tilt that the goniometer does not reach."""
    description = small().to_dict()
    description["tilts"] = [
        {"first_deg": -75.0, "last_deg": 0.0, "step_deg": 75.0, "exposure_s": 1.0, "repeats": 1}
    ]
    return Measurement.from_dict(description)


def test_the_paper_measurement_is_summed_up_as_by_hand(configuration):
    found = summarize(configuration, paper(), (1024, 1024))
    assert (found["azimuths"], found["tilts_per_azimuth"]) == (2, 87)
    # Tilts up to 24 deg: 25, to 44: 40, to 55: 22; 15, 20 and 20 exposures of 8, 12 and 20 s.
    exposures = 2 * 2 * (25 * 15 + 40 * 20 + 22 * 20)
    assert found["exposures"] == exposures
    flats, darks, returned = 2 * 2 * 2 * 50, 2 * 4 * 10, 2 * 2 * 3
    assert found["frames_with_flats_and_darks"] == exposures + flats + darks + returned
    pixels_gb = (exposures + flats + darks + returned) * 2 * 1024**2 / 1e9
    assert pixels_gb < found["data_GB"] < 1.005 * pixels_gb
    seconds = 2 * 2 * (25 * 15 * 8 + 40 * 20 * 12 + 22 * 20 * 20) + flats * 3
    seconds += 2 * 10 * (3 + 8 + 12 + 20) + returned * 8
    assert found["exposure_h"] == round(seconds / 3600, 2)
    assert found["duration_h"] > found["exposure_h"]
    assert found["sample_in_light_h"] == round((seconds - flats * 3 - 2 * 10 * 43) / 3600, 2)
    assert found["dose_relative_to_the_paper"] == 1.001  # 96 s more than 85 600


def test_nothing_stands_in_the_way_of_the_small_measurement(configuration, tmp_path):
    assert problems(configuration, small(), (256, 256), tmp_path / "new" / "folder") == []
    assert not list(tmp_path.rglob(".writable*"))


def test_a_tilt_beyond_the_limits_is_named(configuration, tmp_path):
    (line,) = problems(configuration, beyond_limits(), (256, 256), tmp_path)
    assert line.startswith("theta: -75 deg is planned")


def test_a_full_disk_is_told(configuration, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage(1, 1, 1_000_000))
    (line,) = problems(configuration, paper(), (1024, 1024), tmp_path / "not" / "there")
    needed = summarize(configuration, paper(), (1024, 1024))["data_GB"]
    assert f"need {math.floor(needed * 10) / 10:.0f}" in line
    assert "1.0 MB are free" in line


def test_a_file_in_place_of_the_data_folder_is_named(configuration, tmp_path):
    file = tmp_path / "taken"
    file.touch()
    for data in (file, file / "below"):
        (line,) = problems(configuration, small(), (256, 256), data)
        assert "is not a folder; choose another data folder" in line


def test_a_folder_that_cannot_be_written_is_named(configuration):
    """Nobody can make a folder in /proc, not even root."""
    *_, line = problems(configuration, small(), (256, 256), Path("/proc/mistral"))
    assert line.startswith("/proc/mistral: cannot be written (")
    assert line.endswith("choose another data folder")


def test_every_problem_is_told_at_once(configuration, tmp_path):
    file = tmp_path / "taken"
    file.touch()
    assert len(problems(configuration, beyond_limits(), (256, 256), file)) == 2


def test_two_exposures_foretell_the_planned_ones(configuration):
    """Level 300; 2000 counts/s on average, 3000 at the brightest: 62400 counts fit in (62700 - 300) / 3000 = 20.8 s."""
    seen = [(0.5, 1300.0, 1800.0), (1.0, 2300.0, 3300.0)]
    lines, found = foretell(configuration, small(), seen, 0.0)
    assert found == []
    # 8 s: 16000 counts of 1.6 electrons, 707.4 eV / 3.65 eV of them for a photon
    photons = 16000 * 1.6 / (707.4 / 3.65)
    assert lines[2] == (
        "theta -20 to 20 deg, 8 s: brightest pixels at most 24300 of 62700 counts, "
        f"{photons:.0f} photons per pixel, signal to noise of 3 repeats {math.sqrt(3 * photons):.0f}, "
        "measured at theta 0 deg"
    )
    flat_now = foretell(configuration, small(), seen, 50.0)[0][2]
    assert "brightest pixels 24300" in flat_now  # the film is flatter there than it stands
    assert flat_now.endswith("measured at theta 50 deg")
    seen = [(0.5, 1300.0, 2300.0), (1.0, 2300.0, 4300.0)]
    # At theta 0 the steep tilts, which would have 20 s, are darker; at 50 deg they are not.
    assert foretell(configuration, small(), seen, 0.0)[1] == []
    _, found = foretell(configuration, small(), seen, 50.0)
    assert len(found) == 2
    assert "20 s would saturate" in found[0]
    assert found[0].endswith("expose at most 15.6 s")


def test_no_light_is_told(configuration):
    _, (line,) = foretell(configuration, small(), [(0.5, 300.0, 400.0), (1.0, 300.1, 400.0)], 0.0)
    assert line.startswith("flux: no light reaches the camera")


@pytest.fixture
def preflight_here(instrument, simulated_beamline):
    return Preflight(instrument, simulated_beamline.data, {}, {})


def test_a_short_series_is_told_in_the_units_that_fit(configuration, capsys):
    """One tilt, two helicities, two repeats of 8 s: 32 s in the light."""
    description = small().to_dict()
    description["tilts"] = [{"first_deg": 0.0, "last_deg": 0.0, "exposure_s": 8.0, "repeats": 2}]
    description["azimuths_deg"] = [0.0]
    preflight.print_summary(
        summarize(configuration, Measurement.from_dict(description), (256, 256))
    )
    lines = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines()]
    rows = {what: value.strip() for what, value in lines}
    assert rows["sample in light"] == "32 s"
    assert rows["photon energies"] == "707.4 eV"
    assert rows["frame pixels"] == "256 x 256"
    frames = int(rows["frames with flats and darks"])
    assert rows["data"].endswith(" MB")
    assert float(rows["data"][:-3]) == pytest.approx(frames * 2 * 256**2 / 1e6, rel=0.05)


@pytest.mark.slow
def test_prompt_and_shell_tell_the_same_of_frames_of_one_size(preflight_here, capsys):
    preflight_here.summary("small")
    prompt = capsys.readouterr().out.splitlines()
    assert main(["plan", "--summary", "--measurement", "small", "--size", "small"]) == 0
    shell = capsys.readouterr().out.splitlines()
    ends = [line for line in prompt if line.startswith("ends if started now")]
    assert len(ends) == 1
    assert [line for line in prompt if line not in ends] == [
        line for line in shell if not line.startswith("ends if started now")
    ]


@pytest.mark.slow
def test_the_size_is_that_of_the_files_that_are_written(preflight_here, instrument, capsys):
    """What a plan leaves on the disk is what its summary says."""
    description = small().to_dict()
    description["tilts"] = [{"first_deg": 0.0, "last_deg": 0.0, "exposure_s": 8.0, "repeats": 2}]
    description |= {"azimuths_deg": [0.0], "flats": {"exposure_s": 3.0, "repeats": 2}}
    measurement = Measurement.from_dict(description)
    instrument.azimuth.set(0.0)
    RunEngine({}, context_managers=[])(tilt_series(instrument, measurement, 0.0, series="sized"))
    files = (instrument.ccd.frames_directory / "sized").glob("*.h5")
    on_disk = sum(file.stat().st_size for file in files)
    told = summarize(instrument.configuration, measurement, (256, 256))["data_GB"]
    assert 1e9 * told == pytest.approx(on_disk, rel=0.01)


def put(name, value):
    """Write what the devices only read."""
    import epics

    assert epics.caput(name, value, wait=True, timeout=120) == 1


@pytest.mark.slow
def test_the_prompt_checks_the_devices(preflight_here, instrument, capsys):
    preflight_here.check("small")
    assert capsys.readouterr().out == "nothing stands in the way\n"
    instrument.ccd.cam.bin_x.put(2, wait=True)
    put("SIM:GON:THETA.SPMG", "Pause")
    try:
        preflight_here.check("small")
        lines = capsys.readouterr().out.splitlines()
    finally:
        instrument.ccd.cam.bin_x.put(1, wait=True)
        put("SIM:GON:THETA.SPMG", "Go")
    assert len(lines) == 2
    assert "theta: would not move, SIM:GON:THETA.SPMG = Pause" in lines[0]
    assert "BinX" in lines[1]


@pytest.mark.slow
def test_a_trial_foretells_counts_and_closes_the_shutter(preflight_here, instrument, capsys):
    RunEngine({}, context_managers=[])(preflight_here.check("small", expose=True))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("theta -55 to -45 deg, 20 s: brightest pixels ")
    deadline = time.monotonic() + 120
    while instrument.shutter.is_open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not instrument.shutter.is_open


@pytest.mark.slow
def test_a_dry_run_moves_nothing_and_finds_what_would_fail(preflight_here, instrument, capsys):
    instrument.azimuth.set(0.0)
    stands = instrument.theta.position
    preflight_here.simulate(tilt_series(instrument, small(), 0.0))
    out = capsys.readouterr().out
    # 23 tilts x 2 x 3, flats 2 x 10, darks 4 x 5
    assert out.startswith(
        f"exposures: {23 * 2 * 3} sample, 6 return to zero tilt, 20 open beam, 20 dark; runs: 1\n"
    )
    assert ["theta", "-55", "55"] in [
        [words[0], *words[-2:]] for words in map(str.split, out.splitlines())
    ]
    assert "the shutter is left closed\n" in out
    assert not re.search("Key|Spent|ccd|budget|messages", out)
    assert out.endswith("nothing stands in the way\n")

    def wrong():
        yield from bps.mv(instrument.theta, -69.8)
        yield from bps.mv(instrument.sample_x, 5000.0)

    preflight_here.simulate(wrong())
    *_, theta, sample_x = capsys.readouterr().out.splitlines()
    assert theta.startswith("theta: -70.3 deg is not within the configured limits")
    assert sample_x.startswith("sample_x: 5000.0 um is not within the configured limits")
    assert instrument.theta.position == stands


@pytest.mark.slow
def test_a_service_that_does_not_run_is_named(instrument, simulated_beamline, capsys):
    gone = namedtuple("service", "running")(False)
    Preflight(instrument, simulated_beamline.data, {"a.b": 1}, {"catalog": gone}).check("small")
    metadata, service = capsys.readouterr().out.splitlines()
    assert "'a.b'" in metadata
    assert service.startswith("catalog: does not run; see ")

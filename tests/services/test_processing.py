"""From the exposures of an angle to its signals, on frames of a film whose signals are known."""

import re

import numpy as np
import pytest

from mistral_txm.services.angle_signals import ProcessingError, by_azimuth
from mistral_txm.services.findings import summary
from mistral_txm.services.frame_files import FrameError
from mistral_txm.services.live_volumes import DEPTH_WITHOUT_LAYERS, volume_grid
from mistral_txm.services.processing import Processor
from mistral_txm.services.series_exposures import SeriesExposures

SATURATION_COUNTS = 65000
PIXEL_NM = 10.5


@pytest.fixture
def series(tmp_path, written_series):
    return written_series(tmp_path, azimuths_deg=(102.0,), tilts_deg=(-40.0, 20.0))


def angles(documents):
    collected = SeriesExposures(documents[0][1])
    for name, doc in documents:
        collected.add(documents[0][1]["uid"], name, doc)
    return collected.finished()


def refused(documents, place=(102.0, -40.0)):
    with pytest.raises(ProcessingError) as raised:
        Processor(SATURATION_COUNTS, PIXEL_NM).signals(angles(documents)[place])
    message = str(raised.value)
    assert message.startswith("phi 102 deg, theta -40 deg: ")
    assert "\n" not in message
    return message


def test_signals_are_those_of_beer_and_lambert_with_the_right_sign(series):
    found = angles(series.run(102.0))
    processor = Processor(SATURATION_COUNTS, PIXEL_NM)
    for theta_deg in (-40.0, 20.0):
        made = processor.signals(found[102.0, theta_deg])
        assert made.theta_deg == theta_deg
        signals = made.signals
        pixels = signals.dichroic_vu.size
        std_of_mean = float(np.sqrt(np.mean(signals.std_vu**2) / pixels))
        dichroic = float(signals.dichroic_vu.mean(dtype=float))
        absorption = float(signals.absorption_vu.mean(dtype=float))
        assert abs(dichroic - series.dichroic(102.0, theta_deg)) < 5 * std_of_mean
        # The logarithm of a mean of n photons is low by half its relative variance.
        bias = float(np.mean(signals.std_vu**2))
        assert abs(absorption - series.absorption(theta_deg)) < 5 * std_of_mean + bias
        # The stated standard deviation is that of the pixels (the film is uniform).
        scatter = float(((signals.dichroic_vu - dichroic) / signals.std_vu).std())
        assert scatter == pytest.approx(1.0, abs=0.06)


def test_the_azimuth_is_the_stated_one_and_the_tilt_the_one_read_back(series):
    def read_back(stream, data):
        if stream == "primary":
            data["theta"] += 0.01 if data["key_helicity"] == 1 else 0.03

    found = angles(series.run(102.0, stated_phi_deg=101.5, alter=read_back))
    made = Processor(SATURATION_COUNTS, PIXEL_NM).signals(found[102.0, 20.0])
    assert made.phi_deg == 101.5
    assert made.theta_deg == pytest.approx(20.02)


def test_flats_of_the_other_helicity_are_refused(series):
    def jaws(stream, data):
        if stream == "flat":
            data["polarization"] = 1

    assert "flat 5 of helicity -1" in refused(series.run(102.0, alter=jaws))


def test_missing_flats_are_named(series):
    def no_negative_flats(stream, data):
        if stream == "flat":
            data["key_helicity"] = data["polarization"] = 1

    message = refused(series.run(102.0, alter=no_negative_flats))
    assert "no flats of helicity -1" in message


def test_missing_darks_of_the_exposure_time_are_named(series):
    def longer(stream, data):
        if stream == "primary":
            data["ccd_exposure_s"] = 8.0

    message = refused(series.run(102.0, alter=longer))
    assert "exposures of 8 s, but no dark frames of that time" in message


def test_a_dose_that_is_not_a_number_is_told_with_its_angle(series):
    def no_current(stream, data):
        if stream == "primary":
            data["ring_current"] = 0.0

    assert "ring current" in refused(series.run(102.0, alter=no_current))


def test_a_damaged_frame_is_its_own_error(series):
    documents = series.run(102.0)
    series.damage(documents)
    with pytest.raises(FrameError, match="checksum"):
        Processor(SATURATION_COUNTS, PIXEL_NM).signals(angles(documents)[102.0, 20.0])


def test_a_missing_file_is_its_own_error(series):
    documents = series.run(102.0)
    series.damage(documents).unlink()
    with pytest.raises(FrameError, match="no such file"):
        Processor(SATURATION_COUNTS, PIXEL_NM).signals(angles(documents)[102.0, 20.0])


def test_saturated_pixels_are_masked_not_clamped(series):
    found = angles(series.run(102.0))[102.0, 20.0]
    level = float(np.quantile(found.flats[1][0].read(), 0.8))
    signals = Processor(level, PIXEL_NM).signals(found).signals
    masked = np.isnan(signals.dichroic_vu)
    assert masked.any()
    assert np.isinf(signals.std_vu[masked]).all()


def test_exposures_of_two_times_are_averaged_each_with_its_own_darks(series, monkeypatch):
    """Darks of 1 and 3 s with a dark current of 100 counts/s; one repeat of 1 s, the other of 2 s."""
    dark_s = {0: 1.0, 1: 1.0, 2: 3.0, 3: 3.0}
    exposed_s = {0: 1.0, 1: 2.0}

    def times(stream, data):
        if stream == "dark":
            data["ccd_exposure_s"] = dark_s[data["key_repeat"]]
        elif stream == "primary":
            data["ccd_exposure_s"] = exposed_s[data["key_repeat"]]

    plain = series.frame

    def frame(stream, key, current_ma):
        exposure_s = {"dark": dark_s, "primary": exposed_s}.get(stream, {}).get(key[3], 1.0)
        counts = plain(stream, key, current_ma) + np.uint16(100 * exposure_s)
        above = plain(stream, key, current_ma) - series.DARK_COUNTS if stream == "primary" else 0
        return (counts + np.rint(above * (exposure_s - 1))).astype("<u2")

    monkeypatch.setattr(series, "frame", frame)
    made = Processor(SATURATION_COUNTS, PIXEL_NM).signals(
        angles(series.run(102.0, alter=times))[102.0, 20.0]
    )
    assert all(not found.bad for found in made.findings.values())
    std_of_mean = float(np.sqrt(np.mean(made.signals.std_vu**2) / made.signals.std_vu.size))
    assert (
        abs(made.signals.dichroic_vu.mean(dtype=float) - series.dichroic(102.0, 20.0))
        < 5 * std_of_mean
    )
    assert (
        abs(made.signals.absorption_vu.mean(dtype=float) - series.absorption(20.0))
        < 5 * std_of_mean
    )


def test_the_flats_before_and_after_make_one_in_between(series):
    """Twice as bright after the last exposure: in the middle of that time it is 1.5 times as bright."""
    documents = series.run(102.0, flats_at_end=True)
    without = Processor(SATURATION_COUNTS, PIXEL_NM).signals(angles(documents[:-1])[102.0, 20.0])

    def brighter(stream, data):
        if stream == "flat" and data["key_repeat"] >= 4:
            data["ring_current"] /= 2

    documents = series.run(102.0, flats_at_end=True, alter=brighter)
    found = angles(documents)[102.0, 20.0]
    made = Processor(SATURATION_COUNTS, PIXEL_NM).signals(found)
    times = {
        key: np.mean([one.time for one in each])
        for key, each in (
            ("before", found.flats[1][:4]),
            ("after", found.flats[1][4:]),
            ("now", found.exposures[1]),
        )
    }
    part = (times["now"] - times["before"]) / (times["after"] - times["before"])
    other = {
        key: np.mean([one.time for one in each])
        for key, each in (
            ("before", found.flats[-1][:4]),
            ("after", found.flats[-1][4:]),
            ("now", found.exposures[-1]),
        )
    }
    part_2 = (other["now"] - other["before"]) / (other["after"] - other["before"])
    expected = np.log((1 + part) * (1 + part_2)) / 2
    gained = made.signals.absorption_vu - without.signals.absorption_vu
    assert gained.mean(dtype=float) == pytest.approx(expected, abs=2e-3)


def test_what_was_left_out_is_told_with_its_key(tmp_path, written_series, monkeypatch):
    series = written_series(tmp_path, azimuths_deg=(102.0,), tilts_deg=(20.0,), repeats=4)
    plain = series.frame

    def spoiled(stream, key, current_ma):
        counts = plain(stream, key, current_ma)
        if stream == "primary" and key[2:] == (-1, 2):
            counts = (series.DARK_COUNTS + 0.7 * (counts - series.DARK_COUNTS)).astype("<u2")
        if stream == "primary" and key[2:] == (1, 0):
            counts[20, 20:23] += np.uint16(20000)
        return counts

    monkeypatch.setattr(series, "frame", spoiled)
    made = Processor(SATURATION_COUNTS, PIXEL_NM).signals(angles(series.run(102.0))[102.0, 20.0])
    told = summary([made])
    assert len(told["repeats_left_out"]) == 1
    assert re.fullmatch(
        r"phi 102 deg, theta 20 deg, helicity -1, repeat 3: (69|70)\.\d % of the light of the others",
        told["repeats_left_out"][0],
    )
    assert told["zinger_pixels"] == 3
    assert abs(made.signals.dichroic_vu.mean() - series.dichroic(102.0, 20.0)) < 1e-3
    assert made.findings[1].zinger_pixels == (3, 0, 0, 0)


def test_angles_are_sorted_by_azimuth_and_tilt(series):
    found = angles(series.run(102.0))
    processor = Processor(SATURATION_COUNTS, PIXEL_NM)
    made = [processor.signals(found[102.0, theta]) for theta in (20.0, -40.0)]
    assert by_azimuth(made) == {102.0: [made[1], made[0]]}


def test_images_of_different_shape_are_named(series):
    found = angles(series.run(102.0))
    processor = Processor(SATURATION_COUNTS, PIXEL_NM)
    first = processor.signals(found[102.0, -40.0])
    series.SHAPE = (24, 48)
    other = processor.signals(angles(series.run(102.0))[102.0, 20.0])
    with pytest.raises(ProcessingError, match=r"theta 20 deg: images of \(24, 48\) pixels"):
        by_azimuth([first, other])


@pytest.mark.parametrize(
    ("shape_vu", "layers_nm", "expected"),
    [
        ((48, 48), [(-42.0, 42.0)], (8, 48, 48)),
        ((48, 48), [(-43.0, 10.0)], (10, 48, 48)),
        ((1024, 256), [], (DEPTH_WITHOUT_LAYERS, 400, 256)),
    ],
)
def test_the_volume_holds_the_layers_and_is_as_wide_as_the_images(shape_vu, layers_nm, expected):
    assert volume_grid(shape_vu, 10.5, layers_nm).shape_zyx == expected

"""The truth behind each frame can be read, and rendered again without its noise."""

from dataclasses import replace

import numpy as np

from mistral_txm.simulated_beamline import textures
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.exposure_log import (
    ExposureLog,
    expected_counts,
    read_exposures,
)
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.settings import load_settings
from tests.simulated_beamline.states import POSITIVE

STATE = replace(
    POSITIVE,
    theta_deg=20.0,
    azimuth_deg=102.0,
    region=Region(0, 0, 64, 64, 2, 2),
    time_s=100.0,
)


def test_what_was_logged_renders_the_same_frame_without_noise(tmp_path):
    settings = load_settings("real")
    sample = Sample(textures.load("uniform"), 7, settings.fiducials)
    beamline = Beamline(sample, settings, (64, 64), 7)
    log = ExposureLog(tmp_path, beamline, "uniform", 7)
    log.add("a.h5", 0, STATE, 0)
    log.add("a.h5", 1, replace(STATE, sample_x_um=200.0), 1)
    log.close()
    (again, first), (_again, second) = read_exposures(tmp_path)
    assert (first["file"], first["frame"], second["frame"]) == ("a.h5", 0, 1)
    assert first["pose"]["theta_deg"] == 20.0
    assert first["pose"]["inclination_deg"] == settings.goniometer.inclination_deg
    assert "pose" not in second
    counts = expected_counts(again, first)
    assert counts.shape == (32, 32)
    np.testing.assert_array_equal(counts, beamline.expected_counts(STATE, 0))
    np.testing.assert_array_equal(again.frame(STATE, 0), beamline.frame(STATE, 0))

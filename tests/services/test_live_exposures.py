"""What is told of single exposures, against a film that moves by a known step between them."""

import numpy as np
import pytest

from mistral_txm.services import live_exposures
from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.live_exposures import ExposureWatch
from mistral_txm.services.processing import Processor
from mistral_txm.services.series_exposures import SeriesExposures

STEP_U_PIXELS = 0.7
REPEATS = 4


DARK_COUNTS = 301.0


def _with_mean_of_darks(stream, data):
    if stream == "dark":
        data["ccd_mean_counts"] = DARK_COUNTS


@pytest.fixture
def watched(tmp_path, written_series):
    """A watch, its processor, and the angle of a series of one tilt, by helicity or all of it."""

    class Moving(written_series):
        SHAPE = (96, 96)
        PHOTONS = 12000

        def frame(self, stream, key, current_ma):
            counts = super().frame(stream, key, current_ma)
            if stream != "primary":
                return counts
            v, u = np.mgrid[:96, :96] - 48.0
            speck = np.exp(-((u - STEP_U_PIXELS * key[3]) ** 2 + v**2) / 100)
            return np.rint(300 + (counts - 300.0) * np.exp(-speck)).astype("<u2")

    written = Moving(tmp_path, azimuths_deg=(0.0,), tilts_deg=(0.0,), repeats=REPEATS)
    documents = written.run(0.0, stop=False, alter=_with_mean_of_darks)
    processor = Processor(65000.0, 10.5)

    def angle(exposures):
        """The angle after so many exposures of the sample."""
        series = SeriesExposures(documents[0][1])
        for name, doc in documents:
            if exposures or not (name == "event" and "primary" in doc["descriptor"]):
                series.add(documents[0][1]["uid"], name, doc)
                exposures -= name == "event" and "primary" in doc["descriptor"]
        return series.newest()

    return ExposureWatch(processor), processor, angle, RunExposures.of(documents)


def test_each_exposure_is_told_with_how_far_the_sample_moved_since_the_one_before(watched):
    watch, _, angle, run = watched
    for number in range(1, 2 * REPEATS + 1):
        watch.look(angle(number))
    entries = watch.entries
    assert [(one["helicity"], one["repeat"]) for one in entries] == [
        (helicity, repeat) for helicity in (1, -1) for repeat in range(1, REPEATS + 1)
    ]
    for entry, exposure in zip(entries, run.stream("primary"), strict=True):
        assert entry["mean_counts"] == pytest.approx(exposure.read().mean() - DARK_COUNTS, abs=0.1)
        assert entry["saturated_pixels"] == 0
        if entry["repeat"] == 1:
            assert entry["drift_vu_pixels"] is None
        else:
            assert entry["drift_vu_pixels"] == pytest.approx([0, STEP_U_PIXELS], abs=0.08)


def test_of_a_backlog_the_newest_exposures_alone_are_compared(watched):
    watch, _, angle, _ = watched
    watch.look(angle(2 * REPEATS))
    known = [one["drift_vu_pixels"] is not None for one in watch.entries]
    assert known == [False] * (REPEATS + 1) + [True] * (REPEATS - 1)


def test_a_helicity_that_is_done_is_averaged_before_the_other_is(watched, monkeypatch):
    watch, processor, angle, _ = watched
    averaged = []
    average = processor._average

    def recorded(angle, helicity, where):
        averaged.append((helicity, len(angle.exposures[helicity])))
        return average(angle, helicity, where)

    monkeypatch.setattr(processor, "_average", recorded)
    watch.prepare(angle(REPEATS))
    assert averaged == []
    watch.prepare(angle(REPEATS + 1))
    assert averaged == [(1, REPEATS)]
    processor.signals(angle(2 * REPEATS))
    assert averaged == [(1, REPEATS), (-1, REPEATS)]


def test_more_exposures_of_an_angle_than_are_told_of_are_looked_at_once(watched, monkeypatch):
    _, processor, angle, _ = watched
    monkeypatch.setattr(live_exposures, "KEPT", REPEATS + 1)
    watch = ExposureWatch(processor)
    watch.look(angle(2 * REPEATS))
    told = watch.entries
    assert [(one["helicity"], one["repeat"]) for one in told] == [
        (1, REPEATS),
        *((-1, repeat) for repeat in range(1, REPEATS + 1)),
    ]
    watch.look(angle(2 * REPEATS))
    assert watch.entries == told

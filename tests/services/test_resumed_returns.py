"""Which returns to zero tilt a resumed measurement takes, as the journal of its data folder tells."""

import pytest

from mistral_txm.plans import Key, Measurement
from mistral_txm.plans.return_to_zero import return_keys
from mistral_txm.plans.steps import steps
from mistral_txm.profile_collection.command_line import main
from mistral_txm.profile_collection.measured import Measured
from mistral_txm.services.verification import read_series

MEASUREMENT = Measurement.from_dict(
    {
        "sample": {"name": "film"},
        "tilts": [
            {"first_deg": -5.0, "last_deg": 20.0, "step_deg": 25.0, "exposure_s": 1.0, "repeats": 2}
        ],
        "azimuths_deg": [0.0, 90.0],
        "energies_ev": [707.4],
        "flats": {"exposure_s": 1.0, "repeats": 4},
        "darks": {"repeats": 4},
        "return_to_zero": {"repeats": 2},
    }
)
BACK = {phi: [key for key in return_keys(MEASUREMENT) if key.phi_deg == phi] for phi in (0.0, 90.0)}


@pytest.fixture
def series(tmp_path, written_series):
    return written_series(tmp_path, azimuths_deg=(0.0, 90.0), tilts_deg=(-5.0, 20.0))


def left(series, *runs):
    """Return what a resumed measurement takes of the sample: stream and key."""
    for documents in runs:
        series.record(documents)
    (record,) = read_series(series.data)
    skip = Measured("written", MEASUREMENT, {707.4: record}).verified(series.data)
    return [
        (step.stream, key)
        for phi_deg in MEASUREMENT.azimuths_deg
        for step in steps(MEASUREMENT, phi_deg, skip)
        if step.shows_sample
        for key in step.keys
    ]


def test_a_return_that_is_missing_is_taken_as_long_as_the_sample_was_not_turned(series):
    first = series.run(0.0, returned=BACK[0.0][:1])
    taken = left(series, first)
    assert [key for stream, key in taken if stream == "zero"] == [*BACK[0.0][1:], *BACK[90.0]]
    assert {key.phi_deg for stream, key in taken if stream == "primary"} == {90.0}
    assert left(series, series.run(90.0)) == [("zero", key) for key in BACK[90.0]]


@pytest.mark.parametrize("taken", [0, 3, 4])
def test_status_tells_of_a_return_that_resume_takes(series, taken, capsys):
    runs = [series.run(0.0, returned=BACK[0.0]), series.run(90.0, returned=BACK[90.0][:taken])]
    for (_, start), *_ in runs:
        start |= {"measurement": MEASUREMENT.to_dict(), "energy_ev": 707.4}
    series.record(runs[0])
    assert main(["status", "--data", str(series.data)]) == 0
    assert "zero" not in capsys.readouterr().out  # there is more to take: it comes with that
    assert len(left(series, runs[1])) == 4 - taken
    assert main(["status", "--data", str(series.data)]) == 0
    stands, *more = capsys.readouterr().out.splitlines()
    assert stands.startswith("series written: complete, 16 of 16 exposures accepted, 0 missing")
    told = f"the return to zero tilt at phi 90 deg, theta -5 deg lacks {4 - taken} exposure"
    assert [line.partition(told)[0] for line in more] == ["  "] * (taken < 4)
    assert all(line.endswith("; `resume` takes what it lacks") for line in more)


def test_a_return_that_was_taken_is_not_taken_again(series):
    first = series.run(0.0, returned=BACK[0.0])
    again = [Key(0.0, 20.0, 1, 1)]
    rejection = series.reject(again)
    second = series.run(90.0, returned=BACK[90.0])
    assert left(series, first, rejection, second) == [("primary", key) for key in again]


def test_of_a_return_a_damaged_frame_is_listed_and_taken_again(series, capsys):
    runs = [series.run(0.0, returned=BACK[0.0]), series.run(90.0, returned=BACK[90.0])]
    series.damage(runs[1])
    assert left(series, *runs) == [("zero", BACK[90.0][2])]
    assert main(["verify", "--data", str(series.data)]) == 0  # the volume is whole
    assert "16 of 16 exposures good, 0 missing, 1 damaged\n  damaged: " in capsys.readouterr().out

"""Which returns to zero tilt a resumed measurement takes, as the journal of its data folder tells."""

from types import SimpleNamespace

import bluesky.plan_stubs as bps
import pytest
from bluesky import RunEngine

from mistral_txm.plans import Key, Measurement, PlanError
from mistral_txm.plans.return_to_zero import return_keys
from mistral_txm.plans.steps import steps
from mistral_txm.profile_collection import operator_plans
from mistral_txm.profile_collection.command_line import main
from mistral_txm.profile_collection.measured import Measured
from mistral_txm.profile_collection.outcome import Outcome
from mistral_txm.profile_collection.prompt import greet
from mistral_txm.profile_collection.queue_plans import queue_plans
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
    assert all(
        line.endswith(
            ": RE(resume('written')), or mistral-txm resume --series written, takes what it lacks"
        )
        for line in more
    )


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


LACKS = "the return to zero tilt at phi 90 deg, theta -5 deg lacks 4 exposures"


@pytest.fixture
def measure(tmp_path, written_series):
    """Take the whole of a measurement, all but its last return, or one azimuth; or let frames be damaged or lost."""

    def make(uid, part):
        series = written_series(tmp_path, azimuths_deg=(0.0, 90.0), tilts_deg=(-5.0, 20.0), uid=uid)
        runs = [series.run(0.0, returned=BACK[0.0])]
        if part != "half":
            runs.append(series.run(90.0, returned=() if part == "no return" else BACK[90.0]))
        for run in runs:
            run[0][1].update(measurement=MEASUREMENT.to_dict(), energy_ev=707.4)
            series.record(run)
        if part == "damaged":
            series.damage(runs[1])
        for path in (tmp_path / "frames").glob(f"{uid}-*.h5") if part == "lost" else ():
            path.unlink()
        return runs

    return make


@pytest.fixture
def taken(tmp_path, monkeypatch):
    """Return which series `RE(resume())` goes on with, and how many exposures it takes; and the command line."""
    asked = []
    monkeypatch.setattr(
        operator_plans.plans,
        "vector_tomography",
        lambda _instrument, what, series, skip, looked: asked.append(
            (
                series,
                sum(
                    len(step.keys)
                    for phi in (0.0, 90.0)
                    for step in steps(what, phi, skip)
                    if step.shows_sample
                ),
            )
        ),
    )
    monkeypatch.setattr(operator_plans, "looked_before", lambda *_: None)
    instrument = SimpleNamespace(configuration=SimpleNamespace(ccd=None))

    def resume(capsys):
        operator_plans.OperatorPlans(instrument, tmp_path).resume()
        (found,) = asked
        asked.clear()
        assert (
            main(["resume", "--data", str(tmp_path)]) == 3
        )  # not simulated: it says what it would go on with
        assert f"resume: series {found[0]} was measured at a beamline" in capsys.readouterr().err
        return found

    return resume


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("a", "half"), ("b", "no return"), ("b", 4)),
        (("a", "no return"), ("b", "whole"), ("a", 4)),
        (("a", "no return"), ("b", "half"), ("b", 12)),
        (("a", "half"), ("b", "damaged"), ("b", 1)),
        (("a", "lost"), ("b", "whole"), ("a", 24)),
    ],
)
def test_resume_takes_the_newest_that_lacks_something_wherever_it_is_typed(
    measure, taken, capsys, first, second, expected
):
    measure(*first)
    measure(*second)
    assert taken(capsys) == expected


def test_whoever_tells_of_a_return_names_its_series(measure, tmp_path, capsys):
    """Also where a newer one lacks something, so that what is said to be typed does what is said."""
    first, last = measure("a", "no return")
    outcome = Outcome(tmp_path)
    for name, document in (*first, *last):
        outcome(name, document)
    (told,) = outcome.tell(str)
    assert told == (
        f"series a: 16 exposures taken; 16 of 16 exposures good; {LACKS}: RE(resume('a')) takes the rest"
    )
    instrument = SimpleNamespace(
        configuration=SimpleNamespace(name="MISTRAL"),
        devices={},
        shutter=SimpleNamespace(is_open=False),
    )
    monitor = SimpleNamespace(wait_ready=lambda _: {"uri": ""})
    greet(instrument, tmp_path, monitor)
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"interrupted: series a of film, {LACKS}: RE(resume('a')) takes the rest"
    )
    measure("b", "half")
    assert main(["status", "--data", str(tmp_path)]) == 0
    assert (
        f"  {LACKS}: RE(resume('a')), or mistral-txm resume --series a, takes what it lacks\n"
    ) in capsys.readouterr().out
    assert main(["resume", "--series", "a", "--data", str(tmp_path)]) == 3
    assert "series a was measured at a beamline" in capsys.readouterr().err


def test_what_lacks_its_return_alone_goes_on_in_the_queue_and_at_its_azimuth(
    measure, tmp_path, monkeypatch
):
    measure("a", "no return")
    resumed = []
    session = SimpleNamespace(
        data=tmp_path, instrument=None, resume=lambda uid: resumed.append(uid) or bps.null()
    )
    measuring = queue_plans(session)["measure"](MEASUREMENT.to_dict())
    RunEngine({}, context_managers=[])(measuring)
    assert resumed == ["a"]
    monkeypatch.setattr(operator_plans, "looked_before", lambda *_: None)
    instrument = SimpleNamespace(configuration=SimpleNamespace(ccd=None))
    operator = operator_plans.OperatorPlans(instrument, tmp_path)
    operator.next_azimuth(90.0).close()
    with pytest.raises(PlanError, match="nothing is missing at phi = 0 deg"):
        operator.next_azimuth(0.0)

from types import SimpleNamespace

import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd import Signal

from mistral_txm.devices.log import Log
from mistral_txm.devices.sample import Azimuth
from mistral_txm.plans.operator import turn_sample
from mistral_txm.profile_collection.absent_operator import AbsentOperator


@pytest.fixture
def azimuth():
    azimuth = Azimuth(name="azimuth")
    azimuth.set(0.0)
    return azimuth


@pytest.fixture
def engine(azimuth):
    engine = RunEngine({})
    engine.register_command("input", AbsentOperator(engine, azimuth))
    return engine


@pytest.fixture
def turned(azimuth):
    """A plan that asks for the sample to be turned."""
    shutter = Signal(name="shutter", value="open")
    instrument = SimpleNamespace(azimuth=azimuth, shutter=shutter, log=Log(name="log"))
    return turn_sample(instrument, 102.0)


def test_the_plan_pauses_with_its_reason_and_goes_on_when_the_azimuth_was_said(
    engine, azimuth, turned, caplog
):
    with pytest.raises(RunEngineInterrupted):
        engine(turned)
    assert engine.state == "paused"
    (line,) = [record.message for record in caplog.records if "paused" in record.message]
    assert line == "paused: turn the sample to phi = 102 deg, set azimuth, and resume"
    azimuth.set(101.5)
    engine.resume()
    assert (engine.state, azimuth.phi_deg) == ("idle", 101.5)


def test_resumed_without_an_answer_it_pauses_again(engine, azimuth, turned):
    told = []
    engine.subscribe(lambda _, event: told.append(event["data"].get("log_kind")), "event")
    with pytest.raises(RunEngineInterrupted):
        engine(turned)
    with pytest.raises(RunEngineInterrupted):
        engine.resume()
    azimuth.set(102.0)
    engine.resume()
    assert engine.state == "idle"
    assert told == ["ask", "go_on"]


def test_an_azimuth_far_from_the_plan_has_to_be_said_twice(engine, azimuth, turned):
    with pytest.raises(RunEngineInterrupted):
        engine(turned)
    azimuth.set(90.0)
    with pytest.raises(RunEngineInterrupted):
        engine.resume()
    azimuth.set(90.0)
    engine.resume()
    assert (engine.state, azimuth.phi_deg) == ("idle", 90.0)


def test_what_only_a_person_can_answer_ends_the_plan(engine):
    with pytest.raises(RuntimeError, match="nobody is there to answer 'Coffee"):
        engine([Msg("input", None, prompt="Coffee? ")])

"""Which of the measurements that were begun in a data folder are meant, and one that cannot be read among them."""

import logging
from types import SimpleNamespace

import bluesky.plan_stubs as bps
import pytest
from bluesky import RunEngine

from mistral_txm.plans import PlanError, small
from mistral_txm.plans.measurement import Sample
from mistral_txm.plans.steps import manifest
from mistral_txm.profile_collection import queue_plans
from mistral_txm.profile_collection.command_line import main
from mistral_txm.profile_collection.measured import measured
from mistral_txm.profile_collection.operator_plans import OperatorPlans
from mistral_txm.profile_collection.prompt import greet
from mistral_txm.services.journal import JournalWriter

FILM = small(Sample(name="film"))
WHY = (
    "series old: its measurement is none that this version of mistral-txm can read (unknown key 'dark'; "
    "the nearest valid key is 'darks'); go on with it in the version that began it, or name another series"
)


@pytest.fixture
def begin(tmp_path):
    """Begin series in a data folder; `old` is one of another version."""

    def make(*names):
        with JournalWriter(tmp_path / "journal") as journal:
            for number, name in enumerate(names):
                told = FILM.to_dict() | ({"dark": {}} if name == "old" else {})
                start = {
                    "uid": f"run {number}",
                    "time": float(number),
                    "series": name,
                    "phi_deg": 0.0,
                    "energy_ev": 707.4,
                    "measurement": told,
                    "planned_keys": manifest(FILM),
                }
                journal("start", start)
                stop = {"uid": f"stop {number}", "run_start": start["uid"], "time": number + 0.5}
                journal("stop", stop | {"exit_status": "abort"})
        return tmp_path

    return make


def test_one_of_another_version_is_left_out_and_told_of_once(begin, caplog, capsys):
    data = begin("old", "new")
    assert [each.uid for each in measured(data)] == ["new"]
    shutter, monitor = SimpleNamespace(is_open=False), {"uri": "http://localhost"}
    beamline = SimpleNamespace(name="MISTRAL")
    instrument = SimpleNamespace(configuration=beamline, devices={}, shutter=shutter)
    greet(instrument, data, SimpleNamespace(wait_ready=lambda _: monitor))
    assert capsys.readouterr().out.splitlines()[-1] == (
        "interrupted: series new of film, 276 exposures missing: RE(resume('new')) takes the rest"
    )
    assert caplog.record_tuples == [("mistral_txm.measurement", logging.WARNING, WHY)]


def test_it_keeps_nobody_from_another_one(begin, capsys):
    data = begin("old", "new")
    operator = OperatorPlans(SimpleNamespace(azimuth=None), data)
    operator.retake(0.0, phi=0.0, series="new").close()
    operator.retake(0.0, phi=0.0).close()
    for chosen in ((), ("--series", "new")):
        assert main(["resume", *chosen, "--data", str(data)]) == 3
        assert "resume: series new was measured at a beamline" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["old", "ol", None])
def test_where_it_is_meant_one_line_says_what_is_wrong(begin, capsys, name):
    """By its name, the first characters of that, or as the newest."""
    data = begin("new", "old")
    operator = OperatorPlans(None, data)
    for ask in (
        lambda: operator.retake(0.0, phi=0.0, series=name),
        lambda: operator.reject(0.0, phi=0.0, reason="it moved", series=name),
        lambda: operator.resume(name) if name else operator.next_azimuth(0.0),
    ):
        with pytest.raises(PlanError) as refusal:
            ask()
        assert str(refusal.value) == WHY
    if name:
        assert main(["resume", "--series", name, "--data", str(data)]) == 2
        assert capsys.readouterr().err == f"mistral-txm resume: {WHY}\n"


def test_the_queue_begins_no_series_of_its_name(begin, monkeypatch):
    session = SimpleNamespace(data=begin("old"), instrument=None)
    begun = []
    monkeypatch.setattr(
        queue_plans.plans,
        "vector_tomography",
        lambda *_, series: begun.append(series) or bps.null(),
    )
    measure = queue_plans.queue_plans(session)["measure"]
    RE = RunEngine({}, context_managers=[])
    with pytest.raises(PlanError) as refusal:
        RE(measure(FILM.to_dict(), "old"))
    assert str(refusal.value) == WHY
    RE(measure(FILM.to_dict()))
    assert begun == [None]

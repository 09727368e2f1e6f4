"""Suspenders: what happens where the light is lost at any message of a series; one line for the operator."""

import logging
from types import SimpleNamespace
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd import Signal
from ophyd.status import Status

from mistral_txm.plans import Measurement, tilt_series
from mistral_txm.profile_collection.engine_words import use_our_words
from mistral_txm.profile_collection.suspenders import LightSuspender, install, light_suspenders


class Shutter:
    """A shutter that a RunEngine opens, and closes when it stops what it has moved."""

    name = "shutter"
    parent = None

    def __init__(self):
        self.status = Signal(name="shutter", value="Closed")
        self.openings = 0

    def set(self, value):
        self.openings += value == "Open"
        self.status.put(value)
        status = Status()
        status.set_finished()
        return status

    def stop(self, *, success=False):
        self.status.put("Closed")


def watch(name, shutter, recovery_s=0.0):
    def trouble(value):
        return "" if value >= 50 else f"{name}: {value:.1f} mA, expected at least 50 mA"

    return LightSuspender(Signal(name=name, value=250.0), trouble, shutter, recovery_s)


@pytest.fixture
def bench():
    """A RunEngine with two suspenders, and a plan of five exposures, each after a checkpoint."""
    shutter = Shutter()
    suspenders = [watch(name, shutter) for name in ("ring_current", "front_end")]
    RE = RunEngine({}, context_managers=[])
    install(RE, suspenders)
    exposed = []

    def exposures(during=lambda number: ()):
        for number in range(3):
            yield from bps.checkpoint()
            yield from bps.mv(shutter, "Open")
            for action in during(number):
                action()
            yield from bps.sleep(0.2)
            exposed.append(number)
        yield from bps.checkpoint()
        yield from bps.mv(shutter, "Closed")

    yield SimpleNamespace(
        RE=RE, shutter=shutter, suspenders=suspenders, exposures=exposures, exposed=exposed
    )
    RE.clear_suspenders()


def later(bench, seconds, action):
    return lambda: bench.RE.loop.call_soon_threadsafe(bench.RE.loop.call_later, seconds, action)


def test_light_that_is_lost_suspends_once_and_says_one_line(bench, capsys, caplog):
    use_our_words()
    caplog.set_level(logging.INFO, "mistral_txm.measurement")
    ring_current, _ = bench.suspenders

    def lose(number):
        if number == 1 and bench.shutter.openings == 2:
            yield lambda: ring_current(0.0)
            yield later(bench, 0.3, lambda: ring_current(250.0))

    bench.RE(bench.exposures(lose))
    assert bench.exposed == [0, 1, 2]
    assert bench.shutter.openings == 4  # once more than there are exposures
    assert capsys.readouterr().out == ""
    assert [record.getMessage() for record in caplog.records] == [
        "ring_current: 0.0 mA, expected at least 50 mA; waiting with the shutter closed",
        "the light is back; going on",
    ]


def test_the_plan_goes_on_when_all_is_well_for_the_time_of_recovery(bench):
    ring_current, front_end = bench.suspenders
    for each in bench.suspenders:
        each._sleep = 0.3
    clock = bench.RE.loop.time
    moments = {}

    def lose(number):
        moments[bench.shutter.openings] = clock()
        if bench.shutter.openings == 1:
            yield lambda: ring_current(0.0)
            yield lambda: front_end(0.0)
            yield later(bench, 0.2, lambda: ring_current(250.0))
            yield later(bench, 0.3, lambda: front_end(250.0))
            yield later(bench, 0.4, lambda: ring_current(0.0))
            yield later(bench, 0.5, lambda: ring_current(250.0))

    def note(message):
        if message.command == "_resume_from_suspender":
            moments["goes on"] = clock()

    bench.RE.msg_hook = note
    bench.RE(bench.exposures(lose))
    assert bench.exposed == [0, 1, 2]
    assert moments["goes on"] - moments[1] >= 0.79


def test_what_needs_no_light_goes_on_without(bench):
    bench.suspenders[0](0.0)
    bench.RE(bps.sleep(0.05))
    assert bench.RE.state == "idle"


def test_a_plan_that_begins_without_light_waits_where_it_opens_the_shutter(bench):
    ring_current, _ = bench.suspenders
    ring_current(0.0)
    later(bench, 0.3, lambda: ring_current(250.0))()
    bench.RE(bench.exposures())
    assert bench.exposed == [0, 1, 2]
    assert bench.shutter.openings == 4


def test_a_pause_while_suspended_does_not_skip_the_wait(bench):
    ring_current, _ = bench.suspenders
    pause = lambda: bench.RE.loop.create_task(bench.RE._request_pause_coro())  # noqa: E731

    def lose(number):
        if bench.shutter.openings == 1:
            yield lambda: ring_current(0.0)
            yield later(bench, 0.2, pause)

    with pytest.raises(RunEngineInterrupted):
        bench.RE(bench.exposures(lose))
    later(bench, 0.5, lambda: ring_current(250.0))()
    bench.RE.resume()
    assert bench.exposed == [0, 1, 2]
    assert bench.shutter.openings == 5  # also where it was resumed without light


def test_light_that_is_lost_in_a_pause_is_waited_for(bench):
    ring_current, _ = bench.suspenders
    pause = lambda: bench.RE.loop.create_task(bench.RE._request_pause_coro())  # noqa: E731

    with pytest.raises(RunEngineInterrupted):
        bench.RE(bench.exposures(lambda _: [pause] if bench.shutter.openings == 1 else []))
    ring_current(0.0)
    later(bench, 0.3, lambda: ring_current(250.0))()
    bench.RE.resume()
    assert bench.exposed == [0, 1, 2]


def test_removed_ones_let_a_suspended_plan_go(bench):
    bench.suspenders[0](0.0)
    later(bench, 0.2, bench.RE.clear_suspenders)()
    bench.RE(bench.exposures())
    assert bench.exposed == [0, 1, 2]
    assert bench.RE.suspenders == ()


@pytest.fixture
def brief():
    """Two angles, one or two exposures each."""
    return Measurement.from_dict(
        {
            "sample": {"name": "film"},
            "tilts": [
                {"first_deg": 0.0, "last_deg": 0.0, "exposure_s": 1.0, "repeats": 2},
                {"first_deg": 2.0, "last_deg": 2.0, "exposure_s": 1.0, "repeats": 1},
            ],
            "azimuths_deg": [0.0],
            "flats": {"exposure_s": 1.0, "repeats": 1},
            "darks": {"repeats": 1},
            "energies_ev": [707.4],
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("for_how_long", ["a moment", "until it is noticed"])
def test_light_lost_at_each_message_repeats_nothing_and_loses_nothing(
    instrument: Any, brief: Any, for_how_long: str
) -> None:
    """At every message of a series: in mid-move, in a baseline, within an Event, while it is put back."""
    instrument.azimuth.set(0.0)
    suspender = light_suspenders(instrument)[1]
    suspender._sig = Signal(name="ring_current", value=250.0)
    RE = RunEngine({}, context_managers=[])
    install(RE, [suspender])
    documents: list[tuple[str, Any]] = []
    RE.subscribe(lambda name, doc: documents.append((name, doc)))
    seen: dict[int, Msg] = {}
    trips = suspensions = 0
    lost = False

    def back() -> None:
        nonlocal lost
        suspender(250.0)
        lost = False

    def hook(message: Msg) -> None:
        nonlocal trips, suspensions, lost
        if message.command == "_start_suspender":
            suspensions += 1
            RE.loop.call_later(0.005, back)
        elif lost and for_how_long == "a moment" and not suspender._light_is_needed:
            back()
        elif not lost and id(message) not in seen and suspensions < 300:  # each has new messages
            seen[id(message)] = message  # kept, so that its id stays its own
            lost = True
            trips += 1
            suspender(0.0)
            if message.command == "wait_for":  # no message comes before the light
                RE.loop.call_later(0.01, back)

    RE.msg_hook = hook
    RE(tilt_series(instrument, brief, 0.0, series=f"light lost for {for_how_long}"))
    back()
    RE.clear_suspenders()
    print(f"{for_how_long}: {trips} trips, {suspensions} suspensions")
    (stop,) = (doc for name, doc in documents if name == "stop")
    assert stop["exit_status"] == "success"
    primary = next(d["uid"] for n, d in documents if n == "descriptor" and d["name"] == "primary")
    columns = ("key_phi_deg", "key_theta_deg", "key_helicity", "key_repeat")
    taken = [
        tuple(doc["data"][column] for column in columns)
        for name, doc in documents
        if name == "event" and doc["descriptor"] == primary
    ]
    assert taken == list(map(tuple, brief.planned_keys()))
    assert suspensions > 10
    assert not instrument.shutter.is_open

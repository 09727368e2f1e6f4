"""What goes wrong, over Channel Access: the series is complete, and its frames are those of an undisturbed one."""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from bluesky import Msg, RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd import EpicsSignal

from mistral_txm.plans import Measurement, Sample, tilt_series, vector_tomography
from mistral_txm.plans.measurement import Darks, Flats, Tilts

pytestmark = pytest.mark.slow

Documents = list[tuple[str, dict[str, Any]]]
COLUMNS = ("key_phi_deg", "key_theta_deg", "key_helicity", "key_repeat")


@pytest.fixture(scope="module")
def brief() -> Measurement:
    """Two tilts, two exposures of each helicity."""
    return Measurement(
        sample=Sample(name="film"),
        tilts=(Tilts(first_deg=0.0, last_deg=2.0, step_deg=2.0, exposure_s=1.0, repeats=2),),
        azimuths_deg=(0.0,),
        energies_ev=(707.4,),
        flats=Flats(exposure_s=1.0, repeats=1),
        darks=Darks(repeats=1),
    )


class Taken:
    """What the documents of a measurement say."""

    def __init__(self, documents: Documents) -> None:
        names = {d["uid"]: d["name"] for name, d in documents if name == "descriptor"}
        events = [(names[d["descriptor"]], d["data"]) for name, d in documents if name == "event"]
        self.keys = [tuple(data[c] for c in COLUMNS) for name, data in events if name == "primary"]
        self.crc32 = {
            tuple(data[c] for c in COLUMNS): data["ccd_frame_crc32"]
            for name, data in events
            if name == "primary"
        }
        self.log = [(data["log_kind"], data["log_text"]) for name, data in events if name == "log"]
        self.ends = [d["exit_status"] for name, d in documents if name == "stop"]
        self.primary = [data for name, data in events if name == "primary"]

    @property
    def kinds(self) -> Counter[str]:
        return Counter(kind for kind, _ in self.log)


@pytest.fixture
def take(instrument: Any) -> Any:
    """Take a plan to its end, as a person would who resumes whatever pauses."""

    def run(plan: Any, hook: Any = None, resume: Any = lambda: None) -> Taken:
        documents: Documents = []
        engine = RunEngine({}, context_managers=[])
        engine.subscribe(lambda name, doc: documents.append((name, dict(doc))))
        engine.msg_hook = hook
        instrument.azimuth.set(0.0)
        act: Any = lambda: engine(plan)  # noqa: E731  # replaced after the first pause
        while True:
            try:
                act()
                break
            except RunEngineInterrupted:
                assert not instrument.shutter.is_open
                resume()
                act = engine.resume
        return Taken(documents)

    return run


@pytest.fixture
def fault(instrument: Any) -> Iterator[Any]:
    """Set a fault; all are cleared at the end."""
    signals: dict[str, EpicsSignal] = {}

    def put(name: str, value: float = 1) -> None:
        if name not in signals:
            signals[name] = EpicsSignal(f"SIM:FAULT:{name}", name=name)
            signals[name].wait_for_connection(timeout=120)
        signals[name].put(value, wait=True)

    yield put
    for signal in signals.values():
        signal.put(0, wait=True)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, dict[Any, int]]:
    """Checksums of an undisturbed series, once it has been taken."""
    return {}


@pytest.fixture
def expected(undisturbed: Any, take: Any, instrument: Any, brief: Measurement) -> dict[Any, int]:
    if not undisturbed:
        taken = take(tilt_series(instrument, brief, 0.0, series="undisturbed"))
        assert taken.log == []
        undisturbed["crc32"] = taken.crc32
    crc32: dict[Any, int] = undisturbed["crc32"]
    return crc32


def at_exposure(number: int, act: Any) -> Any:
    """Do something just before the exposure of that number, from 1."""
    count = 0

    def hook(message: Msg) -> None:
        nonlocal count
        count += message.command == "trigger"
        if message.command == "trigger" and count == number:
            thread = threading.Thread(target=act)
            thread.start()
            thread.join()

    return hook


FIRST_VIEW = 4
"""Number of the first exposure of the sample: one dark frame and two flats come before."""

HITS: list[tuple[str, float, str, str]] = [
    ("ccd_dropped_frame", 1, "repeat", "taken again"),
    ("ccd_dropped_frame", 2, "repeat", "taken again"),
    ("ccd_hang", 1, "repeat", "no frame within"),
    ("ccd_repeated_id", 1, "repeat", "bit by bit"),
    ("ccd_repeated_frame", 1, "repeat", "bit by bit"),
    ("injection", 1, "repeat", "an injection fell into the exposure"),
]


@pytest.mark.parametrize(("name", "times", "kind", "text"), HITS)
def test_an_exposure_that_is_hit_is_taken_again(
    instrument: Any,
    take: Any,
    fault: Any,
    brief: Measurement,
    expected: dict[Any, int],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    times: int,
    kind: str,
    text: str,
) -> None:
    patient = instrument.ccd.settings
    monkeypatch.setattr(instrument.ccd, "settings", patient.model_copy(update={"timeout_s": 1.0}))
    hook = at_exposure(FIRST_VIEW, lambda: fault(name, times))
    taken = take(tilt_series(instrument, brief, 0.0, series=f"{name} {times}"), hook)
    assert taken.keys == list(brief.planned_keys())
    assert taken.crc32 == expected
    assert taken.kinds == {kind: times}
    assert all(text in line for _, line in taken.log)
    assert taken.ends == ["success"]


def test_a_camera_that_fails_for_good_is_brought_before_a_person(
    instrument: Any, take: Any, fault: Any, brief: Measurement, expected: dict[Any, int]
) -> None:
    hook = at_exposure(FIRST_VIEW, lambda: fault("ccd_dropped_frame", -1))
    plan = tilt_series(instrument, brief, 0.0, series="dropped for good")
    taken = take(plan, hook, lambda: fault("ccd_dropped_frame", 0))
    assert taken.kinds == {"repeat": 2, "pause": 1, "go_on": 1}
    assert taken.crc32 == expected
    assert len(taken.keys) == len(expected)


def test_a_beam_that_is_lost_is_waited_for_and_the_exposure_it_hit_is_taken_again(
    instrument: Any, take: Any, fault: Any, brief: Measurement, expected: dict[Any, int]
) -> None:
    def lose_it() -> None:
        fault("beam_lost", 1)
        threading.Timer(2.0, fault, ("beam_dump", 0)).start()

    hook = at_exposure(FIRST_VIEW + 2, lose_it)
    taken = take(tilt_series(instrument, brief, 0.0, series="beam lost"), hook)
    assert taken.kinds == {"repeat": 1, "wait": 1, "go_on": 1}
    assert "ring_current" in taken.log[0][1]
    assert taken.keys == list(brief.planned_keys())
    assert taken.crc32 == expected
    assert all(data["light_injection"] == 0 for data in taken.primary)


def test_a_front_end_that_closes_is_waited_for(
    instrument: Any, take: Any, fault: Any, brief: Measurement, expected: dict[Any, int]
) -> None:
    def close_it() -> None:
        fault("front_end_closed", 1)
        threading.Timer(2.0, fault, ("front_end_closed", 0)).start()

    hook = at_exposure(FIRST_VIEW + 1, close_it)
    taken = take(tilt_series(instrument, brief, 0.0, series="front end"), hook)
    assert "front_end: closed" in taken.log[0][1]
    assert taken.kinds["go_on"] == 1
    assert taken.crc32 == expected
    assert len(taken.keys) == len(expected)


def test_a_shutter_that_sticks_is_brought_before_a_person(
    instrument: Any,
    take: Any,
    fault: Any,
    brief: Measurement,
    expected: dict[Any, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient = instrument.shutter.settings
    monkeypatch.setattr(
        instrument.shutter, "settings", patient.model_copy(update={"timeout_s": 0.5})
    )
    seen: list[str] = []

    def stick(message: Msg) -> None:
        if message.command == "set" and message.obj is instrument.key and message.args[0].helicity:
            if not seen:
                thread = threading.Thread(target=fault, args=("shutter_stuck_closed", 1))
                thread.start()
                thread.join()
            seen.append(message.command)

    plan = tilt_series(instrument, brief, 0.0, series="stuck")
    taken = take(plan, stick, lambda: fault("shutter_stuck_closed", 0))
    assert taken.kinds == {"repeat": 2, "pause": 1, "go_on": 1}
    assert "shutter: not open within 0.5 s" in taken.log[0][1]
    assert taken.crc32 == expected


@pytest.mark.parametrize(
    ("stalls", "kinds"), [(1, {"repeat": 1}), (2, {"repeat": 1, "pause": 1, "go_on": 1})]
)
def test_a_tilt_that_stalls_is_sent_once_more(
    instrument: Any,
    take: Any,
    fault: Any,
    brief: Measurement,
    expected: dict[Any, int],
    stalls: int,
    kinds: dict[str, int],
) -> None:
    hook = at_exposure(FIRST_VIEW, lambda: fault("theta:stall", stalls))
    taken = take(tilt_series(instrument, brief, 0.0, series=f"stall {stalls}"), hook)
    assert taken.kinds == kinds
    assert "theta" in taken.log[0][1]
    assert taken.crc32 == expected
    assert taken.keys == list(brief.planned_keys())


@pytest.mark.parametrize("edges", ["in_turn", "interleaved"])
def test_two_edges_are_two_series_side_by_side(
    instrument: Any, take: Any, brief: Measurement, edges: str
) -> None:
    both = brief.model_copy(update={"energies_ev": (707.4, 778.1), "edges": edges})
    documents: Documents = []
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(lambda name, doc: documents.append((name, dict(doc))))
    instrument.azimuth.set(0.0)
    energy_ev, focus_um = (
        instrument.energy.position,
        instrument.polarization.focus_positive_um.get(),
    )
    engine(vector_tomography(instrument, both, series=f"edges {edges}"))
    starts = {d["uid"]: d for name, d in documents if name == "start"}
    run_of = {d["uid"]: d["run_start"] for name, d in documents if name == "descriptor"}
    streams = {d["uid"]: d["name"] for name, d in documents if name == "descriptor"}
    assert sorted(start["energy_ev"] for start in starts.values()) == [707.4, 778.1]
    for uid in starts:
        mine = [
            tuple(d["data"][c] for c in COLUMNS)
            for name, d in documents
            if name == "event"
            and streams[d["descriptor"]] == "primary"
            and run_of[d["descriptor"]] == uid
        ]
        assert mine == list(both.planned_keys())
    assert [d["exit_status"] for name, d in documents if name == "stop"] == ["success"] * 2
    assert instrument.energy.position == pytest.approx(energy_ev, abs=0.05)
    assert instrument.polarization.focus_positive_um.get() == focus_um


def test_a_warm_camera_pauses_before_the_next_exposure(
    instrument: Any, take: Any, fault: Any, brief: Measurement
) -> None:
    hook = at_exposure(FIRST_VIEW, lambda: fault("cooler_off", 1))
    plan = tilt_series(instrument, brief, 0.0, series="warm")
    taken = take(plan, hook, lambda: fault("cooler_off", 0))
    assert taken.kinds == {"pause": 1, "go_on": 1}
    assert "check the camera's cooler" in taken.log[0][1]
    assert taken.keys == list(brief.planned_keys())

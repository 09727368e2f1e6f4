"""What the live reconstruction advises reaches a plan between two tilts, and only there."""

import math
from collections.abc import Callable, Collection
from typing import Any

import pytest

from mistral_txm.devices.instrument import Instrument
from mistral_txm.devices.key import Key
from mistral_txm.plans.measurement import Measurement, ReturnToZero, Stop
from mistral_txm.plans.tomography import tilt_series, vector_tomography

MakePlayer = Callable[..., Any]
FLAG = "phi 0 deg, theta -30 deg: the sample slipped"
DAMAGE = "phi 0: back at 0 deg: the sample may have been damaged"
SAME = "phi 102: back at 0 deg: the sample may have been damaged"


@pytest.fixture
def wanted(tiny: Measurement) -> Measurement:
    return tiny.model_copy(update={"stop": Stop(resolution_nm=60.0)})


def advised(scene: Any, measured: dict[int, dict[str, Any]]) -> None:
    """Let the advice, which knows all exposures, change after so many of the sample."""
    scene.values |= {"advice_updated_at": 1e9, "advice_judged_until": math.inf}
    arrive = scene._arrive

    def later(device: str, value: Any) -> None:
        arrive(device, value)
        if device == "advice":
            taken = sum(stream in ("primary", "zero") for stream, _ in scene.events)
            for number, values in measured.items():
                if taken >= number:
                    scene.values |= {f"advice_{name}": each for name, each in values.items()}

    scene._arrive = later


@pytest.fixture
def played(player: MakePlayer, stub_instrument: Instrument) -> Callable[..., Any]:
    """Plays a tilt series under advice (`advised`)."""

    def play(
        one: Measurement, measured: dict[int, dict[str, Any]], done: Collection[Key] = ()
    ) -> Any:
        scene = player()
        advised(scene, measured)
        skip = {707.4: done}
        scene.play(tilt_series(stub_instrument, one, 0.0, series="s", skip=skip))
        return scene

    return play


def told(scene: Any) -> list[tuple[str, str]]:
    """The log, less what is asked of the operator, which stands there as ``turn``."""
    lines = [("turn", "") if kind == "ask" else (kind, text) for kind, text in scene.log]
    return [line for line in lines if line[1] != "the sample stands at phi = 102 deg"]


def tilts(scene: Any) -> list[float]:
    return sorted({key.theta_deg for stream, key in scene.events if stream == "primary"})


def pauses(scene: Any) -> list[str]:
    """What the log said last before each pause."""
    found, line = [], ""
    for message in scene.messages:
        if message.command == "set" and message.obj.name == "log":
            line = message.args[0][1]
        if message.command == "pause":
            found.append(line)
    return found


@pytest.mark.parametrize("quality", ["note", "pause"])
def test_a_new_flag_is_told_once_and_pauses_where_that_is_wanted(
    played: Callable[..., Any], tiny: Measurement, quality: str
) -> None:
    one = tiny.model_copy(update={"quality": quality})
    scene = played(one, {6: {"flags": FLAG}})
    assert tilts(scene) == [-30.0, 0.0, 2.0]
    if quality == "note":
        assert scene.log == [("flag", FLAG)]
        assert not pauses(scene)
    else:
        assert scene.log == [("pause", FLAG), ("go_on", "resumed")]
        assert pauses(scene) == [FLAG]


def test_what_was_flagged_before_a_run_does_not_pause_it(
    played: Callable[..., Any], tiny: Measurement
) -> None:
    one = tiny.model_copy(update={"quality": "pause"})
    scene = played(one, {0: {"flags": FLAG}}, begun(tiny))
    assert not scene.log


def test_a_flag_that_is_there_before_a_new_series_is_looked_at_is_told(
    played: Callable[..., Any], tiny: Measurement
) -> None:
    assert played(tiny, {0: {"flags": FLAG}}).log == [("flag", FLAG)]


LATE = {"updated_at": 1e9, "flags": FLAG, "reached": 1, "resolution_nm": 58.4}
"""What a live reconstruction says that was started with the rest of a series, once it has read what was there."""


def test_advice_that_comes_late_says_nothing_new_of_what_was_taken_before(
    player: MakePlayer, stub_instrument: Instrument, wanted: Measurement
) -> None:
    """It comes after the first tilt: without a baseline its flags paused, and its resolution ended the azimuth."""
    one = wanted.model_copy(update={"quality": "pause"})
    scene = player()
    advised(scene, {6: LATE, 8: {"flags": f"{FLAG}\n{DAMAGE}"}})
    scene.values["advice_updated_at"] = math.nan
    skip = {707.4: begun(one)}
    scene.play(tilt_series(stub_instrument, one, 0.0, series="s", skip=skip))
    assert scene.log == [("pause", DAMAGE), ("go_on", "resumed")]
    assert tilts(scene) == [-30.0, 0.0, 2.0]


def begun(one: Measurement) -> list[Key]:
    """What was taken before of a series that was begun: an exposure of another azimuth."""
    return [next(key for key in one.planned_keys() if key.phi_deg != 0.0)]


@pytest.fixture
def returning(tiny: Measurement) -> Measurement:
    """14 exposures and 4 of the return for each azimuth; nothing comes after the return."""
    flats = tiny.flats.model_copy(update={"at_end": False})
    return tiny.model_copy(update={"return_to_zero": ReturnToZero(repeats=2), "flats": flats})


@pytest.mark.parametrize("quality", ["note", "pause"])
def test_the_returns_are_told_before_the_sample_is_turned_and_at_the_end(
    player: MakePlayer, stub_instrument: Instrument, returning: Measurement, quality: str
) -> None:
    scene = player("102")
    one = returning.model_copy(update={"quality": quality})
    advised(scene, {18: {"flags": DAMAGE}, 36: {"flags": f"{DAMAGE}\n{SAME}"}})
    scene.play(vector_tomography(stub_instrument, one, series="s"))
    first = {"note": [("flag", DAMAGE)], "pause": [("pause", DAMAGE), ("go_on", "resumed")]}
    # Nothing comes after the last azimuth that a pause could hold up.
    assert told(scene) == [*first[quality], ("turn", ""), ("flag", SAME)]
    assert pauses(scene) == ([DAMAGE] if quality == "pause" else [])
    assert tilts(scene) == [-30.0, 0.0, 2.0]


def test_a_flag_of_one_edge_pauses_before_the_next(
    played: Callable[..., Any], returning: Measurement
) -> None:
    both = returning.model_copy(update={"energies_ev": (707.4, 778.1), "quality": "pause"})
    scene = played(both, {18: {"flags": DAMAGE}})
    assert scene.log[:2] == [("pause", DAMAGE), ("go_on", "resumed")]
    at = [message.command for message in scene.messages]
    opened = [number for number, command in enumerate(at) if command == "open_run"]
    assert at.index("pause") < opened[1]


def test_what_is_found_of_an_azimuth_after_its_end_is_told_at_the_next(
    player: MakePlayer, stub_instrument: Instrument, returning: Measurement
) -> None:
    scene = player("102")
    scene.values |= {"advice_updated_at": 1e9, "advice_judged_until": math.inf}
    arrive = scene._arrive

    def later(device: str, value: Any) -> None:
        arrive(device, value)
        if device == "azimuth":
            scene.values["advice_flags"] = DAMAGE

    scene._arrive = later
    scene.play(vector_tomography(stub_instrument, returning, series="s"))
    assert told(scene) == [("turn", ""), ("flag", DAMAGE)]


def test_a_return_that_is_taken_alone_is_told(
    played: Callable[..., Any], returning: Measurement
) -> None:
    done = [key for key in returning.planned_keys() if key.phi_deg == 0.0]
    scene = played(returning, {0: {"flags": FLAG}, 4: {"flags": f"{FLAG}\n{DAMAGE}"}}, done)
    assert scene.log == [("flag", DAMAGE)]


class Clock:
    """Each exposure takes 10 s on it, and a wait as long as it says; the advice knows the last some time after it."""

    def __init__(self, scene: Any, after_s: float) -> None:
        self._scene, self._after_s, self._seen, self.waited_s = scene, after_s, 0, 0.0
        scene.values |= {"advice_updated_at": 0.0, "advice_judged_until": 0.0}
        arrive, answer = scene._arrive, scene.answer

        def arriving(device: str, value: Any) -> None:
            arrive(device, value)
            if device == "advice" and self.time() >= 180.0:
                scene.values |= {"advice_updated_at": self.time()}
            if device == "advice" and self.time() >= 180.0 + self._after_s:
                scene.values |= {"advice_flags": DAMAGE, "advice_judged_until": 180.0}

        def answering(message: Any) -> Any:
            if message.command == "sleep":
                self.waited_s += message.args[0]
            return answer(message)

        scene._arrive, scene.answer = arriving, answering

    def time(self) -> float:
        taken = sum(stream in ("primary", "zero") for stream, _ in self._scene.events)
        return 10.0 * taken + self.waited_s

    monotonic = time


@pytest.mark.parametrize(
    ("after_s", "is_told"), [(0.0, True), (4.0, True), (9.0, True), (11.0, False), (1e9, False)]
)
def test_a_return_is_waited_for_by_a_quarter_of_the_time_that_it_took(
    player: MakePlayer,
    stub_instrument: Instrument,
    returning: Measurement,
    monkeypatch: pytest.MonkeyPatch,
    after_s: float,
    is_told: bool,
) -> None:
    scene = player()
    clock = Clock(scene, after_s)
    monkeypatch.setattr("mistral_txm.plans.advice.time", clock)
    scene.play(tilt_series(stub_instrument, returning, 0.0, series="s"))
    assert scene.log == ([("flag", DAMAGE)] if is_told else [])
    assert clock.waited_s == pytest.approx(min(after_s, 10.0), abs=0.2)


def test_without_advice_nothing_is_waited_for(
    player: MakePlayer, stub_instrument: Instrument, returning: Measurement
) -> None:
    scene = player()
    scene.play(tilt_series(stub_instrument, returning, 0.0, series="s"))
    assert "sleep" not in {message.command for message in scene.messages}


def test_no_flag_pauses_when_the_time_is_over(
    player: MakePlayer,
    stub_instrument: Instrument,
    returning: Measurement,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No azimuth comes any more: other samples of a queue would wait for a person."""
    one = returning.model_copy(
        update={"quality": "pause", "stop": Stop(max_duration_h=175.0 / 3600)}
    )
    scene = player("102")
    clock = Clock(scene, 0.0)
    monkeypatch.setattr("mistral_txm.plans.advice.time", clock)
    monkeypatch.setattr("mistral_txm.plans.series_runs.time", clock)
    scene.play(vector_tomography(stub_instrument, one, series="s"))
    assert scene.log == [("flag", DAMAGE)]
    assert not pauses(scene)


def test_no_tilt_is_begun_when_the_resolution_is_reached(
    played: Callable[..., Any], wanted: Measurement
) -> None:
    scene = played(wanted, {8: {"reached": 1, "resolution_nm": 58.4}})
    assert tilts(scene) == [-30.0, 0.0]
    kind, text = scene.log[-1]
    assert kind == "note"
    assert text == (
        "s: stopped before theta 2 deg: its resolution is 58 nm, wanted were 60 nm; resume takes the rest"
    )
    assert scene.stops == ["success"]


def test_who_resumes_a_series_whose_resolution_is_reached_wants_the_rest(
    played: Callable[..., Any], wanted: Measurement
) -> None:
    scene = played(wanted, {0: {"reached": 1, "resolution_nm": 58.4}}, begun(wanted))
    assert tilts(scene) == [-30.0, 0.0, 2.0]


def test_each_energy_is_heeded_and_ends_by_itself(
    player: MakePlayer, stub_instrument: Instrument, wanted: Measurement
) -> None:
    """The series of the second edge is good enough after two tilts, that of the first is not."""
    scene = player()
    scene.values["advice_updated_at"] = 1e9
    both = wanted.model_copy(update={"energies_ev": (707.4, 778.1), "edges": "interleaved"})
    arrive = scene._arrive

    def later(device: str, value: Any) -> None:
        arrive(device, value)
        if device == "advice":
            taken = sum(stream == "primary" for stream, _ in scene.events)
            scene.values["advice_reached"] = int(taken > 16 and value.endswith("778.1eV"))

    scene._arrive = later
    scene.play(tilt_series(stub_instrument, both, 0.0, series="s"))
    taken = [key.theta_deg for stream, key in scene.events if stream == "primary"]
    assert {theta: taken.count(theta) for theta in taken} == {-30.0: 12, 0.0: 8, 2.0: 4}
    assert [kind for kind, _ in scene.log] == ["note"]


def test_a_stop_says_when() -> None:
    with pytest.raises(ValueError, match="stop: expected max_duration_h, resolution_nm or both"):
        Stop()

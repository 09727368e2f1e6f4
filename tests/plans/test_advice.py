"""What the live reconstruction advises reaches a plan between two tilts, and only there."""

from collections.abc import Callable
from typing import Any

import pytest

from mistral_txm.devices.instrument import Instrument
from mistral_txm.plans.measurement import Measurement, Stop
from mistral_txm.plans.tomography import tilt_series

MakePlayer = Callable[..., Any]
FLAG = "phi 0 deg, theta -30 deg: the sample slipped"


@pytest.fixture
def wanted(tiny: Measurement) -> Measurement:
    return tiny.model_copy(update={"stop": Stop(resolution_nm=60.0)})


def advised(scene: Any, measured: dict[int, dict[str, Any]]) -> None:
    """Let the advice change after so many exposures of the sample."""
    arrive = scene._arrive

    def later(device: str, value: Any) -> None:
        arrive(device, value)
        if device == "advice":
            taken = sum(stream == "primary" for stream, _ in scene.events)
            for number, values in measured.items():
                if taken >= number:
                    scene.values |= {f"advice_{name}": each for name, each in values.items()}

    scene._arrive = later


@pytest.fixture
def played(player: MakePlayer, stub_instrument: Instrument) -> Callable[..., Any]:
    """Plays a tilt series under advice (`advised`)."""

    def play(one: Measurement, measured: dict[int, dict[str, Any]]) -> Any:
        scene = player()
        advised(scene, measured)
        scene.play(tilt_series(stub_instrument, one, 0.0, series="s"))
        return scene

    return play


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
    scene = played(one, {0: {"flags": FLAG}})
    assert not scene.log


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
    scene = played(wanted, {0: {"reached": 1, "resolution_nm": 58.4}})
    assert tilts(scene) == [-30.0, 0.0, 2.0]


def test_each_energy_is_heeded_and_ends_by_itself(
    player: MakePlayer, stub_instrument: Instrument, wanted: Measurement
) -> None:
    """The series of the second edge is good enough after two tilts, that of the first is not."""
    scene = player()
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

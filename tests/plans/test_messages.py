"""Plans, message by message: without an engine, without devices."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from mistral_txm.devices.instrument import Instrument
from mistral_txm.devices.key import Key
from mistral_txm.plans import (
    Measurement,
    PlanError,
    darks,
    flats,
    steps,
    tilt_series,
    vector_tomography,
)
from mistral_txm.plans.measurement import Tilts

MakePlayer = Callable[..., Any]


def test_every_planned_key_becomes_one_event_in_order(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    scene = player("102")
    uids = scene.play(vector_tomography(stub_instrument, tiny, series="s"))
    assert uids == ("run 1", "run 3")
    assert [start["plan_name"] for start in scene.starts][1] == "turn_sample"
    primary = [key for stream, key in scene.events if stream == "primary"]
    assert tuple(primary) == tiny.planned_keys()
    everything = [
        (step.stream, key)
        for phi_deg in tiny.azimuths_deg
        for step in steps(tiny, phi_deg)
        for key in step.keys
    ]
    assert scene.events == everything
    assert len(scene.prompts) == 1


def test_the_beamline_is_in_the_state_that_the_key_says(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    scene = player("102")
    scene.play(vector_tomography(stub_instrument, tiny, series="s"))
    assert len(scene.states) == len(scene.events)
    for (stream, key), state in zip(scene.events, scene.states, strict=True):
        assert state["shutter"] == ("closed" if stream == "dark" else "open")
        assert state["ccd_frame_file"].startswith(f"s/phi_{key.phi_deg:g}_")
        if stream == "dark":
            continue
        assert state["polarization"] == key.helicity
        assert state["theta"] == key.theta_deg
        assert state["energy"] == 707.4
        assert state["sample_position"] == ("in" if stream == "primary" else "out")
    for (stream, key), (next_stream, next_key) in pairwise(scene.events):
        if stream == next_stream == "primary" and key.phi_deg == next_key.phi_deg:
            assert key.theta_deg <= next_key.theta_deg


def test_each_file_holds_one_state(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    scene = player("102")
    scene.play(vector_tomography(stub_instrument, tiny, series="s"))
    names: dict[str, set[Any]] = {}
    for (stream, key), state in zip(scene.events, scene.states, strict=True):
        names.setdefault(state["ccd_frame_file"], set()).add(
            (stream, key.phi_deg, key.theta_deg, key.helicity)
        )
    assert all(len(states) == 1 for states in names.values())


def test_the_start_document_says_what_is_planned(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    scene = player("102")
    scene.play(vector_tomography(stub_instrument, tiny, series="s", md={"proposal": 1}))
    first, second = scene.measured
    assert (first["plan_name"], first["series"], first["proposal"]) == ("vector_tomography", "s", 1)
    assert (first["phi_deg"], second["phi_deg"]) == (0.0, 102.0)
    assert Measurement.from_dict(first["measurement"]) == tiny
    assert first["sample"] == {"name": "film"}
    assert first["n_planned"] * 2 == len(tiny.planned_keys())
    assert first["frames_directory"] == "/frames/s"


def test_a_checkpoint_stands_before_every_exposure_and_none_is_repeated_after_it(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    scene = player()
    scene.play(tilt_series(stub_instrument, tiny, 0.0, series="s"))
    commands = [message.command for message in scene.messages]
    saves = [index for index, command in enumerate(commands) if command == "trigger"]
    for before, here in pairwise([0, *saves]):
        assert "checkpoint" in commands[before:here]
    assert scene.rewindable
    for index, message in enumerate(scene.messages):
        if message.command == "create" and message.kwargs["name"] != "baseline":
            assert commands[index - 1] == "rewindable"
            assert scene.messages[index - 1].args == (False,)


def test_what_is_done_is_not_taken_again(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    planned = tiny.planned_keys()
    done = {707.4: planned[:17]}
    scene = player("102")
    scene.play(vector_tomography(stub_instrument, tiny, series="s", skip=done))
    assert tuple(key for stream, key in scene.events if stream == "primary") == planned[17:]
    scene = player("102")
    done = {707.4: [key for key in planned if key.phi_deg == 0]}
    assert scene.play(vector_tomography(stub_instrument, tiny, series="s", skip=done)) == ("run 2",)
    with pytest.raises(PlanError, match="nothing to take"):
        player().play(tilt_series(stub_instrument, tiny, 0.0, skip=done))


def test_flats_and_darks_alone(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    scene = player()
    scene.play(flats(stub_instrument, tiny, 0.0))
    assert [stream for stream, _ in scene.events] == ["dark"] * 2 + ["flat"] * 8
    scene = player()
    scene.play(darks(stub_instrument, tiny, 0.0))
    assert scene.events == [("dark", Key(0.0, 0.0, 0, repeat)) for repeat in range(6)]


def final_state(scene: Any) -> dict[str, Any]:
    axes = (
        "theta",
        "sample_x",
        "sample_y",
        "sample_z",
        "zone_plate_z",
        "jaw_down",
        "jaw_up",
        "energy",
    )
    return {name: scene.values[name] for name in (*axes, "shutter", "ccd_frame_file")}


def test_what_cannot_be_put_back_does_not_hide_the_failure_nor_stop_the_rest(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    scene = player()
    ordinary = scene.answer

    def stuck_theta(message: Any) -> Any:
        if message.command == "set" and message.obj is stub_instrument.theta:
            raise RuntimeError("theta: stalled")
        return ordinary(message)

    def play(plan: Any) -> None:
        answer, throw = None, None
        while True:
            message = plan.throw(throw) if throw else plan.send(answer)
            throw = None
            try:
                answer = stuck_theta(message)
            except RuntimeError as failure:
                throw = failure

    before = final_state(scene)
    with pytest.raises(RuntimeError, match="stalled") as failure:
        play(tilt_series(stub_instrument, tiny, 0.0, series="s"))
    assert failure.value.__notes__ == ["theta: theta: stalled"]
    assert final_state(scene) == before


BAD_METADATA: list[tuple[dict[str, Any], str]] = [
    ({"a.b": 1}, "the key 'a.b' must be a text without"),
    ({"a": {"b/c": 1}}, r"metadata\['a'\]: the key 'b/c'"),
    ({"a": [{"": 1}]}, "the key ''"),
    ({1: 2}, "the key 1 must be"),
    ({"a": float("nan")}, "'a' cannot be written as JSON"),
    ({"a": object()}, "'a' cannot be written as JSON"),
    ({"series": "x"}, "'series' is written by the plan"),
]


@pytest.mark.parametrize(("md", "expected"), BAD_METADATA)
def test_metadata_is_refused_before_anything_happens(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement, md: Any, expected: str
) -> None:
    scene = player("0", "102")
    with pytest.raises(PlanError, match=expected) as refusal:
        scene.play(vector_tomography(stub_instrument, tiny, md=md))
    assert "\n" not in str(refusal.value)
    assert scene.messages == []


def test_a_tilt_that_cannot_be_reached_from_below_is_refused_before_anything_happens(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    far = tiny.model_copy(
        update={"tilts": (Tilts(first_deg=-70.0, last_deg=-70.0, exposure_s=1.0, repeats=1),)}
    )
    scene = player()
    with pytest.raises(PlanError, match=r"theta: -70 deg is planned, .* only from -69.5 to 70 deg"):
        scene.play(vector_tomography(stub_instrument, far))
    assert scene.messages == []


def test_nobody_has_said_how_the_sample_is_mounted(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    scene = player()
    scene.values["azimuth"] = float("nan")
    with pytest.raises(PlanError, match="nobody has said"):
        scene.play(tilt_series(stub_instrument, tiny, 0.0))


def test_a_sample_that_stands_between_in_and_out_is_refused(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    scene = player()
    scene.values["sample_position"] = "between"
    with pytest.raises(PlanError, match="neither in nor out"):
        scene.play(tilt_series(stub_instrument, tiny, 0.0))
    assert not any(message.command == "set" for message in scene.messages)

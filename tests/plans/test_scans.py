"""The scans, message by message: without an engine, without devices."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from bluesky.utils import RequestAbort

from mistral_txm.devices.instrument import Instrument
from mistral_txm.plans import PlanError, energy_scan, focus_series, polarization_scan

MakePlayer = Callable[..., Any]
BRIEF: dict[str, Any] = {
    "exposure_s": 8.0,
    "repeats": 2,
    "flat_exposure_s": 3.0,
    "flat_repeats": 2,
    "dark_repeats": 2,
}
AXES = ("theta", "sample_x", "sample_z", "zone_plate_z", "jaw_down", "jaw_up", "energy")
FOCI = ("polarization_focus_positive_um", "polarization_focus_negative_um")


@pytest.fixture
def scene(player: MakePlayer) -> Any:
    made = player()
    made.values["energy"] = 707.4
    return made


def states_of(scene: Any, stream: str) -> list[dict[str, Any]]:
    pairs = zip(scene.events, scene.states, strict=True)
    return [state for (found, _), state in pairs if found == stream]


def test_an_energy_scan_exposes_sample_and_flats_in_both_helicities(
    scene: Any, stub_instrument: Instrument
) -> None:
    assert scene.play(energy_scan(stub_instrument, [700.0, 707.4, 710.4], **BRIEF)) == "run 1"
    for stream, place in (("primary", "in"), ("flat", "out")):
        states = states_of(scene, stream)
        assert [(s["energy"], s["polarization"]) for s in states] == [
            (energy_ev, helicity)
            for energy_ev, order in ((700.0, (1, -1)), (707.4, (-1, 1)), (710.4, (1, -1)))
            for helicity in order
            for _ in range(2)
        ]
        assert all(s["sample_position"] == place for s in states)
        assert all(s["shutter"] == "open" for s in states)
        assert {s["theta"] for s in states} == {10.0}
        # 2140 um / 707.4 eV for every eV, from 0 and 1.5 um at 707.4 eV.
        for state in states:
            focus_um = {1: 0.0, -1: 1.5}[state["polarization"]]
            expected_um = focus_um + 3.03 * (state["energy"] - 707.4)
            assert state["zone_plate_z"] == pytest.approx(expected_um, abs=1e-9)
    assert [(s["ccd_cam_acquire_time"], s["shutter"]) for s in states_of(scene, "dark")] == [
        (3.0, "closed"),
        (3.0, "closed"),
        (8.0, "closed"),
        (8.0, "closed"),
    ]


def test_a_focus_series_exposes_one_helicity_at_each_position(
    scene: Any, stub_instrument: Instrument
) -> None:
    z_um = [-2.0, -1.0, 0.0, 1.0, 3.5]
    scene.play(focus_series(stub_instrument, -1, z_um, **BRIEF))
    states = states_of(scene, "primary")
    assert [s["zone_plate_z"] for s in states] == [z for z in z_um for _ in range(2)]
    assert {s["polarization"] for s in states} == {-1}
    assert {s["energy"] for s in states} == {707.4}
    assert [(s["sample_position"], s["zone_plate_z"]) for s in states_of(scene, "flat")] == [
        ("out", 0.0)
    ] * 2


def test_a_polarization_scan_moves_a_narrow_slit_and_follows_the_focus(
    scene: Any, stub_instrument: Instrument
) -> None:
    heights_mm = [-3.0, 0.0, 2.0]
    scene.play(polarization_scan(stub_instrument, heights_mm, 0.4, **BRIEF))
    states = states_of(scene, "primary")
    assert [s["polarization"] for s in states[:4]] == [1, 1, -1, -1]
    for index, height_mm in enumerate(heights_mm):
        for state in states[4 + 2 * index : 6 + 2 * index]:
            assert state["jaw_down"] == pytest.approx(height_mm - 0.2)
            assert state["jaw_up"] == pytest.approx(height_mm + 0.2)
            # Linear through 0 um at +2 mm and 1.5 um at -2 mm.
            assert state["zone_plate_z"] == pytest.approx(0.75 - 0.375 * height_mm)
    assert len(states_of(scene, "flat")) == len(states)


PLANS: dict[str, Callable[[Instrument], Any]] = {
    "energy": lambda instrument: energy_scan(instrument, [700.0, 707.4], **BRIEF),
    "focus": lambda instrument: focus_series(instrument, 1, [0.0, 1.0, 2.0, 3.0, 4.0], **BRIEF),
    "jaws": lambda instrument: polarization_scan(instrument, [0.0, 1.0], 0.4, **BRIEF),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_exposures_are_numbered_through_and_lie_below_the_run(
    scene: Any, stub_instrument: Instrument, plan: Callable[[Instrument], Any]
) -> None:
    scene.play(plan(stub_instrument))
    assert len(set(scene.events)) == len(scene.events) == len(scene.states)
    assert all(s["ccd_frame_file"].startswith("run 1/") for s in scene.states)
    places: dict[str, set[Any]] = {}
    for (stream, key), state in zip(scene.events, scene.states, strict=True):
        where = tuple(state[axis] for axis in AXES)
        places.setdefault(state["ccd_frame_file"], set()).add((stream, key.helicity, *where))
    assert all(len(found) == 1 for found in places.values())
    (start,) = scene.starts
    assert start["n_planned"] == len(states_of(scene, "primary"))
    # What followers of tilt series look for is not there.
    assert not {"series", "planned_keys", "measurement"} & set(start)
    assert scene.stops == ["success"]


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_each_exposure_has_a_checkpoint_and_its_event_is_not_repeated(
    scene: Any, stub_instrument: Instrument, plan: Callable[[Instrument], Any]
) -> None:
    scene.play(plan(stub_instrument))
    last_checkpoint = last_trigger = 0
    for index, message in enumerate(scene.messages):
        if message.command == "checkpoint":
            last_checkpoint = index
        if message.command == "trigger":
            assert last_checkpoint > last_trigger
            last_trigger = index
        if message.command == "create":
            baseline = message.kwargs["name"] == "baseline"
            assert baseline or scene.messages[index - 1].args == (False,)
    assert scene.rewindable


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["energy", "jaws"])
def test_everything_is_put_back_whatever_message_fails(
    player: MakePlayer, stub_instrument: Instrument, plan: str
) -> None:
    once = BRIEF | {"repeats": 1, "exposure_s": BRIEF["flat_exposure_s"]}

    def begin() -> tuple[Any, Any]:
        made = player()
        made.values["energy"] = 707.4
        if plan == "energy":
            return made, energy_scan(stub_instrument, [700.0], **once)
        return made, polarization_scan(stub_instrument, [1.0], 0.4, **once)

    def final(made: Any) -> dict[str, Any]:
        return {name: made.values[name] for name in (*AXES, *FOCI, "shutter", "ccd_frame_file")}

    whole, messages = begin()
    before = final(whole)
    whole.play(messages)
    assert final(whole) == before
    commands = [message.command for message in whole.messages]
    last_body = max(index for index, command in enumerate(commands) if command == "trigger")
    for fail_at in range(0, last_body + 1, 3):
        failure = RequestAbort() if fail_at % 2 else RuntimeError("broken")
        made, messages = begin()
        with pytest.raises(type(failure)):
            made.play(messages, fail_at, failure)
        assert final(made) == before, f"after a failure of message {fail_at}"
        assert made.stream is None
        assert made.staged == set()
        assert len(made.stops) == (fail_at > commands.index("open_run"))


WRONG: list[tuple[Callable[[Instrument], Any], str]] = [
    (lambda i: energy_scan(i, [], **BRIEF), "energies_ev: 0 given, expected at least 1"),
    (lambda i: energy_scan(i, [707.0, 706.0], **BRIEF), "706 follows 707; expected ascending"),
    (lambda i: energy_scan(i, [707.0, math.nan], **BRIEF), "nan is not a finite number"),
    (lambda i: energy_scan(i, ["707"], **BRIEF), "'707' is not a finite number"),  # type: ignore[list-item]  # that is the test
    (lambda i: energy_scan(i, [270.0], **BRIEF), "energy: 270 eV is planned, .* from 272 to 2600"),
    (lambda i: energy_scan(i, [1200.0], **BRIEF), r"zone_plate_z: 1492\S* um is planned"),
    (lambda i: energy_scan(i, [707.0], **BRIEF | {"repeats": 0}), "repeats = 0: expected a whole"),
    (
        lambda i: energy_scan(i, [707.0], **BRIEF | {"flat_repeats": 1}),
        "flat_repeats = 1: .*from 2",
    ),
    (
        lambda i: energy_scan(i, [707.0], **BRIEF | {"exposure_s": 0.0}),
        "exposure_s = 0.0: expected",
    ),
    (lambda i: energy_scan(i, [707.0], **BRIEF, md={"scan": 1}), "'scan' is written by the plan"),
    (lambda i: focus_series(i, 0, [0.0, 1, 2, 3, 4], **BRIEF), r"helicity 0: expected \+1 or -1"),
    (lambda i: focus_series(i, 1, [0.0, 1.0], **BRIEF), "z_um: 2 given, expected at least 5"),
    (lambda i: focus_series(i, 1, [0.0, 1, 2, 3, 2000], **BRIEF), "zone_plate_z: 2000 um"),
    (
        lambda i: focus_series(i, 1, [0.0, 1, 2, 3, 4], **BRIEF | {"repeats": 1}),
        "repeats = 1: .* 2",
    ),
    (lambda i: polarization_scan(i, [0.0], 0.01, **BRIEF), "opening_mm = 0.01: expected more than"),
    (lambda i: polarization_scan(i, [9.9], 1.0, **BRIEF), "jaw_up: 10.4 mm is planned"),
    (lambda i: polarization_scan(i, [-9.9], 1.0, **BRIEF), "jaw_down: -10.4 mm is planned"),
]


@pytest.mark.parametrize(("plan", "expected"), WRONG)
def test_bad_input_is_refused_in_one_line_before_anything_moves(
    scene: Any, stub_instrument: Instrument, plan: Callable[[Instrument], Any], expected: str
) -> None:
    with pytest.raises(PlanError, match=expected) as refusal:
        scene.play(plan(stub_instrument))
    assert "\n" not in str(refusal.value)
    assert {message.command for message in scene.messages} <= {"read"}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_sample_that_nobody_mounted_is_refused(
    scene: Any, stub_instrument: Instrument, plan: Callable[[Instrument], Any]
) -> None:
    scene.values["azimuth"] = math.nan
    with pytest.raises(PlanError, match="nobody has said"):
        scene.play(plan(stub_instrument))
    assert {message.command for message in scene.messages} <= {"read"}

"""Exposures that go wrong, message by message: taken again, waited for, or brought before a person."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from bluesky import Msg
from bluesky.utils import FailedStatus

from mistral_txm.devices.instrument import Instrument
from mistral_txm.devices.key import Key
from mistral_txm.plans import (
    Measurement,
    PlanError,
    dichroic_projection,
    edge_series,
    reject,
    retake,
    sample_queue,
    tilt_series,
    vector_tomography,
)
from mistral_txm.plans.measurement import (
    Darks,
    ExposureControl,
    Flats,
    Focus,
    Place,
    Sample,
    Stop,
    Tilts,
)

MakePlayer = Callable[..., Any]


@pytest.fixture
def alone(tiny: Measurement) -> Measurement:
    """One tilt, two exposures of each helicity."""
    return tiny.model_copy(
        update={
            "tilts": (Tilts(first_deg=2.0, last_deg=2.0, exposure_s=1.0, repeats=2),),
            "flats": Flats(exposure_s=1.0, repeats=1),
            "darks": Darks(repeats=1),
        }
    )


class CameraNotReady(RuntimeError):
    needs_a_person = True


def failed(cause: Exception) -> FailedStatus:
    failure = FailedStatus("status")
    failure.__cause__ = cause
    return failure


def play(
    scene: Any, plan: Any, troubles: Callable[[Any, Msg], Exception | None] = lambda *_: None
) -> Any:
    """Play a plan; `troubles` may throw an exception in place of the answer to a message."""
    answer, throw = None, None
    while True:
        try:
            message = plan.throw(throw) if throw is not None else plan.send(answer)
        except StopIteration as end:
            return end.value
        scene.messages.append(message)
        throw = troubles(scene, message)
        if throw is None:
            answer = scene.answer(message)


def failing_triggers(
    numbers: Iterable[int], cause: Exception
) -> Callable[[Any, Msg], Exception | None]:
    """Let the exposures of those numbers, from 1, fail."""
    count, wrong = 0, set(numbers)

    def troubles(_scene: Any, message: Msg) -> Exception | None:
        nonlocal count
        count += message.command == "trigger"
        return failed(cause) if message.command == "trigger" and count in wrong else None

    return troubles


def pauses(scene: Any) -> int:
    return sum(message.command == "pause" for message in scene.messages)


def kinds(scene: Any) -> list[str]:
    return [kind for kind, _ in scene.log]


def keys_of(scene: Any, stream: str = "primary") -> list[Key]:
    return [key for name, key in scene.events if name == stream]


def test_a_frame_that_does_not_come_is_taken_again(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    scene = player()
    advice = "check the storage, then take the exposure again"
    troubles = failing_triggers([4, 5], TimeoutError(f"ccd: no frame; {advice}"))
    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"), troubles)
    assert keys_of(scene) == [key for key in alone.planned_keys() if key.phi_deg == 0.0]
    assert (
        scene.log
        == [
            (
                "repeat",
                "phi 0 deg, theta 2 deg, helicity +1, repeat 1: ccd: no frame; check the storage; taken again",
            )
        ]
        * 2
    )
    assert pauses(scene) == 0


def test_after_two_retries_a_person_is_asked_with_the_shutter_closed(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    scene = player()
    hung = failing_triggers([4, 5, 6], TimeoutError("ccd: no frame within 31 s"))
    shut: list[str] = []

    def troubles(scene: Any, message: Msg) -> Exception | None:
        if message.command == "pause":
            shut.append(scene.values["shutter"])
            assert scene.messages[-2].command == "checkpoint"
        return hung(scene, message)

    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"), troubles)
    assert shut == ["closed"]
    assert kinds(scene) == ["repeat", "repeat", "pause", "go_on"]
    assert len(keys_of(scene)) == 4


def test_what_only_a_person_can_put_right_is_not_tried_again(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    scene = player()
    warm = failing_triggers([2], CameraNotReady("ccd: 3 C, expected -20 C; check the cooler"))
    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"), warm)
    assert kinds(scene) == ["pause", "go_on"]
    assert scene.log[0][1].endswith("ccd: 3 C, expected -20 C; check the cooler")
    assert len(scene.events) == 1 + 2 + 4  # dark, flats, views


@pytest.mark.parametrize("injected", [0, 1], ids=["light lost", "injection"])
def test_a_frame_that_was_hit_is_discarded_and_taken_again(
    player: MakePlayer,
    stub_instrument: Instrument,
    alone: Measurement,
    injected: int,
) -> None:
    scene, hits = player(), 0

    def troubles(scene: Any, message: Msg) -> None:
        nonlocal hits
        hits += message.command == "trigger"
        hit = message.command == "trigger" and hits == 4
        if message.command == "trigger":
            scene.values["light_verdict"] = "hit" if hit else ""
            scene.values["light_injection"] = injected * hit

    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"), troubles)
    (told,) = scene.log
    what = "hit" if injected else "hit by the loss of light (hit)"
    assert told == ("repeat", f"phi 0 deg, theta 2 deg, helicity +1, repeat 1: {what}; taken again")
    discarded = [m for m in scene.messages if m.command == "set" and m.obj.name == "ccd_discard"]
    assert [message.args for message in discarded] == [("hit",)]
    assert len(keys_of(scene)) == len(set(keys_of(scene))) == 4
    assert pauses(scene) == 0


def test_without_light_the_plan_waits_with_the_shutter_closed(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    scene, naps, exposed = player(), 0, 0

    def troubles(scene: Any, message: Msg) -> None:
        nonlocal naps, exposed
        exposed += message.command == "trigger"
        if message.command == "trigger" and exposed == 3:
            scene.values["light_trouble"] = "ring_current: 0.0 mA, expected at least 50 mA"
        if message.command == "sleep" and scene.values["light_trouble"]:
            assert scene.values["shutter"] == "closed"
            naps += 1
            if naps == 5:
                scene.values["light_trouble"] = ""

    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"), troubles)
    assert naps == 5
    assert kinds(scene) == ["wait", "go_on"]
    assert len(keys_of(scene)) == 4


def test_a_view_that_stays_dark_is_brought_before_a_person_and_kept_if_they_say_so(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    scene = player()
    light = scene.counts
    scene.counts = lambda v: 300.0 if v["sample_position"] == "in" else light(v)
    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"))
    assert kinds(scene)[:5] == ["repeat", "repeat", "pause", "go_on", "flag"]
    assert "no light came" in scene.log[0][1]
    assert len(keys_of(scene)) == 4


def test_dark_frames_with_light_are_noticed_at_the_first_flat(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    """A shutter that stays open, whatever its status says."""
    scene = player()
    scene.counts = lambda values: 300.0 + 2000.0 * float(values["ccd_cam_acquire_time"])
    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"))
    assert scene.log[0][0] == "repeat"
    assert "or the dark frames had some" in scene.log[0][1]
    assert pauses(scene) >= 1


def test_an_axis_that_does_not_arrive_is_moved_once_more_then_a_person_is_asked(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    scene, stalls = player(), 0

    def troubles(_scene: Any, message: Msg) -> Exception | None:
        nonlocal stalls
        if message.command == "set" and message.obj is stub_instrument.theta:
            stalls += 1
            if stalls <= 2:
                return failed(RuntimeError("theta: the move ended at 1 deg, expected 0"))
        return None

    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"), troubles)
    assert kinds(scene) == ["repeat", "pause", "go_on"]
    assert len(keys_of(scene)) == 4


def test_saturation_is_told_once_for_each_angle_and_helicity(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    scene = player()
    scene.values["ccd_saturated_fraction"] = 0.02
    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"))
    told = [text for _, text in scene.log if text.startswith("theta 2 deg")]
    assert told == [
        "theta 2 deg, helicity +1: 2 % of the pixels are saturated at 1 s; expose shorter",
        "theta 2 deg, helicity -1: 2 % of the pixels are saturated at 1 s; expose shorter",
    ]


def test_repeats_end_when_the_signal_to_noise_is_reached_and_the_rest_is_waived(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    """2000 counts/s for 1 s are 16.5 photons: 1.6 electrons a count, 194 electrons a photon."""
    many = alone.model_copy(
        update={
            "tilts": (Tilts(first_deg=2.0, last_deg=2.0, exposure_s=1.0, repeats=9),),
            "exposure_control": ExposureControl(
                exposures_s=(1.0,), signal_to_noise=8.0, least_repeats=2
            ),
        }
    )
    scene = player()
    play(scene, tilt_series(stub_instrument, many, 0.0, series="s"))
    # sqrt(3 * 16.5) = 7.0, sqrt(4 * 16.5) = 8.1
    assert [key.repeat for key in keys_of(scene)] == [0, 1, 2, 3] * 2
    assert scene.waived == [Key(0.0, 2.0, 1, 4), Key(0.0, 2.0, -1, 4)]
    taken = set(keys_of(scene))
    waived = {
        key
        for key in many.planned_keys()
        for first in scene.waived
        if key[:3] == first[:3] and key.repeat >= first.repeat
    }
    assert taken | waived == {key for key in many.planned_keys() if key.phi_deg == 0.0}
    assert not taken & waived


def test_the_counts_choose_the_longest_exposure_that_does_not_saturate(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    """The brightest pixel has 5000 counts/s: 8 s are 40300 of 62700, 80 % of which are 50160."""
    control = ExposureControl(exposures_s=(2.0, 4.0, 8.0, 16.0))
    chosen = tiny.model_copy(update={"exposure_control": control, "azimuths_deg": (0.0,)})
    scene = player()
    ordinary = scene.counts

    def counts(values: dict[str, Any]) -> float:
        values["ccd_bright_counts"] = 300.0 + 5000.0 * float(values["ccd_cam_acquire_time"])
        return float(ordinary(values))

    scene.counts = counts
    play(scene, tilt_series(stub_instrument, chosen, 0.0, series="s"))
    used = {
        (key.theta_deg, state["ccd_cam_acquire_time"])
        for (stream, key), state in zip(scene.events, scene.states, strict=True)
        if stream == "primary"
    }
    assert used == {(-30.0, 2.0), (0.0, 8.0), (2.0, 8.0)}


@pytest.mark.parametrize("edges", ["in_turn", "interleaved"])
def test_each_edge_has_runs_of_its_own_and_focus_follows_the_energy(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement, edges: str
) -> None:
    both = tiny.model_copy(update={"energies_ev": (707.4, 778.1), "edges": edges})
    scene = player("102")
    uids = scene.play(vector_tomography(stub_instrument, both, series="s"))
    assert len(uids) == len(scene.measured) == 4
    assert len(scene.stops) == len(scene.starts)
    # Not before both edges are done is the sample free to be turned.
    assert [start["plan_name"] for start in scene.starts].index("turn_sample") == 2
    for start in scene.measured:
        energy_ev = start["energy_ev"]
        assert start["series"] == edge_series("s", both, energy_ev)
        assert Measurement.from_dict(start["measurement"]) == both.at_energy(energy_ev)
        assert start["frames_directory"].endswith(start["series"])
    assert sorted(keys_of(scene)) == sorted(both.planned_keys() * 2)
    chromatic = stub_instrument.configuration.polarization.chromatic_um_per_eV
    for (stream, key), state in zip(scene.events, scene.states, strict=True):
        if stream == "dark":
            continue
        energy_ev = state["energy"]
        assert state["ccd_frame_file"].startswith(f"s-{energy_ev:g}eV/")
        focus_um = {1: 0.0, -1: 1.5}[key.helicity] + chromatic * (energy_ev - 707.4)
        assert state["zone_plate_z"] == pytest.approx(focus_um)
    runs = {m.run for m in scene.messages if m.command == "save"}
    assert runs == {707.4, 778.1, None}
    opened = [m.run for m in scene.messages if m.command == "open_run"]
    assert opened == [707.4, 778.1, None, 707.4, 778.1]


def test_what_is_done_of_each_edge_is_not_taken_again(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    both = tiny.model_copy(update={"energies_ev": (707.4, 778.1), "edges": "interleaved"})
    planned = both.planned_keys()
    scene = player("102")
    skip = {707.4: planned, 778.1: planned[:5]}
    uids = scene.play(vector_tomography(stub_instrument, both, series="s", skip=skip))
    assert {start["energy_ev"] for start in scene.measured} == {778.1}
    assert len(uids) == 2
    assert sorted(keys_of(scene)) == sorted(planned[5:])


def test_focus_and_place_of_the_measurement_hold_and_are_put_back(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    moved = alone.model_copy(
        update={
            "sample": Sample(name="film", place=Place(x_um=40.0, y_um=5.0, z_um=-3.0)),
            "focus": Focus(positive_um=7.0, negative_um=8.0),
        }
    )
    scene = player()
    before = dict(scene.values)
    play(scene, tilt_series(stub_instrument, moved, 0.0, series="s"))
    for (stream, key), state in zip(scene.events, scene.states, strict=True):
        if stream == "primary":
            assert state["sample_x"] == 40.0
            assert state["zone_plate_z"] == {1: 7.0, -1: 8.0}[key.helicity]
    for name in (
        "sample_position_in_x_um",
        "sample_position_in_y_um",
        "polarization_focus_positive_um",
    ):
        assert scene.values[name] == before[name]


def test_a_queue_takes_each_sample_at_each_azimuth_and_asks_once(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    queue = [
        alone.of(Sample(name=name, place=Place(x_um=x_um, y_um=0.0, z_um=0.0)))
        for name, x_um in (("a", 10.0), ("b", 60.0))
    ]
    scene = player("102")
    uids = play(scene, sample_queue(stub_instrument, queue))
    assert len(uids) == 4
    assert len(scene.prompts) == 1
    assert [start["plan_name"] for start in scene.starts].index("turn_sample") == 2
    starts = [(start["sample"]["name"], start["phi_deg"]) for start in scene.measured]
    assert starts == [("a", 0.0), ("b", 0.0), ("a", 102.0), ("b", 102.0)]
    series = [start["series"] for start in scene.measured]
    assert series[0] == series[2] != series[1] == series[3]
    places = [state["sample_x"] for state in scene.states if state["sample_position"] == "in"]
    assert set(places) >= {10.0, 60.0}


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("a", "a"), "sample 'a': is there twice"), (("a", None), "sample 'film': has no place")],
)
def test_a_queue_that_makes_no_sense_is_refused_before_anything_happens(
    player: MakePlayer,
    stub_instrument: Instrument,
    alone: Measurement,
    names: tuple[str | None, ...],
    expected: str,
) -> None:
    place = Place(x_um=1.0, y_um=0.0, z_um=0.0)
    queue = [alone if n is None else alone.of(Sample(name=n, place=place)) for n in names]
    scene = player()
    with pytest.raises(PlanError, match=expected):
        play(scene, sample_queue(stub_instrument, queue))
    assert scene.messages == []


def test_a_retake_takes_the_keys_again_and_nothing_else(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    keys = [Key(0.0, -30.0, -1, 1), Key(0.0, 0.0, 1, 0)]
    scene = player()
    play(scene, retake(stub_instrument, tiny, keys, series="s"))
    assert keys_of(scene) == keys
    assert keys_of(scene, "flat")
    assert keys_of(scene, "dark")
    with pytest.raises(PlanError, match="is not a key"):
        play(player(), retake(stub_instrument, tiny, [Key(0.0, 1.5, 1, 0)], series="s"))
    with pytest.raises(PlanError, match="at least one key"):
        play(player(), retake(stub_instrument, tiny, [], series="s"))


def test_a_rejection_is_a_run_that_moves_nothing(
    player: MakePlayer, stub_instrument: Instrument
) -> None:
    scene = player()
    play(scene, reject(stub_instrument, "s", [Key(0.0, 1.0, 1, 0)], "sample slipped"))
    (start,) = scene.measured
    assert start["rejected_keys"] == [[0.0, 1.0, 1, 0]]
    assert (start["series"], start["reason"]) == ("s", "sample slipped")
    assert {message.command for message in scene.messages} == {"open_run", "close_run"}
    with pytest.raises(PlanError, match="expected at least one exposure, and a reason"):
        play(player(), reject(stub_instrument, "s", [Key(0.0, 1.0, 1, 0)], " "))


def test_a_projection_is_a_series_of_one_tilt(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    scene = player()
    scene.values["azimuth"] = 33.0
    (uid,) = play(scene, dichroic_projection(stub_instrument, tiny, -28.5))
    assert uid == "run 1"
    expected = [Key(33.0, -28.5, helicity, n) for helicity in (1, -1) for n in range(3)]
    assert keys_of(scene) == expected
    assert scene.measured[0]["plan_name"] == "dichroic_projection"


def test_no_angle_is_begun_when_the_time_is_over(
    player: MakePlayer,
    stub_instrument: Instrument,
    tiny: Measurement,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mistral_txm.plans import series_runs

    scene = player()
    # Each exposure takes 0.1 h on this clock.
    clock = SimpleNamespace(monotonic=lambda: 360.0 * len(scene.events))
    monkeypatch.setattr(series_runs, "time", clock)
    short = tiny.model_copy(update={"stop": Stop(max_duration_h=1.9)})
    uids = play(scene, vector_tomography(stub_instrument, short, series="s"))
    assert len(uids) == 1
    assert {key.theta_deg for key in keys_of(scene)} == {-30.0, 0.0}
    assert scene.log[-1][1].startswith("s: stopped before theta 2 deg: its 1.9 h")
    assert scene.stops == ["success"]


def test_each_sample_of_a_queue_has_its_own_time(
    player: MakePlayer,
    stub_instrument: Instrument,
    alone: Measurement,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seven exposures of 0.1 h for each sample and azimuth; after the first nothing of 0.5 h is left."""
    from mistral_txm.plans import series_runs

    scene = player("102")
    monkeypatch.setattr(
        series_runs, "time", SimpleNamespace(monotonic=lambda: 360.0 * len(scene.events))
    )
    queue = [
        alone.of(Sample(name=name, place=Place(x_um=1.0, y_um=0.0, z_um=0.0))).model_copy(
            update={"stop": Stop(max_duration_h=0.5)}
        )
        for name in ("a", "b", "c")
    ]
    uids = play(scene, sample_queue(stub_instrument, queue))
    assert len(uids) == 3
    assert {start["sample"]["name"] for start in scene.measured} == {"a", "b", "c"}


def test_light_that_flickers_is_brought_before_a_person(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    """One signal says that light can come, another that it was lost, again and again."""
    scene, mended = player(), False

    def troubles(scene: Any, message: Msg) -> None:
        nonlocal mended
        mended = mended or message.command == "pause"
        if message.command == "trigger":
            scene.values["light_verdict"] = "" if mended else "ring_current: 49.9 mA"

    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"), troubles)
    assert pauses(scene) == 1
    assert kinds(scene) == ["repeat"] * 5 + ["pause", "go_on"]
    assert len(keys_of(scene)) == 4


def test_two_axes_that_fail_together_are_one_failure(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    """The engine tells of the second at whatever message comes next."""
    scene, failures = player(), 0

    def troubles(_scene: Any, message: Msg) -> Exception | None:
        nonlocal failures
        moves = message.command == "set" and message.obj is stub_instrument.theta
        if (moves and failures == 0) or failures == 1:
            failures += 1
            return failed(RuntimeError("controller: lost"))
        return None

    play(scene, tilt_series(stub_instrument, alone, 0.0, series="s"), troubles)
    assert failures == 2
    assert len(keys_of(scene)) == 4
    assert scene.stops == ["success"]


def test_the_focus_follows_from_the_energy_at_which_it_holds(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    """3.03 um for each eV [configuration]: 70.7 eV above 707.4 eV are 214.2 um."""
    cobalt = alone.model_copy(update={"energies_ev": (778.1,)})
    scene = player()
    play(scene, tilt_series(stub_instrument, cobalt, 0.0, series="s"))
    for (stream, key), state in zip(scene.events, scene.states, strict=True):
        if stream != "dark":
            focus_um = {1: 214.221, -1: 215.721}[key.helicity]
            assert state["zone_plate_z"] == pytest.approx(focus_um)
    assert scene.values["polarization_focus_energy_eV"] == 707.4


def test_an_azimuth_at_which_the_sample_does_not_stand_is_refused(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement
) -> None:
    with pytest.raises(PlanError, match=r"102 deg is asked for, but .* said to stand at 0 deg"):
        play(player(), tilt_series(stub_instrument, tiny, 102.0))


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a\n"])
def test_a_series_that_is_no_folder_is_refused(
    player: MakePlayer, stub_instrument: Instrument, tiny: Measurement, name: str
) -> None:
    scene = player()
    with pytest.raises(PlanError, match="expected the name of a folder"):
        play(scene, vector_tomography(stub_instrument, tiny, series=name))
    assert scene.messages == []


def test_room_to_turn_is_that_of_where_the_sample_stands_now(
    player: MakePlayer, stub_instrument: Instrument, alone: Measurement
) -> None:
    """(1500 + 0) sin 55 + 1500 cos 55 = 2089 um, of 2000."""
    steep = alone.model_copy(
        update={"tilts": (Tilts(first_deg=55.0, last_deg=55.0, exposure_s=1.0, repeats=1),)}
    )
    scene = player()
    scene.values |= {"sample_position_in_x_um": 0.0, "sample_position_in_z_um": 1500.0}
    with pytest.raises(PlanError, match="at 55 deg the holder would reach 2"):
        play(scene, tilt_series(stub_instrument, steep, 0.0))
    assert not [message for message in scene.messages if message.command == "set"]

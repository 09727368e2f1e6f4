"""Survey, choice of the field of view and centring, message by message: without an engine, without devices."""

import asyncio
import doctest
import math
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bluesky import Msg
from bluesky.utils import RequestAbort

from mistral_txm.devices.instrument import Instrument
from mistral_txm.plans import PlanError, rotation_axis, survey
from mistral_txm.plans.rotation_axis import Centring, Offset, centre_rotation
from mistral_txm.plans.survey import field_of_view, mosaic

BRIEF: dict[str, Any] = {
    "exposure_s": 8.0,
    "repeats": 2,
    "flat_exposure_s": 3.0,
    "flat_repeats": 2,
    "dark_repeats": 2,
}
SHORT: dict[str, Any] = BRIEF | {"first_deg": -4.0, "last_deg": 4.0, "step_deg": 2.0}
PLACE = ("in_x_um", "in_y_um", "in_z_um")


@pytest.fixture
def stub_instrument(stub_instrument: Instrument) -> Instrument:
    """Stubs with the sample's place, and a camera of 256 x 256 pixels."""
    stub = type(stub_instrument.theta)
    for name in PLACE:
        setattr(stub_instrument.sample_position, name, stub(f"sample_position_{name}"))
    size = {name: stub(f"ccd_cam_max_size_{name}") for name in ("max_size_x", "max_size_y")}
    stub_instrument.ccd.cam.max_size = SimpleNamespace(**size)
    return stub_instrument


@pytest.fixture
def scene(player: Callable[..., Any], stub_instrument: Instrument) -> Any:
    made = player()
    made.values |= {"theta": 0.0, "energy": 707.4, "sample_y": 13.0}
    made.values |= dict(
        zip((f"sample_position_{name}" for name in PLACE), (5.0, 7.0, 9.0), strict=True)
    )
    made.values |= {f"ccd_cam_max_size_max_size_{axis}": 256 for axis in "xy"}
    return made


def thinking(plan: Generator[Msg, Any, Any]) -> Generator[Msg, Any, Any]:
    """Do what the RunEngine does where a plan waits for futures."""
    answer, failure = None, None
    while True:
        try:
            message = plan.throw(failure) if failure is not None else plan.send(answer)
        except StopIteration as end:
            return end.value
        answer, failure = None, None
        if message.command == "wait_for":
            for make in message.args[0]:
                asyncio.run(make())
            continue
        try:
            answer = yield message
        except Exception as reason:
            failure = reason


def places_of(scene: Any, stream: str) -> list[tuple[float, float]]:
    pairs = zip(scene.events, scene.states, strict=True)
    return [(s["sample_x"], s["sample_y"]) for (found, _), s in pairs if found == stream]


def test_a_mosaic_covers_what_is_asked_for_and_puts_everything_back(
    scene: Any, stub_instrument: Instrument
) -> None:
    before = dict(scene.values)
    scene.play(mosaic(stub_instrument, 6.0, 4.0, overlap=0.25, **BRIEF))
    # A field of view is 256 x 10.5 nm wide, a step three quarters of that: 3 columns, 2 rows.
    field_um = 2.688
    step_um = 0.75 * field_um
    found = places_of(scene, "primary")
    assert len(found) == 2 * 3 * 2
    assert {round(x, 6) for x, _ in found} == {round(5.0 + i * step_um, 6) for i in (-1, 0, 1)}
    assert {round(y, 6) for _, y in found} == {round(7.0 + i * step_um, 6) for i in (-0.5, 0.5)}
    reach_x, reach_y = (np.ptp(at) + field_um for at in np.transpose(found))
    assert reach_x >= 6.0
    assert reach_y >= 4.0
    # One column or row at a time: the stages never go back over the whole width.
    moves = np.abs(np.diff(found, axis=0)).round(6)
    assert set(moves.sum(axis=1)) == {0.0, round(step_um, 6)}
    (start,) = scene.starts
    assert start["scan"]["motor"] == "stage"
    assert start["scan"]["positions"] == [pytest.approx(at) for at in found[::2]]
    assert start["n_planned"] == len(found)
    assert len(set(scene.events)) == len(scene.events)
    for name in ("theta", "sample_x", "sample_y", "sample_z", "zone_plate_z", "jaw_up", "shutter"):
        assert scene.values[name] == before[name], name


def test_a_mosaic_of_a_tilted_sample_takes_fewer_columns(
    scene: Any, stub_instrument: Instrument
) -> None:
    scene.values["theta"] = 60.0  # where a field of view shows twice as much across the axis
    scene.play(mosaic(stub_instrument, 10.0, 2.0, overlap=0.0, **BRIEF))
    assert len(set(places_of(scene, "primary"))) == 2


@pytest.mark.parametrize(("helicity", "expected"), [(None, 0), (1, 1), (-1, -1)])
def test_jaws_move_only_where_a_helicity_is_asked_for(
    scene: Any, stub_instrument: Instrument, helicity: int | None, expected: int
) -> None:
    scene.play(mosaic(stub_instrument, 2.0, 2.0, helicity=helicity, **BRIEF))
    moved = {
        m.obj.name for m in scene.messages if m.command == "set" and m.obj.name == "polarization"
    }
    assert bool(moved) == (helicity is not None)
    assert {key.helicity for stream, key in scene.events if stream != "dark"} == {expected}


def test_a_field_of_view_becomes_the_place_of_the_sample(
    scene: Any, stub_instrument: Instrument
) -> None:
    scene.play(field_of_view(stub_instrument, -12.5, 3.0))
    assert [scene.values[f"sample_position_{name}"] for name in PLACE] == [-12.5, 3.0, 9.0]
    assert scene.messages[-2].obj.name == "sample_position"
    assert scene.messages[-2].args == ("in",)


def offsets(scene: Any, x_um: float, z_um: float, std_um: float = 0.01) -> Callable[[str], Offset]:
    """An analysis that sees a region at (x, z) from the axis while the place is the first one."""

    def locate(uid: str) -> Offset:
        at = [scene.values[f"sample_position_{name}"] for name in ("in_x_um", "in_z_um")]
        return Offset(x_um + at[0] - 5.0, z_um + at[1] - 9.0, std_um, std_um)

    return locate


def test_centring_moves_the_region_onto_the_axis_and_verifies_it(
    scene: Any, stub_instrument: Instrument
) -> None:
    locate = offsets(scene, 1.5, -4.0)
    result: Centring = scene.play(
        thinking(centre_rotation(stub_instrument, locate=locate, **SHORT))
    )
    assert result.uids == ("run 1", "run 2")
    assert (result.found.x_um, result.found.z_um) == (1.5, -4.0)
    assert (result.left.x_um, result.left.z_um) == pytest.approx((0.0, 0.0))
    assert (result.in_x_um, result.in_z_um) == (3.5, 13.0)
    assert [scene.values[f"sample_position_{name}"] for name in PLACE] == [3.5, 7.0, 13.0]
    tilts = [
        s["theta"]
        for (stream, _), s in zip(scene.events, scene.states, strict=True)
        if stream == "primary"
    ]
    assert tilts[: len(tilts) // 2 : 2] == [-3.0, -1.0, 0.0, 1.0, 3.0]
    assert scene.values["theta"] == 0.0
    assert all(start["scan"]["reference"] == 0.0 for start in scene.starts)
    # At tilt 0 a region moves as the stage x does.
    assert [start["scan"]["region_u_um"] for start in scene.starts] == [0.0, -1.5]


def test_a_region_on_the_axis_is_left_there(scene: Any, stub_instrument: Instrument) -> None:
    locate = offsets(scene, 0.01, -0.02)
    result = scene.play(thinking(centre_rotation(stub_instrument, locate=locate, **SHORT)))
    assert len(result.uids) == 1
    assert [scene.values[f"sample_position_{name}"] for name in PLACE] == [5.0, 7.0, 9.0]


def nobody_knows(uid: str) -> Offset:
    raise ValueError("the region cannot be followed")


@pytest.mark.parametrize(
    ("x_um", "z_um", "std_um", "expected"),
    [
        (1.0, 1.0, 0.3, "not sure to 200 nm; nothing is corrected"),
        (math.nan, 1.0, 0.01, "nothing is corrected"),
        (1.0, 1.0, math.nan, "nothing is corrected"),
        (5000.0, 1.0, 0.01, "sample_x: -4995 um is planned"),
        (1.0, -5000.0, 0.01, "sample_z: 5009 um is planned"),
    ],
)
def test_an_offset_that_cannot_be_corrected_is_refused_and_the_place_stays(
    scene: Any, stub_instrument: Instrument, x_um: float, z_um: float, std_um: float, expected: str
) -> None:
    locate = offsets(scene, x_um, z_um, std_um)
    with pytest.raises(PlanError, match=expected) as refusal:
        scene.play(thinking(centre_rotation(stub_instrument, locate=locate, **SHORT)))
    assert "\n" not in str(refusal.value)
    assert [scene.values[f"sample_position_{name}"] for name in PLACE] == [5.0, 7.0, 9.0]


def test_a_failed_analysis_is_one_line(scene: Any, stub_instrument: Instrument) -> None:
    with pytest.raises(PlanError, match="cannot be followed; the sample's place is what it was"):
        scene.play(thinking(centre_rotation(stub_instrument, locate=nobody_knows, **SHORT)))


def test_what_does_not_converge_is_given_up_and_undone(
    scene: Any, stub_instrument: Instrument
) -> None:
    def locate(uid: str) -> Offset:
        return Offset(1.0, 1.0, 0.01, 0.01)  # wherever the stages are

    with pytest.raises(PlanError, match="after 4 series the region is still at"):
        scene.play(thinking(centre_rotation(stub_instrument, locate=locate, **SHORT)))
    assert [scene.values[f"sample_position_{name}"] for name in PLACE] == [5.0, 7.0, 9.0]
    assert len(scene.starts) == 4


@pytest.mark.slow
def test_whatever_message_fails_the_place_is_the_old_one_or_verified(
    player: Callable[..., Any], stub_instrument: Instrument
) -> None:
    options = SHORT | {"repeats": 1}

    def begin() -> tuple[Any, Any]:
        made = player()
        made.values |= {"theta": 0.0, "energy": 707.4, "sample_y": 13.0}
        made.values |= {
            f"sample_position_{name}": at for name, at in zip(PLACE, (5.0, 7.0, 9.0), strict=True)
        }
        locate = offsets(made, 1.5, -4.0)
        return made, thinking(centre_rotation(stub_instrument, locate=locate, **options))

    whole, messages = begin()
    whole.play(messages)
    for fail_at in range(0, len(whole.messages) - 1, 5):
        made, messages = begin()
        failure = RequestAbort() if fail_at % 2 else RuntimeError("broken")
        try:
            made.play(messages, fail_at, failure)
        except Exception:  # that which was thrown, or what it kept from being put back
            place = [made.values[f"sample_position_{name}"] for name in PLACE]
            assert place == [5.0, 7.0, 9.0], f"after a failure of message {fail_at}"
        # The player does not do what it fails at.
        failed = made.messages[fail_at].command
        assert made.staged == set() or failed == "unstage"


@pytest.mark.parametrize(
    "plan",
    [
        lambda instrument: field_of_view(instrument, 1900.0, 0.0),
        lambda instrument: mosaic(instrument, 2.0, 2.0, x_um=1900.0, y_um=0.0, **BRIEF),
    ],
    ids=["field of view", "mosaic"],
)
def test_a_place_at_which_the_holder_would_touch_is_refused(
    scene: Any, stub_instrument: Instrument, plan: Callable[..., Any]
) -> None:
    """(1900 + 1500) sin 55 = 2785 um, of 2000."""
    scene.values |= {"theta": 55.0, "sample_position_in_z_um": 0.0}
    with pytest.raises(PlanError, match="at 55 deg the holder would reach 278"):
        scene.play(plan(stub_instrument))
    assert not [message for message in scene.messages if message.command == "set"]


def nowhere(uid: str) -> Offset:
    raise AssertionError("nothing was taken")


def centre(i: Instrument, **options: Any) -> Any:
    return centre_rotation(i, locate=nowhere, **(SHORT | options))


WRONG: list[tuple[Callable[[Instrument], Any], str]] = [
    (lambda i: mosaic(i, 0.0, 2.0, **BRIEF), "width_um = 0.0: expected um, more than 0"),
    (lambda i: mosaic(i, 2.0, math.nan, **BRIEF), "height_um = nan: expected"),
    (lambda i: mosaic(i, 2.0, 2.0, overlap=1.0, **BRIEF), "overlap = 1.0: expected a fraction"),
    (lambda i: mosaic(i, 2.0, 2.0, helicity=2, **BRIEF), r"helicity 2: expected \+1, -1, or None"),
    (lambda i: mosaic(i, 2.0, 2.0, x_um="1", **BRIEF), "x_um = '1': expected um"),  # type: ignore[arg-type]  # that is the test
    (lambda i: mosaic(i, 2.0, 2.0, x_um=1999.0, y_um=2001.0, **BRIEF), "sample_y: 2001 um is"),
    (lambda i: mosaic(i, 2000.0, 2000.0, **BRIEF), "at most 400 are taken; are width and height"),
    (lambda i: mosaic(i, 2.0, 2.0, **BRIEF | {"flat_repeats": 1}), "flat_repeats = 1: .*from 2"),
    (lambda i: mosaic(i, 2.0, 2.0, md={"scan": 1}, **BRIEF), "'scan' is written by the plan"),
    (lambda i: field_of_view(i, math.inf, 0.0), "x_um = inf: expected um"),
    (lambda i: field_of_view(i, 0.0, -2001.0), "sample_y: -2001 um is planned"),
    (lambda i: centre(i, first_deg=5.0, last_deg=10.0), "theta is at 0 deg, outside the range"),
    (lambda i: centre(i, first_deg=-80.0), "theta: .* deg is planned, .* from -69.5"),
    (lambda i: centre(i, step_deg=0.0), "step_deg = 0.0: expected degrees, more than 0"),
    (lambda i: centre(i, step_deg=0.001), "more than 500 tilts"),
    (lambda i: centre(i, first_deg=-1.0, last_deg=1.0), "tilts: 3 from -1 to 1 deg"),
    (lambda i: centre(i, last_deg=None), "last_deg = None: expected degrees"),
    (lambda i: centre(i, limit_um=0.0), "limit_um = 0.0: expected um, more than 0"),
    (lambda i: centre(i, helicity=0), r"helicity 0: expected \+1, -1, or None"),
]


@pytest.mark.parametrize(("plan", "expected"), WRONG)
def test_bad_input_is_refused_in_one_line_before_anything_moves(
    scene: Any, stub_instrument: Instrument, plan: Callable[[Instrument], Any], expected: str
) -> None:
    with pytest.raises(PlanError, match=expected) as refusal:
        scene.play(plan(stub_instrument))
    assert "\n" not in str(refusal.value)
    assert {message.command for message in scene.messages} <= {"read"}


def test_a_holder_that_would_touch_is_refused(scene: Any, stub_instrument: Instrument) -> None:
    scene.values["sample_position_in_z_um"] = 1990.0  # of 2000 um, and 1500 sin(3 deg) = 79 um
    with pytest.raises(PlanError, match=r"theta: at -3 deg the holder would reach 2066 um"):
        scene.play(centre(stub_instrument))


@pytest.mark.parametrize("module", [survey, rotation_axis])
def test_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0

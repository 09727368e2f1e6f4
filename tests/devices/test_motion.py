"""Axes and what they make up, on faked signals: what happens when the control system does not do what it was told."""

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from ophyd.sim import make_fake_device
from ophyd.utils import LimitError

from mistral_txm.devices.axis import Axis
from mistral_txm.devices.configuration import Axis as AxisSettings
from mistral_txm.devices.configuration import load_configuration
from mistral_txm.devices.motion import Motion
from mistral_txm.devices.polarization import Polarization
from mistral_txm.devices.sample import Azimuth, SamplePosition

FakeAxis = make_fake_device(Axis)
CONFIGURATION = load_configuration()


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistral_txm.devices.axis.MONITOR_TIMEOUT_S", 0.05)


class Mechanism:
    """Moves a faked axis: to its target plus `miss`, or not at all while `stalled`."""

    def __init__(self, name: str, at: float = 0.0) -> None:
        settings: AxisSettings = getattr(CONFIGURATION.axes, name)
        self.axis = FakeAxis(
            "FAKE", name=name, settings=settings.model_copy(update={"timeout_s": 0.2})
        )
        self.axis.user_setpoint.sim_set_limits((-5000, 5000))
        self.axis.user_readback.sim_put(at)
        self.axis.user_readback.pvname = "FAKE.RBV"
        self.axis.motor_done_move.sim_put(1)
        self.axis.move_permission.sim_put("Go")
        self.axis.status_bits.sim_put(0x0903)
        self.axis.set_use_switch.sim_put(0)
        self.visited: list[float] = []
        self.miss = 0.0
        self.stalled = False
        self.commanded = threading.Event()
        self.axis.user_setpoint.put = self._put

    def _put(self, value: float, callback: Callable[[], None], **_: Any) -> None:
        self.visited.append(value)
        self.commanded.set()
        if not self.stalled:
            self.axis.user_readback.sim_put(value + self.miss)
            callback()


def test_an_axis_arrives() -> None:
    stage = Mechanism("sample_x")
    stage.axis.set(12.5).wait(2)
    assert stage.axis.position == 12.5
    assert stage.visited == [12.5]


def test_a_move_that_ends_away_from_its_target_fails() -> None:
    stage = Mechanism("sample_x")
    stage.miss = 0.06
    with pytest.raises(
        RuntimeError, match=r"sample_x: the move ended at 1.06 um, expected 1.0 \+- 0.05"
    ):
        stage.axis.set(1.0).wait(2)


def test_a_move_that_does_not_end_names_the_variable_its_last_value_and_age() -> None:
    stage = Mechanism("sample_x", at=3.0)
    stage.stalled = True
    with pytest.raises(
        TimeoutError,
        match=r"sample_x: .* 0.2 s, and was stopped; \S+ = 3.0 um, \d+.\d s old; check",
    ):
        stage.axis.set(1.0).wait(2)
    assert stage.axis.motor_stop.get() == 1


@pytest.mark.parametrize(
    ("bits", "complaint"),
    [
        (0x0003 | 0x0200, "FAKE has a problem (MSTA = 0x203); check that its amplifier is on"),
        (0x0003 | 0x0040, "FAKE slipped or stalled (MSTA = 0x43); free it"),
        (0x0003 | 0x0004, "FAKE is at a limit switch (MSTA = 0x7); move it away"),
        (0x0002 | 0x2000, "FAKE is at a limit switch (MSTA = 0x2002); move it away"),
        (0x0003 | 0x1000, "FAKE lost its controller (MSTA = 0x1003); check the controller"),
    ],
)
def test_a_move_fails_where_the_record_complains_even_at_its_target(
    bits: int, complaint: str
) -> None:
    stage = Mechanism("sample_x")
    stage.axis.status_bits.sim_put(bits)
    expected = f"sample_x: the move ended at 1.0 um, expected 1.0 +- 0.05; {complaint}"
    with pytest.raises(RuntimeError, match=re.escape(expected)):
        stage.axis.set(1.0).wait(2)


@pytest.mark.parametrize("bits", [0x0003 | 0x2000, 0x0002 | 0x0004])
def test_a_limit_switch_behind_is_left(bits: int) -> None:
    stage = Mechanism("sample_x")
    stage.axis.status_bits.sim_put(bits)
    stage.axis.set(1.0).wait(2)


def test_an_invalid_alarm_fails_the_move() -> None:
    stage = Mechanism("sample_x")
    stage.axis.status_bits._metadata["severity"] = 3
    with pytest.raises(RuntimeError, match=r"FAKE.SEVR = INVALID, expected NO_ALARM; check"):
        stage.axis.set(1.0).wait(2)


@pytest.mark.parametrize("mode", ["Stop", "Pause"])
def test_a_record_that_may_not_move_is_not_asked(mode: str) -> None:
    stage = Mechanism("sample_x")
    stage.axis.move_permission.sim_put(mode)
    with pytest.raises(RuntimeError, match=rf"sample_x: not moved, since FAKE.SPMG = {mode}, expe"):
        stage.axis.set(1.0).wait(2)
    assert stage.visited == []


def test_a_record_that_is_being_calibrated_is_not_asked() -> None:
    stage = Mechanism("sample_x")
    stage.axis.set_use_switch.sim_put(1)
    with pytest.raises(RuntimeError, match=r"sample_x: not moved, since FAKE.SET = Set, expected"):
        stage.axis.set(1.0).wait(2)
    assert stage.visited == []


@pytest.mark.parametrize(
    ("start", "target", "visited"),
    [(0.0, 5.0, [5.0]), (0.0, -5.0, [-5.5, -5.0]), (0.0, 0.2, [-0.3, 0.2]), (2.0, 2.0, [1.5, 2.0])],
)
def test_theta_always_arrives_from_below(start: float, target: float, visited: list[float]) -> None:
    theta = Mechanism("theta", at=start)
    theta.axis.set(target).wait(2)
    assert theta.visited == pytest.approx(visited)


@pytest.mark.parametrize("target", [70.1, -70.1, -69.8, float("nan"), float("inf")])
def test_a_target_that_cannot_be_reached_is_refused_before_it_moves(target: float) -> None:
    theta = Mechanism("theta")
    with pytest.raises(LimitError, match=r"theta: .*limit"):
        theta.axis.set(target)
    assert theta.visited == []


def test_the_limits_of_the_motor_record_count_too() -> None:
    stage = Mechanism("sample_x")
    stage.axis.user_setpoint.sim_set_limits((-10, 10))
    with pytest.raises(LimitError, match=r"11.0 um is not within the limits of FAKE, -10 to 10 um"):
        stage.axis.set(11.0)


def test_an_axis_that_is_stopped_by_a_pause_finishes_quietly_and_goes_no_further() -> None:
    theta = Mechanism("theta", at=10.0)
    theta.stalled = True
    status = theta.axis.set(5.0)
    assert theta.commanded.wait(1)
    theta.axis.stop(success=True)
    status.wait(2)
    assert theta.visited == [4.5]


@pytest.fixture
def slit() -> dict[str, Mechanism]:
    return {
        "jaw_down": Mechanism("jaw_down", 1.5),
        "jaw_up": Mechanism("jaw_up", 2.5),
        "zone_plate_z": Mechanism("zone_plate_z"),
    }


@pytest.fixture
def polarization(slit: dict[str, Mechanism]) -> Polarization:
    axes = {name: mechanism.axis for name, mechanism in slit.items()}
    return Polarization(name="polarization", positions=CONFIGURATION.polarization, **axes)


def test_the_helicity_moves_both_jaws_and_the_focus(
    polarization: Polarization, slit: dict[str, Mechanism]
) -> None:
    assert polarization.read()["polarization"]["value"] == 1
    polarization.set(-1).wait(2)
    assert polarization.read()["polarization"]["value"] == -1
    assert polarization.describe()["polarization"]["dtype"] == "integer"
    positions = {name: mechanism.axis.position for name, mechanism in slit.items()}
    assert positions == {"jaw_down": -2.5, "jaw_up": -1.5, "zone_plate_z": 1.5}


def test_who_stops_one_of_its_axes_stops_it_in_the_same_way(
    polarization: Polarization, slit: dict[str, Mechanism]
) -> None:
    """A pause stops all devices, in any order: that of an axis may come before its own."""
    slit["zone_plate_z"].stalled = True
    status = polarization.set(-1)
    assert slit["zone_plate_z"].commanded.wait(1)
    slit["zone_plate_z"].axis.stop(success=True)
    status.wait(2)
    assert slit["zone_plate_z"].axis.position != 1.5


def test_who_stops_it_stops_what_moves(
    polarization: Polarization, slit: dict[str, Mechanism]
) -> None:
    slit["zone_plate_z"].stalled = True
    status = polarization.set(-1)
    assert slit["zone_plate_z"].commanded.wait(1)
    polarization.stop(success=True)
    assert slit["zone_plate_z"].axis.motor_stop.get() == 1
    status.wait(2)


def test_the_helicity_is_read_from_where_the_jaws_stand(
    polarization: Polarization, slit: dict[str, Mechanism]
) -> None:
    slit["jaw_up"].axis.user_readback.sim_put(2.519)
    assert polarization.helicity == 1
    slit["jaw_up"].axis.user_readback.sim_put(2.53)
    assert polarization.helicity == 0
    slit["jaw_up"].axis.user_readback.sim_put(-1.5)
    assert polarization.helicity == 0
    slit["jaw_down"].axis.user_readback.sim_put(-2.5)
    assert polarization.helicity == -1


def test_a_jaw_that_did_not_move_fails_the_helicity(
    polarization: Polarization, slit: dict[str, Mechanism]
) -> None:
    slit["jaw_up"].stalled = True
    with pytest.raises(TimeoutError, match=r"jaw_up: the move to -1.5 mm"):
        polarization.set(-1).wait(2)
    assert polarization.helicity == 0


def test_both_jaws_are_named_where_both_fail(
    polarization: Polarization, slit: dict[str, Mechanism]
) -> None:
    slit["jaw_up"].miss = slit["jaw_down"].miss = 0.5
    with pytest.raises(
        RuntimeError, match=r"jaw_down: the move .*; jaw_up: the move ended at -1.0"
    ):
        polarization.set(-1).wait(2)


@pytest.mark.parametrize(
    ("name", "position", "place"),
    [
        ("jaw_up", -1.0, "-1.0 mm, expected -1.5 +- 0.02"),
        ("zone_plate_z", 0.9, "0.9 um, expected 1.5 +- 0.05"),
    ],
)
def test_what_moved_away_while_the_slit_settled_is_named(
    polarization: Polarization,
    slit: dict[str, Mechanism],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    position: float,
    place: str,
) -> None:
    def rest(_motion: Motion, _duration_s: float) -> None:
        slit[name].axis.user_readback.sim_put(position)

    monkeypatch.setattr(Motion, "rest", rest)
    expected = f"polarization: -1 is not assigned: {name} at {place}; check what moved it"
    with pytest.raises(RuntimeError, match=re.escape(expected)):
        polarization.set(-1).wait(2)


def test_the_focus_is_what_was_set_last(
    polarization: Polarization, slit: dict[str, Mechanism]
) -> None:
    polarization.focus_negative_um.set(10.59).wait(1)
    polarization.set(-1).wait(2)
    assert slit["zone_plate_z"].axis.position == 10.59
    configuration = polarization.read_configuration()
    assert configuration["polarization_focus_positive_um"]["value"] == 0.0
    assert configuration["polarization_focus_negative_um"]["value"] == 10.59
    description = polarization.describe_configuration()["polarization_focus_negative_um"]
    assert (description["units"], description["dtype"]) == ("um", "number")


def test_a_focus_that_did_not_arrive_fails_the_helicity(
    polarization: Polarization, slit: dict[str, Mechanism]
) -> None:
    slit["zone_plate_z"].miss = 1.0
    with pytest.raises(RuntimeError, match="zone_plate_z: the move ended at"):
        polarization.set(-1).wait(2)


def test_a_helicity_that_is_there_already_moves_nothing(
    polarization: Polarization, slit: dict[str, Mechanism]
) -> None:
    polarization.set(1).wait(2)
    assert all(mechanism.visited == [] for mechanism in slit.values())


@pytest.mark.parametrize("helicity", [0, 2])
def test_only_two_helicities_can_be_set(polarization: Polarization, helicity: int) -> None:
    with pytest.raises(ValueError, match=r"expected \+1 or -1"):
        polarization.set(helicity)


def test_the_sample_is_in_or_out_by_where_the_stages_stand() -> None:
    x, y, z = (Mechanism(f"sample_{name}") for name in "xyz")
    sample = SamplePosition(
        name="sample_position",
        places=CONFIGURATION.sample_position,
        x=x.axis,
        y=y.axis,
        z=z.axis,
    )
    assert sample.read()["sample_position"]["value"] == "in"
    sample.set("out").wait(2)
    assert (sample.where, x.axis.position) == ("out", 200.0)
    x.axis.user_readback.sim_put(100.0)
    assert sample.where == "between"
    sample.in_x_um.put(37.0)
    sample.set("in").wait(2)
    assert (sample.where, x.axis.position) == ("in", 37.0)
    sample.in_y_um.put(-12.0)
    assert sample.where == "between"
    sample.set("out").wait(2)
    assert (sample.where, y.visited) == ("out", [])  # its height stays
    sample.set("in").wait(2)
    assert (sample.where, y.axis.position) == ("in", -12.0)
    with pytest.raises(ValueError, match="expected 'in' or 'out'"):
        sample.set("aside")


@pytest.mark.parametrize("phi_deg", [float("nan"), 361.0, float("inf")])
def test_an_azimuth_is_what_a_person_says_within_reason(phi_deg: float) -> None:
    azimuth = Azimuth(name="azimuth")
    assert azimuth.phi_deg != azimuth.phi_deg
    before = azimuth.read()["azimuth"]["timestamp"]
    azimuth.set(102).wait(1)
    reading = azimuth.read()["azimuth"]
    assert (reading["value"], reading["timestamp"] > before) == (102.0, True)
    assert azimuth.read()["azimuth_given_at_s"]["value"] == reading["timestamp"]
    assert azimuth.describe()["azimuth"]["units"] == "deg"
    with pytest.raises(ValueError, match="expected a number from -360 to 360"):
        azimuth.set(phi_deg)


def test_a_motion_fails_with_what_its_steps_raise() -> None:
    def steps(_: Motion) -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        Motion(Azimuth(name="azimuth"), steps).start().wait(1)


def test_an_interrupted_motion_ends_at_its_next_wait() -> None:
    motion = Motion(Azimuth(name="azimuth"), lambda motion: motion.rest(10)).start()
    motion.interrupt(success=True)
    motion.wait(1)

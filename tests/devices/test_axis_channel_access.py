"""Axes and ophyd's own motors on the simulated motor record, over real Channel Access."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from ophyd import EpicsMotor, EpicsSignal
from ophyd.utils import LimitError, UnknownStatusFailure

from mistral_txm.devices.axis import Axis
from mistral_txm.devices.configuration import load_configuration

CONFIGURATION = load_configuration()
THETA = CONFIGURATION.axes.theta.address.name
Y = CONFIGURATION.axes.sample_y.address.name

Put = Callable[[str, float], None]


@pytest.fixture
def put(instrument: Any) -> Iterator[Put]:
    """Write a process variable, and in the end what it was."""
    before: dict[str, tuple[Any, Any]] = {}

    def write(name: str, value: float) -> None:
        signal = EpicsSignal(name, name=name)
        signal.wait_for_connection(timeout=120)
        before.setdefault(name, (signal, signal.get()))
        signal.set(value).wait(120)

    yield write
    for signal, value in before.values():
        signal.set(value).wait(120)
        signal.destroy()


@pytest.fixture
def fault(put: Put) -> Put:
    """Turn a fault on or off; all are off in the end."""
    assert CONFIGURATION.simulation is not None
    prefix = CONFIGURATION.simulation.faults_address.name
    return lambda name, value: put(prefix + name.replace(".", ":"), value)


@pytest.fixture
def theta(instrument: Any) -> Axis:
    axis: Axis = instrument.theta
    axis.set(0.0).wait(120)
    return axis


@pytest.fixture
def impatient(theta: Axis) -> Iterator[Axis]:
    settings = CONFIGURATION.axes.theta.model_copy(update={"timeout_s": 0.3})
    axis = Axis(THETA, name="theta", settings=settings)
    axis.wait_for_connection(timeout=120)
    yield axis
    axis.destroy()


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("stall", 1, r"ended at 2.0 deg, expected 4.0 \+- 0.02; SIM:GON:THETA slipped or stalled "),
        ("unpowered", 1, r"ended at 0.0 deg, expected 4.0 .*; SIM:GON:THETA has a problem \(MSTA"),
        ("limit_switch", 1, r"ended at 2.0 deg, expected 4.0 .* is at a limit switch \(MSTA = 0x"),
    ],
)
def test_a_fault_fails_one_move_with_one_line_and_the_next_works(
    theta: Axis, fault: Put, name: str, value: float, complaint: str
) -> None:
    fault(f"theta.{name}", value)
    with pytest.raises(RuntimeError, match=f"^theta: the move {complaint}") as failure:
        theta.set(4.0).wait(120)
    assert "\n" not in str(failure.value)
    fault(f"theta.{name}", 0)
    theta.set(4.0).wait(120)
    assert theta.position == 4.0


def test_a_motor_that_hangs_is_stopped_after_its_time(impatient: Axis, fault: Put) -> None:
    fault("theta.hang", 1)
    with pytest.raises(
        TimeoutError,
        match=r"theta: the move to 4.0 deg did not end within 0.3 s, and was stopped; "
        r"SIM:GON:THETA.RBV = 2.0 deg, \d+.\d s old; check the motor SIM:GON:THETA",
    ):
        impatient.set(4.0).wait(120)
    impatient.set(5.0).wait(120)
    assert impatient.position == 5.0


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("SPMG", 1, "SPMG = Pause, expected Go; set it to Go"),
        ("SPMG", 0, "SPMG = Stop, expected Go; set it to Go"),
        ("SET", 1, "SET = Set, expected Use: a target would redefine the position"),
    ],
)
def test_a_record_that_would_not_move_is_not_asked(
    theta: Axis, put: Put, field: str, value: float, complaint: str
) -> None:
    put(f"{THETA}.{field}", value)
    with pytest.raises(RuntimeError, match=f"theta: not moved, since SIM:GON:THETA.{complaint}"):
        theta.set(4.0).wait(120)
    assert theta.user_setpoint.get() == 0.0
    put(f"{THETA}.{field}", {"SPMG": 3, "SET": 0}[field])
    theta.set(4.0).wait(120)


def test_a_motor_that_was_disabled_says_so(theta: Axis, put: Put) -> None:
    put(f"{THETA}.CNEN", 0)
    with pytest.raises(RuntimeError, match=r"has a problem .* check that its amplifier is on and"):
        theta.set(4.0).wait(120)
    put(f"{THETA}.CNEN", 1)
    theta.set(4.0).wait(120)


def test_a_stalled_jaw_is_named_and_no_helicity_assigned(instrument: Any, fault: Put) -> None:
    instrument.polarization.set(1).wait(120)
    fault("jaw_up.stall", 1)
    with pytest.raises(RuntimeError, match=r"^jaw_up: the move ended at 0.5 mm, expected -1.5 "):
        instrument.polarization.set(-1).wait(120)
    assert instrument.polarization.helicity == 0
    assert instrument.polarization.read()["polarization"]["value"] == 0
    assert instrument.jaw_down.position == -2.5  # nothing moves any more
    instrument.polarization.set(1).wait(120)
    assert instrument.polarization.helicity == 1


def test_the_energy_arrives_from_below_again_after_a_stall(instrument: Any, fault: Put) -> None:
    fault("energy.stall", 1)
    with pytest.raises(RuntimeError, match=r"energy: the move ended at .* slipped or stalled"):
        instrument.energy.set(705.0).wait(120)
    instrument.energy.set(707.4).wait(120)
    assert instrument.energy.position == 707.4


@pytest.fixture
def motor(instrument: Any) -> Iterator[EpicsMotor]:
    """Return ophyd's own motor on the same kind of record."""
    device = EpicsMotor(Y, name="motor")
    device.wait_for_connection(timeout=120)
    device.set(0.0).wait(120)
    yield device
    device.set(0.0).wait(120)
    device.destroy()


def test_ophyds_motor_moves(motor: EpicsMotor) -> None:
    for target in (12.5, 12.5, -3.0, *range(20)):
        motor.set(target).wait(120)
        assert motor.user_readback.get(use_monitor=False) == target
    assert motor.limits == (-2000.0, 2000.0)
    assert (motor.egu, motor.precision, motor.moving) == ("um", 4, False)
    with pytest.raises(LimitError):
        motor.check_value(2000.1)
    with pytest.raises(LimitError):
        motor.set(2000.1)


def test_ophyds_motor_stops_homes_and_is_calibrated(motor: EpicsMotor, fault: Put) -> None:
    motor.set(7.0).wait(120)
    fault("sample_y.hang", 1)
    status = motor.set(17.0)
    for _ in range(1000):
        if motor.user_readback.get(use_monitor=False) == 12.0:
            break
    assert not status.done
    assert motor.moving
    motor.stop()
    with suppress(UnknownStatusFailure):  # or a success: DMOV races with ophyd's own end
        status.wait(120)
    motor.motor_stop.put(1, use_complete=True, wait=True, timeout=120)
    assert motor.user_setpoint.get(use_monitor=False) == 12.0
    assert not motor.moving
    motor.home("forward", wait=True, timeout=120)
    assert motor.user_readback.get(use_monitor=False) == 0.0
    motor.home("reverse", wait=True, timeout=120)
    motor.set_current_position(5.0)
    assert motor.user_offset.get(use_monitor=False) == 5.0
    assert motor.user_readback.get(use_monitor=False) == 5.0
    motor.set_current_position(0.0)


def test_ophyds_motor_follows_changed_limits(motor: EpicsMotor) -> None:
    motor.set_lim(-10.0, 10.0)
    for _ in range(100):
        if motor.limits == (-10.0, 10.0):
            break
        motor.user_readback.get(use_monitor=False)
    with pytest.raises(LimitError):
        motor.set(11.0)
    motor.set_lim(-2000.0, 2000.0)


@pytest.mark.parametrize("name", ["stall", "unpowered", "limit_switch"])
def test_ophyds_motor_fails_where_the_record_complains(
    motor: EpicsMotor, fault: Put, name: str
) -> None:
    fault(f"sample_y.{name}", 1)
    with pytest.raises(UnknownStatusFailure):
        motor.set(8.0).wait(120)
    fault(f"sample_y.{name}", 0)
    motor.set(8.0).wait(120)

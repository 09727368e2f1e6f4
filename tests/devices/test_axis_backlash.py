"""The approach from below, on the play that the simulated mechanisms have."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from caproto import ChannelType
from ophyd.sim import make_fake_device

from mistral_txm.devices.axis import Axis
from mistral_txm.devices.configuration import Axis as AxisSettings
from mistral_txm.devices.configuration import load_configuration
from mistral_txm.simulated_beamline.clock import Clock
from mistral_txm.simulated_beamline.faults import Faults
from mistral_txm.simulated_beamline.motor import MotorRecord, MotorSettings
from mistral_txm.simulated_beamline.settings import load_settings

FakeAxis = make_fake_device(Axis)
CONFIGURATION = load_configuration()
REAL = load_settings("real").motors


def connected(settings: AxisSettings, name: str) -> tuple[Any, MotorRecord]:
    """Return an axis whose writes go to a simulated record, and the record."""
    motor = getattr(REAL, name)
    database: dict[str, Any] = {}
    record = MotorRecord(
        database,
        "M",
        MotorSettings(
            settings.unit,
            settings.low_limit,
            settings.high_limit,
            motor.velocity,
            motor.acceleration_s,
            motor.precision,
            initial=motor.initial,
            backlash=motor.backlash,
        ),
        0.0,
        Clock(),
        Faults(database, "F:", {}),
        name,
    )
    axis = FakeAxis("M", name=name, settings=settings)
    axis.user_setpoint.sim_set_limits((settings.low_limit, settings.high_limit))
    axis.user_readback.sim_put(motor.initial)
    axis.move_permission.sim_put("Go")
    axis.status_bits.sim_put(0)
    axis.set_use_switch.sim_put(0)

    def put(value: float, callback: Callable[[], None], **_: Any) -> None:
        asyncio.run(database["M.VAL"].write_from_dbr([value], ChannelType.DOUBLE, None))
        axis.user_readback.sim_put(database["M.RBV"].value)
        callback()

    axis.user_setpoint.put = put
    return axis, record


def mechanism_positions(settings: AxisSettings, name: str, target: float) -> list[float]:
    """Go to a target from below, from above, and from a little above; where it really ends."""
    axis, record = connected(settings, name)
    ends = []
    for start in (target - 6.0, target + 6.0, target + 1.5 * getattr(REAL, name).backlash):
        axis.set(start).wait(120)
        axis.set(target).wait(120)
        assert axis.position == target
        ends.append(record.mechanism_position)
    return ends


@pytest.mark.parametrize(("name", "target"), [("theta", 12.0), ("energy", 708.2)])
def test_from_both_sides_the_mechanism_ends_at_the_same_place(name: str, target: float) -> None:
    settings: AxisSettings = getattr(CONFIGURATION.axes, name)
    assert mechanism_positions(settings, name, target) == pytest.approx([target] * 3)


@pytest.mark.parametrize(("name", "target"), [("theta", 12.0), ("energy", 708.2)])
def test_without_the_approach_it_would_not(name: str, target: float) -> None:
    settings: AxisSettings = getattr(CONFIGURATION.axes, name)
    direct = settings.model_copy(update={f"approach_{settings.unit}": 0.0})
    backlash = getattr(REAL, name).backlash
    assert backlash > settings.tolerance  # an error that the readback does not show
    assert mechanism_positions(direct, name, target) == pytest.approx(
        [target, target + backlash, target + backlash]
    )

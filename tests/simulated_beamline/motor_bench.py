"""A motor record on the bench."""

import asyncio
import functools
from dataclasses import replace

from caproto import ChannelType

from mistral_txm.simulated_beamline.clock import Clock
from mistral_txm.simulated_beamline.faults import Faults
from mistral_txm.simulated_beamline.motor import MotorRecord, MotorSettings

SETTINGS = MotorSettings("deg", -70.0, 70.0, velocity=10.0, acceleration_s=0.0, precision=3)

# The bits of MSTA as the documentation of the motor record lists them
DIRECTION, DONE, PLUS_LIMIT, HOME_SWITCH = 0x1, 0x2, 0x4, 0x8
POSITION, SLIP_STALL, AT_HOME, ENCODER_PRESENT = 0x20, 0x40, 0x80, 0x100
PROBLEM, MOVING, GAIN_SUPPORT, MINUS_LIMIT, HOMED = 0x200, 0x400, 0x800, 0x2000, 0x4000


class Bench:
    """A record, and what a client can do with it."""

    def __init__(self, time_scale=0.0, **settings):
        self.database = {}
        self.clock = Clock()
        self.faults = Faults(self.database, "FAULT:", {})
        self.motor = MotorRecord(
            self.database,
            "M",
            replace(SETTINGS, **settings),
            time_scale,
            self.clock,
            self.faults,
            "theta",
        )

    async def put(self, field, value):
        await self.database[f"M.{field}"].write_from_dbr([value], ChannelType.DOUBLE, None)

    def start(self, field, value):
        return asyncio.create_task(self.put(field, value))

    async def fault(self, name, value=1):
        await self.faults.turn(f"theta.{name}", value)

    def get(self, *fields):
        values = tuple(self.database[f"M.{field}"].value for field in fields)
        return values if len(fields) > 1 else values[0]

    def has(self, bit):
        return bool(self.get("MSTA") & bit)

    def alarm(self):
        alarm = self.database["M.RBV"].alarm
        return alarm.status, alarm.severity

    def record(self, field):
        """Collect every value that is published."""
        channel, seen = self.database[f"M.{field}"], []
        publish = channel.publish

        async def spy(flags):
            seen.append(channel.value)
            await publish(flags)

        channel.publish = spy
        return seen


def in_a_loop(case):
    @functools.wraps(case)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(case(*args, **kwargs), 5))

    return run


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come to that")

"""The motor record, written to as the Channel Access server writes to it."""

import asyncio
import math

import pytest
from caproto import ChannelType

from mistral_txm.simulated_beamline.motor import MotorRecord, MotorSettings

SETTINGS = MotorSettings("deg", -70.0, 70.0, velocity=10.0, acceleration_s=0.0, precision=3)


class Bench:
    """A record, and what a client can do with it."""

    def __init__(self, time_scale=0.0):
        self.database = {}
        self.motor = MotorRecord(self.database, "M", SETTINGS, time_scale)

    async def put(self, field, value):
        await self.database[f"M.{field}"].write_from_dbr([value], ChannelType.DOUBLE, None)

    def get(self, field):
        return self.database[f"M.{field}"].value

    def record(self, field):
        """Collect every value that is published."""
        channel, seen = self.database[f"M.{field}"], []
        publish = channel.publish

        async def spy(flags):
            seen.append(channel.value)
            await publish(flags)

        channel.publish = spy
        return seen


def test_a_move_ends_on_its_target_and_says_so():
    async def case():
        bench = Bench()
        done, moving = bench.record("DMOV"), bench.record("MOVN")
        await bench.put("VAL", 12.5)
        assert (bench.get("RBV"), bench.get("VAL"), bench.motor.dial_position) == (12.5,) * 3
        assert (done, moving) == ([0, 1], [1, 0])
        assert bench.get("MSTA") & 0x2
        assert not bench.get("MSTA") & 0x400
        assert bench.get("RRBV") == 12500

    asyncio.run(case())


def test_done_falls_and_rises_also_where_nothing_has_to_move():
    async def case():
        bench = Bench()
        done = bench.record("DMOV")
        await bench.put("VAL", 0.0)
        assert done == [0, 1]

    asyncio.run(case())


@pytest.mark.parametrize("target", [70.001, -71.0, math.nan, math.inf])
def test_a_target_outside_the_limits_moves_nothing(target):
    async def case():
        bench = Bench()
        await bench.put("VAL", 3.0)
        await bench.put("VAL", target)
        assert (bench.get("LVIO"), bench.get("VAL"), bench.get("RBV")) == (1, 3.0, 3.0)
        await bench.put("VAL", 4.0)
        assert (bench.get("LVIO"), bench.get("RBV")) == (0, 4.0)

    asyncio.run(case())


def test_changed_limits_are_published_and_hold():
    async def case():
        bench = Bench()
        await bench.put("HLM", 5.0)
        assert bench.database["M.VAL"].upper_ctrl_limit == 5.0
        await bench.put("VAL", 6.0)
        assert bench.get("LVIO") == 1

    asyncio.run(case())


def test_stop_ends_a_move_on_the_way():
    async def case():
        bench = Bench(time_scale=1.0)
        moving = asyncio.create_task(bench.put("VAL", 60.0))
        await asyncio.sleep(0.12)
        assert bench.get("DMOV") == 0
        await bench.put("STOP", 1)
        await moving
        assert bench.get("DMOV") == 1
        assert bench.get("STOP") == 0
        assert 0 < bench.get("RBV") < 60
        assert bench.get("VAL") == bench.get("RBV")

    asyncio.run(case())


def test_a_second_target_takes_over():
    async def case():
        bench = Bench(time_scale=0.1)
        first = asyncio.create_task(bench.put("VAL", 60.0))
        await asyncio.sleep(0.06)
        await bench.put("VAL", -1.0)
        await first
        assert (bench.get("RBV"), bench.get("DMOV")) == (-1.0, 1)

    asyncio.run(case())


def test_a_move_takes_as_long_as_the_speed_says():
    async def case():
        bench = Bench(time_scale=0.1)
        began = asyncio.get_running_loop().time()
        await bench.put("VAL", 20.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.2, abs=0.1)

    asyncio.run(case())


def test_set_redefines_the_position_without_moving():
    async def case():
        bench = Bench()
        await bench.put("VAL", 10.0)
        await bench.put("SET", 1)
        await bench.put("VAL", 0.0)
        await bench.put("SET", 0)
        assert (bench.get("RBV"), bench.get("OFF"), bench.motor.dial_position) == (0.0, -10.0, 10.0)

    asyncio.run(case())


def test_home_and_tweak():
    async def case():
        bench = Bench()
        await bench.put("VAL", 10.0)
        await bench.put("TWF", 1)
        assert bench.get("RBV") == 11.0
        await bench.put("HOMF", 1)
        assert bench.get("RBV") == 0.0

    asyncio.run(case())

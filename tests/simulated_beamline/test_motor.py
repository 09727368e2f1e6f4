"""The motor record, written to as the Channel Access server writes to it: moves, limits, stops, and their time."""

import asyncio
import math
from dataclasses import replace

import pytest
from caproto import ChannelType

from mistral_txm.simulated_beamline.motor import MotorRecord
from tests.simulated_beamline.motor_bench import (
    DIRECTION,
    DONE,
    ENCODER_PRESENT,
    GAIN_SUPPORT,
    MINUS_LIMIT,
    MOVING,
    PLUS_LIMIT,
    POSITION,
    SETTINGS,
    Bench,
    in_a_loop,
    until,
)


@in_a_loop
async def test_a_move_ends_on_its_target_and_says_so():
    bench = Bench()
    done, moving = bench.record("DMOV"), bench.record("MOVN")
    await bench.put("VAL", 12.5)
    assert bench.get("RBV", "VAL", "DVAL", "DRBV") == (12.5,) * 4
    assert (bench.motor.dial_position, bench.motor.mechanism_position) == (12.5, 12.5)
    assert (done, moving) == ([0, 1], [1, 0])
    assert bench.get("RVAL", "RRBV", "DIFF", "RDIF") == (12500, 12500, 0.0, 0)
    bits = DIRECTION | DONE | POSITION | ENCODER_PRESENT | GAIN_SUPPORT
    assert bench.get("MSTA") == bits
    await bench.put("VAL", -12.5)
    assert bench.get("MSTA") == bits & ~DIRECTION
    assert bench.get("TDIR") == 0


@in_a_loop
async def test_done_falls_and_rises_also_where_nothing_has_to_move():
    bench = Bench()
    done, moving = bench.record("DMOV"), bench.record("MOVN")
    await bench.put("VAL", 0.0)
    assert (done, moving) == ([0, 1], [])


@in_a_loop
async def test_a_motor_stands_on_whole_steps_nearest_to_its_target():
    bench = Bench()
    await bench.put("VAL", 1.23456)
    assert bench.get("VAL", "RBV", "RRBV") == (1.23456, 1.235, 1235)
    assert bench.get("DIFF") == pytest.approx(-0.00044)


@pytest.mark.parametrize("target", [70.001, -74.0, math.nan, math.inf])
@pytest.mark.parametrize("field", ["VAL", "DVAL", "RLV"])
@in_a_loop
async def test_a_target_outside_the_limits_moves_nothing(field, target):
    bench = Bench()
    await bench.put("VAL", 3.0)
    done = bench.record("DMOV")
    await bench.put(field, target)
    assert bench.get("LVIO", "VAL", "DVAL", "RBV", "DMOV") == (1, 3.0, 3.0, 3.0, 1)
    assert done == [0, 1]
    await bench.put("VAL", 4.0)
    assert bench.get("LVIO", "RBV") == (0, 4.0)


@in_a_loop
async def test_every_drive_field_moves_all_of_them():
    bench = Bench()
    await bench.put("DIR", 1)
    await bench.put("OFF", 10.0)
    for field, value in (("VAL", 12.0), ("DVAL", -2.0), ("RVAL", -2000), ("RLV", 0.0)):
        await bench.put("VAL", 5.0)
        if field == "RLV":
            value = 12.0 - 5.0
        await bench.put(field, value)
        # user = DIR dial + OFF
        assert bench.get("VAL", "DVAL", "RVAL", "RBV", "DRBV", "RRBV", "RLV") == (
            (12.0, -2.0, -2000) * 2 + (0.0,)
        )


@in_a_loop
async def test_limits_in_user_and_dial_coordinates_agree():
    bench = Bench()
    await bench.put("HLM", 5.0)
    assert bench.get("DHLM", "LVIO") == (5.0, 0)
    channel = bench.database["M.VAL"]
    assert (channel.lower_ctrl_limit, channel.upper_ctrl_limit) == (-70.0, 5.0)
    await bench.put("VAL", 6.0)
    assert bench.get("LVIO") == 1
    await bench.put("OFF", 1.0)
    assert bench.get("HLM", "LLM", "DHLM", "DLLM") == (6.0, -69.0, 5.0, -70.0)
    await bench.put("OFF", 0.0)
    await bench.put("DIR", 1)
    assert bench.get("HLM", "LLM", "DHLM", "DLLM") == (70.0, -5.0, 5.0, -70.0)
    assert (channel.lower_ctrl_limit, channel.upper_ctrl_limit) == (-5.0, 70.0)
    await bench.put("HLM", 30.0)
    assert bench.get("DLLM", "DHLM") == (-30.0, 5.0)
    await bench.put("DHLM", 20.0)
    assert bench.get("LLM", "HLM") == (-20.0, 30.0)


@in_a_loop
async def test_limits_that_exclude_the_target_say_so_and_let_it_come_back():
    bench = Bench()
    await bench.put("VAL", 50.0)
    await bench.put("HLM", 10.0)
    assert bench.get("LVIO", "RBV") == (1, 50.0)
    await bench.put("VAL", 51.0)
    assert bench.get("LVIO", "RBV") == (1, 50.0)
    await bench.put("VAL", 30.0)  # nearer
    assert bench.get("LVIO", "RBV") == (0, 30.0)


@in_a_loop
async def test_limits_at_zero_are_none_and_the_switch_stops_the_motor():
    bench = Bench()
    await bench.put("DHLM", 0.0)
    await bench.put("DLLM", 0.0)
    await bench.put("VAL", 500.0)
    assert bench.get("HLS", "LLS", "RBV", "VAL", "DMOV") == (1, 0, 77.0, 77.0, 1)
    assert bench.has(PLUS_LIMIT)
    await bench.put("VAL", 60.0)
    assert bench.get("HLS", "RBV") == (0, 60.0)
    await bench.put("VAL", -500.0)
    assert bench.get("LLS", "HLS", "RBV") == (1, 0, -77.0)
    assert bench.has(MINUS_LIMIT)


@pytest.mark.parametrize("way", ["STOP", "SPMG"])
@in_a_loop
async def test_stop_ends_a_move_on_the_way(way):
    bench = Bench(time_scale=1.0)
    moving = bench.start("VAL", 60.0)
    await until(lambda: bench.get("RBV") > 0)
    assert bench.get("DMOV", "MOVN") == (0, 1)
    assert bench.has(MOVING)
    assert not bench.has(DONE)
    await bench.put(way, int(way == "STOP"))
    await moving
    assert bench.get("DMOV", "MOVN", "STOP") == (1, 0, 0)
    assert 0 < bench.get("RBV") < 60
    assert bench.get("VAL") == bench.get("RBV")
    await bench.put("SPMG", 3)
    assert bench.get("DMOV") == 1


@in_a_loop
async def test_a_pause_keeps_the_target_and_go_continues():
    bench = Bench(time_scale=0.1)
    moving = bench.start("VAL", 10.0)
    await until(lambda: bench.get("RBV") > 0)
    await bench.put("SPMG", 1)
    await until(lambda: bench.get("MOVN") == 0)
    assert bench.get("DMOV", "VAL") == (0, 10.0)
    assert 0 < bench.get("RBV") < 10
    assert not moving.done()
    await bench.put("SPMG", 3)
    await moving
    assert bench.get("DMOV", "RBV") == (1, 10.0)


@pytest.mark.parametrize("state", [0, 1])
@in_a_loop
async def test_what_is_asked_for_under_stop_or_pause_waits_for_go(state):
    bench = Bench()
    await bench.put("SPMG", state)
    waiting = bench.start("VAL", 4.0)
    await until(lambda: bench.get("DMOV") == 0)
    assert bench.get("RBV", "VAL") == (0.0, 4.0)
    await bench.put("SPMG", 3)
    await waiting
    assert bench.get("RBV", "DMOV") == (4.0, 1)
    await bench.put("SPMG", state)
    waiting = bench.start("VAL", 5.0)
    await until(lambda: bench.get("DMOV") == 0)
    await bench.put("STOP", 1)
    await waiting
    await bench.put("SPMG", 3)
    assert bench.get("RBV", "VAL", "DMOV") == (4.0, 4.0, 1)


@in_a_loop
async def test_move_is_one_move():
    bench = Bench()
    await bench.put("SPMG", 2)
    await bench.put("VAL", 4.0)
    assert bench.get("RBV", "SPMG", "DMOV") == (4.0, "Pause", 1)


@in_a_loop
async def test_a_second_target_takes_over():
    bench = Bench(time_scale=0.1)
    done = bench.record("DMOV")
    first = bench.start("VAL", 60.0)
    await until(lambda: bench.get("RBV") > 0)
    await bench.put("VAL", -1.0)
    await first
    assert bench.get("RBV", "VAL", "DMOV") == (-1.0, -1.0, 1)
    assert done == [0, 1]


@in_a_loop
async def test_a_motor_goes_on_where_the_client_that_asked_is_gone():
    bench = Bench(time_scale=0.1)
    moving = bench.start("VAL", 5.0)
    await until(lambda: bench.get("RBV") > 0)
    moving.cancel()
    await until(lambda: bench.get("DMOV") == 1)
    assert bench.get("RBV") == 5.0


@in_a_loop
async def test_a_move_takes_as_long_as_the_speed_says():
    bench = Bench(time_scale=0.1)
    began = asyncio.get_running_loop().time()
    await bench.put("VAL", 20.0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.2, abs=0.1)


@in_a_loop
async def test_the_clock_counts_what_a_move_would_take_and_the_settling():
    bench = Bench(settle_s=65.0, acceleration_s=0.5)
    await bench.put("VAL", 20.0)
    # a trapezoid: 20 / 10 s and half of each ramp, 0.25 s, on top
    assert bench.clock.time_s == pytest.approx(2.0 + 2 * 0.25 + 65.0)
    await bench.put("DLY", 1.0)
    await bench.put("VELO", 5.0)
    await bench.put("VAL", 30.0)
    assert bench.clock.time_s == pytest.approx(67.5 + 2.0 + 2 * 0.25 + 1.0)


@in_a_loop
async def test_motors_that_move_together_settle_together():
    """Both jaws of a slit: the clock sees one settling time, at any time scale."""
    bench = Bench(settle_s=65.0)
    other = MotorRecord(
        bench.database,
        "N",
        replace(SETTINGS, settle_s=65.0),
        0.0,
        bench.clock,
        bench.faults,
        "energy",
    )
    assert other.dial_position == 0.0
    first = bench.start("VAL", 10.0)
    await bench.database["N.VAL"].write_from_dbr([10.0], ChannelType.DOUBLE, None)
    await first
    assert 66.0 <= bench.clock.time_s <= 67.1


@in_a_loop
async def test_a_motor_is_done_when_it_has_settled():
    bench = Bench(time_scale=0.1, settle_s=1.0)
    moving = bench.start("VAL", 1.0)
    await until(lambda: bench.get("RBV") == 1.0 and bench.get("MOVN") == 0)
    assert bench.get("DMOV") == 0
    assert not moving.done()
    await moving
    assert bench.get("DMOV") == 1

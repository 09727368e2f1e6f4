"""The motor record: what it says and does where the mechanism fails."""

import asyncio

import pytest
from caproto import AlarmSeverity, AlarmStatus

from tests.simulated_beamline.motor_bench import (
    MINUS_LIMIT,
    PLUS_LIMIT,
    POSITION,
    PROBLEM,
    SLIP_STALL,
    Bench,
    in_a_loop,
    until,
)


@in_a_loop
async def test_a_stall_ends_half_way_after_all_retries():
    bench = Bench()
    await bench.put("RTRY", 3)
    await bench.fault("stall")
    await bench.put("VAL", 10.0)
    assert bench.get("RBV", "VAL", "DMOV", "MISS", "RCNT") == (5.0, 10.0, 1, 1, 4)
    assert bench.has(SLIP_STALL)
    assert bench.alarm() == (AlarmStatus.STATE, AlarmSeverity.MAJOR_ALARM)
    assert bench.get("STAT", "SEVR") == ("STATE", "MAJOR")
    assert bench.motor.mechanism_position == 5.0
    await bench.put("VAL", 10.0)
    assert bench.get("RBV", "MISS", "RCNT", "SEVR") == (10.0, 0, 0, "NO_ALARM")
    assert not bench.has(SLIP_STALL)


@in_a_loop
async def test_a_motor_without_power_stays_where_it_is():
    bench = Bench()
    await bench.fault("unpowered")
    await bench.put("VAL", 10.0)
    assert bench.get("RBV", "DMOV", "MOVN", "MISS", "CNEN") == (0.0, 1, 0, 1, "Disable")
    assert bench.has(PROBLEM)
    assert not bench.has(POSITION)
    assert bench.alarm() == (AlarmStatus.STATE, AlarmSeverity.MAJOR_ALARM)
    assert bench.clock.time_s == 0.0
    await bench.fault("unpowered", 0)
    await bench.put("VAL", 10.0)
    assert bench.get("RBV", "SEVR", "CNEN", "MISS") == (10.0, "NO_ALARM", "Enable", 0)


@in_a_loop
async def test_a_motor_that_is_disabled_does_not_move():
    bench = Bench()
    await bench.put("CNEN", 0)
    assert not bench.has(POSITION)
    assert not bench.has(PROBLEM)
    await bench.put("VAL", 10.0)
    assert bench.get("RBV", "DMOV", "CNEN") == (0.0, 1, "Disable")
    assert bench.has(PROBLEM)
    await bench.put("CNEN", 1)
    await bench.put("VAL", 10.0)
    assert bench.get("RBV", "CNEN") == (10.0, "Enable")


@pytest.mark.parametrize(("target", "switch"), [(10.0, PLUS_LIMIT), (-10.0, MINUS_LIMIT)])
@in_a_loop
async def test_a_limit_switch_ends_the_move_and_the_record_accepts_it(target, switch):
    bench = Bench()
    await bench.put("HLSV", 2)
    await bench.fault("limit_switch")
    await bench.put("VAL", target)
    assert bench.get("RBV", "VAL", "DMOV") == (target / 2, target / 2, 1)
    assert bench.has(switch)
    up = target > 0
    assert bench.get("HLS", "LLS") == (int(up), int(not up))
    status = AlarmStatus.HIGH if up else AlarmStatus.LOW
    assert bench.alarm() == (status, AlarmSeverity.MAJOR_ALARM)
    await bench.put("VAL", target)
    assert bench.get("RBV", "HLS", "LLS", "SEVR") == (target, 0, 0, "NO_ALARM")


@in_a_loop
async def test_in_user_coordinates_the_switches_change_sides():
    bench = Bench()
    await bench.put("DIR", 1)
    await bench.fault("limit_switch")
    await bench.put("VAL", 10.0)
    assert bench.get("RBV", "HLS", "LLS") == (5.0, 1, 0)
    assert bench.has(MINUS_LIMIT)


@in_a_loop
async def test_a_frozen_mechanism_stays_where_the_readback_left_it():
    bench = Bench()
    await bench.put("VAL", 1.0)
    await bench.fault("frozen")
    await bench.put("VAL", 10.0)
    assert bench.get("RBV", "SEVR") == (10.0, "NO_ALARM")
    assert bench.motor.mechanism_position == 1.0
    await bench.fault("frozen", 0)
    await bench.put("VAL", 11.0)
    assert bench.motor.mechanism_position == 11.0


@in_a_loop
async def test_an_encoder_jump_parts_the_mechanism_from_the_readback_at_once():
    bench = Bench()
    await bench.put("VAL", 1.0)
    await bench.fault("encoder_jump", 0.2)
    assert bench.motor.mechanism_position == pytest.approx(1.2)
    assert bench.motor.dial_position == 1.0


@in_a_loop
async def test_a_move_that_hangs_ends_when_it_is_stopped():
    bench = Bench()
    await bench.fault("hang")
    moving = bench.start("VAL", 10.0)
    await until(lambda: bench.get("RBV") == 5.0)
    await asyncio.sleep(0.02)
    assert bench.get("DMOV", "MOVN") == (0, 1)
    assert not moving.done()
    await bench.put("STOP", 1)
    await moving
    assert bench.get("DMOV", "MOVN", "VAL", "SEVR") == (1, 0, 5.0, "NO_ALARM")
    await bench.put("VAL", 10.0)
    assert bench.get("RBV") == 10.0


@in_a_loop
async def test_a_fault_is_not_used_up_by_a_move_to_the_same_place():
    bench = Bench()
    await bench.fault("stall")
    await bench.put("VAL", 0.0)
    assert bench.faults.is_on("theta.stall")
    await bench.fault("stall", -1)
    for target in (8.0, 16.0):
        await bench.put("VAL", target)
        assert bench.get("RBV") != target

"""The motor record, written to as the Channel Access server writes to it."""

import asyncio
import functools
import math
from dataclasses import replace

import pytest
from caproto import AccessRights, AlarmSeverity, AlarmStatus, ChannelType

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


@in_a_loop
async def test_set_redefines_the_position_without_moving():
    bench = Bench()
    await bench.put("VAL", 10.0)
    await bench.put("SET", 1)
    await bench.put("VAL", 0.0)
    await bench.put("SET", 0)
    assert bench.get("RBV", "OFF", "DRBV", "HLM", "LLM") == (0.0, -10.0, 10.0, 60.0, -80.0)
    assert bench.motor.mechanism_position == 10.0
    await bench.put("VAL", 1.0)
    assert bench.motor.mechanism_position == 11.0


@in_a_loop
async def test_set_with_the_dial_loads_the_register():
    bench = Bench()
    await bench.put("VAL", 10.0)
    await bench.put("SET", 1)
    await bench.put("DVAL", 0.0)
    assert bench.get("VAL", "RBV", "OFF", "DRBV", "RRBV") == (10.0, 10.0, 10.0, 0.0, 0)
    await bench.put("FOFF", 1)
    await bench.put("VAL", 12.0)
    await bench.put("SET", 0)
    assert bench.get("VAL", "OFF", "DRBV", "DMOV") == (12.0, 10.0, 2.0, 1)
    assert bench.motor.mechanism_position == 10.0
    await bench.put("VAL", 13.0)
    assert bench.motor.mechanism_position == 11.0


@in_a_loop
async def test_a_change_of_direction_keeps_the_position_or_the_offset():
    bench = Bench()
    await bench.put("VAL", 10.0)
    await bench.put("DIR", 1)
    assert bench.get("VAL", "RBV", "OFF", "DRBV") == (10.0, 10.0, 20.0, 10.0)
    await bench.put("FOFF", 1)
    await bench.put("DIR", 0)
    assert bench.get("VAL", "RBV", "OFF", "DRBV") == (30.0, 30.0, 20.0, 10.0)


@in_a_loop
async def test_home_and_tweak():
    bench = Bench()
    await bench.put("VAL", 10.0)
    await bench.put("TWF", 1)
    assert bench.get("RBV", "TWF") == (11.0, 0)
    await bench.put("TWV", 2.0)
    await bench.put("TWR", 1)
    assert bench.get("RBV", "ATHM") == (9.0, 0)
    assert not bench.has(HOMED)
    await bench.put("HOMF", 1)
    assert bench.get("RBV", "VAL", "HOMF", "ATHM", "DMOV") == (0.0, 0.0, 0, 1, 1)
    assert bench.has(HOMED)
    assert bench.has(HOME_SWITCH)
    assert bench.has(AT_HOME)
    await bench.put("VAL", 1.0)
    assert bench.has(HOMED)
    assert not bench.has(AT_HOME)


@in_a_loop
async def test_a_jog_goes_on_until_the_button_is_let_go():
    bench = Bench(time_scale=0.1, velocity=5.0)
    jogging = bench.start("JOGF", 1)
    await until(lambda: bench.get("RBV") > 0)
    assert bench.get("DMOV", "MOVN", "JOGF") == (0, 1, 1)
    await bench.put("JOGF", 0)
    await jogging
    assert 0 < bench.get("RBV") < 70
    assert bench.get("VAL") == bench.get("RBV")
    assert bench.get("DMOV", "LVIO", "JOGF") == (1, 0, 0)


@pytest.mark.parametrize(("button", "end"), [("JOGF", 65.0), ("JOGR", -65.0)])
@in_a_loop
async def test_a_jog_ends_one_second_before_the_limit(button, end):
    bench = Bench(velocity=5.0)
    await bench.put(button, 1)
    assert bench.get("RBV", "VAL", "LVIO", button, "DMOV") == (end, end, 1, 0, 1)
    await bench.put(button, 1)  # no room left
    assert bench.get("RBV", "LVIO", button, "DMOV") == (end, 1, 0, 1)


@in_a_loop
async def test_a_button_that_is_let_go_at_once_or_in_vain_does_no_harm():
    bench = Bench(time_scale=0.1, velocity=5.0)
    jogging = bench.start("JOGF", 1)
    released = bench.start("JOGF", 0)
    await jogging
    await released
    assert bench.get("DMOV") == 1
    assert bench.get("RBV") < 1.0
    moving = bench.start("VAL", 2.0)
    await until(lambda: bench.get("RBV") > 0)
    await bench.put("JOGF", 0)
    await moving
    assert bench.get("RBV") == 2.0


@in_a_loop
async def test_no_jog_under_pause():
    bench = Bench()
    await bench.put("SPMG", 1)
    await bench.put("JOGF", 1)
    assert bench.get("JOGF", "RBV", "DMOV") == (0, 0.0, 1)


@pytest.mark.parametrize(
    ("backlash", "start", "target", "visited"),
    [
        (1.0, 0.0, 10.0, [9.0, 10.0]),
        (1.0, 10.0, 0.0, [-1.0, 0.0]),
        (1.0, 0.0, 0.5, [0.5]),  # the correction is still taken up
        (-1.0, 0.0, 10.0, [11.0, 10.0]),
        (-1.0, 10.0, 9.5, [9.5]),
        (0.0, 0.0, 10.0, [10.0]),
    ],
)
@in_a_loop
async def test_the_records_own_backlash_correction(backlash, start, target, visited):
    bench = Bench(backlash=0.3)
    await bench.put("VAL", start)
    await bench.put("BDST", backlash)
    await bench.put("BVEL", 1.0)
    readbacks = bench.record("RBV")
    await bench.put("VAL", target)
    assert readbacks == visited
    upwards = visited[-1] > ([start, *visited])[-2]
    assert bench.motor.mechanism_position == pytest.approx(target + (0.0 if upwards else 0.3))


@in_a_loop
async def test_a_backlash_correction_must_fit_the_limits_too():
    bench = Bench()
    await bench.put("BDST", 1.0)
    await bench.put("VAL", -69.5)
    assert bench.get("LVIO", "RBV") == (1, 0.0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"VELO": 20.0}, {"VELO": 10.0}),  # never above VMAX
        ({"VMAX": 0.0, "VELO": 20.0}, {"VELO": 20.0}),  # 0 is no maximum
        ({"VBAS": 2.0, "VELO": 1.0}, {"VELO": 2.0}),
        ({"VBAS": 20.0}, {"VMAX": 20.0, "VELO": 20.0}),
        ({"VBAS": 5.0, "VMAX": 3.0}, {"VBAS": 3.0, "VELO": 3.0, "BVEL": 3.0}),
        ({"ACCL": 0.0}, {"ACCL": 0.1}),
        ({"RDBD": 0.0}, {"RDBD": 0.001}),
    ],
)
@in_a_loop
async def test_settings_are_kept_in_their_range(fields, expected):
    bench = Bench()
    for field, value in fields.items():
        await bench.put(field, value)
    assert {field: bench.get(field) for field in expected} == expected


@in_a_loop
async def test_sync_and_status_update():
    bench = Bench()
    await bench.fault("stall")
    await bench.put("RTRY", 0)
    await bench.put("VAL", 4.0)
    assert bench.get("VAL", "RBV", "MISS", "RCNT") == (4.0, 2.0, 0, 0)
    await bench.put("SYNC", 1)
    assert bench.get("VAL", "DVAL", "SYNC", "RBV") == (2.0, 2.0, 0, 2.0)
    await bench.fault("unpowered")
    assert not bench.has(PROBLEM)  # nobody has asked
    await bench.put("STUP", 1)
    assert bench.get("STUP") == "OFF"
    assert bench.has(PROBLEM)


@in_a_loop
async def test_readbacks_cannot_be_written():
    bench = Bench()
    for field in ("RBV", "DRBV", "MSTA", "DMOV", "LVIO"):
        rights = bench.database[f"M.{field}"].check_access("host", "user")
        assert AccessRights.WRITE not in rights


# Faults


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

"""The motor record: coordinates, home, tweak and jog, backlash, and what may be written."""

import pytest
from caproto import AccessRights

from tests.simulated_beamline.motor_bench import (
    AT_HOME,
    HOME_SWITCH,
    HOMED,
    PROBLEM,
    Bench,
    in_a_loop,
    until,
)


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

"""What stands behind a motor: play, switches, and the time that a distance takes."""

import doctest
from itertools import pairwise

import pytest

from mistral_txm.simulated_beamline import mechanism
from mistral_txm.simulated_beamline.mechanism import Mechanism, Profile


def test_examples():
    result = doctest.testmod(mechanism)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_load_stands_where_it_was_pushed_last():
    stage = Mechanism(0.0, backlash=0.5, low=-10.0, high=10.0)
    visited = []
    for position in (4.0, 3.8, 3.0, 3.4, 3.6, 9.0):
        stage.turn(position)
        visited.append(stage.load)
    # up: with the shaft; down: 0.5 above it; up again: it stays until the play is taken up
    assert visited == [4.0, 4.0, 3.5, 3.5, 3.6, 9.0]


def test_a_frozen_load_stays_and_is_caught_up_with():
    stage = Mechanism(0.0, backlash=0.0, low=-10.0, high=10.0)
    stage.turn(4.0, frozen=True)
    assert (stage.shaft, stage.load) == (4.0, 0.0)
    stage.turn(5.0)
    assert (stage.shaft, stage.load) == (5.0, 5.0)


def test_the_limit_switches_stop_the_shaft():
    stage = Mechanism(0.0, backlash=0.0, low=-10.0, high=10.0)
    assert stage.turn(50.0) == 11.0
    assert stage.turn(-50.0) == -11.0


@pytest.mark.parametrize("distance", [0.05, 0.9, 1.0, 7.3])
@pytest.mark.parametrize(("base", "acceleration_s"), [(0.0, 0.5), (0.4, 0.5), (0.0, 0.0)])
def test_the_speed_adds_up_to_the_distance(distance, base, acceleration_s):
    profile = Profile(distance, base, 2.0, acceleration_s)
    ends = [profile.travelled(0.0), profile.travelled(profile.duration_s)]
    assert ends == pytest.approx([0.0, distance])
    step_s = profile.duration_s / 2000
    speeds = [
        (profile.travelled((n + 1) * step_s) - profile.travelled(n * step_s)) / step_s
        for n in range(2000)
    ]
    assert min(speeds) > base - 1e-9
    assert max(speeds) < 2.0 + 1e-9
    assert speeds == pytest.approx(speeds[::-1], abs=1e-6)  # down as it went up
    if acceleration_s:
        gains = [after - before for before, after in pairwise(speeds)]
        # the acceleration in between is that of the full ramp, however short the distance
        assert max(gains) / step_s == pytest.approx((2.0 - base) / acceleration_s, rel=1e-3)


def test_no_distance_takes_no_time():
    assert Profile(0.0, 0.0, 2.0, 0.5).duration_s == 0.0

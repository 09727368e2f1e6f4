"""What a motor drives: a shaft between two limit switches, a load that follows with play, and time.

Positions are in the motor's own unit, as the mechanism was built: no offset or calibration of the
control system changes them.
"""

import math
from dataclasses import dataclass

SWITCH_MARGIN = 0.05
"""How far beyond its range of use a mechanism reaches its limit switches, as a part of the range."""


@dataclass(frozen=True)
class Profile:
    """How a motor runs a distance: a trapezoid of speed, or a triangle where it is short.

    From `base_speed` up to `speed` in `acceleration_s`, and down again at the end.

    >>> Profile(distance=10.0, base_speed=0.0, speed=2.0, acceleration_s=1.0).duration_s
    6.0
    >>> Profile(distance=0.5, base_speed=0.0, speed=2.0, acceleration_s=1.0).duration_s
    1.0
    """

    distance: float
    base_speed: float
    speed: float
    acceleration_s: float

    @property
    def _peak_speed(self) -> float:
        gain = self.speed - self.base_speed
        if self.distance >= (self.speed + self.base_speed) * self.acceleration_s:
            return self.speed
        return math.sqrt(self.base_speed**2 + gain / self.acceleration_s * self.distance)

    @property
    def _ramp_s(self) -> float:
        gain = self.speed - self.base_speed
        return self.acceleration_s * (self._peak_speed - self.base_speed) / gain

    @property
    def _cruise_s(self) -> float:
        ramps = (self._peak_speed + self.base_speed) * self._ramp_s
        return max(self.distance - ramps, 0.0) / self._peak_speed

    @property
    def duration_s(self) -> float:
        """How long it takes."""
        return 2 * self._ramp_s + self._cruise_s if self.distance else 0.0

    def travelled(self, elapsed_s: float) -> float:
        """Return the distance from the start after some time."""
        remaining_s = self.duration_s - elapsed_s
        if remaining_s <= 0:
            return self.distance
        if elapsed_s < self._ramp_s:
            return self._ramp(elapsed_s)
        if remaining_s < self._ramp_s:
            return self.distance - self._ramp(remaining_s)
        return self._ramp(self._ramp_s) + self._peak_speed * (elapsed_s - self._ramp_s)

    def _ramp(self, time_s: float) -> float:
        rate = (self._peak_speed - self.base_speed) / self._ramp_s if self._ramp_s else 0.0
        return self.base_speed * time_s + rate * time_s**2 / 2


class Mechanism:
    """A shaft that the motor turns, and the load behind it.

    The encoder sits on the shaft. The load stands where the shaft is when it was last pushed up,
    `backlash` above it when it was last pushed down, and stays where it is in between:

    >>> stage = Mechanism(0.0, backlash=0.2, low=-10.0, high=10.0)
    >>> stage.turn(5.0), stage.load
    (5.0, 5.0)
    >>> stage.turn(4.9), stage.load
    (4.9, 5.0)
    >>> stage.turn(3.0), stage.load
    (3.0, 3.2)

    The home switch is at 0, or where the shaft was at first if it cannot get to 0.
    """

    def __init__(self, position: float, backlash: float, low: float, high: float) -> None:
        margin = SWITCH_MARGIN * (high - low)
        self.low_switch, self.high_switch = low - margin, high + margin
        self.home = 0.0 if low <= 0 <= high else position
        self.shaft = self.load = position
        self._backlash = backlash

    def turn(self, position: float, *, frozen: bool = False) -> float:
        """Turn the shaft, and the load with it unless `frozen`; return how far the shaft came."""
        self.shaft = min(max(position, self.low_switch), self.high_switch)
        if not frozen:
            self.load = min(max(self.load, self.shaft), self.shaft + self._backlash)
        return self.shaft

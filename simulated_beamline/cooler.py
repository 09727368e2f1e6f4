"""The camera's cooler."""

import math


class Cooler:
    """A chip that follows its set temperature exponentially, scaled by `time_scale`.

    >>> cooler = Cooler(-50.0, cooling_time_s=60.0, time_scale=1.0)
    >>> cooler.follow(-50.0, now_s=0.0)
    -50.0
    >>> round(cooler.follow(20.0, now_s=60.0), 2)       # 1 / e of the way is left
    -5.75

    With a time scale of 0 it is there at once.
    """

    def __init__(self, temperature_c: float, cooling_time_s: float, time_scale: float) -> None:
        self._temperature_c = temperature_c
        self._time_constant_s = cooling_time_s * time_scale
        self._seen_s: float | None = None

    def follow(self, target_c: float, now_s: float) -> float:
        """Go on towards `target_c` since the last call; returns the temperature in C."""
        if self._seen_s is not None or self._time_constant_s == 0:
            passed_s = 0.0 if self._seen_s is None else now_s - self._seen_s
            left = math.exp(-passed_s / self._time_constant_s) if self._time_constant_s else 0.0
            self._temperature_c = target_c + (self._temperature_c - target_c) * left
        self._seen_s = now_s
        return self._temperature_c

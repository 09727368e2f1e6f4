"""The simulation's own clock, which motions and exposures push on, whatever the time scale."""

from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of beam time since the start.

    What goes on side by side takes the time of the longest:

    >>> clock = Clock()
    >>> with clock.during(8.0), clock.during(3.0):
    ...     pass
    >>> clock.time_s
    8.0
    """

    def __init__(self) -> None:
        self.time_s = 0.0
        self._going_on = 0
        self._begun = 0

    @contextmanager
    def during(self, duration_s: float) -> Iterator[None]:
        """Do something that takes `duration_s` of beam time, also where it is cut short."""
        began_s = self.time_s
        self._going_on += 1
        self._begun += 1
        try:
            yield
        finally:
            self._going_on -= 1
            self.time_s = max(self.time_s, began_s + duration_s)

    def activity(self) -> tuple[int, int]:
        """Return how much goes on now, and how much has begun ever: nothing has happened between two
        equal ones that begin with 0."""
        return self._going_on, self._begun

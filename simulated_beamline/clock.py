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

    @contextmanager
    def during(self, duration_s: float) -> Iterator[None]:
        """Do something that takes `duration_s` of beam time, also where it is cut short."""
        began_s = self.time_s
        try:
            yield
        finally:
            self.time_s = max(self.time_s, began_s + duration_s)

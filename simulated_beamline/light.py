"""What stands between the ring and the sample: beam, front end and shutter, with their readbacks."""

import time
from collections.abc import Callable

from mistral_txm.devices.configuration import Configuration
from mistral_txm.simulated_beamline.channels import Database, double, menu, post
from mistral_txm.simulated_beamline.faults import Faults


class Stopwatch:
    """The share of the time since its start for which something was on.

    >>> now_s = iter([0.0, 3.0, 4.0])
    >>> watch = Stopwatch(True, lambda: next(now_s))
    >>> watch.switch(False)
    >>> watch.share()
    0.75
    """

    def __init__(self, on: bool, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._began_s = self._since_s = clock_s()
        self._on = on
        self._on_s = 0.0
        self._has_switched = False

    def switch(self, on: bool) -> None:
        """Turn it on or off now; nothing happens if it is so already."""
        if on == self._on:
            return
        now_s = self._clock_s()
        if self._on:
            self._on_s += now_s - self._since_s
        self._since_s, self._on, self._has_switched = now_s, on, True

    def share(self) -> float:
        """Return the share, 0..1: exactly 0 or 1 where it was never switched."""
        if not self._has_switched:
            return float(self._on)
        now_s = self._clock_s()
        on_s = self._on_s + (now_s - self._since_s if self._on else 0.0)
        return on_s / max(now_s - self._began_s, 1e-9)


class Light:
    """The process variables of ring, front end and shutter, and whether light comes through."""

    def __init__(
        self, database: Database, configuration: Configuration, faults: Faults, current_ma: float
    ) -> None:
        self._faults = faults
        self._stored_ma = current_ma
        self._exposure = Stopwatch(on=False)
        shutter = configuration.shutter.address.name
        self._shutter_command = menu(("Close", "Open"))
        self._shutter_status = menu(("Closed", "Open"), read_only=True)
        database[f"{shutter}Cmd"] = self._shutter_command
        database[f"{shutter}Status"] = self._shutter_status
        front_end = configuration.front_end.address.name
        self._front_end_command = menu(("Close", "Open"), 1)
        self._front_end_status = menu(("Closed", "Open"), 1, read_only=True)
        database[f"{front_end.rpartition(':')[0]}:Cmd"] = self._front_end_command
        database[front_end] = self._front_end_status
        self._ring_current = double(current_ma, units="mA", read_only=True)
        database[configuration.ring_current.address.name] = self._ring_current
        self._to_injection = double(0.0, units="s", precision=1, read_only=True)
        database[configuration.top_up.address.name] = self._to_injection
        for command in (self._shutter_command, self._front_end_command):
            command.on_put = self._command_put

    @property
    def shutter_is_open(self) -> bool:
        """Whether the shutter lets light pass, whatever its status says."""
        if self._faults.is_on("shutter_stuck_closed"):
            return False
        stuck_open = self._faults.is_on("shutter_stuck_open")
        return stuck_open or bool(self._shutter_command.value == "Open")

    @property
    def front_end_is_open(self) -> bool:
        """Whether the front end lets light pass."""
        closed = self._faults.is_on("front_end_closed")
        return not closed and bool(self._front_end_command.value == "Open")

    @property
    def is_there(self) -> bool:
        """Whether light reaches the shutter."""
        return self.front_end_is_open and not self._faults.is_on("beam_dump")

    def begin_exposure(self) -> None:
        """Watch the light from now on."""
        self._exposure = Stopwatch(self.is_there and self.shutter_is_open)

    def lit_share(self) -> float:
        """Return the share of the time since `begin_exposure` with light, 0..1."""
        return self._exposure.share()

    async def refresh(self) -> None:
        """Bring what is read back up to date with commands and faults."""
        self._exposure.switch(self.is_there and self.shutter_is_open)
        shown = self.shutter_is_open
        if self._faults.is_on("shutter_status_lies"):
            shown = self._shutter_command.value == "Open"
        await post(self._shutter_status, int(shown))
        await post(self._front_end_status, int(self.front_end_is_open))
        await self._show_current()

    async def publish_current(self, current_ma: float) -> None:
        """Publish what the ring holds, mA."""
        self._stored_ma = current_ma
        await self._show_current()

    async def publish_to_injection(self, time_s: float) -> None:
        """Publish the time to the next injection, s."""
        await post(self._to_injection, time_s)

    async def _show_current(self) -> None:
        dumped = self._faults.is_on("beam_dump")
        await post(self._ring_current, 0.0 if dumped else self._stored_ma)

    async def _command_put(self, _value: str) -> None:
        await self.refresh()

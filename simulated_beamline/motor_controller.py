"""What stands between a motor record and the mechanism: a controller with an encoder, and its faults.

It moves a motor in one go, in the dial coordinates of the record, and tells its status in the bits
of MSTA. Source: documentation of the EPICS motor module, motorRecord, field MSTA.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntFlag
from typing import Literal

from mistral_txm.simulated_beamline.clock import Clock
from mistral_txm.simulated_beamline.faults import Faults
from mistral_txm.simulated_beamline.mechanism import Mechanism, Profile
from mistral_txm.simulated_beamline.motor_fields import MotorSettings

TICK_S = 0.05
"""Wall time between two readbacks of a motion, where a motion takes wall time at all."""
TOGETHER_S = 0.02
TOGETHER = 0.001
"""Wall time of the shortest motion or rest, in s and in parts of itself: motors that were sent off together move and
rest together on the clock, though their commands arrive one after the other."""


Tell = Callable[[], Awaitable[None]]


class Status(IntFlag):
    """The bits of MSTA; a controller that is always reached has no use for 0x1000."""

    DIRECTION = 0x0001
    DONE = 0x0002
    PLUS_LIMIT = 0x0004
    HOME_SWITCH = 0x0008
    POSITION = 0x0020
    SLIP_STALL = 0x0040
    AT_HOME = 0x0080
    ENCODER_PRESENT = 0x0100
    PROBLEM = 0x0200
    MOVING = 0x0400
    GAIN_SUPPORT = 0x0800
    MINUS_LIMIT = 0x2000
    HOMED = 0x4000

    @property
    def is_at_switch(self) -> bool:
        """Whether a limit switch is pressed."""
        return bool(self & (Status.PLUS_LIMIT | Status.MINUS_LIMIT))


@dataclass(frozen=True)
class Speed:
    """How fast to go, in units per second, and in what time to get from `base` to `slew`."""

    base: float
    slew: float
    acceleration_s: float


Kind = Literal["stall", "limit_switch", "hang"]
OBSTACLES: tuple[Kind, ...] = ("stall", "limit_switch", "hang")
"""Faults that end a motion half-way."""


@dataclass
class _Obstacle:
    """What a faulty motion meets: it can go no further than `position`."""

    kind: Kind
    position: float
    is_met: bool = False

    def nearest(self, start: float, target: float) -> float:
        """Return how far a motion from `start` to `target` comes."""
        if min(start, target) <= self.position <= max(start, target):
            self.is_met = True
            return self.position
        return start if self.is_met else target


class Controller:
    """Moves one mechanism, whose faults are those of `name`.

    `time_scale` multiplies the duration of a motion into wall time; at 0 the motor is there at once. The
    `clock` counts the duration unscaled.
    """

    def __init__(
        self,
        settings: MotorSettings,
        time_scale: float,
        clock: Clock,
        faults: Faults,
        name: str,
    ) -> None:
        self._step = 10.0**-settings.precision
        self._mechanism = Mechanism(
            settings.initial, settings.backlash, settings.low_limit, settings.high_limit
        )
        self._dial_of_zero = 0.0  # what the dial says where the mechanism's own position is 0
        self._time_scale, self._clock = time_scale, clock
        self._faults, self._name = faults, name
        self._obstacle: _Obstacle | None = None
        self._left = Status.DIRECTION | Status.DONE
        self.is_enabled = True

    @property
    def position(self) -> float:
        """What the encoder says, on the dial."""
        return self._mechanism.shaft + self._dial_of_zero

    @property
    def load_position(self) -> float:
        """Where the mechanism really stands, in its own coordinates."""
        return self._mechanism.load + self._faults.amount(f"{self._name}.encoder_jump")

    @property
    def home(self) -> float:
        """Where the home switch is, on the dial."""
        return self._mechanism.home + self._dial_of_zero

    @property
    def ends(self) -> tuple[float, float]:
        """Where the limit switches are, on the dial."""
        low, high = self._mechanism.low_switch, self._mechanism.high_switch
        return low + self._dial_of_zero, high + self._dial_of_zero

    @property
    def status(self) -> Status:
        """MSTA: what the last motion left, and what is so now."""
        status = self._left | Status.ENCODER_PRESENT | Status.GAIN_SUPPORT
        low, high = self.ends
        if self.position >= high:
            status |= Status.PLUS_LIMIT
        if self.position <= low:
            status |= Status.MINUS_LIMIT
        if abs(self.position - self.home) < self._step / 2:
            status |= Status.HOME_SWITCH | Status.AT_HOME
        if self._faults.is_on(f"{self._name}.unpowered"):
            return status | Status.PROBLEM
        return status | Status.POSITION if self.is_enabled else status

    def call_position(self, dial: float) -> None:
        """Call the place where the motor stands `dial`."""
        self._dial_of_zero = dial - self._mechanism.shaft

    async def begin(self, target: float) -> None:
        """Prepare a motion that may take several moves; a fault of the next one is used up."""
        self._obstacle = None
        for kind in OBSTACLES:
            if await self._faults.spend(f"{self._name}.{kind}"):
                middle = (self.position + target) / 2
                self._obstacle = _Obstacle(kind, round(middle / self._step) * self._step)
                return

    async def move(
        self,
        target: float,
        speed: Speed,
        halted: asyncio.Event,
        tell: Tell,
    ) -> None:
        """Move until it is there, halted, or can go no further; `tell` is called on the way."""
        start, obstacle = self.position, self._obstacle
        forward = target >= start
        end = target if obstacle is None else obstacle.nearest(start, target)
        self._left &= Status.HOMED
        self._left |= Status.MOVING | (Status.DIRECTION if forward else Status(0))
        powered = Status.POSITION in self.status
        await tell()
        if powered:
            low, high = self.ends
            slew = max(speed.slew, speed.base + self._step)
            end = min(max(end, low), high)
            profile = Profile(abs(end - start), speed.base, slew, speed.acceleration_s)
            await self._advance(start, end, profile, halted, tell)
        self._left = self._left & ~Status.MOVING | Status.DONE
        if not powered:
            self._left |= Status.PROBLEM
        elif obstacle is not None and obstacle.is_met and not halted.is_set():
            await self._stand_at(obstacle, halted, tell)
        await tell()

    async def find_home(self, speed: Speed, halted: asyncio.Event, tell: Tell) -> None:
        """Move to the home switch, whatever side it is on."""
        await self.begin(self.home)
        await self.move(self.home, speed, halted, tell)
        if Status.HOME_SWITCH in self.status:
            self._left |= Status.HOMED
        await tell()

    async def rest(self, duration_s: float, halted: asyncio.Event) -> None:
        """Let time pass while the motor stands."""
        if duration_s > 0:
            with self._clock.during(duration_s):
                wall_s = max(duration_s * max(self._time_scale, TOGETHER), TOGETHER_S)
                await self._wait(wall_s, halted)

    async def _stand_at(self, obstacle: _Obstacle, halted: asyncio.Event, tell: Tell) -> None:
        match obstacle.kind:
            case "stall":
                self._left |= Status.SLIP_STALL
            case "limit_switch":
                forward = Status.DIRECTION in self._left
                self._left |= Status.PLUS_LIMIT if forward else Status.MINUS_LIMIT
            case "hang":
                self._left = self._left & ~Status.DONE | Status.MOVING
                await tell()
                await halted.wait()
                self._left = self._left & ~Status.MOVING | Status.DONE

    async def _advance(
        self,
        start: float,
        end: float,
        profile: Profile,
        halted: asyncio.Event,
        tell: Tell,
    ) -> None:
        """Turn the mechanism, over the time that the profile takes."""
        sign = 1 if end >= start else -1
        loop = asyncio.get_running_loop()
        with self._clock.during(profile.duration_s):
            began_s, duration_s = loop.time(), profile.duration_s * self._time_scale
            while (elapsed_s := loop.time() - began_s) < duration_s:
                self._turn(start + sign * profile.travelled(elapsed_s / self._time_scale))
                await tell()
                if halted.is_set():
                    return
                await self._wait(min(TICK_S, duration_s - elapsed_s), halted)
            self._turn(end)
            if profile.duration_s and not duration_s:
                await self._wait(TOGETHER_S, halted)

    def _turn(self, dial: float) -> None:
        frozen = self._faults.is_on(f"{self._name}.frozen")
        self._mechanism.turn(dial - self._dial_of_zero, frozen=frozen)

    @staticmethod
    async def _wait(wall_s: float, halted: asyncio.Event) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(halted.wait(), wall_s)

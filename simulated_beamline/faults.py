"""What can go wrong at the beamline, as process variables: off until somebody turns it on.

The fault ``beam_dump`` is the process variable ``<prefix>beam_dump``, that of one motor,
``theta.stall``, is ``<prefix>theta:stall``. There are four kinds:

- a *switch* is 0 or 1;
- an *amount* is a number in the unit named, 0 for none;
- a *number* is how many of something, 0, 1, 2, ...;
- a *count* is how many of the next occasions go wrong, counted down to 0; -1 is all of them.
"""

import difflib
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mistral_txm.simulated_beamline.channels import Database, PutHook, double, integer, post

Kind = Literal["switch", "amount", "number", "count"]


@dataclass(frozen=True)
class Fault:
    """One thing that can go wrong."""

    kind: Kind
    meaning: str
    unit: str = ""


MOTORS = (
    "theta",
    "sample_x",
    "sample_y",
    "sample_z",
    "zone_plate_z",
    "jaw_up",
    "jaw_down",
    "energy",
)

_OF_MOTORS = {
    "stall": Fault("count", "the next moves end half-way; the readback tells where"),
    "unpowered": Fault("switch", "the amplifier is off: nothing moves, MSTA says so"),
    "limit_switch": Fault("count", "the next moves hit a limit switch half-way"),
    "frozen": Fault("switch", "the readback arrives, the mechanism behind it does not move"),
    "hang": Fault("count", "the next moves never end, until they are stopped"),
    "encoder_jump": Fault("amount", "how far, in its unit, the axis stands from its readback"),
}

FAULTS: Mapping[str, Fault] = {
    "beam_dump": Fault("switch", "no beam in the ring; turned on by beam_lost, too"),
    "beam_lost": Fault("count", "the beam is dumped in the middle of the next exposures"),
    "injection": Fault("count", "an injection falls into the middle of the next exposures"),
    "front_end_closed": Fault("switch", "the front end is closed"),
    "shutter_stuck_closed": Fault("switch", "the shutter stays closed, and its status says so"),
    "shutter_stuck_open": Fault("switch", "the shutter stays open, and its status says so"),
    "shutter_status_lies": Fault("switch", "the shutter's status follows the command regardless"),
    "helicity_swapped": Fault("switch", "the light has the other helicity than the slit selects"),
    "zinger_burst": Fault("count", "the next exposures catch a shower of cosmic rays"),
    "dark_drift": Fault("amount", "added to the offset of every pixel", "counts"),
    "cooler_off": Fault("switch", "the camera warms up to the room, dark current with it"),
    "ccd_hang": Fault("count", "the next exposures never end, until they are stopped"),
    "ccd_repeated_frame": Fault("count", "the next frames are the one before, under a new id"),
    "ccd_repeated_id": Fault("count", "the next frames are the one before, under its old id"),
    "ccd_dropped_frame": Fault("count", "the file plug-in drops the next frames"),
    "storage_away": Fault("switch", "the server cannot write frames: input/output error"),
    "storage_full": Fault("switch", "the server cannot write frames: no space left"),
    "storage_delay": Fault("amount", "how much longer it takes to write a frame", "s"),
    "file_corrupted": Fault("count", "the next frames are damaged on the disk after writing"),
    "azimuth_error": Fault("amount", "how much further the sample was turned than said", "deg"),
    "sample_slip": Fault("amount", "how far the sample slipped along the film, x and y", "um"),
    "fiducials_lost": Fault("number", "how many of the spheres nearest the middle fell off"),
    "fiducials_merged": Fault("number", "how many of those nearest got one more beside them"),
    "silence": Fault("amount", "for so long the server answers nobody; then it is 0 again", "s"),
    "server_killed": Fault("switch", "the server ends at once, as by kill -9"),
    **{f"{motor}.{name}": fault for motor in MOTORS for name, fault in _OF_MOTORS.items()},
}
"""All faults by name."""


def parse(text: str) -> tuple[str, float]:
    """Read ``name`` or ``name=value`` as it is typed; without a value it is 1.

    >>> parse("theta.encoder_jump=0.2"), parse("beam_dump")
    (('theta.encoder_jump', 0.2), ('beam_dump', 1.0))

    Raises
    ------
    ValueError
        For an unknown fault, with those that are near, or a value that its kind does not have.
    """
    name, _, value = text.partition("=")
    check(name, number := _number(text, value))
    return name, number


def _number(text: str, value: str) -> float:
    try:
        return float(value) if value else 1.0
    except ValueError:
        raise ValueError(f"fault {text!r}: {value!r} is not a number") from None


def check(name: str, value: float) -> None:
    """Refuse a fault that is unknown, or a value that its kind does not have.

    Raises
    ------
    ValueError
        One line with what was expected.
    """
    if name not in FAULTS:
        near = difflib.get_close_matches(name, FAULTS, n=3, cutoff=0.4) or sorted(FAULTS)
        raise ValueError(f"fault {name!r} is unknown; the nearest are {', '.join(near)}")
    fault = FAULTS[name]
    allowed = {
        "switch": value in (0, 1),
        "amount": math.isfinite(value) and (value >= 0 or fault.unit != "s"),
        "number": math.isfinite(value) and value == int(value) and value >= 0,
        "count": value == int(value) and value >= -1 if math.isfinite(value) else False,
    }[fault.kind]
    if not allowed:
        expected = {
            "switch": "0 or 1",
            "amount": "a number" + (" of 0 or more" if fault.unit == "s" else ""),
            "number": "0, 1, 2, ...",
            "count": "-1, 0, 1, 2, ...",
        }
        raise ValueError(f"fault {name} = {value:g}: expected {expected[fault.kind]}")


class Faults:
    """The faults that are on now, as process variables in `database`.

    A value that a fault cannot have springs back when a client puts it.
    """

    def __init__(self, database: Database, prefix: str, initial: Mapping[str, float]) -> None:
        self._channels = {}
        self._values = {name: initial.get(name, 0.0) for name in FAULTS}
        self._changed: Callable[[str], Awaitable[None]] | None = None
        for name, fault in FAULTS.items():
            value = self._values[name]
            channel = (
                double(value, units=fault.unit) if fault.kind == "amount" else integer(int(value))
            )
            channel.on_put = self._hook(name)
            self._channels[name] = database[f"{prefix}{name.replace('.', ':')}"] = channel

    def watch(self, changed: Callable[[str], Awaitable[None]]) -> None:
        """Have `changed` called with the name of a fault whenever a client sets one."""
        self._changed = changed

    def _hook(self, name: str) -> PutHook:
        async def on_put(value: float) -> None:
            try:
                check(name, value)
            except ValueError:
                await self.turn(name, self._values[name])
                return
            self._values[name] = value
            if self._changed is not None:
                await self._changed(name)

        return on_put

    @property
    def on(self) -> tuple[str, ...]:
        """The names of those that are on."""
        return tuple(name for name, value in self._values.items() if value)

    def amount(self, name: str) -> float:
        """Return the value of a fault of any kind."""
        return float(self._values[name])

    def is_on(self, name: str) -> bool:
        """Tell whether a fault of any kind is on."""
        return self._values[name] != 0

    async def turn(self, name: str, value: float) -> None:
        """Set a fault from the server's side."""
        self._values[name] = value
        await post(self._channels[name], value)

    async def spend(self, name: str) -> bool:
        """Tell whether a count is on, and use up one of it."""
        left = int(self.amount(name))
        if left > 0:
            await self.turn(name, left - 1)
        return left != 0

"""From an address to a device: the one place that knows the control systems.

A control system is a set of device classes that share names and behaviour, those of the protocols
below. The composite devices (polarization, sample position), the plans and the prompt know these
alone, so another control system is another entry in `CONTROL_SYSTEMS`.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ophyd import EpicsSignalRO
from ophyd.signal import EpicsSignalBase

from mistral_txm.devices.address import Address
from mistral_txm.devices.axis import Axis
from mistral_txm.devices.ccd import Ccd
from mistral_txm.devices.configuration import Axis as AxisSettings
from mistral_txm.devices.configuration import ControlSystemSettings, ShutterSettings
from mistral_txm.devices.shutter import Shutter
from mistral_txm.devices.strict_toml import ConfigurationError


class ReadableDevice(Protocol):
    """What a plan may read."""

    name: str

    def read(self) -> dict[str, Any]:
        """Return value and timestamp, under names that begin with that of the device."""

    def describe(self) -> dict[str, Any]:
        """Return source, type and, of a physical quantity, ``units``, under the same names."""


class MovableDevice(ReadableDevice, Protocol):
    """What a plan may move."""

    def set(self, new_position: Any) -> Any:
        """Start, and return a status that fails with one line if the target was not reached."""

    def stop(self, *, success: bool = False) -> None:
        """Stop where it is; the status of ``set`` ends, as a success if so."""


class ReadingDevice(ReadableDevice, Protocol):
    """A value with its unit, of which suspenders are told when it changes."""

    connected: bool

    def get(self, *, use_monitor: bool) -> Any:
        """Return the value: the last one that it told of itself, or as it is asked now."""

    def subscribe(self, callback: Callable[..., None]) -> int:
        """Call ``callback(value=..)`` whenever the value changes."""

    def wait_for_connection(self, timeout: float) -> None:
        """Raise `TimeoutError` if it does not answer within so many seconds."""


class AxisDevice(MovableDevice, Protocol):
    """A motor, set to a number in the unit of its section; its reading has one key, its name.

    ``set`` raises for a target beyond the limits, and its status fails where the motor does not
    arrive within its tolerance and its timeout.
    """

    settings: AxisSettings

    @property
    def position(self) -> float:
        """Where it stands, as read back."""

    def is_at(self, position: float) -> bool:
        """Tell whether the readback agrees with a position, within the tolerance."""


class ShutterDevice(MovableDevice, Protocol):
    """Set to ``open`` or ``closed``; the status of ``set`` fails if the shutter's own disagrees.

    To stop it is to close it, after the camera gave up its exposure.
    """

    settings: ShutterSettings

    @property
    def is_open(self) -> bool:
        """Whether the shutter's own status says open."""


class CcdDevice(ReadableDevice, Protocol):
    """A camera whose server writes frames: one trigger, one frame on disk, one asset document.

    A failure that has an attribute ``needs_a_person`` which is true is not tried again.
    """

    cam: Any
    """Has ``acquire_time``: to be set to an exposure time, in s."""
    frame_file: Any
    """Set to a name to open a file, to None to close it."""
    exposure_number: Any
    """Set to the number of the exposure that comes next, before it is triggered."""
    discard: Any
    """Set to a reason: the frame that was taken last, and not collected, gets no documents."""
    mean_counts: Any
    bright_counts: Any
    saturated_fraction: Any
    frame_crc32: Any
    """Of the frame that was taken last."""
    frames_directory: Path

    @property
    def used_signals(self) -> tuple[Any, ...]:
        """The signals that have to answer before the first exposure."""

    @property
    def frame_bytes(self) -> int:
        """How many bytes a frame takes."""

    @property
    def has_frame(self) -> bool:
        """Whether a frame was taken that nobody has collected yet."""

    def trigger(self) -> Any:
        """Expose; the status is done when the frame has been read back from the disk."""

    def give_up_exposure(self) -> None:
        """End an exposure in progress without a frame."""


@dataclass(frozen=True)
class ControlSystem:
    """How each kind of device is made from its name in the control system.

    Each is called as ``make(name_there, name=.., settings=..)``, with the section of the
    configuration that holds the address; the shutter gets its ``camera`` too, the camera its
    ``frames_directory`` and ``control_timeout_s``, and a reading has a name alone.
    """

    axis: Callable[..., AxisDevice]
    shutter: Callable[..., ShutterDevice]
    reading: Callable[..., ReadingDevice]
    ccd: Callable[..., CcdDevice]
    set_up: Callable[[ControlSystemSettings], None]
    """Takes the control system's own section, before the first device is made."""


def _set_up_channel_access(settings: ControlSystemSettings) -> None:
    """Limit how long a signal may take to answer; ophyd takes that once, before all signals."""
    with suppress(RuntimeError):  # there are signals already, with the limits of an earlier call
        EpicsSignalBase.set_defaults(
            timeout=settings.control_timeout_s,
            write_timeout=settings.control_timeout_s,
            connection_timeout=settings.control_timeout_s,
        )


CONTROL_SYSTEMS: dict[str, ControlSystem] = {
    "ca": ControlSystem(
        axis=Axis,
        shutter=Shutter,
        reading=EpicsSignalRO,
        ccd=Ccd,
        set_up=_set_up_channel_access,
    ),
}
"""By the scheme of an address: ``ca`` is EPICS Channel Access."""


def control_system(address: Address) -> ControlSystem:
    """Return the control system that an address names.

    Raises
    ------
    ConfigurationError
        If there are no devices for it.
    """
    try:
        return CONTROL_SYSTEMS[address.scheme]
    except KeyError:
        known = ", ".join(f"{scheme}://" for scheme in CONTROL_SYSTEMS)
        raise ConfigurationError(
            f"{address}: no devices for this scheme; known are {known}"
        ) from None

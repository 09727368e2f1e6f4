"""From an address to a device: the one place that knows the control systems.

A control system is a set of device classes that share names and behaviour. The composite devices
(polarization, sample position) and the plans know those alone, so another control system is another
entry in `CONTROL_SYSTEMS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ophyd import EpicsSignalRO

from mistral_txm.devices.axis import Axis
from mistral_txm.devices.ccd import Ccd
from mistral_txm.devices.configuration import Address, ConfigurationError
from mistral_txm.devices.shutter import Shutter


@dataclass(frozen=True)
class ControlSystem:
    """How each kind of device is made from its name in the control system."""

    axis: Callable[..., Any]
    shutter: Callable[..., Any]
    reading: Callable[..., Any]
    ccd: Callable[..., Any]


CONTROL_SYSTEMS: Mapping[str, ControlSystem] = {
    "ca": ControlSystem(axis=Axis, shutter=Shutter, reading=EpicsSignalRO, ccd=Ccd),
}


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

"""What can go wrong at a simulated beamline, as a device of the session: plans switch it on and off."""

from collections import defaultdict
from typing import Any

from ophyd import Component, Device, EpicsSignal
from ophyd.signal import EpicsSignalNoValidation

from mistral_txm.devices.address import Address
from mistral_txm.simulated_beamline.faults import FAULTS

UNANSWERED = ("silence", "server_killed")
"""Faults after which nobody confirms that they are on."""


class Faults(Device):  # type: ignore[misc]  # ophyd is untyped
    """A signal for each fault: ``RE(bps.mv(faults.theta.stall, 1))``."""

    @property
    def on(self) -> dict[str, float]:
        """The faults that are on, by name."""
        values = {walk.dotted_name: walk.item.get() for walk in self.walk_signals()}
        return {name: value for name, value in values.items() if value}


def make_faults(address: Address) -> Faults:
    """Make the device of all faults at a simulated beamline."""
    signals: dict[str, dict[str, Any]] = defaultdict(dict)
    for name in FAULTS:
        group, _, fault = name.rpartition(".")
        signals[group][fault] = (
            Component(EpicsSignalNoValidation, fault)
            if name in UNANSWERED
            else Component(EpicsSignal, fault, put_complete=True)
        )
    components = signals.pop("")
    for group, faults in signals.items():
        components[group] = Component(type(f"FaultsOf_{group}", (Device,), faults), f"{group}:")
    faults_class: type[Faults] = type("AllFaults", (Faults,), components)
    return faults_class(address.name, name="faults")

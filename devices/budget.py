"""What an exposure brought and what it cost: photons, signal to noise, dose."""

from typing import Any

from ophyd import Component, Device
from ophyd.status import DeviceStatus

from mistral_txm.devices.motion import Quantity
from mistral_txm.devices.spent import Spent


class Budget(Device):  # type: ignore[misc]  # ophyd is untyped
    """Set by the plan before the Event of an exposure is made: columns of every Event."""

    photons_per_pixel = Component(Quantity, unit="photons", value=0.0, kind="normal")
    signal_to_noise = Component(Quantity, unit="", value=0.0, kind="normal")
    dose_mA_s = Component(Quantity, unit="mA s", value=0.0, kind="normal")

    def set(self, spent: Spent, **_: Any) -> DeviceStatus:
        """Take the numbers of the exposure that is recorded next."""
        for field, value in spent._asdict().items():
            getattr(self, field).put(float(value))
        status = DeviceStatus(self)
        status.set_finished()
        return status

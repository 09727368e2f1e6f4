"""Where the sample is: in the beam or beside it, and how it was turned by hand."""

import math
import time
from typing import Any

from ophyd import Component, Device, Signal
from ophyd.status import DeviceStatus

from mistral_txm.devices.configuration import SamplePlaces
from mistral_txm.devices.control_systems import AxisDevice
from mistral_txm.devices.key import Key
from mistral_txm.devices.motion import DerivedSignal, Motion, Quantity, move_together, stop_together


class SamplePosition(Device):  # type: ignore[misc]  # ophyd is untyped
    """Set to ``in`` or ``out``: brings the sample to its place, or out of the beam's way.

    The sample's place is three signals, `in_x_um`, `in_y_um` and `in_z_um`; they begin with the
    configuration's values. Out of the way it goes across and along the beam alone: its height stays. The
    readback is derived from the stages: ``in``, ``out`` or ``between``.
    """

    readback = Component(DerivedSignal, "where", kind="hinted")
    in_x_um = Component(Quantity, unit="um", kind="config")
    in_y_um = Component(Quantity, unit="um", kind="config")
    in_z_um = Component(Quantity, unit="um", kind="config")
    out_x_um = Component(Quantity, unit="um", kind="config")
    out_z_um = Component(Quantity, unit="um", kind="config")

    def __init__(
        self, *, name: str, places: SamplePlaces, x: AxisDevice, y: AxisDevice, z: AxisDevice
    ) -> None:
        super().__init__(name=name)
        self.readback.name = name
        self.x, self.y, self.z = x, y, z
        for key, value in places.model_dump().items():
            getattr(self, key).put(value)
        self._motion: Motion | None = None

    @property
    def where(self) -> str:
        """``in``, ``out`` or ``between``, as the stages stand."""
        for place in ("in", "out"):
            if all(axis.is_at(target_um) for axis, target_um in self._place(place)):
                return place
        return "between"

    def set(self, new_position: str, **_: Any) -> Motion:
        """Move the stages; the status fails if one did not arrive.

        Raises
        ------
        ValueError
            If it is neither ``in`` nor ``out``.
        """
        if new_position not in ("in", "out"):
            raise ValueError(f"{self.name}: {new_position!r}: expected 'in' or 'out'")
        place = self._place(new_position)

        def steps(motion: Motion) -> None:
            move_together(motion, place)

        self._motion = Motion(self, steps, after=self._motion)
        return self._motion.start()

    def stop(self, *, success: bool = False) -> None:
        """Stop the stages where they are."""
        stop_together(self._motion, (self.x, self.y, self.z), success=success)

    def _place(self, place: str) -> tuple[tuple[AxisDevice, float], ...]:
        if place == "out":
            return (self.x, self.out_x_um.get()), (self.z, self.out_z_um.get())
        return (
            (self.x, self.in_x_um.get()),
            (self.y, self.in_y_um.get()),
            (self.z, self.in_z_um.get()),
        )


class Azimuth(Device):  # type: ignore[misc]  # ophyd is untyped
    """How the sample is turned about its normal, in degrees, as a person said, and when.

    No motor turns it: the sample is taken out, turned and mounted again. Not a number until
    somebody says; `given_at_s`, in seconds since 1970, is when somebody did.
    """

    readback = Component(Quantity, unit="deg", value=math.nan, kind="hinted")
    given_at_s = Component(Quantity, unit="s", value=math.nan)

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name)
        self.readback.name = name

    @property
    def phi_deg(self) -> float:
        """The angle that was given last."""
        return float(self.readback.get())

    def set(self, phi_deg: float, **_: Any) -> DeviceStatus:
        """Take what a person said.

        Raises
        ------
        ValueError
            If it is not a number of degrees between -360 and 360.
        """
        if not -360 <= phi_deg <= 360:
            raise ValueError(f"{self.name}: {phi_deg} deg: expected a number from -360 to 360")
        now_s = time.time()
        self.readback.put(float(phi_deg), timestamp=now_s)
        self.given_at_s.put(now_s, timestamp=now_s)
        status = DeviceStatus(self)
        status.set_finished()
        return status


class ExposureKey(Device):  # type: ignore[misc]  # ophyd is untyped
    """The key of the exposure that comes next: columns of every Event."""

    phi_deg = Component(Signal, value=0.0)
    theta_deg = Component(Signal, value=0.0)
    helicity = Component(Signal, value=0)
    repeat = Component(Signal, value=0)

    def set(self, key: Key, **_: Any) -> DeviceStatus:
        """Take the key of the next exposure."""
        self.phi_deg.put(float(key.phi_deg))
        self.theta_deg.put(float(key.theta_deg))
        self.helicity.put(int(key.helicity))
        self.repeat.put(int(key.repeat))
        status = DeviceStatus(self)
        status.set_finished()
        return status

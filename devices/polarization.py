"""The helicity of the light, selected by two jaws above or below the orbit plane."""

from typing import Any

from ophyd import Component, Device

from mistral_txm.devices.axis import Axis, move_together
from mistral_txm.devices.configuration import PolarizationPositions
from mistral_txm.devices.motion import DerivedSignal, Motion


class Polarization(Device):  # type: ignore[misc]  # ophyd is untyped
    """Set to +1 or -1: moves both jaws, and the zone plate to that helicity's focus.

    The readback is derived from where the jaws stand: +1 or -1 where both agree with that
    helicity's positions within their tolerance, 0 (not assigned) anywhere else.
    """

    readback = Component(DerivedSignal, "helicity", kind="hinted")

    def __init__(
        self,
        *,
        name: str,
        positions: PolarizationPositions,
        jaw_down: Axis,
        jaw_up: Axis,
        zone_plate_z: Axis,
    ) -> None:
        super().__init__(name=name)
        self.readback.name = name
        self.positions = positions
        self.jaw_down, self.jaw_up, self.zone_plate_z = jaw_down, jaw_up, zone_plate_z
        self._motion: Motion | None = None

    @property
    def helicity(self) -> int:
        """The helicity that the jaws' readbacks select now; 0 if they select none."""
        for helicity in (1, -1):
            places = self.positions.of(helicity)
            if self.jaw_down.is_at(places.jaw_down_mm) and self.jaw_up.is_at(places.jaw_up_mm):
                return helicity
        return 0

    def set(self, new_position: int, **_: Any) -> Motion:
        """Select a helicity; the status fails if a jaw or the zone plate did not arrive.

        Raises
        ------
        ValueError
            If it is neither +1 nor -1.
        """
        helicity = int(new_position)
        places = self.positions.of(helicity)
        moves = (
            (self.jaw_down, places.jaw_down_mm),
            (self.jaw_up, places.jaw_up_mm),
            (self.zone_plate_z, places.zone_plate_z_um),
        )

        def steps(motion: Motion) -> None:
            if move_together(motion, moves):
                motion.rest(self.positions.settle_time_s)
            if self.helicity != helicity:
                raise RuntimeError(
                    f"{self.name}: not assigned after the move to {helicity:+d}: "
                    f"{self.jaw_down.name} at {self.jaw_down.position}, expected "
                    f"{places.jaw_down_mm} mm; {self.jaw_up.name} at {self.jaw_up.position}, "
                    f"expected {places.jaw_up_mm} mm; check the jaws"
                )

        self._motion = Motion(self, steps, after=self._motion)
        return self._motion

    def stop(self, *, success: bool = False) -> None:
        """Stop both jaws and the zone plate where they are."""
        if self._motion is not None and not self._motion.done:
            self._motion.interrupt(success=success)
            for axis in (self.jaw_down, self.jaw_up, self.zone_plate_z):
                axis.stop(success=success)

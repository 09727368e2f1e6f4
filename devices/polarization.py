"""The helicity of the light, selected by two jaws above or below the orbit plane."""

from typing import Any

from ophyd import Component, Device

from mistral_txm.devices.configuration import PolarizationPositions
from mistral_txm.devices.control_systems import AxisDevice
from mistral_txm.devices.motion import DerivedSignal, Motion, Quantity, move_together, stop_together


class Polarization(Device):  # type: ignore[misc]  # ophyd is untyped
    """Set to +1 or -1: moves both jaws, and the zone plate to that helicity's focus.

    The readback is derived from where the jaws stand: +1 or -1 where both agree with that
    helicity's positions within their tolerance, 0 (not assigned) anywhere else. The foci are a pair
    of signals, `focus_positive_um` and `focus_negative_um`, since they follow the photon energy and
    can be measured; `focus_energy_eV` says at which energy they hold. They begin with the
    configuration's values.
    """

    readback = Component(DerivedSignal, "helicity", kind="hinted")
    focus_positive_um = Component(Quantity, unit="um", kind="config")
    focus_negative_um = Component(Quantity, unit="um", kind="config")
    focus_energy_eV = Component(Quantity, unit="eV", kind="config")

    def __init__(
        self,
        *,
        name: str,
        positions: PolarizationPositions,
        jaw_down: AxisDevice,
        jaw_up: AxisDevice,
        zone_plate_z: AxisDevice,
    ) -> None:
        super().__init__(name=name)
        self.readback.name = name
        self.positions = positions
        self.focus_positive_um.put(positions.positive.zone_plate_z_um)
        self.focus_negative_um.put(positions.negative.zone_plate_z_um)
        self.focus_energy_eV.put(positions.focus_energy_eV)
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
        focus_um = self.focus_positive_um if helicity > 0 else self.focus_negative_um
        moves = (
            (self.jaw_down, places.jaw_down_mm),
            (self.jaw_up, places.jaw_up_mm),
            (self.zone_plate_z, focus_um.get()),
        )

        def steps(motion: Motion) -> None:
            if move_together(motion, moves):
                motion.rest(self.positions.settle_time_s)
            astray = [
                f"{axis.name} at {axis.position} {axis.settings.unit}, expected {place} "
                f"+- {axis.settings.tolerance}"
                for axis, place in moves
                if not axis.is_at(place)
            ]
            if astray:
                raise RuntimeError(
                    f"{self.name}: {helicity:+d} is not assigned: {'; '.join(astray)}; check what "
                    "moved it"
                )

        self._motion = Motion(self, steps, after=self._motion)
        return self._motion.start()

    def stop(self, *, success: bool = False) -> None:
        """Stop both jaws and the zone plate where they are."""
        stop_together(
            self._motion, (self.jaw_down, self.jaw_up, self.zone_plate_z), success=success
        )

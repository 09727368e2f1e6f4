"""The one file of addresses, limits and focus positions, read strictly.

A configuration is a TOML file in which every number carries its unit in its key; `simulated.toml`
beside this module describes the simulated beamline.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    model_validator,
)

from mistral_txm.devices.address import Address
from mistral_txm.devices.strict_toml import Misplaced, Strict, read_toml

SIMULATED = Path(__file__).with_name("simulated.toml")
"""The packaged configuration of the simulated beamline."""


_Address = Annotated[Address, BeforeValidator(Address.parse), PlainSerializer(str)]
_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]


class ControlSystemSettings(Strict):
    """How long one control system may take.

    `connection_timeout_s` is until all its devices have answered for the first time, and
    `control_timeout_s` for whatever is neither a motion nor an exposure: a value that is read, a
    setting that is written.
    """

    connection_timeout_s: _Positive
    control_timeout_s: _Positive


class Axis(Strict):
    """A motor: limits and tolerance are in the unit of the axis, which their keys carry.

    `low_limit`, `high_limit`, `tolerance` and `approach` give them without it, for code that treats
    all axes alike. A positive approach means: always arrive from below, starting that far away.
    """

    unit: ClassVar[str]
    address: _Address
    timeout_s: _Positive

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        if not self.low_limit < self.high_limit:
            raise ValueError(
                f"low_limit_{self.unit} = {self.low_limit} must be below "
                f"high_limit_{self.unit} = {self.high_limit}"
            )
        return self

    @property
    def low_limit(self) -> float:
        """Lowest position allowed, in the axis' unit."""
        return self._number("low_limit")

    @property
    def high_limit(self) -> float:
        """Highest position allowed, in the axis' unit."""
        return self._number("high_limit")

    @property
    def tolerance(self) -> float:
        """How far from its target a finished move may end, in the axis' unit."""
        return self._number("tolerance")

    @property
    def approach(self) -> float:
        """How far below its target a move starts that would come from above; 0: any direction."""
        return self._number("approach")

    def _number(self, quantity: str) -> float:
        value: float = getattr(self, f"{quantity}_{self.unit}", 0.0)
        return value


class AxisInDeg(Axis):
    """A rotation, in degrees."""

    unit = "deg"
    low_limit_deg: float
    high_limit_deg: float
    tolerance_deg: _Positive
    approach_deg: _NotNegative = 0.0


class AxisInUm(Axis):
    """A stage of the microscope, in micrometres."""

    unit = "um"
    low_limit_um: float
    high_limit_um: float
    tolerance_um: _Positive


class AxisInMm(Axis):
    """A blade of a slit, in millimetres."""

    unit = "mm"
    low_limit_mm: float
    high_limit_mm: float
    tolerance_mm: _Positive


class AxisInEv(Axis):
    """The monochromator, in electronvolts."""

    unit = "eV"
    low_limit_eV: _Positive
    high_limit_eV: _Positive
    tolerance_eV: _Positive
    approach_eV: _NotNegative = 0.0


class Axes(Strict):
    """All motors."""

    theta: AxisInDeg
    sample_x: AxisInUm
    sample_y: AxisInUm
    sample_z: AxisInUm
    zone_plate_z: AxisInUm
    jaw_up: AxisInMm
    jaw_down: AxisInMm
    energy: AxisInEv


class HelicityPositions(Strict):
    """What selects one helicity: two edges of the slit, and the focus of the light that passes."""

    jaw_down_mm: float
    jaw_up_mm: float
    zone_plate_z_um: float

    @model_validator(mode="after")
    def _slit_is_open(self) -> Self:
        if not self.jaw_down_mm < self.jaw_up_mm:
            raise ValueError(
                f"jaw_down_mm = {self.jaw_down_mm} must be below jaw_up_mm = {self.jaw_up_mm}"
            )
        return self


class PolarizationPositions(Strict):
    """The pair of jaw positions and the focus of each helicity, which holds at one photon energy.

    >>> positions = load_configuration().polarization
    >>> round(positions.focus_um(-1, 710.4), 2)  # 1.5 um at 707.4 eV, and 3.03 um for each eV
    10.59
    """

    settle_time_s: _NotNegative
    slit_distance_m: _Positive
    focus_energy_eV: _Positive
    chromatic_um_per_eV: float
    positive: HelicityPositions
    negative: HelicityPositions

    def of(self, helicity: int) -> HelicityPositions:
        """Return the positions of helicity +1 or -1.

        Raises
        ------
        ValueError
            If the helicity is neither.
        """
        match helicity:
            case 1:
                return self.positive
            case -1:
                return self.negative
        raise ValueError(f"helicity {helicity!r}: expected +1 or -1")

    def focus_um(self, helicity: int, energy_ev: float) -> float:
        """Return where the zone plate focuses a helicity: its focal length grows with the energy.

        Raises
        ------
        ValueError
            If the helicity is neither +1 nor -1.
        """
        shift_um = self.chromatic_um_per_eV * (energy_ev - self.focus_energy_eV)
        return self.of(helicity).zone_plate_z_um + shift_um


class SamplePlaces(Strict):
    """Where the sample stands in the beam, and where the open beam passes beside it."""

    in_x_um: float
    in_y_um: float
    in_z_um: float
    out_x_um: float
    out_z_um: float


class Clearance(Strict):
    """How much room the holder has to turn: it must not touch what stands before and behind it.

    >>> clearance = Clearance(holder_half_width_um=1500.0, free_um=2000.0)
    >>> round(clearance.reach_um(-55.0, 200.0, 0.0))
    1393
    """

    holder_half_width_um: _Positive
    free_um: _Positive

    def reach_um(self, theta_deg: float, x_um: float, z_um: float) -> float:
        """Return how far the holder's edge reaches along the beam from the tilt axis, um.

        ``(|x| + half_width) |sin theta| + |z| cos theta``, where x and z are the stages', which the
        tilt carries.
        """
        theta = math.radians(theta_deg)
        across_um = abs(x_um) + self.holder_half_width_um
        return across_um * abs(math.sin(theta)) + abs(z_um) * math.cos(theta)


class LightSettings(Strict):
    """When light counts as there: below `lowest_current_mA` the beam counts as lost.

    After it was lost, an exposure begins `recovery_s` after it is back. An injection that is less
    than `top_up_guard_s` away is waited for.
    """

    lowest_current_mA: _Positive
    recovery_s: _NotNegative
    top_up_guard_s: _NotNegative


class ShutterSettings(Strict):
    """The shutter: a command and a status that verifies it."""

    address: _Address
    timeout_s: _Positive


class Reading(Strict):
    """What is only read."""

    address: _Address


class CcdSettings(Strict):
    """The camera."""

    address: _Address
    pixel_nm: _Positive
    saturation_counts: Annotated[int, Field(gt=0, le=65535)]
    electrons_per_count: _Positive
    electron_hole_pair_eV: _Positive
    readout_time_s: _NotNegative
    temperature_tolerance_c: _Positive
    timeout_s: _Positive

    def photons(self, counts: float, energy_ev: float) -> float:
        """Return how many photons make so many counts above the dark level.

        ``counts * electrons_per_count / (E / electron_hole_pair)``.
        """
        return counts * self.electrons_per_count * self.electron_hole_pair_eV / energy_ev


class Durations(Strict):
    """How long things usually take, for estimates alone.

    A move takes its distance divided by the axis' speed, and `ramp_s` for its beginning and end, that of the
    monochromator `energy_ramp_s`. A
    `helicity_change_s` is the whole, with its rest; a `frame_overhead_s` what a frame takes beside exposure
    and readout.
    """

    helicity_change_s: _NotNegative
    azimuth_change_s: _NotNegative
    frame_overhead_s: _NotNegative
    ramp_s: _NotNegative
    energy_ramp_s: _NotNegative
    tilt_deg_per_s: _Positive
    sample_um_per_s: _Positive
    zone_plate_um_per_s: _Positive
    energy_eV_per_s: _Positive


class Simulation(Strict):
    """What only a simulated beamline has: a hand that turns the sample, faults, its own clock."""

    azimuth_address: _Address
    faults_address: _Address
    clock_address: _Address


class Configuration(Strict):
    """Everything that is known about one beamline before it is asked.

    >>> configuration = load_configuration()
    >>> configuration.axes.theta.address.name, configuration.axes.theta.tolerance_deg
    ('SIM:GON:THETA', 0.02)
    >>> configuration.polarization.of(-1).zone_plate_z_um
    1.5
    """

    name: str
    control_systems: dict[str, ControlSystemSettings]
    axes: Axes
    polarization: PolarizationPositions
    sample_position: SamplePlaces
    clearance: Clearance
    light: LightSettings
    shutter: ShutterSettings
    front_end: Reading
    ring_current: Reading
    top_up: Reading
    ccd: CcdSettings
    durations: Durations
    simulation: Simulation | None = None

    @property
    def connection_timeout_s(self) -> float:
        """How long the slowest control system may take until its devices have answered, s."""
        return max(each.connection_timeout_s for each in self.control_systems.values())

    @model_validator(mode="after")
    def _every_address_has_its_control_system(self) -> Self:
        for location, address in _addresses(self):
            if address.scheme not in self.control_systems:
                known = ", ".join(f"[control_systems.{each}]" for each in self.control_systems)
                raise Misplaced(
                    location,
                    f"= {str(address)!r} names a control system without a section "
                    f"[control_systems.{address.scheme}]; there is {known or 'none'}",
                )
        return self

    @model_validator(mode="after")
    def _positions_within_limits(self) -> Self:
        used = {
            "polarization.positive": self.polarization.positive,
            "polarization.negative": self.polarization.negative,
            "sample_position": self.sample_position,
        }
        keys = {
            "jaw_down_mm": "jaw_down",
            "jaw_up_mm": "jaw_up",
            "zone_plate_z_um": "zone_plate_z",
            "in_x_um": "sample_x",
            "in_y_um": "sample_y",
            "in_z_um": "sample_z",
            "out_x_um": "sample_x",
            "out_z_um": "sample_z",
        }
        for section, positions in used.items():
            for key in type(positions).model_fields:
                axis: Axis = getattr(self.axes, keys[key])
                position: float = getattr(positions, key)
                if not axis.low_limit <= position <= axis.high_limit:
                    raise Misplaced(
                        (*section.split("."), key),
                        f"= {position} lies outside the limits of axes.{keys[key]}, "
                        f"{axis.low_limit} to {axis.high_limit} {axis.unit}",
                    )
        return self


def _addresses(
    model: BaseModel, location: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Address]]:
    for key, value in model:
        if isinstance(value, Address):
            yield (*location, key), value
        elif isinstance(value, BaseModel):
            yield from _addresses(value, (*location, key))


def load_configuration(path: Path | None = None) -> Configuration:
    """Read a configuration; without a path, the packaged one of the simulated beamline.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, is not TOML, has an unknown key, lacks one, or holds a value of
        the wrong type or out of range: one line with file and line number.
    """
    return read_toml(SIMULATED if path is None else path, Configuration)

"""The numbers behind the physics, read strictly from TOML: every assumption has a name and an origin.

`real.toml` beside this module is complete. Other conditions are files that name what differs from
it: the packaged `ideal.toml`, in which the sample stands where the motors say and nothing drifts,
or one of the user's.
"""

import copy
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from mistral_txm.devices.strict_toml import ConfigurationError, Strict, explain, line_of
from mistral_txm.simulated_beamline.faults import check

FOLDER = Path(__file__).parent
COMPLETE = FOLDER / "real.toml"

_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]


class Clock(Strict):
    """What time it is in the simulation.

    ``repeatable``: every state of the beamline has a moment of its own, drawn from the seed, so
    that the same exposure is the same frame however a measurement was interrupted or ordered.
    ``running``: time passes with every motion and exposure, and what drifts, drifts on.
    """

    kind: Literal["repeatable", "running"]


class Ring(Strict):
    """The storage ring."""

    electron_energy_gev: _Positive
    dipole_field_t: _Positive
    current_ma: _Positive
    lifetime_h: _Positive
    top_up_period_s: _Positive


class Beam(Strict):
    """The beam that the polarization slit accepts."""

    jaw_distance_m: _Positive
    photons_per_s: _Positive
    nominal_jaw_down_mm: float
    nominal_jaw_up_mm: float

    @model_validator(mode="after")
    def _slit_is_open(self) -> Self:
        if not self.nominal_jaw_down_mm < self.nominal_jaw_up_mm:
            raise ValueError(
                f"nominal_jaw_down_mm = {self.nominal_jaw_down_mm} must be below "
                f"nominal_jaw_up_mm = {self.nominal_jaw_up_mm}"
            )
        return self


class Monochromator(Strict):
    """The monochromator."""

    resolving_power: _Positive


class ZonePlate(Strict):
    """The objective."""

    outermost_zone_nm: _Positive
    focal_length_um: _Positive
    nominal_energy_ev: _Positive
    focus_above_um: float
    focus_below_um: float
    focus_angle_mrad: _Positive
    tilted_focus: bool


class Illumination(Strict):
    """The condenser's light on the camera."""

    smooth_rms: _NotNegative
    smooth_scale_pixels: _Positive
    fine_rms: _NotNegative
    fine_scale_pixels: _Positive
    helicity_gradient: float
    helicity_angle_mrad: _Positive
    drift_pixels_per_h: _NotNegative


class Image(Strict):
    """Where the image lies on the camera, in pixels."""

    helicity_shift_u_pixels: float
    helicity_shift_v_pixels: float
    jitter_pixels: Annotated[float, Field(ge=0, le=0.5)]


class Goniometer(Strict):
    """How far the sample stands from where the motors say."""

    run_out_nm: _NotNegative
    sphere_of_confusion_nm: _NotNegative
    axis_offset_x_um: float
    axis_offset_z_um: float
    inclination_deg: float
    lean_deg: float
    azimuth_error_deg: _NotNegative
    mounting_nm: _NotNegative
    drift_nm_per_h: _NotNegative


class Camera(Strict):
    """The CCD."""

    electron_hole_pair_ev: _Positive
    gain_electrons_per_count: _Positive
    full_well_electrons: _Positive
    read_noise_electrons: _NotNegative
    offset_counts: _NotNegative
    dark_electrons_per_s: _NotNegative
    dark_doubling_c: _Positive
    temperature_c: float
    room_c: float
    cooling_time_s: _Positive
    hot_pixels_per_megapixel: Annotated[int, Field(ge=0)]
    hot_low_electrons_per_s: _NotNegative
    hot_high_electrons_per_s: _NotNegative
    zingers_per_megapixel_s: _NotNegative
    zinger_electrons: _NotNegative
    readout_time_s: _NotNegative

    @model_validator(mode="after")
    def _hot_in_order(self) -> Self:
        if self.hot_low_electrons_per_s > self.hot_high_electrons_per_s:
            raise ValueError(
                f"hot_low_electrons_per_s = {self.hot_low_electrons_per_s} must not be above "
                f"hot_high_electrons_per_s = {self.hot_high_electrons_per_s}"
            )
        return self


class Fiducials(Strict):
    """Gold spheres on both surfaces of the sample."""

    radius_nm: _Positive
    radius_spread: Annotated[float, Field(ge=0, lt=1)]
    per_um2: _NotNegative
    below_fraction: Annotated[float, Field(ge=0, le=1)]


class Motor(Strict):
    """How one motor moves, in its own unit."""

    velocity: _Positive
    acceleration_s: _NotNegative
    settle_s: _NotNegative = 0.0
    backlash: _NotNegative = 0.0
    initial: float = 0.0
    precision: Annotated[int, Field(ge=0, le=9)] = 4


class Motors(Strict):
    """All motors, by the names of the configuration's axes."""

    theta: Motor
    sample_x: Motor
    sample_y: Motor
    sample_z: Motor
    zone_plate_z: Motor
    jaw_up: Motor
    jaw_down: Motor
    energy: Motor


class Settings(Strict):
    """Everything that the simulated beamline assumes.

    >>> load_settings("ideal").goniometer.run_out_nm
    0.0
    """

    clock: Clock
    ring: Ring
    beam: Beam
    monochromator: Monochromator
    zone_plate: ZonePlate
    illumination: Illumination
    image: Image
    goniometer: Goniometer
    camera: Camera
    fiducials: Fiducials
    motors: Motors
    faults: dict[str, float] = Field(default_factory=dict)

    @field_validator("faults")
    @classmethod
    def _known_faults(cls, faults: dict[str, float]) -> dict[str, float]:
        for name, value in faults.items():
            check(name, value)
        return faults


def names() -> list[str]:
    """Return the names of the packaged conditions."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_settings(conditions: str | Path) -> Settings:
    """Read conditions: a packaged name, or the path of a TOML file.

    A file holds what differs from the packaged ``real``.

    Raises
    ------
    ConfigurationError
        If there is no such file or name, or it has an unknown key or a value that cannot be: one
        line with file, line and the nearest valid key.
    """
    path = FOLDER / f"{conditions}.toml" if str(conditions) in names() else Path(conditions)
    if path.suffix != ".toml":
        raise ConfigurationError(
            f"conditions {str(conditions)!r} are unknown: expected {' or '.join(names())}, or the "
            "path of a .toml file"
        )
    try:
        text = path.read_text(encoding="utf-8")
        values = _merged(tomllib.loads(COMPLETE.read_text(encoding="utf-8")), tomllib.loads(text))
    except OSError as refusal:
        raise ConfigurationError(f"{path}: {refusal.strerror}") from refusal
    except ValueError as refusal:
        raise ConfigurationError(f"{path}: not TOML in UTF-8: {refusal}") from refusal
    try:
        return Settings.model_validate(values)
    except ValidationError as refusal:
        error = refusal.errors()[0]
        raise ConfigurationError(
            f"{path}:{line_of(text, error['loc'])}: {explain(error, Settings)}"
        ) from refusal


def _merged(complete: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = copy.copy(complete)
    for key, value in changes.items():
        inner = result.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        result[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]  # as checked
    return result

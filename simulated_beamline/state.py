"""The state of the beamline at one exposure: what the physics sees of the control system."""

import hashlib
from dataclasses import astuple, dataclass, fields

from mistral_txm.simulated_beamline.region import Region


@dataclass(frozen=True)
class State:
    """Everything that a frame depends on, apart from the number of the exposure.

    Angles in degrees, stages in micrometres, jaws in millimetres at the distance of the slit, energy
    in eV, exposure and time in seconds. Positions are those of the mechanism, which may differ from
    the readbacks; `azimuth_deg` is what the operator says, `azimuth_error_deg` what a fault adds.
    `time_s` is the clock's time when the exposure began and `visit` counts the motions of the
    sample, both 0 where time is repeatable; `lit_fraction` is how much of the exposure had light. Two
    equal states give the same frames.
    """

    theta_deg: float
    azimuth_deg: float
    sample_x_um: float
    sample_y_um: float
    sample_z_um: float
    zone_plate_z_um: float
    jaw_down_mm: float
    jaw_up_mm: float
    energy_ev: float
    shutter_open: bool
    exposure_s: float
    region: Region
    time_s: float = 0.0
    visit: int = 0
    azimuth_error_deg: float = 0.0
    lit_fraction: float = 1.0
    injection: bool = False
    helicity_swapped: bool = False
    zinger_burst: bool = False
    dark_offset_counts: float = 0.0
    temperature_c: float | None = None
    fiducials_lost: int = 0
    fiducials_merged: int = 0

    @property
    def setting(self) -> tuple[object, ...]:
        """Where everything was set to, apart from what befalls the exposure and what of it is read."""
        names = [field.name for field in fields(self)]
        chosen = [*names[: names.index("shutter_open")], "exposure_s"]
        return tuple(getattr(self, name) for name in chosen)

    def entropy(self, purpose: str, seed: int, *more: int) -> int:
        """Return 128 bits that are drawn from this state, a seed and whole numbers, for one purpose."""
        return entropy(purpose, seed, *astuple(self), *more)


def entropy(purpose: str, seed: int, *values: object) -> int:
    """Return 128 bits drawn from a purpose, a seed and values; lengths and angles count to 6 digits.

    >>> entropy("noise", 1, 0.1 + 0.2) == entropy("noise", 1, 0.3)
    True
    """
    rounded = tuple(
        round(value, 6) + 0.0 if isinstance(value, float) else value for value in values
    )
    digest = hashlib.blake2b(repr((purpose, seed, *rounded)).encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")

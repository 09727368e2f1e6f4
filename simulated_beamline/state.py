"""The state of the beamline at one exposure: what the physics sees of the control system."""

from dataclasses import dataclass


@dataclass(frozen=True)
class State:
    """Everything that a frame depends on, apart from the number of the frame.

    Angles in degrees, stages in micrometres, jaws in millimetres at `source.JAW_DISTANCE_M` from
    the source, energy in eV, exposure in seconds. Two equal states give the same frames.
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

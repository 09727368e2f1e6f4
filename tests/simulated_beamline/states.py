"""How the simulated beamline stands when a test says no more."""

from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.state import State

POSITIVE = State(
    theta_deg=0.0,
    azimuth_deg=0.0,
    sample_x_um=0.0,
    sample_y_um=0.0,
    sample_z_um=0.0,
    zone_plate_z_um=0.0,
    jaw_down_mm=1.5,
    jaw_up_mm=2.5,
    energy_ev=707.4,
    shutter_open=True,
    exposure_s=8.0,
    region=Region(0, 0, 64, 64),
)
"""Sample in the beam at no tilt, light of positive helicity, 8 s, 64 x 64 pixels."""

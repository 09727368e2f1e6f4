"""MARTApp's second stage, written as MARTApp writes it."""

import h5py
import numpy as np


def write_normalized(path, stack):
    """Write the exposures of one helicity: every value a vector, lengths in um, the helicity where it is known."""
    with h5py.File(path, "w") as file:
        group = file.create_group("TomoNormalized")
        for name, values, units in (
            ("TomoNormalized", stack.transmittance_tvu, None),
            ("rotation_angle", stack.theta_deg, "degrees"),
            ("ExpTimes", stack.exposure_s, "s"),
            ("Currents", stack.ring_current_ma, "mA"),
            ("energy", stack.energy_ev, "eV"),
            ("x_pixel_size", [stack.pixel_nm * 1e-3], "um"),
            ("y_pixel_size", [stack.pixel_nm * 1e-3], "um"),
        ):
            group[name] = np.asarray(values)
            if units is not None:
                group[name].attrs["units"] = units
        group["TomoNormalized"].attrs["Number of Frames"] = len(stack.transmittance_tvu)
        if not np.isnan(stack.polarization):
            group["polarisation"] = [stack.polarization]

"""What each prior gives on each texture, with the noise of a real dose: `python -m benchmarks.priors`.

128 x 128 pixels, 24 layers, 87 tilts at each of two azimuths, noise and blur as in `tilt_series`. Angles are medians
over all magnetic voxels, edges and corners included; "turned" over those alone whose truth leans more than 25 deg from
the film normal: most of the hopfion's field of view is uniform, which anything gets right.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from benchmarks.tilt_series import Measured, angles_deg, measure
from mistral_txm.reconstruction import reconstruct

TEXTURES = ("stripes", "vortex", "hopfion", "neel_skyrmions")
PRIORS = ("none", "layers", "norm")
LINEAR_DEG = {"stripes": 21.0, "vortex": 5.0, "hopfion": 31.0, "neel_skyrmions": 15.0}
"""Median angle of a plain linear solver without prior or with layers, the better of both; `norm` is to halve it."""


@dataclass(frozen=True)
class Line:
    """One row: relative vector error, median angles in deg, and seconds."""

    texture: str
    prior: str
    error: float
    angle_deg: float
    turned_deg: float
    far: float
    seconds: float


def measured_line(case: Measured, prior: str) -> Line:
    """Reconstruct a texture with a prior, and compare with the truth."""
    start = time.perf_counter()
    result = reconstruct(
        case.series,
        case.grid,
        prior=prior,
        layers_nm=() if prior == "none" else case.layers_nm,
        delta_per_nm=None if prior == "norm" else case.delta_per_nm,
    )
    seconds = time.perf_counter() - start
    error, angle_deg = case.errors(result.m_czyx)
    angles = angles_deg(result.m_czyx, case.truth_czyx)
    turned = np.isfinite(angles) & (np.abs(case.truth_czyx[2]) < 0.9)
    return Line(
        case.name,
        prior,
        error,
        angle_deg,
        float(np.median(angles[turned])),
        float(np.nanmean(angles[np.isfinite(angles)] > 60)),
        seconds,
    )


def main() -> None:
    """Print the table."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before the start")
    print(f"{'':16}{'':8}{'error':>7}{'angle':>8}{'turned':>8}{'>60 deg':>9}{'s':>6}  linear, half")
    for name in TEXTURES:
        case = measure(name)
        print(f"{name}: noise {case.noise_std:.4f}, signal {case.signal_std:.4f} rms")
        for prior in PRIORS:
            line = measured_line(case, prior)
            print(
                f"{'':16}{line.prior:8}{line.error:7.2f}{line.angle_deg:8.2f}{line.turned_deg:8.2f}{line.far:9.2%}"
                f"{line.seconds:6.0f}  {LINEAR_DEG[name]:.1f}, {LINEAR_DEG[name] / 2:.1f} deg",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Compile the loops of a film's reconstruction once, so that no measurement waits for it: ``make env`` runs this.

Numba compiles a loop when it is first called and keeps it beside its module; all of them take most of a minute, which
otherwise the first volume of the live reconstruction would.
"""

from __future__ import annotations

import numpy as np

from mistral_txm.reconstruction.geometry import Grid
from mistral_txm.reconstruction.reconstruct import reconstruct
from mistral_txm.reconstruction.tilt_series import TiltSeries


def main() -> None:
    """Reconstruct a few views of noise by the methods that share no loops."""
    rng = np.random.default_rng(0)
    theta_deg = np.arange(-50.0, 51.0, 10.0)
    series = [
        TiltSeries(phi_deg, theta_deg, rng.normal(size=(11, 32, 32)), np.full(11, 1.0))
        for phi_deg in (0.0, 102.0)
    ]
    grid = Grid((12, 32, 32), 10.5)
    reconstruct(series, grid, prior="norm", layers_nm=[(-40.0, 40.0)])
    reconstruct(series, grid, method="cgls", iterations=2)


if __name__ == "__main__":
    main()

"""Whole reconstructions at the size of the publication: seconds, peak memory, and how both grow with the area.

Each runs in a process of its own, ``python -m benchmarks.reconstruction PIXELS PRIOR``, after a small one that
compiles; it counts resampling, data fraction and residuals, and its memory is that of the process at its peak, the
views included. With ``cgls`` in place of a prior one of its iterations is timed, on the domain that `reconstruct` pads.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import scipy.ndimage

from benchmarks.projector import THETA_DEG, VOXEL_NM
from mistral_txm.reconstruction import Grid, TiltSeries, reconstruct

LAYERS_NM = ((-120.0, -40.0), (40.0, 120.0))
DEPTH = 80
CASES = (
    (200, "none", None, None),
    (400, "none", 8.0, 4.0),
    (400, "norm", 90.0, None),
    (400, "cgls", 1.0, None),
    (1024, "none", None, 12.0),
)
"""Pixels, prior (of `direct`) or "cgls", and the limits: seconds and GB."""


def _series(n: int) -> list[TiltSeries]:
    """Smooth random views of a film, with 2 % noise."""
    rng = np.random.default_rng(0)
    series = []
    for phi_deg in (0.0, 102.0):
        views = rng.normal(size=(THETA_DEG.size, n, n)).astype(np.float32)
        for view in views:
            view *= 0.02
            view += 20 * scipy.ndimage.gaussian_filter(view / np.float32(0.02), 8)
        series.append(TiltSeries(phi_deg, THETA_DEG, views, np.full(THETA_DEG.size, 0.02)))
    return series


def measured(n: int, prior: str) -> tuple[float, float]:
    """Seconds of a reconstruction, and the peak memory of this process, GB."""
    layers_nm = LAYERS_NM if prior == "norm" else ()
    few = [
        TiltSeries(
            one.phi_deg, THETA_DEG[::20], np.asarray(one.dichroic_tvu)[::20], np.full(5, 0.02)
        )
        for one in _series(32)
    ]
    small = Grid((DEPTH, 32, 32), VOXEL_NM)
    if prior == "cgls":
        reconstruct(few, small, method="cgls", iterations=2)
    else:
        reconstruct(few, small, prior=prior, layers_nm=layers_nm)
    series, grid = _series(n), Grid((DEPTH, n, n), VOXEL_NM)
    if prior == "cgls":
        ends: list[float] = []
        reconstruct(
            series, grid, method="cgls", iterations=6, callback=lambda *_: ends.append(time.perf_counter())
        )  # fmt: skip
        seconds = float(np.min(np.diff(ends)))
    else:
        start = time.perf_counter()
        reconstruct(series, grid, prior=prior, layers_nm=layers_nm)
        seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def reconstruction_lines() -> Iterator[str]:
    """Lines of the table."""
    yield f"reconstruction, direct, 174 views, {DEPTH} layers{'seconds':>12}{'limit':>8}{'GB':>8}{'limit':>8}"
    for n, prior, limit_s, limit_gb in CASES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.reconstruction", str(n), prior],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds, gb = json.loads(done.stdout)
        limits = [f"{limit:g}" if limit else "" for limit in (limit_s, limit_gb)]
        what = "an iteration of cgls" if prior == "cgls" else f"prior {prior}"
        yield f"{f'{n} x {n}, {what}':46}{seconds:9.1f}{limits[0]:>8}{gb:8.2f}{limits[1]:>8}"


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]), sys.argv[2])))

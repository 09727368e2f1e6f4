"""The simulated beamline against its limits: processor time of a frame and of a view, memory."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from mistral_txm.simulated_beamline import textures
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.state import State

FRAME_LIMIT_MS = 70.0
VIEW_LIMIT_S = 2.0
MEMORY_LIMIT_MB = 1500.0
TILTS_DEG = (0.0, 55.0)


def _best_s(work: Callable[[float], object], repeats: int) -> float:
    durations_s = []
    for repeat in range(repeats):
        begin_s = time.process_time()
        work(float(repeat))
        durations_s.append(time.process_time() - begin_s)
    return min(durations_s)


def measure(pixels: int) -> dict[str, float]:
    """Return ms per frame, s per view at each tilt and MB at the peak, in this process.

    A view is what the first frame of a new pose takes more than the second; in it, the time of all
    that is rendered anew when the sample has turned.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    settings = load_settings("real")
    sample = Sample(textures.load("stripes"), 1, settings.fiducials)
    beamline = Beamline(sample, settings, (pixels, pixels), 1)
    state = State(
        theta_deg=1.0,
        azimuth_deg=0.0,
        sample_x_um=0.0,
        sample_y_um=0.0,
        sample_z_um=0.0,
        zone_plate_z_um=0.0,
        jaw_down_mm=settings.beam.nominal_jaw_down_mm,
        jaw_up_mm=settings.beam.nominal_jaw_up_mm,
        energy_ev=707.4,
        shutter_open=True,
        exposure_s=8.0,
        region=Region(0, 0, pixels, pixels),
    )
    beamline.frame(state, 0)  # compiles
    frame_s = _best_s(lambda index: beamline.frame(state, int(index)), 10)
    result = {
        f"view_{theta_deg:g}_s": _best_s(
            lambda repeat, theta=theta_deg: beamline.frame(
                replace(state, theta_deg=theta + 0.1 * repeat), 0
            ),
            2,
        )
        - frame_s
        for theta_deg in TILTS_DEG
    }
    result["frame_ms"] = 1000 * frame_s
    result["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def simulated_beamline_lines() -> list[str]:
    """Return the table, measured on one core in a process for each size of the image."""
    results = {}
    for pixels in (256, 1024):
        output = subprocess.run(
            [sys.executable, "-m", "benchmarks.simulated_beamline", str(pixels)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        ).stdout
        results[pixels] = json.loads(output)
    rows = [
        ("frame with all noise", "frame_ms", "ms", FRAME_LIMIT_MS),
        *(
            (f"view, tilt {tilt:g} deg", f"view_{tilt:g}_s", "s", VIEW_LIMIT_S)
            for tilt in TILTS_DEG
        ),
        ("memory at its peak", "memory_mb", "MB", MEMORY_LIMIT_MB),
    ]
    return [
        f"{'simulated beamline, real, one core':36}"
        + "".join(f"{n} x {n}".rjust(14) for n in results)
        + f"{'limit':>10}",
        *(
            f"{what:36}"
            + "".join(
                f"{result[key]:11.{0 if limit > 100 else 2}f} {unit:2}"
                for result in results.values()
            )
            + f"{limit:10g}"
            for what, key, unit, limit in rows
        ),
    ]


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))

"""The simulated beamline against its limits: processor time of a frame and of a view, memory."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from mistral_txm.simulated_beamline import detector, materials, optics, textures
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.sample import PIXEL_NM, Pose, Sample
from mistral_txm.simulated_beamline.settings import load_settings

FRAME_LIMIT_MS = 70.0
VIEW_LIMIT_S = 2.0
MEMORY_LIMIT_MB = 1500.0
ENERGY_EV = 707.4
PHOTONS = 400.0
MARGIN = 12
TILTS_DEG = (0.0, 55.0)


def _best_s(work: Callable[[float], object], repeats: int) -> float:
    durations_s = []
    for repeat in range(repeats):
        begin_s = time.process_time()
        work(float(repeat))
        durations_s.append(time.process_time() - begin_s)
    return min(durations_s)


def measure(pixels: int) -> dict[str, float]:
    """Return ms per frame, s per view at each tilt and MB at the peak, in this process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    settings = load_settings("real")
    sample = Sample(textures.load("stripes"), 1, settings.fiducials)
    spheres_nm = sample.spheres()
    zone_plate = optics.ZonePlate(settings.zone_plate)
    illumination = optics.Illumination(settings.illumination, (pixels, pixels), 1)
    ccd = detector.Ccd(settings.camera, (pixels, pixels), 1)
    random = np.random.Generator(np.random.SFC64(1))
    side = pixels + 2 * (optics.PADDING + MARGIN)

    def view(theta_deg: float, azimuth_deg: float) -> optics.Image:
        its = sample.view(
            Pose(theta_deg, azimuth_deg), (side, side), materials.MAGNETIC, spheres_nm
        )
        absorbance_vu = np.zeros((side, side), np.float32)
        for material, path_nm in its.path_nm.items():
            mu = materials.absorption_per_nm(material, ENERGY_EV, 2000.0)
            absorbance_vu += np.float32(mu) * path_nm
        for material, dichroic_nm in its.dichroic_nm.items():
            delta = materials.dichroism_per_nm(material, ENERGY_EV, 2000.0)
            absorbance_vu += np.float32(delta) * dichroic_nm
        return zone_plate.image(np.exp(-absorbance_vu), PIXEL_NM, 0.2, theta_deg, ENERGY_EV)

    def frame(number: float) -> object:
        photons_vu = illumination.image(0.2, 60 * number) * np.float32(PHOTONS)
        photons_vu *= optics.shifted(image_vu, 0.3, -0.2, MARGIN)
        return ccd.read(photons_vu, ENERGY_EV, 8.0, random, region=region)

    region = Region(0, 0, pixels, pixels)
    image_vu = view(1.0, 0.0)  # compiles
    frame(0.0)
    result = {
        f"view_{theta_deg:g}_s": _best_s(
            lambda azimuth_deg, theta=theta_deg: view(theta, azimuth_deg), 2
        )
        for theta_deg in TILTS_DEG
    }
    result["frame_ms"] = 1000 * _best_s(frame, 10)
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

"""What a planned measurement takes, and what stands in its way, before anything moves."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path

from mistral_txm.devices.configuration import Configuration
from mistral_txm.plans import Measurement, PlanError, check_positions, estimate

FRAME_SHAPES_VU = {"small": (256, 256), "medium": (256, 256), "paper": (1024, 1024)}


def summarize(
    configuration: Configuration, measurement: Measurement, size: str
) -> dict[str, str | float]:
    """Return time, frames, data and dose of a measurement, each under a name that carries its unit."""
    what = estimate(measurement, configuration, FRAME_SHAPES_VU[size])
    end = datetime.now() + timedelta(seconds=what.duration_s)
    return {
        "beamline": configuration.name,
        "azimuths": len(measurement.azimuths_deg),
        "tilts_per_azimuth": len(measurement.angles_deg),
        "exposures": len(measurement.planned_keys()),
        "frames_with_flats_and_darks": what.frames,
        "helicity_changes": what.helicity_changes,
        "exposure_h": round(what.exposure_s / 3600, 2),
        "duration_h": round(what.duration_s / 3600, 2),
        "ends_if_started_now": end.isoformat(sep=" ", timespec="minutes"),
        "data_GB": round(what.bytes / 1e9, 2),
    }


def problems(
    configuration: Configuration, measurement: Measurement, size: str, data: Path
) -> list[str]:
    """Return what stands in the way of a measurement, a line each; an empty list if nothing does.

    Positions against the limits of the configuration, the data folder, and the space on its disk.
    """
    found = []
    try:
        check_positions(configuration, measurement)
    except PlanError as problem:
        found.append(str(problem))
    place = next(folder for folder in (data, *data.parents) if folder.exists())
    if not place.is_dir():
        found.append(f"{data}: {place} is not a folder; choose another data folder")
        return found
    needed = estimate(measurement, configuration, FRAME_SHAPES_VU[size]).bytes
    free = shutil.disk_usage(place).free
    if needed > free:
        found.append(
            f"{data}: the frames need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make room or choose "
            "another data folder"
        )
    try:
        data.mkdir(parents=True, exist_ok=True)
        with (data / ".writable").open("wb"):
            pass
        (data / ".writable").unlink()
    except OSError as error:
        found.append(f"{data}: cannot be written ({error.strerror}); choose another data folder")
    return found

"""Takes measurements in simulation, and prints what its clock says of each, and the estimate.

Usage: clock_of_measurements.py DATA CONDITIONS. At time scale 0, where computing takes no beam time.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

COMMON: dict[str, Any] = {
    "sample": {"name": "film"},
    "azimuths_deg": [0.0],
    "energies_ev": [707.4],
    "flats": {"exposure_s": 3.0, "repeats": 2},
    "darks": {"repeats": 2},
}


def tilts(
    first: float, last: float, step: float, exposure_s: float, repeats: int
) -> dict[str, Any]:
    return {
        "first_deg": first,
        "last_deg": last,
        "step_deg": step,
        "exposure_s": exposure_s,
        "repeats": repeats,
    }


MEASUREMENTS: dict[str, dict[str, Any]] = {
    "regions": {
        **COMMON,
        "azimuths_deg": [0.0, 102.0],
        "tilts": [tilts(-55.0, -45.0, 5.0, 20.0, 3), tilts(-40.0, -20.0, 10.0, 12.0, 2)],
    },
    "interleaved": {
        **COMMON,
        "energies_ev": [707.4, 778.1],
        "edges": "interleaved",
        "tilts": [tilts(-30.0, 30.0, 30.0, 12.0, 1)],
    },
    "flats between": {
        **COMMON,
        "flats": {"exposure_s": 3.0, "repeats": 2, "at_end": True, "every_tilts": 2},
        "tilts": [tilts(-40.0, 40.0, 20.0, 20.0, 2)],
        "return_to_zero": {"repeats": 3},
    },
}


def settled_s(clock: Any) -> float:
    """Return the clock once it runs idly: what it publishes may be a moment old."""
    last_s, quiet = float(clock.get(use_monitor=False)), 0
    while quiet < 3:
        time.sleep(0.1)
        now_s = float(clock.get(use_monitor=False))
        quiet = quiet + 1 if 0 < now_s - last_s < 1 else quiet if now_s == last_s else 0
        last_s = now_s
    return last_s


def main(data: Path, conditions: str) -> None:
    """Measure, and print ``{name: [clock_s, estimated_s]}``."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    beamline = importlib.import_module("conftest")
    port = beamline.os.environ["EPICS_CA_SERVER_PORT"]
    beamline.RESERVED.close()
    options = ("--time-scale", "0", "--conditions", conditions, "--port", port)
    with beamline.run_simulated_beamline(data, *options) as served:
        import epics
        from bluesky import RunEngine

        from mistral_txm.devices.configuration import load_configuration
        from mistral_txm.devices.instrument import make_instrument
        from mistral_txm.plans import Measurement, estimate, vector_tomography

        configuration = load_configuration()
        instrument = make_instrument(configuration, served.data / "frames")
        instrument.connect(120.0)
        RE = RunEngine({}, context_managers=[])

        async def answer(_message: Any) -> str:
            return "102"

        RE.register_command("input", answer)
        clock = epics.PV("SIM:CLOCK")
        result = {}
        for name, description in MEASUREMENTS.items():
            measurement = Measurement.from_dict(description)
            instrument.azimuth.set(0.0)
            began_s = settled_s(clock)
            RE(vector_tomography(instrument, measurement))
            taken_s = settled_s(clock) - began_s
            found = estimate(measurement, configuration, (256, 256))
            result[name] = [taken_s, found.duration_s - found.azimuth_s]
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
